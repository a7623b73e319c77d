// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Functions whose returns are probed: they are called as often as is asked, and counted, so that a test can compare that with the hits of probes
 * and with those of a kretprobe on the same function.
 *
 *   echo work 1000 > /dev/dprobes_returning	calls the function a thousand times, in the writer's context
 *   echo nested 100 > /dev/dprobes_returning	calls one that calls itself, a hundred deep; it returns how deep it was
 *   echo sleep 500 > /dev/dprobes_returning	calls one that sleeps half a second
 *   echo fault 10 > /dev/dprobes_returning	calls one whose first instruction faults: ten times memory is paged in for it, and ten times
 *						its fix-up is taken
 *   echo nmi 10 > /dev/dprobes_returning		has another CPU call one in ten NMIs, which come at any moment
 *   echo kretprobe 1 > /dev/dprobes_returning	has the first and the second watched by kretprobes; 0 ends that
 *
 * /sys/module/dprobes_target/parameters/ has `returned`, how many calls have returned; `returned_sum`, the sum of their results; and `kretprobes`, how
 * many of them the kretprobes have seen; and `nmis`, how many of the calls in NMIs have returned.
 */
#include <asm/apic.h>
#include <asm/asm.h>
#include <asm/nmi.h>
#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include "returning.h"

/* Not static, and not to be cloned or inlined: there must be one of each, under these names. */
u64 dprobes_returning_work(u64 value);
u64 dprobes_returning_nested(u64 more);
u64 dprobes_returning_sleep(u64 milliseconds);
u64 dprobes_returning_in_nmi(u64 value);
u64 dprobes_returning_load(unsigned long address);

static atomic64_t returned, returned_sum, kretprobes_hit;

noinline __noclone u64 dprobes_returning_work(u64 value)
{
	asm volatile("" : "+r" (value));
	return value + 1;
}

noinline __noclone u64 dprobes_returning_nested(u64 more)
{
	u64 deep = 1;

	if (more > 1)
		deep += dprobes_returning_nested(more - 1);
	/* Not a tail call. */
	barrier();
	return deep;
}

noinline __noclone u64 dprobes_returning_sleep(u64 milliseconds)
{
	msleep(milliseconds);
	barrier();
	return milliseconds;
}

noinline __noclone u64 dprobes_returning_in_nmi(u64 value)
{
	asm volatile("" : "+r" (value));
	return value + 1;
}

static atomic64_t nmis;
static atomic_t nmis_asked_for;

static int on_nmi(unsigned int kind, struct pt_regs *regs)
{
	/* Others may come. */
	if (atomic_dec_if_positive(&nmis_asked_for) < 0)
		return NMI_DONE;
	atomic64_add(dprobes_returning_in_nmi(0), &nmis);
	return NMI_HANDLED;
}

/* Sends one to another CPU and waits until it has been handled, for a while. Gives how many that were. */
static u64 nmi(u64 unused)
{
	const s64 before = atomic64_read(&nmis);
	unsigned int this = get_cpu();
	unsigned int other = cpumask_any_but(cpu_online_mask, this);
	unsigned int waited;

	if (other < nr_cpu_ids) {
		atomic_set(&nmis_asked_for, 1);
		apic->send_IPI_mask(cpumask_of(other), NMI_VECTOR);
		for (waited = 0; atomic64_read(&nmis) == before && waited < 1000000; waited++)
			udelay(1);
	}
	put_cpu();
	return atomic64_read(&nmis) - before;
}

/* Returns the word at an address, or -1 if it is not there. */
asm(".pushsection .text\n"
    ".globl dprobes_returning_load\n"
    ".type dprobes_returning_load, @function\n"
    "dprobes_returning_load:\n"
    "1:	movq (%rdi), %rax\n"
    "	" ASM_RET
    "2:	movq $-1, %rax\n"
    "	" ASM_RET
    ".size dprobes_returning_load, . - dprobes_returning_load\n"
    _ASM_EXTABLE(1b, 2b)
    ".popsection\n");

