// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A queue of packets with hooks. It works the same whether the gkhi module is there or not.
 *
 *	echo "1500 3" > /sys/module/sample_queue/parameters/submit	submits three packets of 1500 bytes; fails as the last one does
 *	echo 1 > /sys/module/sample_queue/parameters/flush		throws them away
 *	insmod sample_queue.ko threads=2				two threads submit packets until the module is unloaded
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

#include "sample_queue.h"

#define MAX_THREADS 16

GKHI_DEFINE_HOOK(sample_enqueue);
GKHI_DEFINE_HOOK(sample_admit);
GKHI_DEFINE_EXCLUSIVE_HOOK(sample_flush);
GKHI_DEFINE_HOOK(sample_look);

static int threads;
module_param(threads, int, 0444);
MODULE_PARM_DESC(threads, "kernel threads that submit packets all the time (0 to 16)");

static struct task_struct *runners[MAX_THREADS];
static atomic64_t submitted;
static atomic64_t queued;
static atomic64_t marks;

static noinline int admit(const struct sample_packet *packet)
{
	GKHI_HOOK_RETURN(sample_admit, packet);
	return packet->length ? 0 : -EINVAL;
}

static noinline void enqueue(struct sample_packet *packet)
{
	GKHI_HOOK(sample_enqueue, packet);
	atomic64_inc(&queued);
	atomic64_add(packet->mark, &marks);
}

static noinline void flush(void)
{
	GKHI_HOOK_RETURN_VOID(sample_flush, (u32)atomic64_read(&queued));
	atomic64_set(&queued, 0);
}

static inline u64 look(void)
{
	u64 length = atomic64_read(&queued);

	GKHI_HOOK(sample_look, length);
	return length;
}

static int submit(u32 length)
{
	struct sample_packet packet = { .number = atomic64_inc_return(&submitted), .length = length };
	int err;

	err = admit(&packet);
	if (!err)
		enqueue(&packet);
	return err;
}

static int run(void *unused)
{
	while (!kthread_should_stop()) {
		submit(64);
		cond_resched();
	}
	return 0;
}

static int set_submit(const char *text, const struct kernel_param *param)
{
	unsigned int length, count = 1;
	int err = 0;

	if (sscanf(text, "%u %u", &length, &count) < 1)
		return -EINVAL;
	while (count--)
		err = submit(length);
	return err;
}

static int set_flush(const char *text, const struct kernel_param *param)
{
	flush();
	return 0;
}

static int show_submitted(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&submitted));
}

static int show_queued(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%llu\n", look());
}

static int show_marks(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&marks));
}

static const struct kernel_param_ops submit_operations = { .set = set_submit };
module_param_cb(submit, &submit_operations, NULL, 0200);
static const struct kernel_param_ops flush_operations = { .set = set_flush };
module_param_cb(flush, &flush_operations, NULL, 0200);
static const struct kernel_param_ops submitted_operations = { .get = show_submitted };
module_param_cb(submitted, &submitted_operations, NULL, 0400);
static const struct kernel_param_ops queued_operations = { .get = show_queued };
module_param_cb(queued, &queued_operations, NULL, 0400);
static const struct kernel_param_ops marks_operations = { .get = show_marks };
module_param_cb(marks, &marks_operations, NULL, 0400);

static void stop_threads(void)
{
	int i;

	for (i = 0; i < MAX_THREADS && runners[i]; i++)
		kthread_stop(runners[i]);
}

static int __init sample_queue_init(void)
{
	int i;

	if (threads < 0 || threads > MAX_THREADS)
		return -EINVAL;
	for (i = 0; i < threads; i++) {
		struct task_struct *runner = kthread_run(run, NULL, "sample_queue/%d", i);

		if (IS_ERR(runner)) {
			stop_threads();
			return PTR_ERR(runner);
		}
		runners[i] = runner;
	}
	return 0;
}
module_init(sample_queue_init);

static void __exit sample_queue_exit(void)
{
	stop_threads();
}
module_exit(sample_queue_exit);

MODULE_DESCRIPTION("A queue with hooks");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
