//! Builds, tests and demonstrates DProbes. `./x` sets the machine up and hands over to this.

#![warn(missing_docs)]

mod progress;
mod reach;
mod run;
mod tally;
mod verb;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Build, test and try DProbes.
#[derive(Parser)]
#[command(
    name = "./x",
    disable_version_flag = true,
    after_help = "Exit codes: 0 done, 1 something failed, 2 wrong usage.\nThe output of every step is kept in target/logs."
)]
struct Arguments {
    /// Show the output of every step as it comes
    #[arg(short, long, global = true)]
    verbose: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Build(verb::build::Arguments),
    Test(verb::test::Arguments),
    Lint(verb::lint::Arguments),
    PanicCheck(verb::panic_check::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = Workspace::find().and_then(|workspace| {
        let mut progress = Progress::new(&workspace, arguments.verbose)?;
        match arguments.verb {
            Verb::Build(arguments) => verb::build::run(&workspace, &mut progress, &arguments),
            Verb::Test(arguments) => verb::test::run(&workspace, &mut progress, &arguments),
            Verb::Lint(arguments) => verb::lint::run(&workspace, &mut progress, &arguments),
            Verb::PanicCheck(arguments) => verb::panic_check::run(&workspace, &mut progress, &arguments),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
