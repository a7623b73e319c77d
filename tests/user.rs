//! Probes on code in ring 3.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU64};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{cpu_id, println, ring3, smp};
use engine::insn::Insn;
use spin::Mutex;
use test_support::{engine, insert, records, remove};

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=240",
    tests: [
        every_instruction_does_what_it_does_bare,
        programs_see_the_processs_registers_and_memory,
        faults_are_the_originals_and_leave_one_record,
        a_debugger_sees_the_same_with_a_probe_on_any_instruction,
        a_breakpoint_of_the_process_is_passed_on,
        an_emulation_does_not_reach_what_the_process_may_not,
        slots_are_not_writable,
        two_cpus_run_the_same_probed_code,
    ],
}

/// Where the code runs in ring 3, and its stacks: one page to a CPU.
const TEXT: u64 = 0x4000_0000;
const STACKS: u64 = 0x4100_0000;
const STACK: u64 = 1 << 14;
const DATA: u64 = 0x4200_0000;
/// A page that is not there.
const ABSENT: u64 = 0x4300_0000;

global_asm!(
    ".pushsection .rodata.user, \"a\"",
    ".balign 16",
    ".globl user_work, user_leaf, user_leaf_end, user_load, user_privileged, user_divide",
    ".globl user_breakpoint, user_call, user_traced, user_busy, user_end",
    // Everything, with the result in rax. rdi: 128 bytes of memory, in which the word at 64 is the address of label 4, and the word at
    // 72 that of the leaf.
    "user_work:",
    "    push rbx",
    "    lea rax, [rdi + 1]",
    "    mov ecx, 3",
    "1:  add rax, rcx",
    "    loop 1b",
    "    call user_leaf",
    "    call qword ptr [rdi + 72]",
    // FS base is in no trap frame: stepped.
    "    call qword ptr fs:[rdi + 72]",
    "    jmp qword ptr fs:[rdi + 64]",
    "    ud2",
    "4:  add rax, [rip + 9f]",
    "    mov rsi, rdi",
    "    mov ecx, 5",
    "    rep movsb",
    "    pushfq",
    "    pop r8",
    "    and r8d, 0x8d5",
    "    add rax, r8",
    "    stc",
    "    pushfq",
    "    popfq",
    "    adc rax, 0",
    "    pop rbx",
    "    jmp 8f",
    "    ud2",
    "8:  int {leave}",
    "9:  .quad 1000",
    "user_leaf:",
    "    add rax, 7",
    "    ret",
    "user_leaf_end:",
    "user_load:",
    "    mov rax, [rdi]",
    "    int {leave}",
    "user_privileged:",
    "    nop",
    "    cli",
    "    mov rax, cr0",
    "    in al, dx",
    "    int {leave}",
    "user_divide:",
    "    xor edx, edx",
    "    div rdi",
    "    int {leave}",
    "user_breakpoint:",
    "    nop",
    "    int3",
    "    int {leave}",
    "user_call:",
    "    mov rsp, rdi",
    "    call user_leaf",
    "    int {leave}",
    // Sets TF, goes through what comes first, and clears it again.
    "user_traced:",
    "    pushfq",
    "    or qword ptr [rsp], 0x100",
    "    popfq",
    "    lea rax, [rdi + 1]",
    "    call user_leaf",
    "    call qword ptr fs:[rdi + 72]",
    "    mov rsi, rdi",
    "    mov ecx, 3",
    "    rep movsb",
    "    pushfq",
    "    and qword ptr [rsp], ~0x100",
    "    popfq",
    "    nop",
    "    int {leave}",
    // rsi passes; rbx counts those on which a probe has set r9.
    "user_busy:",
    "    xor ebx, ebx",
    "1:  xor r9d, r9d",
    "    lea r10, [r10 + 1]",
    "    add rbx, r9",
    "    dec rdi",
    "    jnz 1b",
    "    mov rax, rbx",
    "    int {leave}",
    "user_end:",
    ".popsection",
    leave = const ring3::LEAVE_VECTOR,
);

macro_rules! labels {
    ($($name:ident),*) => { unsafe extern "C" { $(static $name: u8;)* } };
}
labels!(
    user_work,
    user_leaf,
    user_leaf_end,
    user_load,
    user_privileged,
    user_divide,
    user_breakpoint,
    user_call,
    user_traced,
    user_busy,
    user_end
);

/// Where a label of the code is in ring 3.
fn at(label: *const u8) -> u64 {
    TEXT + (label.addr() - (&raw const user_work).addr()) as u64
}

/// The instructions in ring 3 between two labels.
fn places(from: *const u8, to: *const u8) -> Vec<u64> {
    let len = to.addr() - from.addr();
    // SAFETY: read-only data of this kernel.
    let code = unsafe { core::slice::from_raw_parts(from, len) };
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < len {
        found.push(at(from) + offset as u64);
        offset += Insn::decode(&code[offset..]).expect("an instruction").len();
    }
    found
}

