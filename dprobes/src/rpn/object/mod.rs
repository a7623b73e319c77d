//! The object form of a program: what the assembler writes and the engine reads.
//!
//! One object is one program, for one module. It has these sections, in this order, without gaps:
//!
//! | section | bytes |
//! |---|---|
//! | header, [`layout::Header`] | 96 |
//! | points, [`layout::Point`] | 88 for each point |
//! | names of the local variables, [`layout::Str`] | 8 for each local variable |
//! | names of the global variables, [`layout::Str`] | 8 for each global variable |
//! | maps, [`layout::Map`] | 40 for each map |
//! | relocations, [`layout::Relocation`], by ascending offset | 20 for each relocation |
//! | line table, [`layout::Line`], by ascending offset | 8 for each entry |
//! | code | `code_len` |
//! | strings: UTF-8 without control characters | `strings_len` |
//!
//! There are no section offsets, so sections cannot overlap; the counts in the header must describe the object to the byte.
//! Multi-byte fields are little-endian. A local variable without a name has an
//! empty one; a global variable always has one, since the system shares it by name. The limits are in
//! [`limits`](super::limits).
//!
//! The object comes from user space, and [`Object::parse`] trusts nothing in it: when it succeeds, every count, range,
//! string and enumerator is good. What the code does is the verifier's business.

mod check;
mod error;
pub mod layout;
mod map;
mod resolve;
mod watch;

pub use error::{Field, ObjectError};
pub use map::{Map, MapKind};
pub use resolve::{ResolveError, resolve, seal};
pub use watch::{LocationError, Watch, WatchKind, Watchpoint};

use zerocopy::FromBytes;

use layout::kind;

/// What kind of module a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ModType {
    /// An executable or shared library in user space.
    User = 1,
    /// The kernel image.
    Kernel = 2,
    /// A kernel module.
    Kmod = 4,
}

impl ModType {
    /// From its number in the header.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::User),
            2 => Some(Self::Kernel),
            4 => Some(Self::Kmod),
            _ => None,
        }
    }
}

/// Where a point is, in terms the engine understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an address.
    Absolute(u64),
    /// At an offset in the module.
    ModuleOffset(u64),
}

/// Where a point is, as the object says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location<'a> {
    /// As the engine needs it.
    Place(Place),
    /// At a distance from a symbol; to be [resolved](resolve) before insertion.
    Symbol {
        /// The symbol.
        name: &'a str,
        /// What to add to its address.
        addend: i64,
    },
    /// At a source line; to be [resolved](resolve) before insertion.
    Source {
        /// The source file.
        file: &'a str,
        /// The line, counted from 1.
        line: u32,
    },
}

/// A parsed object: a view of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    header: &'a layout::Header,
    points: &'a [layout::Point],
    locals: &'a [layout::Str],
    globals: &'a [layout::Str],
    maps: &'a [layout::Map],
    relocations: &'a [layout::Relocation],
    lines: &'a [layout::Line],
    code: &'a [u8],
    strings: &'a str,
}

