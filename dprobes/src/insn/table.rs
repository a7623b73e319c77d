//! Opcode maps: the shape of every opcode, and which forms of it exist.
//!
//! A [`Shape`] says what follows the opcode byte (a ModRM byte, how large an immediate) and which mandatory prefixes
//! select an instruction. The tables are written as ranges, with the mnemonics they stand for, and evaluated at
//! compile time. What exists only with some ModRM bytes is in [`forms`](super::forms).
//!
//! Sources: Intel SDM volume 2 appendix A (opcode maps), AMD APM volume 3 appendix A.

use super::parts::{Encoding, Mandatory, Map, ModRm};

/// What follows an opcode byte, and with which prefixes the opcode exists.
#[derive(Clone, Copy)]
pub(super) struct Shape(u16);

/// The immediate of a [`Shape`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Imm {
    /// None.
    None,
    /// 8 bits.
    Byte,
    /// 16 bits (`ret imm16`).
    Word,
    /// 16 bits with an effective 66 prefix, else 32.
    Z,
    /// 16, 32 or 64 bits by operand size (`mov reg, imm`).
    V,
    /// An absolute address of the address size (`mov al, moffs`).
    Address,
    /// 16 + 8 bits (`enter`).
    Enter,
    /// 8 bits, only for /0 and /1 (`test` in group 3).
    TestByte,
    /// As `Z`, only for /0 and /1 (`test` in group 3).
    TestZ,
    /// A 32-bit branch displacement, whatever the operand size.
    Rel32,
    /// 8 + 8 bits with 66 or F2 (`extrq`, `insertq`), none otherwise (`vmread`).
    Sse4a,
}

const NP: u16 = 1 << 4;
const P66: u16 = 1 << 5;
const PF3: u16 = 1 << 6;
const PF2: u16 = 1 << 7;
const ANY: u16 = NP | P66 | PF3 | PF2;
const MODRM: u16 = 1 << 8;
const RULED: u16 = 1 << 9;
const MEMORY: u16 = 1 << 10;
const REGISTER: u16 = 1 << 11;

impl Shape {
    /// No instruction.
    const INVALID: Shape = Shape(0);

    const fn imm_only(imm: Imm) -> Shape {
        Shape(ANY | imm as u16)
    }
    const fn modrm(prefixes: u16, imm: Imm) -> Shape {
        Shape(prefixes | MODRM | imm as u16)
    }
    const fn ruled(self) -> Shape {
        Shape(self.0 | RULED)
    }
    const fn memory(self) -> Shape {
        Shape(self.0 | MEMORY)
    }
    const fn register(self) -> Shape {
        Shape(self.0 | REGISTER)
    }

    /// Whether the opcode exists at all.
    pub(super) fn is_valid(self) -> bool {
        self.0 & ANY != 0
    }

    /// Whether the opcode exists with this mandatory prefix.
    pub(super) fn takes(self, prefix: Mandatory) -> bool {
        let bit = match prefix {
            Mandatory::None => NP,
            Mandatory::P66 => P66,
            Mandatory::F3 => PF3,
            Mandatory::F2 => PF2,
        };
        self.0 & bit != 0
    }

    /// Whether a ModRM byte follows.
    pub(super) fn has_modrm(self) -> bool {
        self.0 & MODRM != 0
    }

    /// Whether [`exists`](super::forms::exists) has to be asked.
    pub(super) fn is_ruled(self) -> bool {
        self.0 & RULED != 0
    }

    /// Whether the kind of operand (memory or register) that `modrm` names is allowed.
    pub(super) fn takes_operand(self, modrm: ModRm) -> bool {
        if modrm.is_register() {
            self.0 & MEMORY == 0
        } else {
            self.0 & REGISTER == 0
        }
    }

    /// What immediate follows.
    pub(super) fn imm(self) -> Imm {
        match self.0 & 0xf {
            1 => Imm::Byte,
            2 => Imm::Word,
            3 => Imm::Z,
            4 => Imm::V,
            5 => Imm::Address,
            6 => Imm::Enter,
            7 => Imm::TestByte,
            8 => Imm::TestZ,
            9 => Imm::Rel32,
            10 => Imm::Sse4a,
            _ => Imm::None,
        }
    }
}

