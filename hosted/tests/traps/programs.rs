//! What programs do to the process, and what they leave behind.

use dprobes::record::element::Element;

use crate::support::{address, point, session};
use crate::victims::*;

#[test]
fn registers_are_read() {
    let session = session();
    let at = address(victim_add as *const ());
    session.insert_text(
        1,
        &point(at, 7, "", "push r, rip\npush r, rsi\npush r, rdi\nlog 3\nexit"),
    );
    assert_eq!(victim_add(30, 12), 43);
    let records = session.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].words(), [30, 12, at]);
    assert_eq!(records[0].codes(), (1, 7));
    let header = &records[0].header;
    assert_eq!(header.address, at);
    assert_eq!(header.pid, std::process::id());
    // SAFETY: the calls have no preconditions.
    let (tid, uid) = unsafe { (libc::gettid(), libc::getuid()) };
    assert_eq!((header.tid, header.uid), (tid as u32, uid));
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    assert_eq!(
        header.name.split(|byte| *byte == 0).next(),
        Some(name.trim_end().as_bytes())
    );
    assert!(header.time > 0);
}

#[test]
fn every_register_is_read_and_written() {
    // Each of these is free to use in `victim_registers`; it is 0x100 + its number there.
    let names = [
        "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    ];
    let session = session();
    let at = address(registers_probed as *const ());
    let code: String = names
        .iter()
        .map(|name| format!("push r, {name}\nlog 1\npush r, {name}\npush 1000\nadd\npop r, {name}\n"))
        .collect();
    session.insert_text(1, &point(at, 1, "", &format!("{code}exit")));
    let expected: u64 = (0..15).map(|n| 0x100 + n + 1000).sum();
    assert_eq!(victim_registers(), expected);
    let records = session.records();
    assert_eq!(records[0].words(), (0..15).map(|n| 0x100 + n).collect::<Vec<u64>>());
}

std::arch::global_asm!(
    ".text",
    ".globl registers_probed",
    ".type registers_probed, @function",
    "registers_probed:",
    "nop",
    "ret",
    ".size registers_probed, . - registers_probed",
    ".globl victim_registers",
    ".type victim_registers, @function",
    "victim_registers:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov eax, 0x100; mov ecx, 0x101; mov edx, 0x102; mov ebx, 0x103; mov ebp, 0x104; mov esi, 0x105; mov edi, 0x106",
    "mov r8d, 0x107; mov r9d, 0x108; mov r10d, 0x109; mov r11d, 0x10a; mov r12d, 0x10b; mov r13d, 0x10c; mov r14d, 0x10d",
    "mov r15d, 0x10e",
    "call registers_probed",
    "add rax, rcx; add rax, rdx; add rax, rbx; add rax, rbp; add rax, rsi; add rax, rdi; add rax, r8; add rax, r9",
    "add rax, r10; add rax, r11; add rax, r12; add rax, r13; add rax, r14; add rax, r15",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".size victim_registers, . - victim_registers",
);
unsafe extern "sysv64" {
    safe fn registers_probed();
    safe fn victim_registers() -> u64;
}

#[test]
fn registers_are_written() {
    let session = session();
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push 1000\npop r, rdi\nexit"),
    );
    assert_eq!(victim_add(30, 12), 1013);
}

#[test]
fn rip_is_written_instead_of_executing_the_instruction() {
    let session = session();
    let at = instructions_of_add(&session);
    // Skips `add rax, 1`.
    session.insert_text(
        1,
        &point(
            at[1],
            1,
            "",
            &format!("push {:#x}\npop r, rip\npush r, rax\nlog 1\nexit", at[2]),
        ),
    );
    assert_eq!(victim_add(30, 12), 42);
    assert_eq!(session.records()[0].words(), [42]);
}

fn instructions_of_add(session: &crate::support::Session) -> Vec<u64> {
    crate::support::instructions(session, address(victim_add as *const ()))
}

#[test]
fn memory_is_read_and_written() {
    let session = session();
    let mut values = [0x8877_6655_4433_2211_u64, 0];
    let code = "push r, rdi\npush mem, u64\nlog 1\npush r, rdi\npush mem, u32\nlog 1\npush r, rdi\npush mem, s8\nlog 1\n\
                push r, rdi\npush 8\nadd\npush 0xabcd\npop mem, u16\nexit";
    session.insert_text(1, &point(address(victim_load as *const ()), 1, "", code));
    assert_eq!(victim_load((&raw mut values) as u64), 0x8877_6655_4433_2212);
    // SAFETY: a read of a live variable that was written behind the compiler's back.
    assert_eq!(unsafe { (&raw const values).read_volatile() }[1], 0xabcd);
    assert_eq!(session.records()[0].words(), [0x8877_6655_4433_2211, 0x4433_2211, 0x11]);
}

#[test]
fn strings_and_memory_are_logged() {
    let session = session();
    let text = c"a string in the process";
    let code = "push 100\npush r, rdi\nlog str\npush 8\npush r, rdi\nlog mrf\npush 4\npush r, rdi\nlog str\nexit";
    session.insert_text(1, &point(address(victim_load as *const ()), 1, "", code));
    victim_load(text.as_ptr() as u64);
    let records = session.records();
    let elements: Vec<_> = records[0].elements().collect();
    assert_eq!(
        elements,
        [
            Element::String(text.to_bytes()),
            Element::Memory(b"a string"),
            Element::String(b"a st")
        ]
    );
}

#[test]
fn a_bad_address_leaves_a_fault_element_and_the_program_goes_on() {
    let session = session();
    let code = "push 100\npush 16\nlog str\npush 8\npush r, rsp\npush 0x800000000000\nlog mrf\npush 5\nlog 1\nexit";
    session.insert_text(1, &point(address(victim_add as *const ()), 1, "", code));
    assert_eq!(victim_add(1, 1), 3);
    let probe = session.only_probe();
    let records = session.records();
    let elements: Vec<_> = records[0].elements().collect();
    assert_eq!(elements.first(), Some(&Element::Fault(16)), "{elements:?} {probe:?}");
    assert_eq!(probe.hits, 1);
}

#[test]
fn local_variables_keep_their_values() {
    let session = session();
    let code = "inc lv, a\npush lv, b\npush r, rdi\nadd\npop lv, b\ndec lv, c\nabort";
    session.insert_text(1, &point(address(victim_add as *const ()), 1, "", code));
    for n in 1..=10 {
        victim_add(n, 0);
    }
    assert_eq!(session.variables(1, 4), [10, 55, 10_u64.wrapping_neg(), 0]);
    assert!(session.records().is_empty());
}

#[test]
fn an_aborted_hit_leaves_no_record() {
    let session = session();
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push 1\nlog 1\nabort"),
    );
    victim_add(1, 1);
    assert!(session.records().is_empty());
    assert_eq!(session.only_probe().hits, 1);
}

#[test]
fn setmin_and_setmaj_change_the_codes_of_the_record() {
    let session = session();
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "setmaj 77\nsetmin 99\nexit"),
    );
    victim_add(1, 1);
    assert_eq!(session.records()[0].codes(), (77, 99));
}
