//! `dprobes completion`.

use clap::CommandFactory;
use clap_complete::shells;

use crate::args::{Cli, Completion, Shell};
use crate::error::Error;
use crate::output;

/// The name that the shell knows the command by.
const NAME: &str = "dprobes";

/// Prints what a shell is to read.
pub fn run(args: &Completion) -> Result<(), Error> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, NAME, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, NAME, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, NAME, &mut script),
    }
    output::print(&String::from_utf8_lossy(&script))
}
