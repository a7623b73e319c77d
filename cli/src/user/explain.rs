//! Why a place in a file cannot be probed, in words.

use std::path::Path;

use super::Unresolved;
use super::debug::ROOT;
use super::elf::{Elf, NotFound, NotProgram};
use super::lines::NoLine;
use crate::report::Report;

/// How many places are listed.
const MOST_LISTED: usize = 10;

/// The file cannot be probed.
pub fn not_a_program(path: &Path, error: &NotProgram) -> Report {
    let report = Report::new(format!(
        "{} is not a program or a library that can be probed",
        path.display()
    ));
    match error {
        NotProgram::Format(why) => report.note(why),
        NotProgram::Architecture => report.note("it is not for x86"),
        NotProgram::Kind => report.note("it is an object file or a core dump: no process runs it"),
    }
    .help("`name` is the path of an ELF executable or shared library; a script is run by its interpreter")
}

/// The file is not named by its whole path.
pub fn relative(name: &str) -> Report {
    Report::new(format!("{name} is not a whole path"))
        .note("a program for user space is for one file, wherever the command is run")
        .help(format!("write `name = \"/.../{}\"`", name.trim_start_matches("./")))
}

/// A location is no place in the file.
pub fn unresolved(error: &Unresolved<'_>, path: &Path, elf: &Elf) -> Report {
    let path = path.display();
    match error {
        Unresolved::Symbol { name, error } => symbol(name, error, &path.to_string(), elf),
        Unresolved::Outside { name, addend, size } => {
            let (sign, distance) = (if *addend < 0 { '-' } else { '+' }, addend.unsigned_abs());
            Report::new(format!("{name}{sign}{distance:#x} is outside {name}"))
                .note(format!("{name} has {size:#x} bytes"))
                .help(format!(
                    "`objdump -d --disassemble={name} {path}` shows where instructions begin"
                ))
        }
        Unresolved::Line { file, line, error } => no_line(file, *line, error, &path.to_string(), elf),
        Unresolved::NotCode { what, value } => {
            let code = elf
                .code_offsets()
                .map(|range| format!("{:#x} to {:#x}", range.start, range.end - 1));
            let report = Report::new(format!("{what} {value:#x} is not in the code of {path}"));
            match *what {
                "offset" => report.note(format!(
                    "code is at these offsets in the file: {}",
                    code.collect::<Vec<_>>().join(", ")
                )),
                _ => report,
            }
            .help("a number in `offset` counts from the beginning of the file; one in `address` is what objdump and nm print")
        }
        Unresolved::NotBoundary { address, start } => {
            Report::new(format!("{} is inside an instruction", place(*address, elf)))
                .note("a breakpoint there would change the instruction, and the process with it")
                .help(format!("the instruction begins at {}", place(*start, elf)))
        }
        Unresolved::NotCalled { address } => {
            let place = place(*address, elf);
            Report::new(format!("{place} is not known to be the beginning of a function that is called"))
                .note("only there is the return address on top of the stack, where it is replaced; anything else would be damaged")
                .help("name the function")
        }
        Unresolved::Moves { name } => Report::new(format!("{name} is at another address in every process"))
            .note(format!("{path} is position-independent"))
            .help("count from where the program is: `push r, rip` and the distance from the probed instruction"),
    }
}

/// What an address is called.
fn place(address: u64, elf: &Elf) -> String {
    match elf.containing(address) {
        Some(symbol) if symbol.address == address => symbol.name.clone(),
        Some(symbol) => format!("{}+{:#x}", symbol.name, address - symbol.address),
        None => format!("{address:#x}"),
    }
}

fn symbol(name: &str, error: &NotFound, path: &str, elf: &Elf) -> Report {
    match error {
        NotFound::Unknown => {
            let mut report = Report::new(format!("{path} has no symbol {name}"));
            let mut near: Vec<_> = elf
                .names()
                .map(|other| (strsim::damerau_levenshtein(name, other), other))
                .filter(|(distance, _)| *distance <= 2.min(name.len() / 2))
                .collect();
            near.sort_unstable();
            near.dedup();
            if let Some((_, near)) = near.first() {
                report = report.help(format!("is {near} meant?"));
            }
            if let Some(debug) = &elf.debug {
                report = report.note(format!("its other symbols come from {}", debug.path.display()));
            }
            if !elf.has_all_symbols {
                report = report.note("the file is stripped: it has only the names that it exports").note(
                    match &elf.build_id {
                        Some(id) => format!("no debug file for its build ID, {id}, is in {ROOT}/.build-id"),
                        None => "it has no build ID by which its debug file could be found".to_owned(),
                    },
                );
                report = report.help("install the package with its debug symbols, or give `address = 0x...`");
            }
            report
        }
        NotFound::Ambiguous(addresses) => several(
            Report::new(format!("{path} has {} functions with the name {name}", addresses.len())),
            addresses,
        ),
        NotFound::NotCode => Report::new(format!("{name} is data, not a function"))
            .help("a probe goes on an instruction: name a function"),
        NotFound::Chooser => Report::new(format!("{name} stands for one of several functions"))
            .note("which one a process calls is decided when it starts, by what its CPU can do (an indirect function)")
            .help("put the probe on the function that is chosen; with debug symbols it has a name of its own, such as __memcpy_avx_unaligned"),
    }
}

fn no_line(file: &str, line: u32, error: &NoLine, path: &str, elf: &Elf) -> Report {
    match error {
        NoLine::NoDebug(why) => {
            let report = Report::new(format!(
                "{path} has no line numbers, so that \"{file}\":{line} is not found"
            ));
            let report = match (why, &elf.build_id) {
                (Some(why), _) => report.note(format!("its debug information cannot be read: {why}")),
                (None, Some(id)) => {
                    report.note(format!("no debug file for its build ID, {id}, is in {ROOT}/.build-id"))
                }
                (None, None) => report,
            };
            report.help("compile it with -g, install the package with its debug symbols, or name the function")
        }
        NoLine::NoFile => Report::new(format!("nothing in {path} is from a file {file}"))
            .help("give the end of the path that the compiler was given: `objdump --dwarf=decodedline` lists them"),
        NoLine::NoCode { next } => {
            let report = Report::new(format!("there is no code for \"{file}\":{line}"));
            match next {
                Some(next) => report.help(format!("the next line with code is {next}")),
                None => report,
            }
        }
        NoLine::Ambiguous(addresses) => several(
            Report::new(format!(
                "the code of \"{file}\":{line} is in {} functions",
                addresses.len()
            )),
            addresses,
        ),
    }
}

/// A name has several places.
fn several(report: Report, addresses: &[u64]) -> Report {
    let listed = addresses.iter().take(MOST_LISTED);
    let report = listed.fold(report, |report, address| report.note(format!("one is at {address:#x}")));
    report.help("say which by its address in the file: `address = 0x...`")
}
