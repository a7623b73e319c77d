//! What can be wrong with an object.

use core::fmt;

macro_rules! fields {
    ($($field:ident $name:literal;)*) => {
        /// A field of an object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Field {
            $(#[doc = $name] $field,)*
        }

        impl fmt::Display for Field {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$field => $name,)*
                })
            }
        }
    };
}

fields! {
    Version "format version";
    HeaderLength "header length";
    TotalLength "total length";
    Reserved "reserved bytes";
    ModuleType "module type";
    Major "major code";
    LogMax "logmax";
    ExLogMax "ex_logmax";
    Locals "number of local variables";
    Globals "number of global variables";
    Name "module name";
    Source "source file name";
    Points "number of points";
    Lines "number of lines";
    Code "length of the code";
    Strings "length of the strings";
    LocalName "name of a local variable";
    GlobalName "name of a global variable";
    LocationKind "kind of location";
    Symbol "symbol";
    Display "location in words";
    OpcodeLength "number of expected opcode bytes";
    Opcode "expected opcode bytes";
    WatchKind "kind of a watchpoint";
    WatchLength "length of a watchpoint";
    HeaderFlags "flags of the header";
    HeapMax "heapmax";
    Maps "number of maps";
    MapKind "kind of a map";
    MapKeys "number of keys of a map";
    MapEntries "number of entries of a map";
    MapName "name of a map";
    MapRange "least value of a map";
    MapStep "step of a map";
    MapBuckets "number of steps of a map";
    MapBytes "bytes of all maps so far";
    Relocations "number of relocations";
    RelocationOffset "code offset of a relocation";
    RelocationAddend "addend of a relocation";
    Heap "heap of a point";
    Flags "flags of a point";
    ExMask "ex_mask";
    CodeStart "start of a handler";
    CodeEnd "end of a handler";
    Handler "length of a handler";
    LineOffset "code offset of a line";
    LineNumber "line number";
}

/// Why bytes are not an object. Every variant has the offset of the first byte of what is wrong, or
/// [`offset`](ObjectError::offset) knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectError {
    /// Shorter than a header.
    TooShort {
        /// Bytes there are.
        len: usize,
        /// Bytes a header has.
        needed: usize,
    },
    /// It does not begin like an object.
    Magic {
        /// What it begins with.
        found: [u8; 8],
    },
    /// The sections do not fill the object exactly.
    Length {
        /// Bytes there are.
        len: usize,
        /// Bytes that the counts in the header call for.
        needed: u64,
    },
    /// The bytes were damaged after they were written.
    Checksum {
        /// The checksum in the header.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A field has a value that means nothing.
    Value {
        /// Where.
        offset: usize,
        /// Which.
        field: Field,
        /// The value.
        found: u64,
    },
    /// A field exceeds its limit.
    Limit {
        /// Where.
        offset: usize,
        /// Which.
        field: Field,
        /// The value.
        found: u64,
        /// The highest value it may have.
        limit: u64,
    },
    /// A string is not inside the string section, or cuts a character in two.
    StringRange {
        /// Where the reference is.
        offset: usize,
        /// Which.
        field: Field,
        /// Start of the string in the section.
        start: u32,
        /// Length of the string.
        len: u32,
    },
    /// The strings are not printable UTF-8.
    Text {
        /// Where.
        offset: usize,
    },
}

impl ObjectError {
    /// The offset in the object of the first byte of what is wrong.
    pub fn offset(&self) -> usize {
        match *self {
            Self::TooShort { len, .. } => len,
            Self::Magic { .. } => 0,
            Self::Length { .. } => 12,
            Self::Checksum { .. } => 16,
            Self::Value { offset, .. }
            | Self::Limit { offset, .. }
            | Self::StringRange { offset, .. }
            | Self::Text { offset } => offset,
        }
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { len, needed } => {
                write!(f, "{len} bytes are not a program object: its header alone has {needed}")
            }
            Self::Magic { .. } => f.write_str("not a program object: it does not begin like one"),
            Self::Length { len, needed } => {
                write!(
                    f,
                    "the object has {len} bytes, but its header describes {needed}: truncated or damaged"
                )
            }
            Self::Checksum { found, computed } => {
                write!(
                    f,
                    "the object is damaged: its checksum is {found:#010x}, that of its bytes {computed:#010x}"
                )
            }
            Self::Value { offset, field, found } => {
                write!(f, "{field} at byte {offset}: {found:#x} is not valid")
            }
            Self::Limit {
                offset,
                field,
                found,
                limit,
            } => {
                write!(f, "{field} at byte {offset}: {found} is more than the limit, {limit}")
            }
            Self::StringRange {
                offset,
                field,
                start,
                len,
            } => {
                write!(
                    f,
                    "{field} at byte {offset}: {len} bytes from {start} are not a string of this object"
                )
            }
            Self::Text { offset } => write!(f, "byte {offset} is not printable text in UTF-8"),
        }
    }
}

impl core::error::Error for ObjectError {}
