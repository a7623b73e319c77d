//! What `sti` and `mov ss` hold off stays held off, whichever instructions have probes, and whatever comes next.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootimage::fault::{fix_up_of, probe_read};
use bootimage::segments::KERNEL_DS;
use bootimage::sync::IrqMutex;
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{apic, cpu_id, println, smp};
use engine::host::Host as _;
use engine::insn::{Insn, Shadow};
use test_support::{Registers, call_with, engine, insert, instructions, records, remove, targets};

bootimage::test_main! { requires: "cpus=2 time_limit_s=240", tests: [
    an_interrupt_waits_for_the_next_instruction,
    a_wake_up_is_not_lost,
    programs_see_what_casts_the_shadow_done,
    a_program_may_leave_the_shadow,
    a_fault_in_the_shadow_is_the_second_instructions,
    a_fault_of_the_first_undoes_both,
    nothing_comes_between_mov_ss_and_the_next_instruction,
    a_step_of_sti_sees_both_instructions,
] }

/// The interrupt that is pending when a function is called.
const VECTOR: u8 = 0x50;
const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;

// Called with interrupts off and an interrupt pending, and all must leave them off. R8 says how far they have come.
targets! { TARGETS:
    mov: "xor r8d, r8d" "sti" "mov r8d, 1" "mov r8d, 2" "cli" "ret";
    memory: "xor r8d, r8d" "sti" "mov r8, [rip + 1f]" "mov r8d, 2" "cli" "ret" ".pushsection .data" ".balign 8" "1: .quad 77" ".popsection";
    prefixed: "xor r8d, r8d" ".byte 0x66, 0x2e, 0x48, 0xfb" "mov r8d, 1" "mov r8d, 2" "cli" "ret";
    ret: "call 1f" "mov r8d, 2" "cli" "ret" "1: xor r8d, r8d" "sti" "ret";
    ret_imm: "push 5" "call 1f" "mov r8d, 2" "cli" "ret" "1: xor r8d, r8d" "sti" "ret 8";
    call: "xor r8d, r8d" "sti" "call 1f" "mov r8d, 2" "cli" "ret" "1: mov r8d, 1" "ret";
    call_register: "lea r9, [rip + 1f]" "sti" "call r9" "mov r8d, 2" "cli" "ret" "1: mov r8d, 1" "ret";
    call_memory: "xor r8d, r8d" "sti" "call [rip + 2f]" "mov r8d, 2" "cli" "ret" "1: mov r8d, 1" "ret"
        ".pushsection .rodata" ".balign 8" "2: .quad 1b" ".popsection";
    call_fs: "xor r8d, r8d" "sti" "call fs:[2f]" "mov r8d, 2" "cli" "ret" "1: mov r8d, 1" "ret"
        ".pushsection .rodata" ".balign 8" "2: .quad 1b" ".popsection";
    far_call: "xor r8d, r8d" "sti" ".byte 0x48; call fword ptr [rip + 2f]" "mov r8d, 2" "cli" "ret"
        "1: mov r9, [rsp]" "mov r10, [rsp + 8]" ".byte 0x48; retf"
        ".pushsection .data" ".balign 8" "2: .quad 1b; .word 8" ".popsection";
    jmp: "xor r8d, r8d" "sti" "jmp 1f" "nop" "1: mov r8d, 2" "cli" "ret";
    jmp_fs: "xor r8d, r8d" "sti" "jmp fs:[2f]" "nop" "1: mov r8d, 2" "cli" "ret" ".pushsection .rodata" ".balign 8" "2: .quad 1b" ".popsection";
    far_jmp: "xor r8d, r8d" "sti" ".byte 0x48; jmp fword ptr [rip + 2f]" "nop" "1: mov r8d, 2" "cli" "ret"
        ".pushsection .data" ".balign 8" "2: .quad 1b; .word 8" ".popsection";
    jcc_taken: "xor r8d, r8d" "sti" "jz 1f" "mov r8d, 1" "1: mov r9d, 2" "cli" "ret";
    jcc_not_taken: "xor r8d, r8d" "sti" "jnz 1f" "mov r8d, 1" "1: mov r9d, 2" "cli" "ret";
    looping: "mov ecx, 3" "xor r8d, r8d" "1: inc r8d" "sti" "loop 1b" "mov r9d, 2" "cli" "ret";
    jrcxz: "xor ecx, ecx" "sti" "jrcxz 1f" "mov r8d, 1" "1: mov r9d, 2" "cli" "ret";
    pushf: "sti" "pushfq" "pop r8" "mov r9d, 1" "cli" "ret";
    popf_on: "push 0x202" "xor r8d, r8d" "sti" "popfq" "mov r8d, 1" "cli" "ret";
    popf_off: "push 2" "xor r8d, r8d" "sti" "popfq" "mov r8d, 1" "sti" "mov r8d, 2" "cli" "ret";
    cli: "xor r8d, r8d" "sti" "cli" "mov r8d, 1" "sti" "mov r8d, 2" "mov r8d, 3" "cli" "ret";
    sti: "xor r8d, r8d" "sti" "sti" "mov r8d, 1" "cli" "ret";
    nop: "xor r8d, r8d" "sti" "nop" "mov r8d, 1" "cli" "ret";
    endbr: "xor r8d, r8d" "sti" "endbr64" "mov r8d, 1" "cli" "ret";
    hlt: "xor r8d, r8d" "sti" "hlt" "mov r8d, 1" "cli" "ret";
    mwait: "mov rax, rsp" "xor ecx, ecx" "xor edx, edx" "monitor" "xor r8d, r8d" "xor eax, eax" "sti" "mwait" "mov r8d, 1" "cli" "ret";
    string: "push rdi" "push rcx" "sub rsp, 16" "mov rdi, rsp" "mov ecx, 2" "xor eax, eax" "cld" "sti" "rep stosq" "mov r8d, 1" "cli"
        "add rsp, 16" "pop rcx" "pop rdi" "ret";
    stack: "xor r8d, r8d" "sti" "push r8" "pop r9" "mov r8d, 1" "cli" "ret";
    privileged: "xor r8d, r8d" "sti" "mov r8, cr3" "mov cr3, r8" "mov r8d, 1" "cli" "ret";
    iret: "mov rcx, rsp" "mov eax, ss" "push rax" "push rcx" "push 0x202" "mov eax, cs" "push rax" "lea rax, [rip + 1f]" "push rax" "xor r8d, r8d"
        "sti" "iretq" "nop" "1: mov r8d, 1" "cli" "ret";
    far_ret: "mov eax, cs" "push rax" "lea rax, [rip + 1f]" "push rax" "xor r8d, r8d" "sti" ".byte 0x48; retf" "nop" "1: mov r8d, 1" "cli" "ret";
    load_ss: "mov eax, ss" "xor r8d, r8d" "mov ss, eax" "mov r8d, 1" "mov ss, eax" "call 1f" "sti" "mov r8d, 2" "cli" "ret"
        "1: mov r9, [rsp]" "mov ss, eax" "ret";
    load_ss_flags: "mov eax, ss" "mov ss, eax" "pushfq" "pop r8" "mov ss, eax" "jmp 1f" "nop" "1: mov ss, eax" "jz 2f" "2: mov [rip + 3f], ax"
        "mov ss, [rip + 3f]" "nop" "mov ss, eax" "cli" "sti" "mov r8d, 2" "cli" "ret" ".pushsection .data" "3: .word 0" ".popsection";
    enabled: "xor r8d, r8d" "sti" "mov r8d, 1" "sti" "mov r8d, 2" "cli" "ret";
    at_the_end: "xor r8d, r8d" "sti";
    after_the_end: "mov r8d, 1" "mov r8d, 2" "cli" "ret";
}

