// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The trap source "idt": the module's own entry in front of the kernel's breakpoint gate.
 *
 * A hit costs a third of what it costs through the die notifier, which stays registered for single steps and faults. The kernel's entry is
 * told nothing of a hit: neither RCU nor the tracers nor the NMI count know that one is being handled.
 *
 * The table is mapped writable only while it is changed, with all other CPUs stopped: a CPU that takes the exception may read the gate in
 * pieces.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/cpufeature.h>
#include <asm/desc.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/stop_machine.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "shim.h"

static char *trap = "notifier";
module_param(trap, charp, 0444);
MODULE_PARM_DESC(trap, "how breakpoints reach the engine: notifier (default), or idt, which is faster and replaces an interrupt gate");

/* Where the entry goes on to; set before it first runs. */
u64 dprobes_kernel_entry;
static bool installed;

struct change {
	void *idt;
	bool install;
};

static int change_gate(void *data)
{
	const struct change *change = data;

	if (change->install)
		return dprobes_install_gate(change->idt, (u64)dprobes_breakpoint_entry, &dprobes_kernel_entry);
	return dprobes_restore_gate(change->idt);
}

static int change_with_others_stopped(bool install)
{
	struct change change = { .install = install };
	struct page *page = virt_to_page(lm_alias(dprobes_symbols.idt_table));
	void *window;
	int err;

	window = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!window)
		return -ENOMEM;
	change.idt = window + offset_in_page(dprobes_symbols.idt_table);
	err = stop_machine(change_gate, &change, NULL);
	vunmap(window);
	return err;
}

/* Why the gate cannot be replaced on this machine, or NULL. */
static const char *obstacle(void)
{
	if (boot_cpu_has(X86_FEATURE_PTI))
		return "page-table isolation is on, and the entry is not mapped for user mode (boot with pti=off if you may)";
	if (boot_cpu_has(X86_FEATURE_XENPV))
		return "the hypervisor owns the gates";
#ifdef X86_FEATURE_FRED
	if (boot_cpu_has(X86_FEATURE_FRED))
		return "the CPU delivers events by FRED and uses no gates";
#endif
	return NULL;
}

int dprobes_gate_init(void)
{
	const char *why;
	int err;

	if (!strcmp(trap, "notifier"))
		return 0;
	if (strcmp(trap, "idt")) {
		pr_err("trap=%s: must be notifier or idt\n", trap);
		return -EINVAL;
	}
	why = obstacle();
	if (why) {
		pr_err("trap=idt is not possible: %s; trap=notifier is\n", why);
		return -EOPNOTSUPP;
	}
	err = change_with_others_stopped(true);
	if (err)
		pr_err("trap=idt is not possible: the breakpoint gate cannot be replaced (%d); trap=notifier is\n", err);
	installed = !err;
	return err;
}

/*
 * No CPU is in the entry when this returns true: each has run the task that stopped it, which it cannot in the middle of a breakpoint. False when
 * somebody has put a gate in front of ours, and keeps the way to it.
 */
bool dprobes_gate_exit(void)
{
	if (installed && !change_with_others_stopped(false))
		installed = false;
	return !installed;
}

/* Does a hit come without the kernel's knowing? */
bool dprobes_gate_installed(void)
{
	return installed;
}
