//! Asking about every instruction, and adding up.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use dprobes::host::Prohibited;
use dprobes::insn::{Insn, Refusal};
use dprobes::wire::{CHECKS_MAX, PointCheck, Reason};

use crate::ask::Module;
use crate::decode::{self, Decoded};
use crate::kcore::Kcore;
use crate::kprobes;
use crate::report::{Oracle, Report, Row, Share};
use crate::symbols::{Function, Symbols};
use crate::tables::{self, Table};

/// How many examples of a reason are kept.
const EXAMPLES: usize = 3;

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// One function of so many: 1 for all.
    pub every: usize,
}

/// Goes through the kernel's text. `progress` is told how many of how many functions are done.
///
/// # Errors
/// What the system said.
pub fn run(options: Options, progress: &mut dyn FnMut(usize, usize)) -> io::Result<Report> {
    let module = Module::open()?;
    let symbols = Symbols::read()?;
    let kcore = Kcore::open()?;
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {what}"));
    let text = symbols.between("_stext", "_etext").ok_or_else(|| missing("_stext"))?;
    let mut tally = Tally {
        entry: symbols
            .between("__entry_text_start", "__entry_text_end")
            .ok_or_else(|| missing("__entry_text_start"))?,
        noinstr: symbols
            .between("__noinstr_text_start", "__noinstr_text_end")
            .ok_or_else(|| missing("__noinstr_text_start"))?,
        blacklist: tables::kprobes_blacklist()?,
        tables: tables::read(&symbols, &kcore)?,
        report: Report::default(),
        refused: BTreeMap::new(),
        kprobes_refused: BTreeMap::new(),
        boundaries: 0,
    };
    let functions = Vec::from_iter(symbols.functions(&text).step_by(options.every));
    let mut oracles = Vec::from_iter(tally.tables.iter().map(|table| Oracle::new(table.name)));
    let mut pending = Vec::new();
    for (done, function) in functions.iter().enumerate() {
        if done % 512 == 0 {
            progress(done, functions.len());
        }
        let bytes = kcore.read(function.range.clone())?;
        let decoded = decode::decode(&bytes);
        tally.count_text(function, &bytes, &decoded);
        for (oracle, table) in oracles.iter_mut().zip(&tally.tables) {
            compare(oracle, table, function, &decoded);
        }
        for ((at, insn), filling) in decoded.instructions.iter().zip(&decoded.filling) {
            if !filling {
                pending.push(Asked {
                    function,
                    at: *at,
                    insn: *insn,
                });
            }
            if pending.len() == CHECKS_MAX as usize {
                tally.ask(&module, &mut pending)?;
            }
        }
    }
    tally.ask(&module, &mut pending)?;
    progress(functions.len(), functions.len());
    let mut report = tally.finish();
    report.oracles.extend(oracles);
    Ok(report)
}

/// One instruction that is asked about.
struct Asked<'a> {
    function: &'a Function,
    at: u32,
    insn: Insn,
}

impl Asked<'_> {
    fn address(&self) -> u64 {
        self.function.range.start + u64::from(self.at)
    }

    /// For a person to look at.
    fn example(&self) -> String {
        let bytes: String = self.insn.bytes().iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("{}+{:#x}:{bytes}", self.function.name, self.at)
    }
}

/// What is being added up.
struct Tally {
    entry: Range<u64>,
    noinstr: Range<u64>,
    blacklist: Vec<Range<u64>>,
    tables: Vec<Table>,
    report: Report,
    refused: BTreeMap<String, Row>,
    kprobes_refused: BTreeMap<String, Row>,
    boundaries: u64,
}

impl Tally {
    fn count_text(&mut self, function: &Function, bytes: &[u8], decoded: &Decoded) {
        let report = &mut self.report;
        report.functions += 1;
        report.bytes += bytes.len() as u64;
        report.filling += decoded.filling.iter().filter(|filling| **filling).count() as u64;
        if decoded.undecodable > 0 {
            report.undecodable_bytes += decoded.undecodable as u64;
            report.undecodable.push(format!(
                "{}+{:#x}, {} bytes",
                function.name,
                bytes.len() - decoded.undecodable,
                decoded.undecodable
            ));
        }
        report.decoder.listed += decoded.instructions.len() as u64;
        if let Some(at) = decode::difference(bytes, decoded) {
            report.decoder.note(|| format!("{}+{at:#x}", function.name));
        }
    }

    fn ask(&mut self, module: &Module, pending: &mut Vec<Asked<'_>>) -> io::Result<()> {
        let addresses = Vec::from_iter(pending.iter().map(Asked::address));
        let answers = module.check(&addresses)?;
        for (asked, answer) in pending.drain(..).zip(&answers) {
            self.count_answer(&asked, answer);
        }
        Ok(())
    }

