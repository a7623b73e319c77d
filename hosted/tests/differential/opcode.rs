//! Instructions of a given kind: the bits that make it that kind as they must be, and all others at random.

use std::sync::OnceLock;

use iced_x86::{Code, CodeSize, CpuidFeature, EncodingKind, FlowControl, MandatoryPrefix, OpCodeInfo, OpCodeTableKind};

use crate::block::decode;
use crate::random::Random;

/// Every kind of instruction that exists in 64-bit mode.
pub fn all() -> &'static [Code] {
    static ALL: OnceLock<Vec<Code>> = OnceLock::new();
    ALL.get_or_init(|| {
        Code::values()
            .filter(|code| {
                let info = code.op_code();
                // An FWAIT in front of an x87 instruction is an instruction of its own to a CPU.
                info.is_instruction() && info.mode64() && !info.fwait() && !is_of_others(*code)
            })
            .collect()
    })
}

/// Withdrawn instructions, those of coprocessors and research CPUs, and the reading that AMD has of a near branch with a 66
/// prefix: iced knows them by options of its decoder only. The branches are run under Intel's name.
fn is_of_others(code: Code) -> bool {
    let info = code.op_code();
    info.decoder_option() != 0
        || matches!(code, Code::Montmul_64 | Code::Ud0)
        || code.cpuid_features().contains(&CpuidFeature::KNC)
        || !info.intel_decoder64() && info.amd_decoder64() && is_near_branch(code)
}

fn is_near_branch(code: Code) -> bool {
    matches!(
        code.flow_control(),
        FlowControl::ConditionalBranch
            | FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::Return
    )
}

/// An instruction of this kind; `None` if chance has not found one.
pub fn instruction(random: &mut Random, code: Code) -> Option<Vec<u8>> {
    let info = code.op_code();
    (0..400).find_map(|_| {
        let mut bytes = candidate(random, info);
        bytes.truncate(15);
        let instruction = decode(&bytes, 0);
        bytes.truncate(instruction.len());
        debug_assert_eq!(instruction.code_size(), CodeSize::Code64);
        (instruction.code() == code).then_some(bytes)
    })
}

fn candidate(random: &mut Random, info: &OpCodeInfo) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    match info.encoding() {
        EncodingKind::VEX | EncodingKind::XOP => vex(random, info, &mut bytes),
        EncodingKind::EVEX => evex(random, info, &mut bytes),
        _ => legacy(random, info, &mut bytes),
    }
    modrm(random, info, &mut bytes);
    // Displacement and immediate; the opcode of 3DNow! comes last.
    let from = bytes.len();
    bytes.resize_with(from + 12, || random.byte());
    if info.encoding() == EncodingKind::D3NOW {
        bytes[from..].fill(info.op_code() as u8);
    }
    bytes
}

/// Prefixes, escape and opcode.
fn legacy(random: &mut Random, info: &OpCodeInfo, bytes: &mut Vec<u8>) {
    let mandatory = match info.mandatory_prefix() {
        MandatoryPrefix::P66 => Some(0x66),
        MandatoryPrefix::PF3 => Some(0xf3),
        MandatoryPrefix::PF2 => Some(0xf2),
        _ => None,
    };
    if random.one_in(3) {
        for _ in 0..=random.below(3) {
            bytes.push(random.choose(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x66]));
        }
    }
    if info.operand_size() == 16 && random.one_in(2) {
        bytes.push(0x66);
    }
    if info.address_size() == 32 {
        bytes.push(0x67);
    }
    bytes.extend(mandatory);
    if info.fwait() {
        bytes.push(0x9b);
    }
    let wide = info.operand_size() == 64 || info.w() != 0;
    if random.one_in(2) || wide {
        let w = if wide && !random.one_in(4) {
            8
        } else {
            random.byte() & 8
        };
        bytes.push(0x40 | w | random.byte() & 7);
    }
    match info.table() {
        OpCodeTableKind::T0F => bytes.push(0x0f),
        OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
        _ => {}
    }
    if info.encoding() == EncodingKind::D3NOW {
        bytes.push(0x0f);
    } else {
        opcode(random, info, bytes);
    }
}

/// One or two bytes; a register in the low bits is any.
fn opcode(random: &mut Random, info: &OpCodeInfo, bytes: &mut Vec<u8>) {
    let opcode = info.op_code();
    if info.op_code_len() == 2 {
        bytes.extend([(opcode >> 8) as u8, opcode as u8]);
    } else if has_register_in_opcode(info) {
        bytes.push(opcode as u8 | random.byte() & 7);
    } else {
        bytes.push(opcode as u8);
    }
}

