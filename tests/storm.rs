//! Everything at once on four CPUs: probes that come and go while they are hit, with tasks that are preempted anywhere and go on on other
//! CPUs, timer interrupts, NMIs, faults, hooks that are armed and disarmed, a module that is loaded and unloaded, and records that are read.
//!
//! The probed code keeps counts of its own, to which those of the probes must come to the last one. From time to time everything is taken
//! out: then the text is the original's, byte for byte, every slot is free, and the heap has what it had in the beginning.
//!
//! On the command line `seconds=N` says for how long, and `seed=N` which random numbers decide what is done; when it is done depends on the
//! machine. `./x soak` gives both.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::hint::spin_loop;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{apic, clock, heap, hooks, memory, module, println, smp, task};
use engine::record::header::{Header, RecordState};
use engine::wire::ProbeStatus;
use gkhi::{ExitWith, Flow, fire};
use spin::{Mutex, Once};
use test_support::passes::{SHARED, Seen};
use test_support::{engine, engine_by_hooks, insert, instructions, option, remove};

bootimage::test_main! {
    requires: "cpus=4 time_limit_s=600",
    tests: [storm],
}

/// How long an ordinary run takes, in seconds.
const SECONDS: u64 = 60;

/// Between two times that everything is taken out.
const ROUND_MS: u64 = 1_000;

const TIMER: u8 = trap::FIRST_INTERRUPT;

global_asm!(
    // rdi: passes; rsi: what each place's marks add up to; rdx: memory that is there; rcx: memory that is not; r8: where to jump.
    ".globl target_storm",
    ".type target_storm, @function",
    "target_storm:",
    "    push rbx",
    "    xor r10d, r10d",
    "1:  xor r9d, r9d",
    ".globl target_storm_0",
    "target_storm_0:",
    "    lea r10, [r10 + 1]", // copied
    "    add [rsi], r9",
    "    xor r9d, r9d",
    ".globl target_storm_1",
    "target_storm_1:",
    "    call target_storm_leaf", // emulated
    "    add [rsi + 8], r9",
    "    xor r9d, r9d",
    ".globl target_storm_2",
    "target_storm_2:",
    "    jmp qword ptr fs:[r8]", // FS base is in no trap frame: stepped, or what the engine finds better
    "    nop",
    ".globl target_storm_landing",
    "target_storm_landing:",
    "    add [rsi + 16], r9",
    "    xor r9d, r9d",
    ".globl target_storm_3",
    "target_storm_3:",
    "    mov rbx, [rcx]", // faults each time, and is fixed up
    "    nop",
    "target_storm_fixed:",
    "    add [rsi + 24], r9",
    "    xor r9d, r9d",
    ".globl target_storm_4",
    "target_storm_4:",
    "    mov rbx, [rip + target_storm_word]", // copied, with a displacement that is corrected
    "    add [rsi + 32], r9",
    "    cmp rbx, [rdx]",
    "    jne 2f",
    "    dec rdi",
    "    jnz 1b",
    "2:  mov rax, r10",
    "    pop rbx",
    "    ret",
    ".size target_storm, . - target_storm",
    ".globl target_storm_leaf",
    ".type target_storm_leaf, @function",
    "target_storm_leaf:",
    "    ret",
    ".size target_storm_leaf, . - target_storm_leaf",
    ".globl target_in_interrupt",
    ".type target_in_interrupt, @function",
    "target_in_interrupt:",
    "    xor r9d, r9d",
    ".globl target_storm_5",
    "target_storm_5:",
    "    mov eax, 1",
    "    lock add [rdi], r9",
    "    ret",
    ".size target_in_interrupt, . - target_in_interrupt",
    ".globl target_in_nmi",
    ".type target_in_nmi, @function",
    "target_in_nmi:",
    "    xor r9d, r9d",
    ".globl target_storm_6",
    "target_storm_6:",
    "    mov eax, 1",
    "    lock add [rdi], r9",
    "    ret",
    ".size target_in_nmi, . - target_in_nmi",
    ".pushsection .rodata",
    "    .balign 8",
    "target_storm_word: .quad 0x1122334455667788",
    ".popsection",
    ".pushsection __ex_table, \"a\"",
    "    .quad target_storm_3, target_storm_fixed",
    ".popsection",
);

unsafe extern "C" {
    fn target_storm(passes: u64, marks: *const AtomicU64, there: &u64, absent: u64, landing: &u64) -> u64;
    fn target_in_interrupt(marks: *const AtomicU64);
    fn target_in_nmi(marks: *const AtomicU64);
    static target_storm_0: u8;
    static target_storm_1: u8;
    static target_storm_2: u8;
    static target_storm_3: u8;
    static target_storm_4: u8;
    static target_storm_5: u8;
    static target_storm_6: u8;
    static target_storm_landing: u8;
}

