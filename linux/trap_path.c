// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The way of a trap to the engine and back, found by going it.
 *
 * A breakpoint that is hit on this way, before the engine has noted that it is in a hit or after it has forgotten, is on the way of its own
 * trap: it is hit again, and again, until the stack is used up. Up to notify_die() the kernel keeps kprobes away for the same reason, by
 * section and by blacklist. But kprobes are looked for before that, so that what notify_die() calls is not kept free throughout (RCU's
 * functions are not).
 *
 * So a breakpoint is hit here once, while the module is being loaded. The stack tells which functions have led from notify_die() to
 * this module; their instructions tell which others they call, and those again. One more step is what is needed, since in such a trap they return
 * soon: in_nmi(). What the stack does not show any more is whom the kernel has notified before this module. They are in its list, ahead of
 * ours when they asked for the highest priority too and came first, as the kernel's own watchpoints did.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/unwind.h>
#include <linux/kallsyms.h>
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include "shim.h"

/* Steps from the functions on the stack. */
#define STEPS 2

/* More is no way that a trap could take. */
#define FUNCTIONS 128
#define BRANCHES 64

struct span {
	unsigned long start;
	unsigned long end;
};

static struct span path[FUNCTIONS] __ro_after_init;
static size_t path_length __ro_after_init;

/* The return addresses on the stack of the trap, innermost first, while it is being looked at. */
static unsigned long stack[16];
static size_t depth;
static unsigned long visiting;

/* Is told of the breakpoint by which the way is found, as the module's other notifier is of those that are hit. */
static int on_visit(struct notifier_block *block, unsigned long event, void *data)
{
	const struct die_args *args = data;
	struct unwind_state state;

	if (event != DIE_INT3 || args->regs->ip != READ_ONCE(visiting))
		return NOTIFY_DONE;
	unwind_start(&state, current, NULL, NULL);
	for (depth = 0; depth < ARRAY_SIZE(stack) && !unwind_done(&state); unwind_next_frame(&state)) {
		stack[depth] = unwind_get_return_address(&state);
		if (!stack[depth])
			break;
		depth++;
	}
	WRITE_ONCE(visiting, 0);
	return NOTIFY_STOP;
}
NOKPROBE_SYMBOL(on_visit);

static struct notifier_block visit_notifier = {
	.notifier_call	= on_visit,
	.priority	= INT_MAX,
};

bool dprobes_trap_path_has(unsigned long function)
{
	size_t i;

	for (i = 0; i < path_length; i++) {
		if (function >= path[i].start && function < path[i].end)
			return true;
	}
	return false;
}

/* Adds the function at an address, unless it is there. */
static int __init add_function(unsigned long address)
{
	unsigned long size, offset;
	char name[KSYM_NAME_LEN];
	char *module_name;

	if (within_module(address, THIS_MODULE) || dprobes_trap_path_has(address))
		return 0;
	if (!dprobes_symbols.kallsyms_lookup(address, &size, &offset, &module_name, name))
		return 0;
	if (path_length == ARRAY_SIZE(path)) {
		pr_err("too many functions are on the way of a trap, %s the last; this kernel is not supported\n", name);
		return -E2BIG;
	}
	path[path_length].start = address - offset;
	path[path_length].end = address - offset + size;
	path_length++;
	pr_debug("on the way of a trap: %s\n", name);
	return 0;
}

/* Adds what a function calls, or jumps to. */
static int __init add_called(struct span function)
{
	u64 targets[BRANCHES];
	size_t count, i;
	int err = 0;

	count = dprobes_branches(function.start, function.end - function.start, targets, ARRAY_SIZE(targets));
	if (count > ARRAY_SIZE(targets)) {
		pr_err("%ps, on the way of a trap, calls %zu others; this kernel is not supported\n",
		       (void *)function.start, count);
		return -E2BIG;
	}
	for (i = 0; i < count && !err; i++)
		err = add_function(targets[i]);
	return err;
}

static noinline int __init hit_breakpoint(void)
{
	int err = register_die_notifier(&visit_notifier);

	if (err)
		return err;
	asm volatile("	movq $1f, %[visiting]\n"
		     "	int3\n"
		     "1:\n"
		     : [visiting] "=m" (visiting) : : "memory");
	unregister_die_notifier(&visit_notifier);
	return 0;
}

/* Adds those who are notified of a breakpoint before this one is. Who comes later with the same priority is behind it. */
static int __init add_notified(const struct notifier_block *last)
{
	const struct notifier_block *block;
	int err = 0;

	rcu_read_lock();
	for (block = rcu_dereference(dprobes_symbols.die_chain->head); block && block != last && !err;
	     block = rcu_dereference(block->next))
		err = add_function((unsigned long)block->notifier_call);
	rcu_read_unlock();
	return err;
}

int __init dprobes_trap_path_find(const struct notifier_block *ours)
{
	const unsigned long outermost = (unsigned long)dprobes_symbols.notify_die;
	size_t known = 0, step, end, i;
	bool found = false;
	int err;

	err = hit_breakpoint();
	for (i = 0; i < depth && !found && !err; i++) {
		err = add_function(stack[i]);
		found = dprobes_trap_path_has(outermost);
	}
	if (!err && !found) {
		pr_err("the stack of a breakpoint does not show notify_die(); this kernel is not supported\n");
		err = -ENOENT;
	}
	if (!err)
		err = add_notified(ours);
	for (step = 0; step < STEPS && !err; step++) {
		for (end = path_length; known < end && !err; known++)
			err = add_called(path[known]);
	}
	return err;
}