/// No operand bytes.
const N: Shape = Shape::imm_only(Imm::None);
/// ModRM, whatever the prefixes.
const M: Shape = Shape::modrm(ANY, Imm::None);
/// ModRM and an 8-bit immediate.
const MB: Shape = Shape::modrm(ANY, Imm::Byte);
/// ModRM and an operand-size immediate.
const MZ: Shape = Shape::modrm(ANY, Imm::Z);
/// An 8-bit immediate or branch displacement.
const B: Shape = Shape::imm_only(Imm::Byte);
/// An operand-size immediate.
const Z: Shape = Shape::imm_only(Imm::Z);
/// ModRM, an MMX or SSE instruction with these prefixes.
const fn v(prefixes: u16) -> Shape {
    Shape::modrm(prefixes, Imm::None)
}
/// ModRM and an 8-bit immediate, an MMX or SSE instruction with these prefixes.
const fn vb(prefixes: u16) -> Shape {
    Shape::modrm(prefixes, Imm::Byte)
}

/// The one-byte map. Prefixes, 0F, and the VEX, EVEX and REX2 lead bytes are not opcodes here; 8F is `pop` (XOP is
/// told apart before).
const fn primary(opcode: u8) -> Shape {
    match opcode {
        // add or adc sbb and sub xor cmp
        0x00..=0x3f => match opcode & 7 {
            0..=3 => M,
            4 => B,
            5 => Z,
            _ => Shape::INVALID, // push/pop of segments, daa das aaa aas; and prefixes
        },
        0x50..=0x5f => N,                             // push pop
        0x63 => M,                                    // movsxd
        0x68 => Z,                                    // push
        0x69 => MZ,                                   // imul
        0x6a => B,                                    // push
        0x6b => MB,                                   // imul
        0x6c..=0x6f => N,                             // ins outs
        0x70..=0x7f => B,                             // jcc
        0x80 | 0x83 => MB,                            // group 1
        0x81 => MZ,                                   // group 1
        0x84..=0x8b => M,                             // test xchg mov
        0x8c | 0x8e => M.ruled(),                     // mov sreg
        0x8d => M.memory(),                           // lea
        0x8f => M.ruled(),                            // pop
        0x90..=0x99 | 0x9b..=0x9f => N,               // xchg cbw cwd fwait pushf popf sahf lahf
        0xa0..=0xa3 => Shape::imm_only(Imm::Address), // mov moffs
        0xa4..=0xa7 | 0xaa..=0xaf => N,               // movs cmps stos lods scas
        0xa8 => B,                                    // test
        0xa9 => Z,                                    // test
        0xb0..=0xb7 => B,                             // mov
        0xb8..=0xbf => Shape::imm_only(Imm::V),       // mov
        0xc0 | 0xc1 => MB,                            // shift
        0xc2 | 0xca => Shape::imm_only(Imm::Word),    // ret, retf
        0xc3 | 0xcb => N,                             // ret, retf
        0xc6 => MB.ruled(),                           // mov, xabort
        0xc7 => MZ.ruled(),                           // mov, xbegin
        0xc8 => Shape::imm_only(Imm::Enter),          // enter
        0xc9 | 0xcc | 0xcf => N,                      // leave int3 iret
        0xcd => B,                                    // int
        0xd0..=0xd3 => M,                             // shift
        0xd7 => N,                                    // xlat
        0xd8 | 0xdc => M,                             // x87
        0xd9..=0xdb | 0xdd..=0xdf => M.ruled(),       // x87
        0xe0..=0xe7 | 0xeb => B,                      // loop jcxz in out jmp
        0xe8 | 0xe9 => Shape::imm_only(Imm::Rel32),   // call jmp
        0xec..=0xef => N,                             // in out
        0xf1 | 0xf4 | 0xf5 | 0xf8..=0xfd => N,        // int1 hlt cmc clc stc cli sti cld std
        0xf6 => Shape::modrm(ANY, Imm::TestByte),     // group 3
        0xf7 => Shape::modrm(ANY, Imm::TestZ),        // group 3
        0xfe | 0xff => M.ruled(),                     // groups 4 and 5
        _ => Shape::INVALID,
    }
}

