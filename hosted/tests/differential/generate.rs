//! Random blocks: every kind of instruction, any bytes, and sequences that chance would not find.

use std::collections::HashMap;
use std::sync::OnceLock;

use iced_x86::{Code, FlowControl, InstructionInfoFactory, OpAccess, Register};

use crate::block::{Aim, Block, Part, decode};
use crate::cpu;
use crate::exempt;
use crate::opcode;
use crate::random::Random;

/// Parts in a block, at most.
pub const LONGEST: u64 = 16;

/// A block at `at`, with anything in it.
pub fn block(random: &mut Random, at: usize) -> Block {
    let mut parts = Vec::new();
    for _ in 0..=random.below(LONGEST) {
        match random.below(16) {
            0..=6 => {
                // What cannot complete ends a block, and is rare therefore.
                let kinds = if random.one_in(12) { runnable() } else { completing() };
                let code = random.choose(kinds);
                parts.extend(of_kind(random, code));
            }
            7 | 8 => parts.push(Part::new(&anything(random, None))),
            9 | 10 => {
                let opcode = handled(random);
                parts.push(Part::new(&anything(random, Some(opcode))));
            }
            13 if random.one_in(4) => parts.push(Part::new(&rubbish(random))),
            _ => parts.extend(sequence(random)),
        }
        if parts.last().is_some_and(ends_block) {
            break;
        }
    }
    if parts.is_empty() {
        parts.push(Part::new(&[0x90]));
    }
    Block::new(random, at, parts)
}

/// A block with one instruction of a kind.
pub fn block_of(random: &mut Random, at: usize, code: Code) -> Option<Block> {
    let mut parts = match code {
        Code::Syscall => system_call(random),
        Code::Retfq | Code::Retfq_imm16 if random.one_in(2) => far_return(random),
        Code::Iretq if random.one_in(2) => interrupt_return(),
        Code::Jmp_m1632 | Code::Jmp_m1664 | Code::Call_m1632 | Code::Call_m1664 if random.one_in(2) => far_jump(random),
        Code::Lss_r16_m1616 | Code::Lss_r32_m1632 | Code::Lss_r64_m1664 if random.one_in(2) => {
            let mut part = of_kind(random, code)?;
            while !decode(&part.bytes, 0).is_ip_rel_memory_operand() {
                part = of_kind(random, code)?;
            }
            part.aim = Aim::Far;
            vec![part]
        }
        Code::Xrstor_mem => restored(&[0x0f, 0xae, 0x2d, 0, 0, 0, 0]),
        Code::Xrstor64_mem => restored(&[0x48, 0x0f, 0xae, 0x2d, 0, 0, 0, 0]),
        Code::Fxrstor_m512byte => restored(&[0x0f, 0xae, 0x0d, 0, 0, 0, 0]),
        Code::Fxrstor64_m512byte => restored(&[0x48, 0x0f, 0xae, 0x0d, 0, 0, 0, 0]),
        // mov eax, in the low page
        Code::Clzerod | Code::Clzeroq => vec![Part::new(&[0xb8, 0x80, 1, 0, 0x10]), of_kind(random, code)?],
        _ => vec![of_kind(random, code)?],
    };
    if !parts.last().is_some_and(ends_block) && random.one_in(2) {
        parts.push(Part::new(&anything(random, None)));
    }
    Some(Block::new(random, at, parts))
}

/// What varies is the last of its block, and so is what is no instruction.
fn ends_block(part: &Part) -> bool {
    let instruction = decode(&part.bytes, 0);
    instruction.is_invalid() || exempt::varying(&instruction).is_some()
}

/// The kinds that may be run.
pub fn runnable() -> &'static [Code] {
    static RUNNABLE: OnceLock<Vec<Code>> = OnceLock::new();
    RUNNABLE.get_or_init(|| {
        let mut random = Random::new(3000);
        let runs = |code: &Code| of_kind(&mut random, *code).is_some();
        opcode::all().iter().copied().filter(runs).collect()
    })
}

