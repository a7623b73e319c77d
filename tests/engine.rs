//! The engine in ring 0: real breakpoints on real instructions, one and several CPUs.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{NoAlloc, apic, smp, symbols};
use engine::host::Prohibited;
use engine::probe::{InsertError, PointError};
use engine::record::header::RecordState;
use engine::wire::State;
use test_support::{engine, function, insert, instructions, program, records, remove, status};

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=240",
    tests: [
        hits_are_counted_and_change_nothing,
        a_program_can_redirect_the_cpu,
        a_fault_in_a_slot_is_the_originals_and_leaves_one_record,
        a_fault_with_a_fix_up_takes_it,
        bad_addresses_are_survived,
        a_hit_inside_a_hit_is_missed_and_counted,
        somebody_elses_single_step_sees_original_addresses,
        limits_are_exact_on_two_cpus,
        remove_is_one_shot_on_two_cpus,
        what_does_not_fit_in_the_ring_is_counted,
        points_are_refused_by_name,
        probes_share_an_address,
        a_million_hits_on_two_cpus_while_inserted_and_removed,
    ],
}

global_asm!(
    // r10 counts passes, r11 the passes on which a probe has set r9.
    ".globl target_busy",
    ".type target_busy, @function",
    "target_busy:",
    "    xor r10d, r10d",
    "    xor r11d, r11d",
    "1:  xor r9d, r9d",
    "    lea r10, [r10 + 1]",
    "    add r11, r9",
    "    dec rdi",
    "    jnz 1b",
    "    mov [rsi], r11",
    "    mov rax, r10",
    "    ret",
    ".size target_busy, . - target_busy",
    ".globl target_load",
    ".type target_load, @function",
    "target_load:",
    "    mov eax, 1",
    "    mov rax, [rdi]",
    "    add rax, 1",
    "    ret",
    ".size target_load, . - target_load",
    // As above, but a fault is expected: the result is then 7.
    ".globl target_guarded",
    ".type target_guarded, @function",
    "target_guarded:",
    "2:  mov rax, [rdi]",
    "    ret",
    "3:  mov eax, 7",
    "    ret",
    ".size target_guarded, . - target_guarded",
    ".pushsection __ex_table, \"a\"",
    "    .quad 2b, 3b",
    ".popsection",
);

unsafe extern "C" {
    fn target_busy(passes: u64, seen: &mut u64) -> u64;
    fn target_load(from: u64) -> u64;
    fn target_guarded(from: u64) -> u64;
}

/// Runs the busy function: passes made, passes on which the probe showed itself.
fn busy(passes: u64) -> (u64, u64) {
    let mut seen = 0;
    // SAFETY: the function uses scratch registers and the place it is given.
    let made = unsafe { target_busy(passes, &mut seen) };
    (made, seen)
}

/// The `lea` in the loop of the busy function.
fn middle() -> u64 {
    instructions("target_busy")[3]
}

fn load(from: u64) -> u64 {
    // SAFETY: reads memory; what it faults on the tests provide for.
    unsafe { target_load(from) }
}

fn reap() {
    if engine().host().take_reap_request() {
        engine().reap();
    }
}

fn hits_are_counted_and_change_nothing() {
    let entry = function("target_busy").as_ptr() as u64;
    let place = middle();
    insert("count", &[place]).unwrap();
    insert("entry", &[entry]).unwrap();
    {
        // What a hit does must not need memory.
        let _no_alloc = NoAlloc::new();
        assert_eq!(busy(10_000), (10_000, 10_000));
    }
    assert_eq!(status(1, 1).hits, 10_000);
    assert_eq!(status(2, 1).hits, 1);
    let mut locals = [0; 2];
    assert_eq!(engine().locals(b"kernel", 1, &mut locals), Some(1));
    assert_eq!(locals[0], 10_000);
    let last = remove(1);
    assert_eq!((last[0].hits, last[0].missed, last[0].late), (10_000, 0, 0));
    assert_eq!(busy(10), (10, 0));
    assert_eq!(remove(2)[0].hits, 2);
    assert!(records().is_empty(), "abort leaves no record");
}

