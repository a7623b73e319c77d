//! Object to text.

use crate::lex::{is_name, quote};
use crate::parse::push_words;
use crate::program::{Attributes, Place};
use dprobes::rpn::object::{self, Location, Map, MapKind, ModType, Object, ObjectError, Point};
use dprobes::rpn::op::{Op, Operand, facility};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::{exception, limits};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Up to this many empty lines stand for the comments that were there; more are skipped with `#line`.
const MOST_EMPTY_LINES: u32 = 20;

/// Why an object has no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisassembleError {
    /// The bytes are no object.
    Object(ObjectError),
    /// The handlers do not follow each other without gaps, as they do in text.
    Layout {
        /// The point whose handler begins in the wrong place.
        point: u32,
    },
    /// A byte that is no instruction, or one that is cut off.
    Instruction {
        /// Its offset in the code.
        offset: u32,
        /// The byte.
        byte: u8,
    },
    /// A register number that is none.
    Register {
        /// Offset of the instruction in the code.
        offset: u32,
        /// The number.
        number: u16,
    },
    /// A symbol for a word that is no operand.
    Relocation {
        /// Offset of the word in the code.
        offset: u32,
    },
    /// A branch to where no instruction of the same handler begins.
    Target {
        /// Offset of the branch in the code.
        offset: u32,
        /// Where it goes.
        target: i64,
    },
}

impl fmt::Display for DisassembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(e) => e.fmt(f),
            Self::Layout { point } => write!(f, "the handler of point {point} does not follow the one before"),
            Self::Instruction { offset, byte } => {
                write!(
                    f,
                    "byte {byte:#04x} at offset {offset} of the code is not a whole instruction"
                )
            }
            Self::Register { offset, number } => {
                write!(
                    f,
                    "the instruction at offset {offset} of the code names register {number:#x}, which does not exist"
                )
            }
            Self::Relocation { offset } => {
                write!(
                    f,
                    "there is a symbol for byte {offset} of the code, where no operand of a push begins"
                )
            }
            Self::Target { offset, target } => {
                write!(
                    f,
                    "the branch at offset {offset} of the code goes to {target}, where no instruction of its handler begins"
                )
            }
        }
    }
}

impl std::error::Error for DisassembleError {}

/// The text of an object. Assembling it gives the object again, byte for byte, if it was this crate's assembler that made it:
/// also the lines, which the text keeps with empty lines and `#line`. Locations may have been resolved since.
///
/// # Errors
///
/// When the bytes are no object or its code is not a sequence of whole instructions. A program that verifies is.
pub fn disassemble(bytes: &[u8]) -> Result<String, DisassembleError> {
    let object = Object::parse(bytes).map_err(DisassembleError::Object)?;
    let mut text = Text::default();
    let has_lines = object.lines().len() > 0 || object.points().any(|p| p.line() != 0);
    text.number(u32::from(has_lines), Some(object.source()));
    header(&object, &mut text);
    let mut tables = Tables::of(&object);
    let mut end = 0;
    for (index, point) in (0..).zip(object.points()) {
        if point.code().start != end {
            return Err(DisassembleError::Layout { point: index });
        }
        end = point.code().end;
        text.gap();
        items(&object, &point, &mut text);
        text.gap();
        handler(&object, &point, &mut tables, &mut text)?;
    }
    if end as usize != object.code().len() {
        let point = object.points().len() as u32;
        return Err(DisassembleError::Layout { point });
    }
    if let Some(offset) = tables.symbols.keys().min() {
        return Err(DisassembleError::Relocation { offset: *offset });
    }
    Ok(text.finish())
}

/// What is looked up for each instruction.
struct Tables<'a> {
    lines: HashMap<u32, u32>,
    /// Symbols of words in the code, by the words' offsets, until they are written.
    symbols: HashMap<u32, (&'a str, i64)>,
    locals: Vec<&'a str>,
    globals: Vec<&'a str>,
    maps: Vec<&'a str>,
}

