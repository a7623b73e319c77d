// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Loading and unloading.
 *
 * Modules with hooks do not need this one: their sites are found when it is loaded, and are as they were when it is unloaded. Modules with
 * exits use its functions, so that it stays as long as there is one.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>

#include "lookup.h"
#include "shim.h"
#include "text_alias.h"

struct gkhi_symbols gkhi_symbols __ro_after_init;

static const struct lookup_wanted wanted[] __initconst = {
#define WANTED(symbol) { #symbol, (void **)&gkhi_symbols.symbol }
	WANTED(core_kernel_text),
	WANTED(__module_text_address),
	WANTED(text_mutex),
	WANTED(module_mutex),
	WANTED(modules),
	WANTED(__start___jump_table),
	WANTED(__stop___jump_table),
#undef WANTED
};

static int __init gkhi_module_init(void)
{
	int err;

	err = lookup_symbols(wanted, ARRAY_SIZE(wanted));
	if (err)
		return err;
	text_alias_init(gkhi_symbols.text_mutex, gkhi_symbols.core_kernel_text);
	err = gkhi_start(&gkhi_linux_host);
	if (err)
		return -EINVAL;
	err = gkhi_traps_init();
	if (err)
		goto stop;
	err = gkhi_tree_init();
	if (err)
		goto stop_traps;
	err = gkhi_units_init();
	if (err)
		goto stop_tree;
	return 0;

stop_tree:
	gkhi_tree_exit();
stop_traps:
	gkhi_traps_exit();
stop:
	gkhi_stop();
	return err;
}
module_init(gkhi_module_init);

static void __exit gkhi_module_exit(void)
{
	/* No exits are left, since their modules are gone: no site jumps. */
	gkhi_units_exit();
	gkhi_tree_exit();
	gkhi_traps_exit();
	gkhi_stop();
}
module_exit(gkhi_module_exit);

MODULE_DESCRIPTION("GKHI: hooks that cost one NOP while dormant");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
