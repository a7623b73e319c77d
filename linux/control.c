// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Control: one change to the probes at a time, whoever asks: a user, a module being unloaded, or a probe that is used up.
 *
 * Order of locks: control_mutex, kprobe_mutex, then what the kernel takes inside that (jump labels, text_mutex).
 */
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/workqueue.h>

#include "shim.h"

static DEFINE_MUTEX(control_mutex);

/*
 * kprobe_mutex keeps kprobes from being registered or optimised between the check that an address is nobody else's and the write of our
 * breakpoint. Two breakpoints at one address would each restore what they found there.
 */
void dprobes_control_lock(void)
{
	mutex_lock(&control_mutex);
	mutex_lock(dprobes_symbols.kprobe_mutex);
}

void dprobes_control_unlock(void)
{
	mutex_unlock(dprobes_symbols.kprobe_mutex);
	mutex_unlock(&control_mutex);
}

int dprobes_control_set_sentry(u64 address, u64 token)
{
	int err;

	dprobes_control_lock();
	err = dprobes_set_sentry(address, token);
	dprobes_control_unlock();
	return err;
}

int dprobes_control_clear_sentries(void)
{
	int err;

	dprobes_control_lock();
	err = dprobes_clear_sentries();
	dprobes_control_unlock();
	return err;
}

/* The file of a program for user space is a struct file. */
int dprobes_control_insert(const u8 *object, size_t length, const struct dprobes_insert_options *options,
			   struct dprobes_probe_status *last, size_t capacity, uintptr_t *count, struct dprobes_reply *reply)
{
	u64 facts[2];
	int err;

	dprobes_control_lock();
	dprobes_memory_was_refused(facts);
	err = dprobes_insert_as(object, length, options, last, capacity, count, reply);
	if (err && reply->reason == DPROBES_REASON_NO_MEMORY && dprobes_memory_was_refused(facts)) {
		reply->reason = DPROBES_REASON_MEMORY_BOUND;
		memcpy(reply->facts, facts, sizeof(facts));
	}
	dprobes_control_unlock();
	return err;
}

int dprobes_control_remove(const char *module, u16 major, struct dprobes_probe_status *last, size_t capacity,
			   uintptr_t *count, struct dprobes_reply *reply)
{
	int err;

	dprobes_control_lock();
	err = dprobes_remove((const u8 *)module, strnlen(module, DPROBES_MODULE_NAME_MAX), major, last, capacity,
			     count, reply);
	dprobes_control_unlock();
	return err;
}

int dprobes_control_disarm(const char *module, u16 major, u16 which, u16 number, struct dprobes_reply *reply)
{
	int err;

	dprobes_control_lock();
	err = dprobes_disarm((const u8 *)module, strnlen(module, DPROBES_MODULE_NAME_MAX), major, which, number,
			     reply);
	dprobes_control_unlock();
	return err;
}

int dprobes_control_remove_all(struct dprobes_reply *reply)
{
	int err;

	dprobes_control_lock();
	err = dprobes_remove_all(reply);
	dprobes_control_unlock();
	return err;
}

int dprobes_control_check(struct dprobes_point_check *checks, size_t count)
{
	int err;

	dprobes_control_lock();
	err = dprobes_check(checks, count);
	dprobes_control_unlock();
	return err;
}

s64 dprobes_control_query(struct dprobes_probe_status *buffer, size_t capacity)
{
	s64 count;

	mutex_lock(&control_mutex);
	count = dprobes_query(buffer, capacity);
	mutex_unlock(&control_mutex);
	return count;
}

s64 dprobes_control_maps(struct dprobes_map_status *buffer, size_t capacity)
{
	s64 count;

	mutex_lock(&control_mutex);
	count = dprobes_maps(buffer, capacity);
	mutex_unlock(&control_mutex);
	return count;
}

int dprobes_control_read_map(struct dprobes_read_map_request *request, u8 *buffer, size_t length)
{
	int err;

	mutex_lock(&control_mutex);
	err = dprobes_read_map(request, buffer, length);
	mutex_unlock(&control_mutex);
	return err;
}

int dprobes_control_vars(struct dprobes_vars_request *request, struct dprobes_var_status *buffer, size_t capacity)
{
	int err;

	mutex_lock(&control_mutex);
	err = dprobes_vars(request, buffer, capacity);
	mutex_unlock(&control_mutex);
	return err;
}

/* A probe is used up: its breakpoint is taken out by a worker, because the hit that noticed cannot sleep. */
static void reap(struct work_struct *work)
{
	dprobes_control_lock();
	dprobes_reap();
	dprobes_control_unlock();
}
static DECLARE_WORK(reap_work, reap);

static void queue_reap(struct irq_work *work)
{
	schedule_work(&reap_work);
}
static DEFINE_IRQ_WORK(reap_irq, queue_reap);

void dprobes_host_request_reap(void)
{
	irq_work_queue(&reap_irq);
}
NOKPROBE_SYMBOL(dprobes_host_request_reap);

/* No control function runs when this returns, and none will: the device is closed for good before, and nobody is told of modules. */
void dprobes_control_exit(void)
{
	irq_work_sync(&reap_irq);
	cancel_work_sync(&reap_work);
}
