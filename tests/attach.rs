//! The engine as a client of the kernel's hooks: no gate of the descriptor table is patched, and it shares its hooks with others.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU64, AtomicUsize};

use bootimage::hooks::{self, BREAKPOINT, EXEC, MODULE_COMING, PAGE_FAULT};
use bootimage::memory::{self, Rights};
use bootimage::trap::{self, TrapFrame};
use bootimage::{NoAlloc, fault, module, ring3, smp};
use engine::trap::EXIT_TO;
use engine::wire::State;
use gkhi::{Error, Exit, ExitWith, Flow, Name, Verdict};
use test_support::attach::{self, ON_BREAKPOINT, ON_DEBUG, ON_FAULT, ON_PAGE_FAULT};
use test_support::{FACILITY, engine_by_hooks, function, idt, insert, instructions, records, remove, status};

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=240",
    tests: [
        dormant_hooks_are_nops,
        probes_are_hit_without_a_gate,
        an_emulated_call_and_a_step_go_through_the_hooks,
        a_fault_in_a_slot_is_shown_to_the_exits_behind_as_the_originals,
        the_engine_and_a_debugger_share_the_breakpoints_in_either_order,
        probes_go_with_the_module_they_are_in,
        programs_pass_a_hook_when_they_start,
        facilities_are_exits,
        all_cpus_hit_while_a_debugger_comes_and_goes,
        what_is_detached_is_dormant,
    ],
}

global_asm!(
    ".globl target_work",
    ".type target_work, @function",
    "target_work:",
    // The stack pointer is a multiple of 16 at the call: what that pushes goes where the CPU would put the frame of a trap.
    "    push rbx",
    "    xor r9d, r9d",
    "    lea rax, [rdi + 1]",
    "    add rax, r9",
    "    call target_leaf",
    // FS base is in no trap frame: this is single-stepped.
    "    jmp qword ptr fs:[rsi]",
    "    ud2",
    "    pop rbx",
    "    ret",
    ".size target_work, . - target_work",
    ".globl target_leaf",
    ".type target_leaf, @function",
    "target_leaf:",
    "    nop",
    "    ret",
    ".size target_leaf, . - target_leaf",
    ".globl target_load",
    ".type target_load, @function",
    "target_load:",
    "    mov rax, [rdi]",
    "    ret",
    ".size target_load, . - target_load",
);

unsafe extern "C" {
    fn target_work(value: u64, next: &u64) -> u64;
    fn target_load(from: u64) -> u64;
}

/// Instructions of `target_work`.
const LEA: usize = 2;
const CALL: usize = 4;
const JUMP: usize = 5;
const POP: usize = 7;

/// One more than the value, and what a probe has put into r9.
fn work(value: u64) -> u64 {
    let next = instructions_of_work()[POP];
    // SAFETY: the function jumps where the word says, which is its own return. FS base is 0.
    unsafe { target_work(value, &next) }
}

/// Where the instructions of the function are; asked before there are breakpoints in it.
fn instructions_of_work() -> &'static [u64] {
    static ALL: spin::Once<Vec<u64>> = spin::Once::new();
    ALL.call_once(|| instructions("target_work"))
}

/// All exceptions' gates, as words.
fn gates() -> [[u64; 2]; 32] {
    // SAFETY: the table has 256 gates of 16 bytes, and nobody writes it here.
    unsafe { idt().cast::<[[u64; 2]; 32]>().read_volatile() }
}

fn calls(exit: &'static Exit) -> u64 {
    hooks::registry().exit(exit).expect("registered").calls
}

static BEFORE: spin::Once<[[u64; 2]; 32]> = spin::Once::new();

/// The kernel's and the engine's hooks.
const HOOKS: [Name; 8] = [
    Name::new(c"breakpoint"),
    Name::new(c"debug"),
    Name::new(c"page_fault"),
    Name::new(c"fault"),
    Name::new(c"module_coming"),
    Name::new(c"module_going"),
    Name::new(c"exec"),
    Name::new(c"dprobes_exit_to"),
];