/* With user memory accessible (EFLAGS.AC). */
static u64 load_from_user(unsigned long address)
{
	u64 value;

	asm volatile("pushfq\n"
		     "orq $0x40000, (%%rsp)\n"
		     "popfq\n"
		     "call dprobes_returning_load\n"
		     "pushfq\n"
		     "andq $~0x40000, (%%rsp)\n"
		     "popfq\n"
		     : "=a" (value), "+D" (address), ASM_CALL_CONSTRAINT
		     :
		     : "memory", "cc");
	return value;
}

/* Once where memory has to be paged in, once where there is none. */
static u64 fault(u64 unused)
{
	unsigned long page = vm_mmap(NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
	u64 there, gone;

	if (IS_ERR_VALUE(page))
		return 0;
	there = load_from_user(page);
	vm_munmap(page, PAGE_SIZE);
	gone = load_from_user(page);
	return there == 0 && gone == -1ULL;
}

static int count_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	atomic64_inc(&kretprobes_hit);
	return 0;
}

static struct kretprobe kretprobes[] = {
	{ .kp.symbol_name = "dprobes_returning_work", .handler = count_return, .maxactive = 256 },
	{ .kp.symbol_name = "dprobes_returning_nested", .handler = count_return, .maxactive = 256 },
};
static bool watched;
static DEFINE_MUTEX(watched_mutex);

static int watch(bool on)
{
	size_t i;
	int err = 0;

	mutex_lock(&watched_mutex);
	for (i = 0; i < ARRAY_SIZE(kretprobes) && on != watched && !err; i++) {
		if (!on) {
			unregister_kretprobe(&kretprobes[i]);
			/* To be registered again. */
			kretprobes[i].kp.addr = NULL;
			kretprobes[i].kp.flags = 0;
		} else {
			err = register_kretprobe(&kretprobes[i]);
		}
	}
	if (!err)
		watched = on;
	mutex_unlock(&watched_mutex);
	return err;
}

static const struct returning_case {
	const char *name;
	u64 (*call)(u64 argument);
	/* How often, if it is not the argument that says it. */
	bool once;
} cases[] = {
	{ "work", dprobes_returning_work },
	{ "fault", fault },
	{ "nmi", nmi },
	{ "nested", dprobes_returning_nested, .once = true },
	{ "sleep", dprobes_returning_sleep, .once = true },
};

static ssize_t returning_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	char text[32], what[16];
	u64 number, i;
	size_t at;
	int err;

	if (length >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, length))
		return -EFAULT;
	text[length] = 0;
	if (sscanf(text, "%15s %llu", what, &number) != 2)
		return -EINVAL;
	if (!strcmp(what, "kretprobe")) {
		err = watch(number);
		return err ?: length;
	}
	for (at = 0; at < ARRAY_SIZE(cases); at++) {
		if (strcmp(what, cases[at].name))
			continue;
		for (i = 0; i < (cases[at].once ? 1 : number) && !fatal_signal_pending(current); i++) {
			atomic64_add(cases[at].call(cases[at].once ? number : i), &returned_sum);
			atomic64_inc(&returned);
			if (i % 1024 == 1023)
				cond_resched();
		}
		return length;
	}
	return -EINVAL;
}

static const struct file_operations returning_operations = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
	.write	= returning_write,
};

static struct miscdevice returning_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_returning",
	.fops	= &returning_operations,
	.mode	= 0600,
};

static int show_count(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read((atomic64_t *)param->arg));
}

static const struct kernel_param_ops count_operations = { .get = show_count };
module_param_cb(returned, &count_operations, &returned, 0400);
module_param_cb(returned_sum, &count_operations, &returned_sum, 0400);
module_param_cb(nmis, &count_operations, &nmis, 0400);
module_param_cb(kretprobes, &count_operations, &kretprobes_hit, 0400);

#define NMI_NAME "dprobes_returning"

int returning_init(void)
{
	int err = register_nmi_handler(NMI_LOCAL, on_nmi, 0, NMI_NAME);

	if (err)
		return err;
	err = misc_register(&returning_device);
	if (err)
		unregister_nmi_handler(NMI_LOCAL, NMI_NAME);
	return err;
}

void returning_exit(void)
{
	misc_deregister(&returning_device);
	unregister_nmi_handler(NMI_LOCAL, NMI_NAME);
	watch(false);
}
