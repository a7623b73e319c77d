use super::{Explanation, all_of, one_of, say};
use crate::source::Span;
use dprobes::rpn::op::facility;
use dprobes::rpn::reg::Reg;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSpace {
    /// Registers.
    Register,
    /// Local variables.
    Local,
    /// Global variables.
    Global,
    /// Maps.
    Map,
}

impl NameSpace {
    pub(super) fn words(self) -> &'static str {
        match self {
            NameSpace::Register => "register",
            NameSpace::Local => "local variable",
            NameSpace::Global => "global variable",
            NameSpace::Map => "map",
        }
    }

    /// The selector of instructions that take such a name.
    pub(crate) fn selector(self) -> Option<&'static str> {
        match self {
            NameSpace::Register => Some("r"),
            NameSpace::Local => Some("lv"),
            NameSpace::Global => Some("gv"),
            NameSpace::Map => None,
        }
    }

    /// The item of the header that declares such names.
    fn item(self) -> &'static str {
        match self {
            NameSpace::Global => "globals",
            _ => "vars",
        }
    }
}

/// What can be wrong with an instruction's operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperandProblem {
    /// A selector that the instruction does not have.
    ExpectedSelector {
        /// Mnemonic and selectors so far.
        after: String,
        /// What may follow.
        expected: Vec<String>,
        /// What was found, in words.
        found: String,
        /// A selector that is nearly the same.
        near: Option<String>,
    },
    /// An instruction without its operand.
    Missing {
        /// Mnemonic and selectors.
        instruction: String,
        /// How it is written.
        forms: Vec<String>,
    },
    /// An operand where none can be.
    Unexpected {
        /// Mnemonic and selectors.
        instruction: String,
        /// How it is written.
        forms: Vec<String>,
    },
    /// A name where a number is needed that names something else.
    NotANumber {
        /// The name.
        name: String,
        /// What it is.
        is: NameSpace,
        /// The instruction that would take it.
        instead: Option<String>,
    },
    /// An unknown register.
    UnknownRegister {
        /// The name.
        name: String,
        /// A register that is nearly the same.
        near: Option<String>,
    },
    /// A register that cannot be written.
    ReadOnlyRegister {
        /// The name.
        name: String,
    },
    /// A register that has no value of its own in user mode.
    NoUserRegister {
        /// The name.
        name: String,
    },
    /// An unknown label.
    UnknownLabel {
        /// The name.
        name: String,
        /// A label of the same probe that is nearly the same.
        near: Option<String>,
        /// A label of this name in another probe.
        elsewhere: Option<Span>,
    },
    /// An unknown variable.
    UnknownVariable {
        /// The name.
        name: String,
        /// Local or global.
        space: NameSpace,
        /// A variable that is nearly the same.
        near: Option<String>,
        /// The program has none at all.
        none: bool,
        /// How it is written, if it is a variable of the other kind.
        instead: Option<String>,
    },
    /// An index beyond the variables.
    VariableIndex {
        /// The index.
        index: String,
        /// Local or global.
        space: NameSpace,
        /// How many variables there are.
        count: usize,
    },
    /// An unknown map.
    UnknownMap {
        /// The name.
        name: String,
        /// A map that is nearly the same.
        near: Option<String>,
        /// The maps there are.
        known: Vec<String>,
    },
    /// An index beyond the maps.
    MapIndex {
        /// The index.
        index: String,
        /// How many maps there are.
        count: usize,
    },
    /// A group that no probe is in.
    UnknownGroup {
        /// Its number.
        group: u16,
        /// The first groups there are.
        known: Vec<u16>,
        /// How many there are besides.
        more: usize,
    },
    /// An unknown exit facility.
    UnknownFacility {
        /// The name.
        name: String,
        /// A facility that is nearly the same.
        near: Option<String>,
    },
    /// The number of an exit facility that there cannot be.
    ReservedFacility {
        /// The number.
        number: u8,
    },
    /// A symbol that is very much like another name.
    DoubtfulSymbol {
        /// The symbol.
        name: String,
        /// What was perhaps meant, as it is written.
        near: String,
    },
}

