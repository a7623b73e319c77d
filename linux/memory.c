// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Reading and writing the probed system's memory during a hit.
 */
#include <asm/asm.h>
#include <asm/smap.h>
#include <asm/special_insns.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <uapi/asm/vsyscall.h>

#include "shim.h"

enum half { USER, KERNEL, NEITHER };

/*
 * Whose address is this? The page that emulates vsyscalls belongs to user space, but in the kernel's half: the page-fault handler does
 * not recover from the kernel's access to it, and nothing is there that could be read.
 */
static enum half half_of(unsigned long address)
{
	if (address < TASK_SIZE_MAX)
		return USER;
	if ((address & PAGE_MASK) == VSYSCALL_ADDR)
		return NEITHER;
	/* By the page tables there are: a CPU that could have five levels counts more bits than it translates with four. */
	return __is_canonical_address(address, __VIRTUAL_MASK_SHIFT + 1) ? KERNEL : NEITHER;
}
NOKPROBE_SYMBOL(half_of);

/*
 * Every page is either accessible or not, also where the halves end, so that copying page by page finds the first bad
 * byte: it is where the first chunk that fails begins.
 */
static size_t chunk_length(unsigned long address, size_t length)
{
	return min_t(size_t, length, PAGE_SIZE - offset_in_page(address));
}
NOKPROBE_SYMBOL(chunk_length);

/*
 * The kernel's half, without a call out of this module: a hit inside another hit may need it to carry out its instruction (a `ret` that is
 * emulated), and would run into the probe that is on that call, again and again.
 */
#define COPY_UNITS(copy, to, from, length, type)					\
	for (; (length) >= sizeof(type); (length) -= sizeof(type)) {			\
		copy(to, from, type, fault);						\
		(to) += sizeof(type);							\
		(from) += sizeof(type);							\
	}

static bool read_kernel(u8 *to, const u8 *from, size_t length)
{
	pagefault_disable();
	COPY_UNITS(__get_kernel_nofault, to, from, length, u64);
	COPY_UNITS(__get_kernel_nofault, to, from, length, u8);
	pagefault_enable();
	return true;
fault:
	pagefault_enable();
	return false;
}
NOKPROBE_SYMBOL(read_kernel);

static bool write_kernel(u8 *to, const u8 *from, size_t length)
{
	pagefault_disable();
	COPY_UNITS(__put_kernel_nofault, to, from, length, u64);
	COPY_UNITS(__put_kernel_nofault, to, from, length, u8);
	pagefault_enable();
	return true;
fault:
	pagefault_enable();
	return false;
}
NOKPROBE_SYMBOL(write_kernel);

static bool read_chunk(unsigned long address, u8 *buffer, size_t length)
{
	bool ok = false;

	switch (half_of(address)) {
	case USER:
		/* A kernel thread runs on somebody else's page tables, or on tables that are being changed. */
		if (dprobes_symbols.nmi_uaccess_okay()) {
			pagefault_disable();
			ok = !raw_copy_from_user(buffer, (const void __user *)address, length);
			pagefault_enable();
		}
		break;
	case KERNEL:
		ok = read_kernel(buffer, (const u8 *)address, length);
		break;
	case NEITHER:
		break;
	}
	return ok;
}
NOKPROBE_SYMBOL(read_chunk);

static bool write_chunk(unsigned long address, const u8 *buffer, size_t length)
{
	bool ok = false;

	switch (half_of(address)) {
	case USER:
		if (dprobes_symbols.nmi_uaccess_okay()) {
			pagefault_disable();
			ok = !raw_copy_to_user((void __user *)address, buffer, length);
			pagefault_enable();
		}
		break;
	case KERNEL:
		ok = write_kernel((u8 *)address, buffer, length);
		break;
	case NEITHER:
		break;
	}
	return ok;
}
NOKPROBE_SYMBOL(write_chunk);

/* The page-fault handler that a hit may have interrupted has yet to read CR2. Reading CR2 is cheap, writing it is not. */
static void restore_cr2(unsigned long cr2)
{
	if (read_cr2() != cr2)
		write_cr2(cr2);
}
NOKPROBE_SYMBOL(restore_cr2);

int dprobes_host_read(u64 address, u8 *buffer, uintptr_t length, u64 *bad)
{
	unsigned long cr2 = read_cr2();
	size_t chunk;
	int err = 0;

	while (length) {
		chunk = chunk_length(address, length);
		if (!read_chunk(address, buffer, chunk)) {
			*bad = address;
			err = -EFAULT;
			break;
		}
		address += chunk;
		buffer += chunk;
		length -= chunk;
	}
	restore_cr2(cr2);
	return err;
}
NOKPROBE_SYMBOL(dprobes_host_read);

int dprobes_host_write(u64 address, const u8 *buffer, uintptr_t length, u64 *bad)
{
	unsigned long cr2 = read_cr2();
	size_t chunk;
	int err = 0;

	while (length) {
		chunk = chunk_length(address, length);
		if (!write_chunk(address, buffer, chunk)) {
			*bad = address;
			err = -EFAULT;
			break;
		}
		address += chunk;
		buffer += chunk;
		length -= chunk;
	}
	restore_cr2(cr2);
	return err;
}
NOKPROBE_SYMBOL(dprobes_host_write);

/*
 * A locked or with zero: it faults where a store would, and loses no store of another CPU. User space is accessed as raw_copy_to_user()
 * does it.
 */
static __always_inline bool or_zero(u8 *byte)
{
	bool ok = false;

	asm volatile("1:	lock orb $0, %[byte]\n"
		     "	movb $1, %[ok]\n"
		     "2:\n"
		     _ASM_EXTABLE_UA(1b, 2b)
		     : [ok] "+q" (ok), [byte] "+m" (*byte));
	return ok;
}

bool dprobes_host_writable(u64 address)
{
	unsigned long cr2 = read_cr2();
	bool ok = false;

	switch (half_of(address)) {
	case USER:
		if (dprobes_symbols.nmi_uaccess_okay()) {
			pagefault_disable();
			stac();
			ok = or_zero((u8 *)address);
			clac();
			pagefault_enable();
		}
		break;
	case KERNEL:
		ok = or_zero((u8 *)address);
		break;
	case NEITHER:
		break;
	}
	restore_cr2(cr2);
	return ok;
}
NOKPROBE_SYMBOL(dprobes_host_writable);
