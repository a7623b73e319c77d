//! A program to an object.

use crate::diag::{Reported, Session};
use crate::problem::{OperandProblem, ProgramProblem};
use crate::program::{Argument, Header, Instruction, Map, Place, Probe, Spanned};
use crate::source::{FileId, Span};
use dprobes::rpn::object::layout::{self, kind, map_kind};
use dprobes::rpn::object::{self, MapKind, ModType, Object};
use dprobes::rpn::op::{Flow, Operand};
use std::collections::{BTreeSet, HashMap, HashSet};
use zerocopy::IntoBytes;

/// Groups that a message about another one lists.
const GROUPS_TOLD: usize = 10;

/// An object and where its parts were written.
pub(crate) struct Encoded {
    pub object: Vec<u8>,
    /// Code offsets, ascending.
    pub code: Vec<(u32, Span)>,
    pub points: Vec<Span>,
}

/// Lays the program out. Only to be called without errors so far, so that nothing is missing.
pub(crate) fn encode(
    header: &Header,
    probes: &[Probe],
    source: FileId,
    session: &mut Session,
) -> Result<Encoded, Reported> {
    let mut strings = Strings::default();
    let mut code = Code::default();
    let mut points = Vec::new();
    let name = strings.put(header.name.as_deref().unwrap_or(""));
    let source = strings.put(session.map.debug_name(source));
    let locals: Vec<_> = header.locals.names.iter().map(|n| strings.put(&n.value)).collect();
    let globals: Vec<_> = header.globals.names.iter().map(|n| strings.put(&n.value)).collect();
    let maps: Vec<_> = header.maps.list.iter().map(|m| map(m, &mut strings)).collect();
    code.groups = probes.iter().map(|p| p.attributes.group).collect();
    for probe in probes {
        for l in &probe.labels {
            code.labels.entry(l.name.as_str()).or_insert(l.span);
        }
    }
    for probe in probes {
        let range = code.handler(probe, &mut strings, session);
        points.push(point(probe, header, range, &mut strings, session));
    }
    let lines: Vec<_> = code
        .places
        .iter()
        .map(|(offset, span)| (*offset, session.map.debug_line(*span)))
        .filter(|(_, line)| *line != 0)
        .map(|(offset, line)| layout::Line {
            offset: offset.into(),
            line: line.into(),
        })
        .collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).into();
    let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).into();
    let head = layout::Header {
        magic: layout::MAGIC,
        version: layout::VERSION.into(),
        header_len: (size_of::<layout::Header>() as u16).into(),
        total_len: 0.into(),
        checksum: 0.into(),
        modtype: header.modtype.unwrap_or(ModType::Kernel) as u8,
        flags: if header.auto_stack_trace {
            layout::AUTO_STACK_TRACE
        } else {
            0
        },
        major: header.major.unwrap_or(0).into(),
        id: header.id.into(),
        logmax: header.logmax().into(),
        ex_logmax: header.ex_logmax().into(),
        jmpmax: header.jmpmax().into(),
        locals: short(locals.len()),
        globals: short(globals.len()),
        heapmax: header.heapmax.into(),
        name,
        source,
        points: count(points.len()),
        lines: count(lines.len()),
        code_len: count(code.bytes.len()),
        strings_len: count(strings.text.len()),
        relocations: count(code.relocations.len()),
        maps: short(maps.len()),
        reserved: [0; 18],
    };
    let mut bytes = Vec::new();
    for section in [
        head.as_bytes(),
        points.as_bytes(),
        locals.as_bytes(),
        globals.as_bytes(),
        maps.as_bytes(),
        code.relocations.as_bytes(),
        lines.as_bytes(),
        &code.bytes,
        strings.text.as_bytes(),
    ] {
        bytes.extend_from_slice(section);
    }
    if session.has_errors() {
        return Err(Reported);
    }
    object::seal(&mut bytes)
        .and_then(|()| Object::parse(&bytes).map(drop))
        .map_err(|e| session.report(None, ProgramProblem::Object(e)))?;
    Ok(Encoded {
        object: bytes,
        code: code.places,
        points: probes.iter().map(|p| p.span).collect(),
    })
}

