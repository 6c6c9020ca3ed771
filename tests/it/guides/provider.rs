//! The issuer of a page: its claims as it documents them, signed by a key that is published on loopback.

use harness::{Issuer, Refusal, Session, Web, documented_claims, first_line, now, sql_text};
use serde_json::{Value, json};

/// Where the pages have Clerk.
pub const CLERK: &str = "https://your-instance.clerk.accounts.dev";

/// Claims as the issuer documents them: the vector of this name in tests/vectors/identity.json.
pub fn documented(name: &str) -> Value {
    let vectors = documented_claims();
    let vector = vectors.iter().find(|vector| vector["name"] == name);
    vector.expect(name)["claims"].clone()
}

/// An issuer on loopback: discovery, and a key set with one key.
pub struct Provider {
    web: Web,
    key: Issuer,
    /// What its tokens say in `iss`, if that is not its address here.
    issuer: Option<&'static str>,
}

impl Provider {
    /// One whose tokens name its address here.
    pub fn new() -> Self {
        let key = Issuer::rs256().with_kid("ins_2abc").with("use", "sig");
        let web = Web::http();
        web.serve_issuer(&[&key]);
        Self {
            web,
            key,
            issuer: None,
        }
    }

    /// One whose tokens name this issuer; its keys are here.
    pub fn named(issuer: &'static str) -> Self {
        Self {
            issuer: Some(issuer),
            ..Self::new()
        }
    }

    /// Its address here.
    pub fn url(&self) -> String {
        self.web.url()
    }

    /// Where its keys are.
    pub fn jwks_url(&self) -> String {
        self.web.url() + "/jwks"
    }

    /// These claims, of this user and of now.
    pub fn claims(&self, documented: &Value, user: &str) -> Value {
        let mut claims = documented.clone();
        claims["iss"] = json!(self.issuer.map_or_else(|| self.url(), str::to_owned));
        claims["sub"] = json!(user);
        claims["exp"] = json!(now() + 60);
        for time in ["iat", "nbf"] {
            if !claims[time].is_null() {
                claims[time] = json!(now());
            }
        }
        claims
            .as_object_mut()
            .expect("claims")
            .retain(|_, it| !it.is_null());
        claims
    }

    /// A token with these claims as they are.
    pub fn sign(&self, claims: &Value) -> String {
        self.key.token(claims)
    }

    /// A token of this user and of now.
    pub fn token(&self, documented: &Value, user: &str) -> String {
        self.sign(&self.claims(documented, user))
    }
}

/// A request as the pages have it: the token first (none: NULL), then these statements; what the last one answers.
/// Nothing is rolled back but errors.
pub fn request(
    app: &mut Session,
    token: Option<&str>,
    statements: &[&str],
) -> Result<Vec<String>, Refusal> {
    let login = format!(
        "SELECT auth.login({})",
        token.map_or("NULL".into(), sql_text)
    );
    app.run("BEGIN");
    let mut answer = Ok(Vec::new());
    for sql in [&[login.as_str()], statements].concat() {
        answer = app.try_rows(sql);
        if answer.is_err() {
            break;
        }
    }
    app.run(if answer.is_ok() { "COMMIT" } else { "ROLLBACK" });
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".to_owned());
    let line = |row: Vec<Option<String>>| row.into_iter().map(cell).collect::<Vec<_>>().join(", ");
    Ok(answer?.into_iter().map(line).collect())
}

/// What a user sees.
#[track_caller]
pub fn seen(app: &mut Session, token: &str, query: &str) -> Vec<String> {
    request(app, Some(token), &[query]).expect("a good token")
}

/// A token that is expired, forged, of another issuer, or no token: an error, and no one comes of it.
#[track_caller]
pub fn refuses_what_is_not_a_good_token(
    app: &mut Session,
    provider: &Provider,
    documented: &Value,
) {
    let claims = provider.claims(documented, "mallory");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let forger = Issuer::other_rs256().with_kid("ins_2abc");
    for (token, line) in [
        (
            provider.sign(&with("exp", json!(now() - 61))),
            first_line::EXPIRED,
        ),
        (forger.token(&claims), first_line::SIGNATURE),
        (
            provider.sign(&with("iss", json!("https://x.example"))),
            "unknown JWT issuer",
        ),
        ("eyJ…".to_owned(), "invalid JWT encoding"),
    ] {
        let refusal = request(app, Some(&token), &["SELECT 1"]).expect_err(line);
        refusal.assert("28000", line);
        app.assert_nobody();
    }
}
