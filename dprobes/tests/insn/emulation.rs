//! Emulated instructions against the real CPU, and what only privileged code can do against the manual.

use crate::model::{Model, Outside, register_of};
use crate::native::{CODE_SIZE, DATA_SIZE, Native, Outcome, Registers};
use crate::random::Random;
use dprobes::insn::{EmulateError, Emulation, Gpr, Insn, Resume, StepKind};
use iced_x86::{Decoder, DecoderOptions, OpKind, Register};

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;
const IOPL: u64 = 3 << 12;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;
const AC: u64 = 1 << 18;
const ID: u64 = 1 << 21;

fn emulation(bytes: &[u8]) -> Emulation {
    let insn = Insn::decode(bytes).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"));
    assert_eq!(insn.len(), bytes.len(), "{bytes:02x?}");
    match insn.resume() {
        Ok(Resume::Emulate(emulation)) => emulation,
        other => panic!("{bytes:02x?} is not emulated: {other:?}"),
    }
}

/// The fields that an instruction can change, to compare and to show.
fn state(registers: &Registers) -> Vec<(&'static str, u64)> {
    let names = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    ];
    let mut copy = *registers;
    let mut state: Vec<_> = names
        .iter()
        .zip(Gpr::ALL)
        .map(|(name, register)| (*name, *register_of(&mut copy, register)))
        .collect();
    state.push(("rip", registers.rip));
    // The CPU sets RF in the flags it saves for a fault; ptrace shows it.
    state.push(("rflags", registers.eflags & !RF));
    state
}

/// Runs an instruction on the CPU and by emulation from the same state; both have to end alike, in registers and
/// memory.
fn compare(native: &mut Native, bytes: &[u8], registers: Registers) -> Outcome {
    let emulation = emulation(bytes);
    let registers = native.set_registers(registers);
    let before = native.data().to_vec();
    let mut model = Model {
        registers,
        data_address: native.data_address(),
        data: before.clone(),
        privilege_level: 3,
    };
    let emulated = emulation.run(native.start(), &mut model);
    let (outcome, after) = native.run(bytes);
    let context = || format!("{bytes:02x?} from {:x?}: emulated {emulated:x?}", state(&registers));
    match outcome {
        Outcome::Completed => assert_eq!(emulated, Ok(()), "the CPU completes {}", context()),
        Outcome::Faulted(_) => assert!(emulated.is_err(), "the CPU faults at {}", context()),
    }
    for (cpu, ours) in state(&after).into_iter().zip(state(&model.registers)) {
        assert_eq!(cpu, ours, "the CPU and we after {}", context());
    }
    assert!(native.data() == model.data.as_slice(), "memory after {}", context());
    if emulated.is_err() {
        assert!(model.data == before, "memory changed by the failed {}", context());
    }
    native.data().copy_from_slice(&before);
    outcome
}

/// Registers with recognisable values and a stack in the middle of the data.
fn registers(native: &Native, random: &mut Random) -> Registers {
    let mut registers = native.registers();
    for register in Gpr::ALL {
        *register_of(&mut registers, register) = random.next();
    }
    registers.rsp = native.data_address() + (DATA_SIZE / 2) as u64;
    registers.eflags = random.next() & (CF | PF | AF | ZF | SF | OF | DF) | IF | 2;
    registers.fs_base = native.data_address() - 0x1000;
    registers.gs_base = native.data_address() - 0x2000;
    registers
}

/// A place in the code that is not the instruction itself.
fn code_address(native: &Native, random: &mut Random) -> u64 {
    let low = native.start() - (CODE_SIZE / 2) as u64;
    loop {
        let address = low + random.below(CODE_SIZE as u64 - 1);
        if !(native.start()..native.start() + 15).contains(&address) {
            return address;
        }
    }
}

/// Prefixes that a near branch or `nop` ignores, and REX.W after 66, which cancels it.
const IGNORED: &[&[u8]] = &[
    &[],
    &[0xf2],
    &[0xf3],
    &[0x2e],
    &[0x3e],
    &[0x40],
    &[0x48],
    &[0x4f],
    &[0x66, 0x48],
    &[0x64],
    &[0x26, 0xf2, 0x48],
];

