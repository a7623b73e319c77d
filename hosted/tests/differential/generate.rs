//! Random blocks of instructions: all opcodes, with operands that are often good.

use std::fmt;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use crate::arena::Arena;
use crate::random::Random;
use crate::run;

/// Instructions in a block, at most.
const LONGEST: u64 = 10;

/// A block of code: runs from its first byte to [`run::leave`].
pub struct Block {
    pub bytes: Vec<u8>,
    /// Where its instructions begin, without the jump at the end.
    pub offsets: Vec<usize>,
    start: u64,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for offset in &self.offsets {
            let instruction = decode(&self.bytes[*offset..], self.start + *offset as u64);
            let bytes = &self.bytes[*offset..][..instruction.len()];
            writeln!(f, "{:x} {:02x?} {instruction}", instruction.ip(), bytes)?;
        }
        Ok(())
    }
}

fn decode(bytes: &[u8], address: u64) -> Instruction {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
}

impl Block {
    pub fn generate(random: &mut Random, arena: &Arena) -> Self {
        let start = arena.code().start;
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(LONGEST) {
            let address = start + bytes.len() as u64;
            let instruction = instruction(random, address, arena.data());
            offsets.push(bytes.len());
            bytes.extend(instruction);
        }
        let end = bytes.len();
        aim_branches(random, &mut bytes, &offsets, end, start);
        bytes.extend([0xff, 0x25, 0, 0, 0, 0]); // jmp [rip]
        bytes.extend(run::leave().to_le_bytes());
        Block { bytes, offsets, start }
    }
}

/// One instruction that is valid and does no harm.
fn instruction(random: &mut Random, address: u64, data: u64) -> Vec<u8> {
    loop {
        let mut bytes = candidate(random);
        let instruction = decode(&bytes, address);
        if instruction.is_invalid() || is_harmful(&instruction) {
            continue;
        }
        bytes.truncate(instruction.len());
        if instruction.is_ip_rel_memory_operand() {
            let mut decoder = Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE);
            let instruction = decoder.decode();
            let offset = decoder.get_constant_offsets(&instruction).displacement_offset();
            let target = data + random.below(512) - 256;
            let displacement = target.wrapping_sub(instruction.next_ip()) as u32;
            bytes[offset..offset + 4].copy_from_slice(&displacement.to_le_bytes());
        }
        // What this engine's decoder does not know it cannot probe; that it knows everything is tested elsewhere.
        if dprobes::insn::Insn::decode(&bytes).is_ok_and(|insn| insn.len() == bytes.len()) {
            return bytes;
        }
    }
}

/// Bytes that may be an instruction, and more than enough of them.
fn candidate(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    let mut opcode = None;
    match random.below(8) {
        // VEX and EVEX (SDM volume 2, 2.3.5 and 2.7.1), for the maps that exist.
        0 => bytes.extend([0xc5, random.byte() & 0x87 | 0x78]),
        1 => bytes.extend([
            0xc4,
            0xe0 & random.byte() | 0x40 | (1 + random.below(3)) as u8,
            random.byte() & 0x87 | 0x78,
        ]),
        2 => bytes.extend([
            0x62,
            0xf0 | (1 + random.below(3)) as u8,
            random.byte() & 0x87 | 0x7c,
            random.byte() & 0x6f | 8,
        ]),
        _ => {
            while random.one_in(4) {
                bytes.push(random.choose(&[0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x3e, 0x65, 0x66]));
            }
            if random.one_in(2) {
                bytes.push(0x40 | random.byte() & 0xf);
            }
            match random.below(10) {
                0..=3 => {}
                4..=6 => bytes.push(0x0f),
                7 => bytes.extend([0x0f, random.choose(&[0x38, 0x3a])]),
                // What the engine does itself, oftener than chance has it.
                _ => opcode = Some(emulated(random)),
            }
        }
    }
    bytes.push(opcode.unwrap_or_else(|| random.byte()));
    let reg = random.byte() & 0x38;
    match random.below(8) {
        // A register.
        0..=3 => bytes.push(0xc0 | random.byte()),
        // Memory at a pointer and a byte.
        4 | 5 => bytes.extend([0x40 | reg | random.choose(&[3, 5, 6, 7]), random.byte()]),
        // Memory relative to RIP.
        6 => bytes.push(reg | 5),
        // Whatever.
        _ => bytes.push(random.byte()),
    }
    bytes.resize_with(24, || random.byte());
    bytes.truncate(15);
    bytes
}

