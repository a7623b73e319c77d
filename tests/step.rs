//! Single steps: the engine's own, those of a debugger that steps through probed code, and what interrupts them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};

use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{NoAlloc, println};
use engine::trap::{TrapFrame as Frame, Verdict};
use spin::Mutex;
use test_support::{engine, insert, instructions, records, remove};
use x86_64::instructions::interrupts;

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=240",
    tests: [
        a_debugger_sees_the_same_with_a_probe_on_any_instruction,
        other_bits_of_dr6_go_to_their_owner,
        a_trap_of_what_interrupts_a_step_is_not_its_end,
        steps_that_are_nested_too_deep_are_told,
    ],
}

/// RFLAGS.TF.
const TF: u64 = 1 << 8;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;
/// DR6.BS.
const BS: u64 = 1 << 14;

global_asm!(
    // rdi: 64 bytes of scratch memory. rsi: eight words of it, the first of which is the address of `target_leaf`, the second that of
    // label 4.
    ".globl target_traced",
    ".type target_traced, @function",
    "target_traced:",
    "    push rbx",
    "    lea rax, [rdi + 1]",
    "    mov ecx, 3",
    "1:  add rax, rcx",
    "    loop 1b",
    "    call target_leaf",
    "    call qword ptr [rsi]",
    // FS base is 0, and in no trap frame: stepped.
    "    call qword ptr fs:[rsi]",
    "    jmp qword ptr fs:[rsi + 8]",
    "    ud2",
    "4:  mov ecx, 5",
    "    xor eax, eax",
    "    rep stosb",
    "    pushfq",
    "    pop r8",
    "    cli",
    "    sub rsp, 8",
    "    mov [rsp], r8",
    "    popfq",
    "    jc 5f",
    "    nop",
    // Lets the debugger go, and calls it back: what comes behind the second `popfq` is the first that is stepped again.
    "5:  pushfq",
    "    and qword ptr [rsp], ~0x100",
    "    popfq",
    "    lea r9, [rax + 1]",
    "    pushfq",
    "    or qword ptr [rsp], 0x100",
    "    popfq",
    "    lea r10, [rax + 2]",
    "    pop rbx",
    "    ret",
    ".size target_traced, . - target_traced",
    ".globl target_leaf",
    ".type target_leaf, @function",
    "target_leaf:",
    "    test rax, rax",
    "    ret",
    ".size target_leaf, . - target_leaf",
    ".globl target_traced_4",
    ".set target_traced_4, 4b",
    // Stepped.
    ".globl target_jump",
    ".type target_jump, @function",
    "target_jump:",
    "    jmp qword ptr fs:[rdi]",
    "    ud2",
    "1:  ret",
    ".size target_jump, . - target_jump",
    ".globl target_jump_1",
    ".set target_jump_1, 1b",
);

unsafe extern "C" {
    static target_traced_4: u8;
    static target_jump_1: u8;
    fn target_traced(scratch: *mut u8, words: *const u64);
    fn target_leaf();
}

/// What a debugger sees at a step: where, with which flags, stack pointer, rax, rcx and r8.
type Seen = [u64; 6];

/// What the debugger has seen: its room is made before.
static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

fn look(_: u8, frame: &mut TrapFrame) -> Action {
    let status: u64;
    // SAFETY: reads the debug status, and then clears it, as a debugger does.
    unsafe {
        asm!("mov {}, dr6", out(reg) status, options(nomem, nostack, preserves_flags));
        asm!("mov dr6, {}", in(reg) status & !BS, options(nomem, nostack, preserves_flags));
    }
    assert_ne!(status & BS, 0, "a step says that it is one");
    let seen = [frame.rip, frame.rflags, frame.rsp, frame.rax, frame.rcx, frame.r8];
    let mut list = SEEN.lock();
    assert!(list.len() < list.capacity(), "room");
    list.push(seen);
    Action::Resume
}

