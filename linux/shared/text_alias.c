// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Writing text.
 *
 * Text is read-only where it is executed, and stays so. It is written through an alias: the same pages, mapped writable and
 * not executable for the time of the write. CR0.WP is not touched.
 */
#include <asm/cpufeature.h>
#include <asm/processor.h>
#include <asm/sync_core.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "text_alias.h"

static struct mutex *lock;
static int (*is_core_text)(unsigned long address);

void text_alias_init(struct mutex *text_mutex, int (*core_kernel_text)(unsigned long address))
{
	lock = text_mutex;
	is_core_text = core_kernel_text;
}

static struct page *text_page(unsigned long address)
{
	if (is_core_text(address))
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
void text_alias_sync_cores(void)
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

/* The patches of a caller, whatever their size. */
struct patches {
	const u8 *first;
	size_t size;
	size_t count;
};

static const struct text_patch *patch_at(const struct patches *patches, size_t index)
{
	return (const struct text_patch *)(patches->first + index * patches->size);
}

static bool length_is_valid(const struct patches *patches, const struct text_patch *patch)
{
	return patch->len >= 1 && patch->len <= patches->size - offsetof(struct text_patch, bytes);
}

static void write_patch(u8 *to, const struct text_patch *patch)
{
	if (patch->len == 1)
		WRITE_ONCE(*to, patch->bytes[0]);
	else
		memcpy(to, patch->bytes, patch->len);
}

/* Writes the leading patches, as many as lie on the same pages, and returns how many; 0 when the first cannot be written. */
static size_t write_window(const struct patches *patches)
{
	const struct text_patch *patch = patch_at(patches, 0);
	const unsigned long first = patch->address & PAGE_MASK;
	unsigned long span;
	struct page *pages[4];
	size_t fit, i;
	u8 *window;

	if (!length_is_valid(patches, patch))
		return 0;
	/* Twice, for a second store through a mapping that the CPU does not know yet. */
	pages[0] = pages[2] = text_page(patch->address);
	pages[1] = pages[3] = text_page(patch->address + patch->len - 1);
	if (!pages[0] || !pages[1])
		return 0;
	span = pages[0] == pages[1] ? PAGE_SIZE : 2 * PAGE_SIZE;
	if (span == PAGE_SIZE)
		pages[1] = pages[0];
	window = vmap(pages, misses_stores() ? 2 * (span >> PAGE_SHIFT) : span >> PAGE_SHIFT, VM_MAP, PAGE_KERNEL);
	if (!window)
		return 0;
	for (fit = 0; fit < patches->count; fit++) {
		patch = patch_at(patches, fit);
		if (!length_is_valid(patches, patch) || patch->address < first ||
		    patch->address + patch->len > first + span)
			break;
		write_patch(window + (patch->address - first), patch);
	}
	if (misses_stores()) {
		/* Without a pause: a CPU that runs the old code may never come back to this task. */
		preempt_disable();
		text_alias_sync_cores();
		for (i = 0; i < fit; i++) {
			patch = patch_at(patches, i);
			write_patch(window + span + (patch->address - first), patch);
		}
		preempt_enable();
	}
	vunmap(window);
	return fit;
}

size_t text_alias_write(const void *patches, size_t size, size_t count)
{
	size_t done = 0;
	size_t more;

	mutex_lock(lock);
	do {
		const struct patches rest = { (const u8 *)patches + done * size, size, count - done };

		more = rest.count ? write_window(&rest) : 0;
		done += more;
	} while (more);
	mutex_unlock(lock);
	return done;
}
