//! Whether there is a provider, and those of an issuer.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pg_session_jwt_jose::{Provider, Rows};

use super::following::Following;
use super::{ISSUER, row, signal};
use crate::datum;
use crate::error::Error;
use crate::table;

/// A backend keeps the rows of so many issuers, those used last,
const ISSUERS_KEPT: usize = 64;
/// and no more than rows of this many bytes, in JSON, or of one issuer. What is read of them takes a few
/// times as much.
const BYTES_KEPT: usize = 128 * 1024;

/// An unknown issuer is compared with so many.
const ISSUERS_COMPARED: usize = 16;

/// The rows of an issuer.
struct Issuer {
    name: Option<String>,
    /// The rows as JSON. Only if they differ are they parsed again: whatever Postgres did to a row, this
    /// notices a change, and no other.
    texts: Vec<Text>,
    providers: Rows,
    /// For each of them, if it follows its issuer.
    following: Vec<Option<Rc<Following>>>,
    /// The [`signal::number`] before they were read.
    read_at: u64,
}

/// A row of `auth.providers`, and the one of `auth.provider_keys` that belongs to it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text {
    row: String,
    keys: Option<String>,
}

impl Issuer {
    fn bytes(&self) -> usize {
        let bytes = |text: &Text| text.row.len() + text.keys.as_ref().map_or(0, String::len);
        self.texts.iter().map(bytes).sum()
    }
}

/// What need not be read again.
struct Known {
    /// Whether there is a row, with the [`signal::number`] before that was asked.
    any: Option<(u64, bool)>,
    /// The last used one last. Of an issuer without a row nothing is kept: tokens may name any.
    issuers: Vec<Issuer>,
}

impl Known {
    fn take(&mut self, name: Option<&str>) -> Option<Issuer> {
        let place = self
            .issuers
            .iter()
            .rposition(|i| i.name.as_deref() == name)?;
        Some(self.issuers.remove(place))
    }

    fn keep(&mut self, issuer: Issuer) {
        if !issuer.providers.is_empty() {
            self.issuers.push(issuer);
        }
        let mut bytes: usize = self.issuers.iter().map(Issuer::bytes).sum();
        while self.issuers.len() > ISSUERS_KEPT || (bytes > BYTES_KEPT && self.issuers.len() > 1) {
            bytes -= self.issuers.remove(0).bytes();
        }
    }
}

thread_local! {
    // Never dropped, like the caches in `session`.
    static KNOWN: ManuallyDrop<RefCell<Known>> = const {
        ManuallyDrop::new(RefCell::new(Known { any: None, issuers: Vec::new() }))
    };
}

/// Whether there is a provider, enabled or not.
pub(crate) fn registered() -> bool {
    let now = signal::number();
    let known = KNOWN.with(|known| known.borrow().any);
    if let Some((asked_at, any)) = known
        && asked_at == now
    {
        return any;
    }
    let any = signal::find_table().is_some_and(|table| {
        // The issuer in use answers it at no cost: its rows are needed next.
        last_used_has_row() || table::has_row(table, ISSUER)
    });
    KNOWN.with(|known| known.borrow_mut().any = Some((now, any)));
    any
}

fn last_used_has_row() -> bool {
    let last = KNOWN.with(|known| known.borrow().issuers.last().map(|last| last.name.clone()));
    last.is_some_and(|name| of_issuer(name.as_deref()).is_ok_and(|rows| !rows.is_empty()))
}

/// The issuers of a few enabled providers.
pub(super) fn some_issuers() -> Vec<String> {
    let some = signal::table().map_or_else(Vec::new, |table| {
        table::first_texts(table, ISSUER, c"enabled", ISSUERS_COMPARED)
    });
    some.into_iter().flat_map(datum::from_server).collect()
}

/// What is known now of the keys of a provider; `None` if it does not follow its issuer, or is gone.
///
/// # Errors
/// As [`of_issuer`].
pub(super) fn following(provider: &Provider) -> Result<Option<Rc<Following>>, Error> {
    of_issuer(provider.issuer())?;
    Ok(KNOWN.with(|known| {
        let known = known.borrow();
        // It is the one that was used last.
        let issuer = known.issuers.last()?;
        let place = issuer
            .providers
            .iter()
            .position(|one| one.name == provider.name)?;
        issuer.following.get(place)?.clone()
    }))
}

/// The providers of an issuer, enabled or not; `None`: those for tokens without `iss`. The same ones as
/// long as none of them has changed. To be asked after [`registered`].
///
/// # Errors
/// If a row of the issuer cannot be read, which the table's triggers should have prevented.
pub(crate) fn of_issuer(name: Option<&str>) -> Result<Rows, Error> {
    let now = signal::number();
    let known = KNOWN.with(|known| known.borrow_mut().take(name));
    let issuer = match known {
        Some(known) if known.read_at == now => known,
        known => read(name, known, now)?,
    };
    let providers = Rc::clone(&issuer.providers);
    KNOWN.with(|known| known.borrow_mut().keep(issuer));
    Ok(providers)
}

fn read(name: Option<&str>, known: Option<Issuer>, now: u64) -> Result<Issuer, Error> {
    let mut texts = Vec::new();
    // A name that the server encoding lacks is in no row.
    if let Some(table) = signal::table()
        && let Ok(value) = name.map(datum::to_server).transpose()
    {
        for row in table::rows(table, ISSUER, value.as_ref().map(|value| value.to_bytes()))? {
            texts.push(Text {
                keys: keys_of(&row)?,
                row: row.json.map_err(Error::Unrepresentable)?,
            });
        }
        // By name, with which they begin: errors list them.
        texts.sort_unstable();
    }
    if let Some(known) = known
        && known.texts == texts
    {
        return Ok(Issuer {
            read_at: now,
            ..known
        });
    }
    let (mut providers, mut following) = (Vec::new(), Vec::new());
    for text in &texts {
        let (provider, keys) = row::read(&text.row, text.keys.as_deref())?;
        providers.push(Rc::new(provider));
        following.push(keys.map(Rc::new));
    }
    Ok(Issuer {
        name: name.map(str::to_owned),
        providers: providers.into(),
        following,
        texts,
        read_at: now,
    })
}

/// The row of `auth.provider_keys` that belongs to a provider's.
fn keys_of(row: &table::Row) -> Result<Option<String>, Error> {
    let (Some(table), Some(name)) = (signal::keys_table(), &row.name) else {
        return Ok(None);
    };
    let rows = table::rows(table, c"provider", Some(name))?;
    Ok(rows.into_iter().find_map(|row| row.json.ok()))
}
