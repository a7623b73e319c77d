// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Traps: a die notifier, called first, hands breakpoints and single steps of kernel code to the engine.
 *
 * Kernel breakpoints and debug exceptions are entered like NMIs, with interrupts off, and stay so until they return
 * (arch/x86/kernel/traps.c). The engine relies on that.
 *
 * Nothing behind this file sees a fault of a copy in its slot: before the kernel looks at the address of a fault it is that of the original
 * instruction, whose exception-table entry is found, whose fault is reported, and to which a task returns that has slept while
 * its memory was paged in. No task ever sleeps in a slot, on which freeing slots relies (text.c).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/ptrace.h>
#include <asm/trapnr.h>
#include <linux/init.h>
#include <linux/irqflags.h>
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/limits.h>
#include <linux/notifier.h>
#include <linux/tracepoint.h>
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

/*
 * Page faults. There is no notifier for them, but a tracepoint at the very beginning of their handler, where interrupts are still off
 * (arch/x86/mm/fault.c, handle_page_fault()). It is off the path of hits, and of faults in user mode.
 */
static void on_page_fault(void *unused, unsigned long address, struct pt_regs *regs, unsigned long error_code)
{
	if (dprobes_in_slots(regs->ip))
		dprobes_on_fault((struct dprobes_trap_frame *)regs);
}
NOKPROBE_SYMBOL(on_page_fault);

/*
 * The other faults. For some of them (#GP, #MF, #XM, #VE) the kernel has looked for an exception-table entry before it asks its notifiers,
 * and has found none for the slot; for others it does so afterwards. Either way the fix-up is taken here, by the kernel's own function, which
 * gets what it would have got: the number, the error code, and the registers as they were at the fault. Otherwise the kernel goes on to
 * report the fault, at the original address.
 */
static int on_other_fault(const struct die_args *args)
{
	struct pt_regs *regs = args->regs;
	unsigned long flags;

	if (!dprobes_in_slots(regs->ip))
		return NOTIFY_DONE;
	/* The handler may have switched interrupts on. */
	raw_local_irq_save(flags);
	dprobes_on_fault((struct dprobes_trap_frame *)regs);
	raw_local_irq_restore(flags);
	/* The kernel recovers from no double fault. */
	if (args->trapnr == X86_TRAP_DF || !dprobes_symbols.fixup_exception(regs, args->trapnr, args->err, 0))
		return NOTIFY_DONE;
	return NOTIFY_STOP;
}
NOKPROBE_SYMBOL(on_other_fault);

/* The kernel has just printed the registers and the code of something fatal. What it shows of a probed instruction is our breakpoint. */
static void on_oops(const struct pt_regs *regs)
{
	u8 bytes[DPROBES_INSTRUCTION_MAX];
	int length = dprobes_instruction(regs->ip, &bytes);

	if (length)
		pr_alert("the instruction at %pS is probed; without the breakpoint it is %*ph (an address that was guessed from the code is wrong)\n",
			 (void *)regs->ip, length, bytes);
}
NOKPROBE_SYMBOL(on_oops);

static noinline int on_other(struct pt_regs *regs, unsigned long event, const struct die_args *args)
{
	switch (event) {
	case DIE_DEBUG:
		return on_debug(regs, (unsigned long *)args->err);
	case DIE_GPF:
	case DIE_TRAP:
		return on_other_fault(args);
	case DIE_OOPS:
		on_oops(regs);
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
		if (likely(dprobes_on_breakpoint((struct dprobes_trap_frame *)regs)))
			return NOTIFY_STOP;
		return NOTIFY_DONE;
	}
	return on_other(regs, event, args);
}
NOKPROBE_SYMBOL(on_die);

static void stop_page_faults(void)
{
	tracepoint_probe_unregister(dprobes_symbols.__tracepoint_page_fault_kernel, on_page_fault, NULL);
	tracepoint_synchronize_unregister();
}

static struct notifier_block die_notifier = {
	.notifier_call	= on_die,
	.priority	= INT_MAX,
};

int __init dprobes_traps_init(void)
{
	int err;

	/* First: others that are told of the page fault see the original address too. */
	err = tracepoint_probe_register_prio(dprobes_symbols.__tracepoint_page_fault_kernel, on_page_fault, NULL, INT_MAX);
	if (err) {
		pr_err("cannot be told of page faults: tracepoint_probe_register_prio says %d\n", err);
		return err;
	}
	err = register_die_notifier(&die_notifier);
	if (err) {
		stop_page_faults();
		return err;
	}
	err = dprobes_trap_path_find(&die_notifier);
	if (err)
		dprobes_traps_exit();
	return err;
}

/* Returns when no CPU is in one of them any more: the notifier chain is walked under RCU. */
void dprobes_traps_exit(void)
{
	unregister_die_notifier(&die_notifier);
	stop_page_faults();
}
