//! Watchpoints in the debug registers: what hits them, what does not, and what is told of it.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{NoAlloc, apic, println, ring3, smp};
use engine::host::{LocationError, WatchError};
use engine::probe::{InsertError, PointError};
use engine::record::element::{Element, Elements};
use engine::record::header::Header;
use engine::trap::{TrapFrame as Frame, Verdict};
use engine::wire::State;
use test_support::{engine_by_hooks, function, insert, instructions, records, remove, status};
use x86_64::instructions::interrupts;

bootimage::test_main! {
    requires: "cpus=4 time_limit_s=300",
    tests: [
        every_access_that_overlaps_is_a_hit_and_no_other,
        ports_are_watched,
        an_instruction_is_watched,
        counts_and_limits_are_those_of_a_probe,
        one_store_hits_four_watchpoints,
        the_fifth_is_refused_with_the_facts,
        somebody_elses_registers_are_not_touched,
        what_cannot_be_watched_is_refused_by_name,
        a_breakpoint_and_a_watchpoint_on_one_instruction,
        probed_instructions_hit_as_they_would_without_a_probe,
        a_string_instruction_goes_on,
        what_a_program_touches_is_missed_and_counted,
        the_engines_own_data_can_be_watched,
        ring_3_is_watched,
        an_nmi_is_watched,
        a_debugger_keeps_its_steps,
        four_cpus_hit_while_inserted_and_removed,
    ],
}

global_asm!(
    // rdi: the address, rsi: what to store.
    ".globl target_store1",
    ".type target_store1, @function",
    "target_store1: mov [rdi], sil",
    "    ret",
    ".size target_store1, . - target_store1",
    ".globl target_store2",
    ".type target_store2, @function",
    "target_store2: mov [rdi], si",
    "    ret",
    ".size target_store2, . - target_store2",
    ".globl target_store4",
    ".type target_store4, @function",
    "target_store4: mov [rdi], esi",
    "    ret",
    ".size target_store4, . - target_store4",
    ".globl target_store8",
    ".type target_store8, @function",
    "target_store8: mov [rdi], rsi",
    "    ret",
    ".size target_store8, . - target_store8",
    ".globl target_load1",
    ".type target_load1, @function",
    "target_load1: mov al, [rdi]",
    "    ret",
    ".size target_load1, . - target_load1",
    ".globl target_load2",
    ".type target_load2, @function",
    "target_load2: mov ax, [rdi]",
    "    ret",
    ".size target_load2, . - target_load2",
    ".globl target_load4",
    ".type target_load4, @function",
    "target_load4: mov eax, [rdi]",
    "    ret",
    ".size target_load4, . - target_load4",
    ".globl target_load8",
    ".type target_load8, @function",
    "target_load8: mov rax, [rdi]",
    "    ret",
    ".size target_load8, . - target_load8",
    // rdi: the port.
    ".globl target_out",
    ".type target_out, @function",
    "target_out: mov edx, edi",
    "    mov eax, esi",
    "    out dx, al",
    "    ret",
    ".size target_out, . - target_out",
    ".globl target_in",
    ".type target_in, @function",
    "target_in: mov edx, edi",
    "    in al, dx",
    "    ret",
    ".size target_in, . - target_in",
    // Everything that is emulated, or might be, and touches the stack. rdi: a word that has the address of `target_leaf`.
    ".globl target_stack",
    ".type target_stack, @function",
    "target_stack:",
    "    push rbx",
    "    call target_leaf",
    "    call [rdi]",
    "    pushfq",
    "    popfq",
    "    lea rbx, [rip + target_leaf]",
    "    call rbx",
    "    push 7",
    "    pop rax",
    "    enter 16, 0",
    "    leave",
    "    pop rbx",
    "    ret",
    ".size target_stack, . - target_stack",
    ".globl target_leaf",
    ".type target_leaf, @function",
    "target_leaf: nop",
    "    ret",
    ".size target_leaf, . - target_leaf",
    // rdi: as above, rsi: the stack to do it on.
    ".globl on_stack",
    ".type on_stack, @function",
    "on_stack:",
    "    push rbp",
    "    mov rbp, rsp",
    "    mov rsp, rsi",
    "    call target_stack",
    "    mov rsp, rbp",
    "    pop rbp",
    "    ret",
    ".size on_stack, . - on_stack",
    // rdi: to, rsi: from, rdx: how many bytes.
    ".globl target_copy",
    ".type target_copy, @function",
    "target_copy: mov rcx, rdx",
    "    rep movsb",
    "    ret",
    ".size target_copy, . - target_copy",
    // rdi: the word, rsi: how often.
    ".globl target_loop",
    ".type target_loop, @function",
    "target_loop:",
    "1:  mov [rdi], rsi",
    "    dec rsi",
    "    jnz 1b",
    "    ret",
    ".size target_loop, . - target_loop",
    // For ring 3: a store to where rdi points to.
    ".globl target_user",
    ".globl target_user_end",
    "target_user: mov [rdi], rdi",
    "    mov eax, 5",
    "    int 0xf2",
    "target_user_end:",
);