impl<'a> Object<'a> {
    /// Checks untrusted bytes.
    ///
    /// # Errors
    /// The first thing found wrong, with its place. An object that was accepted is right in every count, range, string
    /// and enumerator; nothing that exceeds a limit is adjusted.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let object = Self::split(bytes)?;
        let computed = resolve::checksum(bytes);
        let found = object.header.checksum.get();
        if found != computed {
            return Err(ObjectError::Checksum { found, computed });
        }
        check::object(&object, bytes.len())?;
        Ok(object)
    }

    /// Cuts the bytes into sections. The header's counts and lengths are within their limits afterwards.
    fn split(bytes: &'a [u8]) -> Result<Self, ObjectError> {
        let too_short = ObjectError::TooShort {
            len: bytes.len(),
            needed: size_of::<layout::Header>(),
        };
        let (header, rest) = layout::Header::ref_from_prefix(bytes).map_err(|_| too_short)?;
        let needed = check::header(header, bytes.len())?;
        let length = ObjectError::Length {
            len: bytes.len(),
            needed,
        };
        let count = |n: u32| usize::try_from(n).map_err(|_| length);
        let (points, rest) = take(rest, count(header.points.get())?).ok_or(length)?;
        let (locals, rest) = take(rest, usize::from(header.locals.get())).ok_or(length)?;
        let (globals, rest) = take(rest, usize::from(header.globals.get())).ok_or(length)?;
        let (maps, rest) = take(rest, usize::from(header.maps.get())).ok_or(length)?;
        let (relocations, rest) = take(rest, count(header.relocations.get())?).ok_or(length)?;
        let (lines, rest) = take(rest, count(header.lines.get())?).ok_or(length)?;
        let (code, strings) = rest.split_at_checked(count(header.code_len.get())?).ok_or(length)?;
        let strings = core::str::from_utf8(strings).map_err(|error| ObjectError::Text {
            offset: bytes.len() - strings.len() + error.valid_up_to(),
        })?;
        Ok(Self {
            header,
            points,
            locals,
            globals,
            maps,
            relocations,
            lines,
            code,
            strings,
        })
    }

    /// Kind of the module.
    pub fn modtype(&self) -> ModType {
        // Parsing proved that it is one.
        ModType::from_byte(self.header.modtype).unwrap_or(ModType::Kernel)
    }

    /// The module: `kernel`, the name of a kernel module, or a path.
    pub fn name(&self) -> &'a str {
        self.string(self.header.name)
    }

    /// The source file, for messages; may be empty.
    pub fn source(&self) -> &'a str {
        self.string(self.header.source)
    }

    /// Major code.
    pub fn major(&self) -> u16 {
        self.header.major.get()
    }

    /// The author's identification of the program.
    pub fn id(&self) -> u32 {
        self.header.id.get()
    }

    /// Bytes of log elements per hit.
    pub fn logmax(&self) -> u16 {
        self.header.logmax.get()
    }

    /// Bytes of stack-trace elements per hit.
    pub fn ex_logmax(&self) -> u16 {
        self.header.ex_logmax.get()
    }

    /// Taken jumps per hit.
    pub fn jmpmax(&self) -> u16 {
        self.header.jmpmax.get()
    }

    /// Names of the local variables, as many as there are variables; empty where one has none.
    pub fn locals(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let object = *self;
        self.locals.iter().map(move |name| object.string(*name))
    }

    /// Bytes of the byte heap per hit.
    pub fn heapmax(&self) -> u16 {
        self.header.heapmax.get()
    }

    /// Whether a raised exception leaves a trace.
    pub fn auto_stack_trace(&self) -> bool {
        self.header.flags & layout::AUTO_STACK_TRACE != 0
    }

    /// The maps.
    pub fn maps(&self) -> impl ExactSizeIterator<Item = Map<'a>> + use<'a> {
        let object = *self;
        self.maps.iter().map(move |raw| raw.map(&object))
    }

    /// Does the program go in and out with its module, a kernel module? Not if a breakpoint of it asks for an address: that is one of a single
    /// load. What is watched may be a port, or something of the kernel's.
    pub fn follows_module(&self) -> bool {
        let absolute = |point: Point<'_>| matches!(point.location(), Location::Place(Place::Absolute(_)));
        self.modtype() == ModType::Kmod && self.points().all(|point| !absolute(point) || point.watch().is_some())
    }

    /// The symbol that a point is counted from, if that is not resolved.
    pub(crate) fn symbol_of(&self, index: u32) -> Option<&'a str> {
        match self.point(index)?.location() {
            Location::Symbol { name, .. } => Some(name),
            Location::Place(_) | Location::Source { .. } => None,
        }
    }

    /// The words of the code that depend on symbols and have no value yet.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation<'a>> + use<'a> {
        let object = *self;
        let open = self.relocations.iter().filter(|raw| raw.symbol.len.get() != 0);
        open.map(move |raw| Relocation {
            offset: raw.offset.get(),
            symbol: object.string(raw.symbol),
            addend: raw.addend.get(),
        })
    }

    /// Names of the global variables, as many as there are variables; none is empty.
    pub fn globals(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let object = *self;
        self.globals.iter().map(move |name| object.string(*name))
    }

    /// The points: at least one.
    pub fn points(&self) -> impl ExactSizeIterator<Item = Point<'a>> + use<'a> {
        let object = *self;
        self.points.iter().map(move |raw| Point { object, raw })
    }

    /// A point by its index.
    pub fn point(&self, index: u32) -> Option<Point<'a>> {
        let raw = self.points.get(usize::try_from(index).ok()?)?;
        Some(Point { object: *self, raw })
    }

    /// The handlers of all points.
    pub fn code(&self) -> &'a [u8] {
        self.code
    }

    /// The line table: code offsets, ascending, and their source lines.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + use<'a> {
        self.lines.iter().map(|line| (line.offset.get(), line.line.get()))
    }

    /// The source line of the instruction at a code offset, if the object has lines.
    pub fn line_at(&self, offset: u32) -> Option<u32> {
        let after = self.lines.partition_point(|line| line.offset.get() <= offset);
        Some(self.lines.get(after.checked_sub(1)?)?.line.get())
    }

    fn string(&self, string: layout::Str) -> &'a str {
        // Parsing proved that it is one.
        find_string(self.strings, string).unwrap_or("")
    }
}

