//! Hooks on four CPUs and a fifth that changes what is on them: every pass sees a whole set or nothing of it, counts are exact, nothing
//! is called after it has been given up, and code comes and goes, while NMIs interrupt the passes.
//!
//! The word `operations=N` on the command line sets how many operations there are at least, and the word `churn` selects the test:
//!
//! ```text
//! DPROBES_QEMU_TIME_LIMIT=3600 cargo test --release --test hooks -- churn operations=1000000
//! ```
//!
//! With `--qemu-arg -singlestep` in front of them QEMU translates one instruction at a time, so that an NMI may come between any two.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{Layout, alloc, dealloc};
use core::arch::asm;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64};

use bootimage::info::boot_info;
use bootimage::trap::{self, Action};
use bootimage::{apic, clock, cpu_id, hooks, module, println, smp};
use gkhi::{Exit, ExitWith, Flow, Verdict, fire, hook};
use loadable::OWN;
use test_support::passes::{SHARED, Seen};
use x86_64::instructions::interrupts;

bootimage::test_main! {
    requires: "cpus=5 time_limit_s=240",
    tests: [a_pass_is_interrupted_between_any_two_instructions, churn],
}

/// Operations in an ordinary run.
const OPERATIONS: u64 = 4_000;

hook! {
    static ASKED: fn(seen: &mut Seen) -> u64 = "asked";
    static FLAGGED: generic fn(seen: &mut Seen) = "flagged";
}

#[inline(never)]
fn pass_shared(seen: &mut Seen) {
    fire!(SHARED, seen);
}
#[inline(never)]
fn pass_asked(seen: &mut Seen) -> u64 {
    fire!(return ASKED, seen);
    0
}
#[inline(never)]
fn pass_flagged(seen: &mut Seen) {
    fire!(generic FLAGGED, seen);
}

const ALIVE: u64 = 0x600d_600d_600d_600d;

/// An exit's data: says whether the memory is still the exit's.
struct Data {
    alive: u64,
    calls: AtomicU64,
    bit: u32,
}

impl Data {
    fn new(bit: u32) -> Self {
        Data {
            alive: ALIVE,
            calls: AtomicU64::new(0),
            bit,
        }
    }

    fn called(&self) {
        // SAFETY: a reference. Volatile, so that it is looked at each time.
        let alive = unsafe { core::ptr::read_volatile(&raw const self.alive) };
        assert_eq!(alive, ALIVE, "an exit was called after it had been deregistered");
        self.calls.fetch_add(1, Relaxed);
    }

    fn mark(&self, seen: &mut Seen) -> Flow {
        self.called();
        seen.set |= 1 << self.bit;
        Flow::Continue
    }

    fn alone(&self, seen: &mut Seen) -> Flow {
        self.called();
        seen.lone += 1;
        Flow::Continue
    }
}

/// An exit in memory that is poisoned when it is given up.
struct Mortal(*mut ExitWith<Data>);

impl Mortal {
    fn new(exit: ExitWith<Data>) -> Self {
        // SAFETY: it has a size.
        let place = unsafe { alloc(Layout::new::<ExitWith<Data>>()) }.cast::<ExitWith<Data>>();
        assert!(!place.is_null());
        // SAFETY: just allocated for it.
        unsafe { place.write(exit) };
        Mortal(place)
    }

    fn exit(&self) -> &'static Exit {
        // SAFETY: it stays until it has been deregistered: see `drop`.
        unsafe { &*self.0 }
    }

    fn calls(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.0).data().calls.load(SeqCst) }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, deregistered before this.
        unsafe {
            core::ptr::write_bytes(self.0.cast::<u8>(), 0xdd, size_of::<ExitWith<Data>>());
            dealloc(self.0.cast(), Layout::new::<ExitWith<Data>>());
        }
    }
}

static STEPS: AtomicU64 = AtomicU64::new(0);

