// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What the kernel has but does not export to modules.
 *
 * A kprobe, set once at load and removed at once, says where kallsyms_lookup_name() is; that finds the rest.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/printk.h>

#include "lookup.h"

static unsigned long __init lookup_name_address(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long address;
	int err;

	err = register_kprobe(&probe);
	if (err) {
		pr_err("cannot find kallsyms_lookup_name: register_kprobe says %d; is the kernel built without CONFIG_KPROBES, or locked down?\n",
		       err);
		return 0;
	}
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return address;
}

int __init lookup_symbols(const struct lookup_wanted *wanted, size_t count)
{
	unsigned long (*lookup)(const char *name);
	size_t i;
	int err = 0;

	lookup = (void *)lookup_name_address();
	if (!lookup)
		return -ENOENT;
	for (i = 0; i < count; i++) {
		*wanted[i].place = (void *)lookup(wanted[i].name);
		if (!*wanted[i].place && !wanted[i].optional) {
			pr_err("this kernel has no %s, which is needed; it is not supported\n", wanted[i].name);
			err = -ENOENT;
		}
	}
	return err;
}