/// A word of the code that is the address of a symbol and an addend; to be [resolved](resolve) before insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation<'a> {
    /// Offset of the word in the code: that of the `push` instruction and one.
    pub offset: u32,
    /// The symbol.
    pub symbol: &'a str,
    /// What to add to its address.
    pub addend: i64,
}

/// The first `count` records of some bytes, and the bytes after them.
fn take<T>(bytes: &[u8], count: usize) -> Option<(&[T], &[u8])>
where
    T: FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned,
{
    <[T]>::ref_from_prefix_with_elems(bytes, count).ok()
}

fn find_string(strings: &str, string: layout::Str) -> Option<&str> {
    let start = usize::try_from(string.offset.get()).ok()?;
    let len = usize::try_from(string.len.get()).ok()?;
    strings.get(start..start.checked_add(len)?)
}

impl layout::Point {
    /// Where it is, once parsing has proved the fields.
    fn location<'a>(&self, strings: &'a str) -> Location<'a> {
        let value = self.value.get();
        let symbol = find_string(strings, self.symbol).unwrap_or("");
        match self.kind {
            kind::ABSOLUTE => Location::Place(Place::Absolute(value)),
            kind::MODULE_OFFSET => Location::Place(Place::ModuleOffset(value)),
            kind::SYMBOL => Location::Symbol {
                name: symbol,
                addend: value.cast_signed(),
            },
            _ => Location::Source {
                file: symbol,
                line: u32::try_from(value).unwrap_or(u32::MAX),
            },
        }
    }
}

/// A point of a parsed object.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    object: Object<'a>,
    raw: &'a layout::Point,
}

impl<'a> Point<'a> {
    /// Where it is.
    pub fn location(&self) -> Location<'a> {
        self.raw.location(self.object.strings)
    }

    /// The location as its author wrote it, for people; may be empty.
    pub fn display(&self) -> &'a str {
        self.object.string(self.raw.display)
    }

    /// Does it fire where a call of the function at its location has returned to?
    pub fn returns(&self) -> bool {
        self.raw.flags.get() & layout::RETURNS != 0
    }

    /// What it watches for at its location; `None` for a breakpoint in text.
    pub fn watch(&self) -> Option<Watch> {
        Watch::new(WatchKind::from_byte(self.raw.watch)?, self.raw.watch_len)
    }

    /// The bytes expected at the location; empty when nothing particular is.
    pub fn opcode(&self) -> &'a [u8] {
        self.raw.opcode.get(..usize::from(self.raw.opcode_len)).unwrap_or(&[])
    }

    /// Minor code.
    pub fn minor(&self) -> u16 {
        self.raw.minor.get()
    }

    /// Group.
    pub fn group(&self) -> u16 {
        self.raw.group.get()
    }

    /// Type.
    pub fn type_(&self) -> u16 {
        self.raw.type_.get()
    }

    /// Exceptions that handlers get.
    pub fn ex_mask(&self) -> u16 {
        self.raw.ex_mask.get()
    }

    /// Hits to let pass before the first one that is processed.
    pub fn pass_count(&self) -> u64 {
        self.raw.pass_count.get()
    }

    /// Hits to process before the probe disables itself; 0 for no limit.
    pub fn max_hits(&self) -> u64 {
        self.raw.max_hits.get()
    }

    /// Whether the record is published although the probed instruction faults.
    pub fn log_on_fault(&self) -> bool {
        self.raw.flags.get() & layout::LOG_ON_FAULT != 0
    }

    /// Whether its group is suspended at first.
    pub fn suspended(&self) -> bool {
        self.raw.flags.get() & layout::SUSPENDED != 0
    }

    /// Bytes of the byte heap of its hits.
    pub fn heap(&self) -> u16 {
        self.raw.heap.get()
    }

    /// Its handler: a range of the code.
    pub fn code(&self) -> core::ops::Range<u32> {
        self.raw.code_start.get()..self.raw.code_end.get()
    }

    /// Line of its definition in the source file, or 0.
    pub fn line(&self) -> u32 {
        self.raw.line.get()
    }
}
