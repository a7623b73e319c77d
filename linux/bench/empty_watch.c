// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A hardware breakpoint on all CPUs whose handler does nothing: insmod empty_watch.ko address=0xffffffffc0001000 watches eight bytes for writes.
 */
#include <linux/err.h>
#include <linux/hw_breakpoint.h>
#include <linux/module.h>
#include <linux/perf_event.h>

static unsigned long address;
module_param(address, ulong, 0444);
MODULE_PARM_DESC(address, "what is watched");

static void nothing(struct perf_event *event, struct perf_sample_data *data, struct pt_regs *regs)
{
}

static struct perf_event *__percpu *watch;

static int __init empty_watch_init(void)
{
	struct perf_event_attr attr;

	hw_breakpoint_init(&attr);
	attr.bp_addr = address;
	attr.bp_len = HW_BREAKPOINT_LEN_8;
	attr.bp_type = HW_BREAKPOINT_W;
	watch = register_wide_hw_breakpoint(&attr, nothing, NULL);
	/* Later kernels have the compiler know the address space of CPUs, and say so when a pointer leaves it. */
	return PTR_ERR_OR_ZERO((void *)(__force unsigned long)watch);
}

static void __exit empty_watch_exit(void)
{
	unregister_wide_hw_breakpoint(watch);
}

module_init(empty_watch_init);
module_exit(empty_watch_exit);
MODULE_DESCRIPTION("A hardware breakpoint that does nothing");
MODULE_LICENSE("Dual MIT/GPL");
