//! Taking probes out while another CPU is inside them: what removal waits for, that it must, and who comes too late.
//!
//! A CPU is held at a chosen moment of a hit. Each wait is tested twice: as it is, when it must last until the CPU has left; and left out,
//! when what it protects must be seen to go wrong. The second shows that the first can fail.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::{asm, global_asm};
use core::hint::spin_loop;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use bootimage::hooks::{self, BREAKPOINT};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{apic, fault, smp};
use engine::host::Host;
use gkhi::{ExitWith, Verdict};
use spin::Once;
use test_support::{engine, engine_by_hooks, insert, instructions, records, remove};
use x86_64::instructions::interrupts;

bootimage::test_main! {
    requires: "cpus=4 time_limit_s=240",
    tests: [
        a_late_trap_goes_on_at_the_instruction,
        a_late_trap_meets_the_probe_that_is_there_now,
        breakpoints_of_others_are_left_to_them,
        a_program_stays_while_it_runs,
        without_the_core_sync_it_would_not,
        a_slot_stays_while_a_cpu_is_in_it,
        without_the_grace_period_it_would_not,
    ],
}

global_asm!(
    // Two counters, each with an instruction of its own.
    ".globl target_count",
    ".type target_count, @function",
    "target_count:",
    "    xor r10d, r10d",
    "    xor r11d, r11d",
    "1:  lea r10, [r10 + 1]",
    "    lea r11, [r11 + 1]",
    "    dec rdi",
    "    jnz 1b",
    "    mov [rsi], r11",
    "    mov rax, r10",
    "    ret",
    ".size target_count, . - target_count",
    ".globl target_nop",
    ".type target_nop, @function",
    "target_nop:",
    "    nop",
    "    ret",
    ".size target_nop, . - target_nop",
);

unsafe extern "C" {
    fn target_count(passes: u64, second: &mut u64) -> u64;
    fn target_nop(argument: u64);
}

/// Runs the counting function: what each instruction has counted.
fn count(passes: u64) -> (u64, u64) {
    let mut second = 0;
    // SAFETY: the function uses scratch registers and the place it is given.
    let first = unsafe { target_count(passes, &mut second) };
    (first, second)
}

/// The two instructions that count.
fn places() -> (u64, u64) {
    static PLACES: Once<(u64, u64)> = Once::new();
    *PLACES.call_once(|| {
        let all = instructions("target_count");
        (all[2], all[3])
    })
}

fn byte_at(address: u64) -> u8 {
    let mut byte = [0];
    fault::probe_read(address, &mut byte).expect("text");
    byte[0]
}

/// One CPU, held at some moment until it is let go.
struct Hold {
    /// The next one that comes is held.
    wanted: AtomicBool,
    inside: AtomicBool,
    released: AtomicBool,
    left: AtomicBool,
}

impl Hold {
    const fn new() -> Self {
        Hold {
            wanted: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            released: AtomicBool::new(false),
            left: AtomicBool::new(false),
        }
    }

    fn prepare(&self) {
        self.inside.store(false, SeqCst);
        self.released.store(false, SeqCst);
        self.left.store(false, SeqCst);
        self.wanted.store(true, SeqCst);
    }

    /// Stays here, if somebody is wanted.
    fn stay(&self) {
        if self.wanted.swap(false, SeqCst) {
            self.inside.store(true, SeqCst);
            self.wait_for_release();
            self.left.store(true, SeqCst);
        }
    }

    fn wait_for_release(&self) {
        wait(|| self.released.load(SeqCst));
    }

    fn is_held(&self) -> bool {
        self.inside.load(SeqCst) && !self.left.load(SeqCst)
    }

    fn release(&self) {
        self.released.store(true, SeqCst);
    }
}

fn wait(until: impl Fn() -> bool) {
    while !until() {
        spin_loop();
    }
}

static IN_TRAP: Hold = Hold::new();

/// In front of the engine, as in a kernel whose breakpoint entry lets interrupts in: the CPU answers core syncs although its trap has
/// still to be looked at.
static HOLDER: ExitWith<()> = BREAKPOINT::exit(c"holder", (), |(), frame: &mut TrapFrame| {
    if frame.rip.wrapping_sub(1) == places().0 && IN_TRAP.wanted.load(SeqCst) {
        interrupts::enable();
        IN_TRAP.stay();
        interrupts::disable();
    }
    Verdict::Continue
})
.first();