/// What an interrupt has seen, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interrupted {
    count: u64,
    first: TrapFrame,
}

static INTERRUPTED: IrqMutex<Option<Interrupted>> = IrqMutex::new(None);

/// What an address is outside of slots: a copy ends with the jump to what is behind the original.
fn outside_slots(rip: u64) -> u64 {
    if !engine().host().slot_area().contains(&rip) {
        return rip;
    }
    let mut at = rip;
    loop {
        let insn = insn_at(at);
        let next = at + insn.len() as u64;
        if insn.opcode() == 0xe9 {
            return next.wrapping_add_signed(insn.signed(insn.immediate())) - (at - rip);
        }
        at = next;
    }
}

fn note_interrupt(_: u8, frame: &mut TrapFrame) -> Action {
    let mut interrupted = INTERRUPTED.lock();
    let first = TrapFrame {
        rip: outside_slots(frame.rip),
        // The caller's.
        rbx: 0,
        rbp: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        ..*frame
    };
    match &mut *interrupted {
        Some(before) => before.count += 1,
        none => *none = Some(Interrupted { count: 1, first }),
    }
    Action::Resume
}

fn interrupts_off<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: they are on in a test, and are on again afterwards.
    unsafe { asm!("cli") };
    let result = run();
    // SAFETY: as above.
    unsafe { asm!("sti") };
    result
}

