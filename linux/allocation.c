// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The engine's own memory, which it takes and gives back when programs come and go, never during a hit.
 *
 * What programs take is bounded: their code, their variables and maps, and what each probe needs. What the engine takes when it is made, rings for
 * records most of all, is not counted.
 */
#include <linux/atomic.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "shim.h"

static atomic_long_t used;
/* What was used before the first program came; 0 while the engine is being made. */
static long base;
/* Under the control lock. */
static bool refused;

/* 0 for a quarter of the memory that there is. */
static unsigned long memory_max;
module_param(memory_max, ulong, 0600);
MODULE_PARM_DESC(memory_max, "bytes that all programs together may take (0: a quarter of the memory)");

static int show_used(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&used) - base);
}

static const struct kernel_param_ops used_operations = { .get = show_used };
module_param_cb(memory_used, &used_operations, NULL, 0400);
MODULE_PARM_DESC(memory_used, "bytes that all programs together take");

static unsigned long bound(void)
{
	return min(READ_ONCE(memory_max) ?: totalram_pages() * (PAGE_SIZE / 4), (unsigned long)LONG_MAX);
}

void dprobes_memory_is_programs(void)
{
	base = atomic_long_read(&used);
}

bool dprobes_memory_was_refused(u64 facts[2])
{
	const bool was = refused;

	facts[0] = bound();
	facts[1] = atomic_long_read(&used) - base;
	refused = false;
	return was;
}

/* kvmalloc() aligns to the size when that is a power of two, and to a page when it is too large for a slab. */
static size_t size_to_take(uintptr_t size, uintptr_t align)
{
	if (align > ARCH_KMALLOC_MINALIGN && size <= KMALLOC_MAX_CACHE_SIZE)
		return max(roundup_pow_of_two(size), align);
	return size;
}

bool dprobes_memory_take(size_t bytes)
{
	if (atomic_long_add_return(bytes, &used) - base <= (long)bound() || !base)
		return true;
	refused = true;
	atomic_long_sub(bytes, &used);
	return false;
}

void dprobes_memory_give(size_t bytes)
{
	atomic_long_sub(bytes, &used);
}

u8 *dprobes_host_alloc(uintptr_t size, uintptr_t align)
{
	u8 *memory = NULL;

	if (align > PAGE_SIZE || size > LONG_MAX || WARN_ON_ONCE(in_nmi() || irqs_disabled()))
		return NULL;
	size = size_to_take(size, align);
	if (!dprobes_memory_take(size))
		return NULL;
	memory = kvmalloc(size, GFP_KERNEL);
	if (!memory)
		dprobes_memory_give(size);
	return memory;
}

void dprobes_host_free(u8 *memory, uintptr_t size, uintptr_t align)
{
	if (!memory)
		return;
	atomic_long_sub(size_to_take(size, align), &used);
	kvfree(memory);
}
