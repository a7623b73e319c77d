//! An executable or a shared library: where its code is, and what the places in it are called.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dprobes::insn::Instructions;
use object::{Architecture, BinaryFormat, Object as _, ObjectKind, ObjectSegment as _, ObjectSymbol as _};

use super::debug::{self, DebugFile};

/// Why a file cannot be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProgram {
    /// It is not an ELF file, or a damaged one.
    Format(String),
    /// It is for another processor.
    Architecture,
    /// It is ELF, but nothing that processes run: an object file, a core dump.
    Kind,
}

/// What a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A function.
    Code,
    /// A place in code, of which it is not known whether it is called.
    Label,
    /// A function that chooses, when a program starts, which function stands for the name (GNU indirect function).
    Chooser,
    /// Anything else.
    Data,
}

/// A name for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    /// As in the file; a process may have it somewhere else.
    pub address: u64,
    /// 0 if it is not known.
    pub size: u64,
    pub what: What,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    Unknown,
    /// These have it.
    Ambiguous(Vec<u64>),
    NotCode,
    Chooser,
}

/// A part of the file that is mapped.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: u64,
    /// Bytes that are in the file.
    size: u64,
    offset: u64,
    executable: bool,
}

impl Segment {
    fn has(&self, address: u64) -> bool {
        address.wrapping_sub(self.address) < self.size
    }
}

/// A file that processes run.
#[derive(Debug)]
pub struct Elf {
    data: Vec<u8>,
    /// Does it have 64-bit code?
    pub is_64: bool,
    /// Is it where its addresses say in every process?
    pub fixed: bool,
    /// Where a process begins.
    entry: u64,
    segments: Vec<Segment>,
    /// By address.
    symbols: Vec<Symbol>,
    /// Are there symbols of more than what it exports?
    pub has_all_symbols: bool,
    /// The file with its debug information.
    pub debug: Option<DebugFile>,
    pub build_id: Option<String>,
}

impl Elf {
    /// Reads one. `path` says where to look for its debug file, and `roots` where else.
    pub fn parse(data: Vec<u8>, path: &Path, roots: &[PathBuf]) -> Result<Self, NotProgram> {
        let file = object::File::parse(&*data).map_err(|error| NotProgram::Format(error.to_string()))?;
        if file.format() != BinaryFormat::Elf {
            return Err(NotProgram::Format("it is of another format".to_owned()));
        }
        let fixed = match file.kind() {
            ObjectKind::Executable => true,
            ObjectKind::Dynamic => false,
            _ => return Err(NotProgram::Kind),
        };
        if !matches!(
            file.architecture(),
            Architecture::X86_64 | Architecture::X86_64_X32 | Architecture::I386
        ) {
            return Err(NotProgram::Architecture);
        }
        let segments: Vec<_> = file.segments().map(|segment| loaded(&segment)).collect();
        let debug = debug::find(&file, path, roots);
        let mut symbols = symbols_of(&file, &segments);
        let mut has_all_symbols = file.symbols().next().is_some();
        if let Some(debug) = &debug
            && let Ok(file) = object::File::parse(&*debug.data)
        {
            has_all_symbols |= file.symbols().next().is_some();
            symbols.extend(symbols_of(&file, &segments));
        }
        symbols.sort_by(|one, other| (one.address, &one.name).cmp(&(other.address, &other.name)));
        symbols.dedup();
        Ok(Elf {
            is_64: file.is_64(),
            fixed,
            entry: file.entry(),
            segments,
            symbols,
            has_all_symbols,
            debug,
            build_id: debug::build_id(&file),
            data,
        })
    }

    /// The file's bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// A function, or with `any` anything, by its name; with a version (`name@VERSION`) or without.
    pub fn find(&self, name: &str, any: bool) -> Result<&Symbol, NotFound> {
        let named: Vec<_> = self.symbols.iter().filter(|symbol| symbol.is_called(name)).collect();
        let wanted = |symbol: &&&Symbol| any || symbol.what != What::Data;
        let addresses: BTreeSet<_> = named.iter().filter(wanted).map(|symbol| symbol.address).collect();
        // The one that knows its size, of several names for a place.
        let found = named.iter().filter(wanted).max_by_key(|symbol| symbol.size);
        match (found, named.is_empty()) {
            _ if addresses.len() > 1 => Err(NotFound::Ambiguous(addresses.into_iter().collect())),
            (Some(symbol), _) if symbol.what == What::Chooser && !any => Err(NotFound::Chooser),
            (Some(symbol), _) => Ok(symbol),
            (None, false) => Err(NotFound::NotCode),
            (None, true) => Err(NotFound::Unknown),
        }
    }