#[test]
fn conditional_jumps_under_all_flags() {
    let mut native = Native::new();
    let mut random = Random(1);
    for condition in 0..16 {
        for combination in 0..64u64 {
            let flag = |bit: u64, flag: u64| if combination >> bit & 1 != 0 { flag } else { 0 };
            let flags = flag(0, CF) | flag(1, PF) | flag(2, AF) | flag(3, ZF) | flag(4, SF) | flag(5, OF);
            let mut registers = registers(&native, &mut random);
            registers.eflags = flags | 2;
            let prefixes = random.pick(IGNORED);
            // A displacement of at least 0 to either side of the instruction.
            let short = random.pick(&[0x10, 0x7f, 0x80, 0xc0]);
            assert_eq!(
                compare(&mut native, &[prefixes, &[0x70 | condition, short]].concat(), registers),
                Outcome::Completed
            );
            let near = random.pick(&[0x100i32, 0x7_0000, -0x7_0000, -0x20]).to_le_bytes();
            let bytes = [prefixes, &[0x0f, 0x80 | condition], &near].concat();
            assert_eq!(compare(&mut native, &bytes, registers), Outcome::Completed);
        }
    }
}

#[test]
fn loops_and_counters() {
    let mut native = Native::new();
    let mut random = Random(2);
    let counts = [
        0,
        1,
        2,
        0xffff,
        0x1_0000,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x1_0000_0002,
        0xffff_ffff_0000_0000,
        0xffff_ffff_0000_0001,
        u64::MAX,
        1 << 63,
    ];
    for opcode in 0xe0..=0xe3 {
        for count in counts {
            for flags in [0, ZF, ZF | CF | SF, CF | OF] {
                for size in [&[][..], &[0x67]] {
                    for prefixes in IGNORED {
                        let mut registers = registers(&native, &mut random);
                        registers.rcx = count;
                        registers.eflags = flags | 2;
                        let displacement = random.pick(&[0x10, 0x7f, 0x80, 0xc0]);
                        let bytes = [size, prefixes, &[opcode, displacement]].concat();
                        let has_f2_or_f3 = prefixes.iter().any(|byte| matches!(byte, 0xf2 | 0xf3));
                        if has_f2_or_f3 && matches!(opcode, 0xe0 | 0xe1) {
                            let insn = Insn::decode(&bytes).expect("a loop");
                            assert_eq!(insn.resume(), Ok(Resume::Step(StepKind::Rebase)), "{bytes:02x?}");
                            continue;
                        }
                        assert_eq!(compare(&mut native, &bytes, registers), Outcome::Completed);
                    }
                }
            }
        }
    }
}

#[test]
fn direct_calls_and_jumps() {
    let mut native = Native::new();
    let mut random = Random(3);
    for _ in 0..2000 {
        let mut registers = registers(&native, &mut random);
        let prefixes = random.pick(IGNORED);
        let near = random.pick(&[0x100i32, 0x7_0000, -0x7_0000, -0x20]).to_le_bytes();
        let short = random.pick(&[0x10, 0x7f, 0x80, 0xc0]);
        // Now and then no stack: the call faults and must not have jumped.
        if random.below(4) == 0 {
            registers.rsp = native.data_address() + random.pick(&[0u64, 4, 8, 7]);
        }
        compare(&mut native, &[prefixes, &[0xe8], &near].concat(), registers);
        compare(&mut native, &[prefixes, &[0xe9], &near].concat(), registers);
        compare(&mut native, &[prefixes, &[0xeb, short]].concat(), registers);
    }
}

