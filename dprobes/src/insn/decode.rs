//! Find the fields of one instruction.

use super::forms::{self, Form};
use super::parts::{DecodeError, Encoding, Field, Mandatory, Map, ModRm, Prefixes, Segment};
use super::table::{self, Imm, Shape};
use core::fmt;

/// The longest instruction a processor accepts, in bytes (SDM volume 2, section 2.3.11).
pub const MAX_LEN: usize = 15;

/// One decoded instruction of 64-bit mode: its bytes and where its fields are.
///
/// Only [`Insn::decode`] makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    bytes: [u8; MAX_LEN],
    length: u8,
    encoding: Encoding,
    map: Map,
    opcode: u8,
    prefixes: Prefixes,
    /// W, R, X, B as in REX (bits 3 to 0); bits 6 to 4 are R4, X4, B4 of REX2.
    rex: u8,
    /// Offset of the ModRM byte; 0, which is never one, means none.
    modrm: u8,
    displacement: Field,
    immediate: Field,
}

impl Insn {
    /// Decode the instruction at the start of `bytes`. Bytes after it are ignored; [`MAX_LEN`] are always enough.
    ///
    /// What is accepted and how long it is follows Intel's manual where vendors differ: a 66 prefix does not shorten
    /// the displacement of a near branch (it does on AMD; [`Insn::resume`] refuses these), `ud0` has a ModRM byte.
    /// Behind VEX, EVEX and XOP prefixes undefined opcodes are accepted too, because their length is certain; a
    /// processor raises #UD for them wherever they run.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Insn, DecodeError> {
        let mut insn = Insn {
            bytes: [0; MAX_LEN],
            length: 0,
            encoding: Encoding::Legacy,
            map: Map::Primary,
            opcode: 0,
            prefixes: Prefixes::default(),
            rex: 0,
            modrm: 0,
            displacement: Field::default(),
            immediate: Field::default(),
        };
        let mut reader = Reader { bytes, at: 0 };
        insn.read(&mut reader)?;
        insn.length = reader.at;
        for (to, from) in insn.bytes.iter_mut().zip(bytes).take(usize::from(reader.at)) {
            *to = *from;
        }
        Ok(insn)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let first = self.read_prefixes(reader)?;
        let shape = self.read_opcode(reader, first)?;
        if !shape.is_valid() || !shape.takes(self.mandatory()) {
            return Err(self.invalid());
        }
        let mut modrm = None;
        if shape.has_modrm() {
            let start = reader.at;
            let byte = ModRm::new(reader.next()?);
            self.modrm = start;
            modrm = Some(byte);
            // `mov` to and from control and debug registers takes every ModRM as a register form.
            if !shape.takes_operand(byte) {
                return Err(self.invalid());
            }
            if !byte.is_register() && !self.ignores_mod() {
                self.read_memory_operand(reader, byte)?;
            }
        }
        let size = self.immediate_size(shape.imm(), modrm);
        self.immediate = reader.field(size)?;
        self.check_form(reader, shape, modrm)
    }

    /// Legacy and REX prefixes; returns the byte after them.
    fn read_prefixes(&mut self, reader: &mut Reader<'_>) -> Result<u8, DecodeError> {
        loop {
            let byte = reader.next()?;
            match byte {
                0x66 => self.prefixes.replace(0, Prefixes::OPERAND_SIZE),
                0x67 => self.prefixes.replace(0, Prefixes::ADDRESS_SIZE),
                0xf0 => self.prefixes.replace(0, Prefixes::LOCK),
                0xf2 => self.prefixes.replace(Prefixes::F3, Prefixes::F2),
                0xf3 => self.prefixes.replace(Prefixes::F2, Prefixes::F3),
                0x64 => self.prefixes.replace(Prefixes::GS, Prefixes::FS),
                0x65 => self.prefixes.replace(Prefixes::FS, Prefixes::GS),
                0x26 | 0x2e | 0x36 | 0x3e => {}
                0x40..=0x4f => {
                    // Takes effect only directly before the opcode: any prefix after it clears it again.
                    self.rex = byte;
                    continue;
                }
                _ => return Ok(byte),
            }
            self.rex = 0;
        }
    }

    /// The opcode with its escape bytes or VEX, EVEX, XOP or REX2 prefix.
    fn read_opcode(&mut self, reader: &mut Reader<'_>, first: u8) -> Result<Shape, DecodeError> {
        self.opcode = first;
        match first {
            0x0f => {
                self.map = Map::Secondary;
                self.opcode = reader.next()?;
                match self.opcode {
                    0x38 => self.map = Map::Escape38,
                    0x3a => self.map = Map::Escape3A,
                    _ => return self.legacy_shape(),
                }
                self.opcode = reader.next()?;
                self.legacy_shape()
            }
            0xc4 | 0xc5 | 0x62 => self.read_vector(reader, first),
            // XOP where map 8 and up is named, else `pop`, whose ModRM is still to be read.
            0x8f if reader.peek()? & 0x1f >= 8 => self.read_vector(reader, first),
            0xd5 => self.read_rex2(reader),
            _ => self.legacy_shape(),
        }
    }

    fn legacy_shape(&mut self) -> Result<Shape, DecodeError> {
        self.rex &= 0xf;
        Ok(table::legacy(self.map, self.opcode))
    }

    /// REX2 (APX specification, section 3.1.1.1): the payload is M0 R4 X4 B4 W R3 X3 B3, then comes an opcode of map
    /// 0 or 1.
    fn read_rex2(&mut self, reader: &mut Reader<'_>) -> Result<Shape, DecodeError> {
        self.encoding = Encoding::Rex2;
        if self.rex != 0 {
            return Err(self.invalid());
        }
        let payload = reader.next()?;
        self.rex = payload & 0x7f;
        self.opcode = reader.next()?;
        if payload & 0x80 != 0 {
            self.map = Map::Secondary;
            return match self.opcode {
                // Escapes, and the rows that REX2 reserves.
                0x0f | 0x30..=0x3f | 0x80..=0x8f => Err(self.invalid()),
                _ => Ok(table::legacy(self.map, self.opcode)),
            };
        }
        match self.opcode {
            // jmpabs
            0xa1 if self.rex & 8 == 0 => Ok(table::legacy(self.map, self.opcode)),
            0x40..=0x4f | 0x70..=0x7f | 0xa0..=0xaf | 0xe0..=0xef => Err(self.invalid()),
            _ => Ok(table::legacy(self.map, self.opcode)),
        }
    }

    /// The rest of a VEX, EVEX or XOP prefix, and the opcode.
    fn read_vector(&mut self, reader: &mut Reader<'_>, first: u8) -> Result<Shape, DecodeError> {
        // SDM volume 2, section 2.3.2 and following: #UD after 66, F2, F3, LOCK or REX.
        let forbidden = Prefixes::OPERAND_SIZE | Prefixes::F2 | Prefixes::F3 | Prefixes::LOCK;
        if self.rex != 0 || self.prefixes.has(forbidden) {
            return Err(self.invalid());
        }
        let p0 = reader.next()?;
        let (number, pp_byte, w) = match first {
            0xc5 => {
                self.encoding = Encoding::Vex;
                self.rex = !p0 >> 5 & 4; // R
                (1, p0, 0)
            }
            0x62 => {
                self.encoding = Encoding::Evex;
                let p1 = reader.next()?;
                reader.next()?;
                self.rex = !p0 >> 5 & 7;
                (p0 & 7, p1, p1 >> 4 & 8)
            }
            _ => {
                self.encoding = if first == 0xc4 { Encoding::Vex } else { Encoding::Xop };
                let p1 = reader.next()?;
                self.rex = !p0 >> 5 & 7;
                (p0 & 0x1f, p1, p1 >> 4 & 8)
            }
        };
        self.rex |= w;
        match pp_byte & 3 {
            1 => self.prefixes.replace(0, Prefixes::OPERAND_SIZE),
            2 => self.prefixes.replace(0, Prefixes::F3),
            3 => self.prefixes.replace(0, Prefixes::F2),
            _ => {}
        }
        self.opcode = reader.next()?;
        self.map = match (number, self.encoding) {
            (8, Encoding::Xop) => Map::Xop8,
            (9, Encoding::Xop) => Map::Xop9,
            (10, Encoding::Xop) => Map::XopA,
            (1, _) => Map::Secondary,
            (2, _) => Map::Escape38,
            (3, _) => Map::Escape3A,
            (4, _) => Map::Map4,
            (5, _) => Map::Map5,
            (6, _) => Map::Map6,
            (7, _) => Map::Map7,
            _ => return Err(self.invalid()),
        };
        Ok(table::vector(self.encoding, self.map, self.opcode))
    }

    fn read_memory_operand(&mut self, reader: &mut Reader<'_>, modrm: ModRm) -> Result<(), DecodeError> {
        let mut base = modrm.rm();
        if base == 4 {
            base = reader.next()? & 7;
        }
        let size = match modrm.mode() {
            1 => 1,
            2 => 4,
            // Without SIB: RIP-relative. With SIB: no base register.
            _ if base == 5 => 4,
            _ => 0,
        };
        self.displacement = reader.field(size)?;
        Ok(())
    }

    fn immediate_size(&self, imm: Imm, modrm: Option<ModRm>) -> u8 {
        let wide = self.rex & 8 != 0;
        let narrow = self.prefixes.has(Prefixes::OPERAND_SIZE) && !wide;
        let z = if narrow { 2 } else { 4 };
        let is_test = modrm.is_some_and(|modrm| modrm.reg() <= 1);
        match imm {
            Imm::None => 0,
            Imm::Byte => 1,
            Imm::Word => 2,
            Imm::Z => z,
            Imm::V if wide => 8,
            Imm::V => z,
            // `jmpabs` has a 64-bit target whatever the address size.
            Imm::Address if self.encoding == Encoding::Rex2 => 8,
            Imm::Address if self.prefixes.has(Prefixes::ADDRESS_SIZE) => 4,
            Imm::Address => 8,
            Imm::Enter => 3,
            Imm::TestByte if is_test => 1,
            Imm::TestZ if is_test => z,
            Imm::TestByte | Imm::TestZ => 0,
            Imm::Rel32 => 4,
            Imm::Sse4a if self.mandatory() == Mandatory::None => 0,
            Imm::Sse4a => 2,
        }
    }

    /// The checks that need the whole instruction.
    fn check_form(&self, reader: &Reader<'_>, shape: Shape, modrm: Option<ModRm>) -> Result<(), DecodeError> {
        if shape.is_ruled()
            && let Some(modrm) = modrm
        {
            let form = Form {
                prefix: self.mandatory(),
                modrm,
                rex_r: self.rex & 4 != 0,
                has_66: self.prefixes.has(Prefixes::OPERAND_SIZE),
                has_67: self.prefixes.has(Prefixes::ADDRESS_SIZE),
                last_byte: reader.last(),
            };
            if !forms::exists(self.map, self.opcode, &form) {
                return Err(self.invalid());
            }
        }
        if self.prefixes.has(Prefixes::LOCK)
            && !modrm.is_some_and(|modrm| forms::lockable(self.map, self.opcode, modrm))
        {
            return Err(self.invalid());
        }
        Ok(())
    }

    /// The prefix that selects the instruction: F2 and F3 win over 66.
    pub(super) fn mandatory(&self) -> Mandatory {
        if self.prefixes.has(Prefixes::F2) {
            Mandatory::F2
        } else if self.prefixes.has(Prefixes::F3) {
            Mandatory::F3
        } else if self.prefixes.has(Prefixes::OPERAND_SIZE) {
            Mandatory::P66
        } else {
            Mandatory::None
        }
    }

    /// `mov` to and from control and debug registers: the mod field is ignored, r/m is always a register (SDM volume
    /// 2, MOV).
    fn ignores_mod(&self) -> bool {
        self.is_legacy(Map::Secondary) && matches!(self.opcode, 0x20..=0x23)
    }

    fn invalid(&self) -> DecodeError {
        DecodeError::Invalid {
            map: self.map,
            opcode: self.opcode,
        }
    }

    /// Whether the opcode is one of a legacy map (also behind REX2).
    pub(super) fn is_legacy(&self, map: Map) -> bool {
        matches!(self.encoding, Encoding::Legacy | Encoding::Rex2) && self.map == map
    }

    pub(super) fn prefixes(&self) -> Prefixes {
        self.prefixes
    }

    /// W, R, X, B as in REX (bits 3 to 0); bits 6 to 4 are R4, X4, B4 of REX2.
    pub(super) fn rex(&self) -> u8 {
        self.rex
    }

    /// Length in bytes, 1 to [`MAX_LEN`].
    #[expect(clippy::len_without_is_empty, reason = "an instruction is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// How the opcode is prefixed.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The map of the opcode.
    pub fn map(&self) -> Map {
        self.map
    }

    /// The opcode byte.
    pub fn opcode(&self) -> u8 {
        self.opcode
    }

    /// The ModRM byte.
    pub fn modrm(&self) -> Option<ModRm> {
        match self.modrm {
            0 => None,
            at => self.bytes.get(usize::from(at)).map(|byte| ModRm::new(*byte)),
        }
    }

    /// The SIB byte.
    pub(super) fn sib(&self) -> Option<u8> {
        let modrm = self.modrm()?;
        if !modrm.is_register() && modrm.rm() == 4 && !self.ignores_mod() {
            self.bytes.get(usize::from(self.modrm) + 1).copied()
        } else {
            None
        }
    }

    /// Whether the ModRM byte names a memory operand. (Implicit operands, on the stack or of string instructions, do
    /// not count.)
    pub fn has_memory_operand(&self) -> bool {
        self.modrm().is_some_and(|modrm| !modrm.is_register()) && !self.ignores_mod()
    }

    /// The displacement of the memory operand.
    pub fn displacement(&self) -> Field {
        self.displacement
    }

    /// The immediate operand or operands, branch displacement, absolute address, or 3DNow! operation.
    pub fn immediate(&self) -> Field {
        self.immediate
    }

    /// Whether the memory operand is addressed relative to the next instruction.
    pub fn is_rip_relative(&self) -> bool {
        self.has_memory_operand() && self.modrm().is_some_and(|modrm| modrm.mode() == 0 && modrm.rm() == 5)
    }

    /// The effective segment override.
    pub fn segment(&self) -> Option<Segment> {
        if self.prefixes.has(Prefixes::GS) {
            Some(Segment::Gs)
        } else if self.prefixes.has(Prefixes::FS) {
            Some(Segment::Fs)
        } else {
            None
        }
    }

    /// Whether addresses are computed in 32 bits (67 prefix).
    pub fn has_32bit_addresses(&self) -> bool {
        self.prefixes.has(Prefixes::ADDRESS_SIZE)
    }

    /// The value of a field, sign-extended from its size; 0 if there is none.
    pub fn signed(&self, field: Field) -> i64 {
        let unused = 64u32.saturating_sub(8 * u32::from(field.size)).min(63);
        let value = self.unsigned(field) << unused;
        (value as i64) >> unused
    }

    /// The value of a field; 0 if there is none.
    pub fn unsigned(&self, field: Field) -> u64 {
        self.bytes()
            .iter()
            .skip(usize::from(field.start))
            .take(usize::from(field.size.min(8)))
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

impl fmt::Debug for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Insn({:?} {:?} {:02x?})", self.encoding, self.map, self.bytes())
    }
}

/// Reads instruction bytes, at most [`MAX_LEN`].
struct Reader<'a> {
    bytes: &'a [u8],
    at: u8,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, DecodeError> {
        if usize::from(self.at) >= MAX_LEN {
            return Err(DecodeError::TooLong);
        }
        let available = self.bytes.len();
        self.bytes
            .get(usize::from(self.at))
            .copied()
            .ok_or(DecodeError::Truncated { available })
    }

    fn next(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek()?;
        self.at = self.at.wrapping_add(1);
        Ok(byte)
    }

    fn field(&mut self, size: u8) -> Result<Field, DecodeError> {
        let start = self.at;
        let end = start.wrapping_add(size);
        if usize::from(end) > MAX_LEN {
            return Err(DecodeError::TooLong);
        }
        if usize::from(end) > self.bytes.len() {
            return Err(DecodeError::Truncated {
                available: self.bytes.len(),
            });
        }
        self.at = end;
        Ok(Field {
            start: if size == 0 { 0 } else { start },
            size,
        })
    }

    /// The byte read last.
    fn last(&self) -> u8 {
        self.bytes
            .get(usize::from(self.at).wrapping_sub(1))
            .copied()
            .unwrap_or(0)
    }
}
