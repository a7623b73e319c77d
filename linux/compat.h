/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What differs between the kernels that the module is built for: all conditions on the kernel's version that there are, each with the version that
 * brought it and what it is about. Built and tested: Debian's 6.1, 6.12 and 7.2.
 */
#ifndef DPROBES_LINUX_COMPAT_H
#define DPROBES_LINUX_COMPAT_H

#include <linux/err.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <linux/uprobes.h>
#include <linux/version.h>

/*
 * Where a CPU's number is, relative to GS. 6.2 put it with what else is read all the time, and 6.15 took that apart again
 * (arch/x86/include/asm/smp.h).
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define COMPAT_CPU_NUMBER (&pcpu_hot.cpu_number)
#else
#define COMPAT_CPU_NUMBER (&cpu_number)
#endif

/* The text of a module. 6.4 gave each kind of memory that a module has a place of its own (include/linux/module.h). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define COMPAT_MODULE_TEXT(mod) ((mod)->mem[MOD_TEXT].base)
#define COMPAT_MODULE_TEXT_SIZE(mod) ((mod)->mem[MOD_TEXT].size)
#define COMPAT_MODULE_INIT_TEXT(mod) ((mod)->mem[MOD_INIT_TEXT].base)
#define COMPAT_MODULE_INIT_TEXT_SIZE(mod) ((mod)->mem[MOD_INIT_TEXT].size)
#else
#define COMPAT_MODULE_TEXT(mod) ((mod)->core_layout.base)
#define COMPAT_MODULE_TEXT_SIZE(mod) ((mod)->core_layout.text_size)
#define COMPAT_MODULE_INIT_TEXT(mod) ((mod)->init_layout.base)
#define COMPAT_MODULE_INIT_TEXT_SIZE(mod) ((mod)->init_layout.text_size)
#endif

/*
 * Where a task has its hardware breakpoints: with the events of software until 6.2 had one place for all of a task's events (include/linux/sched.h).
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define COMPAT_CONTEXT_OF_BREAKPOINTS(task) (&(task)->perf_event_ctxp)
#else
#define COMPAT_CONTEXT_OF_BREAKPOINTS(task) (&(task)->perf_event_ctxp[perf_sw_context])
#endif

/* What a mapping may be is changed by a function since 6.3 (include/linux/mm.h). */
static inline void compat_vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_clear(vma, flags);
#else
	vma->vm_flags &= ~flags;
#endif
}

/* Is there a way to map a file into processes? 6.16 has two (include/linux/fs.h). */
static inline bool compat_can_be_mapped(struct file *file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return can_mmap_file(file);
#else
	return file->f_op->mmap;
#endif
}

/* Since 6.7 rethook makes its nodes itself, when it is told how many and how large; before, they are added one by one (include/linux/rethook.h). */
#define COMPAT_RETHOOK_MAKES_NODES (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0))

/*
 * Threads of a process that never are in user mode. 6.4 has made those of io_uring one kind of several (include/linux/sched.h).
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define COMPAT_USER_WORKERS (PF_IO_WORKER | PF_USER_WORKER)
#else
#define COMPAT_USER_WORKERS PF_IO_WORKER
#endif

/* No flags for the memory of a file without a name: a structure in 7.2, a number in 6.12 (include/linux/shmem_fs.h). No kernel in between has been tried. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
#define COMPAT_NO_VM_FLAGS EMPTY_VMA_FLAGS
#else
#define COMPAT_NO_VM_FLAGS 0
#endif

/* The handler of a SysRq key gets its key as a u8 since 6.6 (include/linux/sysrq.h). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
typedef u8 compat_sysrq_key_t;
#else
typedef int compat_sysrq_key_t;
#endif

/*
 * How far the kernel goes on by itself behind the ud2 of a warning whose report has moved the instruction pointer: since 6.15 not at all, before as far as
 * ever (arch/x86/kernel/traps.c, handle_bug(): "x86/traps: Allow custom fixups in handle_bug()").
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
#define COMPAT_WARNING_SKIPS 0
#else
#define COMPAT_WARNING_SKIPS LEN_UD2
#endif

/*
 * Consumers of uprobes (include/linux/uprobes.h). 6.12 has the caller keep what it has registered, waits for those that are in consumers once for all
 * that are unregistered together, and asks a filter without saying why. 6.13 hands the handlers a word that lives from a call to its return.
 */
#ifdef CONFIG_UPROBES
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define COMPAT_HANDLER_DATA , __u64 *data
#else
#define COMPAT_HANDLER_DATA
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define COMPAT_FILTER_CONTEXT

static inline int compat_uprobe_register(struct inode *inode, loff_t offset, struct uprobe_consumer *consumer,
					 struct uprobe **registered)
{
	*registered = uprobe_register(inode, offset, 0, consumer);
	return PTR_ERR_OR_ZERO(*registered);
}

/* Of each, and then once for all: whoever is in their consumers has left them. */
static inline void compat_uprobe_unregister(struct inode *inode, loff_t offset, struct uprobe_consumer *consumer,
					    struct uprobe *registered)
{
	uprobe_unregister_nosync(registered, consumer);
}

static inline void compat_uprobe_unregister_sync(void)
{
	uprobe_unregister_sync();
}
#else
#define COMPAT_FILTER_CONTEXT enum uprobe_filter_ctx context,

static inline int compat_uprobe_register(struct inode *inode, loff_t offset, struct uprobe_consumer *consumer,
					 struct uprobe **registered)
{
	return uprobe_register(inode, offset, consumer);
}

static inline void compat_uprobe_unregister(struct inode *inode, loff_t offset, struct uprobe_consumer *consumer,
					    struct uprobe *registered)
{
	uprobe_unregister(inode, offset, consumer);
}

static inline void compat_uprobe_unregister_sync(void)
{
}
#endif

/*
 * Does the kernel carry the probed instruction out when a handler has changed the instruction pointer? 6.12 does, 7.2 does not (kernel/events/uprobes.c,
 * handle_swbp()); where it does not, taking that back harms nobody.
 */
#define COMPAT_UPROBES_IGNORE_IP (LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0))
#endif

#endif
