// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A kretprobe whose handler does nothing: insmod empty_kretprobe.ko symbol=ksys_read.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static char *symbol;
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "function whose returns are probed");

static int nothing(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	return 0;
}

static struct kretprobe empty = { .handler = nothing };

static int __init empty_kretprobe_init(void)
{
	empty.kp.symbol_name = symbol;
	return register_kretprobe(&empty);
}

static void __exit empty_kretprobe_exit(void)
{
	unregister_kretprobe(&empty);
}

module_init(empty_kretprobe_init);
module_exit(empty_kretprobe_exit);
MODULE_DESCRIPTION("A kretprobe that does nothing");
MODULE_LICENSE("Dual MIT/GPL");
