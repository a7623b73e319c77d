//! What a survey has found, as a table for a person or as JSON for a program.

use std::fmt::{self, Write};

use serde::Serialize;

/// What a survey has found. Counts are of instructions unless their name says otherwise.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Functions: stretches of text from one symbol to the next.
    pub functions: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Instructions, filling left out.
    pub instructions: u64,
    /// `int3` and NOPs that no path leads to: between functions, and behind returns and jumps.
    pub filling: u64,
    /// Bytes that are not instructions.
    pub undecodable_bytes: u64,
    /// Where those are.
    pub undecodable: Vec<String>,
    /// In entry text.
    pub entry: Share,
    /// In noinstr text.
    pub noinstr: Share,
    /// In all other text: what shares are of.
    pub rest: u64,
    /// Of those, where the module would accept a probe.
    pub accepted: Accepted,
    /// Of those, the others, by reason.
    pub refused: Vec<Row>,
    /// Of those, where kprobes would accept one.
    pub kprobes_accepted: u64,
    /// Of those, the others, by reason.
    pub kprobes_refused: Vec<Row>,
    /// Accepted in text that must not be probed.
    pub wrongly_accepted: Vec<String>,
    /// Another decoder on the same text.
    pub decoder: Oracle,
    /// The kernel's own lists of its instructions.
    pub oracles: Vec<Oracle>,
}

/// A part that is accepted.
#[derive(Debug, Default, Serialize)]
pub struct Share {
    /// How many there are.
    pub all: u64,
    /// How many of them are accepted.
    pub accepted: u64,
}

/// Accepted instructions, by what happens after a hit.
#[derive(Debug, Default, Serialize)]
pub struct Accepted {
    /// A copy runs, and no second trap is taken.
    pub copied: u64,
    /// The handler does what the instruction would have done.
    pub emulated: u64,
    /// A copy is single-stepped.
    pub stepped: u64,
    /// Nothing is in its place: it is a trap by itself, of which the kernel is told as ever.
    pub reported: u64,
    /// The probe goes behind it: an `endbr64` or a NOP of the function tracer, which does nothing else.
    pub behind: u64,
}

impl Accepted {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.copied + self.emulated + self.stepped + self.reported + self.behind
    }
}

/// One reason to refuse.
#[derive(Debug, Serialize)]
pub struct Row {
    /// In words.
    pub reason: String,
    /// How many instructions.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// Somebody else's word on where instructions begin.
#[derive(Debug, Default, Serialize)]
pub struct Oracle {
    /// Whose.
    pub name: &'static str,
    /// How many instructions it names.
    pub listed: u64,
    /// How many of these are none here.
    pub differences: u64,
    /// Some of those.
    pub examples: Vec<String>,
}

impl Oracle {
    /// One that has not been asked.
    pub fn new(name: &'static str) -> Self {
        Oracle {
            name,
            ..Oracle::default()
        }
    }

    /// Notes a difference.
    pub fn note(&mut self, example: impl FnOnce() -> String) {
        self.differences += 1;
        if self.examples.len() < 3 {
            self.examples.push(example());
        }
    }
}

impl Report {
    /// How much of the text outside entry and noinstr code can be probed, in percent.
    pub fn percent(&self) -> f64 {
        percent(self.accepted.all(), self.rest)
    }
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 * 100.0 / all as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9}  instructions in {} functions, {} bytes of text",
            self.instructions, self.functions, self.bytes
        )?;
        writeln!(
            f,
            "{:>9}  int3 and NOPs that no path leads to are not among them",
            self.filling
        )?;
        writeln!(f, "{:>9}  bytes are not instructions", self.undecodable_bytes)?;
        writeln!(
            f,
            "{:>9}  in entry text, {} of them accepted",
            self.entry.all, self.entry.accepted
        )?;
        writeln!(
            f,
            "{:>9}  in noinstr text, {} of them accepted",
            self.noinstr.all, self.noinstr.accepted
        )?;
        writeln!(
            f,
            "{:>9}  in all other text; the shares below are of these\n",
            self.rest
        )?;

        let accepted = &self.accepted;
        let mut line = |count, what: &str, examples: &[String]| {
            let mut text = format!("{count:>9} {:>8.4} %  {what}", percent(count, self.rest));
            if let Some(example) = examples.first() {
                let _ = write!(text, " ({example})");
            }
            writeln!(f, "{text}")
        };
        line(accepted.all(), "ACCEPTED by dprobes", &[])?;
        line(accepted.copied, "  a copy runs", &[])?;
        line(accepted.emulated, "  emulated", &[])?;
        line(accepted.stepped, "  a copy is single-stepped", &[])?;
        line(
            accepted.reported,
            "  nothing takes its place: a trap by itself (BUG, WARN)",
            &[],
        )?;
        line(
            accepted.behind,
            "  the probe goes behind it: endbr64, or the function tracer's NOP",
            &[],
        )?;
        line(self.rest - accepted.all(), "REFUSED by dprobes", &[])?;
        for row in &self.refused {
            line(row.count, &format!("  {}", row.reason), &row.examples)?;
        }
        line(
            self.kprobes_accepted,
            "ACCEPTED by kprobes, by its published rules",
            &[],
        )?;
        line(self.rest - self.kprobes_accepted, "REFUSED by kprobes", &[])?;
        for row in &self.kprobes_refused {
            line(row.count, &format!("  {}", row.reason), &row.examples)?;
        }
        writeln!(f, "\nWhere instructions begin, by others:")?;
        for oracle in std::iter::once(&self.decoder).chain(&self.oracles) {
            let name = if oracle.name.is_empty() {
                "iced-x86"
            } else {
                oracle.name
            };
            write!(f, "{:>9}  {name}, {} differences", oracle.listed, oracle.differences)?;
            writeln!(
                f,
                "{}",
                if oracle.examples.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", oracle.examples.join(", "))
                }
            )?;
        }
        for place in &self.undecodable {
            writeln!(f, "not instructions: {place}")?;
        }
        for place in &self.wrongly_accepted {
            writeln!(f, "WRONGLY ACCEPTED: {place}")?;
        }
        Ok(())
    }
}
