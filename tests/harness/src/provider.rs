//! Rows of `auth.providers`, and tokens for them.

use serde_json::{Value, json};

use crate::{APP_USER, Cluster, Issuer, Session, jwks, now, sql_text};

/// The issuer that most tests register.
pub const ISS: &str = "https://issuer.example";

/// A row of `auth.providers`: columns and SQL expressions.
#[derive(Clone)]
pub struct Row(Vec<(String, String)>);

impl Row {
    /// A provider with these keys and nothing unusual about it.
    pub fn new(name: &str, issuer: &str, keys: &[&Issuer]) -> Self {
        Self(Vec::new())
            .with("name", &sql_text(name))
            .with("issuer", &sql_text(issuer))
            .keys(keys)
    }

    /// The provider `main` of the issuer [`ISS`].
    pub fn main(keys: &[&Issuer]) -> Self {
        Self::new("main", ISS, keys)
    }

    /// The same row with an SQL expression in a column.
    pub fn with(mut self, column: &str, sql: &str) -> Self {
        self.0.retain(|(name, _)| name != column);
        self.0.push((column.to_owned(), sql.to_owned()));
        self
    }

    /// The same row with these keys.
    pub fn keys(self, keys: &[&Issuer]) -> Self {
        self.with("jwks", &set_of(keys))
    }

    /// The same row with this JSON as the set.
    pub fn jwks(self, jwks: &Value) -> Self {
        self.with("jwks", &sql_text(&jwks.to_string()))
    }

    /// The statement that registers it.
    pub fn insert(&self) -> String {
        let (columns, values): (Vec<_>, Vec<_>) = self.0.iter().cloned().unzip();
        format!(
            "INSERT INTO auth.providers ({}) VALUES ({})",
            columns.join(", "),
            values.join(", ")
        )
    }

    /// The statement that makes the row of this name what it says.
    pub fn update(&self) -> String {
        let pairs = self
            .0
            .iter()
            .map(|(name, value)| format!("{name} = {value}"));
        let name = &self
            .0
            .iter()
            .find(|(column, _)| column == "name")
            .unwrap()
            .1;
        format!(
            "UPDATE auth.providers SET {} WHERE name = {name}",
            pairs.collect::<Vec<_>>().join(", ")
        )
    }
}

/// The key set of some issuers, as an SQL literal.
pub fn set_of(keys: &[&Issuer]) -> String {
    let keys: Vec<_> = keys.iter().map(|issuer| issuer.jwk()).collect();
    sql_text(&jwks(&keys))
}

/// A token for `sub` from the issuer [`ISS`].
pub fn token(issuer: &Issuer, sub: &str) -> String {
    token_with(issuer, sub, &json!({}))
}

/// The same with more claims, or others; null takes one away.
pub fn token_with(issuer: &Issuer, sub: &str, more: &Value) -> String {
    let mut claims = json!({"iss": ISS, "sub": sub, "exp": now() + 3600});
    let members = claims.as_object_mut().unwrap();
    for (name, value) in more.as_object().expect("claims") {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    issuer.token(&claims)
}

impl Session {
    /// Registers the provider `main` with these keys.
    #[track_caller]
    pub fn register(&mut self, keys: &[&Issuer]) {
        self.run(&Row::main(keys).insert());
    }

    /// Gives the provider `main` these keys and no others.
    #[track_caller]
    pub fn rotate(&mut self, keys: &[&Issuer]) {
        self.run(&format!(
            "UPDATE auth.providers SET jwks = {} WHERE name = 'main'",
            set_of(keys)
        ));
    }

    /// What its token is refused with now.
    #[track_caller]
    pub fn user_refused(&mut self) -> crate::Refusal {
        self.refused("SELECT auth.user_id()")
    }
}

impl Cluster {
    /// Two databases of this server with the extension, and superusers in them: what `fill` writes into the
    /// first one's `auth.providers`, and later changes of the rows, arrive in the second one by logical
    /// replication. The server needs `wal_level = logical`.
    pub fn logical_replication(&self, fill: &str) -> (Session, Session) {
        let mut admin = self.connect("postgres", "postgres");
        admin.run(&format!("CREATE ROLE {APP_USER} LOGIN"));
        let [mut source, mut target] = ["source", "target"].map(|database| {
            admin.run(&format!("CREATE DATABASE {database}"));
            let mut session = self.connect(database, "postgres");
            session.run("CREATE EXTENSION pg_session_jwt");
            session
        });
        source.run(fill);
        source.run("CREATE PUBLICATION p FOR TABLE auth.providers");
        source.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
        target.run(&format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=source'
             PUBLICATION p WITH (create_slot = false, slot_name = 's')",
            self.port()
        ));
        (source, target)
    }
}
