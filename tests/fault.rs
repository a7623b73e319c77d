//! Faults of probed instructions: every kind that the CPU raises in ring 0, and attempts of a task that moves to another CPU in between.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU64};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{hooks, smp};
use engine::record::header::RecordState;
use engine::trap::{EXIT_TO, TrapFrame as Frame, Verdict as Handled};
use engine::wire::State;
use gkhi::{ExitWith, Verdict};
use test_support::{engine, insert, instructions, migrant, records, remove, status};
use x86_64::instructions::interrupts;

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=240",
    tests: [
        every_fault_is_the_originals_and_leaves_one_record,
        a_guarded_debug_register_is_the_originals,
        a_record_that_did_not_fit_is_lost_once,
        a_program_that_removes_itself_does_it_at_the_completion,
        a_task_that_moves_takes_back_its_last_attempt,
        the_last_hit_is_waited_for,
    ],
}

global_asm!(
    ".globl target_de",
    ".type target_de, @function",
    "target_de:",
    "xor edx, edx",
    "div rcx",
    "ret",
    ".size target_de, . - target_de",
    ".globl target_ud",
    ".type target_ud, @function",
    "target_ud:",
    "nop",
    "movaps xmm0, xmm0",
    "ret",
    ".size target_ud, . - target_ud",
    ".globl target_nm",
    ".type target_nm, @function",
    "target_nm:",
    "nop",
    "fnclex",
    "ret",
    ".size target_nm, . - target_nm",
    ".globl target_np",
    ".type target_np, @function",
    "target_np:",
    "nop",
    "mov es, ecx",
    "ret",
    ".size target_np, . - target_np",
    ".globl target_ss",
    ".type target_ss, @function",
    "target_ss:",
    "nop",
    "lss ecx, [rdi]",
    "ret",
    ".size target_ss, . - target_ss",
    ".globl target_gp",
    ".type target_gp, @function",
    "target_gp:",
    "nop",
    "mov rax, [rdi]",
    "ret",
    ".size target_gp, . - target_gp",
    ".globl target_mf",
    ".type target_mf, @function",
    "target_mf:",
    "nop",
    "fwait",
    "ret",
    ".size target_mf, . - target_mf",
    ".globl target_load",
    ".type target_load, @function",
    "target_load:",
    "mov rax, [rdi]",
    "ret",
    ".size target_load, . - target_load",
    ".globl target_dr",
    ".type target_dr, @function",
    "target_dr:",
    "mov rax, dr7",
    "ret",
    ".size target_dr, . - target_dr",
    // Two loads at one instruction: from rdi, then from what that says.
    ".globl target_twice",
    ".type target_twice, @function",
    "target_twice:",
    "mov ecx, 2",
    "1: mov rdi, [rdi]",
    "dec ecx",
    "jnz 1b",
    "mov rax, rdi",
    "ret",
    ".size target_twice, . - target_twice",
);

unsafe extern "C" {
    fn target_load(from: u64) -> u64;
    fn target_twice(from: u64) -> u64;
}

const ABSENT: u64 = 0xffff_c000_0000_0000;

/// What the handler saw last: vector, address.
static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Where a fault's cause is repaired: a word of memory that is there.
static WORD: AtomicU64 = AtomicU64::new(42);

/// The not-present data segment of [`with_own_gdt`].
const ABSENT_SEGMENT: u64 = 8 << 3;
static GDT: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];
/// A data segment of ring 0, writable, but for the present bit.
const DATA_SEGMENT: u64 = 0x00cf_1300_0000_ffff;
const PRESENT: u64 = 1 << 47;

const CR0_TS: u64 = 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;

fn cr4(change: impl Fn(u64) -> u64) {
    let value: u64;
    // SAFETY: this kernel is compiled without vector instructions, so that nothing depends on what the tests change.
    unsafe {
        asm!("mov {}, cr4", out(reg) value, options(nomem, nostack));
        asm!("mov cr4, {}", in(reg) change(value), options(nomem, nostack));
    }
}