impl<'a> Tables<'a> {
    fn of(object: &Object<'a>) -> Self {
        Self {
            lines: object.lines().collect(),
            symbols: object.relocations().map(|r| (r.offset, (r.symbol, r.addend))).collect(),
            locals: object.locals().collect(),
            globals: object.globals().collect(),
            maps: object.maps().map(|m| m.name).collect(),
        }
    }

    /// The symbol of the word at this offset, as it is written.
    fn symbol(&mut self, offset: u32) -> Option<String> {
        let (name, addend) = self.symbols.remove(&offset)?;
        let names = [&self.locals, &self.globals, &self.maps];
        let other = push_words().any(|w| w == name)
            || Reg::from_name(name).is_some()
            || exception::CODES.iter().any(|(n, _)| *n == name)
            || names.iter().any(|all| all.contains(&name));
        let symbol = if other { quote(name) } else { plain_or_quoted(name) };
        Some(sum(symbol, addend))
    }
}

/// The variable or map of this index, by its name if it has one that reads back.
fn indexed(names: &[&str], index: u64) -> String {
    match usize::try_from(index).ok().and_then(|n| names.get(n)) {
        Some(name) if plain(name) => (*name).to_owned(),
        _ => index.to_string(),
    }
}

fn plain_or_quoted(name: &str) -> String {
    if plain(name) { name.to_owned() } else { quote(name) }
}

fn header(object: &Object<'_>, text: &mut Text) {
    text.item("name", quote(object.name()));
    let modtype = match object.modtype() {
        ModType::User => "user",
        ModType::Kernel => "kernel",
        ModType::Kmod => "kmod",
    };
    text.item("modtype", modtype);
    text.item("major", object.major());
    text.item_unless("id", object.id(), 0);
    text.item_unless("logmax", object.logmax(), limits::LOG_MAX);
    text.item_unless("ex_logmax", object.ex_logmax(), limits::EX_LOG_MAX);
    text.item_unless("jmpmax", object.jmpmax(), limits::JMP_MAX);
    text.item_unless("heapmax", object.heapmax(), 0);
    if object.auto_stack_trace() {
        text.item("autostacktrace", "yes");
    }
    locals(object.locals(), text);
    globals(object.globals().collect(), text);
    for map in object.maps() {
        text.item(&format!("map {}", plain_or_quoted(map.name)), describe(&map));
    }
}

/// A name that reads back as itself: not as a macro that is always there.
fn plain(name: &str) -> bool {
    is_name(name) && name != "_" && !["__LINE__", "__FILE__", "__COUNTER__"].contains(&name)
}

fn locals<'a>(names: impl ExactSizeIterator<Item = &'a str>, text: &mut Text) {
    let names: Vec<_> = names.map(|n| if plain(n) { n } else { "_" }).collect();
    if names.is_empty() {
    } else if names.iter().all(|n| *n == "_") {
        text.item("vars", names.len());
    } else {
        text.item("vars", names.join(", "));
    }
}

fn globals(names: Vec<&str>, text: &mut Text) {
    if names.is_empty() {
    } else if names.iter().enumerate().all(|(n, name)| n.to_string() == **name) {
        text.item("globals", names.len());
    } else {
        let names: Vec<_> = names.into_iter().map(plain_or_quoted).collect();
        text.item("globals", names.join(", "));
    }
}

fn describe(map: &Map<'_>) -> String {
    let kind = match map.kind {
        MapKind::Count => "count",
        MapKind::Sum => "sum",
        MapKind::Min => "min",
        MapKind::Max => "max",
        MapKind::Avg => "avg",
        MapKind::Log2 => "log2",
        MapKind::Linear { .. } => "linear",
    };
    let mut all = vec![kind.to_owned()];
    if let MapKind::Linear { min, max, step } = map.kind {
        let signed = |n: i64| match n {
            // Its amount is not a signed number.
            i64::MIN => format!("-{} - 1", i64::MAX),
            n => n.to_string(),
        };
        all.push(format!("min = {}, max = {}, step = {step}", signed(min), signed(max)));
    }
    if map.keys != 0 {
        all.push(format!("keys = {}", map.keys));
    }
    let usual = if map.keys == 0 { 1 } else { limits::MAP_ENTRIES };
    if map.entries != usual {
        all.push(format!("entries = {}", map.entries));
    }
    all.join(", ")
}

