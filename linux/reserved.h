/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which places in text the kernel has reserved for something else. See reserved.c.
 */
#ifndef DPROBES_LINUX_RESERVED_H
#define DPROBES_LINUX_RESERVED_H

#include <linux/types.h>
#include <dprobes.h>

struct module;

/* Candidates in ascending order of their addresses. */
struct candidates {
	struct dprobes_candidate *first;
	size_t count;
};

/* Prohibits what others patch or find by its address. All candidates are of one module; NULL is the kernel itself. */
void dprobes_prohibit_reserved(struct candidates candidates, const struct module *mod);

/* Prohibits what is on the kernel's blacklist. kprobe_mutex is held. */
void dprobes_prohibit_blacklisted(struct candidates candidates);

/* Hashes of the names of the functions on the blacklist, ascending. */
struct blacklisted_names {
	size_t count;
	u32 hashes[];
};

/*
 * Is the function with this name, at this address, a part of one on the blacklist that the compiler has split off, such as `name.cold`?
 * What is looked up in the blacklist is kept in *names, NULL at first, for the next question; to be freed by kvfree(). kprobe_mutex is
 * held.
 */
bool dprobes_part_of_blacklisted(struct blacklisted_names **names, const char *name, unsigned long address);

#endif
