//! What programs see of the process and of the CPU, at the privilege level of a process.

use dprobes::record::element::Element;
use dprobes::rpn::exception::{INVALID_OPERAND, operand};
use dprobes::rpn::reg::Reg;

use crate::support::{Session, address, point, session};
use crate::victims::victim_add;

/// The words of each element that one hit of `code` leaves.
fn hit(session: &Session, code: &str) -> Vec<Vec<u64>> {
    session.insert_text(1, &point(address(victim_add as *const ()), 1, "", code));
    assert_eq!(victim_add(30, 12), 43);
    let records = session.records();
    session.remove_program(1);
    assert_eq!(records.len(), 1);
    words(records[0].elements())
}

fn words<'e>(elements: impl Iterator<Item = Element<'e>>) -> Vec<Vec<u64>> {
    elements
        .map(|element| match element {
            Element::Words(words) | Element::KernelStack(words) | Element::UserStack(words) => words.iter().collect(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn refused(class: u64, word: u64) -> Vec<u64> {
    vec![u64::from(INVALID_OPERAND), class, word]
}

#[test]
fn what_is_for_ring_0_is_refused() {
    let session = session();
    for reg in [
        Reg::Cr0,
        Reg::Dr7,
        Reg::Gdtr,
        Reg::FsBase,
        Reg::Xmm0,
        Reg::Mxcsr,
        Reg::Ftw,
    ] {
        let found = hit(
            &session,
            &format!("sx bad\npush r, {reg}\nexit\nbad: push x\nlog 3\nexit"),
        );
        assert_eq!(found, [refused(operand::REGISTER, u64::from(reg.number()))], "{reg}");
    }
    let found = hit(&session, "sx bad\npush 0x10\npush msr\nexit\nbad: push x\nlog 3\nexit");
    assert_eq!(found, [refused(operand::MSR, 0x10)]);
    let found = hit(
        &session,
        "sx bad\npush 0x80\npush io, u8\nexit\nbad: push x\nlog 3\nexit",
    );
    assert_eq!(found, [refused(operand::PORT, 0x80)]);
    let found = hit(
        &session,
        "sx bad\npush 0x80\npush 0\npop io, u8\nexit\nbad: push x\nlog 3\nexit",
    );
    assert_eq!(found, [refused(operand::PORT, 0x80)]);
}

#[test]
fn what_a_process_may_know_it_knows() {
    let session = session();
    let leaf = std::arch::x86_64::__cpuid(0);
    let found = hit(
        &session,
        "push 0\npush 0\npush cpuid\nlog 4\npush u, rdi\npush r, rdi\nlog 2\nexit",
    );
    assert_eq!(found[0], [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx].map(u64::from));
    assert_eq!(found[1], [30, 30], "what was interrupted is user mode");
    if std::arch::x86_64::__cpuid(1).ecx >> 27 & 1 == 1 {
        // SAFETY: the system has switched XGETBV on.
        let xcr0 = unsafe { xgetbv() };
        assert_eq!(hit(&session, "push r, xcr0\nlog 1\nexit"), [[xcr0]]);
    }
    let (word, constant) = (0_u64, &raw const CONSTANT as u64);
    let code = |address: u64| format!("push {address}\nvfy r\npush {address}\nvfy rw\nlog 2\nexit");
    assert_eq!(
        hit(&session, &code(&raw const word as u64)),
        [[0, 0]],
        "rw, r: 0 is yes"
    );
    assert_eq!(hit(&session, &code(constant)), [[1, 0]]);
    assert_eq!(hit(&session, &code(8)), [[1, 1]]);
}

static CONSTANT: u64 = 77;

/// # Safety
/// CPUID says that the system has switched it on.
unsafe fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by this function's contract.
    unsafe { std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
    u64::from(low) | u64::from(high) << 32
}

std::arch::global_asm!(
    ".text",
    ".globl victim_framed, victim_framed_back, victim_framing, victim_framing_back",
    ".type victim_framing, @function",
    "victim_framing:",
    "push rbp",
    "xor ebp, ebp",
    "call victim_framed",
    "victim_framing_back:",
    "pop rbp",
    "ret",
    ".size victim_framing, . - victim_framing",
    ".type victim_framed, @function",
    "victim_framed:",
    "push rbp",
    "mov rbp, rsp",
    "lea rax, [rdi + 1]",
    "pop rbp",
    "ret",
    ".size victim_framed, . - victim_framed",
);
unsafe extern "sysv64" {
    safe fn victim_framing(a: u64) -> u64;
    safe fn victim_framed(a: u64) -> u64;
    static victim_framing_back: u8;
}

#[test]
fn stacks_are_those_of_the_process() {
    let session = session();
    let entry = address(victim_framed as *const ());
    let back = (&raw const victim_framing_back).addr() as u64;
    // At each instruction: push rbp, mov rbp rsp, lea, pop rbp, ret.
    for place in [0, 1, 4, 8, 9].map(|offset| entry + offset) {
        session.insert_text(1, &point(place, 1, "", "push 8\nlog kstack\npush 8\nlog ustack\nexit"));
        assert_eq!(victim_framing(41), 42);
        let records = session.records();
        session.remove_program(1);
        let found = words(records[0].elements());
        assert_eq!(found, [[place, back], [place, back]], "{:#x}", place - entry);
    }
}
