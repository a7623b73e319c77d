//! `dprobes insert`.

use crate::args::{Global, Insert};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::program::Program;
use crate::refusal::{self, Request};
use crate::render::escape::Charset;
use crate::render::json;
use crate::render::status::{self, When};
use crate::symbols;
use crate::user::UserFile;

/// Inserts a program and shows its probes.
pub fn run(args: &Insert, global: &Global) -> Result<(), Error> {
    let program = Program::load(&args.source, output::tell)?;
    // Before the symbols: without the module, or without permission for it, their addresses are of no use.
    let device = Device::open(&global.device)?;
    let file = program.user_file().map(|path| UserFile::open(&path)).transpose()?;
    let symbols = if file.is_some() {
        None
    } else if program.needs_symbols() {
        Some(symbols::load(args.kallsyms.as_deref())?)
    } else {
        symbols::load(args.kallsyms.as_deref()).ok()
    };
    let resolved = match (&file, &symbols) {
        (Some(file), _) => program.resolve_in(file)?,
        (None, Some(symbols)) => program.insertable(symbols)?,
        (None, None) => program.bytes().to_vec(),
    };
    let file = file.as_ref().map(|user| &user.file);
    device.insert(&resolved, file).map_err(|error| {
        refusal::error(
            error,
            Request::Insert {
                program: &program,
                symbols: symbols.as_ref(),
            },
        )
    })?;

    let (module, major) = program.identity();
    let probes = device.query()?;
    let ours: Vec<_> = probes
        .into_iter()
        .filter(|probe| status::is_of(probe, &module, major))
        .collect();
    if args.json {
        return ours
            .iter()
            .try_for_each(|probe| output::print(&json::probe(probe, When::Now)));
    }
    output::print(&(status::inserted(&ours, Charset::from_env()) + "\n"))
}
