//! Code to be probed, in assembly, so that it is known to the byte.

use std::arch::global_asm;

macro_rules! victim {
    ($name:ident $(($($argument:ident),*))? { $($line:literal)* }) => {
        global_asm!(
            ".text",
            ".p2align 4",
            concat!(".globl ", stringify!($name)),
            concat!(".type ", stringify!($name), ", @function"),
            concat!(stringify!($name), ":"),
            $($line,)*
            concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
        );
        unsafe extern "sysv64" { pub safe fn $name($($($argument: u64),*)?) -> u64; }
    };
}

global_asm!(
    ".data",
    ".p2align 3",
    "victim_constant: .quad 0x1122334455667788",
    "victim_scratch: .zero 256",
    ".section .data.rel.local, \"aw\"",
    ".p2align 3",
    "victim_table: .quad victim_callee, victim_tail",
    ".text",
);

victim!(victim_add (a, b) {
    "lea rax, [rdi + rsi]"
    "add rax, 1"
    "ret"
});

victim!(victim_arithmetic (a, b) {
    "mov rax, rdi"
    "add rax, [rip + victim_constant]"
    "adc rax, rsi"
    "lea rcx, [rip + victim_scratch]"
    "mov [rcx + 8], rax"
    "mov dword ptr [rip + victim_scratch + 16], 0x55"
    "xor dword ptr [rip + victim_scratch + 16], esi"
    "mov edx, [rip + victim_scratch + 16]"
    "imul rdx, [rcx + 8], 77"
    "cmp rdi, rsi"
    "cmovb rax, rdx"
    "setg dl"
    "movzx edx, dl"
    "rcl rax, 3"
    "bswap rax"
    "lock xadd [rip + victim_scratch + 24], rdx"
    "xchg rax, rdx"
    "pxor xmm0, xmm0"
    "movq xmm1, [rip + victim_constant]"
    "paddq xmm0, xmm1"
    "movq rcx, xmm0"
    "add rax, rcx"
    "add rax, rdx"
    "mov qword ptr [rip + victim_scratch + 24], 0"
    "ret"
});

victim!(victim_branches (a, b) {
    "endbr64"
    "push rbx"
    "xor eax, eax"
    "mov ebx, edi"
    "mov ecx, edi"
    "and ecx, 15"
    "jrcxz 2f"
    "1:"
    "add rax, rsi"
    "loop 1b"
    "2:"
    "test bl, 1"
    "jz 3f"
    "call victim_callee"
    "jmp 4f"
    "3:"
    "lea rdx, [rip + victim_callee]"
    "call rdx"
    "4:"
    "push 0x1234"
    "push rsi"
    "call 7f"
    "call [rip + victim_table]"
    "mov ecx, 5"
    "5:"
    "sub rax, rcx"
    "cmp rax, rsi"
    "loopne 5b"
    "mov ecx, 3"
    "6:"
    "inc rax"
    "test ecx, ecx"
    "loope 6b"
    "mov rcx, 0x100000000"
    "jecxz 8f"
    "ud2"
    "7:"
    "add rax, [rsp + 8]"
    "ret 16"
    "8:"
    "mov rcx, 0x300000002"
    "9:"
    "inc rax"
    "addr32 loop 9b"
    "add rax, rcx"
    "pop rbx"
    "nop"
    ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00"
    "jmp [rip + victim_table + 8]"
});

victim!(victim_callee (a, b) {
    "add rax, 7"
    "jo 1f"
    "js 1f"
    "jp 1f"
    "rol rax, 1"
    "1:"
    "ret"
});

victim!(victim_tail (a, b) {
    "not rax"
    "jnb 1f"
    "jnbe 1f"
    "jnl 1f"
    "jnle 1f"
    "neg rax"
    "1:"
    "repz ret"
});

victim!(victim_flags (a, b) {
    "cmp rdi, rsi"
    "pushfq"
    "pop rax"
    "and eax, 0xcd5"
    "push rax"
    "or qword ptr [rsp], 0x200c95" // ID, OF, DF and others
    "popfq"
    "pushfq"
    "cld"
    "pop rcx"
    "and ecx, 0x204cd5"
    "shl rcx, 32"
    "or rax, rcx"
    "pushfw"
    "popfw"
    "pushfw"
    "pop dx"
    "movzx edx, dx"
    "and edx, 0xcd5"
    "stc"
    "cmc"
    "lahf"
    "add rax, rdx"
    "push 0x202"
    "popfq"
    "ret"
});

victim!(victim_strings (a, b) {
    "lea rdi, [rip + victim_scratch + 64]"
    "lea rsi, [rip + victim_constant]"
    "mov ecx, 8"
    "rep movsb"
    "xor ecx, ecx"
    "rep stosq"
    "mov ecx, 4"
    "mov eax, 0x44332211"
    "rep stosd"
    "lea rdi, [rip + victim_scratch + 64]"
    "mov al, 0x44"
    "mov ecx, 32"
    "repne scasb"
    "mov eax, ecx"
    "std"
    "lodsb"
    "cld"
    "ret"
});

// The base of GS is 0 in a Linux process. The engine does not know it, and has the CPU step the copy.
victim!(victim_segments (a, b) {
    "mov rax, rdi"
    "call gs:[rip + victim_table]"
    "call gs:[rip + victim_table]"
    "add rax, rsi"
    "jmp gs:[rip + victim_table + 8]"
});

// What user mode may do of it: loads of SS with all kinds of instructions behind them, `iret`, far `ret`.
victim!(victim_transfers (a, b) {
    "mov rax, rdi"
    "mov ecx, ss"
    "mov ss, ecx"
    "add rax, 1"
    "mov ss, ecx"
    "call 1f"
    "mov ss, ecx"
    "jmp 2f"
    "1:"
    "mov rdx, [rsp]"
    "lea r8, [rip + victim_transfers]"
    "sub rdx, r8"
    "add rax, rdx"
    "mov ss, ecx"
    "ret"
    "2:"
    "lea r8, [rip + victim_callee]"
    "mov ss, ecx"
    "call r8"
    "mov ss, ecx"
    "call gs:[rip + victim_table]"
    "cmp rdi, rsi"
    "mov ss, ecx"
    "jb 3f"
    "add rax, 5"
    "3:"
    "mov ss, ecx"
    "pushfq"
    "mov ss, ecx"
    "popfq"
    "adc rax, 0"
    "mov r8, rsp"
    "push rcx"
    "push r8"
    "pushfq"
    "mov edx, cs"
    "push rdx"
    "lea rdx, [rip + 4f]"
    "push rdx"
    "iretq"
    "4:"
    "mov edx, cs"
    "push rdx"
    "lea rdx, [rip + 5f]"
    "push rdx"
    ".byte 0x48, 0xcb" // retf
    "5:"
    "add rax, rsi"
    "ret"
});

victim!(victim_load (pointer) {
    "nop"
    "mov rax, [rdi]"
    "inc rax"
    "ret"
});

victim!(victim_call_through (pointer) {
    "call [rdi]"
    "ret"
});

victim!(victim_divide (dividend, divisor) {
    "mov rax, rdi"
    "xor edx, edx"
    "div rsi"
    "ret"
});

// CLAC is undefined in user mode (SDM volume 2).
victim!(victim_undefined () {
    "mov eax, 1"
    "clac"
    "ret"
});

// A store to a missing page, then a load of another.
victim!(victim_store (pointer, value) {
    "mov [rdi], rsi"
    "mov rax, rsi"
    "ret"
});