fn repair(vector: u8, frame: &mut TrapFrame) -> Action {
    SEEN[0].store(vector.into(), SeqCst);
    SEEN[1].store(frame.rip, SeqCst);
    FAULTS.fetch_add(1, SeqCst);
    match vector {
        trap::DE => frame.rcx = 1,
        trap::UD => cr4(|value| value | CR4_OSFXSR),
        // SAFETY: what the test has set.
        7 => unsafe { asm!("clts") },
        11 | trap::SS => {
            GDT[8].fetch_or(PRESENT, SeqCst);
        }
        trap::GP => frame.rdi = WORD.as_ptr() as u64,
        // SAFETY: the exception that the test has left.
        16 => unsafe { asm!("fnclex") },
        trap::PF => memory::map(ABSENT, 4096, Rights::WRITE).unwrap(),
        _ => return Action::Pass,
    }
    Action::Resume
}

/// Runs a function of this module with this value in RDI and RCX.
fn call(name: &str, value: u64) {
    let function = bootimage::symbols::function_named(name).unwrap().code.start;
    // SAFETY: the functions change scratch registers, and what the test restores.
    unsafe { asm!("call {}", in(reg) function, in("rdi") value, in("rcx") value, clobber_abi("C")) };
}

/// Loads a descriptor table with a segment that is not present, runs the test, and loads the kernel's again.
fn with_own_gdt(test: impl Fn()) {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let mut old = Pointer { limit: 0, base: 0 };
    // SAFETY: stores ten bytes, the size of `Pointer`.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut old, options(nostack)) };
    let entries = (usize::from(old.limit) + 1) / 8;
    assert!(entries <= 8);
    for (index, entry) in GDT.iter().enumerate() {
        // SAFETY: as long as the table says.
        let of_old = || unsafe { (old.base as *const u64).add(index).read_volatile() };
        entry.store(if index < entries { of_old() } else { 0 }, SeqCst);
    }
    GDT[8].store(DATA_SEGMENT, SeqCst);
    let new = Pointer {
        limit: (size_of_val(&GDT) - 1) as u16,
        base: (&raw const GDT) as u64,
    };
    interrupts::without_interrupts(|| {
        let (ss, es): (u64, u64);
        // SAFETY: the same segments as before, and one more; both tables live for ever.
        unsafe {
            asm!("mov {:e}, ss", "mov {:e}, es", out(reg) ss, out(reg) es, options(nostack));
            asm!("lgdt [{}]", in(reg) &raw const new, options(nostack));
        }
        test();
        // SAFETY: as above.
        unsafe {
            asm!("mov ss, {:e}", "mov es, {:e}", in(reg) ss, in(reg) es, options(nostack));
            asm!("lgdt [{}]", in(reg) &raw const old, options(nostack));
        }
    });
}

/// Leaves a division by zero pending in the x87 unit, unmasked.
fn leave_an_x87_exception() {
    // SAFETY: this kernel does not use the unit.
    unsafe { asm!("fninit", "push 0x37b", "fldcw [rsp]", "pop rax", "fld1", "fldz", "fdivp", out("rax") _) };
}

fn every_fault_is_the_originals_and_leaves_one_record() {
    type Prepare = fn();
    let nothing: Prepare = || {};
    let kinds: [(&str, u8, u64, Prepare); 8] = [
        ("target_de", trap::DE, 0, nothing),
        ("target_ud", trap::UD, 0, || cr4(|value| value & !CR4_OSFXSR)),
        ("target_nm", 7, 0, || {
            // SAFETY: nothing uses the units until the handler clears it again.
            unsafe { asm!("mov rax, cr0", "or rax, {}", "mov cr0, rax", const CR0_TS, out("rax") _) };
        }),
        ("target_np", 11, ABSENT_SEGMENT, nothing),
        ("target_ss", trap::SS, 0, nothing),
        ("target_gp", trap::GP, 0x8000_0000_0000_0000, nothing),
        ("target_mf", 16, 0, leave_an_x87_exception),
        ("target_gp", trap::PF, ABSENT, nothing),
    ];
    // For `lss`: 32 bits of an address, and a selector.
    static FAR_POINTER: AtomicU64 = AtomicU64::new(ABSENT_SEGMENT << 32);
    for (name, vector, value, prepare) in kinds {
        let value = if vector == trap::SS {
            FAR_POINTER.as_ptr() as u64
        } else {
            value
        };
        let run = || call(name, value);
        for _ in 0..2 {
            let place = instructions(name)[1];
            insert("log", &[place]).unwrap();
            trap::set_handler(vector, Some(repair));
            FAULTS.store(0, SeqCst);
            if vector == trap::SS || vector == 11 {
                with_own_gdt(run);
            } else {
                prepare();
                run();
            }
            trap::set_handler(vector, None);
            let seen = SEEN.each_ref().map(|seen| seen.load(SeqCst));
            assert_eq!((seen, FAULTS.load(SeqCst)), ([vector.into(), place], 1), "{name}");
            let found = records();
            assert_eq!(found.len(), 1, "{name}: one completion, one record");
            let last = remove(3);
            assert_eq!((last[0].hits, last[0].faulted, last[0].late), (1, 1, 0), "{name}");
            if vector == trap::PF {
                // SAFETY: mapped by the handler, and nobody else knows it.
                unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
            }
        }
    }
}

