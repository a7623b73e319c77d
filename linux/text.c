// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Writing text, and waiting until nobody runs what was there before.
 *
 * Text is read-only where it is executed, and stays so. It is written through an alias: the same pages, mapped writable and
 * not executable for the time of the write. CR0.WP is not touched.
 */
#include <asm/cpufeature.h>
#include <asm/processor.h>
#include <asm/sync_core.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "shim.h"

/* A writable window on up to two pages of text. */
struct alias {
	unsigned long first;	/* address of the first page */
	unsigned long end;	/* address after the last page; 0: nothing is mapped */
	void *window;
};

static struct page *text_page(unsigned long address)
{
	if (dprobes_symbols.core_kernel_text(address))
		return pfn_to_page(__pa_symbol(address) >> PAGE_SHIFT);
	if (address >= MODULES_VADDR && address < MODULES_END)
		return vmalloc_to_page((void *)address);
	return NULL;
}

static void alias_close(struct alias *alias)
{
	if (alias->end)
		vunmap(alias->window);
	alias->end = 0;
}

/* Where to write so that `length` bytes at `address` change; NULL when they cannot be mapped. */
static u8 *alias_open(struct alias *alias, unsigned long address, size_t length)
{
	unsigned long last = address + length - 1;
	struct page *pages[2];
	int count;

	if (!alias->end || address < alias->first || last >= alias->end) {
		alias_close(alias);
		pages[0] = text_page(address);
		pages[1] = text_page(last);
		if (!pages[0] || !pages[1])
			return NULL;
		count = pages[0] == pages[1] ? 1 : 2;
		alias->window = vmap(pages, count, VM_MAP, PAGE_KERNEL);
		if (!alias->window)
			return NULL;
		alias->first = address & PAGE_MASK;
		alias->end = alias->first + count * PAGE_SIZE;
	}
	return alias->window + (address - alias->first);
}

/* How many of the patches were written: all, or those before the first that cannot be. */
static uintptr_t write_patches(const struct dprobes_patch *patches, uintptr_t count)
{
	struct alias alias = {};
	uintptr_t done;
	u8 *to;

	for (done = 0; done < count; done++) {
		const struct dprobes_patch *patch = &patches[done];

		if (patch->len < 1 || patch->len > sizeof(patch->bytes))
			break;
		to = alias_open(&alias, patch->address, patch->len);
		if (!to)
			break;
		if (patch->len == 1)
			WRITE_ONCE(*to, patch->bytes[0]);
		else
			memcpy(to, patch->bytes, patch->len);
	}
	alias_close(&alias);
	return done;
}

/*
 * Are instructions translated by QEMU (TCG) rather than executed? Its 7.2 reads the code that it translates before it begins to watch the
 * page for writes: a store by another CPU in between is missed, and the old code runs for ever after. A second store
 * after all CPUs have been interrupted, and no translation is under way any more, is noticed.
 */
static bool misses_stores(void)
{
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && hypervisor_cpuid_base("TCGTCGTCGTCG", 0);
}

uintptr_t dprobes_host_write_text(const struct dprobes_patch *patches, uintptr_t count)
{
	uintptr_t done;

	mutex_lock(dprobes_symbols.text_mutex);
	done = write_patches(patches, count);
	if (misses_stores()) {
		dprobes_host_sync_cores();
		done = write_patches(patches, done);
	}
	mutex_unlock(dprobes_symbols.text_mutex);
	return done;
}

/* Fills the slot area with int3, so that a stray jump into it is noticed at once. */
int dprobes_slots_init(void)
{
	const unsigned int count = DPROBES_SLOTS_SIZE / PAGE_SIZE;
	struct page **pages;
	unsigned int i;
	void *window;

	pages = kcalloc(count, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		pages[i] = vmalloc_to_page(dprobes_slots + i * PAGE_SIZE);
	window = vmap(pages, count, VM_MAP, PAGE_KERNEL);
	kfree(pages);
	if (!window)
		return -ENOMEM;
	memset(window, 0xcc, DPROBES_SLOTS_SIZE);
	vunmap(window);
	return 0;
}

static void serialise(void *unused)
{
	sync_core();
}

/*
 * The interrupt that does it is taken with interrupts on, so that it also waits for every trap handler that runs with interrupts
 * off, an NMI's included.
 */
void dprobes_host_sync_cores(void)
{
	on_each_cpu(serialise, NULL, 1);
}

/*
 * Nobody is inside the slot area any more who was at the beginning:
 *
 * - a task that runs there, or was interrupted or preempted there: every task, idle ones excepted, has slept, been in user space
 *   or ended (Tasks RCU). The engine's copies do not sleep.
 * - an idle task, or an interrupt handler: every CPU has switched tasks (Tasks RCU, rude kind). Idle tasks and handlers run
 *   with preemption disabled, so that the switch came after the handler was left and the idle task was back in its loop. That holds also when the
 *   interrupt that arrived in a slot goes on to run softirqs, with interrupts enabled.
 */
void dprobes_host_grace_period(void)
{
	dprobes_host_sync_cores();
	synchronize_rcu_tasks();
	synchronize_rcu_tasks_rude();
}