fn a_program_can_redirect_the_cpu() {
    insert("skip", &[middle()]).unwrap();
    // The increment of r10, of four bytes, is never executed.
    assert_eq!(busy(100), (0, 0));
    assert_eq!(remove(7)[0].hits, 100);
}

const ABSENT: u64 = 0xffff_c000_0000_0000;
static FAULTS: AtomicUsize = AtomicUsize::new(0);
static FAULT_RIP: AtomicU64 = AtomicU64::new(0);

fn map_the_absent_page(_: u8, frame: &mut TrapFrame) -> Action {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    FAULT_RIP.store(frame.rip, Ordering::Relaxed);
    memory::map(ABSENT, 4096, Rights::WRITE).unwrap();
    Action::Resume
}

fn a_fault_in_a_slot_is_the_originals_and_leaves_one_record() {
    let place = instructions("target_load")[1];
    insert("log", &[place]).unwrap();
    trap::set_handler(trap::PF, Some(map_the_absent_page));
    assert_eq!(load(ABSENT), 1);
    trap::set_handler(trap::PF, None);
    assert_eq!(FAULTS.load(Ordering::Relaxed), 1);
    assert_eq!(
        FAULT_RIP.load(Ordering::Relaxed),
        place,
        "the handler must see the original address"
    );
    let found = records();
    assert_eq!(found.len(), 1, "one completed execution, one record");
    assert_eq!(found[0].words(), [place, ABSENT]);
    assert_eq!(
        (found[0].header.major, found[0].header.minor, found[0].header.address),
        (3, 1, place)
    );
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (1, 1));
    // SAFETY: mapped above, and nobody else knows it.
    unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
}

fn a_fault_with_a_fix_up_takes_it() {
    let place = instructions("target_guarded")[0];
    insert("log", &[place]).unwrap();
    for _ in 0..100 {
        // SAFETY: the fault is expected.
        assert_eq!(unsafe { target_guarded(ABSENT) }, 7);
    }
    let value = 42_u64;
    // SAFETY: the memory is there.
    assert_eq!(unsafe { target_guarded(&raw const value as u64) }, 42);
    assert_eq!(records().len(), 1);
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (1, 100));
}

fn bad_addresses_are_survived() {
    insert("touch", &[instructions("target_load")[0]]).unwrap();
    trap::set_handler(trap::PF, Some(skip_the_load));
    trap::set_handler(trap::GP, Some(skip_the_load));
    let addresses = [ABSENT, 0, 0x0000_8000_0000_0000, u64::MAX - 3, 0x8000_0000_0000_0000];
    for address in addresses {
        load(address);
    }
    trap::set_handler(trap::PF, None);
    trap::set_handler(trap::GP, None);
    let found = records();
    assert_eq!(found.len(), addresses.len());
    assert!(found.iter().all(|record| record.header.minor == 9));
    assert_eq!(remove(6)[0].hits, addresses.len() as u64);
}

fn skip_the_load(_: u8, frame: &mut TrapFrame) -> Action {
    if frame.rip != instructions_of_load_1() {
        return Action::Pass;
    }
    frame.rip += 3;
    Action::Resume
}

fn instructions_of_load_1() -> u64 {
    target_load as unsafe extern "C" fn(u64) -> u64 as usize as u64 + 5
}

/// What a page fault of the program's own memory access runs into.
fn call_a_probed_function(_: u8, _: &mut TrapFrame) -> Action {
    busy(5);
    Action::Pass
}

