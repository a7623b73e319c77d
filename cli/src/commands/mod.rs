//! One file for each thing the command can be told to do.

mod completion;
mod core;
mod fmt;
mod insert;
mod log;
mod maps;
mod object;
mod query;
mod remove;
pub mod run;
mod top;
mod vars;

use crate::args::{Command, Global};
use crate::error::Error;

/// Carries out a command.
pub fn run(command: &Command, global: &Global) -> Result<(), Error> {
    match command {
        Command::Insert(args) => insert::run(args, global),
        Command::Remove(args) => remove::run(args, global),
        Command::Query(args) => query::run(args, global),
        Command::Log(args) => log::run(args, global),
        Command::Maps(args) => maps::run(args, global),
        Command::Vars(args) => vars::run(args, global),
        Command::Top(args) => top::run(args, global),
        Command::Core(args) => core::run(args),
        Command::Asm(args) => object::asm(args),
        Command::Check(args) => object::check(args),
        Command::Fmt(args) => fmt::run(args),
        Command::Run(args) => run::run(args),
        Command::Disasm(args) => object::disasm(args),
        Command::Completion(args) => completion::run(args),
    }
}
