//! The command line, parsed by hand: four commands and their options.

use crate::problem::{Problem, Result};

/// What `cargo xtask help` prints.
pub const USAGE: &str = "\
cargo xtask demo [--keep] [--pg N]
    Install a release build into the Postgres found on this machine, start a throwaway cluster on a
    free port, and show row-level security obeying session tokens.
      --keep   leave the server up, and say how to open psql on it and how to stop it
      --pg N   use Postgres N (15, 16, 17 or 18)

cargo xtask test [--pg 15|16|17|18|all] [--must N] [--only STEP] [--bless] [-- ARGUMENTS]
    Run every test, against private copies of Postgres; the system's own is not touched.
      --pg N         which Postgres (a list like 16,18 is fine); default: the one found. With all, one
                     that cannot be had on this machine is not tested, and named at the end
      --must N       with --pg all: fail if this one cannot be had (a list is fine)
      --only STEP    unit, pgrx, goldens, connections or readme (a list is fine)
      --bless        rewrite tests/pg_regress/expected with what the goldens printed
      -- ARGUMENTS   handed to `cargo test -p pg_session_jwt_it`, for instance a test's name

cargo xtask bench [--pg N] [--rounds N] [--only PART]
    Measure a release build against a private copy of Postgres: what a row, a token and a transaction
    cost. Prints tables in Markdown. Takes about 10 minutes; nothing else should run meanwhile.
      --pg N         which Postgres; default: the one found
      --rounds N     of how many interleaved rounds the medians are (5)
      --only PART    rows, tokens, policies, transactions or backend (a list is fine)

cargo xtask lint
    clippy on everything, warnings as errors.
";

/// The majors that the extension supports.
pub const SUPPORTED: [u16; 4] = [15, 16, 17, 18];

/// One of the commands of [`USAGE`].
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// The to-do application.
    Demo(DemoOptions),
    /// The tests.
    Test(TestOptions),
    /// The measurements.
    Bench(BenchOptions),
    /// clippy.
    Lint,
}

/// Options of `demo`.
#[derive(Debug, Default, PartialEq)]
pub struct DemoOptions {
    /// Leave the server up.
    pub keep: bool,
    /// The major to use; the one found when absent.
    pub pg: Option<u16>,
}

/// Options of `test`.
#[derive(Debug, Default, PartialEq)]
pub struct TestOptions {
    /// The majors to test, in order; empty: the one found.
    pub pg: Vec<u16>,
    /// Those of them that were asked for by number: that one cannot be had is then an error.
    pub must: Vec<u16>,
    /// The steps to run; empty: all.
    pub only: Vec<Step>,
    /// Rewrite the goldens.
    pub bless: bool,
    /// For the out-of-process tests.
    pub rest: Vec<String>,
}

/// Options of `bench`.
#[derive(Debug, PartialEq)]
pub struct BenchOptions {
    /// The major to use; the one found when absent.
    pub pg: Option<u16>,
    /// How many times everything is measured.
    pub rounds: usize,
    /// The parts to measure; empty: all.
    pub only: Vec<Part>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            pg: None,
            rounds: 5,
            only: Vec::new(),
        }
    }
}

/// A part of `bench`, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What an accessor costs per row.
    Rows,
    /// What a token costs.
    Tokens,
    /// Accessors in policies, with and without an index.
    Policies,
    /// pgbench.
    Transactions,
    /// Loading, memory, CREATE EXTENSION.
    Backend,
}

impl Part {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "rows" => Self::Rows,
            "tokens" => Self::Tokens,
            "policies" => Self::Policies,
            "transactions" => Self::Transactions,
            "backend" => Self::Backend,
            other => {
                return Err(misuse(format!(
                    "no part is called \"{other}\": rows, tokens, policies, transactions, backend"
                )));
            }
        })
    }
}

/// A step of `test`, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Unit tests of the pure crates.
    Unit,
    /// `cargo pgrx test`.
    Pgrx,
    /// tests/pg_regress.
    Goldens,
    /// tests/: out-of-process tests.
    Connections,
    /// README.md's SQL.
    Readme,
}

impl Step {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "unit" => Self::Unit,
            "pgrx" => Self::Pgrx,
            "goldens" => Self::Goldens,
            "connections" => Self::Connections,
            "readme" => Self::Readme,
            other => {
                return Err(misuse(format!(
                    "no step is called \"{other}\": unit, pgrx, goldens, connections, readme"
                )));
            }
        })
    }
}

fn misuse(what: String) -> Problem {
    Problem::new(what).advice("`cargo xtask help` lists the commands and their options")
}

/// Turns the arguments after `cargo xtask` into a [`Command`].
pub fn parse(arguments: &[String]) -> Result<Command> {
    let mut arguments = arguments.iter().map(String::as_str);
    match arguments.next() {
        None | Some("help" | "--help" | "-h") => Ok(Command::Help),
        Some("demo") => demo(&mut arguments),
        Some("test") => test(&mut arguments),
        Some("bench") => bench(&mut arguments),
        Some("lint") => match arguments.next() {
            None => Ok(Command::Lint),
            Some(other) => Err(misuse(format!("`lint` has no option \"{other}\""))),
        },
        Some(other) => Err(misuse(format!("there is no command \"{other}\""))),
    }
}