/// Has CPU 1 count to three, with its first breakpoint held, and does something meanwhile.
fn while_a_trap_is_late(meanwhile: impl Fn() + Sync) -> (u64, u64) {
    let counted = [const { AtomicU64::new(0) }; 2];
    IN_TRAP.prepare();
    smp::run_on_all(|cpu| match cpu {
        0 => {
            wait(|| IN_TRAP.is_held());
            meanwhile();
            IN_TRAP.release();
        }
        1 => {
            let (first, second) = count(3);
            counted[0].store(first, SeqCst);
            counted[1].store(second, SeqCst);
        }
        _ => {}
    });
    let [first, second] = counted.map(AtomicU64::into_inner);
    (first, second)
}

fn a_late_trap_goes_on_at_the_instruction() {
    let (place, _) = places();
    let original = byte_at(place);
    engine_by_hooks();
    hooks::registry().register(&HOLDER).unwrap();
    hooks::registry().arm(&[&HOLDER]).unwrap();
    for _ in 0..20 {
        insert("count", &[place]).unwrap();
        let hits = AtomicU64::new(u64::MAX);
        let counted = while_a_trap_is_late(|| {
            hits.store(remove(1)[0].hits, SeqCst);
            assert_eq!(byte_at(place), original, "the breakpoint is out");
            assert!(IN_TRAP.is_held(), "removal has not waited for a trap that answers");
        });
        assert_eq!(counted, (3, 3), "the instruction is carried out, once for each time");
        assert_eq!(hits.into_inner(), 0, "the program has not run");
    }
}

fn a_late_trap_meets_the_probe_that_is_there_now() {
    let (place, _) = places();
    insert("count", &[place]).unwrap();
    let counted = while_a_trap_is_late(|| {
        assert_eq!(remove(1)[0].hits, 0);
        insert("entry", &[place]).unwrap();
    });
    assert_eq!(counted, (3, 3));
    assert_eq!(remove(2)[0].hits, 3);
}

static RIP: AtomicU64 = AtomicU64::new(0);

fn breakpoints_of_others_are_left_to_them() {
    trap::set_handler(
        trap::BP,
        Some(|_, frame| {
            RIP.store(frame.rip, SeqCst);
            Action::Resume
        }),
    );
    let (behind_one, behind_two): (u64, u64);
    // SAFETY: the handler returns to behind the instruction.
    unsafe {
        // The `lea` has seven bytes, and gives the address behind itself.
        asm!("int3", "lea {}, [rip]", out(reg) behind_one);
        assert_eq!(RIP.load(SeqCst), behind_one - 7);
        asm!(".byte 0xcd, 0x03", "lea {}, [rip]", out(reg) behind_two);
    }
    assert_eq!(RIP.load(SeqCst), behind_two - 7, "the same instruction in two bytes");
    trap::set_handler(trap::BP, None);
}

/// Where the program of the held CPU reads: its page fault is where it is held, with interrupts masked.
const ABSENT: u64 = 0xffff_c000_0000_0000;
static IN_PROGRAM: Hold = Hold::new();

/// CPU 1 is held in a program that shares its place with another, so that the breakpoint stays and removing the program is a
/// matter of the core sync alone. Returns whether the CPU was still there when the program could be freed.
fn freed_while_running(release: impl Fn() + Sync) -> bool {
    let place = instructions("target_nop")[0];
    insert("touch", &[place]).unwrap();
    insert("entry", &[place]).unwrap();
    trap::set_handler(
        trap::PF,
        Some(|_, _| {
            IN_PROGRAM.stay();
            Action::Pass
        }),
    );
    let too_early = AtomicBool::new(false);
    IN_PROGRAM.prepare();
    smp::run_on_all(|cpu| match cpu {
        0 => {
            wait(|| IN_PROGRAM.is_held());
            let last = |_: &_| {
                // The program is freed when this returns.
                too_early.store(IN_PROGRAM.is_held(), SeqCst);
                IN_PROGRAM.release();
                wait(|| IN_PROGRAM.left.load(SeqCst));
                if too_early.load(SeqCst) {
                    smp::sync_cores();
                }
            };
            engine().remove(b"kernel", 6, &mut { last }).expect("it is there");
        }
        // SAFETY: does nothing with its argument.
        1 => unsafe { target_nop(ABSENT) },
        2 => release(),
        _ => {}
    });
    trap::set_handler(trap::PF, None);
    // SAFETY: as above.
    unsafe { target_nop(ABSENT) };
    assert_eq!(remove(2)[0].hits, 2, "the other program has its hit all the same");
    assert_eq!(records().len(), 1);
    too_early.into_inner()
}

