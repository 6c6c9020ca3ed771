//! One connection, and how values are written for it.

use std::sync::{Arc, Mutex};

use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::Refusal;

/// A literal for SQL text.
pub fn sql_text(text: &str) -> String {
    assert!(!text.contains('\0'), "SQL text cannot hold a NUL");
    let quoted = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{quoted}'")
}

/// A startup option, as libpq's `options=` wants it: words end at a space unless a backslash is
/// before it.
pub fn option(name: &str, value: &str) -> String {
    let mut option = format!("-c {name}=");
    for c in value.chars() {
        if c.is_ascii_whitespace() || c == '\\' {
            option.push('\\');
        }
        option.push(c);
    }
    option
}

/// Memory that belongs to a backend alone, in KiB.
pub fn backend_memory_kib(pid: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a Linux /proc");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// One connection.
pub struct Session {
    /// The driver's client, for the extended protocol.
    pub client: Client,
    notices: Arc<Mutex<Vec<(String, Refusal)>>>,
}

impl Session {
    pub(crate) fn open(config: &Config) -> Self {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let mut config = config.clone();
        config.notice_callback(move |notice| {
            let said = (notice.severity().to_owned(), Refusal::from_db(&notice));
            heard.lock().unwrap().push(said);
        });
        let client = config
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("no connection: {error:?}"));
        Self { client, notices }
    }

    /// Runs statements that must succeed (simple protocol).
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        if let Err(refusal) = self.try_run(sql) {
            panic!("refused: {sql}\n{refusal:?}");
        }
    }

    /// Runs statements; what the server said if it refused them.
    pub fn try_run(&mut self, sql: &str) -> Result<(), Refusal> {
        self.try_rows(sql).map(drop)
    }

    /// The refusal of statements that must fail.
    #[track_caller]
    pub fn refused(&mut self, sql: &str) -> Refusal {
        match self.try_rows(sql) {
            Ok(rows) => panic!("should have been refused, but answered {rows:?}: {sql}"),
            Err(refusal) => refusal,
        }
    }

    /// Every row, every column as text.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Refusal> {
        let messages = self.client.simple_query(sql);
        let messages = messages.map_err(|error| Refusal::from_error(&error))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |row: &postgres::SimpleQueryRow, i| row.get(i).map(str::to_owned);
        Ok(rows
            .map(|row| (0..row.len()).map(|i| text(row, i)).collect())
            .collect())
    }

    /// Every row of a query that must succeed, its columns joined by `|`, NULL as `NULL`.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = self
            .try_rows(sql)
            .unwrap_or_else(|refusal| panic!("refused: {sql}\n{refusal:?}"));
        rows.into_iter()
            .map(|row| {
                let columns = row.into_iter().map(|c| c.unwrap_or("NULL".to_owned()));
                columns.collect::<Vec<_>>().join("|")
            })
            .collect()
    }

    /// The first column of the last row; None for NULL.
    pub fn try_value(&mut self, sql: &str) -> Result<Option<String>, Refusal> {
        let rows = self.try_rows(sql)?;
        Ok(rows.into_iter().next_back().and_then(|row| row[0].clone()))
    }

    /// The one value of a query that must succeed; None for NULL.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> Option<String> {
        self.try_value(sql)
            .unwrap_or_else(|refusal| panic!("refused: {sql}\n{refusal:?}"))
    }

    /// The one value of a query that must be neither refused nor NULL.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> String {
        self.value(sql)
            .unwrap_or_else(|| panic!("NULL or no row: {sql}"))
    }

    /// `auth.user_id()`
    #[track_caller]
    pub fn user_id(&mut self) -> Option<String> {
        self.value("SELECT auth.user_id()")
    }

    /// It is this user and, if the database has `todos`, sees what this user may see.
    #[track_caller]
    pub fn assert_user(&mut self, user: &str) {
        assert_eq!(self.user_id().as_deref(), Some(user));
    }

    /// It is nobody.
    #[track_caller]
    pub fn assert_nobody(&mut self) {
        assert_eq!(self.user_id(), None);
    }

    /// Presents a token, which must be accepted.
    #[track_caller]
    pub fn present(&mut self, token: &str) {
        self.run(&present_sql(token));
    }

    /// Presents a token, which must be rejected.
    #[track_caller]
    pub fn rejected(&mut self, token: &str) -> Refusal {
        self.refused(&present_sql(token))
    }

    /// The tasks in `todos` that this session sees.
    #[track_caller]
    pub fn tasks(&mut self) -> Vec<String> {
        self.rows("SELECT task FROM public.todos ORDER BY id")
    }

    /// The process id of its backend.
    pub fn pid(&mut self) -> String {
        self.text("SELECT pg_backend_pid()")
    }

    /// The notices and warnings that have come since the last call: `WARNING: …`.
    pub fn notices(&mut self) -> Vec<String> {
        let said = std::mem::take(&mut *self.notices.lock().unwrap());
        let line = |(severity, said): (String, Refusal)| format!("{severity}: {}", said.message);
        said.into_iter().map(line).collect()
    }

    /// The same with all that was said.
    pub fn said(&mut self) -> Vec<Refusal> {
        let said = std::mem::take(&mut *self.notices.lock().unwrap());
        said.into_iter().map(|(_, said)| said).collect()
    }
}

fn present_sql(token: &str) -> String {
    format!("SELECT auth.jwt_session_init({})", sql_text(token))
}