/// The instructions of `user_work`: behind them are eight bytes of data.
fn places_of_work() -> Vec<u64> {
    // SAFETY: only the address counts.
    let end = unsafe { (&raw const user_leaf).sub(8) };
    places(&raw const user_work, end)
}

/// Puts the code where ring 3 runs it. Once.
fn prepare() {
    static ONCE: spin::Once<()> = spin::Once::new();
    ONCE.call_once(|| {
        let user = Rights::USER;
        memory::map(TEXT, 4096, user | Rights::EXECUTE).unwrap();
        memory::map(STACKS, smp::cpu_count() * STACK as usize, user | Rights::WRITE).unwrap();
        memory::map(DATA, smp::cpu_count() * 4096, user | Rights::WRITE).unwrap();
        let len = (&raw const user_end).addr() - (&raw const user_work).addr();
        // SAFETY: read-only data of this kernel; the page is new, and nobody runs it.
        unsafe {
            let code = core::slice::from_raw_parts(&raw const user_work, len);
            memory::write_text(core::iter::once((TEXT, code))).unwrap();
        }
        let marks = [
            &raw const user_work,
            &raw const user_leaf,
            &raw const user_load,
            &raw const user_privileged,
            &raw const user_divide,
            &raw const user_breakpoint,
            &raw const user_call,
            &raw const user_traced,
            &raw const user_busy,
            &raw const user_end,
        ];
        for pair in marks.windows(2) {
            let end = if pair[0] == &raw const user_work {
                at(pair[1]) - 8
            } else {
                at(pair[1])
            };
            engine().host().add_user_function(at(pair[0]), end);
        }
    });
}

fn data() -> u64 {
    DATA + 4096 * cpu_id() as u64
}

fn stack_top() -> u64 {
    STACKS + STACK * (cpu_id() as u64 + 1)
}

/// Runs code in ring 3.
fn run(label: *const u8, argument: u64) -> u64 {
    // SAFETY: the code uses its stack and its data.
    unsafe { ring3::run(at(label), stack_top(), argument) }
}

/// Writes the data that the code works on.
fn fill() {
    let four = at(&raw const user_work) + address_of_label_4();
    // SAFETY: this CPU's page, mapped in `prepare`.
    unsafe {
        (data() as *mut [u8; 128]).write_volatile(core::array::from_fn(|index| index as u8));
        ((data() + 64) as *mut u64).write_volatile(four);
        ((data() + 72) as *mut u64).write_volatile(at(&raw const user_leaf));
    }
}

const UD2: [u8; 2] = [0x0f, 0x0b];

/// The offset of the first instruction behind the first `ud2`.
fn address_of_label_4() -> u64 {
    // SAFETY: read-only data of this kernel.
    let code = unsafe { core::slice::from_raw_parts(&raw const user_work, 256) };
    code.windows(2).position(|two| two == UD2).expect("ud2") as u64 + 2
}

fn work() -> (u64, [u8; 64]) {
    fill();
    let result = run(&raw const user_work, data());
    // SAFETY: this CPU's page.
    (result, unsafe { (data() as *const [u8; 64]).read_volatile() })
}

fn probeable(mut places: Vec<u64>) -> Vec<u64> {
    places.retain(|place| insert("every1", &[*place]).map(|()| remove(100)).is_ok());
    places
}

fn every_instruction_does_what_it_does_bare() {
    prepare();
    let bare = work();
    assert_eq!(work(), bare, "deterministic");
    let mut all = probeable(places_of_work());
    // Each `ud2` is jumped over.
    let origin = at(&raw const user_work);
    // SAFETY: read-only data of this kernel, which goes on behind the last instruction.
    all.retain(|place| unsafe { *(&raw const user_work).add((place - origin) as usize).cast::<[u8; 2]>() } != UD2);
    all.extend(places(&raw const user_leaf, &raw const user_leaf_end));
    let mut kinds = [0; 4];
    for place in &all {
        insert("every1", &[*place]).unwrap();
        assert_eq!(work(), bare, "with a probe at {place:#x}");
        let last = remove(100);
        kinds[last[0].resume as usize] += 1;
        assert!(last[0].hits > 0 || last[0].resume == 2, "{:?}", last[0]);
        assert_eq!((last[0].missed, last[0].faulted, last[0].late), (0, 0, 0));
    }
    insert(&format!("every{}", all.len()), &all).unwrap();
    assert_eq!(work(), bare);
    let hits: u64 = remove(100).iter().map(|probe| probe.hits).sum();
    assert!(hits >= all.len() as u64);
    println!("({} copied, {} emulated, {} stepped) ", kinds[1], kinds[2], kinds[3]);
}