#[test]
fn returns() {
    let mut native = Native::new();
    let mut random = Random(4);
    let mut faults = 0;
    for round in 0..4000u64 {
        let mut registers = registers(&native, &mut random);
        let offset = random.pick(&[0, 8, 1000, 1001, 2048, DATA_SIZE - 8, DATA_SIZE - 4, DATA_SIZE]);
        registers.rsp = native.data_address() + offset as u64;
        let target = match round % 8 {
            0 => 0x8000_0000_0000,      // the first that is not canonical
            1 => 0xffff_7fff_ffff_ffff, // the last
            2 => 0xffff_8000_0000_0000, // canonical, the kernel's
            _ => code_address(&native, &mut random),
        };
        if let Some(top) = native.data().get_mut(offset..offset + 8) {
            top.copy_from_slice(&target.to_le_bytes());
        }
        let prefixes = random.pick(IGNORED);
        let release = random.pick(&[0u16, 8, 0x10, 0x7fff, 0x8000, 0xffff]).to_le_bytes();
        for bytes in [[prefixes, &[0xc3]].concat(), [prefixes, &[0xc2], &release].concat()] {
            faults += u32::from(compare(&mut native, &bytes, registers) != Outcome::Completed);
        }
    }
    assert!(faults > 1000, "the faulting cases did not fault");
}

#[test]
fn indirect_calls_and_jumps_through_registers() {
    let mut native = Native::new();
    let mut random = Random(5);
    for round in 0..4000u64 {
        let mut registers = registers(&native, &mut random);
        let number = random.byte() & 15;
        let rex = 0x40 | random.byte() & 0xe | number >> 3;
        let modrm = random.pick(&[0xd0, 0xe0]) | number & 7;
        let target = match round % 8 {
            0 => 0x8000_0000_0000,
            1 => random.next(),
            _ => code_address(&native, &mut random),
        };
        // Through RSP the target is where the stack is: not executable, so the fetch faults, after the branch.
        if number != 4 {
            *register_of(&mut registers, Gpr::from_number(number)) = target;
        }
        compare(&mut native, &[rex, 0xff, modrm], registers);
    }
}

#[test]
fn indirect_calls_and_jumps_through_memory() {
    let mut native = Native::new();
    let mut random = Random(6);
    let mut completed = 0;
    const ROUNDS: u32 = 40_000;
    for _ in 0..ROUNDS {
        let mut registers = registers(&native, &mut random);
        for byte in native.data().chunks_exact_mut(8) {
            byte.copy_from_slice(&[0; 8]);
        }
        let prefixes = random.pick(&[
            &[][..],
            &[0x67],
            &[0x64],
            &[0x65],
            &[0x2e],
            &[0x64, 0x67],
            &[0x65, 0x3e],
            &[0x64, 0x65],
        ]);
        let rex = 0x40 | random.byte() & 15;
        let modrm = random.byte() & 0xc7 | random.pick(&[0x10, 0x20]);
        if modrm >= 0xc0 {
            continue;
        }
        let sib = random.byte();
        // Enough for any form; cut to its length below.
        let mut bytes = [prefixes, &[rex, 0xff, modrm, sib, 0, 0, 0, 0, 0]].concat();
        let length = Insn::decode(&bytes).expect("an indirect branch").len();
        bytes.truncate(length);
        let field = Insn::decode(&bytes).expect("the same").displacement();
        let displacement = if field.size == 1 {
            random.byte() as i8 as i32
        } else {
            random.next() as i32 >> random.below(24)
        };
        set_displacement(&mut bytes, field.start, field.size, displacement);
        aim(&native, &mut random, &mut bytes, &mut registers);
        // A target wherever the operand may be.
        let target = if random.below(16) == 0 {
            random.next()
        } else {
            code_address(&native, &mut random)
        };
        for (n, quad) in native.data().chunks_exact_mut(8).enumerate() {
            quad.copy_from_slice(&(target + (n as u64 & 1)).to_le_bytes());
        }
        completed += u32::from(compare(&mut native, &bytes, registers) == Outcome::Completed);
    }
    assert!(completed > ROUNDS / 4, "only {completed} operands were in reach");
}

fn set_displacement(bytes: &mut [u8], start: u8, size: u8, value: i32) {
    bytes[usize::from(start)..][..usize::from(size)].copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
}

