//! Which forms of an opcode exist where that depends on single ModRM bytes, and which may have a LOCK prefix.
//!
//! Sources: as for the [tables](super::table).

use super::parts::{Mandatory, Map, ModRm};

/// What tells the forms of a [ruled](super::table::Shape::is_ruled) opcode apart.
pub(super) struct Form {
    pub(super) prefix: Mandatory,
    pub(super) modrm: ModRm,
    /// Extends ModRM.reg.
    pub(super) rex_r: bool,
    /// A 66 prefix, also where F2 or F3 selects the instruction.
    pub(super) has_66: bool,
    /// A 67 prefix.
    pub(super) has_67: bool,
    /// The operation of 3DNow!.
    pub(super) last_byte: u8,
}

/// Whether this form of a ruled opcode exists.
pub(super) fn exists(map: Map, opcode: u8, form: &Form) -> bool {
    match map {
        Map::Primary => exists_primary(opcode, form.modrm),
        Map::Secondary => exists_secondary(opcode, form),
        Map::Escape38 => exists_escape38(opcode, form.prefix, form.modrm),
        Map::Escape3A => form.modrm.byte() == 0xc0, // hreset
        _ => true,
    }
}

fn exists_primary(opcode: u8, modrm: ModRm) -> bool {
    let reg = modrm.reg();
    if matches!(opcode, 0xd9..=0xdf) {
        return if modrm.is_register() {
            exists_x87(opcode, modrm.byte())
        } else {
            !matches!((opcode, reg), (0xd9, 1) | (0xdb, 4 | 6) | (0xdd, 5))
        };
    }
    match opcode {
        0x8c => reg <= 5,                                         // mov r/m, sreg
        0x8e => reg <= 5 && reg != 1,                             // mov sreg, r/m; cs cannot be loaded
        0x8f => reg == 0,                                         // pop
        0xc6 | 0xc7 => reg == 0 || modrm.byte() == 0xf8,          // mov; xabort, xbegin
        0xfe => reg <= 1,                                         // inc dec
        0xff if modrm.is_register() => !matches!(reg, 3 | 5 | 7), // far call and jmp need memory
        0xff => reg != 7,
        _ => true,
    }
}

/// Register forms of the x87 escapes D9 to DF.
fn exists_x87(opcode: u8, modrm: u8) -> bool {
    match opcode {
        0xd9 => !matches!(modrm, 0xd1..=0xd7 | 0xe2 | 0xe3 | 0xe6 | 0xe7 | 0xef),
        0xda => matches!(modrm, 0xc0..=0xdf | 0xe9),
        0xdb => matches!(modrm, 0xc0..=0xe4 | 0xe8..=0xf7),
        0xdd => modrm < 0xf0,
        0xde => !matches!(modrm, 0xd8 | 0xda..=0xdf),
        0xdf => matches!(modrm, 0xc0..=0xe0 | 0xe8..=0xf7),
        _ => true,
    }
}

