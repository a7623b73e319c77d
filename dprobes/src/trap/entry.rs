//! The engine's own exception entries, for hosts whose descriptor table it patches.
//!
//! An entry builds a [`TrapFrame`] on the stack, calls the engine, and returns to the frame when the trap was the engine's;
//! otherwise it undoes what it did and goes on to the handler that was there before, with the stack, and GS, as the CPU left them.
//!
//! A trap from ring 3 has the program's GS base. A host whose own code finds its CPU through GS says so
//! ([`EngineRef::SWAPS_GS`]). The entries do no more than that: a host that changes page tables when it enters or leaves ring 3, or that has to
//! stop speculation there, must call the engine from its own entries.
//!
//! #BP is special: an emulated `call` or `push` writes below the interrupted stack pointer, where the CPU has put its frame.
//! So that entry works on a copy of the frame further down, and the original's place is free to be written.

use core::arch::naked_asm;

use super::Verdict;
use super::debug_registers::Quiet;
use super::idt::CHAIN;
use crate::frame::TrapFrame;
use crate::host::Host;
use crate::probe::Engine;

/// How the entries find the engine.
pub trait EngineRef: 'static {
    /// Its host.
    type Host: Host;

    /// Does this kernel execute `swapgs` when it enters from ring 3 and leaves to it? Its own GS base is then in the upper half of the
    /// address space.
    const SWAPS_GS: bool = false;

    /// The engine, or `None` while there is none. Called in any context; must not block.
    fn engine() -> Option<&'static Engine<Self::Host>>;
}

const DB: u8 = 1;
const BP: u8 = 3;

/// Faults that an instruction can raise and that the CPU reports without an error code: #DE #BR #UD #NM #MF #XM.
macro_rules! plain_faults {
    ($with:ident) => {
        $with!(0, 5, 6, 7, 16, 19)
    };
}

/// Faults with an error code: #TS #NP #SS #GP #PF #AC #CP.
macro_rules! coded_faults {
    ($with:ident) => {
        $with!(10, 11, 12, 13, 14, 17, 21)
    };
}

/// The entry for a vector, if the engine has one.
pub(super) fn entry<E: EngineRef>(vector: u8) -> Option<unsafe extern "C" fn()> {
    macro_rules! plain {
        ($($vector:literal),*) => { match vector { $($vector => return Some(fault_entry::<E, $vector>),)* _ => {} } };
    }
    macro_rules! coded {
        ($($vector:literal),*) => { match vector { $($vector => return Some(coded_fault_entry::<E, $vector>),)* _ => {} } };
    }
    match vector {
        BP => return Some(breakpoint_entry::<E>),
        DB => return Some(debug_entry::<E>),
        _ => {}
    }
    plain_faults!(plain);
    coded_faults!(coded);
    None
}

extern "C" fn breakpoint<E: EngineRef>(frame: &mut TrapFrame) -> bool {
    E::engine().is_some_and(|engine| engine.on_breakpoint(frame) == Verdict::Handled)
}

extern "C" fn debug<E: EngineRef>(frame: &mut TrapFrame) -> bool {
    // SAFETY: in the handler of #DB, in ring 0 with interrupts off.
    let _quiet = unsafe { Quiet::new() };
    let Some(engine) = E::engine() else { return false };
    let status = dr6::read();
    let mut left = status;
    let handled = engine.on_debug(frame, &mut left) == Verdict::Handled;
    if left != status {
        // The CPU never clears it (SDM volume 3, 18.2.3).
        dr6::write(left);
    }
    handled
}

/// A fault is never the engine's alone: the frame is corrected, and the host goes on with it.
extern "C" fn fault<E: EngineRef>(frame: &mut TrapFrame) -> bool {
    if let Some(engine) = E::engine() {
        engine.on_fault(frame);
    }
    false
}

/// Saves the general registers below an error code: a [`TrapFrame`].
macro_rules! save {
    () => {
        "push rdi; push rsi; push rdx; push rcx; push rax; push r8; push r9; push r10; push r11; push rbx; push rbp; \
         push r12; push r13; push r14; push r15"
    };
}

/// Calls the handler with the frame, on an aligned stack; its answer is in the flags for `jz`.
macro_rules! call {
    () => {
        "cld; mov rdi, rsp; mov rbx, rsp; and rsp, -16; call {handler}; mov rsp, rbx; test al, al"
    };
}

