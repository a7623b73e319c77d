/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The module's own entry for breakpoint exceptions, which gate.c puts in front of the kernel's (trap=idt).
 *
 * A breakpoint of kernel mode comes with interrupts off, on the stack of the interrupted code. An emulated call writes below that code's
 * stack pointer, where the CPU has put its frame; so the registers are built from a copy of the frame further down. What is not the engine's
 * goes on to the kernel's entry as if nothing had been here.
 */
#include <asm/asm.h>
#include <asm/ibt.h>
#include <asm/nospec-branch.h>
#include <asm/smap.h>
#include <asm/unwind_hints.h>
#include <linux/linkage.h>

	.text
SYM_CODE_START(dprobes_breakpoint_entry)
	UNWIND_HINT_IRET_REGS
	ENDBR
	testb	$3, 8(%rsp)
	jnz	.Lnot_ours
	ASM_CLAC
	cld
	/* ss, rsp, flags, cs, ip: each push moves the next one to the same distance. */
	.rept 5
	pushq	4*8(%rsp)
	.endr
	pushq	$-1			/* no system call */
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	UNWIND_HINT_REGS
	movq	%rsp, %rdi
	call	dprobes_on_breakpoint
	testb	%al, %al
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	leaq	8(%rsp), %rsp
	UNWIND_HINT_IRET_REGS
	jz	.Lpassed_on
	iretq
.Lpassed_on:
	leaq	5*8(%rsp), %rsp		/* the copy */
	UNWIND_HINT_IRET_REGS
.Lnot_ours:
	ANNOTATE_RETPOLINE_SAFE
	jmp	*dprobes_kernel_entry(%rip)
SYM_CODE_END(dprobes_breakpoint_entry)

	.section .note.GNU-stack, "", @progbits