fn programs_see_the_processs_registers_and_memory() {
    prepare();
    fill();
    let place = at(&raw const user_load);
    insert("user_log", &[place]).unwrap();
    let word = run(&raw const user_load, data());
    let found = records();
    assert_eq!(found.len(), 1);
    let words = found[0].words();
    assert_eq!(words.len(), 5);
    assert!(
        [data(), place, stack_top(), word]
            .iter()
            .all(|known| words.contains(known)),
        "{words:x?}"
    );
    assert!(
        words.iter().any(|word| word & 0xffff == 0x23),
        "ring 3's code segment: {words:x?}"
    );
    remove(42);
}

/// Vector, address and how often.
static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn seen() -> [u64; 3] {
    SEEN.each_ref().map(|seen| seen.swap(0, SeqCst))
}

fn note(vector: u8, frame: &TrapFrame) {
    assert_eq!(frame.cs & 3, 3, "from ring 3");
    assert_eq!(frame.rflags & 0x300, 0x200, "interrupts are on there, and TF is off");
    SEEN[0].store(vector.into(), SeqCst);
    SEEN[1].store(frame.rip, SeqCst);
    SEEN[2].fetch_add(1, SeqCst);
}

fn repair(vector: u8, frame: &mut TrapFrame) -> Action {
    note(vector, frame);
    match vector {
        trap::PF => memory::map(ABSENT, 4096, Rights::WRITE | Rights::USER).unwrap(),
        trap::DE => frame.rdi = 1,
        _ => ring3::leave(frame, 77),
    }
    Action::Resume
}

fn faults_are_the_originals_and_leave_one_record() {
    prepare();
    for vector in [trap::PF, trap::GP, trap::DE] {
        trap::set_handler(vector, Some(repair));
    }
    let place = at(&raw const user_load);
    insert("log", &[place]).unwrap();
    assert_eq!(run(&raw const user_load, ABSENT), 0);
    assert_eq!(seen(), [trap::PF.into(), place, 1]);
    assert_eq!(records().len(), 1);
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (1, 1));

    let place = places(&raw const user_divide, &raw const user_breakpoint)[1];
    insert("log", &[place]).unwrap();
    run(&raw const user_divide, 0);
    assert_eq!(seen(), [trap::DE.into(), place, 1]);
    assert_eq!(records().len(), 1);
    let last = remove(3);
    assert_eq!((last[0].hits, last[0].faulted), (1, 1));

    // Emulated, copied, copied: what ring 3 may not execute. It does not complete.
    for place in &places(&raw const user_privileged, &raw const user_divide)[1..4] {
        insert("log", &[*place]).unwrap();
        // SAFETY: as in `run`.
        let left = unsafe { ring3::run(*place, stack_top(), 0) };
        assert_eq!((left, seen()), (77, [trap::GP.into(), *place, 1]));
        assert!(records().is_empty());
        let last = remove(3);
        assert_eq!((last[0].hits, last[0].faulted), (0, 1));
    }
    for vector in [trap::PF, trap::GP, trap::DE] {
        trap::set_handler(vector, None);
    }
}

/// Where a debugger has seen the process, with which flags and registers. Its room is made before.
static STEPS: Mutex<Vec<[u64; 5]>> = Mutex::new(Vec::new());

fn look(_: u8, frame: &mut TrapFrame) -> Action {
    // SAFETY: clears the debug status, as a debugger does.
    unsafe { asm!("mov dr6, {}", in(reg) 0xffff_0ff0_u64, options(nomem, nostack, preserves_flags)) };
    assert_eq!(frame.cs & 3, 3, "from ring 3");
    let mut steps = STEPS.lock();
    assert!(steps.len() < steps.capacity(), "room");
    steps.push([frame.rip, frame.rflags, frame.rsp, frame.rax, frame.rcx]);
    Action::Resume
}

fn traced() -> Vec<[u64; 5]> {
    fill();
    {
        let mut steps = STEPS.lock();
        steps.clear();
        steps.reserve(64);
    }
    trap::set_handler(trap::DB, Some(look));
    run(&raw const user_traced, data());
    trap::set_handler(trap::DB, None);
    STEPS.lock().clone()
}

fn a_debugger_sees_the_same_with_a_probe_on_any_instruction() {
    prepare();
    let bare = traced();
    assert!(bare.len() > 12, "{} steps", bare.len());
    let mut all = probeable(places(&raw const user_traced, &raw const user_busy));
    all.extend(places(&raw const user_leaf, &raw const user_leaf_end));
    for place in &all {
        insert("every1", &[*place]).unwrap();
        let found = traced();
        let last = remove(100);
        assert_eq!(found, bare, "with a probe at {place:#x}");
        assert!(last[0].hits > 0);
    }
    insert(&format!("every{}", all.len()), &all).unwrap();
    assert_eq!(traced(), bare);
    remove(100);
}