/// Runs `target_traced` with TF set, on a stack of its own, so that all runs have the same one. What the debugger has seen from the first
/// step in it.
fn traced() -> Vec<Seen> {
    static WORK: Mutex<[u64; 32]> = Mutex::new([0; 32]);
    let mut work = WORK.lock();
    work[8] = target_leaf as unsafe extern "C" fn() as usize as u64;
    work[9] = &raw const target_traced_4 as u64;
    {
        let mut seen = SEEN.lock();
        seen.clear();
        seen.reserve(256);
    }
    trap::set_handler(trap::DB, Some(look));
    interrupts::without_interrupts(|| {
        // SAFETY: TF is cleared again behind the call; the function changes what the calling convention lets it change, and the memory
        // it is given.
        unsafe {
            asm!(
                "mov r12, rsp", "and rsp, -4096", "sub rsp, 4096",
                "pushfq", "or qword ptr [rsp], 0x300", "popfq",
                "call {traced}",
                "pushfq", "and qword ptr [rsp], ~0x300", "popfq",
                "mov rsp, r12",
                traced = sym target_traced,
                in("rdi") work.as_mut_ptr(), in("rsi") work.as_ptr().add(8), in("rax") 0, in("rcx") 0, in("r8") 0,
                out("r12") _,
                clobber_abi("C"),
            );
        }
    });
    trap::set_handler(trap::DB, None);
    // The stack pointer differs with who calls this.
    let seen = SEEN.lock();
    let top = seen.first().expect("steps")[2];
    seen.iter()
        .map(|[rip, rflags, rsp, rax, rcx, r8]| [*rip, *rflags, rsp.wrapping_sub(top), *rax, *rcx, *r8])
        .collect()
}

fn a_debugger_sees_the_same_with_a_probe_on_any_instruction() {
    let bare = traced();
    assert_eq!(traced(), bare, "deterministic");
    assert!(bare.len() > 40, "{} steps", bare.len());
    let mut places = instructions("target_traced");
    places.extend(instructions("target_leaf"));
    // What is jumped over is there so that nobody gets there.
    // SAFETY: text of this kernel, of functions that end behind it.
    places.retain(|place| unsafe { *core::ptr::with_exposed_provenance::<[u8; 2]>(*place as usize) } != [0x0f, 0x0b]);
    places.retain(|place| insert("every1", &[*place]).map(|()| remove(100)).is_ok());
    let mut kinds = [0; 4];
    for place in &places {
        insert("every1", &[*place]).unwrap();
        let with_probe = {
            let found = traced();
            let last = remove(100);
            kinds[last[0].resume as usize] += 1;
            assert!(last[0].hits > 0 && last[0].missed == 0, "{:?}", last[0]);
            found
        };
        compare(&bare, &with_probe, *place);
    }
    println!("({} copied, {} emulated, {} stepped) ", kinds[1], kinds[2], kinds[3]);
    // All at once.
    insert(&format!("every{}", places.len()), &places).unwrap();
    let found = traced();
    remove(100);
    compare(&bare, &found, 0);
}

fn compare(bare: &[Seen], found: &[Seen], place: u64) {
    for (step, (bare, found)) in bare.iter().zip(found).enumerate() {
        assert_eq!(
            bare, found,
            "step {step} with a probe at {place:#x}: {bare:x?} {found:x?}"
        );
    }
    assert_eq!(bare.len(), found.len(), "with a probe at {place:#x}");
}

/// A place that is stepped, with a probe.
fn stepped_place() -> u64 {
    let place = instructions("target_jump")[0];
    insert("every1", &[place]).unwrap();
    place
}

/// The frame of a breakpoint there, with this stack pointer, in code whose word for the jump is at `word`.
fn frame_at(place: u64, rsp: u64, word: &u64) -> Frame {
    Frame {
        rip: place + 1,
        rsp,
        rdi: core::ptr::from_ref(word) as u64,
        rflags: IF | 2,
        cs: 8,
        ..Frame::default()
    }
}

