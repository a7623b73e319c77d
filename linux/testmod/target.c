// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Something to probe: a function whose rounds are counted, so that a test can compare them with the hits of a probe in its
 * middle.
 *
 *   echo 1000000 > /dev/dprobes_target	runs a million rounds in the writer's context
 *   insmod dprobes_target.ko threads=2	runs rounds in two kernel threads until the module is unloaded
 *   insmod dprobes_target.ko delay=500	takes half a second in its init; threads=17 has that fail, after the delay and 1000 rounds
 *
 * /sys/module/dprobes_target/parameters/ has `rounds`, how many were run, and `middle`, the address of the
 * instruction that is executed once a round.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/uaccess.h>

#include "returning.h"

#define MAX_THREADS 16

static int threads;
module_param(threads, int, 0444);
MODULE_PARM_DESC(threads, "kernel threads that run rounds all the time (0 to 16)");

static int delay;
module_param(delay, int, 0444);
MODULE_PARM_DESC(delay, "milliseconds that loading takes");

static struct task_struct *runners[MAX_THREADS];
static atomic64_t rounds_run;

/* Written by the assembler: where the instruction in the middle is. */
extern const unsigned long dprobes_target_middle_address;

/* Not static, and not to be cloned or inlined: there must be one copy, under this name. */
u64 dprobes_target_work(u64 rounds);

noinline __noclone u64 dprobes_target_work(u64 rounds)
{
	u64 sum = 0;
	u64 i;

	for (i = 0; i < rounds; i++) {
		asm volatile(ANNOTATE_NOENDBR "\n10: add %[i], %[sum]\n"
			     ".pushsection .rodata, \"a\"\n"
			     ".balign 8\n"
			     "dprobes_target_middle_address: .quad 10b\n"
			     ".popsection\n"
			     : [sum] "+r" (sum)
			     : [i] "r" (i)
			     : "cc");
	}
	atomic64_add(rounds, &rounds_run);
	return sum;
}

/*
 * A thread that never sleeps, as these, would hold up Tasks RCU, and with it whoever takes probes out, if it did not say now and
 * then that it is in no trampoline.
 */
static int run(void *unused)
{
	while (!kthread_should_stop()) {
		dprobes_target_work(100);
		cond_resched_tasks_rcu_qs();
	}
	return 0;
}

static ssize_t target_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	u64 rounds;
	int err;

	err = kstrtoull_from_user(from, length, 0, &rounds);
	if (err)
		return err;
	while (rounds && !fatal_signal_pending(current)) {
		u64 some = min_t(u64, rounds, 10000);

		dprobes_target_work(some);
		rounds -= some;
		cond_resched_tasks_rcu_qs();
	}
	return length;
}

static const struct file_operations target_operations = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
	.write	= target_write,
};

static struct miscdevice target_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_target",
	.fops	= &target_operations,
	.mode	= 0600,
};

static int show_rounds(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&rounds_run));
}

static const struct kernel_param_ops rounds_operations = { .get = show_rounds };
module_param_cb(rounds, &rounds_operations, NULL, 0400);

static int show_middle(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "0x%lx\n", dprobes_target_middle_address);
}

static const struct kernel_param_ops middle_operations = { .get = show_middle };
module_param_cb(middle, &middle_operations, NULL, 0400);

static void stop_threads(void)
{
	int i;

	for (i = 0; i < MAX_THREADS && runners[i]; i++)
		kthread_stop(runners[i]);
}

static int __init target_init(void)
{
	int i, err;

	msleep(delay);
	dprobes_target_work(1000);
	if (threads < 0 || threads > MAX_THREADS)
		return -EINVAL;
	err = misc_register(&target_device);
	if (err)
		return err;
	err = returning_init();
	if (err)
		goto deregister;
	for (i = 0; i < threads; i++) {
		struct task_struct *runner = kthread_run(run, NULL, "target/%d", i);

		if (IS_ERR(runner)) {
			err = PTR_ERR(runner);
			goto stop;
		}
		runners[i] = runner;
	}
	return 0;

stop:
	stop_threads();
	returning_exit();
deregister:
	misc_deregister(&target_device);
	return err;
}
module_init(target_init);

static void __exit target_exit(void)
{
	stop_threads();
	returning_exit();
	misc_deregister(&target_device);
}
module_exit(target_exit);

MODULE_DESCRIPTION("Something for DProbes to probe");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
