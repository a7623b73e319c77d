// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Modules that come and go, and what is where in them.
 *
 * Programs wait for their module. When the kernel tells that it is coming, its text is as it will be executed: relocated, with its alternatives
 * applied, the function tracer's NOPs in place, and not writable any more. What others do to it when they are told is over as well, because
 * they are told first: jump labels and static calls. Nothing of the module has been executed.
 */
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

#include "compat.h"
#include "shim.h"

/*
 * The module whose coming is being told, under the control lock. From then on it is like one that is live; before that, others may still write to its
 * text. While its init runs nothing else is inserted into it: programs that come then wait until it is live.
 */
static const struct module *arriving;

bool dprobes_module_is_there(const struct module *mod)
{
	return mod->state == MODULE_STATE_LIVE || mod == arriving;
}

void dprobes_module_text(const struct module *mod, unsigned long *start, unsigned long *end)
{
	*start = (unsigned long)COMPAT_MODULE_TEXT(mod);
	*end = *start + COMPAT_MODULE_TEXT_SIZE(mod);
}

void dprobes_module_init_text(const struct module *mod, unsigned long *start, unsigned long *end)
{
	*start = (unsigned long)COMPAT_MODULE_INIT_TEXT(mod);
	*end = *start + COMPAT_MODULE_INIT_TEXT_SIZE(mod);
}

/* The module of this name that is there; NULL for none. */
static struct module *find(const char *name, uintptr_t length)
{
	char terminated[MODULE_NAME_LEN] = "";
	struct module *mod;

	if (length >= sizeof(terminated))
		return NULL;
	memcpy(terminated, name, length);
	preempt_disable();
	mod = dprobes_symbols.find_module(terminated);
	if (mod && !dprobes_module_is_there(mod))
		mod = NULL;
	preempt_enable();
	return mod;
}

static bool names_kernel(const char *name, uintptr_t length)
{
	return length == strlen("kernel") && !memcmp(name, "kernel", length);
}

int dprobes_host_module_base(const char *name, uintptr_t length, u64 *base)
{
	unsigned long start, end;
	struct module *mod;

	if (names_kernel(name, length)) {
		*base = (unsigned long)dprobes_symbols._text;
		return 0;
	}
	mod = find(name, length);
	if (!mod)
		return -ENOENT;
	dprobes_module_text(mod, &start, &end);
	*base = start;
	return 0;
}

/*
 * Of the kernel itself. If several have the name this is one of them: the command, which has the whole list, refuses such a name.
 */
static int kernel_symbol(const char *name, u64 *start, u64 *end)
{
	const unsigned long address = dprobes_symbols.kallsyms_lookup_name(name);

	/* It looks in all modules, too. */
	if (!address || (address >= MODULES_VADDR && address < MODULES_END))
		return -ENOENT;
	*start = address;
	*end = address;
	return 0;
}

/* In the module's own table, which knows of two that have the same name. While its init runs that has the symbols of init. */
static int module_symbol(const struct module *mod, const char *name, u64 *start, u64 *end)
{
	const struct mod_kallsyms *table;
	unsigned int i, found = 0;

	preempt_disable();
	table = rcu_dereference_sched(mod->kallsyms);
	for (i = 0; table && i < table->num_symtab; i++) {
		const Elf_Sym *symbol = &table->symtab[i];

		if (symbol->st_shndx == SHN_UNDEF || strcmp(table->strtab + symbol->st_name, name))
			continue;
		if (found && symbol->st_value == *start)
			continue;
		*start = symbol->st_value;
		*end = symbol->st_value + symbol->st_size;
		found++;
	}
	preempt_enable();
	if (!found)
		return -ENOENT;
	return found == 1 ? 0 : -EEXIST;
}

int dprobes_host_symbol(const char *module, uintptr_t module_length, const char *symbol, uintptr_t symbol_length,
			u64 *start, u64 *end)
{
	char name[KSYM_NAME_LEN] = "";
	struct module *mod;

	if (symbol_length >= sizeof(name))
		return -ENOENT;
	memcpy(name, symbol, symbol_length);
	if (names_kernel(module, module_length))
		return kernel_symbol(name, start, end);
	mod = find(module, module_length);
	return mod ? module_symbol(mod, name, start, end) : -ENOENT;
}

static void module_coming(const struct module *mod)
{
	dprobes_control_lock();
	arriving = mod;
	dprobes_module_coming((const u8 *)mod->name, strlen(mod->name));
	arriving = NULL;
	dprobes_control_unlock();
}

/* Its init has returned. The text of that is still there, and goes when this returns. */
static void module_live(const struct module *mod)
{
	unsigned long start, end;

	dprobes_module_init_text(mod, &start, &end);
	dprobes_control_lock();
	dprobes_module_live((const u8 *)mod->name, strlen(mod->name), start, end);
	dprobes_control_unlock();
}

/* It is being unloaded, or its init has failed: its text is still there, and goes when this returns. */
static void module_going(const struct module *mod)
{
	unsigned long start, end;

	dprobes_control_lock();
	dprobes_module_init_text(mod, &start, &end);
	dprobes_module_going(start, end);
	dprobes_module_text(mod, &start, &end);
	dprobes_module_going(start, end);
	dprobes_control_unlock();
}

static int on_coming(struct notifier_block *block, unsigned long event, void *mod)
{
	if (event == MODULE_STATE_COMING)
		module_coming(mod);
	else if (event == MODULE_STATE_LIVE)
		module_live(mod);
	return NOTIFY_DONE;
}

static int on_going(struct notifier_block *block, unsigned long event, void *mod)
{
	if (event == MODULE_STATE_GOING)
		module_going(mod);
	return NOTIFY_DONE;
}

/* After those who change its text. */
static struct notifier_block coming_notifier = {
	.notifier_call	= on_coming,
	.priority	= INT_MIN,
};

/* First, so that the breakpoints are out before others look at the text for the last time. */
static struct notifier_block going_notifier = {
	.notifier_call	= on_going,
	.priority	= INT_MAX,
};

int dprobes_modules_init(void)
{
	int err;

	err = register_module_notifier(&going_notifier);
	if (err)
		return err;
	err = register_module_notifier(&coming_notifier);
	if (err)
		unregister_module_notifier(&going_notifier);
	return err;
}

void dprobes_modules_exit(void)
{
	unregister_module_notifier(&coming_notifier);
	unregister_module_notifier(&going_notifier);
}
