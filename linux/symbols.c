// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What the kernel has but does not export to modules.
 *
 * The module does not load when one of them is missing, and says which: each stands for a check or a lock that probing would be unsafe without.
 */
#include <linux/cache.h>
#include <linux/init.h>
#include <linux/kernel.h>

#include "lookup.h"
#include "shim.h"
#include "text_alias.h"

struct dprobes_symbols dprobes_symbols __ro_after_init;

static const struct lookup_wanted wanted[] __initconst = {
#define WANTED(symbol) { #symbol, (void **)&dprobes_symbols.symbol }
	WANTED(core_kernel_text),
	WANTED(__module_text_address),
	WANTED(kallsyms_lookup),
	WANTED(kallsyms_lookup_name),
	WANTED(lookup_symbol_name),
	WANTED(find_module),
	WANTED(within_kprobe_blacklist),
	WANTED(ftrace_location_range),
	WANTED(jump_label_lock),
	WANTED(jump_label_unlock),
	WANTED(jump_label_text_reserved),
	WANTED(alternatives_text_reserved),
	WANTED(get_kprobe),
	WANTED(search_exception_tables),
	WANTED(kprobe_blacklist),
	WANTED(__start___jump_table),
	WANTED(__stop___jump_table),
	WANTED(__start_static_call_sites),
	WANTED(__stop_static_call_sites),
	WANTED(_text),
	WANTED(__noinstr_text_start),
	WANTED(__noinstr_text_end),
	WANTED(__entry_text_start),
	WANTED(__entry_text_end),
	WANTED(__kprobes_text_start),
	WANTED(__kprobes_text_end),
	WANTED(text_mutex),
	WANTED(kprobe_mutex),
	WANTED(__tracepoint_page_fault_kernel),
	WANTED(fixup_exception),
	WANTED(nmi_uaccess_okay),
#ifdef CONFIG_UPROBES
	WANTED(uprobe_notify_resume),
	{ "__tracepoint_sched_process_exit", (void **)&dprobes_symbols.__tracepoint_sched_process_exit, .optional = true },
#endif
	WANTED(report_bug),
	{ "report_bug_entry", (void **)&dprobes_symbols.report_bug_entry, .optional = true },
	WANTED(arch_static_call_transform),
	WANTED(arch_jump_label_transform),
	WANTED(arch_jump_label_transform_queue),
	WANTED(static_call_mutex),
	WANTED(text_poke),
	WANTED(switch_fpu_return),
	WANTED(idt_table),
	WANTED(notify_die),
	WANTED(die_chain),
	/* Without them returns are not probed. */
#define RETURNS(symbol) { #symbol, (void **)&dprobes_symbols.returns.symbol, .optional = true }
	RETURNS(rethook_alloc),
	RETURNS(rethook_add_node),
	RETURNS(rethook_free),
	RETURNS(rethook_try_get),
	RETURNS(rethook_hook),
	RETURNS(kretprobe_blacklist),
#undef RETURNS
	/* Only to say who has the debug registers. */
	{ "bp_per_reg", (void **)&dprobes_symbols.bp_per_reg, .optional = true },
#undef WANTED
};

int __init dprobes_symbols_find(void)
{
	int err;

	err = lookup_symbols(wanted, ARRAY_SIZE(wanted));
	if (!err)
		text_alias_init(dprobes_symbols.text_mutex, dprobes_symbols.core_kernel_text);
	return err;
}
