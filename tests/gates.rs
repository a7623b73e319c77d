//! Gates of the descriptor table: saved, replaced, chained and restored.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{apic, smp};
use engine::trap::idt::{IdtError, PatchedGate};
use test_support::{VECTORS, engine, idt, patch_gate};

bootimage::test_main! {
    requires: "cpus=3",
    tests: [
    a_gate_is_saved_replaced_and_restored,
    gates_change_between_the_exceptions_of_other_cpus,
    what_is_not_the_engines_reaches_the_kernels_handler_unchanged,
    a_gate_that_somebody_else_changed_is_left_alone,
    ],
}

/// The gate of a vector, as it is.
fn gate(vector: u8) -> engine::trap::idt::Gate {
    // SAFETY: the table has 256 gates.
    unsafe { idt().add(usize::from(vector)).read_volatile() }
}

fn a_gate_is_saved_replaced_and_restored() {
    for vector in VECTORS {
        let before = gate(*vector);
        let patched = patch_gate(*vector);
        assert_eq!(patched.original(), before);
        assert_ne!(gate(*vector).handler(), before.handler());
        assert_eq!(
            gate(*vector).with_handler(before.handler()),
            before,
            "only the handler differs"
        );
        // SAFETY: as in `patch_gate`.
        let twice = unsafe { PatchedGate::install::<test_support::TheEngine>(idt(), *vector) };
        assert_eq!(twice.unwrap_err(), IdtError::Installed { vector: *vector });
        patched.restore().unwrap();
        assert_eq!(gate(*vector), before);
    }
    // SAFETY: as in `patch_gate`.
    let none = unsafe { PatchedGate::install::<test_support::TheEngine>(idt(), 8) };
    assert_eq!(none.unwrap_err(), IdtError::NoEntry { vector: 8 });
}

static SEEN: AtomicUsize = AtomicUsize::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);
static RSP: AtomicU64 = AtomicU64::new(0);

fn note(_: u8, frame: &mut TrapFrame) -> Action {
    SEEN.fetch_add(1, Ordering::Relaxed);
    RIP.store(frame.rip, Ordering::Relaxed);
    RSP.store(frame.rsp, Ordering::Relaxed);
    frame.rax = frame.rax.wrapping_add(frame.rcx);
    Action::Resume
}

/// Executes an int3 of nobody's: RIP and RSP behind it, and RAX as the handler left it.
fn int3(rax: u64, rcx: u64) -> (u64, u64, u64) {
    let mut rax = rax;
    let (mut rip, rsp): (u64, u64);
    // SAFETY: the handler adds to rax and returns.
    unsafe {
        asm!("int3", "lea {rip}, [rip]", "mov {rsp}, rsp", rip = out(reg) rip, rsp = out(reg) rsp, inout("rax") rax, in("rcx") rcx);
    }
    // The `lea` has seven bytes, and gives the address behind itself.
    rip -= 7;
    (rip, rsp, rax)
}

fn what_is_not_the_engines_reaches_the_kernels_handler_unchanged() {
    trap::set_handler(trap::BP, Some(note));
    engine();
    let (rip, rsp, rax) = int3(40, 2);
    assert_eq!(
        (RIP.load(Ordering::Relaxed), RSP.load(Ordering::Relaxed), rax),
        (rip, rsp, 42)
    );
    trap::set_handler(trap::BP, None);
    // The same for a fault with an error code.
    trap::set_handler(trap::GP, Some(skip_load));
    // SAFETY: the handler skips the instruction.
    unsafe { asm!("mov rax, [rax]", inout("rax") 1_u64 << 63 => _) };
    trap::set_handler(trap::GP, None);
    assert_eq!(RIP.load(Ordering::Relaxed), 0x10_0000);
}

fn skip_load(_: u8, frame: &mut TrapFrame) -> Action {
    assert_eq!(frame.orig_rax, 0, "the error code");
    RIP.store(0x10_0000, Ordering::Relaxed);
    frame.rip += 3;
    Action::Resume
}

/// Rounds of patching and restoring in which the other CPUs take the exception.
const ROUNDS: u64 = 200;

/// Even: take the exception. Odd: do not.
static PHASE: AtomicU64 = AtomicU64::new(0);

fn gates_change_between_the_exceptions_of_other_cpus() {
    trap::set_handler(
        trap::UD,
        Some(|_, frame| {
            SEEN.fetch_add(1, Ordering::Relaxed);
            frame.rip += 2;
            Action::Resume
        }),
    );
    trap::set_handler(trap::FIRST_INTERRUPT, Some(|_, _| Action::Resume));
    SEEN.store(0, Ordering::Relaxed);
    let (taken, waiting) = (AtomicUsize::new(0), AtomicU64::new(0));
    smp::run_on_all(|cpu| {
        if cpu == 0 {
            let others = smp::cpu_count() as u64 - 1;
            let mut patched = None;
            for round in 0..2 * ROUNDS {
                // Through the gate as it is now.
                let before = taken.load(Ordering::Relaxed);
                while taken.load(Ordering::Relaxed) == before {
                    core::hint::spin_loop();
                }
                PHASE.fetch_add(1, Ordering::AcqRel);
                while waiting.load(Ordering::Acquire) != others * (round + 1) {
                    core::hint::spin_loop();
                }
                match patched.take() {
                    None => patched = Some(patch_gate(trap::UD)),
                    Some(gate) => PatchedGate::restore(gate).unwrap(),
                }
                PHASE.fetch_add(1, Ordering::AcqRel);
            }
            return;
        }
        apic::start_timer(trap::FIRST_INTERRUPT, 300);
        for round in 0..2 * ROUNDS {
            while PHASE.load(Ordering::Acquire) == 2 * round {
                // SAFETY: the handler skips the instruction.
                unsafe { asm!("ud2") };
                taken.fetch_add(1, Ordering::Relaxed);
            }
            waiting.fetch_add(1, Ordering::AcqRel);
            while PHASE.load(Ordering::Acquire) == 2 * round + 1 {
                core::hint::spin_loop();
            }
        }
        apic::stop_timer();
    });
    trap::set_handler(trap::FIRST_INTERRUPT, None);
    trap::set_handler(trap::UD, None);
    let taken = taken.into_inner();
    assert!(taken > 0);
    assert_eq!(
        SEEN.load(Ordering::Relaxed),
        taken,
        "every exception reached the kernel's handler once"
    );
}

fn a_gate_that_somebody_else_changed_is_left_alone() {
    let vector = 21;
    let before = gate(vector);
    let patched = patch_gate(vector);
    let theirs = gate(vector).with_handler(0xffff_ffff_8000_1234);
    // SAFETY: nothing raises #CP here.
    unsafe { idt().add(usize::from(vector)).write_volatile(theirs) };
    let (patched, error) = patched.restore().unwrap_err();
    assert_eq!(error, IdtError::Changed { vector, found: theirs });
    assert_eq!(gate(vector), theirs);
    // SAFETY: as above.
    unsafe { idt().add(usize::from(vector)).write_volatile(theirs.with_handler(0)) };
    drop(patched);
    // SAFETY: as above.
    unsafe { idt().add(usize::from(vector)).write_volatile(before) };
}
