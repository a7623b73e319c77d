// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The kernel's routines that copy from and to user space, each by its own name, whichever of them this CPU would use.
 *
 * An ioctl on /dev/dprobes_copies, whatever its number, takes a struct copies_run: runs the routine of that name, and writes back what it
 * returned (of most of them the bytes that are left) and what it made of the kernel's memory. The kernel's buffer has the same
 * content before each run. /sys/module/dprobes_faults/parameters/routines has the names.
 */
#include <asm/smap.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#include "copies.h"

struct copies_run {
	char name[32];
	u64 user;
	u64 length;
	u64 result;
	u64 sum;
};

/* At most so many bytes. */
#define LENGTH_MAX (2 * PAGE_SIZE)

static u8 *buffer;

struct copies_routine {
	const char *name;
	u64 (*run)(u64 user, u64 length);
};

#define ROUTINE(name) static u64 run_##name(u64 user, u64 length)
#define USER ((void __user *)user)

/* What is done around each of them. */
ROUTINE(nothing) { return user & 0; }

ROUTINE(copy_from_user) { return copy_from_user(buffer, USER, length); }
ROUTINE(copy_to_user) { return copy_to_user(USER, buffer, length); }
ROUTINE(clear_user) { return clear_user(USER, length); }
ROUTINE(copy_from_user_nmi) { return copy_from_user_nmi(buffer, USER, length); }
ROUTINE(copy_from_user_nofault) { return copy_from_user_nofault(buffer, USER, length); }
ROUTINE(copy_to_user_nofault) { return copy_to_user_nofault(USER, buffer, length); }
ROUTINE(strncpy_from_user) { return strncpy_from_user(buffer, USER, length); }
ROUTINE(strnlen_user) { return strnlen_user(USER, length); }
ROUTINE(fault_in_readable) { return fault_in_readable(USER, length); }
ROUTINE(fault_in_writeable) { return fault_in_writeable(USER, length); }