/// Every hook is there, nobody is on it, and its sites are NOPs.
fn assert_dormant() {
    let registry = hooks::registry();
    for name in HOOKS {
        let info = registry.hooks().find(|info| info.hook.name() == name);
        let info = info.expect("a hook of this name");
        assert_eq!((info.jumping, info.armed, info.inside), (0, 0, 0));
        assert!(info.sites > 0);
        for address in registry.sites(info.hook).filter_map(gkhi::Site::address) {
            let mut found = [0; 5];
            fault::probe_read(address as u64, &mut found).expect("text");
            assert_eq!(found, gkhi::NOP);
        }
    }
}

fn dormant_hooks_are_nops() {
    BEFORE.call_once(gates);
    assert_dormant();
    assert_eq!(work(1), 2);
}

fn probes_are_hit_without_a_gate() {
    engine_by_hooks();
    insert("count", &[instructions_of_work()[LEA]]).unwrap();
    {
        // What a hit does must not need memory.
        let _no_alloc = NoAlloc::new();
        for value in 0..1_000 {
            assert_eq!(work(value), value + 2, "the probe has put 1 into r9");
        }
    }
    assert_eq!(calls(&ON_BREAKPOINT), 1_000);
    assert_eq!(remove(1)[0].hits, 1_000);
    assert_eq!(work(1), 2);
    assert_eq!(Some(&gates()), BEFORE.get(), "no gate is patched");
}

fn an_emulated_call_and_a_step_go_through_the_hooks() {
    for (place, steps) in [(CALL, 0), (JUMP, 100)] {
        insert("entry", &[instructions_of_work()[place]]).unwrap();
        let before = calls(&ON_DEBUG);
        for value in 0..100 {
            assert_eq!(work(value), value + 1);
        }
        assert_eq!(status(2, 1).hits, 100);
        assert_eq!(
            calls(&ON_DEBUG) - before,
            steps,
            "one debug exception for each step, none for an emulation"
        );
        remove(2);
    }
    // SAFETY: reading DR6 has no effect.
    let status: u64;
    unsafe { asm!("mov {}, dr6", out(reg) status) };
    assert_eq!(status >> 14 & 1, 0, "the step's bit has been cleared");
}

const ABSENT: u64 = 0xffff_c000_0000_0000;

/// Maps the absent page, and remembers where it was missed.
static PAGER: ExitWith<AtomicU64> = PAGE_FAULT::exit(c"pager", AtomicU64::new(0), |rip: &AtomicU64, frame, address| {
    if address != ABSENT {
        return Verdict::Continue;
    }
    rip.store(frame.rip, Relaxed);
    memory::map(ABSENT, 4096, Rights::WRITE).expect("nothing is mapped there");
    Verdict::Return(())
});

static FAULT_RIP: AtomicU64 = AtomicU64::new(0);

fn a_fault_in_a_slot_is_shown_to_the_exits_behind_as_the_originals() {
    let place = instructions("target_load")[0];
    insert("log", &[place]).unwrap();
    hooks::registry().register(&PAGER).unwrap();
    hooks::registry().arm(&[&PAGER]).unwrap();
    let faults = calls(&ON_PAGE_FAULT);
    // SAFETY: the page is mapped when it is missed.
    assert_eq!(unsafe { target_load(ABSENT) }, 0);
    assert_eq!(PAGER.data().load(Relaxed), place);
    assert_eq!(calls(&ON_PAGE_FAULT) - faults, 1);
    assert_eq!(hooks::registry().deregister(&PAGER), Ok(1));
    // A fault of another kind goes by the other hook, and on to the kernel's handler.
    trap::set_handler(
        trap::GP,
        Some(|_, frame| {
            FAULT_RIP.store(frame.rip, Relaxed);
            frame.rip += 3;
            trap::Action::Resume
        }),
    );
    // SAFETY: the handler skips the load.
    unsafe { target_load(1 << 63) };
    trap::set_handler(trap::GP, None);
    assert_eq!(FAULT_RIP.load(Relaxed), place);
    assert_eq!(calls(&ON_FAULT), 1);
    assert_eq!(records().len(), 1, "one completed execution, one record");
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (1, 2));
    // SAFETY: mapped above, and nobody else knows it.
    unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
}

