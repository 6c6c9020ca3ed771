//! `cargo xtask`: the commands that a person types, on a machine with nothing but Rust.
//!
//! Each command finds or installs what it needs (see [`machine`] and [`postgres`]), says what it is
//! doing before anything that takes long, and runs again within seconds once that is done.

mod bench;
mod cli;
mod cluster;
mod demo;
mod goldens;
mod lint;
mod machine;
mod postgres;
mod problem;
mod psql;
mod readme;
mod shell;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = cli::parse(&arguments).and_then(|command| match command {
        cli::Command::Help => {
            print!("{}", cli::USAGE);
            Ok(())
        }
        cli::Command::Demo(options) => demo::run(&options),
        cli::Command::Test(options) => test::run(&options),
        cli::Command::Bench(options) => bench::run(&options, &arguments),
        cli::Command::Lint => lint::run(),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\nxtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
