//! Stack traces of the RPN machine: what a program was doing when an exception was raised.
//!
//! A record of its own, with major and minor code 0, which follows that of the probe.

use std::fmt::Write;

use dprobes::record::element::{Element, ElementError, Elements, Words};
use dprobes::record::header::Header;
use dprobes::rpn::exception::{self, operand};

use super::address::{Addresses, Role};
use super::escape::{Charset, quoted};
use super::text::{damage, join, plain};
use super::words::word;

/// What a stack-trace record begins with, and its traces.
pub struct Trace<'a> {
    module: &'a [u8],
    address: u64,
    id: u64,
    major: u64,
    minor: u64,
    /// Traces that are missing or cut short.
    lost: u64,
    traces: Elements<'a>,
}

/// Is this the head of a stack-trace record?
pub fn is_trace(header: &Header) -> bool {
    header.major == 0 && header.minor == 0
}

impl<'a> Trace<'a> {
    /// The parts of a stack-trace record; `None` when the elements do not begin as they should.
    pub fn parse(elements: &'a [u8]) -> Option<Self> {
        let mut traces = Elements::new(elements);
        let Some(Ok(Element::String(module))) = traces.next() else {
            return None;
        };
        let Some(Ok(Element::Words(words))) = traces.next() else {
            return None;
        };
        let words: Vec<u64> = words.iter().collect();
        let (&[address, id, major, minor], rest) = words.split_first_chunk()?;
        Some(Trace {
            module,
            address,
            id,
            major,
            minor,
            lost: rest.first().copied().unwrap_or(0),
            traces,
        })
    }

    /// Writes what it is about to the line of the record, and the traces below.
    pub fn text(self, out: &mut String, below: &mut String, charset: Charset, addresses: &Addresses) {
        let name = addresses.name(self.address, Role::Exact);
        let at = name.map_or_else(|| format!("{:#x}", self.address), |name| plain(&name, charset));
        let module = quoted(self.module, charset);
        // Writing to a string does not fail.
        let _ = write!(
            out,
            " trace of probe {}.{} for {module} at {at}",
            self.major, self.minor
        );
        if self.id != 0 {
            let _ = write!(out, ", id {}", word(self.id));
        }
        if self.lost > 0 {
            let _ = write!(out, ", INCOMPLETE: {} did not fit", word(self.lost));
        }
        for element in self.traces {
            let line = match element {
                Ok(Element::Trace {
                    code,
                    parm1,
                    parm2,
                    offset,
                    handler,
                }) => {
                    let handled = match handler {
                        _ if code == 0 => String::new(),
                        Some(handler) => format!(", handled at {handler}"),
                        None => ", not handled".to_owned(),
                    };
                    format!("{} at {offset}{handled}", raised(code, parm1, parm2))
                }
                Ok(Element::Frame {
                    called,
                    back: Some(back),
                }) => format!("  in the routine at {called}, called from before {back}"),
                Ok(Element::Frame { called, back: None }) => format!("  in the handler at {called}"),
                Ok(Element::Positions(words)) => list("stack", words),
                Ok(Element::Locals(words)) => list("locals", words),
                Ok(Element::Globals(words)) => list("globals", words),
                Ok(_) => "  <something that does not belong into a trace>".to_owned(),
                Err(error) => format!("<damaged record: {}>", damage(error)),
            };
            let _ = writeln!(below, "        {line}");
        }
    }
}

fn list(what: &str, words: Words<'_>) -> String {
    format!("    {what}[{}]", join(words))
}

/// Writes an element of a trace where there is no trace around it.
pub fn element(out: &mut String, element: Result<Element<'_>, ElementError>) {
    match element {
        Ok(Element::Trace {
            code,
            parm1,
            parm2,
            offset,
            ..
        }) => {
            let _ = write!(out, "<{} at {offset}>", raised(code, parm1, parm2));
        }
        Ok(Element::Frame { called, .. }) => {
            let _ = write!(out, "<routine at {called}>");
        }
        _ => {}
    }
}

/// An exception by its name, with what it is about; code 0 is a trace that was asked for.
pub fn raised(code: u64, parm1: u64, parm2: u64) -> String {
    if code == 0 {
        return "asked for".to_owned();
    }
    let Some(name) = exception::name(code) else {
        return format!("exception {code:#x} ({}, {})", word(parm1), word(parm2));
    };
    let about = match u16::try_from(code) {
        Ok(exception::INVALID_OPERAND) => match class(parm1) {
            Some(class) => format!("{class} {}", word(parm2)),
            None => format!("{}, {}", word(parm1), word(parm2)),
        },
        Ok(exception::INVALID_ADDR) => format!("{parm1:#x}"),
        Ok(exception::DIV_BY_ZERO) => return name.to_owned(),
        _ => format!("{}, {}", word(parm1), word(parm2)),
    };
    format!("{name} ({about})")
}

/// What a word was used as that was out of range.
fn class(class: u64) -> Option<&'static str> {
    Some(match class {
        operand::LOCAL => "local variable",
        operand::GLOBAL => "global variable",
        operand::BIT => "bit",
        operand::EXIT_FACILITY => "exit facility",
        operand::COUNT => "count",
        operand::CODE => "code",
        operand::REGISTER => "register",
        operand::PORT => "port",
        operand::MSR => "msr",
        operand::POSITION => "position",
        operand::LENGTH => "length",
        _ => return None,
    })
}
