// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The rings of records as a whole: what they do when they are full, and mapping them.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "shim.h"

/* In a file's private data: it has frozen the rings, and closing it thaws them. */
#define HAS_FROZEN ((void *)1)

static int ring_of(u32 cpu, const void **control, const void **data, uintptr_t *length)
{
	return dprobes_ring_memory(cpu, (const struct dprobes_ring_control **)control, (const u64 **)data, length);
}

long dprobes_rings(struct file *file, struct dprobes_rings_request __user *argument)
{
	struct dprobes_rings_request request;
	const void *control, *data;
	uintptr_t length;
	int err;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	err = ring_of(0, &control, &data, &length);
	if (err)
		return err;
	switch (request.action) {
	case DPROBES_RINGS_LOOK:
		break;
	case DPROBES_RINGS_KEEP_OLDEST:
	case DPROBES_RINGS_KEEP_NEWEST:
		dprobes_keep_newest(request.action == DPROBES_RINGS_KEEP_NEWEST);
		break;
	case DPROBES_RINGS_FREEZE:
		file->private_data = HAS_FROZEN;
		dprobes_freeze();
		break;
	case DPROBES_RINGS_THAW:
		file->private_data = NULL;
		dprobes_thaw();
		break;
	case DPROBES_RINGS_SETTLE:
		err = dprobes_stream_settle();
		if (err)
			return err;
		break;
	default:
		return -EINVAL;
	}
	request.mode = dprobes_rings_mode();
	request.cpus = nr_cpu_ids;
	request.control = PAGE_SIZE;
	request.data = length;
	return copy_to_user(argument, &request, sizeof(request)) ? -EFAULT : 0;
}

/* Nobody stays without records because a command was killed. */
void dprobes_rings_release(struct file *file)
{
	if (file->private_data == HAS_FROZEN)
		dprobes_thaw();
}

static int map_pages(struct vm_area_struct *vma, unsigned long to, const void *from, size_t length)
{
	unsigned long pfn;
	size_t at;
	int err;

	for (at = 0; at < length; at += PAGE_SIZE) {
		pfn = is_vmalloc_addr(from + at) ? vmalloc_to_pfn(from + at) : page_to_pfn(virt_to_page(from + at));
		err = remap_pfn_range(vma, to + at, pfn, PAGE_SIZE, vma->vm_page_prot);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Maps a ring with its control page in front, read-only. The memory stays until the module is unloaded, which the mapping prevents since it keeps the file
 * open.
 */
int dprobes_rings_mmap(struct file *file, struct vm_area_struct *vma)
{
	const unsigned long size = vma->vm_end - vma->vm_start;
	const void *control, *data;
	uintptr_t length;
	u64 offset;
	u32 cpu;
	int err;

	if (vma->vm_flags & (VM_WRITE | VM_EXEC))
		return -EPERM;
	compat_vm_flags_clear(vma, VM_MAYWRITE | VM_MAYEXEC);
	err = ring_of(0, &control, &data, &length);
	if (err)
		return err;
	offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	if (size != PAGE_SIZE + length || offset % size || offset / size >= nr_cpu_ids)
		return -EINVAL;
	cpu = offset / size;
	err = ring_of(cpu, &control, &data, &length);
	if (err)
		return err;
	if (!PAGE_ALIGNED(control) || !PAGE_ALIGNED(data))
		return -EOPNOTSUPP;
	err = map_pages(vma, vma->vm_start, control, PAGE_SIZE);
	return err ?: map_pages(vma, vma->vm_start + PAGE_SIZE, data, length);
}