/// The kinds that may be run, that this CPU has, and that can complete in user mode.
fn completing() -> &'static [Code] {
    static COMPLETING: OnceLock<Vec<Code>> = OnceLock::new();
    COMPLETING.get_or_init(|| {
        let completes = |code: &Code| cpu::has(*code) && exempt::raises(*code).is_none();
        runnable().iter().copied().filter(completes).collect()
    })
}

/// The kinds that are never run, each with the reason; or none, when no bytes of that kind were found.
pub fn never_run() -> &'static HashMap<Code, Option<&'static str>> {
    static NEVER: OnceLock<HashMap<Code, Option<&'static str>>> = OnceLock::new();
    NEVER.get_or_init(|| {
        let mut random = Random::new(3001);
        let mut reason = |code: &Code| {
            if *code == Code::Syscall || runnable().contains(code) {
                return None;
            }
            let bytes = opcode::instruction(&mut random, *code);
            Some((*code, bytes.and_then(|bytes| exempt::never(&decode(&bytes, 0)))))
        };
        opcode::all().iter().filter_map(&mut reason).collect()
    })
}

/// One instruction of a kind, which may be run.
fn of_kind(random: &mut Random, code: Code) -> Option<Part> {
    (0..40).find_map(|_| {
        let bytes = opcode::instruction(random, code)?;
        exempt::never(&decode(&bytes, 0)).is_none().then(|| Part::new(&bytes))
    })
}

/// One instruction that is valid and may be run.
fn anything(random: &mut Random, opcode: Option<u8>) -> Vec<u8> {
    loop {
        let mut bytes = candidate(random, opcode);
        let instruction = decode(&bytes, 0);
        if instruction.is_invalid() || exempt::never(&instruction).is_some() {
            continue;
        }
        bytes.truncate(instruction.len());
        return bytes;
    }
}

/// Bytes that are no instruction, to anybody's knowledge: the CPU has the last word.
fn rubbish(random: &mut Random) -> Vec<u8> {
    loop {
        let bytes = candidate(random, None);
        let instruction = decode(&bytes, 0);
        if instruction.is_invalid() {
            return bytes;
        }
    }
}

