//! What faults in a slot is seen as the original's fault: vector, error code, address and every register.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ops::Range;

use bootimage::fault::{fix_up_of, probe_read};
use bootimage::sync::IrqMutex;
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{memory, println};
use engine::insn::Insn;
use test_support::{Registers, call_with, engine, insert, instructions, remove, targets};

bootimage::test_main! { tests: [every_fault_is_the_originals, a_string_instruction_faults_half_way] }

// The instruction behind `nop` faults, and is left out by the handler. RCX has an address that is not canonical.
targets! { TARGETS:
    divide: "xor edx, edx" "mov eax, 5" "mov r8d, 0" "nop" "div r8d" "ret";
    divide_overflow: "mov edx, 5" "mov eax, 5" "mov r8d, 1" "nop" "idiv r8d" "ret";
    load: "nop" "mov rax, [rcx]" "ret";
    store_relative_to_the_stack: "mov r8, rcx" "sub r8, rsp" "nop" "mov [rsp + r8], rax" "ret";
    read_modify_write: "nop" "lock xadd [rcx], rax" "ret";
    vector_misaligned: "mov rax, rsp" "or eax, 1" "nop" "movaps xmm0, [rax]" "ret";
    bad_data_segment: "mov eax, 0x7ff8" "nop" "mov ds, eax" "ret";
    bad_task: "mov eax, 0x7ff8" "nop" "ltr ax" "ret";
    call_through_nothing: "nop" "call [rcx]" "ret";
    interrupt_return_to_no_segment: "push 0" "push rsp" "pushfq" "push 0" "push rcx" "nop" "iretq" "add rsp, 40" "ret";
    far_return_to_no_segment: "push 0" "push rcx" "nop" ".byte 0x48; retf" "add rsp, 16" "ret";
    far_jump_to_no_segment: "nop" ".byte 0x48; jmp fword ptr [rip + 1f]" "ret" ".pushsection .data" "1: .quad 0; .word 0" ".popsection";
    far_call_to_no_segment: "nop" ".byte 0x48; call fword ptr [rip + 1f]" "ret" ".pushsection .data" "1: .quad 0; .word 0" ".popsection";
    far_call_through_nothing: "nop" "call fword ptr [rcx]" "ret";
    bad_stack_segment: "mov eax, 0x7ff8" "nop" "mov ss, eax" "mov r8d, 1" "ret";
    no_guest: "nop" "vmlaunch" "ret";
    no_guest_either: "nop" "vmrun" "ret";
    jump_through_a_segment: "nop" "jmp fs:[rcx]" "ret";
}

static FAULT: IrqMutex<Option<(u8, TrapFrame)>> = IrqMutex::new(None);

/// Leaves the instruction out.
fn leave_out(vector: u8, frame: &mut TrapFrame) -> Action {
    if fix_up_of(frame.rip).is_some() {
        return Action::Pass;
    }
    let before = FAULT.lock().replace((vector, *frame));
    assert!(before.is_none(), "a second fault, vector {vector}: {frame:x?}");
    let mut bytes = [0; 15];
    probe_read(frame.rip, &mut bytes).unwrap();
    // The breakpoint is where the first byte was, so that the length is that of the bare run.
    frame.rip += LENGTH
        .lock()
        .unwrap_or_else(|| Insn::decode(&bytes).unwrap().len() as u64);
    Action::Resume
}

static LENGTH: IrqMutex<Option<u64>> = IrqMutex::new(None);

fn run(entry: u64) -> (Registers, Option<(u8, TrapFrame)>) {
    *FAULT.lock() = None;
    let mut registers = Registers {
        rcx: 0x0000_8000_0000_0000,
        rflags: 0x202,
        ..Registers::default()
    };
    // SAFETY: the functions are this test's; the handler continues behind what faults.
    unsafe { call_with(entry, &mut registers) };
    (registers, *FAULT.lock())
}

const FAULTS: [u8; 4] = [trap::DE, trap::UD, trap::SS, trap::GP];

