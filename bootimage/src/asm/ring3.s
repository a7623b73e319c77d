# u64 ring3_enter(entry [rdi], stack [rsi], argument [rdx], ring-0 stack slot of the TSS [rcx]). Saves what the ABI wants kept on this
# stack, has traps from ring 3 start below it, and goes to ring 3. ring3_return is where it comes back, with the same stack pointer.
.section .noinstr.text, "ax", @progbits
.global ring3_enter, ring3_return
.type ring3_enter, @function
ring3_enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    cli
    mov %rsp, (%rcx)
    push ${user_ds}
    push %rsi
    push $0x202
    push ${user_cs}
    push %rdi
    mov %rdx, %rdi
    xor %eax, %eax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    xor %esi, %esi
    xor %ebp, %ebp
    xor %r8d, %r8d
    xor %r9d, %r9d
    xor %r10d, %r10d
    xor %r11d, %r11d
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
    swapgs
    iretq
.size ring3_enter, . - ring3_enter

ring3_return:
    popfq
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.text
