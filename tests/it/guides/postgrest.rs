//! docs/guides/postgrest.md, with PostgREST's statements for a request: it is not in the registries.

use harness::{Issuer, Refusal, Session, first_line, now};
use serde_json::{Value, json};

use super::provider::CLERK;
use super::{Guide, Provider, documented};

/// As long as PostgREST wants it, and longer.
const SECRET: &str = "reallyreallyreallyreallyverysafe-and-a-little-longer-for-base64-lines";

/// What stands in for PostgREST: it has verified the token, or taken none, and sends what its `txVarQuery` and
/// `preReqQuery` make (version 14), as prepared statements, then the main query.
struct PostgRest {
    session: Session,
    pre_request: String,
}

impl PostgRest {
    /// With the page's configuration.
    fn of(guide: &Guide) -> Self {
        let setting = |name: &str| {
            let start = format!("{name} = \"");
            let (_, rest) = guide.markdown.split_once(&start).expect(name);
            rest.split('"').next().expect("an end").to_owned()
        };
        assert_eq!(
            (setting("db-schemas"), setting("db-anon-role")),
            ("api".into(), "anon".into())
        );
        Self {
            session: guide.connect("authenticator"),
            pre_request: setting("db-pre-request"),
        }
    }

    /// A request with the claims that it believes, and this token in the header.
    fn request(
        &mut self,
        method: &str,
        claims: &Value,
        token: Option<&str>,
        query: &str,
    ) -> Result<Vec<String>, Refusal> {
        let role = claims["role"].as_str().expect("a role").to_owned();
        let bearer = |token| json!({"authorization": format!("Bearer {token}")});
        let headers = token.map_or_else(|| json!({}), bearer).to_string();
        let access = if method == "GET" {
            "READ ONLY"
        } else {
            "READ WRITE"
        };
        self.session.run(&format!("START TRANSACTION {access}"));
        let variables = "select set_config('search_path', $1, true), set_config('role', $2, true),
            set_config('request.jwt.claims', $3, true), set_config('request.method', $4, true),
            set_config('request.path', $5, true), set_config('request.headers', $6, true),
            set_config('request.cookies', $7, true)";
        let values = [
            r#""api", "public""#,
            &role,
            &claims.to_string(),
            method,
            "/todos",
            &headers,
            "{}",
        ];
        let values: Vec<_> = values
            .iter()
            .map(|it| it as &(dyn postgres::types::ToSql + Sync))
            .collect();
        let client = &mut self.session.client;
        let call = format!("select {}()", self.pre_request);
        let outcome = (|| {
            client.query(variables, &values)?;
            client.query(&call, &[])?;
            client.query(query, &[])
        })();
        let outcome = outcome.map_err(|error| Refusal::from_error(&error));
        self.session.run(if outcome.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        });
        Ok(outcome?.iter().map(|row| row.get(0)).collect())
    }
}

#[test]
fn the_page_is_a_path_to_the_first_authorised_row() {
    let clerk = Provider::new();
    let documented =
        documented("Clerk v2, no active organization, with the database role that Supabase wants");
    let token = |user| clerk.token(&documented, user);
    let guide = Guide::printed("postgrest")
        .instead_of(CLERK, &clerk.url())
        .set("secret", SECRET)
        .set("alice", &token("user_alice"))
        .set("bob", &token("user_bob"));
    guide.play(|_, _| {});

    let mut postgrest = PostgRest::of(&guide);
    let anonymous = json!({"role": "anon"});
    let todos = "SELECT task FROM todos";
    let add = "INSERT INTO todos (task) VALUES ('from the API') RETURNING task";
    for round in 0..3 {
        for (user, wanted) in [("user_alice", 1), ("user_bob", 0)] {
            let claims = clerk.claims(&documented, user);
            let rows = postgrest.request("GET", &claims, Some(&token(user)), todos);
            assert_eq!(rows.unwrap().len(), wanted + round, "{user}");
            let added = postgrest.request("POST", &claims, Some(&token(user)), add);
            assert_eq!(added.unwrap(), ["from the API"]);
            postgrest.session.assert_nobody();
        }
        assert_eq!(
            postgrest.request("GET", &anonymous, None, todos).unwrap(),
            [""; 0]
        );
        // What PostgREST believes is not what counts, should it ever be wrong.
        let alice = clerk.claims(&documented, "user_alice");
        let rows = postgrest.request("GET", &alice, Some(&token("user_carol")), todos);
        assert_eq!(rows.unwrap(), [""; 0]);
        assert_eq!(
            postgrest.request("GET", &alice, None, todos).unwrap(),
            [""; 0]
        );
        for (token, line) in [
            (
                Issuer::other_rs256().with_kid("ins_2abc").token(&alice),
                first_line::SIGNATURE,
            ),
            (
                {
                    let mut late = alice.clone();
                    late["exp"] = json!(now() - 61);
                    clerk.sign(&late)
                },
                first_line::EXPIRED,
            ),
        ] {
            let refusal = postgrest
                .request("GET", &alice, Some(&token), todos)
                .unwrap_err();
            refusal.assert("28000", line);
        }
    }
    // A token that the application has signed itself.
    let own = json!({"sub": "user_erin", "role": "authenticated", "exp": now() + 60});
    let secret = Issuer::secret(SECRET.as_bytes());
    let added = postgrest.request("POST", &own, Some(&secret.token(&own)), add);
    assert_eq!(added.unwrap(), ["from the API"]);
    let forged = Issuer::hs256().token(&own);
    let refusal = postgrest.request("GET", &own, Some(&forged), todos);
    refusal.unwrap_err().assert("28000", first_line::SIGNATURE);
    // Past PostgREST.
    let mut other = guide.connect("authenticator");
    other.run("SET ROLE authenticated; SET request.jwt.claims = '{\"sub\":\"user_alice\"}'");
    assert_eq!(other.rows("SELECT task FROM api.todos"), [""; 0]);
    assert_eq!(other.user_id(), None);
}
