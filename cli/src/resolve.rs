//! From the symbols of a program to addresses, with an explanation where there is none.

use dprobes::rpn::object::{Location, ModType, Object, Place, Relocation, Watch};

use crate::kallsyms::{Kallsyms, NotFound, Owner, Symbol, Wanted};
use crate::report::Report;

/// Why a location has no address.
#[derive(Debug)]
pub enum Unresolved<'a> {
    /// A line of the source of the probed code.
    SourceLine { file: &'a str, line: u32 },
    /// A symbol of a program in user space.
    User { name: &'a str },
    /// The symbol is not what it should be: the place of a probe, or a value.
    Symbol {
        name: &'a str,
        owner: Owner<'a>,
        wanted: Wanted,
        error: NotFound,
    },
    /// The distance leads out of the function.
    Outside {
        symbol: Symbol<'a>,
        addend: i64,
        wanted: Wanted,
    },
}

/// The address of a location, which is a place for a probe or, if it is to be watched, of anything.
///
/// # Errors
/// Why it has none.
pub fn address<'a>(
    object: &Object<'a>,
    location: Location<'a>,
    watch: Option<Watch>,
    symbols: &'a Kallsyms,
) -> Result<u64, Unresolved<'a>> {
    let (name, addend) = match location {
        Location::Symbol { name, addend } => (name, addend),
        Location::Source { file, line } => return Err(Unresolved::SourceLine { file, line }),
        Location::Place(Place::Absolute(value) | Place::ModuleOffset(value)) => return Ok(value),
    };
    let owner = match object.modtype() {
        ModType::Kernel => Owner::Kernel,
        ModType::Kmod => Owner::Module(object.name()),
        ModType::User => return Err(Unresolved::User { name }),
    };
    let wanted = match watch {
        None => Wanted::Function,
        Some(_) => Wanted::Any,
    };
    let symbol = symbols.find(name, owner, wanted).map_err(|error| Unresolved::Symbol {
        name,
        owner,
        wanted,
        error,
    })?;
    inside(&symbol, addend).ok_or(Unresolved::Outside { symbol, addend, wanted })
}

/// The address of a symbol in an expression: of the probed module or, since modules use what the kernel has, of the kernel.
///
/// # Errors
/// Why it has none.
pub fn value<'a>(object: &Object<'a>, word: &Relocation<'a>, symbols: &Kallsyms) -> Result<u64, Unresolved<'a>> {
    let name = word.symbol;
    let find = |owner| symbols.find(name, owner, Wanted::Any).map(|symbol| symbol.address);
    let (owner, found) = match object.modtype() {
        ModType::Kernel => (Owner::Kernel, find(Owner::Kernel)),
        ModType::Kmod => {
            let owner = Owner::Module(object.name());
            match find(owner) {
                Err(error @ (NotFound::Unknown | NotFound::NoModule)) => match find(Owner::Kernel) {
                    // The module is what the program is for.
                    Err(NotFound::Unknown) => (owner, Err(error)),
                    found => (Owner::Kernel, found),
                },
                found => (owner, found),
            }
        }
        ModType::User => return Err(Unresolved::User { name }),
    };
    found.map_err(|error| Unresolved::Symbol {
        name,
        owner,
        wanted: Wanted::Any,
        error,
    })
}

impl Unresolved<'_> {
    /// Is it only that the module is not loaded?
    pub fn is_module_not_loaded(&self) -> bool {
        matches!(
            self,
            Self::Symbol {
                error: NotFound::NoModule,
                ..
            }
        )
    }

    /// What is wrong and what to do, without the place in the program.
    pub fn explain(&self, symbols: &Kallsyms) -> Report {
        match self {
            Self::SourceLine { file, line } => {
                Report::new(format!("source lines cannot be resolved yet: \"{file}\":{line}"))
                    .help("use the symbol of the function and an offset: `offset = symbol+0x1f`")
            }
            Self::User { name } => Report::new(format!(
                "a list of the kernel's symbols does not have those of a file: {name}"
            ))
            .note("the program is for user space")
            .help("`dprobes insert` looks for it in the file and in its debug file"),
            Self::Symbol {
                name,
                owner,
                wanted,
                error,
            } => not_found(name, *owner, *wanted, error, symbols),
            Self::Outside { symbol, addend, wanted } => outside(symbol, *addend, *wanted),
        }
    }
}