unsafe extern "C" {
    fn target_store1(to: u64, value: u64);
    fn target_store2(to: u64, value: u64);
    fn target_store4(to: u64, value: u64);
    fn target_store8(to: u64, value: u64);
    fn target_load1(from: u64);
    fn target_load2(from: u64);
    fn target_load4(from: u64);
    fn target_load8(from: u64);
    fn target_out(port: u64, value: u64);
    fn target_in(port: u64);
    fn on_stack(leaf: &u64, stack: u64);
    fn target_leaf();
    fn target_copy(to: u64, from: u64, bytes: u64);
    fn target_loop(word: u64, times: u64);
    static target_user: u8;
    static target_user_end: u8;
}

/// Memory that nobody else touches. What is watched is in the middle.
#[repr(align(64))]
struct Arena([AtomicU64; 16]);

static ARENA: Arena = Arena([const { AtomicU64::new(0) }; 16]);

/// The word in the middle of the arena.
fn middle() -> u64 {
    &raw const ARENA.0[8] as u64
}

fn value() -> u64 {
    ARENA.0[8].load(Ordering::Relaxed)
}

/// A port at which nothing is: the one that the programs watch.
const PORT: u64 = 0xe8;

type Access = unsafe extern "C" fn(u64, u64);

/// How many bytes, a name, the function.
const STORES: [(u64, &str, Access); 4] = [
    (1, "target_store1", target_store1),
    (2, "target_store2", target_store2),
    (4, "target_store4", target_store4),
    (8, "target_store8", target_store8),
];

const LOADS: [(u64, &str, unsafe extern "C" fn(u64)); 4] = [
    (1, "target_load1", target_load1),
    (2, "target_load2", target_load2),
    (4, "target_load4", target_load4),
    (8, "target_load8", target_load8),
];

fn store(to: u64, value: u64) {
    // SAFETY: the tests store to memory of their own.
    unsafe { target_store8(to, value) };
}

fn dr7() -> u64 {
    let value;
    // SAFETY: reading DR7 has no effect.
    unsafe { asm!("mov {}, dr7", out(reg) value, options(nomem, nostack)) };
    value
}

fn set_dr7(value: u64) {
    // SAFETY: the tests handle what they enable.
    unsafe { asm!("mov dr7, {}", in(reg) value, options(nostack)) };
}

/// Nothing is enabled on any CPU.
fn assert_quiet() {
    smp::call_on_all(|| assert_eq!(dr7() & 0xff, 0));
}

/// The address behind the instruction of a function that it begins with.
fn second(name: &str) -> u64 {
    instructions(name)[1]
}

fn hits(major: u16, minor: u16) -> u64 {
    status(major, minor).hits
}