/// The inverse of `save`; changes no flag.
macro_rules! restore {
    () => {
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; pop r11; pop r10; pop r9; pop r8; pop rax; pop rcx; pop rdx; \
         pop rsi; pop rdi"
    };
}

/// `swapgs`, if the host wants it and the frame that the CPU has pushed, with `cs` at this place, is ring 3's. Changes no register.
macro_rules! swap {
    ($cs:literal) => {
        concat!(
            ".if {swaps_gs}\n test byte ptr [rsp + ",
            $cs,
            "], 3\n jz 8f\n swapgs\n 8:\n .endif"
        )
    };
}

#[unsafe(naked)]
unsafe extern "C" fn breakpoint_entry<E: EngineRef>() {
    naked_asm!(
        swap!("8"),
        // The copy of the CPU's frame, ss first. The stack pointer moves with each push, the distance stays.
        "push [rsp + 32]; push [rsp + 32]; push [rsp + 32]; push [rsp + 32]; push [rsp + 32]",
        "push 0",
        save!(),
        call!(),
        "jz 2f",
        restore!(),
        "lea rsp, [rsp + 8]",
        swap!("8"),
        "iretq",
        "2:",
        restore!(),
        "lea rsp, [rsp + 48]",
        swap!("8"),
        "jmp qword ptr [rip + {chain} + 8 * {vector}]",
        handler = sym breakpoint::<E>,
        chain = sym CHAIN,
        vector = const BP,
        swaps_gs = const E::SWAPS_GS as u8,
    )
}

/// A debug exception may come at any instruction of ring 0, also before its `swapgs`: this looks at GS base itself. R12: swapped.
#[unsafe(naked)]
unsafe extern "C" fn debug_entry<E: EngineRef>() {
    naked_asm!(
        "push 0",
        save!(),
        ".if {swaps_gs}",
        "xor r12d, r12d",
        "test byte ptr [rsp + 17 * 8], 3",
        "jnz 4f",
        "mov ecx, 0xc0000101",
        "rdmsr",
        "test edx, edx",
        "js 5f",
        "4:",
        "inc r12d",
        "swapgs",
        "5:",
        ".endif",
        call!(),
        ".if {swaps_gs}",
        "test r12d, r12d",
        "jz 6f",
        "swapgs",
        "6:",
        "test al, al",
        ".endif",
        "jz 2f",
        restore!(),
        "lea rsp, [rsp + 8]",
        "iretq",
        "2:",
        restore!(),
        "lea rsp, [rsp + 8]",
        "jmp qword ptr [rip + {chain} + 8 * {vector}]",
        handler = sym debug::<E>,
        chain = sym CHAIN,
        vector = const DB,
        swaps_gs = const E::SWAPS_GS as u8,
    )
}

#[unsafe(naked)]
unsafe extern "C" fn fault_entry<E: EngineRef, const VECTOR: u8>() {
    naked_asm!(
        swap!("8"),
        "push 0",
        save!(),
        call!(),
        restore!(),
        "lea rsp, [rsp + 8]",
        swap!("8"),
        "jmp qword ptr [rip + {chain} + 8 * {vector}]",
        handler = sym fault::<E>,
        chain = sym CHAIN,
        vector = const VECTOR,
        swaps_gs = const E::SWAPS_GS as u8,
    )
}

#[unsafe(naked)]
unsafe extern "C" fn coded_fault_entry<E: EngineRef, const VECTOR: u8>() {
    naked_asm!(
        swap!("16"),
        save!(),
        call!(),
        restore!(),
        swap!("16"),
        "jmp qword ptr [rip + {chain} + 8 * {vector}]",
        handler = sym fault::<E>,
        chain = sym CHAIN,
        vector = const VECTOR,
        swaps_gs = const E::SWAPS_GS as u8,
    )
}

/// The debug status register.
mod dr6 {
    use core::arch::asm;

    pub(super) fn read() -> u64 {
        let value;
        // SAFETY: reading DR6 in ring 0 has no effect (DR7.GD is the kernel's business and not set in a handler).
        unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub(super) fn write(value: u64) {
        // SAFETY: a status register: the value is what was read there, with bits cleared.
        unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}
