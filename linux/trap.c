// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Traps: a die notifier, called first, hands breakpoints and single steps of kernel code to the engine.
 *
 * Kernel breakpoints and debug exceptions are entered like NMIs, with interrupts off, and stay so until they return
 * (arch/x86/kernel/traps.c). The engine relies on that.
 */
#include <asm/ptrace.h>
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/limits.h>
#include <linux/notifier.h>
#include <uapi/asm/debugreg.h>

#include "shim.h"

/* The engine's frame is struct pt_regs under another name. */
static_assert(sizeof(struct pt_regs) == sizeof(struct dprobes_trap_frame));
#define SAME_PLACE(linux_name, engine_name)							\
	static_assert(offsetof(struct pt_regs, linux_name) == offsetof(struct dprobes_trap_frame, engine_name))
SAME_PLACE(r15, r15);
SAME_PLACE(bp, rbp);
SAME_PLACE(bx, rbx);
SAME_PLACE(r11, r11);
SAME_PLACE(ax, rax);
SAME_PLACE(cx, rcx);
SAME_PLACE(dx, rdx);
SAME_PLACE(si, rsi);
SAME_PLACE(di, rdi);
SAME_PLACE(orig_ax, error_code);
SAME_PLACE(ip, rip);
SAME_PLACE(cs, cs);
SAME_PLACE(flags, rflags);
SAME_PLACE(sp, rsp);
SAME_PLACE(ss, ss);

static int on_debug(struct pt_regs *regs, unsigned long *dr6)
{
	u64 status = *dr6;
	bool handled = dprobes_on_debug((struct dprobes_trap_frame *)regs, &status);

	/* A watchpoint may have been hit by the same instruction; its owner is told next. */
	*dr6 = status;
	return handled ? NOTIFY_STOP : NOTIFY_DONE;
}
NOKPROBE_SYMBOL(on_debug);

static noinline int on_other(struct pt_regs *regs, unsigned long event, unsigned long *dr6)
{
	switch (event) {
	case DIE_DEBUG:
		return on_debug(regs, dr6);
	case DIE_GPF:
	case DIE_TRAP:
		/* The kernel goes on to report the fault; it shall name the original instruction. */
		if (dprobes_in_slots(regs->ip))
			dprobes_on_fault((struct dprobes_trap_frame *)regs);
		return NOTIFY_DONE;
	default:
		return NOTIFY_DONE;
	}
}
NOKPROBE_SYMBOL(on_other);

static int on_die(struct notifier_block *block, unsigned long event, void *data)
{
	struct die_args *args = data;
	struct pt_regs *regs = args->regs;

	if (user_mode(regs))
		return NOTIFY_DONE;
	/* Ahead of the rest: this is what there are many of. */
	if (likely(event == DIE_INT3)) {
		if (dprobes_on_breakpoint((struct dprobes_trap_frame *)regs) || dprobes_trap_path_visit(regs))
			return NOTIFY_STOP;
		return NOTIFY_DONE;
	}
	return on_other(regs, event, (unsigned long *)args->err);
}
NOKPROBE_SYMBOL(on_die);

static struct notifier_block die_notifier = {
	.notifier_call	= on_die,
	.priority	= INT_MAX,
};

int dprobes_traps_init(void)
{
	int err;

	err = register_die_notifier(&die_notifier);
	if (err)
		return err;
	err = dprobes_trap_path_find();
	if (err)
		dprobes_traps_exit();
	return err;
}

/* Returns when no CPU is in the notifier any more: the chain is walked under RCU. */
void dprobes_traps_exit(void)
{
	unregister_die_notifier(&die_notifier);
}
