//! The `dprobes` command: insert probe programs into a running kernel and read what they log.

mod args;
mod commands;
mod coredump;
mod device;
mod error;
#[cfg(test)]
mod golden;
mod kallsyms;
#[cfg(test)]
mod man;
mod map;
mod output;
mod program;
mod refusal;
mod render;
mod report;
mod resolve;
mod select;
mod stream;
mod symbols;
mod user;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use error::Error;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    cli.global.color.write_global();
    match commands::run(&cli.command, &cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&error.render());
            ExitCode::from(error.code() as u8)
        }
    }
}
