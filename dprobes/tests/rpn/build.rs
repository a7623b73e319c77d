//! Objects: a few lines of text to an object, straight from the instruction table.

use dprobes::rpn::exception::DEFAULT_MASK;
use dprobes::rpn::object::layout::{self, kind};
use dprobes::rpn::object::{Object, seal};
use dprobes::rpn::op::{Op, Operand, facility};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::verify::{VerifyError, verify};
use dprobes::rpn::{Program, limits};
use zerocopy::{FromZeros, IntoBytes};

/// An object in the making. Its fields are free to be wrong.
#[derive(Clone)]
pub struct Builder {
    pub header: layout::Header,
    pub points: Vec<layout::Point>,
    pub locals: Vec<layout::Str>,
    pub globals: Vec<layout::Str>,
    pub maps: Vec<layout::Map>,
    pub relocations: Vec<layout::Relocation>,
    pub lines: Vec<layout::Line>,
    pub code: Vec<u8>,
    pub strings: Vec<u8>,
}

impl Builder {
    /// A program for the kernel with one point, whose handler is `code`, and this many local variables.
    pub fn new(code: Vec<u8>, locals: u16) -> Self {
        let mut header = layout::Header::new_zeroed();
        header.magic = layout::MAGIC;
        header.version.set(layout::VERSION);
        header.header_len.set(size_of::<layout::Header>() as u16);
        header.modtype = 2;
        header.major.set(1);
        header.logmax.set(limits::LOG_MAX);
        header.ex_logmax.set(limits::EX_LOG_MAX);
        header.jmpmax.set(limits::JMP_MAX);
        let mut builder = Self {
            header,
            points: Vec::new(),
            locals: vec![layout::Str::new_zeroed(); usize::from(locals)],
            globals: Vec::new(),
            maps: Vec::new(),
            relocations: Vec::new(),
            lines: Vec::new(),
            code,
            strings: Vec::new(),
        };
        builder.header.name = builder.string("kernel");
        let end = builder.code.len() as u32;
        builder.point(0, end);
        builder
    }

    /// The same, from text.
    pub fn text(text: &str, locals: u16) -> Self {
        Self::new(assemble(text), locals)
    }

    /// Adds a point.
    pub fn point(&mut self, start: u32, end: u32) -> &mut layout::Point {
        let mut point = layout::Point::new_zeroed();
        point.kind = kind::ABSOLUTE;
        point.value.set(0xffff_ffff_8100_0000);
        point.minor.set(1);
        point.ex_mask.set(DEFAULT_MASK);
        point.code_start.set(start);
        point.code_end.set(end);
        point.display = self.string("do_sys_openat2+0x0");
        self.points.push(point);
        self.points.last_mut().unwrap()
    }

    /// Adds a string.
    pub fn string(&mut self, text: &str) -> layout::Str {
        let string = layout::Str {
            offset: (self.strings.len() as u32).into(),
            len: (text.len() as u32).into(),
        };
        self.strings.extend_from_slice(text.as_bytes());
        string
    }

    /// Names this many global variables.
    pub fn globals(mut self, count: usize) -> Self {
        self.globals = (0..count).map(|number| self.string(&number.to_string())).collect();
        self
    }

    /// Adds a map: its kind, keys and entries.
    pub fn map(mut self, kind: u8, keys: u8, entries: u32) -> Self {
        let mut map = layout::Map::new_zeroed();
        map.kind = kind;
        map.keys = keys;
        map.entries.set(entries);
        map.name = self.string(&format!("map{}", self.maps.len()));
        self.maps.push(map);
        self
    }

    /// Gives the program and its points a byte heap.
    pub fn heap(mut self, bytes: u16) -> Self {
        self.header.heapmax.set(bytes);
        for point in &mut self.points {
            point.heap.set(bytes);
        }
        self
    }

    pub fn group(mut self, group: u16) -> Self {
        for point in &mut self.points {
            point.group.set(group);
        }
        self
    }