/// A debugger with one breakpoint of its own, on a NOP of one byte.
struct Debugger {
    place: AtomicU64,
    seen: AtomicU64,
    owned: AtomicU64,
}

impl Debugger {
    const fn new() -> Self {
        Debugger {
            place: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            owned: AtomicU64::new(0),
        }
    }

    fn on_breakpoint(&self, frame: &TrapFrame) -> Verdict<()> {
        self.seen.fetch_add(1, Relaxed);
        if frame.rip.wrapping_sub(1) != self.place.load(Relaxed) {
            return Verdict::Continue;
        }
        self.owned.fetch_add(1, Relaxed);
        // The breakpoint is in the place of a NOP: there is nothing to carry out.
        Verdict::Return(())
    }

    fn set(&self, place: u64) {
        self.place.store(place, Relaxed);
        write(place, 0xcc);
    }

    fn clear(&self) {
        write(self.place.load(Relaxed), 0x90);
        // No CPU is on its way to the handler any more.
        smp::sync_cores();
    }
}

fn write(place: u64, byte: u8) {
    // SAFETY: a NOP or a breakpoint for it, whose owner is armed.
    unsafe { memory::write_text([(place, &[byte][..])].into_iter()) }.expect("text");
    smp::sync_cores();
}

type OnBreakpoint = ExitWith<Debugger>;
static DEBUGGER_FIRST: OnBreakpoint = BREAKPOINT::exit(c"debugger", Debugger::new(), |debugger: &Debugger, frame| {
    debugger.on_breakpoint(frame)
})
.first();
static DEBUGGER_LAST: OnBreakpoint = BREAKPOINT::exit(c"debugger", Debugger::new(), |debugger: &Debugger, frame| {
    debugger.on_breakpoint(frame)
})
.last();

fn the_engine_and_a_debugger_share_the_breakpoints_in_either_order() {
    let leaf = function("target_leaf").as_ptr() as u64;
    for (exit, index) in [(&DEBUGGER_FIRST, 1), (&DEBUGGER_LAST, 2)] {
        hooks::registry().register(exit).unwrap();
        hooks::registry().arm(&[exit]).unwrap();
        assert_eq!(hooks::registry().exit(exit).unwrap().index, index);
        insert("count", &[instructions_of_work()[LEA]]).unwrap();
        exit.data().set(leaf);
        let engines = calls(&ON_BREAKPOINT);
        for value in 0..500 {
            assert_eq!(work(value), value + 2);
        }
        let engines = calls(&ON_BREAKPOINT) - engines;
        exit.data().clear();
        // Each breakpoint reaches its owner, and passes who is in front of that.
        let (seen, owned) = (exit.data().seen.load(Relaxed), exit.data().owned.load(Relaxed));
        assert_eq!(remove(1)[0].hits, 500);
        assert_eq!(owned, 500);
        let expected = if index == 1 { (1_000, 500) } else { (500, 1_000) };
        assert_eq!((seen, engines), expected);
        assert_eq!(hooks::registry().deregister(exit), Ok(seen));
    }
    // A breakpoint of nobody's goes on to the kernel.
    trap::set_handler(trap::BP, Some(|_, _| trap::Action::Resume));
    x86_64::instructions::interrupts::int3();
    trap::set_handler(trap::BP, None);
}

static COMING: ExitWith<AtomicU64> = MODULE_COMING::exit(c"coming", AtomicU64::new(0), |start: &AtomicU64, from, _| {
    start.store(from, Relaxed);
    Flow::Continue
});

