// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What the kernel has but does not export to modules.
 *
 * A kprobe, set once at load and removed at once, says where kallsyms_lookup_name() is; that finds the rest. The module
 * does not load when one of them is missing, and says which: each stands for a check or a lock that probing would be unsafe without.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>

#include "shim.h"

struct dprobes_symbols dprobes_symbols __ro_after_init;

static const struct {
	const char *name;
	void **place;
} wanted[] __initconst = {
#define WANTED(symbol) { #symbol, (void **)&dprobes_symbols.symbol }
	WANTED(core_kernel_text),
	WANTED(__module_text_address),
	WANTED(kallsyms_lookup_size_offset),
	WANTED(find_module),
	WANTED(within_kprobe_blacklist),
	WANTED(ftrace_location_range),
	WANTED(jump_label_lock),
	WANTED(jump_label_unlock),
	WANTED(jump_label_text_reserved),
	WANTED(static_call_text_reserved),
	WANTED(alternatives_text_reserved),
	WANTED(get_kprobe),
	WANTED(search_exception_tables),
	WANTED(find_bug),
	WANTED(_text),
	WANTED(__noinstr_text_start),
	WANTED(__noinstr_text_end),
	WANTED(__entry_text_start),
	WANTED(__entry_text_end),
	WANTED(text_mutex),
	WANTED(kprobe_mutex),
	WANTED(nmi_uaccess_okay),
	WANTED(copy_to_kernel_nofault),
#undef WANTED
};

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

int __init dprobes_symbols_find(void)
{
	unsigned long (*lookup)(const char *name);
	size_t i;
	int err = 0;

	lookup = (void *)lookup_name_address();
	if (!lookup)
		return -ENOENT;
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		*wanted[i].place = (void *)lookup(wanted[i].name);
		if (!*wanted[i].place) {
			pr_err("this kernel has no %s, which is needed; it is not supported\n", wanted[i].name);
			err = -ENOENT;
		}
	}
	return err;
}