/// Passes the hooks with a single step behind every instruction, exits and all, and passes them again in each debug exception.
fn a_pass_is_interrupted_between_any_two_instructions() {
    fn again(_: u8, _: &mut trap::TrapFrame) -> Action {
        STEPS.fetch_add(1, Relaxed);
        pass_shared(&mut Seen::default());
        pass_flagged(&mut Seen::default());
        Action::Resume
    }
    let alone = Mortal::new(shared(c"alone", 0));
    let beside = Mortal::new(shared(c"beside", 1));
    let flagged = Mortal::new(FLAGGED::exit(c"flagged", Data::new(0), |data: &Data, seen| {
        data.mark(seen)
    }));
    trap::set_handler(trap::DB, Some(again));
    // One exit, then a chain of two.
    for armed in [&[&alone, &flagged][..], &[&alone, &beside, &flagged]] {
        for exit in armed {
            // SAFETY: it stays until it has been deregistered.
            unsafe { hooks::registry().register_raw(exit.exit()).unwrap() };
            hooks::registry().arm(&[exit.exit()]).unwrap();
        }
        STEPS.store(0, Relaxed);
        let before: [u64; 3] = [&alone, &beside, &flagged].map(Mortal::calls);
        let mut seen = Seen::default();
        // SAFETY: sets and clears TF; the handler above takes the debug exceptions.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        pass_shared(&mut seen);
        pass_flagged(&mut seen);
        // SAFETY: as above.
        unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
        let steps = STEPS.load(Relaxed);
        assert!(steps > 40, "{steps}");
        // Neither a pass nor a count is lost, whichever instruction was interrupted.
        assert!(hooks::registry().hooks().all(|hook| hook.inside == 0));
        for (exit, before) in [&alone, &beside, &flagged].into_iter().zip(before) {
            let is_armed = armed.iter().any(|armed| core::ptr::eq(*armed, exit));
            assert_eq!(exit.calls() - before, if is_armed { steps + 1 } else { 0 });
        }
        for exit in armed.iter().rev() {
            // SAFETY: as above.
            let counted = unsafe { hooks::registry().deregister_raw(exit.exit()).unwrap() };
            assert_eq!(counted, steps + 1, "since it was registered");
        }
    }
    trap::set_handler(trap::DB, None);
}

/// Even: nothing is changing, and the set is armed if the number's second bit is set. Odd: changing.
static PHASE: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static LONE_SEEN: AtomicU64 = AtomicU64::new(0);
static PASSES: AtomicU64 = AtomicU64::new(0);
static IN_NMI: AtomicU64 = AtomicU64::new(0);
static IN_MODULE: AtomicU64 = AtomicU64::new(0);
static BETWEEN: AtomicU64 = AtomicU64::new(0);

/// The kernel's hook, its site in the module, the module's own hook, the one that returns, the generic one.
const SITES: usize = 5;
const ALL: [u32; SITES] = [0b111, 0b111, 0b1, 0b11, 0b1];

/// Makes one pass of a site: what it has seen. `None` when it is in the module, and that is not there.
fn pass(site: usize) -> Option<Seen> {
    let mut seen = Seen::default();
    match site {
        0 => pass_shared(&mut seen),
        1 | 2 => {
            let _there = module::get()?;
            IN_MODULE.fetch_add(1, Relaxed);
            if site == 1 {
                loadable::pass_shared(&mut seen);
            } else {
                loadable::pass_own(&mut seen);
            }
        }
        3 => assert_eq!(pass_asked(&mut seen), if seen.set == 0 { 0 } else { 77 }),
        _ => pass_flagged(&mut seen),
    }
    PASSES.fetch_add(1, Relaxed);
    LONE_SEEN.fetch_add(seen.lone.into(), Relaxed);
    Some(seen)
}

