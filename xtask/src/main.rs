//! Builds, tests and demonstrates DProbes. `./x` sets the machine up and hands over to this.

#![warn(missing_docs)]

mod linux;
mod progress;
mod reach;
mod run;
mod tally;
mod verb;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Build, test and try DProbes.
#[derive(Parser)]
#[command(
    name = "./x",
    bin_name = "./x",
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
    Coverage(verb::coverage::Arguments),
    Demo(verb::demo::Arguments),
    Bench(verb::bench::Arguments),
    Fuzz(verb::fuzz::Arguments),
    Lint(verb::lint::Arguments),
    Headers(verb::headers::Arguments),
    KernelRun(verb::kernel_run::Arguments),
    PanicCheck(verb::panic_check::Arguments),
    Soak(verb::soak::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let workspace = &Workspace::find()?;
    let progress = &Progress::new(workspace, arguments.verbose)?;
    match &arguments.verb {
        Verb::Build(arguments) => verb::build::run(workspace, progress, arguments),
        Verb::Test(arguments) => verb::test::run(workspace, progress, arguments),
        Verb::Coverage(arguments) => verb::coverage::run(workspace, progress, arguments),
        Verb::Demo(arguments) => verb::demo::run(workspace, progress, arguments),
        Verb::Bench(arguments) => verb::bench::run(workspace, progress, arguments),
        Verb::Fuzz(arguments) => verb::fuzz::run(workspace, progress, arguments),
        Verb::Lint(arguments) => verb::lint::run(workspace, progress, arguments),
        Verb::Headers(arguments) => verb::headers::run(workspace, progress, arguments),
        Verb::KernelRun(arguments) => verb::kernel_run::run(arguments),
        Verb::PanicCheck(arguments) => verb::panic_check::run(workspace, progress, arguments),
        Verb::Soak(arguments) => verb::soak::run(workspace, progress, arguments),
    }
}