/// Bytes that may be an instruction, and more than enough of them.
fn candidate(random: &mut Random, mut opcode: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    let kind = if opcode.is_some() { 7 } else { random.below(8) };
    match kind {
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
                bytes.push(random.choose(&[0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x3e, 0x65, 0x66, 0x36, 0x64]));
            }
            if random.one_in(2) {
                bytes.push(0x40 | random.byte() & 0xf);
            }
            match random.below(10) {
                _ if opcode.is_some() => {}
                0..=3 => {}
                4..=6 => bytes.push(0x0f),
                7 => bytes.extend([0x0f, random.choose(&[0x38, 0x3a])]),
                _ => opcode = Some(handled(random)),
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

/// An opcode of what the engine does itself: branches, flags, strings, stack, traps.
fn handled(random: &mut Random) -> u8 {
    match random.below(6) {
        0 => 0x70 | random.byte() & 0xf,
        1 => 0xe0 | random.byte() & 3,
        2 => random.choose(&[0xe8, 0xe9, 0xeb, 0xc2, 0xc3, 0xff, 0xca, 0xcb, 0xcf]),
        3 => random.choose(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6e]),
        4 => random.choose(&[0xcc, 0xcd, 0xf1, 0xf4, 0xfb, 0x8e, 0xc8, 0xc9, 0xf6, 0xf7, 0xd7]),
        _ => random.choose(&[0x90, 0x9c, 0x9d, 0xfa, 0xff]),
    }
}

/// Instructions that make sense together only; nobody branches into their middle.
fn sequence(random: &mut Random) -> Vec<Part> {
    let mut parts = match random.below(12) {
        0 => system_call(random),
        1 => flags(random),
        2 | 3 => computed_branch(random),
        4 => far_return(random),
        5 => interrupt_return(),
        6 | 7 => counted_loop(random),
        // mov eax, 0x2b; mov ss, eax
        8 => vec![Part::new(&[0xb8, 0x2b, 0, 0, 0]), Part::new(&[0x8e, 0xd0])],
        9 => saved_and_restored(random),
        10 => far_jump(random),
        // mov eax, 20 (getpid of the 32-bit interface); int 0x80
        _ => vec![Part::new(&[0xb8, 20, 0, 0, 0]), Part::new(&[0xcd, 0x80])],
    };
    for part in parts.iter_mut().skip(1) {
        part.is_target = false;
    }
    parts
}

/// A system call that changes nothing, or does not exist.
fn system_call(random: &mut Random) -> Vec<Part> {
    let numbers = [
        libc::SYS_getpid as u32,
        libc::SYS_gettid as u32,
        libc::SYS_getuid as u32,
        libc::SYS_getppid as u32,
        u32::MAX,
        12345,
    ];
    let number = random.choose(&numbers).to_le_bytes();
    let prefixes: &[u8] = random.choose(&[&[], &[0x48], &[0x66], &[0xf3]]);
    vec![
        Part::new(&[0xb8, number[0], number[1], number[2], number[3]]),
        Part::new(&[prefixes, &[0x0f, 0x05]].concat()),
        // not rcx: it is the address of code, which is no memory to be read.
        Part::new(&[0x48, 0xf7, 0xd1]),
    ]
}

/// Flags through the stack, TF and AC among them.
fn flags(random: &mut Random) -> Vec<Part> {
    let bit: u32 = random.choose(&[1 << 8, 1 << 8, 1 << 18, 1 << 10, 1 << 14, 1 << 21, 3 << 12, 1 << 9, 1]);
    let [a, b, c, d] = bit.to_le_bytes();
    let group = random.choose(&[0x0c, 0x34]); // or, xor
    let mut change = vec![0x81, group, 0x24, a, b, c, d];
    if random.one_in(3) {
        return vec![Part::new(&[0x66, 0x9c]), Part::new(&change), Part::new(&[0x66, 0x9d])];
    }
    change.insert(0, 0x48);
    vec![Part::new(&[0x9c]), Part::new(&change), Part::new(&[0x9d])]
}

/// lea reg, [later], and a branch there.
fn computed_branch(random: &mut Random) -> Vec<Part> {
    // Not one that others take for the address of data.
    let register = random.choose(&[0, 1, 2]);
    let lea = Part::aimed(&[0x48, 0x8d, 5 | register << 3, 0, 0, 0, 0], Aim::Later);
    let push = Part::new(&[0x50 | register]);
    let rest: Vec<Part> = match random.below(8) {
        0 => vec![Part::new(&[0xff, 0xe0 | register])],
        1 => vec![Part::new(&[0xff, 0xd0 | register])],
        2 => vec![push, Part::new(&[0xff, 0x24, 0x24])],
        3 => vec![push, Part::new(&[0xff, 0x14, 0x24])],
        4 => vec![push, Part::new(&[0xc2, random.byte() & 0x38, 0])],
        5 => vec![push, Part::new(&[0xf3, 0xc3])],
        6 => vec![push, Part::new(&[0xf2, 0xff, 0x24, 0x24])],
        _ => vec![push, Part::new(&[0xc3])],
    };
    [lea].into_iter().chain(rest).collect()
}

/// push 0x33; lea rax, [later]; push rax; retf
fn far_return(random: &mut Random) -> Vec<Part> {
    let code_segment = if random.one_in(4) { random.byte() & 0x7f } else { 0x33 };
    let ret: &[u8] = if random.one_in(2) {
        &[0x48, 0xcb]
    } else {
        &[0x48, 0xca, 8, 0]
    };
    vec![
        Part::new(&[0x6a, code_segment]),
        Part::aimed(&[0x48, 0x8d, 0x05, 0, 0, 0, 0], Aim::Later),
        Part::new(&[0x50]),
        Part::new(ret),
    ]
}

/// mov rax, rsp; push 0x2b; push rax; pushfq; push 0x33; lea rax, [later]; push rax; iretq
fn interrupt_return() -> Vec<Part> {
    vec![
        Part::new(&[0x48, 0x89, 0xe0]),
        Part::new(&[0x6a, 0x2b]),
        Part::new(&[0x50]),
        Part::new(&[0x9c]),
        Part::new(&[0x6a, 0x33]),
        Part::aimed(&[0x48, 0x8d, 0x05, 0, 0, 0, 0], Aim::Later),
        Part::new(&[0x50]),
        Part::new(&[0x48, 0xcf]),
    ]
}

/// lea rax, [later]; push 0x33; push rax; jmp or call far [rsp]. AMD's processors have no 64-bit offsets there.
fn far_jump(random: &mut Random) -> Vec<Part> {
    let how = random.choose(&[0x2c, 0x1c]);
    let wide: &[u8] = random.choose(&[&[0x48], &[]]);
    vec![
        Part::aimed(&[0x48, 0x8d, 0x05, 0, 0, 0, 0], Aim::Later),
        Part::new(&[0x6a, 0x33]),
        Part::new(&[0x50]),
        Part::new(&[wide, &[0xff, how, 0x24]].concat()),
    ]
}

/// mov ecx, 1 to 4; something that leaves RCX alone; loop back to it
fn counted_loop(random: &mut Random) -> Vec<Part> {
    let body = loop {
        let bytes = anything(random, None);
        let instruction = decode(&bytes, 0);
        let mut factory = InstructionInfoFactory::new();
        let writes_rcx = factory.info(&instruction).used_registers().iter().any(|used| {
            used.register().full_register() == Register::RCX
                && !matches!(
                    used.access(),
                    OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                )
        });
        if !writes_rcx
            && instruction.flow_control() == FlowControl::Next
            && !instruction.is_ip_rel_memory_operand()
            && exempt::varying(&instruction).is_none()
        {
            break bytes;
        }
    };
    let (opcode, len) = (random.choose(&[0xe2, 0xe2, 0xe1, 0xe0]), body.len());
    let prefix: &[u8] = random.choose(&[&[], &[], &[0x67], &[0x48]]);
    let count = 1 + random.below(4) as u8;
    vec![
        Part::new(&[0xb9, count, 0, 0, 0]),
        Part::new(&body),
        Part::aimed(&[prefix, &[opcode, 0]].concat(), Aim::Back(1)),
    ]
    .into_iter()
    .inspect(|part| debug_assert!(part.bytes.len() <= 15 && len <= 15))
    .collect()
}

/// mov eax, 7; xor edx, edx; and the state from the image.
fn restored(instruction: &[u8]) -> Vec<Part> {
    vec![
        Part::new(&[0xb8, 7, 0, 0, 0]),
        Part::new(&[0x31, 0xd2]),
        Part::aimed(instruction, Aim::Image),
    ]
}

/// The vector and x87 state to memory, and back again from there.
fn saved_and_restored(random: &mut Random) -> Vec<Part> {
    let mask = Part::new(&[0xb8, random.byte() & 7, 0, 0, 0]); // mov eax, components
    let high = Part::new(&[0x31, 0xd2]); // xor edx, edx
    let aligned = |bytes: &[u8]| Part::aimed(bytes, Aim::Aligned);
    match random.below(4) {
        // FXRSTOR, XRSTOR, of anything or of an image.
        0 => vec![aligned(&[0x48, 0x0f, 0xae, 0x0d, 0, 0, 0, 0])],
        1 => vec![mask, high, aligned(&[0x48, 0x0f, 0xae, 0x2d, 0, 0, 0, 0])],
        // FXSAVE, XSAVE.
        2 => vec![aligned(&[0x48, 0x0f, 0xae, 0x05, 0, 0, 0, 0])],
        _ => vec![mask, high, aligned(&[0x48, 0x0f, 0xae, 0x25, 0, 0, 0, 0])],
    }
}
