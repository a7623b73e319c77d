//! Copies of real instructions in a slot, run on the CPU beside the originals: by a jump back, and by a single step.

use crate::binaries;
use crate::model::register_of;
use crate::native::{DATA_SIZE, Native, Outcome, Registers};
use crate::random::Random;
use dprobes::insn::{Gpr, Insn, Resume, StepKind, jump};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::collections::HashSet;

/// The slot, from the original.
const SLOT: usize = 0x1000;

/// Everything that an instruction can change.
#[derive(PartialEq)]
struct State {
    outcome: Outcome,
    registers: Vec<u64>,
    extended: Vec<u8>,
    data: Vec<u8>,
}

impl State {
    fn of(native: &mut Native, outcome: Outcome, registers: &Registers) -> State {
        let mut extended = native.extended_state();
        // The last x87 opcode, its address and its operand's, which a copy has from its slot.
        extended[6..24].fill(0);
        // XSTATE_BV: whether the CPU noticed that a component has its initial value, which it need not.
        extended[512..520].fill(0);
        let mut all = *registers;
        let mut registers: Vec<_> = Gpr::ALL
            .into_iter()
            .map(|register| *register_of(&mut all, register))
            .collect();
        // RF is set in the flags that are saved for a fault; TF is still set after a fault in a step.
        registers.extend([
            all.rip,
            all.eflags & !(1 << 16 | 1 << 8),
            all.fs_base,
            all.gs_base,
            all.fs,
            all.gs,
            all.ds,
            all.es,
        ]);
        State {
            outcome,
            registers,
            extended,
            data: native.data().to_vec(),
        }
    }

    fn check(&self, other: &State, what: &str, insn: &Insn, resume: Resume) {
        let context = || format!("{insn:?}, {resume:x?}, {what}");
        assert_eq!(self.outcome, other.outcome, "{}", context());
        assert_eq!(
            format!("{:x?}", self.registers),
            format!("{:x?}", other.registers),
            "{}",
            context()
        );
        assert!(self.extended == other.extended, "extended state: {}", context());
        assert!(self.data == other.data, "memory: {}", context());
    }
}

/// Instructions whose result differs from run to run, or that leave the machine (hypercalls).
fn is_repeatable(insn: &Insn) -> bool {
    use Mnemonic as M;
    let theirs = Decoder::new(64, insn.bytes(), DecoderOptions::NONE).decode();
    let name = format!("{:?}", theirs.mnemonic());
    let varies = matches!(
        theirs.mnemonic(),
        M::Rdtsc
            | M::Rdtscp
            | M::Rdpid
            | M::Rdrand
            | M::Rdseed
            | M::Rdpmc
            | M::Cpuid
            | M::Vmcall
            | M::Vmmcall
            | M::Tpause
            | M::Umwait
    );
    // Linux emulates these for a process, and then forgets that it was single-stepped.
    let emulated = matches!(theirs.mnemonic(), M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw);
    !varies && !emulated && !name.starts_with("Xsave") && !name.starts_with("Fxsave")
}

/// One of each kind of instruction in real code: those that differ only in displacements and immediates are one kind.
fn samples() -> Vec<Insn> {
    let mut seen = HashSet::new();
    let mut samples = Vec::new();
    for binary in binaries::all() {
        for section in &binary.sections {
            let mut at = 0;
            while at < section.len() {
                let Ok(insn) = Insn::decode(&section[at..]) else {
                    at += 1;
                    continue;
                };
                at += insn.len();
                let mut kind = insn.bytes().to_vec();
                for field in [insn.displacement(), insn.immediate()] {
                    kind[usize::from(field.start)..][..usize::from(field.size)].fill(0);
                }
                if seen.insert(kind) && is_repeatable(&insn) {
                    samples.push(insn);
                }
            }
        }
    }
    samples
}

/// The instruction with another 32-bit displacement, by which its operand lies in the data more often than not.
fn aimed(insn: &Insn, native: &Native, random: &mut Random) -> Insn {
    let field = insn.displacement();
    if field.size != 4 {
        return *insn;
    }
    let operand = native.data_address() + random.below(DATA_SIZE as u64 - 64);
    let displacement = match random.below(2) {
        _ if insn.is_rip_relative() => operand.wrapping_sub(native.start() + insn.len() as u64),
        0 => operand,
        _ => random.below(256),
    };
    let mut bytes = insn.bytes().to_vec();
    bytes[usize::from(field.start)..][..4].copy_from_slice(&(displacement as u32).to_le_bytes());
    Insn::decode(&bytes).expect("the same instruction")
}