/// The engine's handlers are called as the CPU would have them called, since QEMU cannot raise both exceptions at once.
fn other_bits_of_dr6_go_to_their_owner() {
    let place = stepped_place();
    let word = &raw const target_jump_1 as u64;
    interrupts::without_interrupts(|| {
        for (status, verdict) in [
            (BS, Verdict::Handled),
            (BS | 1, Verdict::NotOurs),
            (BS | 8, Verdict::NotOurs),
        ] {
            let mut frame = frame_at(place, 0x10000, &word);
            assert_eq!(engine().on_breakpoint(&mut frame), Verdict::Handled);
            assert_eq!(frame.rflags & (TF | IF), TF);
            frame.rip = word;
            // What is reserved in DR6 reads as ones.
            let mut left = status | 0xffff_0ff0;
            assert_eq!(engine().on_debug(&mut frame, &mut left), verdict);
            assert_eq!(left, status & !BS | 0xffff_0ff0 & !BS, "only the step is the engine's");
            assert_eq!((frame.rip, frame.rflags), (word, IF | 2));
        }
        let mut frame = frame_at(place, 0x10000, &word);
        let mut status = BS;
        assert_eq!(engine().on_debug(&mut frame, &mut status), Verdict::NotOurs);
        assert_eq!(status, BS, "no step is under way");
    });
    remove(100);
}

fn a_trap_of_what_interrupts_a_step_is_not_its_end() {
    let place = stepped_place();
    let word = &raw const target_jump_1 as u64;
    interrupts::without_interrupts(|| {
        let mut frame = frame_at(place, 0x10000, &word);
        assert_eq!(engine().on_breakpoint(&mut frame), Verdict::Handled);
        // An NMI, whose handler is stepped through by a debugger: below the CPU's frame on the same stack, or on another one.
        for rsp in [0x10000 - 40, 0x10000 - 400, 0x90000, 0xffff_8000_0000_0000] {
            let mut inner = Frame {
                rsp,
                ..frame_at(place, rsp, &word)
            };
            let before = inner;
            let mut status = BS;
            assert_eq!(engine().on_debug(&mut inner, &mut status), Verdict::NotOurs);
            assert_eq!((inner, status), (before, BS));
        }
        frame.rip = word;
        let mut status = BS;
        assert_eq!(engine().on_debug(&mut frame, &mut status), Verdict::Handled);
        assert_eq!((frame.rip, frame.rflags), (word, IF | 2));
    });
    remove(100);
}

fn steps_that_are_nested_too_deep_are_told() {
    const STEPS: u64 = 32;
    let place = stepped_place();
    let word = &raw const target_jump_1 as u64;
    interrupts::without_interrupts(|| {
        let _no_alloc = NoAlloc::new();
        // Each is interrupted by an NMI before it is done.
        let rsp = |level| 0x100_0000 - 0x1000 * level;
        for level in 0..STEPS {
            let mut frame = frame_at(place, rsp(level), &word);
            assert_eq!(engine().on_breakpoint(&mut frame), Verdict::Handled);
            assert_ne!(frame.rflags & TF, 0);
        }
        let mut frame = frame_at(place, rsp(STEPS), &word);
        let before = frame;
        assert_eq!(engine().on_breakpoint(&mut frame), Verdict::NotOurs);
        assert_eq!(
            frame, before,
            "an unexpected breakpoint, not an instruction that is left out"
        );
        for level in (0..STEPS).rev() {
            let mut frame = Frame {
                rip: word,
                rflags: TF | 2,
                ..frame_at(place, rsp(level), &word)
            };
            let mut status = BS;
            assert_eq!(engine().on_debug(&mut frame, &mut status), Verdict::Handled);
            assert_eq!(frame.rflags, IF | 2);
        }
    });
    let last = remove(100);
    assert_eq!((last[0].hits, last[0].faulted), (STEPS, 1));
    assert!(records().is_empty());
}
