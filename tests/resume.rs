//! Every instruction of these functions, probed all at once, computes what it computes bare.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::arch::global_asm;

use bootimage::{println, symbols};
use engine::insn::{Insn, Refusal};
use engine::probe::{InsertError, PointError};
use test_support::{Registers, call_with, engine, insert, instructions, remove, targets};

bootimage::test_main! {
    tests: [
        every_instruction_does_what_it_does_bare,
        a_counted_call_pushes_wherever_the_stack_is,
        what_is_refused_is_refused_by_name,
    ]
}

targets! { TARGETS:
    conditions:
        "xor r8d, r8d"
        "jo 1f" "or r8, 1" "1: jno 1f" "or r8, 2" "1: jb 1f" "or r8, 4" "1: jae 1f" "or r8, 8"
        "1: je 1f" "or r8, 16" "1: jne 1f" "or r8, 32" "1: jbe 1f" "or r8, 64" "1:"
        "ret";
    more_conditions:
        "mov r8d, 0"
        "jno 1f" "lea r8, [r8 + 1]" "1: ja 1f" "lea r8, [r8 + 2]" "1: js 1f" "lea r8, [r8 + 4]" "1: jns 1f" "lea r8, [r8 + 8]"
        "1: jp 1f" "lea r8, [r8 + 16]" "1: jnp 1f" "lea r8, [r8 + 32]" "1: jl 1f" "lea r8, [r8 + 64]"
        "1: jge 1f" "lea r8, [r8 + 128]" "1: jle 1f" "lea r8, [r8 + 256]" "1: jg 1f" "lea r8, [r8 + 512]" "1:"
        "ret";
    loops:
        "and ecx, 3" "mov r8, rcx" "jrcxz 2f" "1: add r9, r8" "loop 1b"
        "2: mov ecx, 3" "3: dec r9" "loopne 3b" "mov ecx, 2" "4: xor r10d, r10d" "loope 4b"
        "mov rcx, rdx" "and ecx, 1" "jecxz 5f" "inc r11" "5: mov rcx, 0x500000001" "6: inc r10" "addr32 loop 6b"
        "ret";
    calls:
        "call 1f" "add rax, 1" "lea r8, [rip + 1f]" "call r8" "push r8" "call [rsp]" "pop r8"
        "call [rip + 3f]" "call fs:[3f]" "jmp 2f" "1: lea rax, [rax + rax * 2 + 5]" "ret" "2: ret"
        ".pushsection .rodata" ".balign 8" "3: .quad 1b" ".popsection";
    jumps:
        "lea r8, [rip + 1f]" "jmp r8" "ud2" "1: jmp [rip + 3f]" "2: jmp fs:[4f]" "5: .byte 0xeb, 0" "jmp 6f" "7: ret" "6: jmp 7b"
        ".pushsection .rodata" ".balign 8" "3: .quad 2b" "4: .quad 5b" ".popsection";
    stack:
        "push rax" "push 7" "push qword ptr [rsp]" "pop r8" "pop r9" "add r8, r9" "pop r9" "push rsp" "pop r10" "sub r10, rsp"
        "enter 16, 0" "mov [rbp - 8], rdx" "add rax, [rbp - 8]" "leave"
        "push rdx" "push rcx" "call 1f" "mov r11, rsp" "pop rcx" "sub r11, rsp" "ret"
        "1: mov rax, [rsp + 8]" "ret 8";
    flags:
        "pushfq" "pop r8" "and r8, ~0x100" "stc" "pushfq" "pop r9" "std" "cld" "cmc" "lahf" "push r8" "popfq" "pushfw" "popfw"
        "pushfq" "cli" "pushfq" "pop r10" "popfq"
        "ret";
    strings:
        "push rdi" "push rsi" "push rcx" "sub rsp, 64" "cld" "mov rdi, rsp" "mov ecx, 8" "rep stosq" "mov rdi, rsp" "lea rsi, [rsp + 3]"
        "mov ecx, 21" "rep movsb" "mov rdi, rsp" "mov ecx, 40" "repne scasb" "mov r8, rcx" "xor ecx, ecx" "rep movsb"
        "mov rsi, rsp" "lodsw" "mov r9, rsi" "sub r9, rsp" "mov r10, [rsp + 16]" "add rsp, 64" "pop rcx" "pop rsi" "pop rdi"
        "ret";
    memory:
        "mov r8, [rip + 1f]" "add [rip + 1f], rdx" "lock xadd [rip + 1f], r8" "mov byte ptr [rip + 1f], 3" "xchg [rip + 1f], r9"
        "lea r10, [rip + 1f]" "lea r11, [rip + 2f]" "sub r11, r10" "movzx r10d, byte ptr [rip + 2f]" "cmp qword ptr [rip + 2f], 77"
        "lea r10, [rip]" "sub r10, r10" "and qword ptr [rip + 1f], 0"
        "ret" ".pushsection .data" ".balign 8" "1: .quad 5" "2: .quad 77" ".popsection";
    arithmetic:
        "mov r8, rdx" "or rcx, 1" "mul rcx" "div rcx" "imul r8, r8, 1234567" "bswap r8" "shld r8, rdx, 5" "popcnt r9, r8" "cmovs r10, r9"
        "setb r11b" "sbb rdx, rdx" "adc rax, 0" "ror rax, 17" "bt rax, 3" "movsx r9, r8b" "cqo" "neg rax" "cmpxchg r8, r9"
        "xchg rax, r8" "nop" ".byte 0x66, 0x0f, 0x1f, 0x44, 0, 0" "endbr64" "pause"
        "ret";
    privileged:
        "mov r8, cr0" "mov r9, cr3" "mov cr3, r9" "mov r10, dr7" "mov ecx, 0xc0000080" "rdmsr" "wrmsr" "xor ecx, ecx" "mov eax, 1" "push rbx" "cpuid"
        "and ebx, 0" "pop rbx" "xor eax, eax" "mov rdx, 0x80" "out dx, al" "str r11w" "smsw eax" "sub rsp, 16" "sidt [rsp]" "mov rdx, [rsp + 2]"
        "add rsp, 16" "clts" "wbinvd"
        "ret";
}