/// A stack that is the same for all calls, so that what is pushed is the same.
#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; 1 << 15]>);

// SAFETY: one CPU at a time calls on it.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; 1 << 15]));

/// Runs a function with interrupts off and one pending.
fn run(function: u64) -> (Registers, Option<Interrupted>) {
    let mut registers = Registers {
        r8: 99,
        rflags: 2,
        ..Registers::default()
    };
    interrupts_off(|| {
        *INTERRUPTED.lock() = None;
        apic::send_interrupt(cpu_id(), VECTOR);
        // SAFETY: the functions are this test's, and keep to the convention; the stack is large, and nobody's else.
        unsafe {
            let top = STACK.0.get().add(1);
            asm!(
                "mov r12, rsp",
                "mov rsp, {top}",
                "call {call_with}",
                "mov rsp, r12",
                top = in(reg) top,
                call_with = sym call_with,
                in("rdi") function,
                in("rsi") &raw mut registers,
                out("r12") _,
                clobber_abi("C"),
            );
        }
    });
    let interrupted = *INTERRUPTED.lock();
    (registers, interrupted)
}

fn insn_at(place: u64) -> Insn {
    let mut bytes = [0; 15];
    probe_read(place, &mut bytes).unwrap();
    Insn::decode(&bytes).unwrap()
}

/// A function of this test's, bare.
struct Subject {
    name: &'static str,
    places: Vec<u64>,
    /// The instructions that run in a shadow.
    shaded: Vec<u64>,
    bare: (Registers, Interrupted),
}

impl Subject {
    fn new(name: &'static str) -> Self {
        let mut places = instructions(name);
        if name == "target_at_the_end" {
            places.extend(instructions("target_after_the_end"));
        }
        let is_sti = |index: usize| insn_at(places[index]).shadow() == Some(Shadow::Interrupts);
        // A second `sti` casts no shadow.
        let is_shaded = |index: usize| is_sti(index - 1) && !(index > 1 && is_sti(index - 2));
        let shaded = (1..places.len())
            .filter(|index| is_shaded(*index))
            .map(|index| places[index])
            .collect();
        let (registers, interrupted) = run(places[0]);
        let subject = Subject {
            name,
            places,
            shaded,
            bare: (
                registers,
                interrupted.unwrap_or_else(|| panic!("{name} lets no interrupt in")),
            ),
        };
        subject.check("bare");
        subject
    }

