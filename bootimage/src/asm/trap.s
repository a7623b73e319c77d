# Entry and exit of every trap: one stub of 16 bytes for each vector, one common path, one frame layout (struct TrapFrame).

.section .noinstr.text, "ax", @progbits

# The CPU has pushed ss, rsp, rflags, cs, rip and, for some vectors, an error code.
.balign 16
.global trap_stubs
trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector == 3
    jmp breakpoint_stub
    .else
    # Vectors that push an error code (SDM volume 3, table 7-1; AMD: 29, 30).
    .if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    push $0
    .endif
    push %rdi
    mov $vector, %edi
    jmp trap_common
    .endif
    .set vector, vector + 1
.endr

# #BP. An exit may emulate a call or a push, which writes just below the interrupted stack pointer: where the CPU has put what it
# returns with. For ring 0, which stays on that stack, work on a copy further down. The stack pointer moves with each push, the distance
# stays.
.balign 16
breakpoint_stub:
    testb $3, 8(%rsp)
    jnz 1f
    pushq 32(%rsp)
    pushq 32(%rsp)
    pushq 32(%rsp)
    pushq 32(%rsp)
    pushq 32(%rsp)
1:  push $0
    push %rdi
    mov $3, %edi
    jmp trap_common

.balign 16
trap_common:
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld

    # GS base must be the kernel's. It is not when the trap came from ring 3; nor may it be when #DB, NMI, #DF or #MC hit a ring 0
    # path just before its swapgs, so those look at the register itself: the kernel's per-CPU areas are in the upper half.
    # EBX = 1: this entry swapped although it came from ring 0.
    xor %ebx, %ebx
    testb $3, 17 * 8(%rsp)
    jnz 1f
    cmp $18, %edi
    ja 2f
    mov $(1 << 1) | (1 << 2) | (1 << 8) | (1 << 18), %eax
    bt %edi, %eax
    jnc 2f
    mov $0xc0000101, %ecx
    rdmsr
    test %edx, %edx
    js 2f
    mov $1, %ebx
1:  swapgs
2:
    mov %rsp, %rsi
    mov %rsp, %r12
    and $-16, %rsp
    call trap_dispatch
    mov %r12, %rsp

    # The handler may have changed the privilege level to return to.
    test %ebx, %ebx
    jnz 3f
    testb $3, 17 * 8(%rsp)
    jz 4f
3:  swapgs
4:
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $8, %rsp
    iretq
.text
