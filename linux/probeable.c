// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Which places in text may be probed.
 *
 * The caller holds the control lock and kprobe_mutex (control.c). The first keeps a module that is live here in place until
 * the caller is done: its unloading waits in the module notifier. The second keeps kprobes from coming and going.
 */
#include <linux/bug.h>
#include <linux/extable.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/string.h>
#include <linux/version.h>

#include "shim.h"

/* The text of a module that stays after its init has run. */
void dprobes_module_text(const struct module *mod, unsigned long *start, unsigned long *end)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	*start = (unsigned long)mod->mem[MOD_TEXT].base;
	*end = *start + mod->mem[MOD_TEXT].size;
#else
	*start = (unsigned long)mod->core_layout.base;
	*end = *start + mod->core_layout.text_size;
#endif
}

/* Is this the text of a module that is live, and not ours? */
static int check_module(unsigned long address)
{
	unsigned long start, end;
	struct module *mod;
	int why = 0;

	preempt_disable();
	mod = dprobes_symbols.__module_text_address(address);
	if (!mod || mod->state != MODULE_STATE_LIVE) {
		why = DPROBES_PROHIBITED_NOT_TEXT;
	} else if (mod == THIS_MODULE) {
		why = DPROBES_PROHIBITED_EXCLUDED;
	} else {
		dprobes_module_text(mod, &start, &end);
		if (address < start || address >= end)
			why = DPROBES_PROHIBITED_NOT_TEXT;	/* .init.text */
	}
	preempt_enable();
	return why;
}

static bool within(unsigned long address, const char *start, const char *end)
{
	return address >= (unsigned long)start && address < (unsigned long)end;
}

static bool excluded(unsigned long address)
{
	return within(address, dprobes_symbols.__noinstr_text_start, dprobes_symbols.__noinstr_text_end) ||
	       within(address, dprobes_symbols.__entry_text_start, dprobes_symbols.__entry_text_end) ||
	       dprobes_symbols.within_kprobe_blacklist(address);
}

static bool jump_label_owns(unsigned long address)
{
	bool owns;

	dprobes_symbols.jump_label_lock();
	preempt_disable();
	owns = dprobes_symbols.jump_label_text_reserved((void *)address, (void *)address);
	preempt_enable();
	dprobes_symbols.jump_label_unlock();
	return owns;
}

static bool static_call_owns(unsigned long address)
{
	bool owns;

	preempt_disable();
	owns = dprobes_symbols.static_call_text_reserved((void *)address, (void *)address);
	preempt_enable();
	return owns;
}

/* A kprobe on this instruction, or one that is optimised to a jump which reaches over it. */
static bool kprobe_owns(unsigned long address)
{
	const int jump = 5;
	struct kprobe *probe;
	bool owns = false;
	int back;

	preempt_disable();
	for (back = 0; back < jump && !owns; back++) {
		probe = dprobes_symbols.get_kprobe((void *)(address - back));
		owns = probe && (back == 0 || (probe->flags & KPROBE_FLAG_OPTIMIZED));
	}
	preempt_enable();
	return owns;
}

int dprobes_host_probeable(u64 address, struct dprobes_function *function)
{
	unsigned long size, offset;
	int why;

	if (!dprobes_symbols.core_kernel_text(address)) {
		why = check_module(address);
		if (why)
			return why;
	}
	if (!dprobes_symbols.kallsyms_lookup_size_offset(address, &size, &offset) || offset >= size)
		return DPROBES_PROHIBITED_NO_FUNCTION;
	if (excluded(address))
		return DPROBES_PROHIBITED_EXCLUDED;
	if (dprobes_symbols.ftrace_location_range(address, address))
		return DPROBES_PROHIBITED_FTRACE;
	if (jump_label_owns(address))
		return DPROBES_PROHIBITED_JUMP_LABEL;
	if (static_call_owns(address))
		return DPROBES_PROHIBITED_STATIC_CALL;
	if (dprobes_symbols.alternatives_text_reserved((void *)address, (void *)address))
		return DPROBES_PROHIBITED_ALTERNATIVE;
	/* The #UD handler finds BUG and WARN by their address, as the fault handlers find exception-table entries. */
	if (dprobes_symbols.search_exception_tables(address) || dprobes_symbols.find_bug(address))
		return DPROBES_PROHIBITED_EXCEPTION_ENTRY;
	if (kprobe_owns(address))
		return DPROBES_PROHIBITED_FOREIGN_BREAKPOINT;

	function->start = address - offset;
	function->end = address - offset + size;
	return 0;
}

int dprobes_host_module_base(const char *name, uintptr_t length, u64 *base)
{
	char terminated[MODULE_NAME_LEN] = "";
	unsigned long start, end;
	struct module *mod;
	int err = -ENOENT;

	if (length == strlen("kernel") && !memcmp(name, "kernel", length)) {
		*base = (unsigned long)dprobes_symbols._text;
		return 0;
	}
	if (length >= sizeof(terminated))
		return -ENOENT;
	memcpy(terminated, name, length);

	preempt_disable();
	mod = dprobes_symbols.find_module(terminated);
	if (mod && mod->state == MODULE_STATE_LIVE) {
		dprobes_module_text(mod, &start, &end);
		*base = start;
		err = 0;
	}
	preempt_enable();
	return err;
}