/// Makes two passes of each site, and compares what they see with each other and with what was being changed.
fn look() {
    let before = PHASE.load(SeqCst);
    let mut seen = [(0, None); 2 * SITES];
    for (index, (site, seen)) in seen.iter_mut().enumerate() {
        *site = index % SITES;
        *seen = pass(*site);
    }
    let after = PHASE.load(SeqCst);
    let mut was_armed = None;
    for (site, seen) in seen {
        let Some(seen) = seen else { continue };
        let armed = match seen.set {
            0 => false,
            set if set == ALL[site] => true,
            set => panic!("a part of the set at site {site}: {set:b}"),
        };
        if before == after {
            if before.is_multiple_of(2) {
                assert_eq!(armed, before & 2 != 0, "nothing was changing, site {site}");
            }
            // One change, in one direction: towards what follows this phase.
            let arming = before & 3 == 1;
            if !before.is_multiple_of(2) && was_armed == Some(arming) {
                assert_eq!(armed, arming, "site {site} has not seen what another has");
            }
        }
        was_armed = Some(armed);
    }
}

/// The record of a pass's call of what is armed: gkhi's section `gkhi_calls`.
#[repr(C)]
struct Call {
    /// The last byte of the call, relative to this.
    last: i32,
    reserved: u32,
    hook: i64,
}

/// Has a pass of one of the kernel's sites begun to count itself in here, and not yet counted itself out?
fn is_in_pass(rip: u64) -> bool {
    unsafe extern "C" {
        static __start_gkhi_calls: Call;
        static __stop_gkhi_calls: Call;
    }
    /// From the first byte of the four instructions that end with the call to its end.
    const BEFORE: u64 = 20;
    /// From there to behind the instruction that counts out.
    const AFTER: u64 = 8;
    let (start, stop) = (&raw const __start_gkhi_calls, &raw const __stop_gkhi_calls);
    let count = (stop.addr() - start.addr()) / size_of::<Call>();
    // SAFETY: the linker's section of such records, which nobody writes.
    let calls = unsafe { core::slice::from_raw_parts(start, count) };
    calls.iter().any(|call| {
        let after = (&raw const call.last as u64).wrapping_add_signed(call.last.into()) + 1;
        rip > after - BEFORE && rip < after + AFTER
    })
}

fn on_nmi(_: u8, frame: &mut trap::TrapFrame) -> Action {
    if is_in_pass(frame.rip) {
        BETWEEN.fetch_add(1, Relaxed);
    }
    IN_NMI.fetch_add(1, Relaxed);
    look();
    Action::Resume
}

/// Passes until told to stop. Between two rounds the CPU sleeps until the next interrupt, so that an emulated machine with fewer
/// processors gives them to those that have something to do: whoever changes text interrupts all CPUs at each step.
fn pass_until_stopped() {
    let mut round = 0_u64;
    while !STOP.load(SeqCst) {
        look();
        round += 1;
        if round.is_multiple_of(3) {
            // One that has been woken up as this one has, and is passing too.
            apic::send_nmi(1 + cpu_id() % (smp::cpu_count() - 1));
        }
        if !round.is_multiple_of(4) {
            interrupts::disable();
            if STOP.load(SeqCst) {
                interrupts::enable();
            } else {
                interrupts::enable_and_hlt();
            }
        }
    }
}

fn shared(name: &'static core::ffi::CStr, bit: u32) -> ExitWith<Data> {
    SHARED::exit(name, Data::new(bit), |data: &Data, seen| data.mark(seen))
}