targets! { FAR:
    far_transfers:
        "lea rax, [rip + 1f]" "push 8" "push rax" ".byte 0x48; retf" "nop" "1: .byte 0x48; call fword ptr [rip + 5f]" "jmp 3f"
        "2: mov r8, [rsp]" "mov r9, [rsp + 8]" ".byte 0x48; retf" "3: .byte 0x48; jmp fword ptr [rip + 6f]" "nop"
        "4: lea rax, [rip + 7f]" "push 77" "push 8" "push rax" ".byte 0x48; retf 8" "nop" "7: ret"
        ".pushsection .data" ".balign 8" "5: .quad 2b; .word 8" "6: .quad 4b; .word 8" ".popsection";
    interrupt_return:
        "mov rdx, rsp" "mov eax, ss" "push rax" "push rdx" "pushfq" "mov eax, cs" "push rax" "lea rax, [rip + 1f]" "push rax" "iretq" "nop"
        "1: sub rdx, rsp" "ret";
    ports_and_state:
        "push rdi" "push rsi" "push rbp" "mov rbp, rsp" "sub rsp, 0x1400" "and rsp, -64" "mov eax, 3" "xor edx, edx" "fxsave [rsp]" "fxrstor [rsp]"
        "mov rdi, rsp" "mov ecx, 5" "mov edx, 0x80" "rep insb" "mov rsi, rsp" "mov ecx, 3" "rep outsw" "xor ecx, ecx" "rep insd" "rep movsb" "in al, dx"
        "xor eax, eax" "mov rsp, rbp" "pop rbp" "pop rsi" "pop rdi"
        "ret";
    prefixes:
        ".byte 0xf2; lock add [rip + 1f], rdx" ".byte 0xf3; lock sub [rip + 1f], rdx" ".byte 0x66, 0x66, 0x2e; nop" ".byte 0x3e; add eax, 1"
        ".byte 0x66, 0x66, 0xf3, 0x0f, 0x1e, 0xfa" ".byte 0x48, 0x66; add ax, cx" ".byte 0xf3; xor r8d, r8d" ".byte 0x0f, 0x1f, 0x44, 0, 0"
        ".byte 0x67; lea r9, [rdx + rcx]" ".byte 0x26, 0x36, 0x48; mov r10, rdx" "xchg [rip + 1f], r8" "cmpxchg16b [rip + 1f]" "lahf"
        "mov qword ptr [rip + 1f], 0" "xor edx, edx" "pxor xmm0, xmm0" "movq rax, xmm0"
        "ret" ".pushsection .data" ".balign 16" "1: .quad 0, 0" ".popsection";
}

