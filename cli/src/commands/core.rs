//! `dprobes core`.

use std::io::{self, Write};

use serde::Serialize;

use crate::args::Core;
use crate::coredump::{self, Destination, Held, Taken};
use crate::error::Error;
use crate::output;

/// The kernel's log.
const KERNEL_LOG: &str = "/dev/kmsg";

#[derive(Serialize)]
struct Summary<'a> {
    process: i32,
    file: &'a str,
    threads: usize,
    bytes: u64,
}

/// Takes a core dump.
pub fn run(args: &Core) -> Result<(), Error> {
    let destination = match (&args.output, &args.directory) {
        (Some(file), _) => Destination::File(file.clone()),
        (None, Some(folder)) => Destination::Folder(folder.clone()),
        (None, None) => Destination::Folder(".".into()),
    };
    let taken = take(args, &destination);
    if args.held
        && let Err(error) = &taken
    {
        say(args.process, error);
    }
    let taken = taken?;
    let file = taken.path.to_string_lossy();
    if args.json {
        let summary = Summary {
            process: args.process,
            file: &file,
            threads: taken.threads,
            bytes: taken.bytes,
        };
        let line = serde_json::to_string(&summary).expect("numbers and a string");
        return output::print(&format!("{line}\n"));
    }
    output::print(&format!("{file}\n"))
}

fn take(args: &Core, destination: &Destination) -> Result<Taken, Error> {
    let failed = |error| Error::Core {
        process: args.process,
        error,
    };
    let held = args.held.then(|| Held::read(io::stdin())).transpose();
    let held = held.map_err(|error| failed(coredump::CoreError::Held(error)))?;
    coredump::take(args.process, held, destination).map_err(failed)
}

/// Says in the kernel log, a line, what nobody reads at a terminal.
fn say(process: i32, error: &Error) {
    let text = anstream::adapter::strip_str(&error.render()).to_string();
    let line = text
        .lines()
        .map(str::trim)
        .filter(|line| *line != "|")
        .collect::<Vec<_>>()
        .join(" ");
    // There is nobody to tell when this fails.
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open(KERNEL_LOG)
        .and_then(|mut log| log.write_all(format!("<4>dprobes: core dump of process {process}: {line}\n").as_bytes()));
}
