// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Functions of the kernel that come to the module first: the engine's own breakpoints at their entries.
 *
 * Where one cannot be, the places that rely on it are not probed, as jump labels, static calls and BUGs are not by kprobes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>

#include "shim.h"

struct sentry {
	const char *function;
	/*
	 * With the registers at the function's entry, in whatever context it is called, with interrupts off. `ip` may be changed, to have
	 * something else called.
	 */
	void (*entered)(struct pt_regs *regs);
	bool set;
};

static struct sentry sentries[] = {
	[DPROBES_SENTRY_UNDEFINED]	= { "report_bug", dprobes_on_report_bug },
	[DPROBES_SENTRY_WARNING]	= { "report_bug_entry", dprobes_on_report_bug_entry },
	[DPROBES_SENTRY_STATIC_CALL]	= { "arch_static_call_transform", dprobes_on_static_call_transform },
	[DPROBES_SENTRY_JUMP_LABEL]	= { "arch_jump_label_transform_queue", dprobes_on_jump_label_transform },
};

/* A token is not 0. */
void dprobes_host_sentry(u64 token, struct dprobes_trap_frame *frame)
{
	sentries[token - 1].entered((struct pt_regs *)frame);
}
NOKPROBE_SYMBOL(dprobes_host_sentry);

static void set(enum dprobes_sentry which, void *function)
{
	int err = dprobes_control_set_sentry((unsigned long)function, which + 1);

	sentries[which].set = !err;
	if (err)
		pr_info("%s cannot be watched over (%d): places that rely on it are not probed\n", sentries[which].function,
			err);
}

void dprobes_sentries_set(void)
{
	set(DPROBES_SENTRY_UNDEFINED, dprobes_symbols.report_bug);
	if (dprobes_symbols.report_bug_entry)
		set(DPROBES_SENTRY_WARNING, dprobes_symbols.report_bug_entry);
	set(DPROBES_SENTRY_STATIC_CALL, dprobes_symbols.arch_static_call_transform);
	set(DPROBES_SENTRY_JUMP_LABEL, dprobes_symbols.arch_jump_label_transform_queue);
}

/*
 * Nothing is probed any more. When this returns nobody is in what the sentries have called: what sleeps there is called with a mutex held
 * that was taken before, and everything else has ended a grace period after the breakpoints are out.
 */
void dprobes_sentries_clear(void)
{
	while (dprobes_control_clear_sentries()) {
		pr_warn_ratelimited("waiting for memory to take breakpoints out\n");
		msleep(100);
	}
	dprobes_host_lock_rewrites();
	dprobes_host_unlock_rewrites();
}

bool dprobes_sentry_is_set(enum dprobes_sentry which)
{
	return sentries[which].set;
}