/// The 0F map.
const fn secondary(opcode: u8) -> Shape {
    match opcode {
        0x00 | 0x01 => M.ruled(),                                   // groups 6 and 7
        0x02 | 0x03 | 0x0d => M,                                    // lar lsl prefetchw
        0x05..=0x09 | 0x0b | 0x0e => N,                             // syscall clts sysret invd wbinvd ud2 femms
        0x0f => MB.ruled(),                                         // 3DNow!: the operation is the last byte
        0x10 | 0x11 => M,                                           // movups ...
        0x12 | 0x16 => M.ruled(),                                   // movlps movhps ...
        0x13 | 0x17 => v(NP | P66).memory(),                        // movlps movhps
        0x14 | 0x15 | 0x28 | 0x29 | 0x2e | 0x2f => v(NP | P66),     // unpck movaps comis
        0x18..=0x1f => M,                                           // prefetch, reserved nop, nop, endbr
        0x20 | 0x22 => M.ruled(),                                   // mov cr
        0x21 | 0x23 => M.ruled(),                                   // mov dr
        0x2a | 0x2c | 0x2d => M,                                    // cvt
        0x2b => M.memory(),                                         // movnt
        0x30..=0x35 => N,                                           // wrmsr rdtsc rdmsr rdpmc sysenter sysexit
        0x37 | 0x77 => Shape(NP),                                   // getsec, emms
        0x40..=0x4f | 0x51 | 0x58..=0x5a | 0x5c..=0x5f => M,        // cmov sqrt add mul cvt sub min div max
        0x50 | 0xd7 | 0xf7 => v(NP | P66).ruled(),                  // movmsk pmovmskb maskmov
        0x52 | 0x53 => v(NP | PF3),                                 // rsqrt rcp
        0x54..=0x57 | 0x60..=0x6b | 0x6e => v(NP | P66),            // and or xor, punpck pack pcmp movd
        0x5b | 0x6f | 0x7e | 0x7f => v(NP | P66 | PF3),             // cvt movq movdq
        0x6c | 0x6d => v(P66),                                      // punpckqdq
        0x70 => MB,                                                 // pshuf
        0x71..=0x73 => vb(NP | P66).ruled(),                        // shifts
        0x74..=0x76 => v(NP | P66),                                 // pcmpeq
        0x78 => Shape::modrm(NP | P66 | PF2, Imm::Sse4a).ruled(),   // vmread extrq insertq
        0x79 => v(NP | P66 | PF2).ruled(),                          // vmwrite extrq insertq
        0x7c | 0x7d | 0xd0 => v(P66 | PF2),                         // hadd hsub addsub
        0x80..=0x8f => Shape::imm_only(Imm::Rel32),                 // jcc
        0x90..=0x9f => M,                                           // setcc
        0xa0..=0xa2 | 0xa8..=0xaa => N,                             // push/pop fs gs, cpuid, rsm
        0xa3 | 0xa5 | 0xab | 0xad | 0xaf => M,                      // bt shld bts shrd imul
        0xa4 | 0xac => MB,                                          // shld shrd
        0xa6 | 0xa7 => M.ruled(),                                   // PadLock
        0xae => M.ruled(),                                          // group 15
        0xb0 | 0xb1 | 0xb3 | 0xb6 | 0xb7 | 0xb9 | 0xbb..=0xbf => M, // cmpxchg btr movzx ud1 btc bsf bsr movsx
        0xb2 | 0xb4 | 0xb5 => M.memory(),                           // lss lfs lgs
        0xb8 => v(PF3),                                             // popcnt
        0xba => MB.ruled(),                                         // group 8
        0xc0 | 0xc1 => M,                                           // xadd
        0xc2 => MB,                                                 // cmpps
        0xc3 => v(NP).memory(),                                     // movnti
        0xc4 | 0xc6 => vb(NP | P66),                                // pinsrw shuf
        0xc5 => vb(NP | P66).register(),                            // pextrw
        0xc7 => M.ruled(),                                          // group 9
        0xc8..=0xcf => N,                                           // bswap
        0xd6 => v(P66 | PF3 | PF2).ruled(),                         // movq movq2dq movdq2q
        0xe6 => v(P66 | PF3 | PF2),                                 // cvt
        0xe7 => v(NP | P66).memory(),                               // movnt
        0xf0 => v(PF2).memory(),                                    // lddqu
        0xd1..=0xdf | 0xe0..=0xef | 0xf1..=0xfe => v(NP | P66),     // MMX and SSE2 integer
        0xff => M,                                                  // ud0
        _ => Shape::INVALID,
    }
}

/// The 0F 38 map.
const fn escape38(opcode: u8) -> Shape {
    match opcode {
        0x00..=0x0b | 0x1c..=0x1e => v(NP | P66),          // SSSE3
        0x10 | 0x14 | 0x15 | 0x17 => v(P66),               // blendv ptest
        0x20..=0x25 | 0x28 | 0x29 | 0x2b => v(P66),        // pmovsx pmuldq pcmpeqq packusdw
        0x30..=0x35 | 0x37..=0x41 | 0xcf | 0xdb => v(P66), // pmovzx pcmpgtq pmin pmax, gf2p8mulb, aesimc
        0x2a | 0x80..=0x82 | 0xf5 => v(P66).memory(),      // movntdqa inv* wruss
        0x8a | 0x8b => v(NP | P66).memory(),               // movrs
        0xc8..=0xcd => v(NP),                              // SHA
        0xd8 => v(PF3).memory().ruled(),                   // aes*wide
        0xdc => v(P66 | PF3),                              // aesenc loadiwkey aesenc128kl
        0xdd..=0xdf => v(P66 | PF3).ruled(),               // aes, key locker
        0xf0 | 0xf1 => v(NP | P66 | PF2).ruled(),          // movbe crc32
        0xf6 => v(NP | P66 | PF3).ruled(),                 // wrss adcx adox
        0xf8 => v(P66 | PF3 | PF2).ruled(),                // movdir64b enqcmd, user MSRs
        0xf9 => v(NP).memory(),                            // movdiri
        0xfa | 0xfb => v(PF3).register(),                  // encodekey
        0xfc => M.memory(),                                // rao-int
        _ => Shape::INVALID,
    }
}

