// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Text and slots: writing them, and waiting until nobody runs what was there before.
 */
#include <linux/cpu.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

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

static DEFINE_PER_CPU(struct work_struct, switches);
static DEFINE_MUTEX(switches_lock);

static void do_nothing(struct work_struct *work)
{
}

/*
 * Every CPU that is on line has switched tasks. This is what synchronize_rcu_tasks_rude() was: in 7.2 that waits for nobody on x86, because what
 * the function tracer may enter has RCU watching. A slot is not told apart from the code that it stands for.
 */
static void switch_tasks_everywhere(void)
{
	unsigned int cpu;

	mutex_lock(&switches_lock);
	cpus_read_lock();
	for_each_online_cpu(cpu) {
		INIT_WORK(per_cpu_ptr(&switches, cpu), do_nothing);
		queue_work_on(cpu, system_highpri_wq, per_cpu_ptr(&switches, cpu));
	}
	for_each_online_cpu(cpu)
		flush_work(per_cpu_ptr(&switches, cpu));
	cpus_read_unlock();
	mutex_unlock(&switches_lock);
}

/*
 * Nobody is inside the slot area any more who was at the beginning:
 *
 * - a task that runs there, or was interrupted or preempted there: every task, idle ones excepted, has slept, been in user space
 *   or ended (Tasks RCU). No task sleeps with a slot to return to:
 *   a page fault leaves the slot before anything else is done about it (trap.c).
 * - an idle task, or an interrupt handler: every CPU has switched tasks. Idle tasks and handlers run
 *   with preemption disabled, so that the switch came after the handler was left and the idle task was back in its loop. That holds also when the
 *   interrupt that arrived in a slot goes on to run softirqs, with interrupts enabled.
 */
void dprobes_host_grace_period(void)
{
	dprobes_host_sync_cores();
	synchronize_rcu_tasks();
	switch_tasks_everywhere();
}
