//! `dprobes insert`.

use crate::args::{Global, Insert};
use crate::device::{Device, How, InsertOptions};
use crate::error::Error;
use crate::output;
use crate::program::Program;
use crate::refusal::{self, Request};
use crate::render::escape::Charset;
use crate::render::json;
use crate::render::status::{self, When};
use crate::select::Wanted;
use crate::symbols;
use crate::user::UserFile;

/// Inserts a program and shows its probes.
pub fn run(args: &Insert, global: &Global) -> Result<(), Error> {
    let wanted = Wanted {
        groups: &args.group,
        types: &args.kind,
    };
    let mut program = Program::load(&args.source, output::tell)?.select(wanted)?;
    if args.dont_verify_opcodes {
        program = program.with_any_opcode()?;
    }
    if args.process.is_some() {
        program.must_watch()?;
    }
    let how = match (args.merge, args.replace) {
        (true, _) => How::Merge,
        (_, true) => How::Replace,
        _ => How::New,
    };
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
    let (module, major) = program.identity();
    let ours = |device: &Device| -> Result<Vec<_>, Error> {
        let probes = device.query()?.into_iter();
        Ok(probes.filter(|probe| status::is_of(probe, &module, major)).collect())
    };
    let replaced = match how {
        How::Replace => ours(&device)?.len(),
        How::New | How::Merge => 0,
    };
    let file = file.as_ref().map(|user| &user.file);
    let targets = args.log_to.iter().fold(0, |bits, target| bits | target.bit());
    let last = device
        .insert(
            &resolved,
            InsertOptions {
                file,
                how,
                targets,
                process: args.process.unwrap_or(0),
                capacity: replaced,
            },
        )
        .map_err(|error| {
            refusal::error(
                error,
                Request::Insert {
                    program: &program,
                    symbols: symbols.as_ref(),
                },
            )
        })?;

    let now = ours(&device)?;
    if args.json {
        let gone = status::sorted(&last).into_iter();
        gone.map(|probe| (probe, When::AtRemoval))
            .chain(now.iter().map(|probe| (probe, When::Now)))
            .try_for_each(|(probe, when)| output::print(&json::probe(probe, when)))?;
        return Ok(());
    }
    let charset = Charset::from_env();
    if !last.is_empty() {
        let table = status::table(&last, When::AtRemoval, charset);
        output::print(&format!("these were replaced:\n{table}\n\n"))?;
    }
    output::print(&(status::inserted(&now, charset) + "\n"))
}