fn every_fault_is_the_originals() {
    for vector in FAULTS {
        trap::set_handler(vector, Some(leave_out));
    }
    let mut seen = [0; 32];
    engine();
    for name in TARGETS {
        let places = instructions(name);
        let insns: Vec<Insn> = places
            .iter()
            .map(|place| {
                let mut bytes = [0; 15];
                probe_read(*place, &mut bytes).unwrap();
                Insn::decode(&bytes).unwrap()
            })
            .collect();
        let index = insns.iter().position(|insn| insn.bytes() == [0x90]).unwrap() + 1;
        *LENGTH.lock() = Some(insns[index].len() as u64);
        let bare = run(places[0]);
        let (vector, frame) = bare.1.unwrap_or_else(|| panic!("{name} does not fault"));
        assert_eq!(frame.rip, places[index], "{name}");
        seen[usize::from(vector)] += 1;
        insert("every1", &[places[index]]).unwrap();
        assert_eq!(run(places[0]), bare, "{name}, probed");
        let last = remove(100);
        assert_eq!((last[0].hits, last[0].faulted, last[0].missed), (0, 1, 0), "{name}");
        assert_eq!(run(places[0]), bare, "{name}, after the probe was removed");
    }
    println!(
        "(#DE {}, #UD {}, #SS {}, #GP {}) ",
        seen[0], seen[6], seen[12], seen[13]
    );
    // An access by RSP that is not canonical is #SS on a CPU, and #GP in QEMU.
    assert!(
        [trap::DE, trap::UD, trap::GP]
            .iter()
            .all(|vector| seen[usize::from(*vector)] > 0)
    );
    for vector in FAULTS {
        trap::set_handler(vector, None);
    }
}

targets! { STRING:
    string: "cld" "nop" "rep movsb" "ret";
}

const PAGES: Range<u64> = 0xffff_c000_0000_0000..0xffff_c000_0000_2000;

/// Maps the second page, and tries again.
fn map_second(_: u8, frame: &mut TrapFrame) -> Action {
    if fix_up_of(frame.rip).is_some() {
        return Action::Pass;
    }
    let before = FAULT.lock().replace((trap::PF, *frame));
    assert!(before.is_none(), "{frame:x?}");
    memory::map(PAGES.start + 4096, 4096, memory::Rights::WRITE).unwrap();
    Action::Resume
}

fn a_string_instruction_faults_half_way() {
    memory::map(PAGES.start, 4096, memory::Rights::WRITE).unwrap();
    let places = instructions(STRING[0]);
    let source = [7_u8; 64];
    let once = || {
        *FAULT.lock() = None;
        let mut registers = Registers {
            rsi: source.as_ptr() as u64,
            rdi: PAGES.start + 4096 - 24,
            rcx: source.len() as u64,
            rflags: 0x202,
            ..Registers::default()
        };
        // SAFETY: writes to pages that are this test's own.
        unsafe { call_with(places[0], &mut registers) };
        let fault = *FAULT.lock();
        // SAFETY: nobody has a reference into it.
        unsafe { memory::unmap(PAGES.start + 4096, 4096) }.unwrap();
        (
            registers,
            fault.map(|(_, frame)| (frame.rip, frame.rcx, frame.rdi, frame.rsi, frame.orig_rax)),
        )
    };
    trap::set_handler(trap::PF, Some(map_second));
    let bare = once();
    assert_eq!(bare.1.map(|fault| (fault.0, fault.1)), Some((places[2], 40)));
    insert("every1", &[places[2]]).unwrap();
    assert_eq!(once(), bare);
    let last = remove(100);
    // The rest of it was a hit of its own, and one execution has completed.
    assert_eq!((last[0].hits, last[0].faulted), (1, 1));
    trap::set_handler(trap::PF, None);
    // SAFETY: as above.
    unsafe { memory::unmap(PAGES.start, 4096) }.unwrap();
}
