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
#include <linux/sched.h>
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

/* Where CPUID says whose virtual machine this is. */
#define HYPERVISOR_LEAF 0x40000000

/*
 * Are instructions translated by QEMU (TCG) rather than executed? Its 7.2 removes the translation of what is stored to before it
 * stores. A CPU that translates in between runs the old code for ever after: a breakpoint that has been removed traps
 * again and again. A second store, when no translation from before the first is under way any more, is noticed.
 */
static bool misses_stores(void)
{
	u32 leaf = HYPERVISOR_LEAF, subleaf = 0;
	u32 signature[3];

	if (!boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return false;
	/* EBX, ECX, EDX. The kernel's own function is in another header every few versions. */
	asm volatile("cpuid"
		     : "+a" (leaf), "=b" (signature[0]), "+c" (subleaf), "=d" (signature[2]));
	signature[1] = subleaf;
	return !memcmp(signature, "TCGTCGTCGTCG", sizeof(signature));
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

/*
 * The pages that are mapped at once, in ascending order, whatever lies between them: thousands of places in text cost few mappings. Under
 * the lock.
 */
#define WINDOW_PAGES 256

static struct {
	size_t count;
	unsigned long addresses[WINDOW_PAGES];
	/* Twice, for a second store through a mapping that the CPU does not know yet. */
	struct page *pages[2 * WINDOW_PAGES];
} window;

/* So many patches are written without a pause at most. */
#define WINDOW_PATCHES 4096

/* Has the page with this address in the window, behind all others that are; false when there is no room, or no such page of text. */
static bool add_page(unsigned long address)
{
	struct page *page;

	if (window.count && window.addresses[window.count - 1] == address)
		return true;
	if (window.count == WINDOW_PAGES)
		return false;
	page = text_page(address);
	if (!page)
		return false;
	window.addresses[window.count] = address;
	window.pages[window.count++] = page;
	return true;
}

/* Has the pages of the leading patches in the window, and returns of how many. */
static size_t gather(const struct patches *patches)
{
	size_t fit;

	window.count = 0;
	for (fit = 0; fit < patches->count && fit < WINDOW_PATCHES; fit++) {
		const struct text_patch *patch = patch_at(patches, fit);
		const size_t before = window.count;

		if (!length_is_valid(patches, patch))
			break;
		if (before && (patch->address & PAGE_MASK) < window.addresses[before - 1])
			break;	/* of a patch that reached over a page's end */
		if (!add_page(patch->address & PAGE_MASK) ||
		    !add_page((patch->address + patch->len - 1) & PAGE_MASK)) {
			window.count = before;
			break;
		}
	}
	return fit;
}

/* Writes the leading patches, as many as were gathered, through the mapping of their pages. */
static void write_gathered(u8 *mapping, const struct patches *patches, size_t fit)
{
	size_t page = 0;
	size_t i;

	for (i = 0; i < fit; i++) {
		const struct text_patch *patch = patch_at(patches, i);

		while (window.addresses[page] != (patch->address & PAGE_MASK))
			page++;
		write_patch(mapping + page * PAGE_SIZE + offset_in_page(patch->address), patch);
	}
}

/* Writes leading patches, and returns how many; 0 when the first cannot be written. */
static size_t write_window(const struct patches *patches)
{
	const size_t fit = gather(patches);
	const size_t pages = window.count;
	u8 *mapping;

	if (!fit)
		return 0;
	memcpy(window.pages + pages, window.pages, pages * sizeof(window.pages[0]));
	mapping = vmap(window.pages, misses_stores() ? 2 * pages : pages, VM_MAP, PAGE_KERNEL);
	if (!mapping)
		return 0;
	write_gathered(mapping, patches, fit);
	if (misses_stores()) {
		/* Without a pause: a CPU that runs the old code may never come back to this task. */
		preempt_disable();
		text_alias_sync_cores();
		write_gathered(mapping + pages * PAGE_SIZE, patches, fit);
		preempt_enable();
	}
	vunmap(mapping);
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
		cond_resched();
	} while (more);
	mutex_unlock(lock);
	return done;
}