    /// Runs it. QEMU may take an interrupt some instructions later than it could, never earlier.
    fn check(&self, what: &str) {
        let Subject { name, bare, .. } = self;
        let (registers, interrupted) = run(self.places[0]);
        assert_eq!(registers, bare.0, "{name}, {what}");
        let interrupted = interrupted.unwrap_or_else(|| panic!("{name}, {what}: no interrupt"));
        let rip = interrupted.first.rip;
        assert!(self.places.contains(&rip), "{name}, {what}: interrupted at {rip:#x}");
        // Where there are two, it came after the first.
        assert!(
            !self.shaded.contains(&rip),
            "{name}, {what}: interrupted in the shadow, at {rip:#x}"
        );
        assert_eq!(interrupted.count, 1, "{name}, {what}");
        if rip == bare.1.first.rip {
            assert_eq!(interrupted.first, bare.1.first, "{name}, {what}");
        }
    }
}

fn an_interrupt_waits_for_the_next_instruction() {
    trap::set_handler(VECTOR, Some(note_interrupt));
    let mut counts = [0_u64; 4];
    for name in TARGETS.iter().filter(|name| **name != "target_after_the_end") {
        let subject = Subject::new(name);
        let places = &subject.places;
        insert(&format!("every{}", places.len()), places).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        subject.check("every instruction probed");
        let all = remove(100);
        for probe in &all {
            counts[probe.resume as usize] += 1;
            assert_eq!(
                (probe.missed, probe.faulted, probe.late),
                (0, 0, 0),
                "{name} at {:#x}",
                probe.address
            );
        }
        // Each by itself, and each pair.
        for (index, (place, with_all)) in places.iter().zip(&all).enumerate() {
            insert("every1", &[*place]).unwrap();
            subject.check(&format!("instruction {index} probed"));
            let hits = remove(100)[0].hits;
            assert_eq!(hits, with_all.hits, "{name}, instruction {index}");
            let is_sti = insn_at(*place).shadow() == Some(Shadow::Interrupts);
            assert!(
                hits >= u64::from(is_sti) && (hits <= 1 || *name == "target_looping"),
                "{name}, instruction {index}"
            );
        }
        for (index, pair) in places.windows(2).enumerate() {
            insert("every2", pair).unwrap();
            subject.check(&format!("instructions {index} and the next probed"));
            for (probe, with_all) in remove(100).iter().zip(&all[index..]) {
                assert_eq!(probe.hits, with_all.hits, "{name}, instruction {index}");
            }
        }
        subject.check("after the probes were removed");
    }
    println!("({} copied, {} emulated, {} stepped) ", counts[1], counts[2], counts[3]);
}

fn a_wake_up_is_not_lost() {
    // Without the shadow the interrupt is taken before the `hlt`, and nothing wakes the CPU any more.
    let places = instructions("target_hlt");
    let entry = places[0];
    for probed in [&places[1..2], &places[2..3], &places[1..3], &places[..]] {
        insert(&format!("every{}", probed.len()), probed).unwrap();
        for _ in 0..200 {
            let (_, interrupted) = run(entry);
            assert_eq!(interrupted.map(|seen| seen.first.rip), Some(places[3]));
        }
        for probe in remove(100) {
            assert_eq!((probe.hits, probe.missed, probe.faulted), (200, 0, 0));
        }
    }
}

fn programs_see_what_casts_the_shadow_done() {
    let places = instructions("target_mov");
    insert("shadow", &places[1..3]).unwrap();
    run(places[0]);
    let found = records();
    let words: Vec<Vec<u64>> = found.iter().map(|record| record.words()).collect();
    assert_eq!(words.len(), 2, "{words:x?}");
    assert_eq!((words[0][0], words[1][0]), (places[1], places[2]));
    assert_eq!(
        (words[0][1] & IF, words[1][1] & IF),
        (0, IF),
        "`sti` is between the two"
    );
    remove(40);

    // Ring 0 may have no stack segment: the null selector.
    let places = instructions("target_null_ss");
    insert("shadow", &places[1..3]).unwrap();
    let (registers, _) = run(places[0]);
    assert_eq!(registers.r9, 1);
    let words: Vec<Vec<u64>> = records().iter().map(|record| record.words()).collect();
    let ds = u64::from(KERNEL_DS.0);
    assert_eq!(words.iter().map(|words| words[2]).collect::<Vec<_>>(), [ds, 0]);
    remove(40);
}