fn exists_secondary(opcode: u8, form: &Form) -> bool {
    use Mandatory::{F2, F3, None, P66};
    let Form {
        prefix,
        modrm,
        rex_r,
        has_66,
        has_67,
        last_byte,
    } = *form;
    let reg = modrm.reg();
    let register = modrm.is_register();
    match opcode {
        0x00 => reg <= 5 || (reg == 6 && prefix == F2), // sldt ... verw; lkgs
        0x01 if register => exists_group7(prefix, modrm.byte()),
        0x01 => reg != 5 || prefix == F3, // sgdt ... invlpg; rstorssp
        0x0f => matches!(
            last_byte,
            0x0c | 0x0d
                | 0x1c
                | 0x1d
                | 0x8a
                | 0x8e
                | 0x90
                | 0x94
                | 0x96
                | 0x97
                | 0x9a
                | 0x9e
                | 0xa0
                | 0xa4
                | 0xa6
                | 0xa7
                | 0xaa
                | 0xae
                | 0xb0
                | 0xb4
                | 0xb6
                | 0xb7
                | 0xbb
                | 0xbf
        ),
        0x12 => !register || prefix != P66,
        0x16 => prefix == F3 || (prefix == P66 && !register) || prefix == None,
        0x20 | 0x22 => matches!((reg, rex_r), (0 | 2 | 3 | 4, false) | (0, true)), // cr0 cr2 cr3 cr4 cr8
        0x21 | 0x23 => !rex_r,
        0x50 | 0xd7 | 0xf7 => register,
        0x71 | 0x72 => register && matches!(reg, 2 | 4 | 6),
        0x73 => register && (matches!(reg, 2 | 6) || (prefix == P66 && matches!(reg, 3 | 7))),
        0x78 => prefix == None || (register && (prefix == F2 || reg == 0)),
        0x79 => prefix == None || register,
        0xa6 => register && prefix == F3 && (reg != 0 || has_67), // montmul has 32-bit addresses only
        0xa7 => register && (prefix == F3 || reg == 0),
        0xae => match (prefix, register) {
            (None, false) => true,                            // fxsave ... clflush
            (None, true) => reg >= 5,                         // lfence mfence sfence
            (P66, false) => reg >= 6,                         // clwb clflushopt
            (P66 | F2, true) => reg == 6,                     // tpause, umwait
            (F3, false) => reg == 6 || (reg == 4 && !has_66), // clrssbsy ptwrite
            (F3, true) => reg != 7 && (reg != 4 || !has_66),  // rdfsbase ... wrgsbase ptwrite incssp umonitor
            (F2, false) => false,
        },
        0xba => reg >= 4,
        0xc7 => match (prefix, register) {
            (None, false) => !matches!(reg, 0 | 2), // cmpxchg8b xrstors xsavec xsaves vmptrld vmptrst
            (P66 | F3, false) => matches!(reg, 1 | 6), // vmclear vmxon
            (F2, false) => reg == 1,
            (None | P66 | F3, true) => reg >= 6, // rdrand rdseed rdpid senduipi
            (F2, true) => false,
        },
        0xd6 => register || prefix == P66,
        _ => true,
    }
}

/// The register forms of 0F 01: one instruction per ModRM byte.
fn exists_group7(prefix: Mandatory, modrm: u8) -> bool {
    match (prefix, modrm) {
        // vmrun ... invlpga, smsw, lmsw; swapgs rdtscp clzero take any prefix
        (_, 0xd8..=0xe7 | 0xf0..=0xf9 | 0xfc) => true,
        (Mandatory::None, _) => !matches!(modrm, 0xcc..=0xce | 0xd2 | 0xd3 | 0xe9..=0xed),
        (Mandatory::P66, _) => matches!(modrm, 0xcc..=0xcf),
        (Mandatory::F3, _) => matches!(modrm, 0xc6 | 0xca | 0xe8 | 0xea | 0xec..=0xef | 0xfa | 0xfd..=0xff),
        (Mandatory::F2, _) => matches!(modrm, 0xc6 | 0xca | 0xe8 | 0xe9 | 0xfe | 0xff),
    }
}

fn exists_escape38(opcode: u8, prefix: Mandatory, modrm: ModRm) -> bool {
    let register = modrm.is_register();
    match (opcode, prefix) {
        (0xd8, _) => modrm.reg() <= 3,
        (0xdd..=0xdf, Mandatory::F3) => !register,
        (0xf0 | 0xf1, Mandatory::None | Mandatory::P66) => !register,
        (0xf6, Mandatory::None) => !register,
        (0xf8, Mandatory::P66) => !register,
        _ => true,
    }
}

/// Whether a LOCK prefix is allowed. (SDM volume 2, LOCK: a memory destination of these instructions.)
pub(super) fn lockable(map: Map, opcode: u8, modrm: ModRm) -> bool {
    let reg = modrm.reg();
    if modrm.is_register() {
        return false;
    }
    match map {
        Map::Primary => match opcode {
            0x00..=0x37 => opcode & 7 <= 1,      // add or adc sbb and sub xor
            0x80 | 0x81 | 0x83 => reg != 7,      // the same
            0x86 | 0x87 => true,                 // xchg
            0xf6 | 0xf7 => matches!(reg, 2 | 3), // not neg
            0xfe | 0xff => reg <= 1,             // inc dec
            _ => false,
        },
        Map::Secondary => match opcode {
            0xab | 0xb0 | 0xb1 | 0xb3 | 0xbb | 0xc0 | 0xc1 => true, // bts cmpxchg btr btc xadd
            0xba => reg >= 5,                                       // bts btr btc
            0xc7 => reg == 1,                                       // cmpxchg8b cmpxchg16b
            _ => false,
        },
        _ => false,
    }
}