fn has_register_in_opcode(info: &OpCodeInfo) -> bool {
    use iced_x86::OpCodeOperandKind as K;
    info.op_kinds().iter().any(|kind| {
        matches!(
            kind,
            K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode
        )
    })
}

fn vector_prefix(info: &OpCodeInfo) -> u8 {
    match info.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    }
}

fn map(info: &OpCodeInfo) -> u8 {
    match info.table() {
        OpCodeTableKind::T0F => 1,
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        OpCodeTableKind::MAP5 => 5,
        OpCodeTableKind::MAP6 => 6,
        OpCodeTableKind::MAP8 => 8,
        OpCodeTableKind::MAP9 => 9,
        OpCodeTableKind::MAP10 => 10,
        _ => 0,
    }
}

fn w_bit(random: &mut Random, info: &OpCodeInfo) -> u8 {
    if info.is_wig() || info.is_wig32() || random.one_in(32) {
        random.byte() & 1
    } else {
        info.w() as u8
    }
}

/// vvvv: often none, as most that do not use it demand.
fn vvvv(random: &mut Random) -> u8 {
    if random.one_in(2) { 0x78 } else { random.byte() & 0x78 }
}

fn vex(random: &mut Random, info: &OpCodeInfo, bytes: &mut Vec<u8>) {
    let l = if info.is_lig() {
        random.byte() & 1
    } else {
        (info.l() / 256) as u8 & 1 | info.l() as u8 & 1
    };
    let third = w_bit(random, info) << 7 | vvvv(random) | l << 2 | vector_prefix(info);
    let short = info.encoding() == EncodingKind::VEX && map(info) == 1 && third & 0x80 == 0 && random.one_in(2);
    if short {
        bytes.extend([0xc5, random.byte() & 0x80 | third & 0x7f]);
    } else {
        let first = if info.encoding() == EncodingKind::XOP {
            0x8f
        } else {
            0xc4
        };
        bytes.extend([first, random.byte() & 0xe0 | map(info), third]);
    }
    opcode(random, info, bytes);
}

fn evex(random: &mut Random, info: &OpCodeInfo, bytes: &mut Vec<u8>) {
    let l = match info.l() {
        _ if info.is_lig() => random.byte() & 3,
        512 => 2,
        256 => 1,
        length => length as u8 & 3,
    };
    let mask = if info.require_op_mask_register() || random.one_in(2) {
        random.byte() & 7
    } else {
        0
    };
    let z = if mask != 0 { random.byte() & 0x80 } else { 0 };
    let (broadcast, above) = (
        if random.one_in(4) { 0x10 } else { 0 },
        if random.one_in(4) { random.byte() & 8 } else { 8 },
    );
    bytes.extend([
        0x62,
        random.byte() & 0xf0 | map(info),
        w_bit(random, info) << 7 | vvvv(random) | 4 | vector_prefix(info),
        z | l << 5 | broadcast | above | mask,
    ]);
    opcode(random, info, bytes);
}

/// A ModRM byte, and what a memory operand of an interesting kind needs. Those without one take it for something else.
fn modrm(random: &mut Random, info: &OpCodeInfo, bytes: &mut Vec<u8>) {
    if info.op_code_len() == 2 {
        return;
    }
    let reg = match info.group_index() {
        -1 => random.byte() & 0x38,
        group => (group as u8) << 3,
    };
    if info.is_rm_group() {
        bytes.push(0xc0 | reg | info.rm_group_index() as u8);
        return;
    }
    match random.below(10) {
        0..=3 => bytes.push(0xc0 | reg | random.byte() & 7),
        // A pointer, or a pointer and a byte.
        4 | 5 => bytes.push(reg | random.choose(&[3, 6, 7])),
        6 => bytes.extend([0x40 | reg | random.choose(&[3, 5, 6, 7]), random.byte() & 0xf8]),
        // Relative to RIP.
        7 => bytes.push(reg | 5),
        // A pointer and an index, which is a small number or a vector.
        8 => bytes.extend([reg | 4, random.byte() & 0xf8 | random.choose(&[3, 6, 7])]),
        _ => bytes.push(random.byte() & 0xc7 | reg),
    }
}
