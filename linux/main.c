// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Loading and unloading.
 *
 * Loading goes from the inside out: what the engine needs, the engine, what calls it, and the device last. Unloading goes the other way.
 * The kernel does not unload the module while the device is open.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/ratelimit.h>

#include "shim.h"

/* Somebody may have put a gate of his own in front of ours; the entry must stay until he has taken it away. */
static void wait_for_gate(void)
{
	while (!dprobes_gate_exit()) {
		pr_warn_ratelimited("unloading waits: another gate leads to the module's\n");
		msleep(100);
	}
}

static int __init dprobes_module_init(void)
{
	int err;

	err = dprobes_symbols_find();
	if (err)
		return err;
	dprobes_core_init();
	err = dprobes_serial_init();
	if (err)
		return err;
	err = dprobes_slots_init();
	if (err)
		return err;
	err = dprobes_init(&dprobes_linux_host);
	if (err)
		return err;
	err = dprobes_watch_init();
	if (err)
		goto drop_engine;
	err = dprobes_traps_init();
	if (err)
		goto stop_watch;
	err = dprobes_gate_init();
	if (err)
		goto stop_traps;
	dprobes_sentries_set();
	err = dprobes_modules_init();
	if (err)
		goto clear_sentries;
	dprobes_memory_is_programs();
	err = dprobes_persist_init();
	if (err)
		goto forget_modules;
	err = dprobes_device_init();
	if (err)
		goto forget_previous;
	dprobes_emergency_init();
	dprobes_user_init();
	pr_info("ready: %d slots for probes\n", DPROBES_SLOTS_SIZE / DPROBES_SLOT_SIZE);
	return 0;

forget_previous:
	dprobes_persist_exit();
forget_modules:
	dprobes_modules_exit();
clear_sentries:
	dprobes_sentries_clear();
	wait_for_gate();
stop_traps:
	dprobes_traps_exit();
stop_watch:
	dprobes_control_exit();
	dprobes_watch_exit();
drop_engine:
	dprobes_exit();
	return err;
}
module_init(dprobes_module_init);

static void __exit dprobes_module_exit(void)
{
	struct dprobes_reply reply;

	dprobes_device_exit();
	dprobes_persist_exit();
	dprobes_emergency_exit();
	/*
	 * The breakpoints come out while traps still reach the engine. After that no CPU has one left to report, and no CPU or
	 * task is in a slot, which is about to be unmapped with the module. Unloading cannot fail, and must not go on with a breakpoint in
	 * place: it waits for the memory that it takes to remove them.
	 */
	while (dprobes_control_remove_all(&reply)) {
		pr_warn_ratelimited("unloading waits: the breakpoint at %px cannot be removed (%d)\n",
				    (void *)reply.address, reply.error);
		msleep(100);
	}
	dprobes_modules_exit();
	dprobes_core_exit();
	dprobes_user_exit();
	dprobes_returns_exit();
	dprobes_sentries_clear();
	wait_for_gate();
	dprobes_traps_exit();
	dprobes_control_exit();
	dprobes_watch_exit();
	dprobes_klog_exit();
	dprobes_exit();
}
module_exit(dprobes_module_exit);

MODULE_DESCRIPTION("DProbes: automated breakpoints");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