fn every_access_that_overlaps_is_a_hit_and_no_other() {
    engine_by_hooks();
    let (mut accesses, mut extra) = (0, 0);
    for kind in ["write", "rw"] {
        for len in [1, 2, 4, 8_u64] {
            let name = alloc::format!("watch_{kind}_{len}");
            for shift in [0, len, 8 - len] {
                // Each of the places of the word that are a multiple of the length, at its edges.
                let place = middle() + shift / len * len % 8;
                insert(&name, &[place]).unwrap();
                let mut behind = Vec::new();
                let mut seen = 0;
                for offset in 0..24 {
                    let from = middle() - 8 + offset;
                    let stores = STORES.map(|(bytes, name, access)| (bytes, name, Err(access)));
                    let loads = LOADS.map(|(bytes, name, access)| (bytes, name, Ok(access)));
                    for (bytes, function, access) in stores.into_iter().chain(loads) {
                        match access {
                            // SAFETY: inside the arena.
                            Err(store) => unsafe { store(from, 0x0102_0304_0506_0708) },
                            // SAFETY: as above.
                            Ok(load) => unsafe { load(from) },
                        }
                        accesses += 1;
                        let now = hits(20, 1);
                        behind.extend((seen..now).map(|_| second(function)));
                        let new = now - core::mem::replace(&mut seen, now);
                        let overlaps = from < place + len && place < from + bytes;
                        let wanted = overlaps && (kind == "rw" || access.is_err());
                        let spurious = !wanted && new == 1 && inexact(from, bytes, place, len, access.is_ok());
                        assert!(
                            new == u64::from(wanted) || spurious,
                            "{name} at {place:#x}: {new} hits by {function} at {from:#x}"
                        );
                        extra += u64::from(spurious);
                    }
                }
                let last = remove(20)[0];
                assert_eq!((last.hits, last.missed), (seen, 0), "{name} at {place:#x}");
                assert_eq!((last.watch_len, last.resume), (len as u32, 0));
                let records = records();
                let rips: Vec<u64> = records.iter().map(rip).collect();
                assert_eq!(rips, behind, "{name} at {place:#x}");
                assert!(
                    records
                        .iter()
                        .zip(&rips)
                        .all(|(record, rip)| record.header.address == *rip)
                );
                // DR6 has the bit of the last register, and of no other.
                assert!(records.iter().all(|record| record.words()[1] & 0xf == 0b1000));
            }
        }
    }
    println!("{accesses} accesses; {extra} that do not overlap are reported by the emulator");
    assert_quiet();
}

/// QEMU's translator reports misaligned accesses near a watched place that do not overlap it: it looks at the aligned parts of a load, and for a
/// store at all of the page below its end (7.2, accel/tcg/cputlb.c). No CPU does.
fn inexact(from: u64, bytes: u64, place: u64, len: u64, load: bool) -> bool {
    let first = if load { from / bytes * bytes } else { from & !0xfff };
    on_translator() && !from.is_multiple_of(bytes) && first < place + len && place < from + 2 * bytes
}

/// Is the CPU QEMU's translator?
fn on_translator() -> bool {
    let leaf = core::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx] == [*b"TCGT", *b"CGTC"].map(u32::from_le_bytes)
}

/// The address of a hit: what the program has pushed first.
fn rip(record: &test_support::Record) -> u64 {
    record.words()[2]
}

fn ports_are_watched() {
    for len in [1, 2, 4_u64] {
        insert(&alloc::format!("watch_io_{len}"), &[]).unwrap();
        let mut expected = 0;
        for port in PORT - 2..PORT + 6 {
            // SAFETY: nothing is at these ports.
            unsafe {
                target_out(port, 0);
                target_in(port);
            }
            expected += 2 * u64::from((PORT..PORT + len).contains(&port));
        }
        let last = remove(20)[0];
        assert_eq!((last.hits, last.address, last.watch), (expected, PORT, 3));
        let behind = [instructions("target_out")[3], instructions("target_in")[2]];
        for (record, behind) in records().iter().zip(behind.iter().cycle()) {
            assert_eq!(rip(record), *behind);
        }
    }
    assert_quiet();
}

fn an_instruction_is_watched() {
    let place = function("target_store8").as_ptr() as u64;
    insert("watch_execute_1", &[place]).unwrap();
    for pass in 1..=100 {
        store(middle(), pass);
        assert_eq!(value(), pass, "the instruction is executed");
    }
    assert_eq!(hits(20, 1), 100);
    assert_eq!(remove(20)[0].hits, 100);
    let records = records();
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| rip(record) == place));
    store(middle(), 0);
    assert_quiet();
}

fn counts_and_limits_are_those_of_a_probe() {
    insert("watch_limits", &[middle()]).unwrap();
    {
        // What a hit does must not need memory.
        let _no_alloc = NoAlloc::new();
        for pass in 0..20 {
            store(middle(), pass);
        }
    }
    let now = status(23, 1);
    assert_eq!((now.skipped, now.hits, now.late), (3, 5, 12));
    assert_eq!(now.state, State::Exhausted as u32);
    assert!(engine_by_hooks().host().take_reap_request());
    engine_by_hooks().reap();
    assert_quiet();
    store(middle(), 1);
    let last = remove(23)[0];
    assert_eq!((last.skipped, last.hits, last.late), (3, 5, 12));
    assert_eq!(records().len(), 5);

    let (first, other) = (middle(), middle() + 8);
    insert("watch_once", &[first, other]).unwrap();
    let store4 = |to| {
        // SAFETY: inside the arena.
        unsafe { target_store4(to, 1) }
    };
    store4(first);
    store4(first);
    assert_eq!((status(24, 1).suspended, hits(24, 1)), (2, 0));
    store4(other);
    store4(first);
    store4(first);
    let now = status(24, 1);
    assert_eq!((now.suspended, now.hits, now.late), (2, 1, 1));
    assert_eq!(now.state, State::RemovedItself as u32);
    assert!(engine_by_hooks().host().take_reap_request());
    engine_by_hooks().reap();
    // The other one is still wanted.
    store4(first);
    store4(other);
    assert_eq!((status(24, 1).late, hits(24, 2)), (1, 2));
    remove(24);
    assert_eq!(records().len(), 1);
    assert_quiet();
}

