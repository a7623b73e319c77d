// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Many kprobes at once: what register_kprobes() and unregister_kprobes() cost.
 *
 * Write addresses, 8 bytes each, to /dev/many_kprobes: those that kprobes accept can then be read from it. Writing a number to the parameter
 * `run` registers that many of them, or as many as can be in the seconds of `patience`, and unregisters them; `report` has the nanoseconds of both, and how many they were.
 */
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/kstrtox.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define MOST 100000
#define AT_A_TIME 1000
/* Of those that are measured: between two looks at the clock. */
#define BETWEEN_LOOKS 100

static struct kprobe *probes;
static struct kprobe **accepted;
static u64 *addresses;
static size_t count, registered;
static u64 registering, unregistering;

static unsigned int patience = 300;
module_param(patience, uint, 0600);

static int nothing(struct kprobe *probe, struct pt_regs *regs)
{
	return 0;
}

static void prepare(struct kprobe *probe, u64 address, u32 flags)
{
	*probe = (struct kprobe){ .addr = (void *)address, .pre_handler = nothing, .flags = flags };
}

static void forget(void)
{
	count = 0;
	kvfree(probes);
	kvfree(accepted);
	kvfree(addresses);
	probes = NULL;
	accepted = NULL;
	addresses = NULL;
}

/*
 * Which of the addresses does register_kprobe() accept? They are not armed for that, and only some are there at a time: what it costs to
 * register one grows with their number.
 */
static void select_accepted(size_t wanted)
{
	size_t i, first = 0;

	for (i = 0; i < wanted; i++) {
		prepare(&probes[count], addresses[i], KPROBE_FLAG_DISABLED);
		if (!register_kprobe(&probes[count])) {
			accepted[count] = &probes[count];
			addresses[count++] = addresses[i];
		}
		if (count - first == AT_A_TIME) {
			unregister_kprobes(accepted + first, AT_A_TIME);
			first = count;
		}
		cond_resched();
	}
	unregister_kprobes(accepted + first, count - first);
}

static ssize_t device_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	const size_t wanted = length / sizeof(u64);

	if (!wanted || wanted > MOST)
		return -EINVAL;
	forget();
	probes = kvcalloc(wanted, sizeof(*probes), GFP_KERNEL);
	accepted = kvcalloc(wanted, sizeof(*accepted), GFP_KERNEL);
	addresses = kvcalloc(wanted, sizeof(*addresses), GFP_KERNEL);
	if (!probes || !accepted || !addresses) {
		forget();
		return -ENOMEM;
	}
	if (copy_from_user(addresses, from, wanted * sizeof(u64))) {
		forget();
		return -EFAULT;
	}
	select_accepted(wanted);
	return wanted * sizeof(u64);
}

static ssize_t device_read(struct file *file, char __user *to, size_t length, loff_t *position)
{
	return simple_read_from_buffer(to, length, position, addresses, count * sizeof(u64));
}

static const struct file_operations operations = {
	.owner	= THIS_MODULE,
	.read	= device_read,
	.write	= device_write,
};

static struct miscdevice device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "many_kprobes",
	.fops	= &operations,
	.mode	= 0600,
};

/* Registers so many of those that were accepted, the first ones, as register_kprobes() does, unless that takes too long. */
static int register_all(size_t wanted, ktime_t start)
{
	size_t here;
	int err;

	for (registered = 0; registered < wanted; registered += here) {
		if (ktime_get() - start > (u64)patience * NSEC_PER_SEC)
			break;
		here = min_t(size_t, wanted - registered, BETWEEN_LOOKS);
		err = register_kprobes(accepted + registered, here);
		if (err) {
			unregister_kprobes(accepted, registered);
			return err;
		}
		cond_resched();
	}
	return 0;
}

/* Inserts and removes so many. */
static int run(const char *value, const struct kernel_param *param)
{
	unsigned int wanted, i;
	ktime_t start;
	int err;

	err = kstrtouint(value, 0, &wanted);
	if (err)
		return err;
	if (!wanted || wanted > count)
		return -EINVAL;
	for (i = 0; i < wanted; i++)
		prepare(&probes[i], addresses[i], 0);
	start = ktime_get();
	err = register_all(wanted, start);
	registering = ktime_get() - start;
	if (err)
		return err;
	start = ktime_get();
	unregister_kprobes(accepted, registered);
	unregistering = ktime_get() - start;
	return 0;
}

static const struct kernel_param_ops run_operations = { .set = run };
module_param_cb(run, &run_operations, NULL, 0200);

static int report(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%zu %llu %llu\n", registered, registering, unregistering);
}

static const struct kernel_param_ops report_operations = { .get = report };
module_param_cb(report, &report_operations, NULL, 0400);

static int __init many_kprobes_init(void)
{
	return misc_register(&device);
}

static void __exit many_kprobes_exit(void)
{
	misc_deregister(&device);
	forget();
}

module_init(many_kprobes_init);
module_exit(many_kprobes_exit);
MODULE_DESCRIPTION("What many kprobes cost");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