/// One round of changes: how many operations, how many calls.
fn change(round: u64) -> (u64, u64) {
    let set = [
        Mortal::new(shared(c"a", 0)),
        Mortal::new(shared(c"b", 1).first()),
        Mortal::new(if round.is_multiple_of(3) {
            shared(c"c", 2).watch(1 << 40)
        } else {
            shared(c"c", 2).lifo()
        }),
        Mortal::new(OWN::exit(c"a", Data::new(0), |data: &Data, seen| data.mark(seen))),
        Mortal::new(ASKED::exit(c"a", Data::new(0), |data: &Data, seen| {
            data.mark(seen);
            Verdict::Continue
        })),
        Mortal::new(
            ASKED::exit(c"b", Data::new(1), |data: &Data, seen| {
                data.mark(seen);
                Verdict::Return(77)
            })
            .last(),
        ),
        Mortal::new(FLAGGED::exit(c"a", Data::new(0), |data: &Data, seen| data.mark(seen))),
    ];
    // Comes and goes on its own, so that there are chains of changing length.
    let lone = Mortal::new(if round.is_multiple_of(2) {
        SHARED::exit(c"lone", Data::new(0), |data: &Data, seen| data.alone(seen))
    } else {
        FLAGGED::exit(c"lone", Data::new(0), |data: &Data, seen| data.alone(seen))
    });
    let exits = set.each_ref().map(Mortal::exit);
    let mut operations = 0;
    let mut done = |count| {
        operations += count;
        // Every CPU that passes is interrupted, wherever it is.
        if round.is_multiple_of(2) {
            (1..smp::cpu_count()).for_each(apic::send_nmi);
        }
    };

    // The module comes now: the exit for its hook is already waiting, or is not registered yet.
    let late = round & 1 == 0;
    if !late {
        module::load().unwrap();
        done(1);
    }
    for exit in set.iter().chain([&lone]) {
        // SAFETY: it stays until it has been deregistered.
        unsafe { hooks::registry().register_raw(exit.exit()).unwrap() };
    }
    done(8);
    if late {
        module::load().unwrap();
        done(1);
    }
    if round & 2 == 0 {
        hooks::registry().arm(&[lone.exit()]).unwrap();
        done(1);
    }
    PHASE.fetch_add(1, SeqCst);
    hooks::registry().arm(&exits).unwrap();
    PHASE.fetch_add(1, SeqCst);
    done(1);
    // The module may go while its hook is armed, and come back to find its exit armed again.
    if round.is_multiple_of(4) {
        module::unload().unwrap();
        done(1);
        module::load().unwrap();
        done(1);
    }
    PHASE.fetch_add(1, SeqCst);
    hooks::registry().disarm(&exits).unwrap();
    PHASE.fetch_add(1, SeqCst);
    done(1);
    if round & 4 == 0 {
        module::unload().unwrap();
        done(1);
    }
    let mut calls = 0;
    for exit in set.iter().chain([&lone]) {
        // SAFETY: as above.
        let counted = unsafe { hooks::registry().deregister_raw(exit.exit()).unwrap() };
        assert_eq!(counted, exit.calls(), "exact");
        calls += counted;
    }
    done(8);
    if round & 4 != 0 {
        module::unload().unwrap();
        done(1);
    }
    (operations, calls)
}

fn wanted() -> u64 {
    let mut words = boot_info().command_line().split_ascii_whitespace();
    words
        .find_map(|word| word.strip_prefix("operations="))
        .map_or(OPERATIONS, |number| number.parse().expect("a number"))
}

fn churn() {
    let wanted = wanted();
    trap::set_handler(trap::NMI, Some(on_nmi));
    let (operations, calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = clock::now_ns();
    smp::run_on_all(|cpu| {
        if cpu != 0 {
            pass_until_stopped();
            return;
        }
        for round in 0.. {
            if operations.load(Relaxed) >= wanted {
                break;
            }
            let (done, called) = change(round);
            operations.fetch_add(done, Relaxed);
            calls.fetch_add(called, Relaxed);
            if round % 4096 == 4095 {
                println!(
                    "{} operations, {} s",
                    operations.load(Relaxed),
                    (clock::now_ns() - begun) / 1_000_000_000
                );
            }
        }
        STOP.store(true, SeqCst);
        smp::call_on_all(|| {});
    });
    trap::set_handler(trap::NMI, None);
    println!(
        "{} operations, {} passes ({} in the module), {} calls, {} NMIs, {} of them between a jump and the way back, {} ms",
        operations.load(Relaxed),
        PASSES.load(Relaxed),
        IN_MODULE.load(Relaxed),
        calls.load(Relaxed),
        IN_NMI.load(Relaxed),
        BETWEEN.load(Relaxed),
        (clock::now_ns() - begun) / 1_000_000
    );
    assert!(calls.load(Relaxed) > 0 && IN_NMI.load(Relaxed) > 0 && IN_MODULE.load(Relaxed) > 0);
    assert!(
        hooks::registry()
            .hooks()
            .all(|hook| hook.inside == 0 && hook.jumping == 0)
    );
    assert_eq!(hooks::registry().waiting().count(), 0);
}
