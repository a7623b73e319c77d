use super::{Explanation, all_of, one_of, say};
use crate::source::Span;
use dprobes::rpn::op::Op;

/// What a word should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A quoted string.
    String,
    /// A constant expression.
    Number,
    /// `yes` or `no`.
    YesNo,
    /// A module type.
    ModType,
    /// Names of variables, or how many there are.
    Variables,
    /// A register.
    Register,
    /// A label.
    Label,
    /// A local variable, by name or number.
    Local,
    /// A source line behind a file name.
    Line,
}

impl ValueKind {
    fn words(self) -> &'static str {
        match self {
            ValueKind::String => "a string in double quotes",
            ValueKind::Number => "a number",
            ValueKind::YesNo => "`yes` or `no`",
            ValueKind::ModType => "`kernel`, `kmod` or `user`",
            ValueKind::Variables => "names of variables separated by commas, or how many there are",
            ValueKind::Register => "a register",
            ValueKind::Label => "a label",
            ValueKind::Local => "a local variable, by name or number",
            ValueKind::Line => "a line number",
        }
    }
}

/// What can be wrong with the program itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramProblem {
    /// A line that begins like nothing.
    ExpectedStatement {
        /// What was found, in words.
        found: String,
    },
    /// Something behind the end of an item or instruction.
    ExpectedEnd {
        /// What was found, in words.
        found: String,
    },
    /// A first word that is no mnemonic.
    UnknownMnemonic {
        /// The word.
        name: String,
        /// A mnemonic that is nearly the same.
        near: Option<String>,
    },
    /// A word before `=` that is no item.
    UnknownItem {
        /// The word.
        name: String,
        /// An item that is nearly the same.
        near: Option<String>,
    },
    /// The name of an item without `=`.
    ExpectedEquals {
        /// The item.
        item: String,
        /// What was found, in words.
        found: String,
    },
    /// An item of the header after the first probe.
    HeaderItemInProbe {
        /// The item.
        item: String,
        /// Where the header ended.
        probe: Span,
    },
    /// An item of a probe before the first probe.
    ProbeItemInHeader {
        /// The item.
        item: String,
    },
    /// An item of a probe after an instruction of it.
    ItemAfterCode {
        /// The item.
        item: String,
        /// The probe.
        probe: Span,
    },
    /// An instruction before the first probe.
    CodeOutsideProbe,
    /// The same item twice.
    DuplicateItem {
        /// The item.
        item: String,
        /// The first.
        first: Span,
    },
    /// `offset` and `address` in one probe, or one of them twice.
    TwoLocations {
        /// The first.
        first: Span,
    },
    /// A header without what it must have.
    MissingHeaderItems {
        /// The items.
        items: Vec<String>,
    },
    /// A probe without what it must have.
    MissingProbeItems {
        /// The items.
        items: Vec<String>,
    },
    /// A program without probes.
    NoProbes,
    /// A probe without instructions.
    EmptyProbe,
    /// An instruction or label at the end that execution would run past.
    RunsPastEnd,
    /// A label behind the last instruction.
    LabelAtEnd {
        /// The label.
        name: String,
    },
    /// The wrong kind of value.
    ExpectedValue {
        /// For what: an item, or mnemonic and selectors.
        of: String,
        /// What it should be.
        kind: ValueKind,
        /// What was found, in words.
        found: String,
        /// What was meant, if it can be guessed.
        near: Option<String>,
    },
    /// A number out of range.
    OutOfRange {
        /// Of what: an item, or mnemonic and selectors.
        of: String,
        /// As computed.
        value: String,
        /// The least.
        least: i128,
        /// The most.
        most: i128,
    },
    /// An `ex_mask` with bits that are no exception's.
    UnknownException {
        /// The bits.
        bits: u16,
    },
    /// A major code of zero.
    ReservedMajor,
    /// No opcode bytes, or more than an instruction has.
    OpcodeLength {
        /// How many.
        found: usize,
    },
    /// A symbol where only an address will do.
    SymbolicAddress {
        /// The symbol.
        symbol: String,
    },
    /// An empty string where a name must be.
    EmptyName {
        /// The item.
        item: String,
    },
    /// A string with control characters or too long.
    UnfitName {
        /// The item.
        item: String,
        /// The most bytes it may have.
        limit: u32,
    },
    /// Two variables with one name.
    DuplicateVariable {
        /// The name.
        name: String,
        /// The first.
        first: Span,
    },
    /// More variables than there can be.
    TooManyVariables {
        /// How many.
        found: i128,
        /// The limit.
        limit: u16,
    },
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
    MissingOperand {
        /// Mnemonic and selectors.
        instruction: String,
        /// How it is written.
        forms: Vec<String>,
    },
    /// An operand where none can be.
    UnexpectedOperand {
        /// Mnemonic and selectors.
        instruction: String,
        /// How it is written.
        forms: Vec<String>,
    },
    /// A name where a number is needed that names something else.
    WrongNameSpace {
        /// The name.
        name: String,
        /// What it is.
        is: &'static str,
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
    /// An unknown label.
    UnknownLabel {
        /// The name.
        name: String,
        /// A label of the same probe that is nearly the same.
        near: Option<String>,
        /// A label of this name in another probe.
        elsewhere: Option<Span>,
    },
    /// A label twice in one probe.
    DuplicateLabel {
        /// The name.
        name: String,
        /// The first.
        first: Span,
    },
    /// An unknown variable.
    UnknownVariable {
        /// The name.
        name: String,
        /// A variable that is nearly the same.
        near: Option<String>,
        /// The program has none at all.
        none: bool,
    },
    /// An index beyond the variables.
    VariableIndex {
        /// The index.
        index: String,
        /// How many variables there are.
        count: usize,
    },
    /// A label nobody jumps to.
    UnusedLabel {
        /// The name.
        name: String,
    },
    /// A variable no instruction names.
    UnusedVariable {
        /// The name.
        name: String,
    },
    /// The object form cannot hold the program.
    Object(dprobes::rpn::object::ObjectError),
    /// The verifier has proved that the program is not safe to run.
    Unsafe(dprobes::rpn::verify::Fault),
}

