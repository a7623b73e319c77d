/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The shim between Linux and the registry of hooks: what its files share.
 *
 * Everything is called in process context and may sleep, but for the breakpoint handler in trap.c. Order of locks: module_mutex, the tree's
 * lock, the registry's lock, text_mutex.
 */
#ifndef GKHI_LINUX_SHIM_H
#define GKHI_LINUX_SHIM_H

#include <linux/jump_label.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <gkhi.h>

struct module;

/* main.c: what the kernel has but does not export. */
struct gkhi_symbols {
	int (*core_kernel_text)(unsigned long address);
	struct module *(*__module_text_address)(unsigned long address);
	struct mutex *text_mutex;
	struct mutex *module_mutex;
	struct list_head *modules;
	struct jump_entry *__start___jump_table;
	struct jump_entry *__stop___jump_table;
};

extern struct gkhi_symbols gkhi_symbols;

/* host.c */
extern const struct gkhi_host gkhi_linux_host;

/* units.c: the sites of the kernel and of modules, now and later. */
int gkhi_units_init(void);
void gkhi_units_exit(void);

/* trap.c */
int gkhi_traps_init(void);
void gkhi_traps_exit(void);

/* tree.c: /sys/kernel/debug/gkhi */
int gkhi_tree_init(void);
void gkhi_tree_exit(void);
void gkhi_tree_refresh(void);

#endif
