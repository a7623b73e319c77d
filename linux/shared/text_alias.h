/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DPROBES_LINUX_TEXT_ALIAS_H
#define DPROBES_LINUX_TEXT_ALIAS_H

#include <linux/types.h>

struct mutex;

/* Bytes for one place in text. Users have patches of a fixed size with this at their beginning. */
struct text_patch {
	u64 address;
	u32 len;		/* at least 1, at most what a patch has room for */
	u32 reserved;
	u8 bytes[];
};

/* What the kernel does not export: called once, before anything is written. */
void text_alias_init(struct mutex *text_mutex, int (*core_kernel_text)(unsigned long address));

/*
 * Writes `count` patches of `size` bytes each, sorted by address, and returns how many were written; those after them were not. A patch of
 * one byte is a single store. Sleeps.
 */
size_t text_alias_write(const void *patches, size_t size, size_t count);

/* Every CPU has executed a serialising instruction, and every trap handler that ran with interrupts off has ended. Sleeps. */
void text_alias_sync_cores(void);

#endif