    /// The names of code that has some.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let code = self.symbols.iter().filter(|symbol| symbol.what != What::Data);
        code.map(|symbol| symbol.name.as_str())
    }

    /// The function that an address is in, if its size is known.
    pub fn containing(&self, address: u64) -> Option<&Symbol> {
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        // Functions may be nested in each other's sizes, but not far.
        self.symbols
            .get(..end)?
            .iter()
            .rev()
            .take(64)
            .filter(|symbol| symbol.what != What::Data)
            .find(|symbol| address - symbol.address < symbol.size)
    }

    /// Where in the file the byte of code at an address is.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.code().find(|segment| segment.has(address))?;
        Some(address - segment.address + segment.offset)
    }

    /// The address of the byte of code at a place in the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let segment = self
            .code()
            .find(|segment| offset.wrapping_sub(segment.offset) < segment.size)?;
        Some(offset - segment.offset + segment.address)
    }

    /// Where in the file code is.
    pub fn code_offsets(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        self.code().map(|segment| segment.offset..segment.offset + segment.size)
    }

    /// Does a function begin at an address, to which its callers come by a call? Then, and only then, the return address is on top of the stack there.
    pub fn is_called(&self, address: u64) -> bool {
        let first = self.symbols.partition_point(|symbol| symbol.address < address);
        let there = self.symbols.get(first..).unwrap_or(&[]);
        // The compiler moves what is seldom executed out of a function, and jumps there.
        let is_part = |symbol: &Symbol| symbol.name.contains(".cold");
        let mut there = there.iter().take_while(|symbol| symbol.address == address);
        address != self.entry && there.any(|symbol| symbol.what == What::Code && !is_part(symbol))
    }

    fn code(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.executable)
    }

    /// Where the instruction begins that the byte at an address of code belongs to, as far as that is known: it takes the beginning of
    /// the function, and code that this can decode.
    pub fn instruction_at(&self, address: u64) -> Option<u64> {
        let function = self.containing(address)?;
        let start = usize::try_from(self.offset_of(function.address)?).ok()?;
        let size = usize::try_from(function.size).ok()?;
        let text = self.data.get(start..)?;
        let text = text.get(..size).unwrap_or(text);
        if !self.is_64 {
            return None;
        }
        Instructions::new(text)
            .map_while(Result::ok)
            .map(|(at, insn)| (function.address + at as u64, insn.len() as u64))
            .find(|(start, len)| address < start + len)
            .map(|(start, _)| start)
    }
}

impl Symbol {
    fn is_called(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    }
}

fn loaded<'data>(segment: &object::Segment<'data, '_>) -> Segment {
    let (offset, size) = segment.file_range();
    Segment {
        address: segment.address(),
        size,
        offset,
        executable: match segment.flags() {
            object::SegmentFlags::Elf { p_flags, .. } => p_flags.0 & object::elf::PF_X.0 != 0,
            _ => false,
        },
    }
}

fn symbols_of(file: &object::File<'_>, segments: &[Segment]) -> Vec<Symbol> {
    let in_code = |address| {
        segments
            .iter()
            .any(|segment| segment.executable && segment.has(address))
    };
    let symbol = |symbol: object::Symbol<'_, '_>| {
        let name = symbol.name().ok().filter(|name| !name.is_empty())?;
        let object::SymbolFlags::Elf { st_info, .. } = symbol.flags() else {
            return None;
        };
        let what = match st_info.st_type() {
            object::elf::STT_GNU_IFUNC => What::Chooser,
            object::elf::STT_FUNC => What::Code,
            object::elf::STT_NOTYPE if in_code(symbol.address()) => What::Label,
            object::elf::STT_NOTYPE | object::elf::STT_OBJECT | object::elf::STT_COMMON => What::Data,
            _ => return None,
        };
        (!symbol.is_undefined()).then(|| Symbol {
            name: name.to_owned(),
            address: symbol.address(),
            size: symbol.size(),
            what,
        })
    };
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter_map(symbol)
        .collect()
}