fn one_store_hits_four_watchpoints() {
    insert("watch_four", &[middle()]).unwrap();
    store(middle(), 1);
    let last = remove(22);
    let told: Vec<u64> = last.iter().map(|probe| probe.hits).collect();
    // QEMU's translator stops at the first register that matches.
    let expected = if on_translator() { 1 } else { 4 };
    assert_eq!(told.iter().sum::<u64>(), expected, "{told:?}");
    assert!(
        last.iter().all(|probe| probe.hits <= 1 && probe.missed == 0),
        "{told:?}"
    );
    assert_quiet();
    // What the CPU says when it tells all of them, and a debugger's.
    several_at_once();
    // A register is shared by programs that watch the same.
    insert("watch_four", &[middle()]).unwrap();
    insert("watch_write_8", &[middle()]).unwrap();
    store(middle(), 2);
    let shared = hits(22, 1);
    assert_eq!(hits(20, 1), shared);
    remove(22);
    store(middle(), 3);
    assert_eq!(remove(20)[0].hits, shared + 1);
    assert_eq!(records().len() as u64, shared + 1);
    assert_quiet();
}

/// Several bits of DR6 at once, some of them nobody's, together with the end of a step that is somebody else's: given to the engine as
/// the CPU would.
fn several_at_once() {
    insert("watch_four", &[middle()]).unwrap();
    let mut frame = Frame {
        rip: second("target_store8"),
        cs: 8,
        ..Frame::default()
    };
    let before = frame;
    let mut status = 0b1111;
    assert_eq!(engine_by_hooks().on_debug(&mut frame, &mut status), Verdict::Handled);
    assert_eq!((status, frame), (0, before));
    let mut status = 0b0101 | 1 << 14;
    assert_eq!(engine_by_hooks().on_debug(&mut frame, &mut status), Verdict::NotOurs);
    assert_eq!((status, frame), (1 << 14, before));
    let told: Vec<u64> = remove(22).iter().map(|probe| probe.hits).collect();
    assert_eq!(told, [1, 2, 1, 2]);
    let mut status = 0b0101;
    assert_eq!(engine_by_hooks().on_debug(&mut frame, &mut status), Verdict::NotOurs);
    assert_eq!(status, 0b0101);
}

/// What an insert of one point was refused for.
fn refused(name: &str, places: &[u64]) -> (usize, PointError) {
    match insert(name, places) {
        Err(InsertError::Point { point, error, .. }) => (point, error),
        other => panic!("{other:?}"),
    }
}

fn the_fifth_is_refused_with_the_facts() {
    let places: Vec<u64> = (0..5).map(|n| middle() + 8 * n).collect();
    let (point, error) = refused("watch_five", &places);
    assert_eq!(point, 4);
    assert_eq!(
        error,
        PointError::Watch(WatchError::InUse {
            others: 0,
            ours: 0b1111,
            process: 0,
        })
    );
    assert_quiet();
    insert("watch_four", &[middle()]).unwrap();
    let (point, error) = refused("watch_write_2", &[middle()]);
    assert_eq!(
        (point, error),
        (
            0,
            PointError::Watch(WatchError::InUse {
                others: 0,
                ours: 0b1111,
                process: 0,
            })
        )
    );
    remove(22);
    insert("watch_write_2", &[middle()]).unwrap();
    remove(20);
    assert_quiet();
}