/// The address at a distance from a symbol, if that is inside its function.
fn inside(symbol: &Symbol<'_>, addend: i64) -> Option<u64> {
    let distance = u64::try_from(addend).ok()?;
    let inside = symbol.size.is_none_or(|size| distance < size);
    symbol.address.checked_add(distance).filter(|_| inside)
}

fn outside(symbol: &Symbol<'_>, addend: i64, wanted: Wanted) -> Report {
    let Symbol {
        name, address, size, ..
    } = symbol;
    let (sign, distance) = (if addend < 0 { '-' } else { '+' }, addend.unsigned_abs());
    let report = Report::new(format!("{name}{sign}{distance:#x} is outside {name}"));
    match size {
        Some(size) => {
            let last = size.saturating_sub(1);
            let report = report.note(format!(
                "{name} has {size:#x} bytes, so offsets in it go from 0 to {last:#x}"
            ));
            match wanted {
                Wanted::Any => report,
                Wanted::Function => report.help(format!(
                    "`objdump -d --disassemble={name}` of the kernel's vmlinux shows where instructions begin"
                )),
            }
        }
        None => report.help(format!(
            "offsets count from the first byte of {name}, which is at {address:#x}"
        )),
    }
}

fn not_found(name: &str, owner: Owner<'_>, wanted: Wanted, error: &NotFound, symbols: &Kallsyms) -> Report {
    let place = wanted == Wanted::Function;
    match error {
        NotFound::Unknown => {
            let (near, elsewhere) = (symbols.near(name, owner, wanted), symbols.elsewhere(name, wanted));
            let mut report = Report::new(format!("{owner} has no symbol {name}"));
            if let Some(best) = near
                .iter()
                .find(|near| near.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
                .filter(|_| place)
            {
                report = report
                    .note(format!("the compiler made a variant of the function: {best}"))
                    .help(format!(
                        "`offset = {best}` puts the probe into the variant; its arguments may differ"
                    ));
            } else if !near.is_empty() && elsewhere.is_empty() {
                report = report.help(format!("is one of these meant? {}", near.join(", ")));
            }
            for module in &elsewhere {
                if !place {
                    report = report.note(format!(
                        "module {module} has it, but a program can only name symbols of the kernel and of the module it is for"
                    ));
                    continue;
                }
                report = report.help(match Owner::named(module) {
                    Owner::Kernel => "the kernel has it: write `name = \"kernel\"` and `modtype = kernel`".to_owned(),
                    Owner::Module(_) => {
                        format!("module {module} has it: write `name = \"{module}\"` and `modtype = kmod`")
                    }
                });
            }
            if place && near.is_empty() && elsewhere.is_empty() {
                report = report.note("a function that the compiler inlined everywhere has no symbol");
            }
            report
        }
        NotFound::Ambiguous { addresses } => {
            let what = if place { "functions" } else { "symbols" };
            let mut report = Report::new(format!("{owner} has {} {what} with the name {name}", addresses.len()));
            for &address in addresses {
                report = report.note(format!("one is at {address:#x}{}", before(symbols, address)));
            }
            let form = if place { "address = 0x..." } else { "push 0x..." };
            report.help(format!(
                "say which by its address: `{form}`; it holds until the next boot"
            ))
        }
        NotFound::NotText { kind } => Report::new(format!("{name} is data, not a function"))
            .note(format!(
                "its type in the list of symbols is {kind}; functions have t, T, w or W"
            ))
            .help("a probe goes on an instruction: name a function"),
        NotFound::NoModule => {
            let near = match owner {
                Owner::Module(module) => symbols.near_modules(module),
                Owner::Kernel => Vec::new(),
            };
            let report = Report::new(format!("{owner} is not loaded, or has no symbols"));
            match near.first() {
                Some(near) => report.help(format!("module {near} is loaded: is that meant?")),
                None => report.help("load the module first; lsmod shows which are loaded"),
            }
        }
    }
}

/// Which function stands before an address: the functions of one file stand together, so it tells them apart.
fn before(symbols: &Kallsyms, address: u64) -> String {
    match address.checked_sub(1).and_then(|before| symbols.containing(before)) {
        Some((symbol, _)) => format!(", after {}", symbol.name),
        None => String::new(),
    }
}
