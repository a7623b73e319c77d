// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Records that survive a panic: when the kernel panics, the newest records of each CPU go to memory that the administrator has kept from the kernel (with
 * `memmap=` on its command line), and that a warm reboot leaves as it is. The module that is loaded then finds them, and /dev/dprobes_previous has
 * them until it is unloaded.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crc32.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <asm/special_insns.h>

#include "shim.h"

static ulong persist_address;
module_param(persist_address, ulong, 0400);
MODULE_PARM_DESC(persist_address, "physical address of memory that is not the kernel's, to which records go in a panic (default: none)");

static ulong persist_size;
module_param(persist_size, ulong, 0400);
MODULE_PARM_DESC(persist_size, "its size in bytes");

#define MAGIC "DPROBES\x1b"
#define FORMAT 1

struct region {
	u8 magic[8];
	__le32 format;
	/* Of the records that follow. */
	__le32 crc;
	__le64 length;
	u8 records[];
};

/* Smaller is of no use: some records of each CPU. */
#define SIZE_MIN (16 << 10)

static struct region *region;
static struct resource *claim;
static u8 *previous;
static size_t previous_length;

static u32 checksum(const u8 *bytes, size_t length)
{
	return ~crc32_le(~0, bytes, length);
}

/*
 * The machine is about to stop: the other CPUs have been. What is written over is what an earlier panic left and nobody has looked for.
 */
static int save(struct notifier_block *block, unsigned long event, void *message)
{
	const size_t room = persist_size - sizeof(*region);
	size_t length = 0;
	u32 cpu, left = num_possible_cpus();
	s64 got;

	/* What this runs through may be probed: no more records from now on. */
	dprobes_freeze();
	for_each_possible_cpu(cpu) {
		got = dprobes_save(cpu, region->records + length, (room - length) / left--);
		if (got > 0)
			length += got;
	}
	region->format = cpu_to_le32(FORMAT);
	region->crc = cpu_to_le32(checksum(region->records, length));
	region->length = cpu_to_le64(length);
	memcpy(region->magic, MAGIC, sizeof(region->magic));
	/* A reset does not write caches back. */
	wbinvd();
	return NOTIFY_DONE;
}
NOKPROBE_SYMBOL(save);

/* Before those that stop the machine themselves, such as a watchdog's or a hypervisor's. */
static struct notifier_block on_panic = { .notifier_call = save, .priority = INT_MAX };

/* As when it was found: from its beginning at each opening. */
static ssize_t previous_read(struct file *file, char __user *to, size_t room, loff_t *position)
{
	return simple_read_from_buffer(to, room, position, previous, previous_length);
}

static int previous_open(struct inode *inode, struct file *file)
{
	return dprobes_may_open();
}

static const struct file_operations previous_operations = {
	.owner	= THIS_MODULE,
	.open	= previous_open,
	.read	= previous_read,
	.llseek	= default_llseek,
};

static struct miscdevice previous_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes_previous",
	.fops	= &previous_operations,
	.mode	= 0400,
};

/* What is there may be anything. */
static void find_previous(void)
{
	const u64 length = le64_to_cpu(READ_ONCE(region->length));

	if (memcmp(region->magic, MAGIC, sizeof(region->magic)) || le32_to_cpu(region->format) != FORMAT)
		return;
	if (length > persist_size - sizeof(*region))
		return;
	previous = kvmalloc(length ?: 1, GFP_KERNEL);
	if (!previous) {
		pr_warn("records of the previous kernel are there, and no memory for them: load the module again\n");
		return;
	}
	memcpy(previous, region->records, length);
	if (checksum(previous, length) != le32_to_cpu(region->crc)) {
		pr_warn("records of the previous kernel have been there, and are damaged\n");
		goto forget;
	}
	previous_length = length;
	if (misc_register(&previous_device)) {
		pr_warn("records of the previous kernel are there, and cannot be shown\n");
		goto forget;
	}
	/* They are in one place now. */
	memset(region->magic, 0, sizeof(region->magic));
	pr_info("%zu bytes of records of the previous kernel: dprobes log --previous\n", previous_length);
	return;

forget:
	kvfree(previous);
	previous = NULL;
}

int dprobes_persist_init(void)
{
	int err;

	if (!persist_address && !persist_size)
		return 0;
	if (!PAGE_ALIGNED(persist_address) || persist_size < SIZE_MIN || persist_size > SZ_1G ||
	    persist_address + persist_size < persist_address) {
		pr_err("persist_address must begin a page, and persist_size be 16 KiB to 1 GiB\n");
		return -EINVAL;
	}
	/* Writing there would destroy whatever it is. */
	if (region_intersects(persist_address, persist_size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("the kernel uses the memory at %#lx: boot with memmap=%luK$%#lx\n", persist_address, persist_size >> 10,
		       persist_address);
		return -EBUSY;
	}
	/* On most machines firmware's list of reserved memory has it, and a claim inside of that is what there can be. */
	claim = request_mem_region(persist_address, persist_size, "dprobes");
	region = memremap(persist_address, persist_size, MEMREMAP_WB);
	if (!region) {
		pr_err("the memory at %#lx cannot be mapped\n", persist_address);
		err = -ENOMEM;
		goto give_back;
	}
	find_previous();
	err = atomic_notifier_chain_register(&panic_notifier_list, &on_panic);
	if (!err)
		return 0;
	dprobes_persist_exit();
	return err;

give_back:
	if (claim)
		release_mem_region(persist_address, persist_size);
	claim = NULL;
	return err;
}

void dprobes_persist_exit(void)
{
	if (!region)
		return;
	atomic_notifier_chain_unregister(&panic_notifier_list, &on_panic);
	if (previous) {
		misc_deregister(&previous_device);
		kvfree(previous);
		previous = NULL;
	}
	memunmap(region);
	region = NULL;
	if (claim)
		release_mem_region(persist_address, persist_size);
	claim = NULL;
}
