// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Probes on `ud2`: BUG and WARN.
 *
 * The kernel's handler of #UD looks for `ud2` in text, and the address up in its table of bugs, before any notifier is called
 * (arch/x86/kernel/traps.c, handle_bug()). So nothing may stand in its place, and nothing need, since it is a trap by itself: both
 * are done by report_bug(), at whose entry is a sentry. What it goes on to print is what it would print without a probe.
 */
#include <asm/bug.h>
#include <linux/bug.h>
#include <linux/kprobes.h>
#include <linux/ptrace.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "shim.h"

/* In the place of report_bug() when a program has sent the CPU elsewhere: its caller goes on behind the ud2. */
static enum bug_trap_type pass_over(unsigned long address, struct pt_regs *regs)
{
	return BUG_TRAP_TYPE_WARN;
}
NOKPROBE_SYMBOL(pass_over);

/* report_bug(address, regs) */
void dprobes_on_report_bug(struct pt_regs *call)
{
	struct pt_regs *regs = (struct pt_regs *)call->si;
	bool elsewhere;

	if (user_mode(regs) || regs->ip != call->di)
		return;
	elsewhere = dprobes_on_undefined((struct dprobes_trap_frame *)regs);
	if (elsewhere) {
		/* The caller adds this. */
		regs->ip -= COMPAT_WARNING_SKIPS;
		call->ip = (unsigned long)pass_over;
	}
}
NOKPROBE_SYMBOL(dprobes_on_report_bug);

bool dprobes_is_ud2(unsigned long address)
{
	u16 bytes;

	return !copy_from_kernel_nofault(&bytes, (void *)address, sizeof(bytes)) && bytes == INSN_UD2;
}