fn a_program_may_leave_the_shadow() {
    for name in ["target_mov", "target_null_ss"] {
        let places = instructions(name);
        let away = instructions("target_away")[0];
        insert("divert", &[places[2]]).unwrap();
        insert("every1", &places[1..2]).unwrap();
        let mut registers = Registers {
            rsi: away,
            rflags: 2,
            ..Registers::default()
        };
        // SAFETY: the functions are this test's, and keep to the convention.
        interrupts_off(|| unsafe { call_with(places[0], &mut registers) });
        assert_eq!(registers.r9, 5, "{name}");
        let ss: u64;
        // SAFETY: reads a register, and loads what it was before.
        unsafe { asm!("mov {}, ss", "mov ss, {:e}", out(reg) ss, in(reg) u32::from(KERNEL_DS.0)) };
        assert_eq!(ss == 0, name == "target_null_ss", "{name}");
        assert_eq!((remove(100)[0].hits, remove(41)[0].hits), (1, 1));
    }
}

mod special {
    core::arch::global_asm!(
        ".pushsection .text.targets, \"axR\", @progbits",
        ".type target_null_ss, @function",
        "target_null_ss:",
        "    xor eax, eax",
        "    mov ss, eax",
        "    mov r9d, 1",
        "    mov eax, 0x10",
        "    mov ss, eax",
        "    nop",
        "    ret",
        ".size target_null_ss, . - target_null_ss",
        ".type target_away, @function",
        "target_away:",
        "    cli",
        "    mov r9d, 5",
        "    ret",
        ".size target_away, . - target_away",
        // Each of these faults: at the second instruction, unless rdi is good.
        ".type target_sti_load, @function",
        "target_sti_load:",
        "    nop",
        "    sti",
        "    mov rax, [rdi]",
        "    cli",
        "    ret",
        ".size target_sti_load, . - target_sti_load",
        ".type target_sti_call, @function",
        "target_sti_call:",
        "    nop",
        "    sti",
        "    call [rdi]",
        "    cli",
        "    ret",
        ".size target_sti_call, . - target_sti_call",
        ".type target_ss_load, @function",
        "target_ss_load:",
        "    mov ecx, ss",
        "    mov ss, ecx",
        "    mov rax, [rdi]",
        "    cli",
        "    ret",
        ".size target_ss_load, . - target_ss_load",
        ".type target_ss_call, @function",
        "target_ss_call:",
        "    mov ecx, ss",
        "    mov ss, ecx",
        "    call [rdi]",
        "    cli",
        "    ret",
        ".size target_ss_call, . - target_ss_call",
        ".type target_ss_bad, @function",
        "target_ss_bad:",
        "    mov r8d, 1",
        "    mov ss, edi",
        "    mov r8d, 2",
        "    nop",
        "    ret",
        ".size target_ss_bad, . - target_ss_bad",
        ".popsection",
    );
}

const NON_CANONICAL: u64 = 0x0000_8000_0000_0000;
static GOOD: AtomicU64 = AtomicU64::new(0);
static FAULT: IrqMutex<Option<(u8, TrapFrame)>> = IrqMutex::new(None);

/// Repairs rdi and tries again.
fn repair(vector: u8, frame: &mut TrapFrame) -> Action {
    if fix_up_of(frame.rip).is_some() {
        return Action::Pass;
    }
    let before = FAULT.lock().replace((vector, *frame));
    assert!(before.is_none(), "a second fault: {frame:x?}");
    frame.rdi = GOOD.load(Ordering::Relaxed);
    Action::Resume
}

