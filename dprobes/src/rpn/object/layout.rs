//! The records an object consists of, byte for byte. All have alignment 1 and no padding; multi-byte fields are little-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every object.
pub const MAGIC: [u8; 8] = *b"DPROBES\x1a";

/// The version of the format this module reads and describes.
pub const VERSION: u16 = 1;

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
    /// 21: Must be zero.
    pub reserved0: u8,
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
    /// 38: Must be zero.
    pub reserved1: U16,
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
    /// 72: Must be zero.
    pub reserved2: [u8; 24],
}

/// A probepoint: 80 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Point {
    /// 0: What `value` and `symbol` mean, one of [`kind`].
    pub kind: u8,
    /// 1: How many bytes of `opcode` are expected at the location: 0 to 15.
    pub opcode_len: u8,
    /// 2: Bit 0: publish the record although the probed instruction faults. The others must be zero.
    pub flags: U16,
    /// 4: Minor code.
    pub minor: U16,
    /// 6: Group, to select points when inserting.
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
    /// 79: Must be zero.
    pub reserved: u8,
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
    assert!(size_of::<Point>() == 80);
    assert!(size_of::<Line>() == 8);
    assert!(size_of::<Str>() == 8);
};