/// The 0F 3A map.
const fn escape3a(opcode: u8) -> Shape {
    match opcode {
        0x08..=0x0e | 0x14..=0x17 | 0x20..=0x22 | 0x40..=0x42 | 0x44 => vb(P66), // SSE4.1, pclmulqdq
        0x60..=0x63 | 0xce | 0xcf | 0xdf => vb(P66),                             // SSE4.2, gf2p8affine, aeskeygenassist
        0x0f => vb(NP | P66),                                                    // palignr
        0xcc => vb(NP),                                                          // sha1rnds4
        0xf0 => vb(PF3).ruled(),                                                 // hreset
        _ => Shape::INVALID,
    }
}

/// The EVEX map 4: the general-purpose instructions with an EVEX prefix (APX).
const fn apx(opcode: u8) -> Shape {
    match opcode {
        0x24 | 0x2c | 0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xd4 => MB,
        0x69 | 0x81 => MZ,
        0xf6 => Shape::modrm(ANY, Imm::TestByte),
        0xf7 => Shape::modrm(ANY, Imm::TestZ),
        _ => M,
    }
}

/// The tables, evaluated at compile time.
macro_rules! table {
    ($name:ident, $function:ident) => {
        static $name: [Shape; 256] = {
            let mut table = [Shape::INVALID; 256];
            let mut opcode = 0;
            while opcode < 256 {
                table[opcode] = $function(opcode as u8);
                opcode += 1;
            }
            table
        };
    };
}
table!(PRIMARY, primary);
table!(SECONDARY, secondary);
table!(ESCAPE38, escape38);
table!(ESCAPE3A, escape3a);

/// The shape of an opcode in one of the four legacy maps.
pub(super) fn legacy(map: Map, opcode: u8) -> Shape {
    let table = match map {
        Map::Primary => &PRIMARY,
        Map::Secondary => &SECONDARY,
        Map::Escape38 => &ESCAPE38,
        Map::Escape3A => &ESCAPE3A,
        _ => return Shape::INVALID,
    };
    // A u8 index into 256 entries: no bounds check, no panic.
    table[usize::from(opcode)]
}

/// The shape of an opcode behind a VEX, EVEX or XOP prefix.
///
/// In these spaces the map alone fixes the shape (a ModRM byte always, an immediate by map), also for opcodes that no
/// processor defines yet. They are accepted, so that a table older than the processor does not lose its place.
pub(super) fn vector(encoding: Encoding, map: Map, opcode: u8) -> Shape {
    match (encoding, map) {
        (Encoding::Vex, Map::Secondary) if opcode == 0x77 => N, // vzeroupper vzeroall
        (Encoding::Evex, Map::Secondary) if opcode == 0x77 => Shape::INVALID,
        (Encoding::Vex | Encoding::Evex, Map::Secondary) => match opcode {
            0x70..=0x73 | 0xc2 | 0xc4..=0xc6 => MB,
            _ => M,
        },
        (Encoding::Vex | Encoding::Evex, Map::Escape38 | Map::Map5) | (Encoding::Evex, Map::Map6) => M,
        (Encoding::Vex | Encoding::Evex, Map::Escape3A) => MB,
        (Encoding::Evex, Map::Map4) => apx(opcode),
        // The immediate forms of rdmsr, wrmsrns, urdmsr and uwrmsr: always 32 bits.
        (Encoding::Vex | Encoding::Evex, Map::Map7) => match opcode {
            0xf6 | 0xf8 => Shape::modrm(ANY, Imm::Rel32).register(),
            _ => Shape::INVALID,
        },
        (Encoding::Xop, Map::Xop8) => MB,
        (Encoding::Xop, Map::Xop9) => M,
        (Encoding::Xop, Map::XopA) => Shape::modrm(ANY, Imm::Rel32),
        _ => Shape::INVALID,
    }
}
