//! tests/pg_regress: SQL as a user of psql writes it, and what psql prints for it.
//!
//! The layout and the flags are pg_regress's own, so that `make installcheck` habits carry over;
//! psql is driven from here because pg_regress would have to run as the server's user and is not
//! part of every installation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::postgres::Postgres;
use crate::problem::{Context, Problem, Result};
use crate::shell::note;

/// Runs every golden; `None` when there are none. With `bless`, what came out becomes what is
/// expected.
pub fn run(
    machine: &Machine,
    postgres: &Postgres,
    cluster: &Cluster,
    bless: bool,
) -> Result<Option<usize>> {
    let folder = machine.workspace.join("tests/pg_regress");
    let names = names(&folder.join("sql"));
    if names.is_empty() {
        return Ok(None);
    }
    let results = machine.target().join("goldens").join(postgres.label());
    fs::create_dir_all(&results).context(|| format!("cannot make {}", results.display()))?;
    let mut failed = Vec::new();
    for name in &names {
        let result = results.join(format!("{name}.out"));
        play(
            cluster,
            &folder.join(format!("sql/{name}.sql")),
            name,
            &result,
        )?;
        let expected = expected(&folder.join("expected"), name);
        if expected.iter().any(|path| same(path, &result)) {
            note(format!("golden {name}: ok"));
        } else if bless {
            let path = folder.join(format!("expected/{name}.out"));
            fs::create_dir_all(folder.join("expected"))
                .and_then(|()| fs::copy(&result, &path))
                .context(|| format!("cannot write {}", path.display()))?;
            note(format!("golden {name}: {} written", path.display()));
        } else {
            note(format!("golden {name}: FAILED"));
            match expected.first() {
                Some(path) => diff(path, &result),
                None => note(format!("there is no tests/pg_regress/expected/{name}.out")),
            }
            failed.push(name.clone());
        }
    }
    if failed.is_empty() {
        return Ok(Some(names.len()));
    }
    Err(Problem::new(format!("goldens differ: {}", failed.join(", "))).advice(format!(
        "the outputs are in {}; when they are right: cargo xtask test --pg {} --only goldens --bless",
        results.display(),
        postgres.major
    )))
}

/// One golden, in a database of its own.
fn play(cluster: &Cluster, script: &Path, name: &str, result: &Path) -> Result<()> {
    let database = format!("golden_{name}");
    cluster.sql(
        "postgres",
        &format!("CREATE DATABASE \"{database}\" TEMPLATE template0"),
    )?;
    cluster.sql(&database, "CREATE EXTENSION pg_session_jwt")?;
    let input = File::open(script).context(|| format!("cannot read {}", script.display()))?;
    let output = File::create(result).context(|| format!("cannot write {}", result.display()))?;
    let copy = output
        .try_clone()
        .context(|| format!("cannot write {}", result.display()))?;
    let mut psql = cluster.psql("postgres", &database);
    psql.args([
        "-a",
        "-q",
        "-v",
        "HIDE_TABLEAM=on",
        "-v",
        "HIDE_TOAST_COMPRESSION=on",
    ]);
    psql.env("PGTZ", "UTC")
        .env("PGDATESTYLE", "ISO, MDY")
        .env("LC_MESSAGES", "C");
    psql.stdin(input).stdout(output).stderr(copy);
    // psql's status says nothing here: an error may be just what is expected.
    psql.status()
        .context(|| format!("running psql for {name}"))?;
    cluster.sql(
        "postgres",
        &format!("DROP DATABASE \"{database}\" WITH (FORCE)"),
    )?;
    Ok(())
}

/// The goldens' names, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .strip_suffix(".sql")
                .map(String::from)
        })
        .collect();
    names.sort();
    names
}

/// NAME.out, and the alternatives NAME_0.out to NAME_9.out, as far as they exist.
fn expected(folder: &Path, name: &str) -> Vec<PathBuf> {
    let plain = folder.join(format!("{name}.out"));
    let others = (0..10).map(|number| folder.join(format!("{name}_{number}.out")));
    std::iter::once(plain)
        .chain(others)
        .filter(|path| path.is_file())
        .collect()
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

fn diff(expected: &Path, result: &Path) {
    let _ = Command::new("diff")
        .args(["-U3", "--label", "expected", "--label", "got"])
        .args([expected, result])
        .stdin(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_count() {
        let folder = std::env::temp_dir().join(format!("xtask-goldens-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["a.out", "a_1.out", "ab.out", "a.sql", "b.sql"] {
            fs::write(folder.join(name), name).unwrap();
        }
        let found: Vec<_> = expected(&folder, "a")
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, ["a.out", "a_1.out"]);
        assert_eq!(names(&folder), ["a", "b"]);
        assert_eq!(names(&folder.join("none")), [""; 0]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