fn point(
    probe: &Probe,
    header: &Header,
    range: std::ops::Range<u32>,
    strings: &mut Strings,
    session: &Session,
) -> layout::Point {
    let place = probe.place.clone().unwrap_or(Place::Offset(0));
    let display = strings.put(&probe.display.clone().unwrap_or_else(|| place.shown(probe.returns)));
    let (kind, value, symbol) = match &place {
        Place::Absolute(n) => (kind::ABSOLUTE, *n, ""),
        Place::Offset(n) => (kind::MODULE_OFFSET, *n, ""),
        Place::Symbol(s, n) => (kind::SYMBOL, n.cast_unsigned(), s.as_str()),
        Place::Line(f, n) => (kind::SOURCE, u64::from(*n), f.as_str()),
    };
    let mut opcode = [0; 15];
    opcode[..probe.opcode.len()].copy_from_slice(&probe.opcode);
    let attributes = &probe.attributes;
    let mut flags = 0;
    for (flag, on) in [
        (layout::LOG_ON_FAULT, attributes.log_on_fault),
        (layout::SUSPENDED, attributes.suspended),
        (layout::RETURNS, probe.returns),
    ] {
        if on {
            flags |= flag;
        }
    }
    layout::Point {
        kind,
        opcode_len: probe.opcode.len() as u8,
        flags: flags.into(),
        minor: probe.minor.unwrap_or(0).into(),
        group: attributes.group.into(),
        type_: attributes.kind.into(),
        ex_mask: attributes.ex_mask.into(),
        line: session.map.debug_line(probe.span).into(),
        value: value.into(),
        symbol: strings.put_beginning(symbol, display),
        display,
        pass_count: probe.pass_count.into(),
        max_hits: probe.max_hits.into(),
        code_start: range.start.into(),
        code_end: range.end.into(),
        opcode,
        watch: probe.watch.map_or(0, |w| w.value.kind() as u8),
        heap: probe.heap.unwrap_or(header.heapmax).into(),
        watch_len: probe.watch.map_or(0, |w| w.value.len()),
        reserved: [0; 5],
    }
}

fn map(map: &Map, strings: &mut Strings) -> layout::Map {
    let (kind, (min, max, step)) = match map.kind {
        MapKind::Count => (map_kind::COUNT, (0, 0, 0)),
        MapKind::Sum => (map_kind::SUM, (0, 0, 0)),
        MapKind::Min => (map_kind::MIN, (0, 0, 0)),
        MapKind::Max => (map_kind::MAX, (0, 0, 0)),
        MapKind::Avg => (map_kind::AVG, (0, 0, 0)),
        MapKind::Log2 => (map_kind::LOG2, (0, 0, 0)),
        MapKind::Linear { min, max, step } => (map_kind::LINEAR, (min, max, step)),
    };
    layout::Map {
        kind,
        keys: map.keys,
        reserved: 0.into(),
        entries: map.entries.into(),
        min: min.into(),
        max: max.into(),
        step: step.into(),
        name: strings.put(&map.name.value),
    }
}

/// The string section; equal strings are stored once.
#[derive(Default)]
struct Strings {
    text: String,
    known: HashMap<String, layout::Str>,
}

impl Strings {
    fn put(&mut self, s: &str) -> layout::Str {
        if s.is_empty() {
            return layout::Str::default();
        }
        if let Some(known) = self.known.get(s) {
            return *known;
        }
        let place = layout::Str {
            offset: (self.text.len() as u32).into(),
            len: (s.len() as u32).into(),
        };
        self.text.push_str(s);
        self.known.insert(s.to_owned(), place);
        place
    }

    /// A string that a stored one probably begins with, as `symbol+0x1f` does with `symbol`. So an object has the same strings
    /// whether its locations have been resolved or not.
    fn put_beginning(&mut self, s: &str, longer: layout::Str) -> layout::Str {
        let start = longer.offset.get() as usize;
        let end = start + longer.len.get() as usize;
        if !s.is_empty() && self.text[start..end].starts_with(s) {
            return layout::Str {
                offset: longer.offset,
                len: (s.len() as u32).into(),
            };
        }
        self.put(s)
    }
}

/// The code of all handlers.
#[derive(Default)]
struct Code<'a> {
    bytes: Vec<u8>,
    places: Vec<(u32, Span)>,
    /// Labels of all probes, for the message that they are out of reach.
    labels: HashMap<&'a str, Span>,
    relocations: Vec<layout::Relocation>,
    /// The groups of all probes.
    groups: BTreeSet<u16>,
}

