//! A program between text and object.

use crate::source::Span;
use dprobes::rpn::object::{MapKind, ModType, Watch};
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;
use dprobes::rpn::{exception, limits};

/// Something and where it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// What stands before the first probe. `None` where nothing was said.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub name: Option<String>,
    pub modtype: Option<ModType>,
    pub major: Option<u16>,
    pub id: u32,
    pub logmax: Option<u16>,
    pub ex_logmax: Option<u16>,
    pub jmpmax: Option<u16>,
    pub heapmax: u16,
    pub auto_stack_trace: bool,
    pub locals: Variables,
    pub globals: Variables,
    pub maps: Maps,
    /// What a probe has that says nothing else.
    pub defaults: Attributes,
}

impl Header {
    pub fn logmax(&self) -> u16 {
        self.logmax.unwrap_or(limits::LOG_MAX)
    }

    pub fn ex_logmax(&self) -> u16 {
        self.ex_logmax.unwrap_or(limits::EX_LOG_MAX)
    }

    pub fn jmpmax(&self) -> u16 {
        self.jmpmax.unwrap_or(limits::JMP_MAX)
    }
}

/// Variables by index; those without a name have an empty one.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    pub names: Vec<Spanned<String>>,
    /// The declaration was wrong, which has been reported: any name may be one of them.
    pub broken: bool,
}

impl Variables {
    pub fn index(&self, name: &str) -> Option<u16> {
        let at = self.names.iter().position(|n| n.value == name)?;
        u16::try_from(at).ok()
    }

    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|n| n.value.as_str()).filter(|n| !n.is_empty())
    }
}

/// Maps by index.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    pub list: Vec<Map>,
    /// A declaration was wrong, which has been reported: any name may be one of them.
    pub broken: bool,
}

impl Maps {
    pub fn index(&self, name: &str) -> Option<u16> {
        let at = self.list.iter().position(|m| m.name.value == name)?;
        u16::try_from(at).ok()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|m| m.name.value.as_str())
    }
}

/// A map.
#[derive(Debug)]
pub(crate) struct Map {
    pub name: Spanned<String>,
    pub kind: MapKind,
    pub keys: u8,
    pub entries: u32,
}

/// The items a header can set for all probes.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub group: u16,
    pub kind: u16,
    pub ex_mask: u16,
    pub log_on_fault: bool,
    pub suspended: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            group: 0,
            kind: 0,
            ex_mask: exception::DEFAULT_MASK,
            log_on_fault: false,
            suspended: false,
        }
    }
}

/// Where a probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Absolute(u64),
    Offset(u64),
    Symbol(String, i64),
    Line(String, u32),
}

impl Place {
    /// The place in words, or where the function there returns to: how it is shown when it can no longer be seen from the object.
    pub fn shown(&self, returns: bool) -> String {
        if returns {
            format!("return({})", self.display())
        } else {
            self.display()
        }
    }

    pub fn display(&self) -> String {
        match self {
            Place::Absolute(n) | Place::Offset(n) => format!("{n:#x}"),
            Place::Symbol(s, 0) => s.clone(),
            Place::Symbol(s, n) if *n < 0 => format!("{s}-{:#x}", n.unsigned_abs()),
            Place::Symbol(s, n) => format!("{s}+{n:#x}"),
            Place::Line(file, line) => format!("{file}:{line}"),
        }
    }
}

/// One probe and its handler.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The `offset` or `address` that begins it.
    pub span: Span,
    /// `None` if it was wrong; that has been reported.
    pub place: Option<Place>,
    /// Is it where the function there has returned to?
    pub returns: bool,
    pub display: Option<String>,
    /// `None` for a breakpoint in text.
    pub watch: Option<Spanned<Watch>>,
    pub opcode: Vec<u8>,
    pub minor: Option<u16>,
    pub pass_count: u64,
    pub max_hits: u64,
    pub attributes: Attributes,
    /// `None` for as much as `heapmax`.
    pub heap: Option<u16>,
    pub code: Vec<Instruction>,
    pub labels: Vec<Label>,
    /// Lines that were wrong, and so are missing in `code`.
    pub damaged: bool,
}

/// A label and the instruction it stands before, by index.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub name: String,
    pub span: Span,
    pub at: usize,
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub op: Op,
    pub argument: Argument,
    /// The whole instruction.
    pub span: Span,
}

/// Its operand.
#[derive(Debug, Clone)]
pub(crate) enum Argument {
    None,
    /// Checked against the range of the operand.
    Number(u64),
    Register(Reg),
    Local(u16),
    Global(u16),
    Map(u16),
    Group(Spanned<u16>),
    /// The address of a symbol and what to add to it.
    Symbol {
        name: Spanned<String>,
        addend: i64,
    },
    Label(Spanned<String>),
}
