//! What a program does, for programs: one object a line.

use dprobes::rpn::exception::{self, Exception};
use dprobes::rpn::interp::End;
use dprobes::rpn::reg::Reg;
use serde::Serialize;
use simulator::{Change, Dispatch, Hit, Simulation, Skipped, Step, Words};

use super::{Context, Occurrence, Printer, ending, maps};
use crate::render::json;
use crate::stream::Entry;

/// Prints JSON.
pub struct Json<'a> {
    context: Context<'a>,
}

impl<'a> Json<'a> {
    /// For this program.
    pub fn new(context: Context<'a>) -> Self {
        Self { context }
    }

    fn line(&self, offset: u32) -> Option<u32> {
        self.context.program.place_of_code(offset).map(|place| place.line)
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Step {
        hit: u64,
        offset: u32,
        line: Option<u32>,
        instruction: String,
        before: Stack,
        after: Stack,
        #[serde(skip_serializing_if = "Option::is_none")]
        exception: Option<Raised>,
    },
    Hit {
        hit: u64,
        major: u16,
        minor: u16,
        end: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        exception: Option<Raised>,
        instructions: u64,
        overflow: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        facility: Option<u8>,
        registers: Vec<Changed>,
        user_registers: Vec<Changed>,
        memory: Vec<Changed>,
        locals: Vec<Changed>,
        globals: Vec<Changed>,
        ports: Vec<Written>,
        added: Vec<Added<'a>>,
        groups: Vec<Group>,
    },
    Skipped {
        hit: u64,
        major: u16,
        minor: u16,
        reason: &'static str,
    },
    Variables {
        locals: Vec<Variable<'a>>,
        globals: Vec<Variable<'a>>,
    },
}

#[derive(Serialize)]
struct Stack {
    depth: usize,
    /// The top word last.
    top: Vec<String>,
}

#[derive(Serialize)]
struct Raised {
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    parm1: String,
    parm2: String,
    /// `ignored`, `handler` or `end`.
    to: &'static str,
    /// Of the handler, or else of the instruction that raised it.
    offset: u32,
    line: Option<u32>,
}

#[derive(Serialize)]
struct Changed {
    what: String,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct Written {
    port: String,
    bits: u16,
    value: String,
}

#[derive(Serialize)]
struct Added<'a> {
    map: &'a str,
    keys: Vec<String>,
    /// Not of a map that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

#[derive(Serialize)]
struct Group {
    group: u16,
    suspended: bool,
}

#[derive(Serialize)]
struct Variable<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    index: usize,
    value: String,
}

fn hex(word: u64) -> String {
    format!("{word:#x}")
}

fn bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn registers(all: &[Change<Reg, u64>]) -> Vec<Changed> {
    let changed = |(reg, before, after): &(Reg, u64, u64)| Changed {
        what: reg.name().to_owned(),
        before: hex(*before),
        after: hex(*after),
    };
    all.iter().map(changed).collect()
}

fn changed<'a>(names: impl Iterator<Item = (&'a str, u64)>, all: &[Change<usize, u64>]) -> Vec<Changed> {
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    all.iter()
        .map(|(index, before, after)| Changed {
            what: match names.get(*index) {
                Some(name) if !name.is_empty() => (*name).to_owned(),
                _ => index.to_string(),
            },
            before: hex(*before),
            after: hex(*after),
        })
        .collect()
}

fn variables<'a>(all: impl Iterator<Item = (&'a str, u64)>) -> Vec<Variable<'a>> {
    all.enumerate()
        .map(|(index, (name, value))| Variable {
            name,
            index,
            value: hex(value),
        })
        .collect()
}

fn stack(words: &Words) -> Stack {
    Stack {
        depth: words.depth,
        top: words.top.iter().copied().map(hex).collect(),
    }
}

impl Json<'_> {
    fn raised(&self, exception: Exception, to: &'static str, offset: u32) -> Raised {
        let Exception { code, parm1, parm2 } = exception;
        Raised {
            code: hex(code),
            name: exception::name(code),
            parm1: hex(parm1),
            parm2: hex(parm2),
            to,
            offset,
            line: self.line(offset),
        }
    }
}

impl Printer for Json<'_> {
    fn begin(&mut self, _: u64, _: usize, _: u16) -> String {
        String::new()
    }

    fn step(&mut self, number: u64, step: &Step) -> String {
        let instruction = self.context.listing.compact(self.context.program, step.offset);
        json::line(&Line::Step {
            hit: number,
            offset: step.offset,
            line: self.line(step.offset),
            instruction,
            before: stack(&step.before),
            after: stack(&step.after),
            exception: step.raised.as_ref().map(|raised| match raised.to {
                Dispatch::Ignored => self.raised(raised.exception, "ignored", step.offset),
                Dispatch::Handler(offset) => self.raised(raised.exception, "handler", offset),
                Dispatch::End => self.raised(raised.exception, "end", step.offset),
            }),
        })
    }

    fn hit(&mut self, occurrence: &Occurrence<'_>, simulation: &Simulation) -> String {
        let (number, major, minor) = (occurrence.number, self.context.major, occurrence.minor);
        let ran = match occurrence.hit {
            Hit::Ran(ran) => ran,
            Hit::Skipped(skipped) => {
                return json::line(&Line::Skipped {
                    hit: number,
                    major,
                    minor,
                    reason: match skipped {
                        Skipped::Passed { .. } => "pass_count",
                        Skipped::Exhausted { .. } => "max_hits",
                        Skipped::Removed => "removed",
                        Skipped::Suspended { .. } => "suspended",
                    },
                });
            }
        };
        let mut out = String::new();
        for (header, elements) in ran.record.iter().chain(&ran.trace) {
            out.push_str(&json::entry(&Entry::Record(*header, elements), &self.context.addresses));
        }
        let changes = &ran.changes;
        out.push_str(&json::line(&Line::Hit {
            hit: number,
            major,
            minor,
            end: ending(ran.outcome.end),
            exception: match ran.outcome.end {
                End::Exception { exception, offset } => Some(self.raised(exception, "end", offset)),
                _ => None,
            },
            instructions: ran.instructions,
            overflow: ran.outcome.log_overflow,
            facility: match ran.outcome.end {
                End::ExitTo(number) => Some(number),
                _ => None,
            },
            registers: registers(&changes.regs),
            user_registers: registers(&changes.user),
            memory: changes
                .memory
                .iter()
                .map(|change| Changed {
                    what: hex(change.start),
                    before: bytes(&change.before),
                    after: bytes(&change.after),
                })
                .collect(),
            locals: changed(simulation.locals(), &changes.locals),
            globals: changed(simulation.globals(), &changes.globals),
            ports: changes
                .ports
                .iter()
                .map(|(port, width, value)| Written {
                    port: hex((*port).into()),
                    bits: width.bytes() * 8,
                    value: hex((*value).into()),
                })
                .collect(),
            added: changes
                .added
                .iter()
                .map(|added| Added {
                    map: &added.map,
                    keys: added.keys.iter().copied().map(hex).collect(),
                    value: added.value.map(hex),
                })
                .collect(),
            groups: changes
                .switched
                .iter()
                .map(|switched| Group {
                    group: switched.group,
                    suspended: switched.suspended,
                })
                .collect(),
        }));
        out
    }

    fn end(&mut self, simulation: &Simulation) -> String {
        let variables = json::line(&Line::Variables {
            locals: variables(simulation.locals()),
            globals: variables(simulation.globals()),
        });
        variables + &maps::lines(&self.context, simulation)
    }
}