fn demo<'a>(arguments: &mut impl Iterator<Item = &'a str>) -> Result<Command> {
    let mut options = DemoOptions::default();
    while let Some(argument) = arguments.next() {
        match split(argument) {
            ("--keep", None) => options.keep = true,
            ("--pg", value) => {
                options.pg = match majors("--pg", value.or_else(|| arguments.next()))?[..] {
                    [one] => Some(one),
                    _ => return Err(misuse("`demo --pg` takes one version".into())),
                }
            }
            ("--help" | "-h", None) => return Ok(Command::Help),
            _ => return Err(misuse(format!("`demo` has no option \"{argument}\""))),
        }
    }
    Ok(Command::Demo(options))
}

fn test<'a>(arguments: &mut impl Iterator<Item = &'a str>) -> Result<Command> {
    let mut options = TestOptions::default();
    while let Some(argument) = arguments.next() {
        match split(argument) {
            ("--", None) => options.rest = arguments.map(String::from).collect(),
            ("--bless", None) => options.bless = true,
            (name @ ("--pg" | "--must"), value) => {
                let value = value.or_else(|| arguments.next());
                for major in majors(name, value)? {
                    if !options.pg.contains(&major) {
                        options.pg.push(major);
                    }
                    if name == "--must" || value != Some("all") {
                        options.must.push(major);
                    }
                }
            }
            ("--only", value) => {
                let names = value.or_else(|| arguments.next()).unwrap_or_default();
                for name in names.split(',') {
                    options.only.push(Step::parse(name)?);
                }
            }
            ("--help" | "-h", None) => return Ok(Command::Help),
            _ => return Err(misuse(format!("`test` has no option \"{argument}\""))),
        }
    }
    Ok(Command::Test(options))
}

fn bench<'a>(arguments: &mut impl Iterator<Item = &'a str>) -> Result<Command> {
    let mut options = BenchOptions::default();
    while let Some(argument) = arguments.next() {
        match split(argument) {
            ("--pg", value) => {
                options.pg = match majors("--pg", value.or_else(|| arguments.next()))?[..] {
                    [one] => Some(one),
                    _ => return Err(misuse("`bench --pg` takes one version".into())),
                }
            }
            ("--rounds", value) => {
                let value = value.or_else(|| arguments.next()).unwrap_or_default();
                options.rounds = match value.parse() {
                    Ok(rounds) if rounds > 0 => rounds,
                    _ => return Err(misuse("`--rounds` wants a number".into())),
                }
            }
            ("--only", value) => {
                let names = value.or_else(|| arguments.next()).unwrap_or_default();
                for name in names.split(',') {
                    options.only.push(Part::parse(name)?);
                }
            }
            ("--help" | "-h", None) => return Ok(Command::Help),
            _ => return Err(misuse(format!("`bench` has no option \"{argument}\""))),
        }
    }
    Ok(Command::Bench(options))
}

/// `--name=value` as `--name` and `value`.
fn split(argument: &str) -> (&str, Option<&str>) {
    match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, None),
    }
}

fn majors(option: &str, value: Option<&str>) -> Result<Vec<u16>> {
    let value = value.ok_or_else(|| misuse(format!("`{option}` wants a version")))?;
    if value == "all" {
        return Ok(SUPPORTED.to_vec());
    }
    value
        .split(',')
        .map(|one| match one.trim_start_matches("pg").parse() {
            Ok(major) if SUPPORTED.contains(&major) => Ok(major),
            _ => Err(misuse(format!(
                "\"{one}\" is not a supported Postgres: 15, 16, 17, 18"
            ))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&words)
    }

    #[test]
    fn versions_in_every_spelling() {
        for (line, expected) in [
            ("test", vec![]),
            ("test --pg 16", vec![16]),
            ("test --pg=pg16,18", vec![16, 18]),
            ("test --pg 16 --pg 15", vec![16, 15]),
            ("test --pg all", vec![15, 16, 17, 18]),
        ] {
            let Command::Test(options) = parsed(line).unwrap() else {
                panic!("{line}")
            };
            assert_eq!(options.pg, expected, "{line}");
        }
    }

    #[test]
    fn what_is_asked_for_by_number_must_be_there() {
        for (line, expected) in [
            ("test --pg all", vec![]),
            ("test --pg 16", vec![16]),
            ("test --pg all --must 15,16", vec![15, 16]),
            ("test --must all", SUPPORTED.to_vec()),
        ] {
            let Command::Test(options) = parsed(line).unwrap() else {
                panic!("{line}")
            };
            assert_eq!(options.must, expected, "{line}");
        }
        let Command::Test(options) = parsed("test --pg all --must 18").unwrap() else {
            panic!()
        };
        assert_eq!(options.pg, SUPPORTED);
    }

    #[test]
    fn the_rest_goes_through_untouched() {
        let Command::Test(options) = parsed("test --bless -- replay --pg x").unwrap() else {
            panic!()
        };
        assert!(options.bless);
        assert_eq!(options.rest, ["replay", "--pg", "x"]);
    }

    #[test]
    fn rounds_and_parts() {
        let Command::Bench(options) = parsed("bench --rounds=7 --only rows,tokens").unwrap() else {
            panic!()
        };
        assert_eq!(options.rounds, 7);
        assert_eq!(options.only, [Part::Rows, Part::Tokens]);
        assert_eq!(
            parsed("bench").unwrap(),
            Command::Bench(BenchOptions::default())
        );
    }

    #[test]
    fn misuse_is_refused() {
        for line in [
            "test --pg 14",
            "test --pg",
            "test --must",
            "test --only x",
            "demo --pg all",
            "bench --pg 15,16",
            "bench --rounds 0",
            "bench --only pgrx",
            "deploy",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