const PLACES: usize = 7;
/// The place whose instruction faults each time: every hit there is taken back.
const FAULTING: usize = 3;
/// The place in the interrupt handler, which no hit is interrupted by.
const INTERRUPT: usize = 5;
/// The place in the NMI handler: what interrupts a hit is missed.
const IN_NMI: usize = 6;
/// The kinds of programs: plain, logging, with a limit, suspended until it suspends itself. See tests/support/build.rs.
const KINDS: usize = 4;
const LOGGING: usize = 1;
const LIMITED: usize = 2;
const SUSPENDED: usize = 3;

fn places() -> [u64; PLACES] {
    [
        &raw const target_storm_0,
        &raw const target_storm_1,
        &raw const target_storm_2,
        &raw const target_storm_3,
        &raw const target_storm_4,
        &raw const target_storm_5,
        &raw const target_storm_6,
    ]
    .map(|place| place as u64)
}

fn major(place: usize, kind: usize) -> u16 {
    (110 + 10 * place + kind) as u16
}

const ABSENT: u64 = 0xffff_c000_0000_0000;
const WORD: u64 = 0x1122_3344_5566_7788;
const TASKS: usize = 5;

/// What the probed code has seen, by place.
static MARKS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
static PASSES: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
static HOOK_SEEN: AtomicU64 = AtomicU64::new(0);

/// Everybody stops at the next opportunity, and says so.
static PAUSE: AtomicBool = AtomicBool::new(false);
static PAUSED: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

fn pause() {
    if PAUSE.load(Acquire) {
        PAUSED.fetch_add(1, AcqRel);
        while PAUSE.load(Acquire) {
            spin_loop();
        }
        PAUSED.fetch_sub(1, AcqRel);
    }
}

#[inline(never)]
fn pass_hook(seen: &mut Seen) {
    fire!(SHARED, seen);
}

/// What a task does.
fn work(_: usize) {
    let landing = &raw const target_storm_landing as u64;
    while !STOP.load(Acquire) {
        let marks = [const { AtomicU64::new(0) }; PLACES];
        // SAFETY: writes the marks; the fault has a fix-up, and the jump leads to where it says.
        let passes = unsafe { target_storm(10, marks.as_ptr(), &WORD, ABSENT, &landing) };
        assert_eq!(passes, 10, "the probed code computes something else");
        for (sum, mark) in MARKS.iter().zip(&marks) {
            sum.fetch_add(mark.load(Relaxed), Relaxed);
        }
        PASSES.fetch_add(passes, Relaxed);
        let mut seen = Seen::default();
        pass_hook(&mut seen);
        HOOK_SEEN.fetch_add(seen.lone.into(), Relaxed);
        pause();
    }
}

fn on_timer(vector: u8, frame: &mut TrapFrame) -> Action {
    // SAFETY: adds to the count.
    unsafe { target_in_interrupt(&raw const MARKS[INTERRUPT]) };
    task::preempt(vector, frame);
    Action::Resume
}

fn on_nmi(_: u8, _: &mut TrapFrame) -> Action {
    // SAFETY: as above.
    unsafe { target_in_nmi(&raw const MARKS[IN_NMI]) };
    NMIS.fetch_add(1, Release);
    Action::Resume
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}

/// What probes that have gone have counted.
#[derive(Default)]
struct Sums {
    /// By place: how often a program has run.
    ran: [u64; PLACES],
    /// By major: records that hits have left.
    logged: Read,
    inserted: u64,
}

static SUMS: Mutex<Option<Sums>> = Mutex::new(None);

fn take_out(place: usize, kind: usize) -> ProbeStatus {
    let last = remove(major(place, kind))[0];
    assert!(place == IN_NMI || last.missed == 0, "nothing else is hit inside a hit");
    assert!(place == FAULTING || last.faulted == 0, "nothing else faults");
    match kind {
        LIMITED => assert!(last.hits <= 40),
        SUSPENDED => assert_eq!((last.hits, last.late), (0, 0)),
        _ => assert_eq!((last.late, last.skipped, last.suspended), (0, 0, 0)),
    }
    let mut sums = SUMS.lock();
    let sums = sums.get_or_insert_default();
    sums.ran[place] += last.hits + last.faulted;
    if kind == LOGGING && last.hits > last.lost {
        *sums.logged.entry(last.major).or_default() += last.hits - last.lost;
    }
    sums.inserted += 1;
    last
}

