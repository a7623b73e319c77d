//! `dprobes-survey`: how much of the running kernel can be probed.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use survey::survey::{Options, run};

/// Asks the module about every instruction of the running kernel
#[derive(Parser)]
#[command(
    name = "dprobes-survey",
    after_help = "Examples:
  dprobes-survey                  all of the kernel's text
  dprobes-survey --every 100      one function of a hundred
  dprobes-survey --json --goal 99.5

Exit codes: 0 done, 1 the goal is missed, or something that must not be probed would be, 2 wrong usage, 3 it could not be done.
It takes root, and the module; nothing is inserted."
)]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Say how far it is, in lines that begin with @
    #[arg(long)]
    progress: bool,

    /// Only one function of so many
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: usize,

    /// Fail when less of the text outside entry and noinstr code can be probed, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    goal: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        every: arguments.every.max(1),
    };
    let mut progress = |done: usize, all: usize| {
        if arguments.progress {
            // Whoever watches may go away.
            let _ = writeln!(io::stdout(), "@{done} of {all} functions");
        }
    };
    let report = match run(options, &mut progress) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("dprobes-survey: {error}");
            return ExitCode::from(3);
        }
    };
    if arguments.json {
        match serde_json::to_string(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                eprintln!("dprobes-survey: {error}");
                return ExitCode::from(3);
            }
        }
    } else {
        print!("{report}");
    }
    if report.percent() < arguments.goal || !report.wrongly_accepted.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