    fn count_answer(&mut self, asked: &Asked<'_>, answer: &PointCheck) {
        self.boundaries += 1;
        let address = asked.address();
        let by_kprobes = self.kprobes_reason(address, &asked.insn);
        let report = &mut self.report;
        let accepted = answer.reason == 0;
        for (section, share) in [(&self.entry, &mut report.entry), (&self.noinstr, &mut report.noinstr)] {
            if section.contains(&address) {
                share.all += 1;
                if accepted {
                    share.accepted += 1;
                    report.wrongly_accepted.push(asked.example());
                }
                return;
            }
        }
        report.rest += 1;
        match (answer.reason, answer.detail) {
            (0, _) if answer.address != answer.asked => report.accepted.behind += 1,
            (0, 1) => report.accepted.copied += 1,
            (0, 2) => report.accepted.emulated += 1,
            (0, 4) => report.accepted.reported += 1,
            (0, _) => report.accepted.stepped += 1,
            _ => note(&mut self.refused, reason(answer), asked),
        }
        match by_kprobes {
            None => report.kprobes_accepted += 1,
            Some(reason) => note(&mut self.kprobes_refused, reason.to_owned(), asked),
        }
    }

    /// Why kprobes would refuse, by its published rules.
    fn kprobes_reason(&self, address: u64, insn: &Insn) -> Option<&'static str> {
        let listed = |name| {
            self.tables.iter().any(|table| {
                table.name == name
                    && table
                        .addresses
                        .range(address..address + insn.len() as u64)
                        .next()
                        .is_some()
            })
        };
        if kprobes::within(&self.blacklist, address) {
            Some("blacklist")
        } else if listed(tables::JUMP_LABELS) {
            Some("jump label")
        } else if listed(tables::STATIC_CALLS) {
            Some("static call")
        } else if listed(tables::BUGS) {
            Some("BUG or WARN")
        } else {
            kprobes::refusal(insn)
        }
    }

    fn finish(mut self) -> Report {
        let by_count = |rows: BTreeMap<String, Row>| {
            let mut rows = Vec::from_iter(rows.into_values());
            rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
            rows
        };
        self.report.refused = by_count(self.refused);
        self.report.kprobes_refused = by_count(self.kprobes_refused);
        self.report.instructions = self.boundaries;
        self.report
    }
}

fn note(rows: &mut BTreeMap<String, Row>, reason: String, asked: &Asked<'_>) {
    let row = rows.entry(reason.clone()).or_insert_with(|| Row {
        reason,
        count: 0,
        examples: Vec::new(),
    });
    row.count += 1;
    if row.examples.len() < EXAMPLES {
        row.examples.push(asked.example());
    }
}

/// The module's reason, in words.
fn reason(answer: &PointCheck) -> String {
    match Reason::from_code(answer.reason) {
        Some(Reason::Prohibited) => match i32::try_from(answer.detail).ok().and_then(Prohibited::from_code) {
            Some(why) => prohibited(why).to_owned(),
            None => format!("prohibited, number {}", answer.detail),
        },
        Some(Reason::Instruction) => match Refusal::from_code(answer.detail) {
            Some(refusal) => refusal.to_string(),
            None => format!("instruction, number {}", answer.detail),
        },
        Some(reason) => format!("{reason:?}"),
        None => format!("number {}", answer.reason),
    }
}

fn prohibited(why: Prohibited) -> &'static str {
    match why {
        Prohibited::NotText => "not text",
        Prohibited::NoFunction => "no function is known there",
        Prohibited::Excluded => "excluded: on the way of a trap, or the engine itself",
        Prohibited::Ftrace => "a NOP of the function tracer",
        Prohibited::JumpLabel => "jump label",
        Prohibited::StaticCall => "static call",
        Prohibited::Alternative => "alternatives are being applied",
        Prohibited::ExceptionEntry => "the kernel decodes the instruction when it faults",
        Prohibited::ForeignBreakpoint => "someone else's breakpoint",
        Prohibited::Bug => "BUG or WARN: the kernel looks the address up",
    }
}

/// Looks up the addresses that a list has in this function.
fn compare(oracle: &mut Oracle, table: &Table, function: &Function, decoded: &Decoded) {
    for &address in table.addresses.range(function.range.clone()) {
        let at = (address - function.range.start) as u32;
        oracle.listed += 1;
        if decoded.instructions.binary_search_by_key(&at, |(at, _)| *at).is_err() {
            oracle.note(|| format!("{}+{at:#x}", function.name));
        }
    }
}

impl Share {
    /// What is left of `all`.
    pub fn refused(&self) -> u64 {
        self.all - self.accepted
    }
}