fn a_hit_inside_a_hit_is_missed_and_counted() {
    insert("touch", &[instructions("target_load")[0]]).unwrap();
    insert("count", &[middle()]).unwrap();
    trap::set_handler(trap::PF, Some(call_a_probed_function));
    let value = 1_u64;
    load(&raw const value as u64);
    assert_eq!(status(1, 1).missed, 0);
    FAULTS.store(0, Ordering::Relaxed);
    trap::set_handler(
        trap::PF,
        Some(|vector, frame| match skip_the_load(vector, frame) {
            Action::Resume => Action::Resume,
            Action::Pass => call_a_probed_function(vector, frame),
        }),
    );
    load(ABSENT);
    trap::set_handler(trap::PF, None);
    let inner = remove(1);
    assert_eq!((inner[0].hits, inner[0].missed), (0, 5));
    assert_eq!(remove(6)[0].hits, 2);
    assert_eq!(records().len(), 2);
}

static STEPS: AtomicUsize = AtomicUsize::new(0);
static STRAY_STEPS: AtomicUsize = AtomicUsize::new(0);

fn count_step(_: u8, frame: &mut TrapFrame) -> Action {
    STEPS.fetch_add(1, Ordering::Relaxed);
    if !memory::text().contains(&frame.rip) {
        STRAY_STEPS.fetch_add(1, Ordering::Relaxed);
    }
    Action::Resume
}

/// Runs the busy function with TF set; returns how many #DB there were.
fn stepped(passes: u64) -> usize {
    STEPS.store(0, Ordering::Relaxed);
    let mut seen = 0_u64;
    // SAFETY: TF is cleared again behind the call; the registers the function uses are named.
    unsafe {
        asm!(
            "pushfq", "or qword ptr [rsp], 0x100", "popfq",
            "call {busy}",
            "pushfq", "and qword ptr [rsp], ~0x100", "popfq",
            busy = sym target_busy,
            in("rdi") passes, in("rsi") &raw mut seen,
            clobber_abi("C"),
        );
    }
    STEPS.load(Ordering::Relaxed)
}

fn somebody_elses_single_step_sees_original_addresses() {
    trap::set_handler(trap::DB, Some(count_step));
    let bare = stepped(20);
    let places = instructions("target_busy");
    // Two that are copied; `jnz` and `ret`, which are emulated where nobody steps.
    for (place, hits) in [(3, 20), (5, 20), (6, 20), (9, 1)] {
        insert("entry", &[places[place]]).unwrap();
        assert_eq!(
            stepped(20),
            bare,
            "as many steps with a probe on instruction {place} as without"
        );
        assert_eq!(remove(2)[0].hits, hits);
    }
    trap::set_handler(trap::DB, None);
    assert_eq!(
        STRAY_STEPS.load(Ordering::Relaxed),
        0,
        "a slot was shown to the debugger"
    );
}

fn limits_are_exact_on_two_cpus() {
    insert("limits", &[middle()]).unwrap();
    smp::run_on_all(|cpu| {
        if cpu > 0 {
            busy(3000);
        }
    });
    let found = status(4, 1);
    assert_eq!(
        (found.skipped, found.hits, found.state),
        (1000, 500, State::Exhausted as u32)
    );
    assert_eq!(found.skipped + found.hits + found.late + found.missed, 6000);
    reap();
    busy(100);
    let last = remove(4);
    assert_eq!(last[0].late, found.late, "the breakpoint is out");
    assert_eq!(records().len(), 500);
}

fn remove_is_one_shot_on_two_cpus() {
    for _ in 0..50 {
        insert("once", &[middle()]).unwrap();
        smp::run_on_all(|cpu| {
            if cpu > 0 {
                busy(200);
            }
        });
        assert_eq!(status(5, 1).state, State::RemovedItself as u32);
        reap();
        assert_eq!(records().len(), 1);
        remove(5);
    }
}

fn what_does_not_fit_in_the_ring_is_counted() {
    const LOADS: u64 = 10_000;
    insert("log", &[instructions("target_load")[0]]).unwrap();
    let value = 1_u64;
    for _ in 0..LOADS {
        load(&raw const value as u64);
    }
    let last = remove(3);
    let found = records();
    let lost: u64 = found
        .iter()
        .filter(|record| record.header.state == RecordState::Lost as u32)
        .map(|record| record.header.facts)
        .sum();
    let kept = found
        .iter()
        .filter(|record| record.header.state == RecordState::Published as u32)
        .count() as u64;
    assert!(lost > 0 && kept > 0);
    assert_eq!((kept + lost, last[0].hits, last[0].lost), (LOADS, LOADS, lost));
}

