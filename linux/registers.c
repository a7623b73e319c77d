// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Registers that are not in the frame of a hit: those of the current task in user mode, and model-specific ones.
 */
#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/ptrace.h>
#include <linux/errno.h>
#include <linux/kprobes.h>
#include <linux/sched.h>

#include "shim.h"

/*
 * They are at the top of the task's kernel stack, where every entry from user mode has put them. Kernel threads, and a task that has not been
 * in user mode yet, have no user code segment there.
 *
 * During a system call rax is what the call will return, -ENOSYS at first; rcx and r11 are what SYSCALL has left in them.
 */
static struct pt_regs *user_frame(void)
{
	struct pt_regs *regs = task_pt_regs(current);

	if ((current->flags & (PF_KTHREAD | PF_IO_WORKER)) || !user_mode(regs))
		return NULL;
	return regs;
}
NOKPROBE_SYMBOL(user_frame);

int dprobes_host_user_registers(struct dprobes_trap_frame *frame)
{
	const struct pt_regs *regs = user_frame();

	if (!regs)
		return -ESRCH;
	/* trap.c shows that it is struct pt_regs under another name. */
	*frame = *(const struct dprobes_trap_frame *)regs;
	return 0;
}
NOKPROBE_SYMBOL(dprobes_host_user_registers);

/* What a debugger may change as well; the way back to user mode copes with any value (SYSRET is not taken unless it is safe). */
int dprobes_host_set_user_registers(const struct dprobes_trap_frame *frame)
{
	struct pt_regs *regs = user_frame();

	if (!regs)
		return -ESRCH;
	regs->r15 = frame->r15;
	regs->r14 = frame->r14;
	regs->r13 = frame->r13;
	regs->r12 = frame->r12;
	regs->bp = frame->rbp;
	regs->bx = frame->rbx;
	regs->r11 = frame->r11;
	regs->r10 = frame->r10;
	regs->r9 = frame->r9;
	regs->r8 = frame->r8;
	regs->ax = frame->rax;
	regs->cx = frame->rcx;
	regs->dx = frame->rdx;
	regs->si = frame->rsi;
	regs->di = frame->rdi;
	regs->ip = frame->rip;
	regs->sp = frame->rsp;
	return 0;
}
NOKPROBE_SYMBOL(dprobes_host_set_user_registers);

/* The kernel's own way, without its tracepoint, which a hit must not run into. */
int dprobes_host_msr(u32 number, u64 *value)
{
	u32 low, high;
	int err;

	asm volatile("1:	rdmsr\n"
		     "	xorl %[err], %[err]\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_RDMSR_SAFE, %[err])
		     : [err] "=r" (err), "=a" (low), "=d" (high)
		     : "c" (number));
	*value = low | (u64)high << 32;
	return err;
}
NOKPROBE_SYMBOL(dprobes_host_msr);