fn items(object: &Object<'_>, point: &Point<'_>, text: &mut Text) {
    let place = match point.location() {
        Location::Place(object::Place::Absolute(a)) => Place::Absolute(a),
        Location::Place(object::Place::ModuleOffset(o)) => Place::Offset(o),
        Location::Symbol { name, addend } => Place::Symbol(name.to_owned(), addend),
        Location::Source { file, line } => Place::Line(file.to_owned(), line),
    };
    let item = match place {
        Place::Absolute(_) => "address",
        _ => "offset",
    };
    let written = match point.returns() {
        true => format!("return({})", location(&place)),
        false => location(&place),
    };
    text.at(point.line(), &format!("{item:10} = {written}"));
    if point.display() != place.shown(point.returns()) {
        text.item("display", quote(point.display()));
    }
    if !point.opcode().is_empty() {
        let bytes: Vec<_> = point.opcode().iter().map(|b| format!("{b:#04x}")).collect();
        text.item("opcode", bytes.join(", "));
    }
    if let Some(watch) = point.watch() {
        text.item("watch", watch);
    }
    let usual = Attributes::default();
    text.item("minor", point.minor());
    text.item_unless("group", point.group(), usual.group);
    text.item_unless("type", point.type_(), usual.kind);
    text.item_unless("pass_count", point.pass_count(), 0);
    text.item_unless("max_hits", point.max_hits(), 0);
    if point.log_on_fault() != usual.log_on_fault {
        text.item("logonfault", if point.log_on_fault() { "yes" } else { "no" });
    }
    if point.ex_mask() != usual.ex_mask {
        text.item("ex_mask", format!("{:#06x}", point.ex_mask()));
    }
    if point.suspended() {
        text.item("suspended", "yes");
    }
    text.item_unless("heap", point.heap(), object.heapmax());
}

fn location(place: &Place) -> String {
    match place {
        Place::Symbol(s, n) => sum(plain_or_quoted(s), *n),
        Place::Line(file, line) => format!("{}:{line}", quote(file)),
        _ => place.display(),
    }
}

/// A symbol and what to add to it.
fn sum(symbol: String, addend: i64) -> String {
    match addend {
        0 => symbol,
        // Its amount is not a signed number.
        i64::MIN => format!("{symbol} + (-{:#x} - 1)", i64::MAX),
        n if n < 0 => format!("{symbol} - {:#x}", n.unsigned_abs()),
        n => format!("{symbol} + {n:#x}"),
    }
}

/// An instruction before it is text.
struct Decoded {
    offset: u32,
    op: Op,
    /// The operand as it is in the code, sign-extended for a branch and a position.
    value: u64,
}

impl Decoded {
    fn target(&self) -> Option<i64> {
        let next = i64::from(self.offset) + self.op.size() as i64;
        (self.op.info().operand == Operand::Branch).then(|| next.saturating_add(self.value.cast_signed()))
    }
}

fn decode(code: &[u8], range: std::ops::Range<u32>) -> Result<Vec<Decoded>, DisassembleError> {
    let mut all = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let bytes = &code[offset as usize..range.end as usize];
        let error = DisassembleError::Instruction { offset, byte: bytes[0] };
        let op = Op::from_byte(bytes[0]).ok_or(error)?;
        let operand = bytes.get(1..op.size()).ok_or(error)?;
        let mut word = [0; 8];
        word[..operand.len()].copy_from_slice(operand);
        let mut value = u64::from_le_bytes(word);
        value = match op.info().operand {
            Operand::Branch => i64::from(value as u32 as i32).cast_unsigned(),
            Operand::S16 => i64::from(value as u16 as i16).cast_unsigned(),
            _ => value,
        };
        all.push(Decoded { offset, op, value });
        offset += op.size() as u32;
    }
    Ok(all)
}