/* Each size, with the check of the address and without; the value is part of the result. */
#define NUMBERS(size, type)									\
	ROUTINE(get_user_##size) { type value = 0; int err = get_user(value, (type __user *)user);	\
		return (u64)(u32)err << 32 ^ value; }						\
	ROUTINE(get_user_nocheck_##size) { type value = 0; int err = __get_user(value, (type __user *)user); \
		return (u64)(u32)err << 32 ^ value; }						\
	ROUTINE(put_user_##size) { return put_user((type)0x1122334455667788, (type __user *)user); }	\
	ROUTINE(put_user_nocheck_##size) { return __put_user((type)0x1122334455667788, (type __user *)user); }
NUMBERS(1, u8)
NUMBERS(2, u16)
NUMBERS(4, u32)
NUMBERS(8, u64)

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
/* The CPU's routine is chosen when the kernel boots; the others are there all the same. */
ROUTINE(copy_user_nocache) { return __copy_user_nocache(buffer, USER, length, 0); }
ROUTINE(from_unrolled) { return copy_user_generic_unrolled(buffer, USER, length); }
ROUTINE(to_unrolled) { return copy_user_generic_unrolled(USER, buffer, length); }
ROUTINE(from_string) { return copy_user_generic_string(buffer, USER, length); }
ROUTINE(to_string) { return copy_user_generic_string(USER, buffer, length); }
ROUTINE(from_fast_string) { return copy_user_enhanced_fast_string(buffer, USER, length); }
ROUTINE(to_fast_string) { return copy_user_enhanced_fast_string(USER, buffer, length); }

ROUTINE(csum_from)
{
	struct iov_iter iter;
	struct iovec iov = { .iov_base = USER, .iov_len = length };
	__wsum sum = 0;
	size_t copied;

	iov_iter_init(&iter, WRITE, &iov, 1, length);
	copied = csum_and_copy_from_iter(buffer, length, &sum, &iter);
	return (u64)(__force u32)sum << 32 ^ copied;
}

ROUTINE(csum_to)
{
	struct iov_iter iter;
	struct iovec iov = { .iov_base = USER, .iov_len = length };
	struct csum_state state = {};
	size_t copied;

	iov_iter_init(&iter, READ, &iov, 1, length);
	copied = csum_and_copy_to_iter(buffer, length, &state, &iter);
	return (u64)(__force u32)state.csum << 32 ^ copied;
}

/* As __clear_user() calls them. */
#define CLEAR(name)										\
	ROUTINE(name)										\
	{											\
		u64 left = length;								\
												\
		stac();										\
		asm volatile("call " #name							\
			     : "+c" (left), "+D" (user), ASM_CALL_CONSTRAINT			\
			     : "a" (0)								\
			     : "rdx", "r8", "memory", "cc");					\
		clac();										\
		return left;									\
	}
CLEAR(clear_user_original)
CLEAR(clear_user_rep_good)
CLEAR(clear_user_erms)

#else

/*
 * What is called where the CPU's own string instructions are not quick enough, as copy_user_generic() and __clear_user() call it
 * (arch/x86/include/asm/uaccess_64.h).
 */
static u64 rep_movs(void *to, const void *from, u64 length)
{
	stac();
	asm volatile("call rep_movs_alternative"
		     : "+c" (length), "+D" (to), "+S" (from), ASM_CALL_CONSTRAINT
		     :
		     : "rax", "r8", "r9", "r10", "r11", "memory", "cc");
	clac();
	return length;
}
ROUTINE(from_rep_movs) { return rep_movs(buffer, (const void *)user, length); }
ROUTINE(to_rep_movs) { return rep_movs((void *)user, buffer, length); }

ROUTINE(rep_stos)
{
	stac();
	asm volatile("call rep_stos_alternative"
		     : "+c" (length), "+D" (user), ASM_CALL_CONSTRAINT
		     : "a" (0)
		     : "rdx", "memory", "cc");
	clac();
	return length;
}

ROUTINE(csum_from)
{
	struct iov_iter iter;
	struct iovec iov = { .iov_base = USER, .iov_len = length };
	__wsum sum = 0;
	bool full;

	iov_iter_init(&iter, WRITE, &iov, 1, length);
	full = csum_and_copy_from_iter_full(buffer, length, &sum, &iter);
	return (u64)(__force u32)sum << 32 ^ full;
}
#endif

#ifdef CONFIG_ARCH_HAS_UACCESS_FLUSHCACHE
ROUTINE(flushcache)
{
	struct iov_iter iter;
	struct iovec iov = { .iov_base = USER, .iov_len = length };

	iov_iter_init(&iter, WRITE, &iov, 1, length);
	return _copy_from_iter_flushcache(buffer, length, &iter);
}
#endif

#define LIST(name) { #name, run_##name },
#define LIST_NUMBERS(size) LIST(get_user_##size) LIST(get_user_nocheck_##size) LIST(put_user_##size) LIST(put_user_nocheck_##size)
static const struct copies_routine routines[] = {
	LIST(nothing) LIST(copy_from_user) LIST(copy_to_user) LIST(clear_user) LIST(copy_from_user_nmi) LIST(copy_from_user_nofault)
	LIST(copy_to_user_nofault) LIST(strncpy_from_user) LIST(strnlen_user) LIST(fault_in_readable) LIST(fault_in_writeable)
	LIST_NUMBERS(1) LIST_NUMBERS(2) LIST_NUMBERS(4) LIST_NUMBERS(8)
#ifdef CONFIG_ARCH_HAS_UACCESS_FLUSHCACHE
	LIST(flushcache)
#endif
	LIST(csum_from)
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	LIST(copy_user_nocache) LIST(csum_to) LIST(from_unrolled) LIST(to_unrolled) LIST(from_string) LIST(to_string)
	LIST(from_fast_string) LIST(to_fast_string)
	LIST(clear_user_original) LIST(clear_user_rep_good) LIST(clear_user_erms)
#else
	LIST(from_rep_movs) LIST(to_rep_movs) LIST(rep_stos)
#endif
};

static long copies_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct copies_run run;
	size_t i;

	if (copy_from_user(&run, (void __user *)argument, sizeof(run)))
		return -EFAULT;
	if (run.length > LENGTH_MAX)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(routines); i++)
		if (!strncmp(run.name, routines[i].name, sizeof(run.name)))
			break;
	if (i == ARRAY_SIZE(routines))
		return -ENOENT;
	for (run.sum = 0; run.sum < LENGTH_MAX; run.sum++)
		buffer[run.sum] = run.sum * 7 + 1;
	run.result = routines[i].run(run.user, run.length);
	run.sum = 0;
	for (i = 0; i < LENGTH_MAX; i++)
		run.sum = run.sum * 31 + buffer[i];
	return copy_to_user((void __user *)argument, &run, sizeof(run)) ? -EFAULT : 0;
}

static const struct file_operations copies_operations = {
	.owner		= THIS_MODULE,
	.open		= nonseekable_open,
	.unlocked_ioctl	= copies_ioctl,
};

static struct miscdevice copies_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_copies",
	.fops	= &copies_operations,
	.mode	= 0600,
};

static int show_routines(char *page, const struct kernel_param *param)
{
	int length = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(routines); i++)
		length += sysfs_emit_at(page, length, "%s\n", routines[i].name);
	return length;
}

static const struct kernel_param_ops routines_operations = { .get = show_routines };
module_param_cb(routines, &routines_operations, NULL, 0400);

int __init copies_init(void)
{
	int err;

	buffer = vmalloc(LENGTH_MAX);
	if (!buffer)
		return -ENOMEM;
	err = misc_register(&copies_device);
	if (err)
		vfree(buffer);
	return err;
}

void copies_exit(void)
{
	misc_deregister(&copies_device);
	vfree(buffer);
}
