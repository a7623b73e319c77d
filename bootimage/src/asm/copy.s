# size_t NAME(void *to [rdi], const void *from [rsi], size_t len [rdx]): bytes not copied. The one instruction that may fault has an entry in
# the table of fix-ups; RCX counts what is left when it does.
.macro copy_routine name
.global \name
.type \name, @function
\name:
    cld
    mov %rdx, %rcx
9:  rep movsb
8:  mov %rcx, %rax
    ret
.size \name, . - \name
.pushsection __ex_table, "a", @progbits
    .quad 9b, 8b
.popsection
.endm

# The engine's own, which is not to be probed: the `ret` of a probed routine is emulated by reading the stack, and what reads it would run into
# that breakpoint again, without end, whether its hits are counted as missed or not.
.section .noinstr.text, "ax", @progbits
copy_routine fault_copy_in_a_hit

# Everybody else's.
.text
copy_routine fault_copy

# bool fault_or_zero(void *byte [rdi]): false if it cannot be written. The store is a locked one of what is there.
.global fault_or_zero
.type fault_or_zero, @function
fault_or_zero:
    xor %eax, %eax
3:  lock orb $0, (%rdi)
    inc %eax
4:  ret
.size fault_or_zero, . - fault_or_zero

# bool fault_rdmsr(u32 number [edi], u64 *value [rsi]): false if the CPU has no such register.
.global fault_rdmsr
.type fault_rdmsr, @function
fault_rdmsr:
    mov %edi, %ecx
.global fault_rdmsr_access
fault_rdmsr_access:
5:  rdmsr
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, (%rsi)
    mov $1, %eax
    ret
6:  xor %eax, %eax
    ret
.size fault_rdmsr, . - fault_rdmsr

.section __ex_table, "a", @progbits
    .quad 3b, 4b
    .quad 5b, 6b
.text