fn points_are_refused_by_name() {
    let place = middle();
    let refused = |name, places: &[u64]| match insert(name, places) {
        Err(InsertError::Point { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused("count", &[place + 1]),
        PointError::NotBoundary {
            instruction: place,
            next: place + 4
        }
    );
    let found = u64::from(function("target_busy")[(place - function("target_busy").as_ptr() as u64) as usize]);
    assert_eq!(
        refused("opcode", &[place]),
        PointError::Opcode {
            len: 1,
            expected: 0x90,
            found
        }
    );
    let of_the_engine = |function: &&symbols::Function| memory::dprobes_text().contains(&function.code.start);
    let runtime = symbols::functions().iter().find(of_the_engine).unwrap().code.start;
    assert_eq!(
        refused("count", &[runtime]),
        PointError::Prohibited(Prohibited::Excluded)
    );
    assert_eq!(refused("count", &[0]), PointError::Prohibited(Prohibited::NotText));
    assert_eq!(refused("every2", &[place, place]), PointError::Twice);
    insert("count", &[place]).unwrap();
    assert_eq!(insert("count", &[place]), Err(InsertError::Exists));
    assert_eq!(busy(3), (3, 3));
    remove(1);
    let mut damaged = program("count", &[place]);
    damaged[20] ^= 1;
    assert!(matches!(engine().insert(&damaged), Err(InsertError::Object(_))));
    assert_eq!(busy(3), (3, 0));
}

fn probes_share_an_address() {
    let place = middle();
    insert("count", &[place]).unwrap();
    insert("entry", &[place]).unwrap();
    busy(10);
    assert_eq!(remove(1)[0].hits, 10);
    busy(10);
    assert_eq!(remove(2)[0].hits, 20);
    assert_eq!(busy(10), (10, 0));
}

fn a_million_hits_on_two_cpus_while_inserted_and_removed() {
    const INSERTIONS: usize = 1000;
    const HITS: u64 = 1_000_000;
    const CHUNK: u64 = 1000;
    let stays = instructions("target_busy")[4];
    let comes_and_goes = middle();
    insert("entry", &[stays]).unwrap();
    let (passes, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let (hits, finished) = (AtomicU64::new(0), AtomicBool::new(false));
    trap::set_handler(trap::FIRST_INTERRUPT, Some(|_, _| Action::Resume));
    smp::run_on_all(|cpu| {
        if cpu == 0 {
            for _ in 0..INSERTIONS {
                insert("count", &[comes_and_goes]).unwrap();
                let last = remove(1);
                assert_eq!((last[0].missed, last[0].late, last[0].faulted), (0, 0, 0));
                hits.fetch_add(last[0].hits, Ordering::Relaxed);
            }
            while passes.load(Ordering::Relaxed) < HITS {
                core::hint::spin_loop();
            }
            finished.store(true, Ordering::Release);
            return;
        }
        // Interrupts at any time, in slots too.
        apic::start_timer(trap::FIRST_INTERRUPT, 500);
        while !finished.load(Ordering::Acquire) {
            let (made, probed) = busy(CHUNK);
            assert_eq!(made, CHUNK, "the probed code computes something else");
            passes.fetch_add(made, Ordering::Relaxed);
            seen.fetch_add(probed, Ordering::Relaxed);
        }
        apic::stop_timer();
    });
    trap::set_handler(trap::FIRST_INTERRUPT, None);
    assert_eq!(
        seen.into_inner(),
        hits.into_inner(),
        "hits counted, and hits that the probed code saw"
    );
    let passes = passes.into_inner();
    assert!(passes >= HITS);
    let last = remove(2);
    assert_eq!((last[0].hits, last[0].missed), (passes, 0));
}
