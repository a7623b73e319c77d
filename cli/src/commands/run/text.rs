//! What a program does, for people.

use std::fmt::Write;

use dprobes::rpn::exception::{self, Exception};
use dprobes::rpn::interp::End;
use dprobes::rpn::op;
use simulator::{Added, Change, Changes, Dispatch, Hit, MemoryChange, Ran, Simulation, Skipped, Step, Switched, Words};

use super::{Context, Occurrence, Printer, maps};
use crate::render::escape::quoted;
use crate::render::maps::process;
use crate::render::text::{self, plain};
use crate::render::words::word;
use crate::stream::Entry;

/// Words of a stack on one line.
const WORDS: usize = 5;

/// Prints lines.
pub struct Text<'a> {
    context: Context<'a>,
}

impl<'a> Text<'a> {
    /// For this program.
    pub fn new(context: Context<'a>) -> Self {
        Self { context }
    }

    /// `openat.rpn:12`, or the offset in the code where the object has no lines.
    fn place(&self, offset: u32) -> String {
        match self.context.program.place_of_code(offset) {
            Some(place) => format!("{}:{}", plain(&place.file, self.context.charset), place.line),
            None => format!("offset {offset:#x}"),
        }
    }

    /// The number of the line that an instruction is on.
    fn line(&self, offset: u32) -> String {
        match self.context.program.place_of_code(offset) {
            Some(place) => place.line.to_string(),
            None => format!("+{offset:#x}"),
        }
    }

    fn ending(&self, ran: &Ran) -> String {
        let record = match &ran.record {
            None => ", without a record",
            Some(_) => "",
        };
        let instructions = match ran.instructions {
            1 => "1 instruction".to_owned(),
            many => format!("{many} instructions"),
        };
        match ran.outcome.end {
            End::Exit => format!("exit after {instructions}"),
            End::ExitTo(number) => format!("exit_to {} after {instructions}", facility(number)),
            End::Abort => format!("abort after {instructions}{record}"),
            End::Remove => format!("remove after {instructions}: this probe never fires again"),
            End::Exception { exception, offset } => format!(
                "{} at {} (`{}`), which nothing handles, after {instructions}",
                describe(exception),
                self.place(offset),
                self.context.listing.compact(self.context.program, offset),
            ),
        }
    }

    fn changes(&self, out: &mut String, changes: &Changes, simulation: &Simulation) {
        // Writing to a string does not fail.
        let mut line = |what: &str, text: String| {
            let _ = writeln!(out, "  {what:9} {text}");
        };
        let change = |what: &str, before: u64, after: u64| format!("{what}: {} -> {}", word(before), word(after));
        for (reg, before, after) in &changes.regs {
            line("changed", change(reg.name(), *before, *after));
        }
        for (reg, before, after) in &changes.user {
            line("changed", change(&format!("user {reg}"), *before, *after));
        }
        for MemoryChange { start, before, after } in &changes.memory {
            let (before, after) = (self.bytes(before), self.bytes(after));
            line("changed", format!("{start:#x}: {before} -> {after}"));
        }
        let variables = |names: Vec<&str>, all: &[Change<usize, u64>], kind: &str| -> Vec<String> {
            all.iter()
                .map(|(index, before, after)| {
                    let name = names.get(*index).copied().unwrap_or("");
                    change(&variable(name, *index, kind), *before, *after)
                })
                .collect()
        };
        let locals = simulation.locals().map(|(name, _)| name).collect();
        let globals = simulation.globals().map(|(name, _)| name).collect();
        for text in variables(locals, &changes.locals, "lv") {
            line("changed", text);
        }
        for text in variables(globals, &changes.globals, "gv") {
            line("changed", text);
        }
        for (port, width, value) in &changes.ports {
            let bits = width.bytes() * 8;
            line("wrote", format!("{value:#x} to port {port:#x}, {bits} bits"));
        }
        for Added { map, keys, value } in &changes.added {
            let (numbers, name) = match keys.as_slice() {
                [numbers @ .., high, low] if self.context.names => {
                    (numbers, Some(process(*high, *low, self.context.charset)))
                }
                numbers => (numbers, None),
            };
            let keys: Vec<String> = numbers.iter().copied().map(word).chain(name).collect();
            let of = if keys.is_empty() {
                String::new()
            } else {
                format!("[{}]", keys.join(", "))
            };
            line("added", format!("{} to {map}{of}", word(value.unwrap_or(1))));
        }
        for Switched { group, suspended } in &changes.switched {
            let how = if *suspended { "suspended" } else { "resumed" };
            line("group", format!("{group} {how}"));
        }
    }

    /// Bytes as a string, where they are one.
    fn bytes(&self, bytes: &[u8]) -> String {
        if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return quoted(bytes, self.context.charset);
        }
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ")
    }
}

