// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Something to watch: a word that is stored to and loaded from as often as is asked, and a function that is run, each counted, so that a test can
 * compare them with the hits of watchpoints.
 *
 *   echo store 1000 > /dev/dprobes_watched	stores to the word a thousand times, in the writer's context, and each time to the
 *						three words behind it, one after the other
 *   echo load 1000 > /dev/dprobes_watched	loads from it
 *   echo run 1000 > /dev/dprobes_watched	runs the function
 *   echo break 42 > /dev/dprobes_watched	stores a 42, from a function that nothing else uses
 *
 * /sys/module/dprobes_watched/parameters/ has how many stores, loads and runs there were, and the addresses of the word, of the instruction that
 * stores and of the one behind it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

/* Not static: there must be one of each, under these names. */
u64 dprobes_watched_word[4] __aligned(8);
u64 dprobes_watched_run(u64 sum);
void dprobes_watched_store(u64 value);
void dprobes_watched_break(u64 value);

static atomic64_t stores, loads, runs;

/* Written by the assembler: where the store is, and the instruction behind it. */
extern const unsigned long dprobes_watched_store_at[2];

noinline __noclone void dprobes_watched_store(u64 value)
{
	asm volatile(ANNOTATE_NOENDBR "\n10: movq %[value], %[word]\n"
		     ANNOTATE_NOENDBR "\n11: nop\n"
		     ".pushsection .rodata, \"a\"\n"
		     ".balign 8\n"
		     "dprobes_watched_store_at: .quad 10b, 11b\n"
		     ".popsection\n"
		     : [word] "=m" (dprobes_watched_word[0])
		     : [value] "r" (value));
	WRITE_ONCE(dprobes_watched_word[1], value);
	WRITE_ONCE(dprobes_watched_word[2], value);
	WRITE_ONCE(dprobes_watched_word[3], value);
}

static void load(void)
{
	u64 value;

	asm volatile("movq %[word], %[value]" : [value] "=r" (value) : [word] "m" (dprobes_watched_word[0]));
}

noinline __noclone u64 dprobes_watched_run(u64 sum)
{
	asm volatile("" : "+r" (sum));
	return sum + 1;
}

/* What should not be: the bug that a watchpoint is to find. */
noinline __noclone void dprobes_watched_break(u64 value)
{
	WRITE_ONCE(dprobes_watched_word[0], value);
	/* Nothing else is in the place of this function on the stack. */
	barrier();
}

static ssize_t watched_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	char text[32], what[8];
	u64 number, i, sum = 0;

	if (length >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, length))
		return -EFAULT;
	text[length] = 0;
	if (sscanf(text, "%7s %llu", what, &number) != 2)
		return -EINVAL;
	if (!strcmp(what, "break")) {
		dprobes_watched_break(number);
		atomic64_inc(&stores);
		return length;
	}
	for (i = 0; i < number && !fatal_signal_pending(current); i++) {
		if (!strcmp(what, "store")) {
			dprobes_watched_store(i);
			atomic64_inc(&stores);
		} else if (!strcmp(what, "load")) {
			load();
			atomic64_inc(&loads);
		} else if (!strcmp(what, "run")) {
			sum = dprobes_watched_run(sum);
			atomic64_inc(&runs);
		} else {
			return -EINVAL;
		}
		if (i % 1024 == 1023)
			cond_resched();
	}
	/* Each run has done what it does, once. */
	return sum == (strcmp(what, "run") ? 0 : i) ? length : -EIO;
}

static const struct file_operations watched_operations = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
	.write	= watched_write,
};

static struct miscdevice watched_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_watched",
	.fops	= &watched_operations,
	.mode	= 0600,
};

static int show_count(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read((atomic64_t *)param->arg));
}

static int show_number(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lu\n", *(const unsigned long *)param->arg);
}

static const unsigned long word_at = (unsigned long)dprobes_watched_word;

static const struct kernel_param_ops count_operations = { .get = show_count };
static const struct kernel_param_ops number_operations = { .get = show_number };
module_param_cb(stores, &count_operations, &stores, 0400);
module_param_cb(loads, &count_operations, &loads, 0400);
module_param_cb(runs, &count_operations, &runs, 0400);
module_param_cb(word, &number_operations, (void *)&word_at, 0400);
module_param_cb(store, &number_operations, (void *)&dprobes_watched_store_at[0], 0400);
module_param_cb(behind, &number_operations, (void *)&dprobes_watched_store_at[1], 0400);

static int __init watched_init(void)
{
	return misc_register(&watched_device);
}
module_init(watched_init);

static void __exit watched_exit(void)
{
	misc_deregister(&watched_device);
}
module_exit(watched_exit);

MODULE_DESCRIPTION("Something for DProbes to watch");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