fn somebody_elses_registers_are_not_touched() {
    // DR2 of one CPU, for something that never happens, and DR0 of another, locally.
    let foreign = [(1, 1 << 5 | 0b0001 << 24), (2, 1 | 0b0001 << 16)];
    for (cpu, bits) in foreign {
        smp::call_on(cpu, || {
            // SAFETY: an address that nobody uses.
            unsafe { asm!("mov dr2, {0}", "mov dr0, {0}", in(reg) 0xffff_c123_0000_0000_u64, options(nostack)) };
            set_dr7(dr7() | bits);
        });
    }
    let before: Vec<u64> = (0..smp::cpu_count()).map(control_of).collect();
    let places: Vec<u64> = (0..5).map(|n| middle() + 8 * n).collect();
    let (point, error) = refused("watch_five", &places);
    assert_eq!(
        (point, error),
        (
            2,
            PointError::Watch(WatchError::InUse {
                others: 0b0101,
                ours: 0b1010,
                process: 0,
            })
        )
    );
    insert("watch_rw_8", &[middle()]).unwrap();
    store(middle(), 1);
    assert_eq!(hits(20, 1), 1);
    remove(20);
    let after: Vec<u64> = (0..smp::cpu_count()).map(control_of).collect();
    assert_eq!(before, after);
    for (cpu, bits) in foreign {
        smp::call_on(cpu, || set_dr7(dr7() & !bits));
    }
    records();
    assert_quiet();
}

/// DR7 of a CPU.
fn control_of(cpu: usize) -> u64 {
    let control = AtomicU64::new(0);
    smp::call_on(cpu, || control.store(dr7(), Ordering::Relaxed));
    control.into_inner()
}

fn what_cannot_be_watched_is_refused_by_name() {
    for (name, at, error) in [
        ("watch_write_8", middle() + 4, LocationError::Unaligned),
        ("watch_rw_2", middle() + 1, LocationError::Unaligned),
        ("watch_write_1", 1 << 63, LocationError::NotCanonical),
    ] {
        let len = name.as_bytes()[name.len() - 1] - b'0';
        assert_eq!(refused(name, &[at]), (0, PointError::Location { error, len }));
    }
    let excluded = (0, PointError::Watch(WatchError::Excluded));
    let slots = engine::host::Host::slot_area(engine_by_hooks().host());
    assert_eq!(refused("watch_execute_1", &[slots.start + 5]), excluded);
    assert_eq!(refused("watch_rw_8", &[slots.start]), excluded);
    assert_eq!(refused("watch_execute_1", &[memory::noinstr_text().start]), excluded);
    // The descriptor tables, which the CPU reads on its way to the handler.
    assert_eq!(refused("watch_rw_8", &[test_support::idt() as u64 + 16]), excluded);
    let cr4: u64;
    // SAFETY: reading CR4 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack)) };
    smp::call_on(2, || {
        // SAFETY: no I/O breakpoint is set.
        unsafe { asm!("mov cr4, {}", in(reg) cr4 & !8, options(nostack)) };
    });
    assert_eq!(
        refused("watch_io_1", &[]),
        (0, PointError::Watch(WatchError::IoBreakpoints))
    );
    smp::call_on(2, || {
        // SAFETY: as it was.
        unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nostack)) };
    });
    assert_quiet();
}

fn a_breakpoint_and_a_watchpoint_on_one_instruction() {
    let place = function("target_store8").as_ptr() as u64;
    insert("watch_both", &[place]).unwrap();
    for pass in 1..=10 {
        store(middle(), pass);
        assert_eq!(value(), pass);
    }
    assert_eq!((hits(26, 1), hits(26, 2)), (10, 10));
    // The watchpoint is before the breakpoint: (0 + 1) * 2, (2 + 1) * 2, ...
    let mut locals = [0];
    engine_by_hooks().locals(b"kernel", 26, &mut locals);
    assert_eq!(locals[0], (1 << 11) - 2);
    remove(26);
    assert_quiet();
}

/// A stack.
#[repr(align(64))]
struct Stack<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Stack<WORDS> {
    const fn new() -> Self {
        Stack([const { AtomicU64::new(0) }; WORDS])
    }

    fn end(&self) -> u64 {
        self.0.as_ptr_range().end as u64
    }
}

/// For [`on_stack`], where nothing else is pushed.
static STACK: Stack<32> = Stack::new();

/// For the exceptions.
static TRAPS: Stack<8192> = Stack::new();