/// The opcode of a branch, or of something else that is not copied.
fn emulated(random: &mut Random) -> u8 {
    match random.below(4) {
        0 => 0x70 | random.byte() & 0xf,
        1 => 0xe0 | random.byte() & 3,
        2 => random.choose(&[0xe8, 0xe9, 0xeb, 0xc2, 0xc3, 0xff]),
        _ => random.choose(&[0x90, 0x9c, 0x9d, 0xfa, 0xff]),
    }
}

/// Would it leave the process, change what the process needs, or give a different result each time?
fn is_harmful(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let mnemonic = instruction.mnemonic();
    let forbidden = [
        // To the kernel, or to a hypervisor.
        M::Syscall,
        M::Sysenter,
        M::Int,
        M::Int1,
        M::Int3,
        M::Vmcall,
        M::Vmmcall,
        M::Vmgexit,
        M::Loadiwkey,
        // FS is where thread-local variables are; protection keys would take the memory away.
        M::Wrfsbase,
        M::Wrgsbase,
        M::Wrpkru,
        M::Lfs,
        M::Lgs,
        M::Lss,
        M::Lds,
        M::Les,
        M::Xrstor,
        M::Xrstor64,
        M::Xrstors,
        M::Xrstors64,
        M::Wrussd,
        M::Wrussq,
        M::Wrssd,
        M::Wrssq,
        // A different result each time, on each CPU, or with what the kernel does in between.
        M::Rdtsc,
        M::Rdtscp,
        M::Rdrand,
        M::Rdseed,
        M::Rdpid,
        M::Cpuid,
        M::Rdpmc,
        M::Rdpru,
        M::Xgetbv,
        M::Sgdt,
        M::Sidt,
        M::Sldt,
        M::Str,
        M::Smsw,
        M::Lsl,
        M::Lar,
        // What is in use, and where the last x87 instruction was, differ.
        M::Xsave,
        M::Xsave64,
        M::Xsavec,
        M::Xsavec64,
        M::Xsaveopt,
        M::Xsaveopt64,
        M::Xsaves,
        M::Xsaves64,
        M::Fxsave,
        M::Fxsave64,
        M::Fxrstor,
        M::Fxrstor64,
        M::Fnsave,
        M::Fsave,
        M::Fnstenv,
        M::Fstenv,
        M::Fstdw,
        M::Fstsg,
        // They wait.
        M::Mwait,
        M::Mwaitx,
        M::Umwait,
        M::Tpause,
        M::Monitor,
        M::Monitorx,
        M::Umonitor,
    ];
    if forbidden.contains(&mnemonic) {
        return true;
    }
    // A segment register that is loaded with whatever there is.
    let to_segment = matches!(mnemonic, M::Mov | M::Pop)
        && instruction.op_count() > 0
        && instruction.op0_kind() == iced_x86::OpKind::Register
        && instruction.op0_register().is_segment_register();
    // FS is the process's; GS has base 0, and so is good.
    let through_fs = instruction.segment_prefix() == iced_x86::Register::FS;
    to_segment || through_fs || instruction.code() == Code::INVALID
}

/// Lets relative branches go forward to instructions of the block.
fn aim_branches(random: &mut Random, bytes: &mut [u8], offsets: &[usize], end: usize, start: u64) {
    for (index, offset) in offsets.iter().enumerate() {
        let address = start + *offset as u64;
        let mut decoder = Decoder::with_ip(64, &bytes[*offset..end], address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let relative = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::ConditionalBranch
                | FlowControl::Call
                | FlowControl::XbeginXabortXend
        ) && instruction.op_count() > 0
            && matches!(
                instruction.op0_kind(),
                iced_x86::OpKind::NearBranch64 | iced_x86::OpKind::NearBranch16
            );
        if !relative {
            continue;
        }
        let constants = decoder.get_constant_offsets(&instruction);
        let next = offset + instruction.len();
        let later: Vec<usize> = offsets[index + 1..].iter().copied().chain([end]).take(4).collect();
        let distance = random.choose(&later) - next;
        let at = offset + constants.immediate_offset();
        let displacement = (distance as u32).to_le_bytes();
        bytes[at..at + constants.immediate_size()].copy_from_slice(&displacement[..constants.immediate_size()]);
    }
}
