// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Watchpoints in one process: a perf event for each of its threads. Threads that begin later inherit it from the one that makes them; children do
 * not, and another program that the process becomes (exec) has other memory at the address, and is not watched.
 */
#include <linux/err.h>
#include <linux/hw_breakpoint.h>
#include <linux/list.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "compat.h"
#include "watch.h"

/* The event of a thread that was there already. Those that inherit it go with it. */
struct watched_thread {
	struct list_head others;
	struct perf_event *event;
};

/* By the number of the watchpoint. The control path's own. */
static struct list_head watched[HBP_NUM];

/* Has the thread such an event, its own or an inherited one? */
static bool is_watched(struct task_struct *thread, perf_overflow_handler_t on_hit, void *number)
{
	struct perf_event_context *context;
	struct perf_event *event;
	unsigned long flags;
	bool found = false;

	rcu_read_lock();
	context = rcu_dereference(*COMPAT_CONTEXT_OF_BREAKPOINTS(thread));
	if (context) {
		raw_spin_lock_irqsave(&context->lock, flags);
		list_for_each_entry(event, &context->event_list, event_entry)
			found |= event->overflow_handler == on_hit && event->overflow_handler_context == number;
		raw_spin_unlock_irqrestore(&context->lock, flags);
	}
	rcu_read_unlock();
	return found;
}

/* A thread that lives and is not watched, with a reference; NULL if there is none. */
static struct task_struct *next_unwatched(struct task_struct *process, perf_overflow_handler_t on_hit, void *number)
{
	struct task_struct *thread, *found = NULL;

	rcu_read_lock();
	for_each_thread(process, thread) {
		if (READ_ONCE(thread->flags) & PF_EXITING || is_watched(thread, on_hit, number))
			continue;
		found = get_task_struct(thread);
		break;
	}
	rcu_read_unlock();
	return found;
}

static int watch_thread(struct task_struct *thread, unsigned int number, struct perf_event_attr *attr,
			perf_overflow_handler_t on_hit)
{
	struct watched_thread *new = kmalloc(sizeof(*new), GFP_KERNEL);

	if (!new)
		return -ENOMEM;
	new->event = perf_event_create_kernel_counter(attr, -1, thread, on_hit, (void *)(unsigned long)number);
	if (IS_ERR(new->event)) {
		int err = PTR_ERR(new->event);

		kfree(new);
		return err;
	}
	list_add(&new->others, &watched[number]);
	return 0;
}

void dprobes_unwatch_process(unsigned int number)
{
	struct watched_thread *thread, *next;

	if (!watched[number].next)
		return;
	list_for_each_entry_safe(thread, next, &watched[number], others) {
		perf_event_release_kernel(thread->event);
		kfree(thread);
	}
	INIT_LIST_HEAD(&watched[number]);
}

int dprobes_watch_process(unsigned int number, struct perf_event_attr *attr, perf_overflow_handler_t on_hit, u32 pid)
{
	struct task_struct *process, *thread;
	int err = 0;

	rcu_read_lock();
	process = get_pid_task(find_vpid(pid), PIDTYPE_TGID);
	rcu_read_unlock();
	if (!process)
		return -ESRCH;
	attr->inherit = 1;
	attr->inherit_thread = 1;
	attr->remove_on_exec = 1;
	INIT_LIST_HEAD(&watched[number]);
	/* One that is made meanwhile by one that is watched is watched from its beginning: this comes to an end. */
	while (!err && (thread = next_unwatched(process, on_hit, (void *)(unsigned long)number))) {
		err = watch_thread(thread, number, attr, on_hit);
		/* It is ending, and does nothing any more. */
		if (err == -ESRCH && READ_ONCE(thread->flags) & PF_EXITING)
			err = 0;
		put_task_struct(thread);
		cond_resched();
	}
	put_task_struct(process);
	if (!err && list_empty(&watched[number]))
		err = -ESRCH;
	if (err)
		dprobes_unwatch_process(number);
	return err;
}