fn a_breakpoint_of_the_process_is_passed_on() {
    prepare();
    let place = at(&raw const user_breakpoint);
    insert("every1", &[place]).unwrap();
    trap::set_handler(
        trap::BP,
        Some(|vector, frame| {
            note(vector, frame);
            Action::Resume
        }),
    );
    run(&raw const user_breakpoint, 0);
    trap::set_handler(trap::BP, None);
    assert_eq!(seen(), [trap::BP.into(), place + 2, 1], "behind it");
    assert_eq!(remove(100)[0].hits, 1);
}

/// Ends the process; what the engine itself tries is not its fault.
fn end(vector: u8, frame: &mut TrapFrame) -> Action {
    if frame.cs & 3 == 0 {
        return Action::Pass;
    }
    note(vector, frame);
    ring3::leave(frame, 77);
    Action::Resume
}

/// A process points its stack pointer into the kernel, and runs into a probed `call`.
fn an_emulation_does_not_reach_what_the_process_may_not() {
    prepare();
    static SECRET: [AtomicU64; 512] = [const { AtomicU64::new(5) }; 512];
    trap::set_handler(trap::PF, Some(end));
    let place = places(&raw const user_call, &raw const user_traced)[1];
    insert("every1", &[place]).unwrap();
    let of_kernel = &raw const SECRET[256] as u64;
    // The last is where the trap's own frame is.
    let of_stack = &raw const of_kernel as u64;
    for rsp in [
        of_kernel,
        of_stack,
        of_stack & !0xfff,
        0x8000_0000_0000_0000 | of_kernel,
    ] {
        assert_eq!(run(&raw const user_call, rsp), 77);
        assert_eq!(seen(), [trap::PF.into(), place, 1], "stack pointer {rsp:#x}");
    }
    trap::set_handler(trap::PF, None);
    assert!(SECRET.iter().all(|word| word.load(SeqCst) == 5));
    let last = remove(100);
    assert_eq!((last[0].hits, last[0].faulted), (0, 4));
}

fn slots_are_not_writable() {
    prepare();
    trap::set_handler(trap::PF, Some(end));
    // `call` writes to its stack: here the slots, and the code itself.
    let place = places(&raw const user_call, &raw const user_traced)[1];
    let mut before: Vec<u8> = Vec::new();
    let bytes = |range: Range<u64>| {
        range.map(|at| {
            // SAFETY: mapped, and readable.
            unsafe { (at as *const u8).read_volatile() }
        })
    };
    before.extend(bytes(TEXT..TEXT + 4096));
    for rsp in [test_support::USER_SLOTS + 64, TEXT + 64] {
        insert("every1", &[place]).unwrap();
        assert_eq!(run(&raw const user_call, rsp), 77);
        assert_eq!(seen(), [trap::PF.into(), place, 1]);
        remove(100);
        assert!(bytes(TEXT..TEXT + 4096).eq(before.iter().copied()));
    }
    trap::set_handler(trap::PF, None);
}

fn two_cpus_run_the_same_probed_code() {
    const INSERTIONS: usize = 200;
    prepare();
    let all = places(&raw const user_busy, &raw const user_end);
    let (stays, comes_and_goes) = (all[3], all[2]);
    insert("entry", &[stays]).unwrap();
    let (passes, marked, hits) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let finished = AtomicBool::new(false);
    trap::set_handler(trap::FIRST_INTERRUPT, Some(|_, _| Action::Resume));
    smp::run_on_all(|cpu| {
        if cpu == 0 {
            for _ in 0..INSERTIONS {
                insert("count", &[comes_and_goes]).unwrap();
                let last = remove(1);
                assert_eq!((last[0].missed, last[0].late, last[0].faulted), (0, 0, 0));
                hits.fetch_add(last[0].hits, SeqCst);
            }
            finished.store(true, SeqCst);
            return;
        }
        bootimage::apic::start_timer(trap::FIRST_INTERRUPT, 500);
        while !finished.load(SeqCst) {
            marked.fetch_add(run(&raw const user_busy, 100), SeqCst);
            passes.fetch_add(100, SeqCst);
        }
        bootimage::apic::stop_timer();
    });
    trap::set_handler(trap::FIRST_INTERRUPT, None);
    let last = remove(2);
    assert_eq!((last[0].hits, last[0].missed), (passes.into_inner(), 0));
    assert!(hits.load(SeqCst) > 0);
    assert_eq!(
        marked.into_inner(),
        hits.into_inner(),
        "hits counted, and hits that the code saw"
    );
}
