// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Instructions that the kernel rewrites while they run, and those that it finds by their address: jump labels, static calls, WARN and BUG.
 *
 * An ioctl on /dev/dprobes_patched, whatever its number, takes a struct patched_run: does what `name` says with `argument`, in the caller's
 * context, and gives the result.
 *
 * /sys/module/dprobes_patched/parameters/places has the addresses, as the module's own tables have them: lines of a kind (bug, branch, call), the
 * function, and the address.
 */
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/jump_label.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/static_call.h>
#include <linux/string.h>
#include <linux/uaccess.h>

struct patched_run {
	char name[32];
	u64 argument;
	u64 result;
};

static DEFINE_STATIC_KEY_FALSE(key);

/* How often the branch was passed since the module was loaded. */
static atomic64_t passed;

static u64 patched_first(u64 value)
{
	return value + 1;
}

static u64 patched_second(u64 value)
{
	return value + 2;
}

static int patched_seven(void)
{
	return 7;
}

static u64 noted;

static void patched_note(u64 value)
{
	noted += value;
}

DEFINE_STATIC_CALL(patched_call, patched_first);
DEFINE_STATIC_CALL_NULL(patched_maybe, patched_note);
DEFINE_STATIC_CALL_RET0(patched_zero, patched_seven);

/* Not to be cloned or inlined: there must be one copy of each, under this name. */
#define CASE(name)								\
	u64 patched_do_##name(u64 argument);					\
	noinline __noclone u64 patched_do_##name(u64 argument)

/* How many of so many passes took the branch. */
CASE(branch)
{
	u64 taken = 0;
	u64 i;

	for (i = 0; i < argument; i++) {
		if (static_branch_unlikely(&key))
			taken++;
		/* Not to be taken out of the loop. */
		barrier();
	}
	return taken;
}

CASE(call)
{
	return static_call(patched_call)(argument) * 10;
}

CASE(tail)
{
	return static_call(patched_call)(argument);
}

CASE(maybe)
{
	noted = 0;
	static_call_cond(patched_maybe)(argument);
	return noted;
}

CASE(zero)
{
	return static_call(patched_zero)() * 10;
}

CASE(warn)
{
	WARN_ON(argument);
	return argument + 1;
}

CASE(warn_text)
{
	WARN(argument, "patched %llu\n", argument);
	return argument + 1;
}

CASE(warn_once)
{
	WARN_ON_ONCE(argument);
	return argument + 1;
}

CASE(bug)
{
	BUG_ON(argument);
	return argument + 1;
}

static u64 count_branch(u64 argument)
{
	u64 taken = patched_do_branch(argument);

	atomic64_add(argument, &passed);
	return taken;
}

static u64 read_passed(u64 argument)
{
	return atomic64_read(&passed);
}

static u64 set_branch(u64 argument)
{
	if (argument)
		static_branch_enable(&key);
	else
		static_branch_disable(&key);
	return 0;
}

static u64 set_call(u64 argument)
{
	static_call_update(patched_call, argument ? patched_second : patched_first);
	return 0;
}

static u64 set_maybe(u64 argument)
{
	static_call_update(patched_maybe, argument ? patched_note : NULL);
	return 0;
}

static u64 set_zero(u64 argument)
{
	if (argument)
		static_call_update(patched_zero, patched_seven);
	else
		static_call_update(patched_zero, (void *)&__static_call_return0);
	return 0;
}

static const struct patched_case {
	const char *name;
	u64 (*run)(u64 argument);
} cases[] = {
	{ "branch", count_branch },		{ "passed", read_passed },
	{ "call", patched_do_call },		{ "tail", patched_do_tail },
	{ "maybe", patched_do_maybe },		{ "zero", patched_do_zero },
	{ "warn", patched_do_warn },		{ "warn_text", patched_do_warn_text },
	{ "warn_once", patched_do_warn_once },	{ "bug", patched_do_bug },
	{ "set_branch", set_branch },		{ "set_call", set_call },
	{ "set_maybe", set_maybe },		{ "set_zero", set_zero },
};

static long patched_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct patched_run run;
	size_t i;

	if (copy_from_user(&run, (void __user *)argument, sizeof(run)))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		if (strncmp(run.name, cases[i].name, sizeof(run.name)))
			continue;
		run.result = cases[i].run(run.argument);
		cond_resched_tasks_rcu_qs();
		return copy_to_user((void __user *)argument, &run, sizeof(run)) ? -EFAULT : 0;
	}
	return -ENOENT;
}

static const struct file_operations patched_operations = {
	.owner		= THIS_MODULE,
	.open		= nonseekable_open,
	.unlocked_ioctl	= patched_ioctl,
};

static struct miscdevice patched_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_patched",
	.fops	= &patched_operations,
	.mode	= 0600,
};

/* %ps is the function's name with the module's behind it. */
#define PLACE	"%s %ps 0x%lx\n"

static int show_places(char *buffer, const struct kernel_param *param)
{
	const struct module *mod = THIS_MODULE;
	unsigned long address;
	int length = 0;
	unsigned int i;

	for (i = 0; i < mod->num_bugs; i++) {
		address = (unsigned long)&mod->bug_table[i].bug_addr_disp + mod->bug_table[i].bug_addr_disp;
		length += sysfs_emit_at(buffer, length, PLACE, "bug", (void *)address, address);
	}
	for (i = 0; i < mod->num_jump_entries; i++) {
		address = jump_entry_code(&mod->jump_entries[i]);
		length += sysfs_emit_at(buffer, length, PLACE, "branch", (void *)address, address);
	}
	for (i = 0; i < mod->num_static_call_sites; i++) {
		address = (unsigned long)&mod->static_call_sites[i].addr + mod->static_call_sites[i].addr;
		length += sysfs_emit_at(buffer, length, PLACE, "call", (void *)address, address);
	}
	return length;
}

static const struct kernel_param_ops places_operations = { .get = show_places };
module_param_cb(places, &places_operations, NULL, 0400);

static int __init patched_init(void)
{
	return misc_register(&patched_device);
}
module_init(patched_init);

static void __exit patched_exit(void)
{
	misc_deregister(&patched_device);
}
module_exit(patched_exit);

MODULE_DESCRIPTION("Instructions that the kernel rewrites, for DProbes to probe");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