/// Changes a register or the displacement so that the operand lies in the data, as far as that can be done.
fn aim(native: &Native, random: &mut Random, bytes: &mut [u8], registers: &mut Registers) {
    let wanted = native.data_address() + random.below(DATA_SIZE as u64 / 8) * 8;
    let decode = |bytes: &[u8]| Decoder::with_ip(64, bytes, native.start(), DecoderOptions::NONE).decode();
    let address = |bytes: &[u8], registers: &Registers| {
        let value = |register: Register, _, _| {
            Some(match register {
                Register::FS => registers.fs_base,
                Register::GS => registers.gs_base,
                _ if register.is_segment_register() => 0,
                _ => {
                    let full = *register_of(&mut registers.clone(), Gpr::from_number(register.number() as u8));
                    if register.is_gpr32() { full & 0xffff_ffff } else { full }
                }
            })
        };
        decode(bytes).virtual_address(0, 0, value).expect("an address")
    };
    let insn = decode(bytes);
    assert_eq!(insn.op0_kind(), OpKind::Memory);
    let gap = wanted.wrapping_sub(address(bytes, registers));
    let base = insn.memory_base();
    if base.is_gpr64() || base.is_gpr32() {
        let register = register_of(registers, Gpr::from_number(base.number() as u8));
        *register = register.wrapping_add(gap);
        // The upper half must not matter with 32-bit addresses, so it is left as it is; without them it may be what
        // is wrong.
    } else if insn.memory_displ_size() >= 4 {
        let field = Insn::decode(bytes).expect("decoded before").displacement();
        let now = i32::from_le_bytes(bytes[usize::from(field.start)..][..4].try_into().expect("4 bytes"));
        if insn.memory_index() != Register::None {
            // An index alone: small enough to be reached.
            *register_of(registers, Gpr::from_number(insn.memory_index().number() as u8)) &= 0xff;
        }
        let gap = wanted.wrapping_sub(address(bytes, registers)) as i32;
        set_displacement(bytes, field.start, field.size, now.wrapping_add(gap));
    }
}

#[test]
fn nops_do_nothing() {
    let mut native = Native::new();
    let mut random = Random(7);
    for prefixes in [
        &[][..],
        &[0x66],
        &[0xf2],
        &[0x66, 0x66, 0x2e],
        &[0x48],
        &[0x4e],
        &[0x67],
        &[0x64, 0x66],
    ] {
        let registers = registers(&native, &mut random);
        assert_eq!(
            compare(&mut native, &[prefixes, &[0x90]].concat(), registers),
            Outcome::Completed
        );
        for modrm in 0..=255 {
            let mut bytes = [prefixes, &[0x0f, 0x1f, modrm, 0x24, 1, 2, 3, 4]].concat();
            bytes.truncate(Insn::decode(&bytes).expect("a nop").len());
            assert_eq!(compare(&mut native, &bytes, registers), Outcome::Completed);
        }
        for modrm in [0xfa, 0xfb] {
            let bytes = [prefixes, &[0xf3, 0x0f, 0x1e, modrm]].concat();
            assert_eq!(compare(&mut native, &bytes, registers), Outcome::Completed);
        }
    }
}

#[test]
fn flags_pushed_and_popped_by_a_user() {
    let mut native = Native::new();
    let mut random = Random(8);
    for _ in 0..4000 {
        let mut registers = registers(&native, &mut random);
        registers.eflags = random.next() & (CF | PF | AF | ZF | SF | OF | DF | NT | AC | ID) | IF | 2;
        registers.rsp = native.data_address() + random.pick(&[0u64, 1, 2, 8, 1000, 1003, 2048, 4088, 4091, 4094, 4096]);
        if !registers.rsp.is_multiple_of(8) {
            // #AC, which is not emulated.
            registers.eflags &= !AC;
        }
        // Everything but TF, which would trap in the child after the next instruction.
        for quad in native.data().chunks_exact_mut(8) {
            quad.copy_from_slice(&(random.next() & !TF).to_le_bytes());
        }
        let prefixes = random.pick(&[
            &[][..],
            &[0x66],
            &[0x48],
            &[0x66, 0x48],
            &[0x48, 0x66],
            &[0x67],
            &[0xf3],
            &[0x66, 0x40],
        ]);
        // An unaligned stack could have TF in the image.
        let offset = (registers.rsp - native.data_address()) as usize;
        if let Some(byte) = native.data().get_mut(offset + 1) {
            *byte &= !1;
        }
        compare(&mut native, &[prefixes, &[0x9c]].concat(), registers);
        compare(&mut native, &[prefixes, &[0x9d]].concat(), registers);
    }
}

