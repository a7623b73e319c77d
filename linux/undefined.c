// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Probes on `ud2` and `ud1`: BUG and WARN.
 *
 * The kernel's handler of #UD looks for `ud2` in text, and the address up in its table of bugs, before any notifier is called
 * (arch/x86/kernel/traps.c, handle_bug()). So nothing may stand in its place, and nothing need, since it is a trap by itself: both
 * are done by report_bug(), at whose entry is a sentry. What it goes on to print is what it would print without a probe.
 *
 * Later kernels have a WARN() with a text as a static call of a function that is never called: what is patched in is a `ud1` whose register has the
 * entry of the table of bugs (arch/x86/include/asm/bug.h), and it is reported by report_bug_entry(). There the same is done.
 */
#include <asm/bug.h>
#include <linux/bug.h>
#include <linux/kprobes.h>
#include <linux/ptrace.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "shim.h"

/* In the place of report_bug() when a program has sent the CPU elsewhere: its caller goes on as behind a warning. */
static enum bug_trap_type pass_over(unsigned long first, struct pt_regs *regs)
{
	return BUG_TRAP_TYPE_WARN;
}
NOKPROBE_SYMBOL(pass_over);

/* An instruction is about to be reported, with the registers as it has left them: the second argument of both functions. */
static void report(struct pt_regs *call, struct pt_regs *regs)
{
	if (dprobes_on_undefined((struct dprobes_trap_frame *)regs)) {
		/* The caller adds this. */
		regs->ip -= COMPAT_WARNING_SKIPS;
		call->ip = (unsigned long)pass_over;
	}
}
NOKPROBE_SYMBOL(report);

/* report_bug(address, regs) */
void dprobes_on_report_bug(struct pt_regs *call)
{
	struct pt_regs *regs = (struct pt_regs *)call->si;

	if (!user_mode(regs) && regs->ip == call->di)
		report(call, regs);
}
NOKPROBE_SYMBOL(dprobes_on_report_bug);

/* report_bug_entry(entry, regs) */
void dprobes_on_report_bug_entry(struct pt_regs *call)
{
	struct pt_regs *regs = (struct pt_regs *)call->si;

	if (!user_mode(regs))
		report(call, regs);
}
NOKPROBE_SYMBOL(dprobes_on_report_bug_entry);

/* ud1 (%edx), %rdi */
static const u8 warning[] = { 0x67, 0x48, 0x0f, 0xb9, 0x3a };

bool dprobes_is_reported(unsigned long address, bool *sentry)
{
	u8 bytes[sizeof(warning)];
	u16 ud2;

	if (!copy_from_kernel_nofault(&ud2, (void *)address, sizeof(ud2)) && ud2 == INSN_UD2) {
		*sentry = dprobes_sentry_is_set(DPROBES_SENTRY_UNDEFINED);
		return true;
	}
	if (dprobes_symbols.report_bug_entry &&
	    !copy_from_kernel_nofault(bytes, (void *)address, sizeof(bytes)) && !memcmp(bytes, warning, sizeof(bytes))) {
		*sentry = dprobes_sentry_is_set(DPROBES_SENTRY_WARNING);
		return true;
	}
	return false;
}
