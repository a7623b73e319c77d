# size_t fault_copy(void *to [rdi], const void *from [rsi], size_t len [rdx]): bytes not copied. The one instruction that may fault has an
# entry in the table of fix-ups; RCX counts what is left when it does.
# Emulations of the engine come here: not to be probed.
.section .noinstr.text, "ax", @progbits
.global fault_copy
.type fault_copy, @function
fault_copy:
    cld
    mov %rdx, %rcx
1:  rep movsb
2:  mov %rcx, %rax
    ret
.size fault_copy, . - fault_copy

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
    .quad 1b, 2b
    .quad 3b, 4b
    .quad 5b, 6b
.text