impl OperandProblem {
    pub(super) fn explain(&self) -> Explanation {
        use OperandProblem::*;
        match self {
            ExpectedSelector {
                after,
                expected,
                found,
                near,
            } => {
                let x = if expected.len() > FEW {
                    say(
                        format!("expected an operand of `{after}`, found {found}"),
                        format!("not an operand of `{after}`"),
                    )
                } else {
                    say(
                        format!("expected {} after `{after}`, found {found}", one_of(expected)),
                        format!("expected {}", one_of(expected)),
                    )
                };
                match near {
                    None if expected.len() > FEW => x.note(format!("behind `{after}` may stand {}", one_of(expected))),
                    _ => x.near("an operand", near.as_deref()),
                }
            }
            Missing { instruction, forms } => written(
                say(format!("`{instruction}` needs an operand"), "expected an operand"),
                forms,
            ),
            Unexpected { instruction, forms } => {
                if forms.iter().all(|f| f == instruction) {
                    say(format!("`{instruction}` takes no operand"), "unexpected here")
                } else {
                    written(
                        say(format!("`{instruction}` takes no such operand"), "unexpected here"),
                        forms,
                    )
                }
            }
            NotANumber { name, is, instead } => {
                let is = is.words();
                let x = say(format!("`{name}` is a {is}, not a number"), "expected a number");
                match instead {
                    Some(form) => x.help(format!("for the {is} write `{form}`")),
                    None => x,
                }
            }
            UnknownRegister { name, near } => {
                let x = say(format!("unknown register `{name}`"), "not a register").near("a register", near.as_deref());
                if near.is_some() {
                    x
                } else {
                    x.note(format!("registers are {}", registers(|_| true)))
                }
            }
            ReadOnlyRegister { name } => say(
                format!("register `{name}` cannot be written"),
                "expected a register that can be written",
            )
            .note(format!("these can: {}", registers(Reg::is_writable))),
            NoUserRegister { name } => say(
                format!("register `{name}` is not among those of user mode"),
                "expected a register that every trap saves",
            )
            .note(format!("these are saved: {}", registers(Reg::is_saved)))
            .help(format!("for its value on this CPU now write `push r, {name}`")),
            UnknownLabel { name, near, elsewhere } => {
                let x = say(format!("unknown label `{name}`"), "no such label in this probe")
                    .near("a label", near.as_deref());
                match elsewhere {
                    Some(span) => x.see(
                        *span,
                        "a label of this name is in another probe; labels are local to their probe",
                    ),
                    None => x,
                }
            }
            UnknownVariable {
                name,
                space,
                near,
                none,
                instead,
            } => {
                let (words, item) = (space.words(), space.item());
                let x = say(format!("unknown {words} `{name}`"), format!("not a {words}"));
                match (instead, near, none) {
                    (Some(form), ..) => x.help(format!("it is one of the other kind: write `{form}`")),
                    (None, _, true) => x.help(format!("declare it in the header: `{item} = {name}`")),
                    (None, None, false) => x.help(format!("add `{name}` to `{item}` in the header")),
                    (None, Some(_), false) => x.near(&format!("a {words}"), near.as_deref()),
                }
            }
            VariableIndex { index, space, count: 0 } => say(
                format!("there is no {} {index}: the program has none", space.words()),
                "no such variable",
            )
            .help(format!(
                "declare variables in the header, by name or by number: `{0} = NAME` or `{0} = 1`",
                space.item()
            )),
            VariableIndex { index, space, count } => say(
                format!("there is no {} {index}: the program has {count}", space.words()),
                format!("expected an index from 0 to {}", count - 1),
            ),
            UnknownMap { name, near, known } => {
                let x = say(format!("unknown map `{name}`"), "not a map").near("a map", near.as_deref());
                if known.is_empty() {
                    x.help(format!("declare it in the header: `map {name} = count`"))
                } else if near.is_none() {
                    x.note(format!("maps are {}", all_of(known)))
                } else {
                    x
                }
            }
            MapIndex { index, count: 0 } => {
                say(format!("there is no map {index}: the program has none"), "no such map")
                    .help("declare maps in the header: `map NAME = count`")
            }
            MapIndex { index, count } => say(
                format!("there is no map {index}: the program has {count}"),
                format!("expected an index from 0 to {}", count - 1),
            ),
            UnknownGroup { group, known, more } => {
                let mut known: Vec<_> = known.iter().map(u16::to_string).collect();
                if *more > 0 {
                    known.push(format!("and {more} more"));
                }
                say(
                    format!("no probe of this program is in group {group}"),
                    "expected the group of a probe",
                )
                .note(format!("groups that have probes: {}", known.join(", ")))
                .help(format!("a probe joins the group by its item `group = {group}`"))
            }
            UnknownFacility { name, near } => {
                let x = say(format!("unknown exit facility `{name}`"), "not an exit facility");
                match near {
                    Some(_) => x.near("an exit facility", near.as_deref()),
                    None => x.note(facilities()),
                }
            }
            ReservedFacility { number } => {
                say(format!("exit facility {number} is reserved"), "not an exit facility").note(facilities())
            }
            DoubtfulSymbol { name, near } => Explanation {
                fix: Some(("if it is not a symbol, perhaps this was meant".into(), near.clone())),
                ..say(
                    format!("`{name}` is taken for a symbol"),
                    "its address is found out when the program is inserted",
                )
            }
            .help(format!("a symbol in quotes is one without doubt: `\"{name}\"`")),
        }
    }
}

/// More words than this are not listed in a title.
const FEW: usize = 10;

fn written(e: Explanation, forms: &[String]) -> Explanation {
    if forms.len() <= FEW {
        return e.help(format!("written {}", one_of(forms)));
    }
    // Of those with the same beginning one will do.
    let mut seen = Vec::new();
    let short: Vec<_> = forms
        .iter()
        .filter(|form| {
            let new = !seen.contains(&start(form));
            seen.push(start(form));
            new
        })
        .map(String::as_str)
        .collect();
    e.help(format!("written, for example, {}", one_of(&short)))
}

/// Mnemonic and first selector of a form.
fn start(form: &str) -> &str {
    form.split(',').next().unwrap_or(form)
}

/// The names of registers; what has numbers from 0 on is written as a range.
fn registers(wanted: fn(Reg) -> bool) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut last: Option<(String, u32)> = None;
    for reg in Reg::ALL.iter().copied().filter(|r| wanted(*r)) {
        let name = reg.name();
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        let vector = stem.ends_with("mm");
        match (&mut last, number) {
            (Some((s, n)), Some(number)) if vector && s == stem && *n + 1 == number => {
                *n = number;
                if let Some(range) = names.last_mut() {
                    *range = format!("{stem}0` to `{name}");
                }
            }
            _ => {
                names.push(name.to_owned());
                last = number.map(|n| (stem.to_owned(), n));
            }
        }
    }
    all_of(&names)
}

fn facilities() -> String {
    let names: Vec<_> = facility::NAMES.iter().map(|(n, _)| *n).collect();
    format!(
        "exit facilities are {}, and {} to 255 for those of other modules",
        all_of(&names),
        facility::FIRST_FREE
    )
}
