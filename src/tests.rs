//! Tests that run inside a backend, each in a transaction that is rolled back. Tests that need real
//! connections are in `tests/`.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    fn text(sql: &str) -> Option<String> {
        Spi::get_one(sql).unwrap_or_else(|why| panic!("{sql}: {why}"))
    }

    #[pg_test]
    fn without_anything_configured_there_is_no_identity() {
        assert_eq!(
            text("SELECT source FROM auth.status()").as_deref(),
            Some("none")
        );
        assert_eq!(text("SELECT auth.user_id()"), None);
        assert_eq!(text("SELECT auth.jwt()::text").as_deref(), Some("null"));
    }

    #[pg_test]
    fn a_plpgsql_expression_sees_each_change_of_identity() {
        Spi::run(
            "CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE seen text := '';
             BEGIN
                 FOR i IN 1..20 LOOP
                     PERFORM set_config('pg_session_jwt.claims', format('{\"sub\":\"%s\"}', i), true);
                     seen := seen || auth.user_id() || ',';
                 END LOOP;
                 RETURN seen;
             END $$",
        )
        .expect("valid SQL");
        let expected: String = (1..=20).map(|i| format!("{i},")).collect();
        assert_eq!(text("SELECT who()"), Some(expected));
    }

    #[pg_test]
    fn a_value_that_a_query_keeps_outlives_the_identity_it_came_from() {
        // The window keeps each row's value while later rows change who the user is.
        let ids = text(
            "SELECT string_agg(first || last, ',') FROM (
                 SELECT first_value(id) OVER w AS first, last_value(id) OVER w AS last FROM (
                     SELECT i, set_config('pg_session_jwt.claims', format('{\"sub\":\"%s\"}', i), true),
                         auth.user_id() AS id
                     FROM generate_series(1, 3) AS i OFFSET 0) AS changing
                 WINDOW w AS (ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS kept",
        );
        assert_eq!(ids.as_deref(), Some("11,12,13"));
    }

    #[pg_test]
    fn providers_count_in_the_transaction_that_registers_them() {
        let jwk =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        Spi::run(&format!(
            "INSERT INTO auth.providers (name, jwks) VALUES ('p', '{jwk}')"
        ))
        .expect("a sound row");
        assert_eq!(
            text("SELECT source FROM auth.status()").as_deref(),
            Some("auth.providers")
        );
        Spi::run("DELETE FROM auth.providers").expect("valid SQL");
        assert_eq!(
            text("SELECT source FROM auth.status()").as_deref(),
            Some("none")
        );
    }

    #[pg_test(error = "invalid JWT encoding")]
    fn a_malformed_token_is_an_error() {
        Spi::run("SELECT auth.jwt_session_init('a.b')").expect("raises before");
    }
}