/// QEMU does not guard the debug registers (DR7.GD); the engine's handler is called as the CPU would have it called.
fn a_guarded_debug_register_is_the_originals() {
    const BD: u64 = 1 << 13;
    let place = instructions("target_dr")[0];
    insert("log", &[place]).unwrap();
    interrupts::without_interrupts(|| {
        let mut frame = Frame {
            rip: place + 1,
            rsp: 0x10000,
            rflags: 2,
            cs: 8,
            ..Frame::default()
        };
        assert_eq!(engine().on_breakpoint(&mut frame), Handled::Handled);
        assert_ne!(frame.rip, place, "in its slot");
        let mut status = BD;
        assert_eq!(engine().on_debug(&mut frame, &mut status), Handled::NotOurs);
        assert_eq!((frame.rip, status), (place, BD));
    });
    assert!(records().is_empty());
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (0, 1));
}

fn load(from: u64) -> u64 {
    // SAFETY: reads memory; what it faults on the tests provide for.
    unsafe { target_load(from) }
}

fn a_record_that_did_not_fit_is_lost_once() {
    const LOADS: u64 = 5000;
    let place = instructions("target_load")[0];
    insert("log", &[place]).unwrap();
    let word = WORD.as_ptr() as u64;
    for _ in 0..LOADS {
        load(word);
    }
    let lost = status(3, 1).lost;
    assert!(lost > 0, "the ring is full");
    trap::set_handler(trap::PF, Some(repair));
    load(ABSENT);
    trap::set_handler(trap::PF, None);
    // SAFETY: mapped by the handler, and nobody else knows it.
    unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
    assert_eq!(status(3, 1).lost, lost + 1, "one completion, one loss");
    let last = remove(3);
    let found = records();
    let told: u64 = found
        .iter()
        .filter(|record| record.header.state == RecordState::Lost as u32)
        .map(|record| record.header.facts)
        .sum();
    let kept = found
        .iter()
        .filter(|record| record.header.state == RecordState::Published as u32)
        .count() as u64;
    assert_eq!((last[0].hits, last[0].faulted), (LOADS + 1, 1));
    assert_eq!((kept + told, told), (LOADS + 1, last[0].lost));
}

fn a_program_that_removes_itself_does_it_at_the_completion() {
    insert("once", &instructions("target_load")[..1]).unwrap();
    trap::set_handler(trap::PF, Some(repair));
    load(ABSENT);
    trap::set_handler(trap::PF, None);
    // SAFETY: mapped by the handler, and nobody else knows it.
    unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
    assert_eq!(records().len(), 1);
    let found = status(5, 1);
    assert_eq!(
        (found.hits, found.faulted, found.state),
        (1, 1, State::RemovedItself as u32)
    );
    remove(5);
}

static PARK: AtomicBool = AtomicBool::new(false);

/// Facility 17 parks the task, if that is wanted: when interrupts are let in, which is in the slot.
static PARKER: ExitWith<()> = EXIT_TO::exit(c"parker", (), |(), exit, _| {
    if exit.facility != 17 {
        return Verdict::Continue;
    }
    if PARK.swap(false, SeqCst) {
        migrant::park();
    }
    Verdict::Return(())
});

