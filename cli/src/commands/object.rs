//! `dprobes asm`, `check` and `disasm`: what needs no kernel.

use dprobes::rpn::limits::INSTRUCTION_BUDGET;
use dprobes::rpn::object::ModType;
use serde::Serialize;

use crate::args::{Asm, Check, Disasm};
use crate::error::Error;
use crate::output;
use crate::program::{Program, location_of};
use crate::render::escape::Charset;
use crate::render::{json, text};
use crate::symbols;

/// Assembles a program and writes its object.
pub fn asm(args: &Asm) -> Result<(), Error> {
    let program = Program::load(&args.source, output::tell)?;
    output::write_file(&args.output, program.bytes())
}

/// Prints an object as text.
pub fn disasm(args: &Disasm) -> Result<(), Error> {
    let program = Program::load_object(&args.object)?;
    let text = rpn_asm::disassemble(program.bytes()).map_err(|error| Error::Disassemble {
        path: args.object.clone(),
        error,
    })?;
    output::print(&text)
}

/// What `check` found.
#[derive(Serialize)]
struct Summary {
    module: String,
    module_type: &'static str,
    major: u16,
    locals: Vec<String>,
    globals: Vec<String>,
    maps: Vec<String>,
    heapmax: u16,
    logmax: u16,
    jmpmax: u16,
    /// The budget of one hit.
    instructions: u32,
    code_bytes: usize,
    /// Symbols in expressions, in the order of their first use.
    symbols: Vec<String>,
    probes: Vec<Probe>,
}

#[derive(Serialize)]
struct Probe {
    minor: u16,
    location: String,
    /// What it watches for, if it is a watchpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<String>,
    /// Only when symbols were to be resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    line: u32,
    code_bytes: u32,
    pass_count: u64,
    /// 0 for no limit.
    max_hits: u64,
    log_on_fault: bool,
}

/// Checks a program and says what is in it.
pub fn check(args: &Check) -> Result<(), Error> {
    let program = Program::load(&args.source, output::tell)?;
    let resolved = match &args.kallsyms {
        Some(list) => Some(program.resolve(&symbols::load(Some(list))?)?),
        None => None,
    };
    let summary = summary(&program, resolved.as_deref())?;
    if args.json {
        return output::print(&json::line(&summary));
    }
    output::print(&describe(&summary, Charset::from_env()))
}

fn summary(program: &Program, resolved: Option<&[u8]>) -> Result<Summary, Error> {
    let object = program.parse()?;
    let addresses = resolved.map(|bytes| program.addresses(bytes)).transpose()?;
    let probes = object
        .points()
        .enumerate()
        .map(|(index, point)| Probe {
            minor: point.minor(),
            location: location_of(&point),
            watch: point.watch().map(|watch| watch.to_string()),
            address: addresses
                .as_ref()
                .and_then(|all| all.get(index).copied().flatten())
                .map(|at| format!("{at:#x}")),
            line: point.line(),
            code_bytes: point.code().end - point.code().start,
            pass_count: point.pass_count(),
            max_hits: point.max_hits(),
            log_on_fault: point.log_on_fault(),
        })
        .collect();
    let mut symbols: Vec<String> = Vec::new();
    for word in object.relocations() {
        if !symbols.iter().any(|symbol| symbol == word.symbol) {
            symbols.push(word.symbol.to_owned());
        }
    }
    Ok(Summary {
        module: object.name().to_owned(),
        module_type: match object.modtype() {
            ModType::User => "user",
            ModType::Kernel => "kernel",
            ModType::Kmod => "kmod",
        },
        major: object.major(),
        locals: object.locals().map(str::to_owned).collect(),
        globals: object.globals().map(str::to_owned).collect(),
        maps: object.maps().map(|map| map.name.to_owned()).collect(),
        heapmax: object.heapmax(),
        logmax: object.logmax(),
        jmpmax: object.jmpmax(),
        instructions: INSTRUCTION_BUDGET,
        code_bytes: object.code().len(),
        symbols,
        probes,
    })
}

fn describe(summary: &Summary, charset: Charset) -> String {
    let mut out = match summary.module_type {
        "kernel" => format!("program {} for the kernel", summary.major),
        "kmod" => format!(
            "program {} for module {}",
            summary.major,
            text::plain(&summary.module, charset)
        ),
        _ => format!(
            "program {} for {}",
            summary.major,
            text::plain(&summary.module, charset)
        ),
    };
    let probes = summary.probes.len();
    let plural = |count, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    out.push_str(&format!(
        ": {}, {}, {} of code\n",
        plural(probes, "probe"),
        [
            (summary.locals.len(), "local variable"),
            (summary.globals.len(), "global variable"),
            (summary.maps.len(), "map"),
        ]
        .into_iter()
        // Local variables are what a reader expects to be told of.
        .filter(|(count, what)| *count > 0 || *what == "local variable")
        .map(|(count, what)| plural(count, what))
        .collect::<Vec<_>>()
        .join(", "),
        plural(summary.code_bytes, "byte"),
    ));
    out.push_str(&format!(
        "each hit may log {}, take {} and execute {}\n",
        plural(usize::from(summary.logmax), "byte"),
        plural(usize::from(summary.jmpmax), "jump"),
        plural(summary.instructions as usize, "instruction"),
    ));
    if !summary.symbols.is_empty() {
        let symbols: Vec<_> = summary.symbols.iter().map(|s| text::plain(s, charset)).collect();
        out.push_str(&format!(
            "takes the addresses of these symbols: {}\n",
            symbols.join(", ")
        ));
    }
    for probe in &summary.probes {
        let mut facts = vec![plural(probe.code_bytes as usize, "byte")];
        if let Some(address) = &probe.address {
            facts.insert(0, format!("at {address}"));
        }
        if let Some(watch) = &probe.watch {
            facts.insert(0, format!("watches for {watch}"));
        }
        if probe.pass_count > 0 {
            facts.push(format!("lets {} hits pass", probe.pass_count));
        }
        if probe.max_hits > 0 {
            facts.push(format!("ends after {} hits", probe.max_hits));
        }
        if probe.log_on_fault {
            facts.push("logs on fault".to_owned());
        }
        let codes = format!("{}.{}", summary.major, probe.minor);
        out.push_str(&format!(
            "  {codes:<7} {}: {}\n",
            text::plain(&probe.location, charset),
            facts.join(", ")
        ));
    }
    out
}