core::arch::global_asm!(
    // Its first instruction begins three bytes before the end of a page.
    ".pushsection .text.targets.page, \"axR\", @progbits",
    ".balign 4096",
    ".skip 4093, 0xcc",
    ".type target_across_pages, @function",
    "target_across_pages:",
    "    movabs rax, 0x1122334455667788",
    "    mov r8, [rip + 1f]",
    "    ret",
    ".size target_across_pages, . - target_across_pages",
    ".popsection",
    ".pushsection .rodata",
    ".balign 8",
    "1: .quad 99",
    ".popsection",
);

/// Numbers that look random (SplitMix64).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ *seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

const RUNS: u64 = 300;

/// CF PF AF ZF SF OF; IF stays on.
const FLAGS: u64 = 0x8d5;

fn results(function: u64) -> Vec<Registers> {
    let mut seed = 1;
    (0..RUNS)
        .map(|run| {
            // Every combination of the flags comes up; wild numbers and small ones.
            let mut word = || random(&mut seed) >> (8 * (run % 8));
            let mut registers = Registers {
                rax: word(),
                rcx: word(),
                rdx: word(),
                rsi: word(),
                rdi: word(),
                r8: word(),
                r9: word(),
                r10: word(),
                r11: word(),
                rflags: random(&mut seed) & FLAGS | 0x202,
            };
            // SAFETY: the functions keep what the calling convention lets the callee keep, and touch only memory of their own.
            unsafe { call_with(function, &mut registers) };
            registers
        })
        .collect()
}

fn every_instruction_does_what_it_does_bare() {
    let mut kinds = [0; 4];
    for name in TARGETS.iter().chain(FAR).chain(&["target_across_pages"]) {
        let entry = symbols::function_named(name).unwrap().code.start;
        let places = instructions(name);
        // The first run settles what the function keeps in memory.
        results(entry);
        let bare = results(entry);
        assert!(results(entry) == bare, "{name} is not deterministic");
        // One that is never executed, and cannot be probed, is in `jumps`.
        let places: Vec<u64> = places
            .into_iter()
            .filter(|place| refusal(*place) != Some(Refusal::Undefined))
            .collect();
        insert(&format!("every{}", places.len()), &places).unwrap();
        let probed = results(entry);
        let last = remove(100);
        for (run, (bare, probed)) in bare.iter().zip(&probed).enumerate() {
            assert_eq!(bare, probed, "{name}, run {run}");
        }
        assert!(results(entry) == bare, "{name}, after the probes were removed");
        let mut hits = 0;
        for probe in &last {
            kinds[probe.resume as usize] += 1;
            hits += probe.hits;
            assert_eq!(
                (probe.missed, probe.faulted, probe.late),
                (0, 0, 0),
                "{name} at {:#x}",
                probe.address
            );
        }
        assert!(hits > RUNS, "{name} was hit {hits} times");
    }
    println!("({} copied, {} emulated, {} stepped) ", kinds[1], kinds[2], kinds[3]);
    assert!(kinds[1] > 100 && kinds[2] > 50, "both ways are covered");
    assert!(engine().locals(b"kernel", 100, &mut []).is_none());
}

global_asm!(
    ".pushsection .text.targets, \"axR\", @progbits",
    ".globl target_call_on",
    ".type target_call_on, @function",
    "target_call_on:",
    "    mov r8, rsp",
    "    mov rsp, rdi",
    "    call 1f",
    "    mov rsp, r8",
    "    ret",
    "1:  mov rax, [rsp]",
    "    mov rdx, rsp",
    "    ret",
    ".size target_call_on, . - target_call_on",
    ".popsection",
);

