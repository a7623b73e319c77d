use super::{Explanation, all_of, say};
use crate::source::Span;
use dprobes::rpn::object::{LocationError, WatchKind};

/// What can be wrong with a watchpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchProblem {
    /// A length that its kind does not have.
    Length {
        /// The kind.
        kind: WatchKind,
        /// The length.
        len: u64,
    },
    /// An item that says something about an instruction in text.
    Item {
        /// The item.
        item: String,
        /// Where the probe becomes a watchpoint.
        watch: Span,
    },
    /// An address that cannot be watched.
    Address {
        /// The address.
        address: u64,
        /// How many bytes are to be watched.
        len: u8,
        /// Why not.
        error: LocationError,
        /// Where the probe becomes a watchpoint.
        watch: Span,
    },
    /// A place in a module where a port must be.
    NotAPort {
        /// Where the probe becomes a watchpoint.
        watch: Span,
    },
    /// A source line, at which there is code, where data must be.
    Line {
        /// Where the probe becomes a watchpoint.
        watch: Span,
    },
}

impl WatchProblem {
    pub(super) fn explain(&self) -> Explanation {
        use WatchProblem::*;
        const HERE: &str = "a watchpoint because of this";
        match self {
            Length { kind, len } => {
                let lengths: Vec<_> = kind.lengths().iter().map(|n| format!("{} {n}", kind.name())).collect();
                let one = say(
                    format!("no watchpoint has the length {len} for `{}`", kind.name()),
                    "not a length of this kind",
                );
                match lengths.as_slice() {
                    [only] => one.note(format!(
                        "the length is always 1: `{only}`, or `{}` for short",
                        kind.name()
                    )),
                    _ => one.note(format!("there are {}", all_of(&lengths))),
                }
            }
            Item { item, watch } => say(
                format!("`{item}` has no meaning for a watchpoint"),
                match item.as_str() {
                    "opcode" => "no instruction's bytes are compared",
                    _ => "its record is final at once",
                },
            )
            .see(*watch, HERE),
            Address {
                address,
                len,
                error: LocationError::Unaligned,
                watch,
            } => {
                let below = address - address % u64::from(*len);
                say(
                    format!("{address:#x} is not a multiple of {len}"),
                    "the address of a watchpoint is a multiple of its length",
                )
                .see(*watch, format!("{len} bytes are watched"))
                .help(format!(
                    "{below:#x} watches the {len} bytes up to {:#x}; what crosses that takes another watchpoint, of which there are four",
                    below + u64::from(*len) - 1
                ))
            }
            Address {
                address,
                error: LocationError::NotCanonical,
                watch,
                ..
            } => say(
                format!("{address:#x} is not a canonical address"),
                "nothing can be there",
            )
            .see(*watch, HERE),
            Address {
                address,
                error: LocationError::NoPort,
                watch,
                ..
            } => say(
                format!("{address:#x} is not a port"),
                "expected a number from 0 to 0xffff",
            )
            .see(*watch, HERE),
            NotAPort { watch } => say("a port is a number", "not a port")
                .see(*watch, "ports are watched because of this")
                .help("write `address = NUMBER`, such as `address = 0x3f8`"),
            Line { watch } => say("at a source line there is code, not data", "not data")
                .see(*watch, "data are watched because of this")
                .help(format!(
                    "write `offset = SYMBOL`, or watch for {}",
                    all_of(&["execute"])
                )),
        }
    }
}
