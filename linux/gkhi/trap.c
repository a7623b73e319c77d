// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * While sites are being patched there is an int3 on each. A CPU that meets it goes on as if the site were as it was, or as it
 * will be.
 */
#include <asm/ptrace.h>
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/limits.h>
#include <linux/notifier.h>

#include "shim.h"

static int on_die(struct notifier_block *block, unsigned long event, void *data)
{
	struct die_args *args = data;
	struct pt_regs *regs = args->regs;
	unsigned long resume;

	if (event != DIE_INT3 || user_mode(regs))
		return NOTIFY_DONE;
	resume = gkhi_on_breakpoint(regs->ip - 1);
	if (!resume)
		return NOTIFY_DONE;
	regs->ip = resume;
	return NOTIFY_STOP;
}
NOKPROBE_SYMBOL(on_die);

static struct notifier_block die_notifier = {
	.notifier_call	= on_die,
	.priority	= INT_MAX,
};

int gkhi_traps_init(void)
{
	return register_die_notifier(&die_notifier);
}

void gkhi_traps_exit(void)
{
	unregister_die_notifier(&die_notifier);
}
