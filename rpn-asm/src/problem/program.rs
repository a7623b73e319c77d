use super::operand::NameSpace;
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
    /// A global variable, by name or number.
    Global,
    /// A map, by name or number.
    Map,
    /// The name of a map that is declared.
    MapName,
    /// What a map keeps.
    MapKind,
    /// What a watchpoint watches for.
    WatchKind,
    /// What ends `return(FUNCTION`.
    ReturnEnd,
    /// The number of a group of probes.
    Group,
    /// An exit facility, by name or number.
    Facility,
}

impl ValueKind {
    fn words(self) -> String {
        let words = match self {
            ValueKind::MapKind => return one_of(&crate::parse::MAP_KINDS),
            ValueKind::WatchKind => return one_of(&crate::parse::WATCH_KINDS.map(|(name, _)| name)),
            ValueKind::String => "a string in double quotes",
            ValueKind::Number => "a number",
            ValueKind::YesNo => "`yes` or `no`",
            ValueKind::ModType => "`kernel`, `kmod` or `user`",
            ValueKind::Variables => "names of variables separated by commas, or how many there are",
            ValueKind::Register => "a register",
            ValueKind::Label => "a label",
            ValueKind::Local => "a local variable, by name or number",
            ValueKind::Line => "a line number",
            ValueKind::ReturnEnd => "`)`, which ends `return(FUNCTION)`",
            ValueKind::Global => "a global variable, by name or number",
            ValueKind::Map => "a map, by name or number",
            ValueKind::MapName => "a name",
            ValueKind::Group => "the number of a group of probes",
            ValueKind::Facility => "an exit facility, by name or number",
        };
        words.to_owned()
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
    /// A global variable without a name.
    UnnamedGlobal,
    /// Points of one group of which only some are suspended.
    GroupDisagrees {
        /// The group.
        group: u16,
        /// Whether this probe is suspended.
        suspended: bool,
        /// The first probe of the group.
        first: Span,
    },
    /// A probe with a larger heap than its program has.
    HeapBeyondMax {
        /// Of the probe.
        value: u16,
        /// Of the program.
        limit: u16,
    },
    /// More variables than there can be.
    TooManyVariables {
        /// How many.
        found: i128,
        /// The limit.
        limit: u16,
    },
    /// A label twice in one probe.
    DuplicateLabel {
        /// The name.
        name: String,
        /// The first.
        first: Span,
    },
    /// A label nobody jumps to.
    UnusedLabel {
        /// The name.
        name: String,
    },
    /// A variable or map no instruction names.
    UnusedName {
        /// The name.
        name: String,
        /// What it is.
        is: NameSpace,
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
                match (near, retired(name)) {
                    (_, Some(why)) => e.note(why),
                    (Some(_), None) => e.near("an instruction", near.as_deref()),
                    (None, None) => e.note(format!("instructions are {}", all_of(&mnemonics()))),
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
            UnnamedGlobal => say("a global variable needs a name", "expected a name")
                .note("programs share global variables by their names"),
            GroupDisagrees { group, suspended, first } => {
                let state = |suspended: bool| if suspended { "suspended" } else { "not suspended" };
                say(
                    format!("the probes of group {group} disagree about `suspended`"),
                    format!("{} at first", state(*suspended)),
                )
                .see(*first, format!("the first probe of group {group}: {} at first", state(!*suspended)))
                .help("a group is suspended and resumed as a whole: say the same for all of its probes, or give this one another `group`")
            }
            HeapBeyondMax { value, limit: 0 } => say(
                format!("a heap of {value} bytes, and the program has none"),
                "more than `heapmax`, which is 0",
            )
            .help(format!("add to the header: `heapmax = {value}`")),
            HeapBeyondMax { value, limit } => say(
                format!("a heap of {value} bytes is larger than the program's"),
                format!("expected at most `heapmax`, which is {limit}"),
            ),
            TooManyVariables { found, limit } => say(
                format!("{found} variables are too many"),
                format!("expected at most {limit}"),
            ),
            DuplicateLabel { name, first } => say(
                format!("label `{name}` is defined twice in this probe"),
                "defined again",
            )
            .see(*first, "first defined here"),
            UnusedLabel { name } => say(format!("label `{name}` is not used"), "no instruction goes here"),
            UnusedName { name, is } => say(format!("{} `{name}` is not used", is.words()), "no instruction names it"),
            Object(error) => say(format!("the program does not fit in an object: {error}"), ""),
            Unsafe(fault) => say(fault.to_string(), "refused by the verifier"),
        }
    }
}

/// Why an instruction that DProbes once had is not there.
fn retired(name: &str) -> Option<&'static str> {
    match name {
        "callk" | "call_kmod" => {
            Some("programs do not call other modules: an exit facility, asked for with `exit_to`, does more")
        }
        "seg2lin" => Some(
            "64-bit code has no segmented addresses; the base addresses of FS and GS are the registers `fs_base` and `gs_base`",
        ),
        _ => None,
    }
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
