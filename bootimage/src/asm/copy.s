# size_t fault_copy(void *to [rdi], const void *from [rsi], size_t len [rdx]): bytes not copied. The one instruction that may fault has an
# entry in the table of fix-ups; RCX counts what is left when it does.
.text
.global fault_copy
.type fault_copy, @function
fault_copy:
    cld
    mov %rdx, %rcx
1:  rep movsb
2:  mov %rcx, %rax
    ret
.size fault_copy, . - fault_copy

.section __ex_table, "a", @progbits
    .quad 1b, 2b
.text