fn probes_go_with_the_module_they_are_in() {
    assert!(module::get().is_none());
    hooks::registry().register(&COMING).unwrap();
    hooks::registry().arm(&[&COMING]).unwrap();
    for _ in 0..3 {
        module::load().unwrap();
        assert_eq!(module::load(), Err(module::ModuleError::Loaded));
        assert_eq!(COMING.data().swap(0, Relaxed), module::text().start);
        let there = module::get().expect("it has been loaded");
        let place = instructions("target_in_module")[0];
        insert("entry", &[place]).unwrap();
        assert_eq!(loadable::target_in_module(41), 42);
        drop(there);
        // The probe is still armed.
        module::unload().unwrap();
        assert_eq!(module::unload(), Err(module::ModuleError::NotLoaded));
        assert!(fault::probe_read(place, &mut [0]).is_err(), "the text is gone");
        let last = status(2, 1);
        assert_eq!((last.hits, last.state), (1, State::ModuleGone as u32));
        // Where the text was there is text again, and nothing of the probe.
        module::load().unwrap();
        let there = module::get().expect("it has been loaded");
        assert_eq!(loadable::target_in_module(41), 42);
        assert_eq!(status(2, 1).hits, 1);
        remove(2);
        drop(there);
        module::unload().unwrap();
    }
    assert_eq!(hooks::registry().deregister(&COMING), Ok(6));
}

const USER_CODE: u64 = 0x1000_0000;
const USER_STACK: u64 = 0x1001_0000;

static STARTED: ExitWith<[AtomicU64; 2]> = EXEC::exit(
    c"started",
    [const { AtomicU64::new(0) }; 2],
    |seen: &[AtomicU64; 2], entry, _, argument| {
        seen[0].store(*entry, Relaxed);
        seen[1].store(*argument, Relaxed);
        match *argument {
            0 => Verdict::Return(1_000),
            _ => {
                *argument += 1;
                Verdict::Continue
            }
        }
    },
);
/// A breakpoint in ring 3: the pass counts relative to the kernel's GS, which is not the one that the program has.
static FROM_RING_3: ExitWith<AtomicUsize> =
    BREAKPOINT::exit(c"from_ring_3", AtomicUsize::new(0), |count: &AtomicUsize, frame| {
        if frame.rip != USER_CODE + 5 {
            return Verdict::Continue;
        }
        count.fetch_add(1, Relaxed);
        frame.rax *= 2;
        Verdict::Return(())
    });