fn fault_once(entry: u64, bad: u64) -> (Registers, Option<(u8, TrapFrame)>) {
    let mut registers = Registers {
        rdi: bad,
        rflags: 2,
        ..Registers::default()
    };
    *FAULT.lock() = None;
    // SAFETY: the functions are this test's; what they fault on is repaired.
    interrupts_off(|| unsafe { call_with(entry, &mut registers) });
    (registers, *FAULT.lock())
}

fn a_fault_in_the_shadow_is_the_second_instructions() {
    extern "C" fn callee() {}
    trap::set_handler(trap::GP, Some(repair));
    let pointer = callee as extern "C" fn();
    GOOD.store((&raw const pointer) as u64, Ordering::Relaxed);
    for name in ["target_sti_load", "target_sti_call", "target_ss_load", "target_ss_call"] {
        let places = instructions(name);
        let bare = fault_once(places[0], NON_CANONICAL);
        assert_eq!(bare.1.map(|(_, frame)| frame.rip), Some(places[2]), "{name}");
        assert!(records().is_empty());
        for probed in [&places[1..2], &places[2..3], &places[1..3]] {
            if probed.len() == 2 {
                insert("shadow", probed).unwrap();
            } else {
                insert("every1", probed).unwrap();
            }
            assert_eq!(fault_once(places[0], NON_CANONICAL), bare, "{name}, {probed:x?}");
            let found = records();
            for probe in remove(if probed.len() == 2 { 40 } else { 100 }) {
                let faulted = u64::from(probe.address == places[2]);
                assert_eq!(
                    (probe.hits, probe.faulted, probe.missed),
                    (1, faulted, 0),
                    "{name}, {probed:x?}, {:x}",
                    probe.address
                );
            }
            if probed.len() == 2 {
                let order: Vec<u64> = found.iter().map(|record| record.header.address).collect();
                assert_eq!(order, probed, "{name}: one record for each that completed");
            }
        }
    }
    trap::set_handler(trap::GP, None);
}

fn a_fault_of_the_first_undoes_both() {
    trap::set_handler(trap::GP, Some(repair));
    GOOD.store(KERNEL_DS.0.into(), Ordering::Relaxed);
    let places = instructions("target_ss_bad");
    // Far behind the descriptor table.
    const SELECTOR: u64 = 0x7ff8;
    let bare = fault_once(places[0], SELECTOR);
    assert_eq!(
        bare.1.map(|(vector, frame)| (vector, frame.rip)),
        Some((trap::GP, places[1]))
    );
    insert("shadow", &places[1..3]).unwrap();
    assert_eq!(fault_once(places[0], SELECTOR), bare);
    let order: Vec<u64> = records().iter().map(|record| record.header.address).collect();
    assert_eq!(order, places[1..3], "one record for each that completed");
    for probe in remove(40) {
        assert_eq!((probe.hits, probe.faulted, probe.missed), (1, 1, 0));
    }
    trap::set_handler(trap::GP, None);
}

mod ss_loop {
    core::arch::global_asm!(
        ".pushsection .text.targets, \"axR\", @progbits",
        ".type target_ss_loop, @function",
        "target_ss_loop:",
        "    mov eax, ss",
        "1:  xor r8d, r8d",
        "    mov ss, eax",
        "    mov r8d, 0x12345678",
        "    dec ecx",
        "    jnz 1b",
        "    ret",
        ".size target_ss_loop, . - target_ss_loop",
        ".popsection",
    );
}

/// Interrupts that came, and those that came between the two instructions.
static CAME: AtomicU64 = AtomicU64::new(0);
static BETWEEN: AtomicU64 = AtomicU64::new(0);
static SECOND: AtomicU64 = AtomicU64::new(0);