/// Some of the programs, of which one CPU is in charge.
struct Charge {
    places: &'static [usize],
    armed: Vec<(usize, usize)>,
    random: Random,
    /// How many NMIs there had been when a program was put at the place for them.
    nmis: [u64; KINDS],
}

impl Charge {
    fn new(places: &'static [usize], seed: u64) -> Self {
        Charge {
            places,
            armed: Vec::with_capacity(PLACES * KINDS),
            random: Random(seed),
            nmis: [0; KINDS],
        }
    }

    /// Puts one program in, or takes it out.
    fn change(&mut self) {
        let place = self.places[self.random.below(self.places.len() as u64) as usize];
        // One program at a time where instructions fault: a hit that is taken back is one of all programs that are there by then.
        let kinds = if place == FAULTING { LOGGING } else { KINDS };
        let kind = self.random.below(kinds as u64) as usize;
        if let Some(index) = self.armed.iter().position(|armed| *armed == (place, kind)) {
            self.armed.swap_remove(index);
            self.take_out(place, kind);
            return;
        }
        if place == IN_NMI {
            self.nmis[kind] = NMIS.load(Acquire);
        }
        insert(&format!("mark{place}_{kind}"), &[places()[place]]).unwrap();
        self.armed.push((place, kind));
    }

    fn take_out(&mut self, place: usize, kind: usize) {
        let last = take_out(place, kind);
        if place == IN_NMI {
            let all = last.hits + last.missed + last.skipped + last.suspended + last.late;
            assert_eq!(
                all,
                NMIS.load(Acquire) - self.nmis[kind],
                "an NMI's hit is lost uncounted"
            );
        }
    }

    fn all_out(&mut self) {
        while let Some((place, kind)) = self.armed.pop() {
            self.take_out(place, kind);
        }
    }
}

/// Of records read, by major code.
type Read = BTreeMap<u16, u64>;

fn read_records(read: &mut Read, buffer: &mut [u8]) {
    for cpu in 0..smp::cpu_count() {
        loop {
            let written = engine().read_records(cpu, buffer);
            let mut rest = &buffer[..written];
            while let Some(header) = Header::parse(rest) {
                if header.state != RecordState::Lost as u32 {
                    *read.entry(header.major).or_default() += 1;
                }
                rest = &rest[header.length as usize..];
            }
            if written == 0 {
                break;
            }
        }
    }
}

static LISTENER: ExitWith<()> = SHARED::exit(c"storm", (), |(), seen| {
    seen.lone += 1;
    Flow::Continue
});

/// Calls of an exit that has gone.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Puts the exit on its hook, or takes it off.
fn change_hook(armed: &mut bool) {
    let mut registry = hooks::registry();
    if *armed {
        let calls = registry.deregister(&LISTENER).expect("nobody holds it");
        CALLS.fetch_add(calls, Relaxed);
    } else {
        registry.register(&LISTENER).expect("it is not there");
        registry.arm(&[&LISTENER]).expect("nothing is in conflict");
    }
    *armed = !*armed;
}

/// Probes a module that is loaded, and has it go with the probe armed.
fn module_comes_and_goes() {
    module::load().unwrap();
    let there = module::get().expect("it has been loaded");
    let place = instructions("target_in_module")[0];
    insert("entry", &[place]).unwrap();
    assert_eq!(loadable::target_in_module(41), 42);
    drop(there);
    module::unload().unwrap();
    assert_eq!(remove(2)[0].hits, 1);
}

/// Probes every instruction of a function with one program.
fn batch(every: &'static [u64]) {
    insert(&format!("every{}", every.len()), every).unwrap();
    clock::delay_us(200);
    for last in remove(100) {
        assert_eq!(last.missed, 0);
    }
}

/// The CPU that also reads, and makes the others' lives harder.
struct First {
    charge: Charge,
    read: Read,
    buffer: Vec<u8>,
    listens: bool,
    every: &'static [u64],
}

impl First {
    fn act(&mut self) {
        match self.charge.random.below(16) {
            0 => module_comes_and_goes(),
            1 => batch(self.every),
            2 | 3 => change_hook(&mut self.listens),
            4..=6 => {
                // One at a time: those that come while one is pending merge.
                let before = NMIS.load(Acquire);
                apic::send_nmi(self.charge.random.below(smp::cpu_count() as u64) as usize);
                while NMIS.load(Acquire) == before {
                    spin_loop();
                }
            }
            7 => {
                engine().settle();
                read_records(&mut self.read, &mut self.buffer);
            }
            8 if engine().host().take_reap_request() => engine().reap(),
            9 => clock::delay_us(self.charge.random.below(300)),
            _ => self.charge.change(),
        }
    }