fn handler(
    object: &Object<'_>,
    point: &Point<'_>,
    tables: &mut Tables<'_>,
    text: &mut Text,
) -> Result<(), DisassembleError> {
    let code = decode(object.code(), point.code())?;
    let mut labels: BTreeMap<i64, String> = BTreeMap::new();
    for i in &code {
        if let Some(target) = i.target() {
            if code.binary_search_by_key(&target, |i| i.offset.into()).is_err() {
                let offset = i.offset;
                return Err(DisassembleError::Target { offset, target });
            }
            labels.insert(target, String::new());
        }
    }
    for (n, label) in labels.values_mut().enumerate() {
        *label = format!("L{}", n + 1);
    }
    for i in &code {
        let label = labels
            .get(&i64::from(i.offset))
            .map(|l| format!("{l}:"))
            .unwrap_or_default();
        let operand = match i.op.info().operand {
            Operand::None => None,
            Operand::U8 | Operand::U16 | Operand::Group => Some(i.value.to_string()),
            Operand::S16 => Some(i.value.cast_signed().to_string()),
            Operand::Word => Some(tables.symbol(i.offset + 1).unwrap_or_else(|| number(i.value))),
            Operand::Branch => i.target().and_then(|t| labels.get(&t).cloned()),
            Operand::Local => Some(indexed(&tables.locals, i.value)),
            Operand::Global => Some(indexed(&tables.globals, i.value)),
            Operand::Map => Some(indexed(&tables.maps, i.value)),
            Operand::Facility => {
                let named = facility::NAMES.iter().find(|(_, number)| u64::from(*number) == i.value);
                Some(named.map_or_else(|| i.value.to_string(), |(name, _)| (*name).to_owned()))
            }
            Operand::Reg => {
                let number = i.value as u16;
                let offset = i.offset;
                let reg = Reg::from_number(number).ok_or(DisassembleError::Register { offset, number })?;
                Some(reg.to_string())
            }
        };
        let info = i.op.info();
        let mut operands: Vec<&str> = info.selectors.to_vec();
        operands.extend(operand.as_deref());
        let line = format!("{label:7} {:7} {}", info.mnemonic, operands.join(", "));
        let number = tables.lines.get(&i.offset).copied().unwrap_or(0);
        text.at(number, line.trim_end());
    }
    Ok(())
}

/// Small numbers in decimal, others as bits.
fn number(n: u64) -> String {
    match n.cast_signed() {
        s @ -4096..4096 => s.to_string(),
        _ => format!("{n:#x}"),
    }
}

/// Lines with the numbers they must have.
#[derive(Default)]
struct Text {
    lines: Vec<String>,
    /// The number of the line that comes next; 0 while lines have none.
    next: u32,
    /// The last line has a number that matters.
    fixed: bool,
}

impl Text {
    fn number(&mut self, line: u32, name: Option<&str>) {
        let name = name.map_or(String::new(), |n| format!(" {}", quote(n)));
        self.lines.push(format!("#line {line}{name}"));
        self.next = line;
        self.fixed = false;
    }

    fn push(&mut self, line: String) {
        self.lines.push(line);
        if self.next != 0 {
            self.next += 1;
        }
    }

    /// A line whose number is of no interest.
    fn item(&mut self, name: &str, value: impl fmt::Display) {
        self.fixed = false;
        self.push(format!("{name:10} = {value}"));
    }

    fn item_unless<T: PartialEq + fmt::Display>(&mut self, name: &str, value: T, usual: T) {
        if value != usual {
            self.item(name, value);
        }
    }

    fn gap(&mut self) {
        self.fixed = false;
        if self.next == 0 {
            self.push(String::new());
        }
    }

    /// A line with this number; 0 for none.
    fn at(&mut self, line: u32, text: &str) {
        let same = self.fixed && line != 0 && line.checked_add(1) == Some(self.next);
        if same && let Some(last) = self.lines.last_mut() {
            last.push_str("; ");
            last.push_str(text.trim_start());
            return;
        }
        if line == 0 || self.next == 0 {
            if line != self.next {
                self.number(line, None);
            }
        } else if line < self.next || line - self.next > MOST_EMPTY_LINES {
            self.number(line, None);
        } else {
            while self.next < line {
                self.push(String::new());
            }
        }
        self.push(text.to_owned());
        self.fixed = line != 0;
    }

    fn finish(mut self) -> String {
        self.lines.push(String::new());
        self.lines.join("\n")
    }
}
