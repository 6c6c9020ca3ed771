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

    /// Citus passes SET LOCAL on to its nodes when the statement passes its hook. This hook stands in for it, and notes
    /// what passes.
    mod utility {
        use std::ffi::CStr;
        use std::sync::Mutex;

        use pgrx::pg_sys;

        pub static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

        pub fn install() {
            // SAFETY: a backend has one thread; the hook stays for the life of this one.
            unsafe { pg_sys::ProcessUtility_hook = Some(hook) };
        }

        unsafe extern "C-unwind" fn hook(
            statement: *mut pg_sys::PlannedStmt,
            text: *const std::ffi::c_char,
            read_only: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        ) {
            // SAFETY: called by Postgres with valid arguments, which are passed on.
            unsafe {
                let node = (*statement).utilityStmt;
                if (*node).type_ == pg_sys::NodeTag::T_VariableSetStmt {
                    let set = &*node.cast::<pg_sys::VariableSetStmt>();
                    let name = CStr::from_ptr(set.name).to_string_lossy();
                    let text = CStr::from_ptr(text).to_string_lossy();
                    let value = text.rsplit(" = ").next().unwrap_or_default();
                    SEEN.lock()
                        .unwrap()
                        .push(format!("{} {name} {value}", set.is_local));
                }
                pg_sys::standard_ProcessUtility(
                    statement,
                    text,
                    read_only,
                    context,
                    parameters,
                    environment,
                    receiver,
                    completion,
                );
            }
        }
    }

    #[pg_test]
    fn citus_sees_a_token_that_is_presented_and_forgotten_for_the_transaction() {
        utility::install();
        let jwk = r#"{"kty":"oct","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
        Spi::run(&format!(
            "INSERT INTO auth.providers (name, jwks, required_claims) VALUES ('p', '{jwk}', '{{}}')"
        ))
        .expect("a valid provider");
        // {"alg":"HS256"}.{"sub":"alice","role":"authenticated"}
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsInJvbGUiOiJhdXRoZW50aWNhdGVkIn0.EUOx7TyjTUaxXEw1GteRoS1HOgXkMSsDl_pEgne44uU";
        let calls = [
            (format!("auth.jwt_session_init('{token}', true)"), token),
            ("auth.logout()".to_owned(), ""),
            (format!("auth.login('{token}')"), token),
            ("auth.login('')".to_owned(), ""),
        ];
        Spi::run("SELECT auth.create_roles()").expect("roles");
        let headers = format!(r#"{{"authorization":"Bearer {token}"}}"#);
        Spi::run(&format!("SET LOCAL request.headers = '{headers}'")).expect("headers");
        let calls = calls
            .into_iter()
            .chain([("auth.pre_request()".to_owned(), token)]);
        for (call, value) in calls {
            for setting in ["", "none", "local"] {
                Spi::run(&format!(
                    "SET LOCAL citus.propagate_set_commands = '{setting}'"
                ))
                .expect("a placeholder");
                utility::SEEN.lock().unwrap().clear();
                Spi::run(&format!("SELECT {call}")).unwrap_or_else(|why| panic!("{call}: {why}"));
                let seen = std::mem::take(&mut *utility::SEEN.lock().unwrap());
                let expected = format!("true pg_session_jwt.jwt '{value}'");
                let expected = if setting == "local" {
                    vec![expected]
                } else {
                    vec![]
                };
                assert_eq!(seen, expected, "{call} {setting}");
                let user = (!value.is_empty()).then_some("alice");
                assert_eq!(
                    text("SELECT auth.user_id()").as_deref(),
                    user,
                    "{call} {setting}"
                );
                Spi::run("RESET ROLE").expect("the role before");
            }
        }
    }
}