fn programs_pass_a_hook_when_they_start() {
    memory::map(USER_CODE, 1, Rights::EXECUTE | Rights::USER).expect("free");
    memory::map(USER_STACK, 1, Rights::WRITE | Rights::USER).expect("free");
    // lea rax, [rdi + 1]; int3; int 0xf2
    let code = [0x48, 0x8d, 0x47, 0x01, 0xcc, 0xcd, ring3::LEAVE_VECTOR];
    let alias = memory::writable_alias(USER_CODE).expect("mapped above");
    // SAFETY: a page of this test's own, longer than the code.
    unsafe { alias.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    // SAFETY: ring 3 code on pages of its own.
    let run = |argument| unsafe { ring3::run(USER_CODE, USER_STACK + 4096, argument) };
    for exit in [&*STARTED, &*FROM_RING_3] {
        hooks::registry().register(exit).unwrap();
    }
    hooks::registry().arm(&[&STARTED, &FROM_RING_3]).unwrap();
    for argument in 1..=100 {
        assert_eq!(run(argument), 2 * (argument + 2));
    }
    assert_eq!(run(0), 1_000, "the exit has answered in the program's place");
    assert_eq!(FROM_RING_3.data().load(Relaxed), 100);
    assert_eq!(STARTED.data().each_ref().map(|seen| seen.load(Relaxed)), [USER_CODE, 0]);
    for (exit, calls) in [(&*STARTED, 101), (&*FROM_RING_3, 100)] {
        assert_eq!(hooks::registry().deregister(exit), Ok(calls));
    }
}

/// A facility: which number it is, and what it was last asked for.
struct Facility {
    number: u32,
    asked: [AtomicU64; 3],
}

impl Facility {
    const fn new(number: u32) -> Self {
        Facility {
            number,
            asked: [const { AtomicU64::new(0) }; 3],
        }
    }

    fn take(&self, exit: &engine::host::ExitTo, frame: &mut engine::trap::TrapFrame) -> Verdict<()> {
        if exit.facility != self.number {
            return Verdict::Continue;
        }
        let codes = u64::from(exit.major) << 16 | u64::from(exit.minor);
        for (to, fact) in self.asked.iter().zip([codes, exit.address, frame.rdi]) {
            to.store(fact, Relaxed);
        }
        frame.rdi = 100;
        Verdict::Return(())
    }

    fn asked(&self) -> [u64; 3] {
        self.asked.each_ref().map(|fact| fact.load(Relaxed))
    }
}

static DUMP: ExitWith<Facility> = EXIT_TO::exit(c"dump", Facility::new(2), |facility: &Facility, exit, frame| {
    facility.take(exit, frame)
});
static OWN: ExitWith<Facility> = EXIT_TO::exit(c"own", Facility::new(FACILITY), |facility: &Facility, exit, frame| {
    facility.take(exit, frame)
});

fn facilities_are_exits() {
    let (lea, leaf) = (instructions_of_work()[LEA], function("target_leaf").as_ptr() as u64);
    // 16 at the `lea`, the dump at the leaf.
    insert("exits", &[lea, leaf]).unwrap();
    let host = || engine_by_hooks().host().exits().0;
    let before = host();
    // Nobody is registered: the host has the one, nobody the other.
    assert_eq!(work(7), 8);
    assert_eq!((host() - before, status(35, 2).unavailable), (1, 1));
    for exit in [&DUMP, &OWN] {
        hooks::registry().register(exit).unwrap();
    }
    hooks::registry().arm(&[&DUMP]).unwrap();
    assert_eq!(work(7), 8);
    assert_eq!(DUMP.data().asked(), [35 << 16 | 2, leaf, 7]);
    assert_eq!(
        (host() - before, status(35, 2).unavailable),
        (2, 1),
        "an exit that continues leaves it to the host"
    );
    hooks::registry().arm(&[&OWN]).unwrap();
    assert_eq!(work(7), 101, "the registers are passed by reference");
    assert_eq!(OWN.data().asked(), [35 << 16 | 1, lea, 7]);
    assert_eq!(
        (host() - before, status(35, 2).unavailable),
        (2, 1),
        "the host is not asked for what an exit has taken"
    );
    assert_eq!(hooks::registry().deregister(&DUMP), Ok(4), "also where it continues");
    assert_eq!(work(7), 101);
    assert_eq!(hooks::registry().deregister(&OWN), Ok(3));
    assert_eq!(work(7), 8);
    assert_eq!(records().len(), 10, "each leaves its record");
    let last = remove(35);
    assert_eq!([last[0].unavailable, last[1].unavailable], [0, 3]);
    assert_eq!(host() - before, 3);
}

fn all_cpus_hit_while_a_debugger_comes_and_goes() {
    const ROUNDS: u64 = 40;
    let leaf = function("target_leaf").as_ptr() as u64;
    insert("count", &[instructions_of_work()[LEA]]).unwrap();
    let (stop, worked) = (AtomicUsize::new(0), AtomicU64::new(0));
    smp::run_on_all(|cpu| {
        if cpu != 0 {
            while stop.load(Relaxed) == 0 {
                assert_eq!(work(5), 7);
                worked.fetch_add(1, Relaxed);
            }
            return;
        }
        for round in 0..ROUNDS {
            let exit = if round % 2 == 0 {
                &DEBUGGER_FIRST
            } else {
                &DEBUGGER_LAST
            };
            hooks::registry().register(exit).unwrap();
            hooks::registry().arm(&[exit]).unwrap();
            let owned = exit.data().owned.load(Relaxed);
            exit.data().set(leaf);
            while exit.data().owned.load(Relaxed) == owned {
                core::hint::spin_loop();
            }
            exit.data().clear();
            hooks::registry().deregister(exit).unwrap();
        }
        stop.store(1, Relaxed);
    });
    let last = remove(1);
    assert_eq!((last[0].hits, last[0].missed), (worked.into_inner(), 0));
}

fn what_is_detached_is_dormant() {
    attach::detach().unwrap();
    assert_dormant();
    assert_eq!(
        attach::detach(),
        Err(Error::NotRegistered {
            exit: ON_BREAKPOINT.name()
        })
    );
    attach::attach().unwrap();
    insert("count", &[instructions_of_work()[LEA]]).unwrap();
    assert_eq!(work(1), 3);
    remove(1);
    attach::detach().unwrap();
    assert_dormant();
    assert_eq!(Some(&gates()), BEFORE.get());
}
