//! Instructions that go to ring 3, with a probe on them: nobody comes back to the slot.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::ring3::LEAVE_VECTOR;
use bootimage::segments::{KERNEL_CS, KERNEL_DS, USER_CS, USER_DS};
use bootimage::trap::{self, Action, TrapFrame};
use engine::record::header::RecordState;
use test_support::{insert, instructions, records, remove};

bootimage::test_main! { tests: [ring_3_is_reached_from_a_slot] }

global_asm!(
    ".pushsection .text.targets, \"axR\", @progbits",
    // (rip, rsp, where the CPU finds the stack for traps from ring 3, where to store the present one)
    ".globl target_iret",
    ".type target_iret, @function",
    "target_iret:",
    "    push rbx; push rbp; push r12; push r13; push r14; push r15",
    "    mov [rcx], rsp",
    "    mov [rdx], rsp",
    "    push {user_ds}; push rsi; push 0x202; push {user_cs}; push rdi",
    "    iretq",
    ".size target_iret, . - target_iret",
    ".globl target_far_ret",
    ".type target_far_ret, @function",
    "target_far_ret:",
    "    push rbx; push rbp; push r12; push r13; push r14; push r15",
    "    mov [rcx], rsp",
    "    mov [rdx], rsp",
    "    push {user_ds}; push rsi; push {user_cs}; push rdi",
    "    .byte 0x48; retf",
    ".size target_far_ret, . - target_far_ret",
    ".globl come_back",
    "come_back:",
    "    pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "    ret",
    ".popsection",
    user_cs = const USER_CS.0,
    user_ds = const USER_DS.0,
);

type ToRing3 = unsafe extern "C" fn(rip: u64, rsp: u64, ring0_stack: *mut u64, saved: *const AtomicU64);

unsafe extern "C" {
    fn target_iret(rip: u64, rsp: u64, ring0_stack: *mut u64, saved: *const AtomicU64);
    fn target_far_ret(rip: u64, rsp: u64, ring0_stack: *mut u64, saved: *const AtomicU64);
    static come_back: u8;
}

const USER_CODE: u64 = 0x40_0000;
const USER_STACK: u64 = 0x50_0000;

static SAVED: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// Ring 3 has executed `int`: remembers what it had, and continues where ring 0 left.
fn back_to_ring_0(_: u8, frame: &mut TrapFrame) -> Action {
    for (seen, found) in SEEN.iter().zip([frame.rax, frame.rip, frame.cs, frame.rsp, frame.ss]) {
        seen.store(found, Ordering::Relaxed);
    }
    frame.rip = (&raw const come_back).addr() as u64;
    frame.cs = KERNEL_CS.0.into();
    frame.ss = KERNEL_DS.0.into();
    frame.rsp = SAVED.load(Ordering::Relaxed);
    frame.rflags = 2;
    Action::Resume
}

/// Where this CPU's task-state segment has the stack pointer for ring 0 (SDM volume 3, 8.7).
fn ring0_stack() -> *mut u64 {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let mut gdt = Pointer { limit: 0, base: 0 };
    let task: u64;
    // SAFETY: both only store; SGDT ten bytes, the size of `Pointer`.
    unsafe { asm!("sgdt [{}]", "str {}", in(reg) &raw mut gdt, out(reg) task, options(nostack, preserves_flags)) };
    let entry = (gdt.base + (task & 0xfff8)) as *const u64;
    // SAFETY: the descriptor of the segment that is loaded has 16 bytes.
    let [low, high] = unsafe { [entry.read(), entry.add(1).read()] };
    let base = low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32;
    (base + 4) as *mut u64
}

/// MSR of the base that `swapgs` exchanges with that of GS, and of the latter (SDM volume 4, table 2-2).
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const GS_BASE: u32 = 0xc000_0101;

fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every 64-bit CPU has these two, and reading them has no effect.
    unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

fn set_kernel_gs_base(base: u64) {
    // SAFETY: it counts from the next `swapgs` on, which is the test's.
    unsafe { asm!("wrmsr", in("ecx") KERNEL_GS_BASE, in("eax") base as u32, in("edx") (base >> 32) as u32) };
}

fn ring_3_is_reached_from_a_slot() {
    // mov rax, rsp; int 0xf2
    const CODE: [u8; 5] = [0x48, 0x89, 0xe0, 0xcd, LEAVE_VECTOR];
    memory::map(USER_CODE, 4096, Rights::EXECUTE | Rights::USER).unwrap();
    memory::map(USER_STACK, 4096, Rights::WRITE | Rights::USER).unwrap();
    let alias = memory::writable_alias(USER_CODE).unwrap();
    // SAFETY: a page of this test's own.
    unsafe { alias.copy_from_nonoverlapping(CODE.as_ptr(), CODE.len()) };
    trap::set_handler(LEAVE_VECTOR, Some(back_to_ring_0));
    // Both bases the same: ring 3 is entered without `swapgs`, so that a breakpoint may be taken on the way.
    let other = rdmsr(KERNEL_GS_BASE);
    let stack = ring0_stack();
    // SAFETY: the segment is this CPU's, and nothing else looks at it meanwhile.
    let before = unsafe { stack.read_unaligned() };

    let top = USER_STACK + 4096 - 16;
    let expected = [
        top,
        USER_CODE + CODE.len() as u64,
        USER_CS.0.into(),
        top,
        USER_DS.0.into(),
    ];
    let go = |enter: ToRing3| {
        // SAFETY: ring 3 executes the code above, which comes back; what is changed for it is put back.
        unsafe {
            asm!("cli");
            set_kernel_gs_base(rdmsr(GS_BASE));
            enter(USER_CODE, top, stack, &raw const SAVED);
            set_kernel_gs_base(other);
            stack.write_unaligned(before);
            asm!("sti");
        }
        assert_eq!(SEEN.each_ref().map(|seen| seen.swap(0, Ordering::Relaxed)), expected);
    };
    let ways: [(&str, ToRing3); 2] = [("target_iret", target_iret), ("target_far_ret", target_far_ret)];
    for (name, enter) in ways {
        go(enter);
        let places = instructions(name);
        let last = places.len() - 1;
        insert("log", &places[last..]).unwrap();
        for _ in 0..20 {
            go(enter);
        }
        let found = records();
        assert_eq!(found.len(), 20, "{name}: each has completed");
        assert!(
            found
                .iter()
                .all(|record| record.header.state == RecordState::Published as u32)
        );
        let probe = remove(3)[0];
        assert_eq!(
            (probe.hits, probe.faulted, probe.missed, probe.resume),
            (20, 0, 0, 1),
            "{name}"
        );
    }
    trap::set_handler(LEAVE_VECTOR, None);
}
