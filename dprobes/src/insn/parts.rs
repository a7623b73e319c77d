//! The parts of an instruction, and why bytes may not be one.

use super::MAX_LEN;
use core::fmt;

/// How the opcode is prefixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Legacy prefixes and REX.
    Legacy,
    /// REX2 (APX).
    Rex2,
    /// Two- and three-byte VEX.
    Vex,
    /// EVEX.
    Evex,
    /// AMD's XOP.
    Xop,
}

/// The opcode map an opcode belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Map {
    /// One-byte opcodes.
    Primary,
    /// 0F, and map 1 of VEX and EVEX. 3DNow! is opcode 0F in it.
    Secondary,
    /// 0F 38, and map 2 of VEX and EVEX.
    Escape38,
    /// 0F 3A, and map 3 of VEX and EVEX.
    Escape3A,
    /// EVEX map 4: general-purpose instructions (APX).
    Map4,
    /// VEX and EVEX map 5.
    Map5,
    /// EVEX map 6.
    Map6,
    /// VEX and EVEX map 7.
    Map7,
    /// XOP map 8.
    Xop8,
    /// XOP map 9.
    Xop9,
    /// XOP map 10.
    XopA,
}

/// A segment whose base is added in 64-bit mode; the other override prefixes have no effect there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// Where a field lies in an instruction, in bytes. A size of 0 means there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Field {
    /// Offset of the first byte.
    pub start: u8,
    /// Number of bytes, 0 to 8.
    pub size: u8,
}

/// A ModRM byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModRm(u8);

impl ModRm {
    pub(super) fn new(byte: u8) -> ModRm {
        ModRm(byte)
    }
    /// The byte.
    pub fn byte(self) -> u8 {
        self.0
    }
    /// The mod field, 0 to 3.
    pub fn mode(self) -> u8 {
        self.0 >> 6
    }
    /// The reg field without its extension, 0 to 7.
    pub fn reg(self) -> u8 {
        self.0 >> 3 & 7
    }
    /// The r/m field without its extension, 0 to 7.
    pub fn rm(self) -> u8 {
        self.0 & 7
    }
    /// Whether r/m names a register.
    pub fn is_register(self) -> bool {
        self.0 >= 0xc0
    }
}

/// The prefix that selects among instructions of one opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mandatory {
    None,
    P66,
    F3,
    F2,
}

/// Why bytes are not an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the instruction does.
    Truncated {
        /// How many bytes there were.
        available: usize,
    },
    /// The instruction would be longer than [`MAX_LEN`]; a processor raises #GP.
    TooLong,
    /// No instruction of 64-bit mode; a processor raises #UD.
    Invalid {
        /// The map of the opcode.
        map: Map,
        /// The opcode byte.
        opcode: u8,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated { available } => {
                write!(f, "the text ends inside the instruction, after {available} bytes")
            }
            DecodeError::TooLong => write!(f, "the instruction is longer than {MAX_LEN} bytes"),
            DecodeError::Invalid { map, opcode } => {
                write!(
                    f,
                    "opcode {opcode:#04x} of map {map:?} is not an instruction in 64-bit mode"
                )
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// Prefixes that have an effect, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Prefixes(u8);

impl Prefixes {
    pub(super) const OPERAND_SIZE: u8 = 1;
    pub(super) const ADDRESS_SIZE: u8 = 2;
    pub(super) const LOCK: u8 = 4;
    pub(super) const F3: u8 = 8;
    pub(super) const F2: u8 = 16;
    pub(super) const FS: u8 = 32;
    pub(super) const GS: u8 = 64;

    pub(super) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
    /// Of two exclusive prefixes the last counts.
    pub(super) fn replace(&mut self, group: u8, bit: u8) {
        self.0 = self.0 & !group | bit;
    }
}
