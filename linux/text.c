// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Text and slots: writing them, and waiting until nobody runs what was there before.
 */
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "shim.h"
#include "text_alias.h"

static_assert(offsetof(struct dprobes_patch, address) == offsetof(struct text_patch, address));
static_assert(offsetof(struct dprobes_patch, len) == offsetof(struct text_patch, len));
static_assert(offsetof(struct dprobes_patch, bytes) == offsetof(struct text_patch, bytes));

uintptr_t dprobes_host_write_text(const struct dprobes_patch *patches, uintptr_t count)
{
	return text_alias_write(patches, sizeof(*patches), count);
}

void dprobes_host_sync_cores(void)
{
	text_alias_sync_cores();
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
 *   or ended (Tasks RCU). No task sleeps with a slot to return to:
 *   a page fault leaves the slot before anything else is done about it (trap.c).
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
