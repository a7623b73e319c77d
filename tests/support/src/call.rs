//! Calling assembly functions with registers of the test's choice.

use core::arch::global_asm;

/// The registers a function is called with, and those it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers of the same name")]
pub struct Registers {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub rflags: u64,
}

global_asm!(
    // Calls the function in rdi with the registers at rsi, and stores what it leaves there.
    ".globl call_with",
    ".type call_with, @function",
    "call_with:",
    "    push rbx; push rbp; push r12; push r13; push r14; push r15",
    "    push rsi",
    "    mov r15, rdi",
    "    push qword ptr [rsi + 72]",
    "    mov rax, [rsi]; mov rcx, [rsi + 8]; mov rdx, [rsi + 16]",
    "    mov rdi, [rsi + 32]; mov r8, [rsi + 40]; mov r9, [rsi + 48]; mov r10, [rsi + 56]; mov r11, [rsi + 64]",
    "    mov rsi, [rsi + 24]",
    "    popfq",
    "    call r15",
    "    pushfq",
    "    pop r15",
    "    xchg rsi, [rsp]",
    "    mov [rsi], rax; mov [rsi + 8], rcx; mov [rsi + 16], rdx; mov [rsi + 32], rdi",
    "    mov [rsi + 40], r8; mov [rsi + 48], r9; mov [rsi + 56], r10; mov [rsi + 64], r11; mov [rsi + 72], r15",
    "    pop rax",
    "    mov [rsi + 24], rax",
    "    pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "    cld",
    "    ret",
    ".size call_with, . - call_with",
);

unsafe extern "C" {
    /// Calls a function with these registers, flags included, and stores what it leaves.
    ///
    /// # Safety
    /// The function must keep rbx, rbp, rsp and r12 to r15, return, and touch only memory that it may.
    pub fn call_with(function: u64, registers: &mut Registers);
}

/// Assembly functions `target_NAME` from lines, and a constant with their names.
#[macro_export]
macro_rules! targets {
    ($names:ident: $($name:ident: $($line:literal)*;)*) => {
        // Nothing refers to them: the linker must be told to keep them.
        core::arch::global_asm!(".pushsection .text.targets, \"axR\", @progbits", $(
            concat!(".globl target_", stringify!($name)),
            concat!(".type target_", stringify!($name), ", @function"),
            concat!("target_", stringify!($name), ":"),
            $($line,)*
            concat!(".size target_", stringify!($name), ", . - target_", stringify!($name)),
        )* ".popsection");
        const $names: &[&str] = &[$(concat!("target_", stringify!($name))),*];
    };
}