fn a_program_stays_while_it_runs() {
    let early = freed_while_running(|| {
        // Let go only when the removal is known to wait.
        wait(|| IN_PROGRAM.is_held() && engine().host().sync.is_waited_for());
        IN_PROGRAM.release();
    });
    assert!(!early, "a program was given up while a CPU ran it");
}

fn without_the_core_sync_it_would_not() {
    engine().host().sync.omit(true);
    let early = freed_while_running(|| {});
    engine().host().sync.omit(false);
    assert!(early, "the test cannot see what it is for");
}

static IN_SLOT: Hold = Hold::new();
static OFFSET: AtomicUsize = AtomicUsize::new(0);
const TIMER: u8 = trap::FIRST_INTERRUPT;

/// Interrupts CPU 1; when that is in a slot, it stays there, with interrupts on, as a task does that has been preempted.
fn on_timer(_: u8, frame: &mut TrapFrame) -> Action {
    let slots = engine().host().slot_area();
    if slots.contains(&frame.rip) && IN_SLOT.wanted.load(SeqCst) {
        OFFSET.store((frame.rip - slots.start) as usize, SeqCst);
        interrupts::enable();
        IN_SLOT.stay();
        interrupts::disable();
    }
    Action::Resume
}

/// CPU 1 is held in the slot of the first place; everything is removed; the second place is probed. Says whether that
/// was given the same slot while the CPU was in it, and what the CPU has counted in how many passes.
fn reused_while_inside(release: impl Fn() + Sync) -> (bool, u64, (u64, u64)) {
    let (first, second) = places();
    insert("entry", &[first]).unwrap();
    trap::set_handler(TIMER, Some(on_timer));
    let passes = AtomicU64::new(0);
    let counted = [const { AtomicU64::new(0) }; 2];
    let reused = AtomicBool::new(false);
    IN_SLOT.prepare();
    smp::run_on_all(|cpu| match cpu {
        0 => {
            wait(|| IN_SLOT.is_held());
            let slot = engine().host().slot_area().start + (OFFSET.load(SeqCst) & !31) as u64;
            let before = slot_bytes(slot);
            engine().remove_all().expect("text can be written");
            insert("count", &[second]).unwrap();
            // The same instruction length, another register: the copy differs if it is the other's.
            reused.store(IN_SLOT.is_held() && slot_bytes(slot) != before, SeqCst);
            IN_SLOT.release();
        }
        1 => {
            apic::start_timer(TIMER, 50);
            while !IN_SLOT.left.load(SeqCst) {
                let (one, two) = count(100);
                passes.fetch_add(100, SeqCst);
                counted[0].fetch_add(one, SeqCst);
                counted[1].fetch_add(two, SeqCst);
            }
            apic::stop_timer();
        }
        2 => release(),
        _ => {}
    });
    trap::set_handler(TIMER, None);
    remove(1);
    let [one, two] = counted.map(AtomicU64::into_inner);
    (reused.into_inner(), passes.into_inner(), (one, two))
}

fn slot_bytes(slot: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    fault::probe_read(slot, &mut bytes).expect("slots can be read");
    bytes
}

fn a_slot_stays_while_a_cpu_is_in_it() {
    for _ in 0..10 {
        let (reused, passes, counted) = reused_while_inside(|| {
            wait(|| IN_SLOT.is_held() && engine().host().grace.is_waited_for());
            IN_SLOT.release();
        });
        assert!(!reused, "a slot was given away while a CPU was in it");
        assert_eq!(counted, (passes, passes));
    }
}

fn without_the_grace_period_it_would_not() {
    engine().host().grace.omit(true);
    let (reused, passes, counted) = reused_while_inside(|| {});
    engine().host().grace.omit(false);
    assert!(reused, "the test cannot see what it is for");
    // The CPU has gone on in the other instruction's copy.
    assert_eq!(
        counted.0 + counted.1,
        2 * passes - 1,
        "one instruction was not carried out"
    );
}
