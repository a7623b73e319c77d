// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Which places in text may be probed.
 *
 * The caller holds the control lock and kprobe_mutex (control.c). The first keeps a module that is live here in place until
 * the caller is done: its unloading waits in the module notifier. The second keeps kprobes from coming and going.
 */
#include <linux/extable.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/static_call_types.h>
#include <linux/string.h>

#include "reserved.h"
#include "shim.h"

/* The module that is there and whose text this is, which may be ours; NULL for none. The caller's lock keeps it in place. */
static struct module *module_of(unsigned long address)
{
	unsigned long start, end;
	struct module *mod;

	preempt_disable();
	mod = dprobes_symbols.__module_text_address(address);
	if (mod && mod->state == MODULE_STATE_LIVE) {
		dprobes_module_text(mod, &start, &end);
		if (address < start || address >= end)
			mod = NULL;	/* .init.text, which is about to be freed */
	} else if (mod && !dprobes_module_is_there(mod)) {
		mod = NULL;
	}
	preempt_enable();
	return mod;
}

/* GKHI's module is asked about every breakpoint, perhaps before the engine is. */
static bool is_ours(const struct module *mod)
{
	return mod == THIS_MODULE || (mod && !strcmp(mod->name, "gkhi"));
}

static bool within(unsigned long address, const char *start, const char *end)
{
	return address >= (unsigned long)start && address < (unsigned long)end;
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

/* What is known of a function, until another one is asked about. */
struct known {
	unsigned long start;
	unsigned long end;
	bool excluded;
	/* Of a static call: the kernel rewrites it, as it does the calls. */
	bool trampoline;
};

/*
 * Indirect branches and returns of all code, that of a trap and ours too, may go through these; a compiler that is told so has
 * names of its own for them.
 */
static bool is_thunk(const char *name)
{
	return str_has_prefix(name, "__x86_indirect_") || str_has_prefix(name, "__x86_return_thunk");
}

/* In 7.2 code that also runs before the kernel is where it is to be has a second name, with this in front, and that is the one that is found. */
static const char *without_pi(const char *name)
{
	const char prefix[] = "__pi_";

	return str_has_prefix(name, prefix) ? name + strlen(prefix) : name;
}

/* Finds the function at an address; false when there is none. */
static bool find_function(unsigned long address, struct known *known, struct blacklisted_names **names)
{
	unsigned long size, offset;
	char buffer[KSYM_NAME_LEN];
	char *module_name;
	const char *name;

	if (address >= known->start && address < known->end)
		return true;
	name = dprobes_symbols.kallsyms_lookup(address, &size, &offset, &module_name, buffer);
	if (!name || offset >= size)
		return false;
	name = without_pi(name);
	known->start = address - offset;
	known->end = known->start + size;
	known->excluded = dprobes_trap_path_has(known->start) || is_thunk(name) ||
			  dprobes_part_of_blacklisted(names, name, address);
	known->trampoline = str_has_prefix(name, STATIC_CALL_TRAMP_PREFIX_STR);
	return true;
}

/* In which function is it, and may there be a probe as far as that tells? */
static int function_prohibits(struct dprobes_candidate *candidate, const struct module *mod, struct known *known,
			      struct blacklisted_names **names)
{
	const unsigned long address = candidate->address;

	if (is_ours(mod))
		return DPROBES_PROHIBITED_EXCLUDED;
	if (!find_function(address, known, names))
		return DPROBES_PROHIBITED_NO_FUNCTION;
	candidate->function.start = known->start;
	candidate->function.end = known->end;
	if (known->excluded ||
	    within(address, dprobes_symbols.__noinstr_text_start, dprobes_symbols.__noinstr_text_end) ||
	    within(address, dprobes_symbols.__entry_text_start, dprobes_symbols.__entry_text_end) ||
	    within(address, dprobes_symbols.__kprobes_text_start, dprobes_symbols.__kprobes_text_end))
		return DPROBES_PROHIBITED_EXCLUDED;
	if (known->trampoline)
		return DPROBES_PROHIBITED_STATIC_CALL;
	if (dprobes_symbols.ftrace_location_range(address, address))
		return DPROBES_PROHIBITED_FTRACE;
	return 0;
}

bool dprobes_host_function_at(u64 address, struct dprobes_function *function)
{
	unsigned long size, offset;
	char buffer[KSYM_NAME_LEN];
	char *module_name;

	if (!dprobes_symbols.core_kernel_text(address) && !module_of(address))
		return false;
	if (!dprobes_symbols.kallsyms_lookup(address, &size, &offset, &module_name, buffer) || offset >= size)
		return false;
	function->start = address - offset;
	function->end = function->start + size;
	return true;
}

/*
 * Faults at other instructions are recovered from by their exception-table entry alone (trap.c). For this kind, the loads that may reach
 * beyond the end of mapped memory, the kernel decodes the instruction that faulted, and would find the breakpoint.
 */
static bool is_decoded_in_fault(unsigned long address)
{
	bool decoded = false;
#ifdef EX_TYPE_ZEROPAD
	const struct exception_table_entry *entry;

	/* The entry may be a module's. */
	preempt_disable();
	entry = dprobes_symbols.search_exception_tables(address);
	decoded = entry && (entry->data & EX_DATA_TYPE_MASK) == EX_TYPE_ZEROPAD;
	preempt_enable();
#endif
	return decoded;
}

/* What is left to ask when all else allows a probe. */
static int address_prohibits(unsigned long address)
{
	if (is_decoded_in_fault(address))
		return DPROBES_PROHIBITED_EXCEPTION_ENTRY;
	if (kprobe_owns(address))
		return DPROBES_PROHIBITED_FOREIGN_BREAKPOINT;
	return 0;
}

/* Addresses of one module, or of the kernel itself, one behind the other. */
static struct candidates next_run(struct candidates candidates, struct module **mod)
{
	struct candidates run = { candidates.first, 0 };
	bool core = dprobes_symbols.core_kernel_text(candidates.first->address);

	*mod = core ? NULL : module_of(candidates.first->address);
	if (!core && !*mod) {
		candidates.first->prohibited = DPROBES_PROHIBITED_NOT_TEXT;
		return run;
	}
	while (run.count < candidates.count) {
		const unsigned long address = candidates.first[run.count].address;

		if (core ? !dprobes_symbols.core_kernel_text(address) : module_of(address) != *mod)
			break;
		run.count++;
	}
	return run;
}

void dprobes_host_probeable(struct dprobes_candidate *first, uintptr_t count)
{
	struct candidates rest = { first, count };
	struct blacklisted_names *names = NULL;
	struct known known = { 0, 0 };
	struct module *mod;
	size_t i;

	while (rest.count) {
		const struct candidates run = next_run(rest, &mod);

		for (i = 0; i < run.count; i++) {
			run.first[i].prohibited = function_prohibits(&run.first[i], mod, &known, &names);
			cond_resched();
		}
		if (run.count) {
			dprobes_prohibit_blacklisted(run);
			dprobes_prohibit_reserved(run, mod);
		}
		for (i = 0; i < run.count; i++) {
			if (!run.first[i].prohibited)
				run.first[i].prohibited = address_prohibits(run.first[i].address);
			cond_resched();
		}
		rest.first += run.count ?: 1;
		rest.count -= run.count ?: 1;
	}
	kvfree(names);
}