/// Registers to start with; segments from `initial`, because an instruction may have left what ptrace does not set.
fn registers(native: &Native, initial: &Registers, random: &mut Random) -> Registers {
    let mut registers = *initial;
    for register in Gpr::ALL {
        // Mostly addresses of data, so that memory operands are met; some counts and numbers.
        let value = match random.below(8) {
            0 => random.next(),
            1 => random.below(64),
            _ => native.data_address() + 64 * random.below(DATA_SIZE as u64 / 64),
        };
        *register_of(&mut registers, register) = value;
    }
    registers.rsp = native.data_address() + (DATA_SIZE / 2) as u64;
    registers.eflags = random.next() & 0xcd5 | 0x202;
    registers.fs_base = native.data_address() - 0x100;
    registers.gs_base = native.data_address() + 0x100;
    registers
}

/// A test bench: what every run of one instruction starts from.
struct Bench {
    native: Native,
    random: Random,
    initial: Registers,
    extended: Vec<u8>,
}

impl Bench {
    fn reset(&mut self, registers: Registers, data: &[u8]) {
        self.native.data().copy_from_slice(data);
        self.native.set_extended_state(&self.extended);
        self.native.set_registers(registers);
    }
}

#[derive(Default, Debug)]
struct Counts {
    copied: u32,
    stepped: u32,
    faulted: u32,
    refused: u32,
}

#[test]
fn copies_have_the_effect_of_the_originals() {
    let native = Native::new();
    let (initial, extended) = (native.registers(), native.extended_state());
    let mut bench = Bench {
        native,
        random: Random(11),
        initial,
        extended,
    };
    let mut counts = Counts::default();
    let samples = samples();
    for insn in &samples {
        compare(&mut bench, insn, &mut counts);
    }
    println!("of {} kinds of instructions: {counts:?}", samples.len());
    assert!(counts.copied > 10_000 && counts.stepped > 10_000, "{counts:?}");
}

fn compare(bench: &mut Bench, insn: &Insn, counts: &mut Counts) {
    let insn = aimed(insn, &bench.native, &mut bench.random);
    let Ok(resume) = insn.resume() else {
        counts.refused += 1;
        return;
    };
    let start = bench.native.start();
    let slot = start + SLOT as u64;
    let registers = registers(&bench.native, &bench.initial, &mut bench.random);
    let mut data = vec![0; DATA_SIZE];
    for (n, quad) in data.chunks_exact_mut(8).enumerate() {
        // Branch targets and numbers.
        let value = if n % 2 == 0 {
            start + 0x2000 + bench.random.below(0x1000)
        } else {
            bench.random.next()
        };
        quad.copy_from_slice(&value.to_le_bytes());
    }

    bench.reset(registers, &data);
    bench.native.place(0, insn.bytes());
    let (outcome, after) = bench.native.step_from(0, insn.repeats());
    bench.native.clear(0, insn.len());
    let original = State::of(&mut bench.native, outcome, &after);
    counts.faulted += u32::from(outcome != Outcome::Completed);
    if outcome != Outcome::Completed && !(insn.may_fault() || insn.raises()) {
        panic!("{insn:?} faulted and cannot");
    }

    let copy = insn.relocate(start, slot).expect("in reach");
    if resume == Resume::Copy {
        let next = start + insn.len() as u64;
        let back = jump(slot + insn.len() as u64, next).expect("in reach");
        bench.native.place(SLOT, &[copy.bytes(), &back].concat());
        bench.reset(registers, &data);
        let (outcome, mut after) = bench.native.run_from(SLOT);
        if outcome != Outcome::Completed {
            after.rip -= SLOT as u64;
        }
        State::of(&mut bench.native, outcome, &after).check(&original, "jump back", &insn, resume);
        bench.native.clear(SLOT, insn.len() + back.len());
        counts.copied += 1;
    }

    let Ok(kind) = insn.step() else { return };
    bench.native.place(SLOT, copy.bytes());
    bench.reset(registers, &data);
    let (outcome, mut after) = bench.native.step_from(SLOT, insn.repeats());
    let completed = outcome == Outcome::Completed;
    if !completed || matches!(kind, StepKind::Rebase | StepKind::RebaseAndReturnAddress) {
        after.rip -= SLOT as u64;
    }
    if completed && matches!(kind, StepKind::ReturnAddress | StepKind::RebaseAndReturnAddress) {
        let top = (after.rsp - bench.native.data_address()) as usize;
        let bytes = &mut bench.native.data()[top..top + 8];
        let pushed = u64::from_le_bytes((&*bytes).try_into().expect("8 bytes"));
        bytes.copy_from_slice(&(pushed - SLOT as u64).to_le_bytes());
    }
    State::of(&mut bench.native, outcome, &after).check(&original, "step", &insn, resume);
    bench.native.clear(SLOT, insn.len());
    counts.stepped += 1;
}