/// Has this CPU push the frames of #BP and #DB elsewhere while a test runs: they would hit a watchpoint on the stack of the probed code,
/// and QEMU's translator does not survive one that is hit on the way to an exception.
fn on_another_stack(test: impl FnOnce()) {
    // The second and third of the seven stacks in the task state segment are free (SDM volume 3, 8.7).
    for (vector, index) in [(trap::BP, 3_u8), (trap::DB, 4)] {
        let top = TRAPS.end() - u64::from(index - 3) * 32768;
        // SAFETY: byte 4 of a gate is the number of a stack (SDM volume 3, 7.14.1), which is set first; no other CPU takes these exceptions.
        unsafe {
            ((task_state() + 36 + 8 * u64::from(index - 1)) as *mut u64).write_unaligned(top);
            test_support::idt()
                .cast::<u8>()
                .add(16 * usize::from(vector) + 4)
                .write_volatile(index);
        };
    }
    test();
    for vector in [trap::BP, trap::DB] {
        // SAFETY: as above; as it was.
        unsafe {
            test_support::idt()
                .cast::<u8>()
                .add(16 * usize::from(vector) + 4)
                .write_volatile(0)
        };
    }
}

/// The task state segment of this CPU.
fn task_state() -> u64 {
    let (mut gdt, mut selector) = ([0_u8; 10], 0_u64);
    // SAFETY: writes ten bytes and a register.
    unsafe { asm!("sgdt [{}]", "str {:r}", in(reg) gdt.as_mut_ptr(), inout(reg) selector) };
    let base = u64::from_le_bytes(gdt[2..].try_into().unwrap());
    // SAFETY: the descriptor that the task register was loaded from.
    let [low, high] = unsafe { ((base + (selector & !7)) as *const [u64; 2]).read_unaligned() };
    low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32
}

/// Where a pass over the function with the stack has hit, and the stack pointer there.
fn stack_pass() -> Vec<(u64, u64)> {
    let leaf = target_leaf as *const () as u64;
    interrupts::without_interrupts(|| {
        // SAFETY: the function leaves the stack as it was.
        unsafe { on_stack(&leaf, STACK.end()) };
    });
    records()
        .iter()
        .map(|record| (rip(record), record.words()[0]))
        .collect()
}

/// With a probe on every instruction, a watchpoint on a word of the stack is hit by the same instructions, with the same stack pointer:
/// copied, emulated and stepped ones.
fn probed_instructions_hit_as_they_would_without_a_probe() {
    let places = instructions("target_stack");
    on_another_stack(|| {
        for kind in ["write", "rw"] {
            let mut all = 0;
            for word in 1..=8 {
                insert(&alloc::format!("watch_{kind}_8"), &[STACK.end() - 8 * word]).unwrap();
                let bare = stack_pass();
                insert(&alloc::format!("every{}", places.len()), &places).unwrap();
                let probed = stack_pass();
                assert_eq!(bare, probed, "{kind}, {word} words below");
                assert!(remove(100).iter().all(|probe| probe.hits == 1 && probe.missed == 0));
                let last = remove(20)[0];
                assert_eq!((last.hits, last.missed), (2 * bare.len() as u64, 0));
                all += bare.len();
            }
            println!("{kind}: {all} hits");
            assert!(all >= 8, "every instruction that writes to the stack");
        }
    });
    assert_quiet();
}

fn a_string_instruction_goes_on() {
    let from = [7_u8; 64];
    let rep = instructions("target_copy")[1];
    let target = middle() - 32;
    let copy = || {
        // SAFETY: inside the arena.
        unsafe { target_copy(target, from.as_ptr() as u64, 64) };
    };
    for probed in [false, true] {
        insert("watch_write_4", &[middle()]).unwrap();
        if probed {
            insert("log", &[rep]).unwrap();
        }
        copy();
        let last = remove(20)[0];
        // The SDM allows the CPU to do some iterations more before it traps (18.3.1.2); at least one trap comes.
        assert!((1..=4).contains(&last.hits), "{last:?}");
        println!(
            "rep movsb over four watched bytes: {} hits, probed: {probed}",
            last.hits
        );
        if probed {
            let probe = remove(3)[0];
            assert_eq!((probe.hits, probe.faulted), (1, 0), "the instruction was hit once");
        }
        let records = records();
        let watched = records.iter().filter(|record| record.header.major == 20);
        // Between two iterations the instruction is its own next one.
        assert!(watched.clone().all(|record| [rep, rep + 2].contains(&rip(record))));
        assert_eq!(watched.count() as u64, last.hits);
        assert!(
            ARENA.0[4..12]
                .iter()
                .all(|word| word.swap(0, Ordering::Relaxed) == 0x0707_0707_0707_0707)
        );
    }
    assert_quiet();
}

