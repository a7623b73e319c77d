//! The records an object consists of, byte for byte. All have alignment 1 and no padding; multi-byte fields are little-endian.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every object.
pub const MAGIC: [u8; 8] = *b"DPROBES\x1a";

/// The version of the format this module reads and describes.
pub const VERSION: u16 = 2;

/// A string: a range of the string section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Str {
    /// First byte, from the beginning of the string section.
    pub offset: U32,
    /// Length in bytes; there is no terminating zero.
    pub len: U32,
}

/// The header: 96 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// 0: [`MAGIC`].
    pub magic: [u8; 8],
    /// 8: [`VERSION`].
    pub version: U16,
    /// 10: Bytes of the header: 96.
    pub header_len: U16,
    /// 12: Bytes of the whole object.
    pub total_len: U32,
    /// 16: CRC-32 (ISO-HDLC, the one of zlib) of the whole object with these four bytes zero.
    pub checksum: U32,
    /// 20: 1 user, 2 kernel, 4 kernel module.
    pub modtype: u8,
    /// 21: Bit 0: a raised exception leaves a trace. The others must be zero.
    pub flags: u8,
    /// 22: Major code; zero is reserved.
    pub major: U16,
    /// 24: Identification of the program, free for its author.
    pub id: U32,
    /// 28: Bytes of log elements per hit, at most 1024.
    pub logmax: U16,
    /// 30: Bytes of stack-trace elements per hit, at most 1024.
    pub ex_logmax: U16,
    /// 32: Taken jumps per hit.
    pub jmpmax: U16,
    /// 34: Number of local variables, at most 256.
    pub locals: U16,
    /// 36: Number of global variables, at most 256.
    pub globals: U16,
    /// 38: Bytes of the byte heap per hit, at most 16384.
    pub heapmax: U16,
    /// 40: The module: `kernel`, the name of a kernel module, or a path.
    pub name: Str,
    /// 48: The source file, for messages; may be empty.
    pub source: Str,
    /// 56: Number of points, at least 1.
    pub points: U32,
    /// 60: Number of entries of the line table; may be 0.
    pub lines: U32,
    /// 64: Bytes of code.
    pub code_len: U32,
    /// 68: Bytes of strings.
    pub strings_len: U32,
    /// 72: Number of relocations; may be 0.
    pub relocations: U32,
    /// 76: Number of maps, at most 64.
    pub maps: U16,
    /// 78: Must be zero.
    pub reserved: [u8; 18],
}

/// A probepoint: 88 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Point {
    /// 0: What `value` and `symbol` mean, one of [`kind`].
    pub kind: u8,
    /// 1: How many bytes of `opcode` are expected at the location: 0 to 15.
    pub opcode_len: u8,
    /// 2: Bit 0: publish the record although the probed instruction faults. Bit 1: its group is suspended at first. Bit 2: fire
    /// where a call of the function at the location has returned to; the location is no line of source then. The others must be zero.
    pub flags: U16,
    /// 4: Minor code.
    pub minor: U16,
    /// 6: Group, to select points when inserting, and to suspend and resume.
    pub group: U16,
    /// 8: Type, to select points when inserting.
    pub type_: U16,
    /// 10: Exceptions that handlers get; see [`exception`](crate::rpn::exception).
    pub ex_mask: U16,
    /// 12: Line of the definition in the source file, or 0.
    pub line: U32,
    /// 16: Address, offset, addend or line, as `kind` says.
    pub value: U64,
    /// 24: Symbol or source file, as `kind` says; otherwise empty.
    pub symbol: Str,
    /// 32: The location as its author wrote it; may be empty.
    pub display: Str,
    /// 40: Hits to let pass before the first one that is processed.
    pub pass_count: U64,
    /// 48: Hits to process before the probe disables itself; 0 for no limit.
    pub max_hits: U64,
    /// 56: First byte of its handler in the code.
    pub code_start: U32,
    /// 60: Byte after its handler.
    pub code_end: U32,
    /// 64: The bytes expected at the location; those beyond `opcode_len` must be zero.
    pub opcode: [u8; 15],
    /// 79: What is watched for, a [`WatchKind`](super::WatchKind), or 0 for a breakpoint in text.
    pub watch: u8,
    /// 80: Bytes of the byte heap of its hits, at most the header's `heapmax`.
    pub heap: U16,
    /// 82: How many bytes are watched, or 0 for a breakpoint in text.
    pub watch_len: u8,
    /// 83: Must be zero.
    pub reserved: [u8; 5],
}

/// Values of [`Point::kind`].
pub mod kind {
    /// `value` is an address.
    pub const ABSOLUTE: u8 = 0;
    /// `value` is an offset in the module.
    pub const MODULE_OFFSET: u8 = 1;
    /// `value` is a signed number to add to the address of `symbol`.
    pub const SYMBOL: u8 = 2;
    /// `value` is a line of the source file `symbol`.
    pub const SOURCE: u8 = 3;
}

/// Bit 0 of [`Point::flags`].
pub const LOG_ON_FAULT: u16 = 1;

/// Bit 1 of [`Point::flags`].
pub const SUSPENDED: u16 = 2;

/// Bit 2 of [`Point::flags`].
pub const RETURNS: u16 = 4;

/// Bit 0 of [`Header::flags`].
pub const AUTO_STACK_TRACE: u8 = 1;

/// A map: 40 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Map {
    /// 0: What it keeps, one of [`map_kind`].
    pub kind: u8,
    /// 1: Words that are its key: 0 to 4.
    pub keys: u8,
    /// 2: Must be zero.
    pub reserved: U16,
    /// 4: Different keys it has room for, on each CPU: 1 to 65,536.
    pub entries: U32,
    /// 8: The least value of a linear histogram; zero for other kinds, like the next two.
    pub min: I64,
    /// 16: The value behind the greatest of a linear histogram.
    pub max: I64,
    /// 24: Values in a bucket of a linear histogram; the range is a multiple of it.
    pub step: U64,
    /// 32: Its name: not empty, and no other map's.
    pub name: Str,
}

/// Values of [`Map::kind`].
pub mod map_kind {
    /// Number of values.
    pub const COUNT: u8 = 0;
    /// Sum of values.
    pub const SUM: u8 = 1;
    /// Least value.
    pub const MIN: u8 = 2;
    /// Greatest value.
    pub const MAX: u8 = 3;
    /// Sum and number of values.
    pub const AVG: u8 = 4;
    /// Histogram by powers of two.
    pub const LOG2: u8 = 5;
    /// Histogram by equal steps.
    pub const LINEAR: u8 = 6;
}

/// A word of the code that depends on a symbol: 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Relocation {
    /// 0: Offset in the code of the word, the operand of a `push`.
    pub offset: U32,
    /// 4: The symbol; empty once the word has its value.
    pub symbol: Str,
    /// 12: What to add to its address; zero once the word has its value.
    pub addend: I64,
}

/// An entry of the line table: 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Line {
    /// 0: Offset of an instruction in the code.
    pub offset: U32,
    /// 4: Its line in the source file, counted from 1.
    pub line: U32,
}

const _: () = {
    assert!(size_of::<Header>() == 96);
    assert!(size_of::<Point>() == 88);
    assert!(size_of::<Map>() == 40);
    assert!(size_of::<Relocation>() == 20);
    assert!(size_of::<Line>() == 8);
    assert!(size_of::<Str>() == 8);
};
