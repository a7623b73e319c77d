// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A kprobe whose handler does nothing, on any instruction: insmod empty_kprobe.ko symbol=read_zero offset=14.
 * What it costs is what the kernel's own mechanism costs at least.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static char *symbol;
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "function to probe");

static unsigned int offset;
module_param(offset, uint, 0444);
MODULE_PARM_DESC(offset, "offset of the instruction in it, in bytes");

static int nothing(struct kprobe *probe, struct pt_regs *regs)
{
	return 0;
}

static struct kprobe empty = { .pre_handler = nothing };

static int __init empty_kprobe_init(void)
{
	empty.symbol_name = symbol;
	empty.offset = offset;
	return register_kprobe(&empty);
}

static void __exit empty_kprobe_exit(void)
{
	unregister_kprobe(&empty);
}

module_init(empty_kprobe_init);
module_exit(empty_kprobe_exit);
MODULE_DESCRIPTION("A kprobe that does nothing");
MODULE_LICENSE("Dual MIT/GPL");