fn what_a_program_touches_is_missed_and_counted() {
    let place = function("target_store8").as_ptr() as u64;
    insert("watch_rw_8", &[middle()]).unwrap();
    insert("watch_touch", &[place]).unwrap();
    store(middle(), 1);
    // The program read and wrote; then the instruction itself wrote.
    let last = remove(20)[0];
    assert_eq!(last.hits, 1);
    // A string instruction copies, which may trap for each byte.
    assert!((2..=16).contains(&last.missed), "{last:?}");
    println!("a read and a write by a program: {} missed", last.missed);
    assert_eq!(remove(27)[0].hits, 1);
    assert_eq!(records().len(), 1);
    assert_quiet();
}

/// A watchpoint on what a hit itself reads and writes does not run into itself.
fn the_engines_own_data_can_be_watched() {
    let place = function("target_leaf").as_ptr() as u64;
    insert("count", &[place]).unwrap();
    // Everything of the engine's that is in its own object, and of the CPUs' state: found by their addresses.
    let engine = core::ptr::from_ref(engine_by_hooks()) as u64;
    let size = size_of_val(engine_by_hooks()) as u64;
    let mut passes = 0;
    for at in (engine & !7..engine + size).step_by(8) {
        insert("watch_rw_8", &[at]).unwrap();
        // SAFETY: does nothing.
        unsafe { target_leaf() };
        passes += 1;
        remove(20);
        records();
    }
    assert_eq!(remove(1)[0].hits, passes);
    assert_quiet();
}

fn ring_3_is_watched() {
    const CODE: u64 = 0x40_0000;
    const STACK: u64 = 0x50_0000;
    memory::map(CODE, 1, Rights::EXECUTE | Rights::USER).expect("free");
    memory::map(STACK, 1, Rights::WRITE | Rights::USER).expect("free");
    let code = (&raw const target_user) as u64;
    let len = (&raw const target_user_end) as u64 - code;
    let alias = memory::writable_alias(CODE).expect("mapped above");
    // SAFETY: a page of this test's own, longer than the code.
    unsafe { alias.copy_from_nonoverlapping(code as *const u8, len as usize) };
    let word = STACK + 64;
    // SAFETY: the code stores to its own page and leaves.
    let run = || assert_eq!(unsafe { ring3::run(CODE, STACK + 4096, word) }, 5);
    insert("watch_write_8", &[word]).unwrap();
    run();
    assert_eq!(remove(20)[0].hits, 1);
    assert_eq!(rip(&records()[0]), CODE + 3);
    insert("watch_execute_1", &[CODE + 3]).unwrap();
    run();
    assert_eq!(remove(20)[0].hits, 1);
    assert_eq!(rip(&records()[0]), CODE + 3);
    assert_quiet();
}

fn an_nmi_is_watched() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    fn on_nmi(_: u8, _: &mut TrapFrame) -> Action {
        store(middle(), 9);
        SEEN.fetch_add(1, Ordering::SeqCst);
        Action::Resume
    }
    let old = trap::set_handler(trap::NMI, Some(on_nmi));
    insert("watch_write_8", &[middle()]).unwrap();
    for pass in 1..=20 {
        apic::send_nmi(1);
        while SEEN.load(Ordering::SeqCst) < pass {
            core::hint::spin_loop();
        }
    }
    let last = remove(20)[0];
    assert_eq!(last.hits + last.missed, 20);
    trap::set_handler(trap::NMI, old);
    records();
    assert_quiet();
}

/// Addresses at which somebody else's step has ended, and the causes he was shown.
static STEPS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static STEP: AtomicU64 = AtomicU64::new(0);