/// The stack of the task: what handles its faults runs on it too.
static STACK: [AtomicU64; 16384] = [const { AtomicU64::new(0) }; 16384];

fn new_task(function: unsafe extern "C" fn(u64) -> u64, argument: u64) {
    let top = STACK.as_ptr_range().end as u64 & !15;
    // SAFETY: the stack is the task's alone, of which there is one at a time; the functions are this test's.
    unsafe { migrant::make(function, argument, top) };
}

/// Runs the task on a CPU until it parks itself in a slot, or has ended; true if it has ended.
fn run_on(cpu: usize, park: bool) -> bool {
    let ended = AtomicBool::new(false);
    PARK.store(park, SeqCst);
    smp::run_on(cpu, || ended.store(migrant::run(), SeqCst));
    let ended = ended.load(SeqCst);
    if !ended {
        let at = migrant::parked_at().unwrap();
        assert!(!memory::text().contains(&at), "parked in a slot");
    }
    ended
}

/// The same task with the same stack pointer at one site on two CPUs; the second attempt goes on, and faults, on a third.
fn a_task_that_moves_takes_back_its_last_attempt() {
    engine();
    hooks::registry().register(&PARKER).unwrap();
    hooks::registry().arm(&[&PARKER]).unwrap();
    let place = instructions("target_twice")[1];
    insert("exit", &[place]).unwrap();
    trap::set_handler(trap::PF, Some(repair));
    let first = AtomicU64::new(ABSENT);
    let mut cpus: Vec<[usize; 3]> = Vec::new();
    for a in 0..3 {
        for b in 0..3 {
            cpus.extend((0..3).map(|c| [a, b, c]));
        }
    }
    for [first_cpu, second_cpu, third_cpu] in cpus {
        FAULTS.store(0, SeqCst);
        new_task(target_twice, first.as_ptr() as u64);
        // Into the slot for the first time, through it and into it for the second time, and out of it.
        assert!(!run_on(first_cpu, true));
        assert!(!run_on(second_cpu, true));
        assert!(run_on(third_cpu, false));
        assert_eq!(FAULTS.load(SeqCst), 1);
        let mut words: Vec<u64> = records().iter().map(|record| record.words()[0]).collect();
        words.sort_unstable();
        let mut expected = [first.as_ptr() as u64, ABSENT];
        expected.sort_unstable();
        assert_eq!(words, expected, "CPUs {first_cpu}, {second_cpu}, {third_cpu}");
        // SAFETY: mapped by the handler, and nobody else knows it.
        unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
    }
    trap::set_handler(trap::PF, None);
    let last = remove(40);
    assert_eq!((last[0].hits, last[0].faulted, last[0].missed), (54, 27, 0));
}

/// The task is parked in the slot of the last hit that is wanted, and faults there; the breakpoint must still be there then.
fn the_last_hit_is_waited_for() {
    let place = instructions("target_load")[0];
    insert("exit_last", &[place]).unwrap();
    trap::set_handler(trap::PF, Some(repair));
    new_task(target_load, ABSENT);
    assert!(!run_on(1, true));
    assert_eq!(status(41, 1).state, State::Exhausted as u32);
    assert_eq!(load(WORD.as_ptr() as u64), 42, "this one is late");
    smp::run_on_all(|cpu| match cpu {
        0 => {
            assert!(engine().host().take_reap_request());
            engine().reap();
        }
        1 => {
            while !engine().host().is_waiting() {
                core::hint::spin_loop();
            }
            assert!(migrant::run(), "it ends");
        }
        _ => {}
    });
    trap::set_handler(trap::PF, None);
    while engine().host().take_reap_request() {
        engine().reap();
    }
    let found = status(41, 1);
    assert_eq!(
        (found.hits, found.faulted, found.late, found.state),
        (1, 1, 1, State::Exhausted as u32)
    );
    let found = records();
    assert_eq!(found.len(), 1, "one completion, one record");
    assert_eq!(found[0].words(), [ABSENT]);
    load(WORD.as_ptr() as u64);
    assert_eq!(remove(41)[0].late, 1, "the breakpoint is out");
    hooks::registry().deregister(&PARKER).unwrap();
}