impl ProgramProblem {
    pub(super) fn explain(&self) -> Explanation {
        use ProgramProblem::*;
        match self {
            ExpectedStatement { found } => say(
                format!("expected an item, an instruction or a label, found {found}"),
                "a line cannot begin like this",
            ),
            ExpectedEnd { found } => say(
                format!("expected the end of the line, found {found}"),
                "unexpected here",
            ),
            UnknownMnemonic { name, near } => {
                let e = say(format!("unknown instruction `{name}`"), "not an instruction");
                match near {
                    Some(_) => e.near("an instruction", near.as_deref()),
                    None => e.note(format!("instructions are {}", all_of(&mnemonics()))),
                }
            }
            UnknownItem { name, near } => {
                let (header, probe) = (crate::parse::HEADER_ITEMS, crate::parse::PROBE_ITEMS);
                say(format!("unknown item `{name}`"), "not an item")
                    .note(format!("items of the header are {}", all_of(&header)))
                    .note(format!("items of a probe are {}", all_of(&probe)))
                    .near("an item", near.as_deref())
            }
            ExpectedEquals { item, found } => say(
                format!("expected `=` after `{item}`, found {found}"),
                "expected `=`",
            ),
            HeaderItemInProbe { item, probe } => say(
                format!("`{item}` belongs to the header"),
                "too late for the header",
            )
            .see(*probe, "the header ended where the first probe began")
            .help(format!("move `{item}` up, before the first `offset` or `address`")),
            ProbeItemInHeader { item } => say(format!("`{item}` belongs to a probe"), "no probe has begun")
                .help("a probe begins with `offset` or `address`; its other items come after that"),
            ItemAfterCode { item, probe } => say(
                format!("`{item}` after an instruction"),
                "the items of a probe come before its instructions",
            )
            .see(*probe, "the probe begins here")
            .help("a new probe begins with `offset` or `address`"),
            CodeOutsideProbe => say("instruction outside a probe", "no probe has begun")
                .help("begin a probe with `offset = SYMBOL` before its instructions"),
            DuplicateItem { item, first } => say(format!("`{item}` is given twice"), "given again").see(*first, "first given here"),
            TwoLocations { first } => say("a probe has one location", "a second one").see(*first, "the first one")
                .help("the first probe has no instructions: a new probe begins only after the instructions of the one before"),
            MissingHeaderItems { items } => say(
                format!("the header lacks {}", all_of(items)),
                "the header ends here",
            )
            .help(format!("add before the first probe: {}", forms(items))),
            MissingProbeItems { items } => say(format!("the probe lacks {}", all_of(items)), "this probe")
                .help(format!("add before its instructions: {}", forms(items))),
            NoProbes => say("the program has no probe", "").help("a probe begins with `offset = SYMBOL`, its items and instructions follow"),
            EmptyProbe => say("the probe has no instructions", "this probe")
                .help("the shortest handler is `exit`: it leaves an empty record")
                .help("the next `offset` or `address` begins a new probe"),
            RunsPastEnd => say("execution would run past the end of the probe", "the last instruction goes on to a next one")
                .help("end with `exit` to leave a record, or with `abort` to leave none"),
            LabelAtEnd { name } => say(format!("no instruction follows label `{name}`"), "the probe ends here")
                .help("put `exit` or `abort` behind it"),
            ExpectedValue { of, kind, found, near } => {
                let x = say(
                    format!("`{of}` needs {}, found {found}", kind.words()),
                    format!("expected {}", kind.words()),
                );
                match near {
                    Some(s) => Explanation { fix: Some(("perhaps this was meant".into(), s.clone())), ..x },
                    None => x,
                }
            }
            OutOfRange { of, value, least, most } => say(
                format!("{value} is out of range for `{of}`"),
                format!("expected a number from {} to {}", bound(*least), bound(*most)),
            ),
            UnknownException { bits } => {
                let all: Vec<_> = dprobes::rpn::exception::CODES.iter().map(|(n, _)| *n).collect();
                say(format!("{bits:#06x} is not an exception"), "expected exceptions joined by `|`")
                    .note(format!("exceptions are {}", all_of(&all)))
            }
            ReservedMajor => say("major code 0 is reserved", "expected a number from 1 to 65535")
                .note("records with major 0 are the engine's own, such as stack traces"),
            OpcodeLength { found } => say(
                format!("{found} bytes are not an instruction"),
                format!("expected 1 to {} bytes", dprobes::rpn::limits::OPCODE_MAX),
            ),
            SymbolicAddress { symbol } => say(
                format!("`address` needs a number, and `{symbol}` is not defined"),
                "not known here",
            )
            .help(format!("for the address of a symbol write `offset = {symbol}`"))
            .help(format!(
                "if `{symbol}` is meant to be a constant: `-D {symbol}=VALUE` on the command line, or `#define {symbol} VALUE`"
            )),
            EmptyName { item } => say(format!("`{item}` is empty"), "expected a name"),
            UnfitName { item, limit } => say(
                format!("`{item}` is not a printable name"),
                format!("expected up to {limit} bytes of text without control characters"),
            ),
            DuplicateVariable { name, first } => say(format!("two variables have the name `{name}`"), "used already")
                .see(*first, "first used here"),
            TooManyVariables { found, limit } => say(
                format!("{found} variables are too many"),
                format!("expected at most {limit}"),
            ),
            ExpectedSelector { after, expected, found, near } => say(
                format!("expected {} after `{after}`, found {found}", one_of(expected)),
                format!("expected {}", one_of(expected)),
            )
            .near("an operand", near.as_deref()),
            MissingOperand { instruction, forms } => written(say(format!("`{instruction}` needs an operand"), "expected an operand"), forms),
            UnexpectedOperand { instruction, forms } => {
                if forms.iter().all(|f| f == instruction) {
                    say(format!("`{instruction}` takes no operand"), "unexpected here")
                } else {
                    written(say(format!("`{instruction}` takes no such operand"), "unexpected here"), forms)
                }
            }
            WrongNameSpace { name, is, instead } => {
                let x = say(format!("`{name}` is a {is}, not a number"), "expected a number");
                match instead {
                    Some(form) => x.help(format!("for the {is} write `{form}`")),
                    None => x,
                }
            }
            UnknownRegister { name, near } => {
                let all: Vec<_> = dprobes::rpn::reg::Reg::ALL.iter().map(|r| r.name()).collect();
                let x = say(format!("unknown register `{name}`"), "not a register").near("a register", near.as_deref());
                if near.is_some() { x } else { x.note(format!("registers are {}", all_of(&all))) }
            }
            ReadOnlyRegister { name } => {
                let writable: Vec<_> = dprobes::rpn::reg::Reg::ALL
                    .iter()
                    .filter(|r| r.is_writable())
                    .map(|r| r.name())
                    .collect();
                say(format!("register `{name}` cannot be written"), "expected a register that can be written")
                    .note(format!("these can: {}", all_of(&writable)))
            }
            UnknownLabel { name, near, elsewhere } => {
                let x = say(format!("unknown label `{name}`"), "no such label in this probe").near("a label", near.as_deref());
                match elsewhere {
                    Some(span) => x.see(*span, "a label of this name is in another probe; labels are local to their probe"),
                    None => x,
                }
            }
            DuplicateLabel { name, first } => say(
                format!("label `{name}` is defined twice in this probe"),
                "defined again",
            )
            .see(*first, "first defined here"),
            UnknownVariable { name, near, none } => {
                let x = say(format!("unknown variable `{name}`"), "not a variable").near("a variable", near.as_deref());
                match (near, none) {
                    (_, true) => x.help(format!("declare it in the header: `vars = {name}`")),
                    (None, false) => x.help(format!("add `{name}` to `vars` in the header")),
                    (Some(_), false) => x,
                }
            }
            VariableIndex { index, count: 0 } => say(
                format!("there is no variable {index}: the program has none"),
                "no such variable",
            )
            .help("declare variables in the header, by name or by number: `vars = NAME` or `vars = 1`"),
            VariableIndex { index, count } => say(
                format!("there is no variable {index}: the program has {count}"),
                format!("expected an index from 0 to {}", count - 1),
            ),
            UnusedLabel { name } => say(format!("label `{name}` is not used"), "no instruction goes here"),
            UnusedVariable { name } => say(format!("variable `{name}` is not used"), "no instruction names it"),
            Object(error) => say(format!("the program does not fit in an object: {error}"), ""),
            Unsafe(fault) => say(fault.to_string(), "refused by the verifier"),
        }
    }
}

fn written(e: Explanation, forms: &[String]) -> Explanation {
    e.help(format!("written {}", one_of(forms)))
}

fn mnemonics() -> Vec<&'static str> {
    let mut all: Vec<_> = Op::ALL.iter().map(|op| op.info().mnemonic).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Large numbers are read more easily as bits.
fn bound(n: i128) -> String {
    let sign = if n < 0 { "-" } else { "" };
    match n.unsigned_abs() {
        a @ 0x1_0000_0000.. => format!("{sign}{a:#x}"),
        a => format!("{sign}{a}"),
    }
}

/// How items that are missing are written.
fn forms(items: &[String]) -> String {
    let all: Vec<_> = items
        .iter()
        .map(|i| match i.as_str() {
            "name" => "name = \"kernel\"".to_owned(),
            "modtype" => "modtype = kernel".to_owned(),
            other => format!("{other} = NUMBER"),
        })
        .collect();
    all_of(&all)
}