fn a_debugger_keeps_its_steps() {
    fn on_step(_: u8, frame: &mut TrapFrame) -> Action {
        let at = STEP.fetch_add(1, Ordering::Relaxed) as usize;
        STEPS[at].store(frame.rip, Ordering::Relaxed);
        if at + 1 == STEPS.len()
            || !function("target_store8")
                .as_ptr_range()
                .contains(&(frame.rip as *const u8))
        {
            frame.rflags &= !(1 << 8);
        }
        let status: u64;
        // SAFETY: the status is the handler's to clear.
        unsafe {
            asm!("mov {}, dr6", out(reg) status, options(nomem, nostack));
            asm!("mov dr6, {}", in(reg) status & !(1 << 14), options(nomem, nostack));
        }
        assert_eq!(
            status & (1 << 14 | 0xf),
            1 << 14,
            "the step, and nothing of the watchpoint's"
        );
        Action::Resume
    }
    let old = trap::set_handler(trap::DB, Some(on_step));
    // QEMU's translator raises #DB twice for an instruction that is stepped and hits a watchpoint: once more at the handler's first
    // instruction. There the step is another store; `several_at_once` gives the engine what a CPU says.
    let word = if on_translator() { middle() + 8 } else { middle() };
    insert("watch_write_8", &[middle()]).unwrap();
    let place = function("target_store8").as_ptr() as u64;
    let behind = second("target_store8");
    for probed in [false, true] {
        STEP.store(0, Ordering::Relaxed);
        if probed {
            insert("count", &[place]).unwrap();
        }
        // SAFETY: sets TF for the call; the handler clears it.
        unsafe {
            asm!(
                "pushfq", "or qword ptr [rsp], 0x100", "popfq", "call {}",
                sym target_store8,
                in("rdi") word, in("rsi") 3,
                clobber_abi("C"),
            );
        }
        let steps: Vec<u64> = STEPS[..STEP.load(Ordering::Relaxed) as usize]
            .iter()
            .map(|step| step.load(Ordering::Relaxed))
            .collect();
        assert_eq!(steps[..2], [place, behind], "probed: {probed}");
    }
    remove(1);
    store(middle(), 4);
    let expected = if on_translator() { 1 } else { 3 };
    assert_eq!(remove(20)[0].hits, expected);
    trap::set_handler(trap::DB, old);
    let records = records();
    assert_eq!(records.len() as u64, expected);
    assert!(records.iter().all(|record| rip(record) == second("target_store8")));
    assert_quiet();
}

fn four_cpus_hit_while_inserted_and_removed() {
    const ROUNDS: u64 = 40;
    let going = AtomicBool::new(true);
    let stores = AtomicU64::new(0);
    smp::run_on_all(|cpu| {
        if cpu != 0 {
            while going.load(Ordering::Relaxed) {
                // SAFETY: a word of this CPU's own.
                unsafe { target_loop(&raw const ARENA.0[cpu] as u64, 100) };
                stores.fetch_add(100, Ordering::Relaxed);
            }
            return;
        }
        let mut counted = 0;
        for round in 0..ROUNDS {
            let cpu = 1 + round as usize % 3;
            insert("watch_write_8", &[&raw const ARENA.0[cpu] as u64]).unwrap();
            let before = stores.load(Ordering::Relaxed);
            while stores.load(Ordering::Relaxed) < before + 1000 && hits(20, 1) == 0 {
                core::hint::spin_loop();
            }
            let last = remove(20)[0];
            assert_eq!(last.missed, 0);
            counted += last.hits;
        }
        going.store(false, Ordering::Relaxed);
        println!("{counted} hits in {ROUNDS} rounds");
        assert!(counted >= ROUNDS);
    });
    records();
    assert_quiet();

    // While it stays, nothing is lost.
    insert("watch_four", &[middle()]).unwrap();
    smp::run_on_all(|_| {
        // SAFETY: all store to the same word.
        unsafe { target_loop(middle(), 1000) };
    });
    let last = remove(22);
    let told: u64 = last.iter().map(|probe| probe.hits).sum();
    assert_eq!(told, 4000 * if on_translator() { 1 } else { 4 }, "{last:?}");
    assert!(last.iter().all(|probe| probe.missed == 0), "{last:?}");
    assert_quiet();

    // A limit is exact on any number of CPUs.
    insert("watch_limits", &[middle()]).unwrap();
    smp::run_on_all(|_| {
        // SAFETY: as above.
        unsafe { target_loop(middle(), 100) };
    });
    let last = remove(23)[0];
    assert_eq!((last.skipped, last.hits, last.late), (3, 5, 392));
    assert_eq!(records().len(), 5);
    engine_by_hooks().host().take_reap_request();

    // Who it was.
    insert("watch_stack", &[middle()]).unwrap();
    store(middle(), 5);
    remove(25);
    let record = &records()[0];
    let Some(Ok(Element::KernelStack(frames))) = Elements::new(&record.elements).next() else {
        panic!("{record:?}")
    };
    let frames: Vec<u64> = frames.iter().collect();
    assert_eq!(frames[0], second("target_store8"));
    let caller = bootimage::symbols::function_at(frames[1]).unwrap();
    assert!(caller.name.contains("watch") && Header::SIZE > 0, "{}", caller.name);
}