impl Printer for Text<'_> {
    fn begin(&mut self, number: u64, probe: usize, minor: u16) -> String {
        let name = self.context.program.name_of_point(probe as u32);
        let codes = format!("{}.{minor}", self.context.major);
        let on = match plain(&name, self.context.charset) {
            name if name.is_empty() => String::new(),
            name => format!(" on {name}"),
        };
        format!("hit {number} of probe {codes}{on}\n")
    }

    fn step(&mut self, _: u64, step: &Step) -> String {
        let instruction = self.context.listing.instruction(self.context.program, step.offset);
        let stack = format!("{} -- {}", stack(&step.before), stack(&step.after));
        let mut out = format!("  {:>6}  {instruction:<32} {}\n", self.line(step.offset), stack.trim());
        if let Some(raised) = &step.raised {
            let to = match raised.to {
                Dispatch::Ignored => "ignored".to_owned(),
                Dispatch::Handler(offset) => format!("handled at line {}", self.line(offset)),
                Dispatch::End => "which nothing handles".to_owned(),
            };
            let _ = writeln!(out, "          {}, {to}", describe(raised.exception));
        }
        out
    }

    fn hit(&mut self, occurrence: &Occurrence<'_>, simulation: &Simulation) -> String {
        let mut out = String::new();
        match occurrence.hit {
            Hit::Skipped(skipped) => {
                let _ = writeln!(out, "  skipped   {}", reason(*skipped));
            }
            Hit::Ran(ran) => {
                for (header, elements) in ran.record.iter().chain(&ran.trace) {
                    let entry = Entry::Record(*header, elements);
                    let record = text::entry(&entry, self.context.charset, &self.context.addresses);
                    let _ = write!(out, "  record    {record}");
                }
                if ran.outcome.log_overflow {
                    out.push_str("  overflow  something did not fit into the record\n");
                }
                self.changes(&mut out, &ran.changes, simulation);
                let _ = writeln!(out, "  ended     {}", self.ending(ran));
            }
        }
        out
    }

    fn end(&mut self, simulation: &Simulation) -> String {
        let list = |variables: Vec<(&str, u64)>, kind: &str| -> Vec<String> {
            // Of those without a name only what is not zero is worth a place.
            let all = variables
                .into_iter()
                .enumerate()
                .filter(|(_, (name, value))| !name.is_empty() || *value != 0);
            all.map(|(index, (name, value))| format!("{} = {}", variable(name, index, kind), word(value)))
                .collect()
        };
        let mut out = String::new();
        for (what, all) in [
            ("variables", list(simulation.locals().collect(), "lv")),
            ("globals", list(simulation.globals().collect(), "gv")),
        ] {
            if !all.is_empty() {
                let _ = writeln!(out, "{what:11} {}", all.join(", "));
            }
        }
        out.push_str(&maps::text(&self.context, simulation));
        out
    }
}

/// A variable's name, or its kind and index where it has none.
fn variable(name: &str, index: usize, kind: &str) -> String {
    if name.is_empty() {
        format!("{kind} {index}")
    } else {
        name.to_owned()
    }
}

/// An exit facility as it is written in programs.
fn facility(number: u8) -> String {
    let named = op::facility::NAMES.iter().find(|(_, other)| *other == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn reason(skipped: Skipped) -> String {
    match skipped {
        Skipped::Passed { left: 0 } => "pass_count lets it pass, as the last one".to_owned(),
        Skipped::Passed { left } => format!("pass_count lets it pass, and {left} more"),
        Skipped::Exhausted { max_hits } => format!("the probe has ended: max_hits is {max_hits}"),
        Skipped::Suspended { group } => format!("group {group} is suspended"),
        Skipped::Removed => "the program has removed the probe".to_owned(),
    }
}

/// An exception with its parameters.
fn describe(exception: Exception) -> String {
    let Exception { code, parm1, parm2 } = exception;
    let name = exception::name(code).map_or_else(|| format!("exception {code:#x}"), str::to_owned);
    format!("{name} ({}, {})", short(parm1), short(parm2))
}

/// A word where there is little room.
fn short(word: u64) -> String {
    match word.cast_signed() {
        small @ -4096..10 => small.to_string(),
        _ => format!("{word:#x}"),
    }
}

/// The top words of a stack, the top word last.
fn stack(words: &Words) -> String {
    let shown = &words.top[words.top.len().saturating_sub(WORDS)..];
    let mut parts: Vec<String> = shown.iter().copied().map(short).collect();
    let hidden = words.depth - shown.len();
    if hidden > 0 {
        parts.insert(0, format!("({hidden} more)"));
    }
    parts.join(" ")
}