#[test]
fn cli_is_not_for_users() {
    let mut native = Native::new();
    let registers = registers(&native, &mut Random(9));
    assert_ne!(compare(&mut native, &[0xfa], registers), Outcome::Completed);
}

/// A model at privilege level 0, for what a process cannot try. Its data is at 0x1000; expectations are those of the
/// SDM.
fn kernel_model(rflags: u64) -> Model {
    // SAFETY: integers only, for which zeros are valid.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    registers.eflags = rflags;
    registers.rsp = 0x1100;
    Model {
        registers,
        data_address: 0x1000,
        data: vec![0; 0x200],
        privilege_level: 0,
    }
}

#[test]
fn cli_clears_if_alone() {
    let mut model = kernel_model(!RF);
    assert_eq!(emulation(&[0xfa]).run(0x40, &mut model), Ok(()));
    assert_eq!((model.registers.eflags, model.registers.rip), (!RF & !IF, 0x41));
}

/// SDM volume 2, POPF, table "Effect of POPF/POPFD on the EFLAGS Register": per privilege level and IOPL what a pop
/// changes.
#[test]
fn popf_changes_what_the_privilege_level_allows() {
    let always = CF | PF | AF | ZF | SF | TF | DF | OF | NT | AC | ID;
    for (level, iopl, extra) in [
        (0, 0, IF | IOPL),
        (0, 3, IF | IOPL),
        (1, 0, 0),
        (1, 1, IF),
        (2, 3, IF),
        (3, 0, 0),
        (3, 2, 0),
        (3, 3, IF),
    ] {
        for (bytes, reach, size) in [(&[0x9d][..], u64::MAX, 8), (&[0x66, 0x9d], 0xffff, 2)] {
            for (old, image) in [(u64::MAX, 0u64), (0, u64::MAX)] {
                let mut model = kernel_model(old & !IOPL & !RF | iopl << 12);
                model.privilege_level = level;
                model.data[0x100..0x108].copy_from_slice(&image.to_le_bytes());
                let before = model.registers.eflags;
                assert_eq!(emulation(bytes).run(0x40, &mut model), Ok(()));
                let changeable = (always | extra) & reach;
                let expected = before & !changeable | image & changeable | 2;
                assert_eq!(
                    model.registers.eflags, expected,
                    "level {level}, IOPL {iopl}, {bytes:02x?}, {image:#x}"
                );
                assert_eq!(model.registers.rsp, 0x1100 + size);
            }
        }
    }
}

#[test]
fn pushf_leaves_out_rf_and_vm() {
    let mut model = kernel_model(u64::MAX);
    assert_eq!(emulation(&[0x9c]).run(0x40, &mut model), Ok(()));
    assert_eq!(model.registers.rsp, 0x10f8);
    let image = u64::from_le_bytes(model.data[0xf8..0x100].try_into().expect("8 bytes"));
    assert_eq!(image, !(RF | 1 << 17));
    assert_eq!(model.registers.eflags & RF, 0, "RF is clear after any instruction");
}

#[test]
fn failures_say_where_and_change_nothing() {
    let mut model = kernel_model(2);
    model.registers.rsp = 0x9000;
    let before = model.clone();
    let fault = |address| {
        Err(EmulateError::Memory {
            address,
            fault: Outside,
        })
    };
    assert_eq!(emulation(&[0xc3]).run(0x40, &mut model), fault(0x9000));
    assert_eq!(emulation(&[0xe8, 0, 0, 0, 0]).run(0x40, &mut model), fault(0x8ff8));
    assert_eq!(emulation(&[0xff, 0x25, 0, 0, 0, 0]).run(0x40, &mut model), fault(0x46));
    assert_eq!(emulation(&[0x9c]).run(0x40, &mut model), fault(0x8ff8));
    let last_user = 0x7fff_ffff_fff0;
    assert_eq!(
        emulation(&[0xeb, 0x7f]).run(last_user, &mut model),
        Err(EmulateError::NonCanonical {
            target: last_user + 2 + 0x7f
        })
    );
    assert_eq!(state(&model.registers), state(&before.registers));
    assert_eq!(model.data, before.data);
}
