/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DPROBES_LINUX_LOOKUP_H
#define DPROBES_LINUX_LOOKUP_H

#include <linux/types.h>

/* A symbol of the kernel's, and where its address goes. */
struct lookup_wanted {
	const char *name;
	void **place;
	bool optional;
};

/* 0, or -ENOENT when one is missing; the kernel log then says which. */
int lookup_symbols(const struct lookup_wanted *wanted, size_t count);

#endif
