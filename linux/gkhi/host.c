// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What Linux provides to the registry.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/mutex.h>
#include <linux/panic.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/uaccess.h>

#include "shim.h"
#include "text_alias.h"

static_assert(offsetof(struct gkhi_write, address) == offsetof(struct text_patch, address));
static_assert(offsetof(struct gkhi_write, len) == offsetof(struct text_patch, len));
static_assert(offsetof(struct gkhi_write, bytes) == offsetof(struct text_patch, bytes));

/* How long others wait for somebody who waits for exits to end. */
#define PATIENCE HZ

static DEFINE_MUTEX(registry_lock);
/* Since when the holder of the lock has been waiting for exits to end; 0: it has not. */
static unsigned long waiting_since;

/*
 * Whoever holds the lock may wait for an exit to end, and the caller may be in that exit, which nobody can tell here. So
 * that they do not wait for each other for ever, the caller gives up after a while.
 */
static bool host_lock(void)
{
	unsigned long since;

	if (in_atomic() || irqs_disabled())
		return false;
	while (!mutex_trylock(&registry_lock)) {
		since = READ_ONCE(waiting_since);
		if (since && time_after(jiffies, since + PATIENCE))
			return false;
		usleep_range(100, 1000);
	}
	return true;
}

static void host_unlock(void)
{
	WRITE_ONCE(waiting_since, 0);
	mutex_unlock(&registry_lock);
}

static void host_relax(void)
{
	if (!waiting_since)
		WRITE_ONCE(waiting_since, jiffies ?: 1);
	usleep_range(20, 200);
}

static bool is_text(unsigned long address)
{
	bool module;

	if (gkhi_symbols.core_kernel_text(address))
		return true;
	preempt_disable();
	module = gkhi_symbols.__module_text_address(address);
	preempt_enable();
	return module;
}

static int host_read_text(uintptr_t address, u8 *bytes, uintptr_t length)
{
	const uintptr_t last = address + length - 1;

	if (!length || !is_text(address) || ((address ^ last) & PAGE_MASK && !is_text(last)))
		return -EFAULT;
	return copy_from_kernel_nofault(bytes, (void *)address, length);
}

static uintptr_t host_write_text(const struct gkhi_write *writes, uintptr_t count)
{
	return text_alias_write(writes, sizeof(*writes), count);
}

static u32 host_cpu_count(void)
{
	return nr_cpu_ids;
}

/* On x86-64 the address of a per-CPU variable is its offset from GS. */
static uintptr_t host_alloc_counters(void)
{
	return (uintptr_t)__alloc_percpu(sizeof(struct gkhi_counters), __alignof__(struct gkhi_counters));
}

static void host_free_counters(uintptr_t offset)
{
	free_percpu((void __percpu *)offset);
}

static const struct gkhi_counters *host_counters(u32 cpu, uintptr_t offset)
{
	return cpu_possible(cpu) ? per_cpu_ptr((struct gkhi_counters __percpu *)offset, cpu) : NULL;
}

static void host_stack(uintptr_t *start, uintptr_t *end)
{
	*start = current_stack_pointer;
	*end = (uintptr_t)task_stack_page(current) + THREAD_SIZE;
}

/* The library is broken: going on could damage the system. */
static void host_panic(const char *message, uintptr_t length)
{
	panic("%.*s", (int)length, message);
}

const struct gkhi_host gkhi_linux_host = {
	.version	= GKHI_HOST_VERSION,
	.size		= sizeof(struct gkhi_host),
	.lock		= host_lock,
	.unlock		= host_unlock,
	.changed	= gkhi_tree_refresh,
	.relax		= host_relax,
	.read_text	= host_read_text,
	.write_text	= host_write_text,
	.sync_cores	= text_alias_sync_cores,
	.cpu_count	= host_cpu_count,
	.alloc_counters	= host_alloc_counters,
	.free_counters	= host_free_counters,
	.counters	= host_counters,
	.stack		= host_stack,
	.panic		= host_panic,
};
