//! Tokens to a program: statements, one to a line or separated by `;`, each parsed on its own so that a wrong one does not
//! hide the next.

mod instruction;
mod item;
mod map;
mod operand;
mod watch;

use crate::cursor::Cursor;
use crate::diag::{Reported, Session};
use crate::expression::bad_token;
use crate::lex::{Token, TokenKind};
use crate::problem::ProgramProblem;
use crate::program::{Attributes, Header, Label, Probe};
use crate::source::Span;
use dprobes::rpn::op::Op;
use std::collections::HashMap;

pub(crate) use instruction::push_words;
pub(crate) use map::MAP_KINDS;
pub(crate) use watch::WATCH_KINDS;

/// What can be set before the first probe.
pub(crate) const HEADER_ITEMS: [&str; 12] = [
    "name",
    "modtype",
    "major",
    "id",
    "logmax",
    "ex_logmax",
    "jmpmax",
    "heapmax",
    "autostacktrace",
    "vars",
    "globals",
    "map",
];

/// What can be set for a probe.
pub(crate) const PROBE_ITEMS: [&str; 14] = [
    "offset",
    "address",
    "watch",
    "opcode",
    "minor",
    "group",
    "type",
    "pass_count",
    "max_hits",
    "logonfault",
    "ex_mask",
    "suspended",
    "heap",
    "display",
];

/// Items of a probe that can also be set in the header, for all probes.
const DEFAULT_ITEMS: [&str; 5] = ["group", "type", "logonfault", "ex_mask", "suspended"];

/// The header and the probes as far as they could be understood; what could not is reported.
pub(crate) fn parse(tokens: &[Token], macros: &[String], session: &mut Session) -> (Header, Vec<Probe>) {
    let mut parser = Parser {
        session,
        macros,
        header: Header::default(),
        probes: Vec::new(),
        given: HashMap::new(),
        labels: HashMap::new(),
        lost_code: false,
    };
    for line in tokens.split(|t| t.kind == TokenKind::Newline || t.is(";")) {
        parser.statement(line);
    }
    parser.finish();
    (parser.header, parser.probes)
}

struct Parser<'a> {
    session: &'a mut Session,
    macros: &'a [String],
    header: Header,
    probes: Vec<Probe>,
    /// The items of the header, or of the last probe, and where they are.
    given: HashMap<String, Span>,
    /// The labels of the last probe.
    labels: HashMap<String, Span>,
    /// Instructions before the first probe have been reported.
    lost_code: bool,
}

impl Parser<'_> {
    fn statement(&mut self, mut line: &[Token]) {
        while let [name, colon, rest @ ..] = line
            && name.kind == TokenKind::Identifier
            && colon.is(":")
        {
            self.label(name);
            line = rest;
        }
        let Some((first, rest)) = line.split_first() else {
            return;
        };
        let failed = match first.kind {
            TokenKind::Bad(_) | TokenKind::Reported => bad_token(self.session, first).is_some(),
            TokenKind::Identifier if first.name() == Some("map") => self.map(first, rest).is_err(),
            TokenKind::Identifier if rest.first().is_some_and(|t| t.is("=")) => self.item(first, &rest[1..]).is_err(),
            TokenKind::Identifier => self.instruction(first, rest).is_err(),
            _ => {
                let found = first.describe();
                self.session
                    .report(first.span, ProgramProblem::ExpectedStatement { found });
                true
            }
        };
        if failed && let Some(probe) = self.probes.last_mut() {
            probe.damaged = true;
        }
    }

    fn label(&mut self, name: &Token) {
        let Some(probe) = self.probes.last_mut() else {
            self.code_outside_probe(name.span);
            return;
        };
        if let Some(old) = self.labels.insert(name.text.to_string(), name.span) {
            self.labels.insert(name.text.to_string(), old);
            let problem = ProgramProblem::DuplicateLabel {
                name: name.text.to_string(),
                first: old,
            };
            self.session.report(name.span, problem);
            return;
        }
        probe.labels.push(Label {
            name: name.text.to_string(),
            span: name.span,
            at: probe.code.len(),
        });
    }

    fn code_outside_probe(&mut self, span: Span) -> Reported {
        if !self.lost_code {
            self.lost_code = true;
            self.session.report(span, ProgramProblem::CodeOutsideProbe);
        }
        Reported
    }

    fn instruction(&mut self, first: &Token, rest: &[Token]) -> Result<(), Reported> {
        let name = first.text.to_string();
        if Op::with_mnemonic(&name).next().is_none() {
            if HEADER_ITEMS.contains(&&*name) || PROBE_ITEMS.contains(&&*name) {
                let cursor = Cursor::new(rest, first.span);
                let problem = ProgramProblem::ExpectedEquals {
                    item: name,
                    found: cursor.found(),
                };
                return Err(self.session.report(cursor.span(), problem));
            }
            let near = self.session.nearest(&name, Op::ALL.iter().map(|op| op.info().mnemonic));
            return Err(self
                .session
                .report(first.span, ProgramProblem::UnknownMnemonic { name, near }));
        }
        if self.probes.is_empty() {
            return Err(self.code_outside_probe(first.span));
        }
        let mut reader = instruction::Reader {
            session: self.session,
            macros: self.macros,
            header: &self.header,
        };
        let instruction = reader.read(first, rest)?;
        if let Some(probe) = self.probes.last_mut() {
            probe.code.push(instruction);
        }
        Ok(())
    }

    fn finish(&mut self) {
        let missing = |required: &[&str], given: &HashMap<String, Span>| -> Vec<String> {
            required
                .iter()
                .filter(|i| !given.contains_key(**i))
                .map(|i| (*i).to_owned())
                .collect()
        };
        if self.probes.is_empty() {
            // What is wrong already may be why.
            if !self.session.has_errors() {
                self.end_header(None);
                self.session.report(None, ProgramProblem::NoProbes);
            }
            return;
        }
        let items = missing(&["minor"], &self.given);
        self.end_probe(items);
        self.groups();
    }

    /// The points of one group are suspended together or not at all.
    fn groups(&mut self) {
        let mut first: HashMap<u16, (bool, Span)> = HashMap::new();
        let mut problems = Vec::new();
        for probe in &self.probes {
            let Attributes { group, suspended, .. } = probe.attributes;
            let (other, span) = *first.entry(group).or_insert((suspended, probe.span));
            if other != suspended {
                problems.push((
                    probe.span,
                    ProgramProblem::GroupDisagrees {
                        group,
                        suspended,
                        first: span,
                    },
                ));
            }
        }
        for (span, problem) in problems {
            self.session.report(span, problem);
        }
    }

    /// The first probe begins, or the text ends.
    fn end_header(&mut self, span: Option<Span>) {
        let items: Vec<_> = ["name", "modtype", "major"]
            .into_iter()
            .filter(|i| !self.given.contains_key(*i))
            .map(str::to_owned)
            .collect();
        if !items.is_empty() {
            self.session.report(span, ProgramProblem::MissingHeaderItems { items });
        }
        self.given.clear();
    }

    /// The next probe begins, or the text ends.
    fn end_probe(&mut self, missing: Vec<String>) {
        self.check_watch();
        let Some(probe) = self.probes.last() else {
            return;
        };
        if !missing.is_empty() {
            self.session
                .report(probe.span, ProgramProblem::MissingProbeItems { items: missing });
        }
        if probe.code.is_empty() && !probe.damaged {
            self.session.report(probe.span, ProgramProblem::EmptyProbe);
        }
        self.given.clear();
        self.labels.clear();
    }
}
