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

static struct page *text_page(unsigned long address)
{
	if (dprobes_symbols.core_kernel_text(address))
		return pfn_to_page(__pa_symbol(address) >> PAGE_SHIFT);
	if (address >= MODULES_VADDR && address < MODULES_END)
		return vmalloc_to_page((void *)address);
	return NULL;
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
 * Are instructions translated by QEMU (TCG) rather than executed? Its 7.2 removes the translation of what is stored to before it
 * stores. A CPU that translates in between runs the old code for ever after: a breakpoint that has been removed traps
 * again and again. A second store, when no translation from before the first is under way any more, is noticed.
 */
static bool misses_stores(void)
{
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && hypervisor_cpuid_base("TCGTCGTCGTCG", 0);
}

static bool length_is_valid(const struct dprobes_patch *patch)
{
	return patch->len >= 1 && patch->len <= sizeof(patch->bytes);
}

static void write_patch(u8 *to, const struct dprobes_patch *patch)
{
	if (patch->len == 1)
		WRITE_ONCE(*to, patch->bytes[0]);
	else
		memcpy(to, patch->bytes, patch->len);
}

/* Writes the leading patches, as many as lie on the same pages, and returns how many; 0 when the first cannot be written. */
static uintptr_t write_window(const struct dprobes_patch *patches, uintptr_t count)
{
	const unsigned long first = patches->address & PAGE_MASK;
	unsigned long span;
	struct page *pages[4];
	uintptr_t fit, i;
	u8 *window;

	if (!length_is_valid(patches))
		return 0;
	/* Twice, for a second store through a mapping that the CPU does not know yet. */
	pages[0] = pages[2] = text_page(patches->address);
	pages[1] = pages[3] = text_page(patches->address + patches->len - 1);
	if (!pages[0] || !pages[1])
		return 0;
	span = pages[0] == pages[1] ? PAGE_SIZE : 2 * PAGE_SIZE;
	if (span == PAGE_SIZE)
		pages[1] = pages[0];
	window = vmap(pages, misses_stores() ? 2 * (span >> PAGE_SHIFT) : span >> PAGE_SHIFT, VM_MAP, PAGE_KERNEL);
	if (!window)
		return 0;
	for (fit = 0; fit < count; fit++) {
		const struct dprobes_patch *patch = &patches[fit];

		if (!length_is_valid(patch) || patch->address < first ||
		    patch->address + patch->len > first + span)
			break;
		write_patch(window + (patch->address - first), patch);
	}
	if (misses_stores()) {
		/* Without a pause: a CPU that runs the old code may never come back to this task. */
		preempt_disable();
		dprobes_host_sync_cores();
		for (i = 0; i < fit; i++)
			write_patch(window + span + (patches[i].address - first), &patches[i]);
		preempt_enable();
	}
	vunmap(window);
	return fit;
}

uintptr_t dprobes_host_write_text(const struct dprobes_patch *patches, uintptr_t count)
{
	uintptr_t done = 0;
	uintptr_t more;

	mutex_lock(dprobes_symbols.text_mutex);
	do {
		more = done < count ? write_window(patches + done, count - done) : 0;
		done += more;
	} while (more);
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
