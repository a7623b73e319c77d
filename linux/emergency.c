// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Getting rid of all probes at once, when nothing else may work any more: a key of SysRq.
 *
 * The key is handled in an interrupt, where text cannot be written. So the probes are halted there: from then on a hit on any CPU does nothing but carry its
 * instruction out. A worker takes them out as soon as it gets to run.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/ratelimit.h>
#include <linux/sysrq.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "shim.h"

static char *sysrq_key = "y";
module_param(sysrq_key, charp, 0444);
MODULE_PARM_DESC(sysrq_key, "the SysRq key that removes all probes (y); empty for none");

static void remove_all(struct work_struct *work)
{
	struct dprobes_reply reply;

	/* They stay halted until they are out. */
	while (dprobes_control_remove_all(&reply)) {
		pr_warn_ratelimited("the breakpoint at %px cannot be removed (%d); all probes stay halted\n",
				    (void *)reply.address, reply.error);
		msleep(100);
	}
	pr_notice("all probes are removed\n");
}
static DECLARE_WORK(removal, remove_all);

static void on_key(compat_sysrq_key_t key)
{
	dprobes_halt();
	pr_notice("SysRq: all probes are halted, and about to be removed\n");
	/* Not behind work that may wait for what is being probed. */
	queue_work(system_unbound_wq, &removal);
}

static char help[] = "remove-all-probes(?)";

/* Permitted as what else takes something away from everybody, and harms nobody, is: niceness. */
static const struct sysrq_key_op key_op = {
	.handler	= on_key,
	.help_msg	= help,
	.action_msg	= "Remove all probes",
	.enable_mask	= SYSRQ_ENABLE_RTNICE,
};

/* The key, if it is ours. Without it there is still the command. */
static char registered;

void dprobes_emergency_init(void)
{
	const char key = sysrq_key[0];

	if (!key)
		return;
	help[sizeof(help) - 3] = key;
	if (register_sysrq_key(key, &key_op))
		pr_warn("SysRq-%c is taken, and does not remove probes; see the parameter sysrq_key\n", key);
	else
		registered = key;
}

void dprobes_emergency_exit(void)
{
	if (registered)
		unregister_sysrq_key(registered, &key_op);
	cancel_work_sync(&removal);
}