    pub fn ex_logmax(mut self, ex_logmax: u16) -> Self {
        self.header.ex_logmax.set(ex_logmax);
        self
    }

    pub fn auto_stack_trace(mut self) -> Self {
        self.header.flags = layout::AUTO_STACK_TRACE;
        self
    }

    pub fn ex_mask(mut self, mask: u16) -> Self {
        for point in &mut self.points {
            point.ex_mask.set(mask);
        }
        self
    }

    pub fn jmpmax(mut self, jmpmax: u16) -> Self {
        self.header.jmpmax.set(jmpmax);
        self
    }

    pub fn logmax(mut self, logmax: u16) -> Self {
        self.header.logmax.set(logmax);
        self
    }

    /// The bytes of the object.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = self.header;
        header.points.set(self.points.len() as u32);
        header.locals.set(self.locals.len() as u16);
        header.globals.set(self.globals.len() as u16);
        header.maps.set(self.maps.len() as u16);
        header.relocations.set(self.relocations.len() as u32);
        header.lines.set(self.lines.len() as u32);
        header.code_len.set(self.code.len() as u32);
        header.strings_len.set(self.strings.len() as u32);
        let mut bytes = [
            header.as_bytes(),
            self.points.as_bytes(),
            self.locals.as_bytes(),
            self.globals.as_bytes(),
            self.maps.as_bytes(),
            self.relocations.as_bytes(),
            self.lines.as_bytes(),
            &self.code,
            &self.strings,
        ]
        .concat();
        seal(&mut bytes).unwrap();
        bytes
    }

    /// The verified program.
    pub fn verify(&self) -> Result<Program, VerifyError> {
        let bytes = self.bytes();
        verify(&Object::parse(&bytes).unwrap())
    }
}

/// Code from text: instructions separated by `;` or line ends, labels with a colon, numbers in decimal or `0x`.
pub fn assemble(text: &str) -> Vec<u8> {
    let mut code = Vec::new();
    let mut labels = std::collections::HashMap::new();
    let mut branches = Vec::new();
    for item in text.split([';', '\n']) {
        let mut item = item.trim();
        while let Some((label, rest)) = item.split_once(':') {
            assert!(labels.insert(label.trim(), code.len()).is_none(), "label {label} twice");
            item = rest.trim();
        }
        let mut words = item.split([' ', ',']).filter(|word| !word.is_empty());
        let Some(mnemonic) = words.next() else { continue };
        let words: Vec<&str> = words.collect();
        let without = Op::find(mnemonic, &words, false).map(|op| (op, None));
        let with = || {
            Some((
                Op::find(mnemonic, &words[..words.len().checked_sub(1)?], true)?,
                words.last().copied(),
            ))
        };
        let (op, operand) = without
            .or_else(with)
            .unwrap_or_else(|| panic!("no instruction: {item}"));
        code.push(op.byte());
        let operand = operand.unwrap_or("");
        match op.info().operand {
            Operand::None => {}
            Operand::Branch => {
                branches.push((code.len(), operand.to_owned()));
                code.extend_from_slice(&[0; 4]);
            }
            Operand::Reg => {
                let reg = Reg::from_name(operand).unwrap_or_else(|| panic!("no register: {item}"));
                code.extend_from_slice(&reg.number().to_le_bytes());
            }
            Operand::Facility if facility::NAMES.iter().any(|(name, _)| *name == operand) => {
                code.extend(
                    facility::NAMES
                        .iter()
                        .find(|(name, _)| *name == operand)
                        .map(|(_, n)| *n),
                );
            }
            other => code.extend_from_slice(&number(operand).to_le_bytes()[..other.size()]),
        }
    }
    for (at, label) in branches {
        let target = *labels.get(label.as_str()).unwrap_or_else(|| panic!("no label {label}"));
        let distance = target as i64 - (at as i64 + 4);
        code[at..at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
    }
    code
}

pub fn number(text: &str) -> u64 {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let value = value.unwrap_or_else(|_| panic!("no number: {text}"));
    if negative { value.wrapping_neg() } else { value }
}