impl Code<'_> {
    fn handler(&mut self, probe: &Probe, strings: &mut Strings, session: &mut Session) -> std::ops::Range<u32> {
        let start = self.bytes.len();
        let mut offsets = Vec::with_capacity(probe.code.len());
        let mut at = start;
        for i in &probe.code {
            offsets.push(at);
            at += i.op.size();
        }
        let labels = Self::targets(probe, &offsets, session);
        let mut used = HashSet::new();
        for (i, offset) in probe.code.iter().zip(&offsets) {
            self.places.push((*offset as u32, i.span));
            self.instruction(i, &labels, &mut used, probe, strings, session);
        }
        if !probe.damaged {
            ends(probe, session);
            for l in probe.labels.iter().filter(|l| !used.contains(&l.name)) {
                let name = l.name.clone();
                session.report(l.span, ProgramProblem::UnusedLabel { name });
            }
        }
        start as u32..self.bytes.len() as u32
    }

    fn targets(probe: &Probe, offsets: &[usize], session: &mut Session) -> HashMap<String, usize> {
        let mut labels = HashMap::new();
        for l in &probe.labels {
            match offsets.get(l.at) {
                Some(offset) => _ = labels.insert(l.name.clone(), *offset),
                None => {
                    // Known all the same, so that a jump to it is not wrong a second time.
                    labels.insert(l.name.clone(), 0);
                    if !probe.damaged {
                        let name = l.name.clone();
                        session.report(l.span, ProgramProblem::LabelAtEnd { name });
                    }
                }
            }
        }
        labels
    }

    fn instruction(
        &mut self,
        i: &Instruction,
        labels: &HashMap<String, usize>,
        used: &mut HashSet<String>,
        probe: &Probe,
        strings: &mut Strings,
        session: &mut Session,
    ) {
        self.bytes.push(i.op.byte());
        let value: u64 = match &i.argument {
            Argument::None => 0,
            Argument::Number(n) => *n,
            Argument::Register(r) => r.number().into(),
            Argument::Local(n) | Argument::Global(n) | Argument::Map(n) => (*n).into(),
            Argument::Group(group) => {
                self.group(group, session);
                group.value.into()
            }
            Argument::Symbol { name, addend } => {
                self.relocations.push(layout::Relocation {
                    offset: (self.bytes.len() as u32).into(),
                    symbol: strings.put(&name.value),
                    addend: (*addend).into(),
                });
                0
            }
            Argument::Label(l) => {
                used.insert(l.value.clone());
                let end = self.bytes.len() + Operand::Branch.size();
                match labels.get(&l.value) {
                    // Code is far shorter than what a branch can reach; the object's own check has the last word.
                    Some(target) => (*target as i64 - end as i64) as u64,
                    None => {
                        let problem = OperandProblem::UnknownLabel {
                            name: l.value.clone(),
                            near: session.nearest(&l.value, probe.labels.iter().map(|l| l.name.as_str())),
                            elsewhere: self.labels.get(l.value.as_str()).copied(),
                        };
                        session.report(l.span, problem);
                        0
                    }
                }
            }
        };
        let size = i.op.info().operand.size();
        self.bytes.extend_from_slice(&value.to_le_bytes()[..size]);
    }

    fn group(&self, group: &Spanned<u16>, session: &mut Session) {
        if !self.groups.contains(&group.value) {
            let problem = OperandProblem::UnknownGroup {
                group: group.value,
                known: self.groups.iter().copied().take(GROUPS_TOLD).collect(),
                more: self.groups.len().saturating_sub(GROUPS_TOLD),
            };
            session.report(group.span, problem);
        }
    }
}

/// A handler must not run into the next one.
fn ends(probe: &Probe, session: &mut Session) {
    if let Some(last) = probe.code.last() {
        let goes_on = match last.op.info().flow {
            Flow::Next | Flow::Branch | Flow::Call | Flow::Handler => true,
            Flow::Jump | Flow::Return | Flow::Raise | Flow::End => false,
        };
        if goes_on {
            session.report(last.span, ProgramProblem::RunsPastEnd);
        }
    }
}