    fn all_out(&mut self) {
        self.charge.all_out();
        if self.listens {
            change_hook(&mut self.listens);
        }
        engine().settle();
        read_records(&mut self.read, &mut self.buffer);
        engine().remove_all().expect("text can be written");
    }
}

fn second_control(charge: &mut Charge) {
    while !STOP.load(Acquire) {
        if PAUSE.load(Acquire) {
            charge.all_out();
            pause();
        }
        charge.change();
        if charge.random.below(4) == 0 {
            clock::delay_us(charge.random.below(200));
        }
    }
}

fn text() -> Vec<u8> {
    let range = memory::text();
    let mut text = vec![0; (range.end - range.start) as usize];
    bootimage::fault::probe_read(range.start, &mut text).expect("text can be read");
    text
}

fn storm() {
    static EVERY: Once<Vec<u64>> = Once::new();
    let seconds = option("seconds").unwrap_or(SECONDS);
    let seed = option("seed").unwrap_or(1);
    let every = EVERY.call_once(|| {
        // Not the places whose programs count.
        let mut all = instructions("target_storm");
        all.retain(|at| !places().contains(at));
        all
    });
    engine_by_hooks();
    trap::set_handler(TIMER, Some(on_timer));
    trap::set_handler(trap::NMI, Some(on_nmi));
    println!("seed={seed}, {seconds} s");

    let tasks = task::spawn(TASKS, work);
    let end = clock::now_ns() + seconds * 1_000_000_000;
    smp::run_on_all(|cpu| {
        apic::start_timer(TIMER, 300 + 50 * cpu as u64);
        match cpu {
            0 => rounds(seed, end, every),
            1 => second_control(&mut Charge::new(&[3, 4, 5], !seed)),
            _ => task::run(&tasks),
        }
        apic::stop_timer();
    });
    let (preempted, moved) = task::finish(tasks);
    trap::set_handler(TIMER, None);
    trap::set_handler(trap::NMI, None);
    println!("{preempted} preemptions, {moved} times on to another CPU");
    assert!(preempted > 0 && moved > 0);
}

/// Rounds, until the time is over. After each everything is taken out and looked at.
fn rounds(seed: u64, end: u64, every: &'static [u64]) {
    let original = text();
    let mut used = None;
    let mut first = First {
        charge: Charge::new(&[0, 1, 2, IN_NMI], seed),
        read: Read::new(),
        buffer: vec![0; 1 << 16],
        listens: false,
        every,
    };
    let mut round = 0;
    while clock::now_ns() < end {
        round += 1;
        let round_end = clock::now_ns() + ROUND_MS * 1_000_000;
        while clock::now_ns() < round_end {
            first.act();
        }
        PAUSE.store(true, Release);
        while PAUSED.load(Acquire) < 1 + TASKS {
            spin_loop();
        }
        first.all_out();
        look_around(&mut first, &original, &mut used, round);
        if clock::now_ns() >= end {
            STOP.store(true, Release);
        }
        PAUSE.store(false, Release);
        while PAUSED.load(Acquire) > 0 {
            spin_loop();
        }
    }
    STOP.store(true, Release);
}

/// Nothing is armed, and nobody does anything but be interrupted.
fn look_around(first: &mut First, original: &[u8], used: &mut Option<usize>, round: u64) {
    let sums = SUMS.lock().take().unwrap_or_default();
    let marks = MARKS.each_ref().map(|marks| marks.swap(0, SeqCst));
    assert_eq!(
        sums.ran, marks,
        "hits that were counted, and that the probed code has seen, by place"
    );
    assert_eq!(
        sums.logged,
        core::mem::take(&mut first.read),
        "records that were left, and read, by major code"
    );
    assert_eq!(
        CALLS.swap(0, SeqCst),
        HOOK_SEEN.swap(0, SeqCst),
        "calls of the exit that were counted, and seen"
    );
    let now = text();
    if let Some(at) = (0..now.len()).find(|at| now[*at] != original[*at]) {
        panic!("{:#x} is not as it was", memory::text().start + at as u64);
    }
    assert_eq!(engine().slots_free(), engine().slots(), "a slot is missing");
    println!(
        "round {round}: {} programs, {} passes, {} hits, {} records",
        sums.inserted,
        PASSES.swap(0, SeqCst),
        marks.iter().sum::<u64>(),
        sums.logged.values().sum::<u64>(),
    );
    drop((now, sums));
    let (bytes, _) = heap::usage();
    assert_eq!(*used.get_or_insert(bytes), bytes, "bytes of the heap in use");
}