fn look_between(_: u8, frame: &mut TrapFrame) -> Action {
    CAME.fetch_add(1, Ordering::Relaxed);
    let second = SECOND.load(Ordering::Relaxed);
    if outside_slots(frame.rip) == second {
        BETWEEN.fetch_add(1, Ordering::Relaxed);
    }
    Action::Resume
}

fn nothing_comes_between_mov_ss_and_the_next_instruction() {
    let places = instructions("target_ss_loop");
    SECOND.store(places[3], Ordering::Relaxed);
    trap::set_handler(VECTOR, Some(look_between));
    for probed in [&[][..], &places[2..3], &places[2..4], &places[1..4]] {
        CAME.store(0, Ordering::Relaxed);
        BETWEEN.store(0, Ordering::Relaxed);
        if !probed.is_empty() {
            insert(&format!("every{}", probed.len()), probed).unwrap();
        }
        let done = AtomicBool::new(false);
        let runs = AtomicU64::new(0);
        smp::run_on_all(|cpu| {
            if cpu == 0 {
                while CAME.load(Ordering::Relaxed) < 300 {
                    let mut registers = Registers {
                        rcx: 500,
                        rflags: 2 | IF,
                        ..Registers::default()
                    };
                    // SAFETY: the function keeps to the convention.
                    unsafe { call_with(places[0], &mut registers) };
                    runs.fetch_add(500, Ordering::Relaxed);
                }
                done.store(true, Ordering::Release);
            } else {
                let mut sent = 0;
                while !done.load(Ordering::Acquire) {
                    if CAME.load(Ordering::Relaxed) >= sent {
                        apic::send_interrupt(0, VECTOR);
                        sent += 1;
                    }
                    // The distance varies.
                    (0..sent % 97).for_each(|_| spin_loop());
                }
            }
        });
        assert_eq!(BETWEEN.load(Ordering::Relaxed), 0, "{probed:x?}");
        if !probed.is_empty() {
            let hits = runs.load(Ordering::Relaxed);
            assert!(remove(100).iter().all(|probe| (probe.hits, probe.missed) == (hits, 0)));
        }
    }
}

static STEPS: IrqMutex<Vec<u64>> = IrqMutex::new(Vec::new());

fn note_step(_: u8, frame: &mut TrapFrame) -> Action {
    STEPS.lock().push(frame.rip);
    Action::Resume
}

fn a_step_of_sti_sees_both_instructions() {
    trap::set_handler(trap::DB, Some(note_step));
    let stepped = |entry| {
        let mut registers = Registers {
            rflags: 2 | TF,
            ..Registers::default()
        };
        *STEPS.lock() = Vec::with_capacity(64);
        interrupts_off(|| {
            // SAFETY: the function keeps to the convention. It returns with TF, which is cleared behind it.
            unsafe { call_with(entry, &mut registers) };
            // SAFETY: clears TF and nothing else.
            unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        });
        let steps = STEPS.lock().clone();
        (registers, steps)
    };
    for name in ["target_mov", "target_nop", "target_jmp", "target_stack"] {
        let places = instructions(name);
        let bare = stepped(places[0]);
        let is_sti = |place: &u64| insn_at(*place).shadow().is_some();
        let shaded = places.iter().position(is_sti).unwrap() + 1;
        assert!(places[shaded + 1..].iter().any(|place| bare.1.contains(place)));
        for pair in places.windows(2) {
            insert("every2", pair).unwrap();
            let probed = stepped(places[0]);
            // A real CPU raises #DB between the two as well; QEMU holds it off until the second has completed.
            let seen = |rip: &u64| places.contains(rip) && *rip != places[shaded];
            let steps = |steps: &[u64]| steps.iter().copied().filter(seen).collect::<Vec<_>>();
            assert_eq!(steps(&probed.1), steps(&bare.1), "{name}, {pair:x?}");
            assert_eq!(probed.0, bare.0);
            assert!(remove(100).iter().all(|probe| probe.hits <= 1 && probe.missed == 0));
        }
    }
    trap::set_handler(trap::DB, None);
}
