// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The table of what Linux provides to the engine, and the entries of it that are too small for a file of their own.
 */
#include <asm/word-at-a-time.h>
#include <linux/bug.h>
#include <linux/cpumask.h>
#include <linux/cred.h>
#include <linux/kprobes.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "compat.h"
#include "shim.h"

static u64 host_now(void)
{
	return ktime_get_mono_fast_ns();
}
NOKPROBE_SYMBOL(host_now);

/* A word of a name with nothing behind its end. True if that is in it. */
static __always_inline bool end_name(unsigned long *word)
{
	const struct word_at_a_time constants = WORD_AT_A_TIME_CONSTANTS;
	unsigned long bits;

	if (!has_zero(*word, &bits, &constants))
		return false;
	bits = prep_zero_mask(*word, bits, &constants);
	*word &= zero_bytemask(create_zero_mask(bits));
	return true;
}

static void host_task(struct dprobes_task *task)
{
	unsigned long name[TASK_COMM_LEN / sizeof(unsigned long)];

	BUILD_BUG_ON(sizeof(task->name) != TASK_COMM_LEN || sizeof(name) != 2 * sizeof(*name));
	task->pid = current->tgid;
	task->tid = current->pid;
	task->uid = __kuid_val(current_uid());
	task->reserved = 0;
	task->cookie = (unsigned long)current;
	/* Another task may be changing the name: any mixture of the old and the new will do, as long as it ends. */
	memcpy(name, current->comm, sizeof(name));
	if (end_name(&name[0]))
		name[1] = 0;
	else
		end_name(&name[1]);
	memcpy(task->name, name, sizeof(name));
}
NOKPROBE_SYMBOL(host_task);

static u32 host_cpu_count(void)
{
	return nr_cpu_ids;
}

static void host_slot_area(u64 *start, u64 *end)
{
	*start = (unsigned long)dprobes_slots;
	*end = *start + DPROBES_SLOTS_SIZE;
}

/* The library is broken: going on could damage the system that it was to observe. */
static void host_panic(const char *message, uintptr_t length)
{
	panic("%.*s", (int)length, message);
}

const struct dprobes_host dprobes_linux_host = {
	.version	= DPROBES_HOST_VERSION,
	.size		= sizeof(struct dprobes_host),
	.cpu_at		= (u64)COMPAT_CPU_NUMBER,
	.read		= dprobes_host_read,
	.write		= dprobes_host_write,
	.now		= host_now,
	.task		= host_task,
	.user_registers	= dprobes_host_user_registers,
	.set_user_registers = dprobes_host_set_user_registers,
	.msr		= dprobes_host_msr,
	.writable	= dprobes_host_writable,
	.kernel_stack	= dprobes_host_kernel_stack,
	.exit_to	= dprobes_host_exit_to,
	.deliver	= dprobes_host_deliver,
	.target		= dprobes_host_target,
	.facility	= dprobes_host_facility,
	.follow_return	= dprobes_host_follow_return,
	.follow_again	= dprobes_host_follow_again,
	.request_reap	= dprobes_host_request_reap,
	.sentry		= dprobes_host_sentry,
	.cpu_count	= host_cpu_count,
	.slot_area	= host_slot_area,
	.probeable	= dprobes_host_probeable,
	.module_base	= dprobes_host_module_base,
	.symbol		= dprobes_host_symbol,
	.write_text	= dprobes_host_write_text,
	.sync_cores	= dprobes_host_sync_cores,
	.grace_period	= dprobes_host_grace_period,
#ifdef CONFIG_UPROBES
	.user_file	= dprobes_host_user_file,
	.read_user_file	= dprobes_host_read_user_file,
	.attach_user	= dprobes_host_attach_user,
	.detach_user	= dprobes_host_detach_user,
#endif
	.attach_return	= dprobes_host_attach_return,
	.detach_return	= dprobes_host_detach_return,
	.function_at	= dprobes_host_function_at,
	.set_watchpoint	= dprobes_host_set_watchpoint,
	.clear_watchpoint = dprobes_host_clear_watchpoint,
	.lock_rewrites	= dprobes_host_lock_rewrites,
	.unlock_rewrites = dprobes_host_unlock_rewrites,
	.alloc		= dprobes_host_alloc,
	.free		= dprobes_host_free,
	.panic		= host_panic,
};