#[derive(Debug, PartialEq, Eq)]
#[repr(C)]
struct Called {
    return_address: u64,
    stack_pointer: u64,
}

unsafe extern "C" {
    /// Makes a call on another stack.
    fn target_call_on(stack: u64) -> Called;
}

/// What a trap's entry leaves between its frame and the stack pointer depends on where that is, and any of it may be in another page. The
/// test's program only counts, so that a `call` takes the express way where it can.
fn a_counted_call_pushes_wherever_the_stack_is() {
    const PAGE: usize = 4096;
    const FILL: u8 = 0x5a;
    #[repr(align(4096))]
    struct Stack([u8; 4 * PAGE]);
    let mut stack = Box::new(Stack([FILL; 4 * PAGE]));
    let boundary = stack.0.as_ptr() as usize + 2 * PAGE;
    let mut call = |pointer: usize| {
        stack.0.fill(FILL);
        // SAFETY: two pages below the place are for this alone, and what the function does to it it undoes.
        let called = unsafe { target_call_on(pointer as u64) };
        let above = pointer - 8 - stack.0.as_ptr() as usize;
        (called, stack.0[above..].to_vec())
    };
    let place = instructions("target_call_on")[2];
    let pointers = boundary - 300..boundary + 300;
    let bare: Vec<_> = pointers.clone().map(&mut call).collect();
    insert("entry", &[place]).unwrap();
    let probed: Vec<_> = pointers.clone().map(&mut call).collect();
    let last = remove(2);
    assert_eq!(last[0].hits, pointers.len() as u64);
    for (bare, probed) in bare.iter().zip(&probed) {
        assert_eq!(bare.0, probed.0);
        assert!(
            bare.1 == probed.1,
            "what is on the stack at {:#x} differs",
            bare.0.stack_pointer
        );
    }
}

fn refusal(place: u64) -> Option<Refusal> {
    let mut bytes = [0; 15];
    bootimage::fault::probe_read(place, &mut bytes).unwrap();
    Insn::decode(&bytes).unwrap().resume().err()
}

global_asm!(
    ".pushsection .text.targets, \"axR\", @progbits",
    ".type target_refused, @function",
    "target_refused:",
    "int3",
    "int 0x80",
    ".byte 0xf1", // int1
    "syscall",
    "sysenter",
    "sysretq",
    "sysexit",
    "ud1 eax, eax",
    "vmfunc",
    "rsm",
    "enclu",
    ".byte 0x66, 0xe9, 0, 0, 0, 0",
    ".byte 0x66, 0xc7, 0xf8, 0, 0", // xbegin with 16 bits
    // What comes next cannot be carried out in their shadow.
    "mov ss, ax",
    "sti",
    "mov ss, ax",
    "mov ss, ax",
    "int3",
    "mov ss, ax",
    ".size target_refused, . - target_refused",
    ".popsection",
);

fn what_is_refused_is_refused_by_name() {
    let expected = [
        Refusal::Breakpoint,
        Refusal::SoftwareInterrupt,
        Refusal::SoftwareInterrupt,
        Refusal::SystemCall,
        Refusal::SystemCall,
        Refusal::SystemReturn,
        Refusal::SystemReturn,
        Refusal::Undefined,
        Refusal::ExecutionMode,
        Refusal::ExecutionMode,
        Refusal::Enclave,
        Refusal::VendorDependent,
        Refusal::VendorDependent,
        Refusal::InterruptShadow,
        Refusal::InterruptShadow,
        Refusal::InterruptShadow,
        Refusal::InterruptShadow,
        Refusal::Breakpoint,
        Refusal::InterruptShadow,
    ];
    let places = instructions("target_refused");
    assert_eq!(places.len(), expected.len());
    for (place, expected) in places.iter().zip(expected) {
        match insert("every1", &[*place]) {
            Err(InsertError::Point {
                error: PointError::Instruction { refusal, .. },
                ..
            }) => assert_eq!(refusal, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}
