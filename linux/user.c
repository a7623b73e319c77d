// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * User space: the engine's sites in files are consumers of the kernel's uprobes.
 *
 * A uprobe is on an inode and an offset. The kernel puts its breakpoint into every process that maps the file, now or later, calls its consumers in the
 * context of the process, and carries the instruction out itself. There the engine runs as it does in a trap: with interrupts off, so that the hit
 * stays on its CPU, and reads of memory that is not there fail.
 *
 * The control path comes here with kprobe_mutex held. It is given up for what may wait for a file system or for a process: nothing between a
 * check of kernel text and its change lies on both sides of these functions.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/fpu/api.h>
#include <asm/mmu_context.h>
#include <linux/elf.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/task_work.h>
#include <linux/tracepoint.h>
#include <linux/uprobes.h>
#include <linux/wait_bit.h>

#include "compat.h"
#include "shim.h"

#ifdef CONFIG_UPROBES

struct user_site {
	struct uprobe_consumer consumer;
	struct uprobe *registered;	/* where the kernel says what it has registered */
	struct file *file;	/* keeps the inode and its file system */
	struct inode *inode;
	loff_t offset;
	u64 number;		/* by which the engine knows it */
	bool is_64bit;
};

/*
 * A program has changed rip. The kernel is going to carry the instruction out all the same, at once or by a step of its copy, and has no way of
 * being told not to. What it does for that until the process is in user mode again is undone before: by a task work, which runs on the
 * way there, ahead of signals.
 */
struct detour {
	struct callback_head work;
	struct pt_regs regs;	/* as the programs have left them */
};

static atomic_t detours;

static void forget_detour(struct detour *detour)
{
	kfree(detour);
	if (atomic_dec_and_test(&detours))
		wake_up_var(&detours);
}

static void take_detour(struct callback_head *work)
{
	struct detour *detour = container_of(work, struct detour, work);
	struct uprobe_task *utask = current->utask;
	struct pt_regs *regs = task_pt_regs(current);

	if (!(current->flags & PF_EXITING)) {
		if (utask && utask->active_uprobe) {
			/* The copy has not run yet. This is what a signal that must not wait does to a step. */
			utask->state = UTASK_SSTEP_TRAPPED;
			dprobes_symbols.uprobe_notify_resume(regs);
		}
		*regs = detour->regs;
	}
	forget_detour(detour);
}

/* The context of the process, which may wait: it waits for these few bytes rather than go where it was not sent. */
static void begin_detour(const struct pt_regs *regs)
{
	struct detour *detour = kmalloc(sizeof(*detour), GFP_KERNEL | __GFP_NOFAIL);

	init_task_work(&detour->work, take_detour);
	detour->regs = *regs;
	atomic_inc(&detours);
	/* A process that is ending goes nowhere. */
	if (task_work_add(current, &detour->work, TWA_RESUME))
		forget_detour(detour);
}

/* Has the engine handle a hit. */
static void hit(struct user_site *site, struct pt_regs *regs)
{
	unsigned long flags;

	local_irq_save(flags);
	/* Programs read vector registers from the CPU, which may have another task's since this one has slept. */
	if (test_thread_flag(TIF_NEED_FPU_LOAD))
		dprobes_symbols.switch_fpu_return();
	dprobes_on_user_hit(site->number, (struct dprobes_trap_frame *)regs);
	local_irq_restore(flags);
}

static int on_user_hit(struct uprobe_consumer *consumer, struct pt_regs *regs COMPAT_HANDLER_DATA)
{
	unsigned long ip = regs->ip;

	hit(container_of(consumer, struct user_site, consumer), regs);
	if (COMPAT_UPROBES_IGNORE_IP && regs->ip != ip)
		begin_detour(regs);
	return 0;
}

/*
 * A call begins whose return is probed. The kernel is about to note it, unless it has noted as many as it can: that one returns unseen, and
 * is counted.
 */
static int on_call(struct uprobe_consumer *consumer, struct pt_regs *regs COMPAT_HANDLER_DATA)
{
	struct user_site *site = container_of(consumer, struct user_site, consumer);
	unsigned long flags;

	if (current->utask && current->utask->depth >= MAX_URETPROBE_DEPTH) {
		local_irq_save(flags);
		dprobes_on_user_return_lost(site->number);
		local_irq_restore(flags);
	}
	return 0;
}

/* A call has returned: the process is where it has returned to, and goes on wherever the registers say. */
static int on_return(struct uprobe_consumer *consumer, unsigned long function, struct pt_regs *regs COMPAT_HANDLER_DATA)
{
	hit(container_of(consumer, struct user_site, consumer), regs);
	return 0;
}

/*
 * Into which processes does the breakpoint go? The kernel decodes the instruction once, as the first process that maps it would: one that only looks
 * into a file with 32-bit code must not be that.
 */
static bool is_for(struct uprobe_consumer *consumer, COMPAT_FILTER_CONTEXT struct mm_struct *mm)
{
	struct user_site *site = container_of(consumer, struct user_site, consumer);

	return is_64bit_mm(mm) == site->is_64bit;
}

static struct file *file_of(u64 word)
{
	return (struct file *)(unsigned long)word;
}

int dprobes_host_user_file(u64 word, struct dprobes_file_id *id)
{
	struct file *file = file_of(word);
	struct kstat stat;

	if (!S_ISREG(file_inode(file)->i_mode) || !compat_can_be_mapped(file))
		return DPROBES_FILE_ERROR_NOT_MAPPABLE;
	if (!(file->f_mode & FMODE_READ))
		return DPROBES_FILE_ERROR_UNREADABLE;
	if (vfs_getattr(&file->f_path, &stat, STATX_INO, AT_STATX_SYNC_AS_STAT))
		return DPROBES_FILE_ERROR_FAILED;
	id->device = new_encode_dev(stat.dev);
	id->inode = stat.ino;
	return 0;
}

s64 dprobes_host_read_user_file(u64 word, u64 offset, u8 *buffer, uintptr_t length)
{
	loff_t position = offset;
	size_t done = 0;
	ssize_t got = 0;

	if (position < 0)
		return 0;
	mutex_unlock(dprobes_symbols.kprobe_mutex);
	while (done < length) {
		got = kernel_read(file_of(word), buffer + done, length - done, &position);
		if (got <= 0)
			break;
		done += got;
	}
	mutex_lock(dprobes_symbols.kprobe_mutex);
	return got < 0 ? got : done;
}

static int file_error(int err)
{
	switch (err) {
	case 0:
		return 0;
	case -EINVAL:
		return DPROBES_FILE_ERROR_OUTSIDE;
	case -ENOTSUPP:
	case -EOPNOTSUPP:
	case -ENOEXEC:
		return DPROBES_FILE_ERROR_INSTRUCTION;
	case -ENOMEM:
		return DPROBES_FILE_ERROR_NO_MEMORY;
	case -EIO:
	case -ENODEV:
		return DPROBES_FILE_ERROR_NOT_MAPPABLE;
	default:
		pr_debug("uprobes: error %d\n", err);
		return DPROBES_FILE_ERROR_FAILED;
	}
}

/*
 * The kernel looks at the instruction only when a process maps it, and says nothing to a consumer that is registered then. So it is mapped
 * here, in the process that asks, and what is wrong with it is known now. That one runs 64-bit code.
 */
static int register_mapped(struct user_site *site)
{
	unsigned long mapped = 0;
	int err;

	if (site->is_64bit && is_64bit_mm(current->mm)) {
		mapped = vm_mmap(site->file, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, site->offset & PAGE_MASK);
		if (IS_ERR_VALUE(mapped))
			return mapped;
	}
	err = compat_uprobe_register(site->inode, site->offset, &site->consumer, &site->registered);
	if (mapped)
		vm_munmap(mapped, PAGE_SIZE);
	return err;
}

static bool has_64bit_code(struct file *file)
{
	unsigned char id[EI_NIDENT];
	loff_t position = 0;

	/* What is no such file is taken for code of the kernel's own size, as the kernel takes it. */
	return kernel_read(file, id, sizeof(id), &position) != sizeof(id) || memcmp(id, ELFMAG, SELFMAG) ||
	       id[EI_CLASS] != ELFCLASS32;
}

int dprobes_host_attach_user(u64 word, u64 offset, u64 number, bool returns, u64 *attached)
{
	struct file *file = file_of(word);
	struct user_site *site;
	int err;

	if (offset >= i_size_read(file_inode(file)))
		return DPROBES_FILE_ERROR_OUTSIDE;
	site = kzalloc(sizeof(*site), GFP_KERNEL);
	if (!site)
		return DPROBES_FILE_ERROR_NO_MEMORY;
	site->consumer.handler = returns ? on_call : on_user_hit;
	site->consumer.ret_handler = returns ? on_return : NULL;
	site->consumer.filter = is_for;
	site->file = get_file(file);
	/* On a file system that lies over others, what processes map is the file below. */
	site->inode = d_real_inode(file_dentry(file));
	site->offset = offset;
	site->number = number;

	mutex_unlock(dprobes_symbols.kprobe_mutex);
	site->is_64bit = has_64bit_code(file);
	err = register_mapped(site);
	mutex_lock(dprobes_symbols.kprobe_mutex);
	if (err) {
		fput(site->file);
		kfree(site);
		return file_error(err);
	}
	*attached = (unsigned long)site;
	return 0;
}

/* When this returns nobody is in these consumers. */
void dprobes_host_detach_user(const u64 *attached, uintptr_t count)
{
	struct user_site *site;
	uintptr_t i;

	mutex_unlock(dprobes_symbols.kprobe_mutex);
	for (i = 0; i < count; i++) {
		site = (struct user_site *)(unsigned long)attached[i];
		compat_uprobe_unregister(site->inode, site->offset, &site->consumer, site->registered);
	}
	compat_uprobe_unregister_sync();
	for (i = 0; i < count; i++) {
		site = (struct user_site *)(unsigned long)attached[i];
		fput(site->file);
		kfree(site);
	}
	mutex_lock(dprobes_symbols.kprobe_mutex);
}

/* A task ends, in its own context: what is kept for its calls goes. */
static void on_exit(void *unused, struct task_struct *task)
{
	unsigned long flags;

	local_irq_save(flags);
	dprobes_on_task_ended((unsigned long)task);
	local_irq_restore(flags);
}

/* Without it what is kept for calls that tasks have not returned from stays, until others have the same place. */
void dprobes_user_init(void)
{
	struct tracepoint *point = dprobes_symbols.__tracepoint_sched_process_exit;
	int err = point ? tracepoint_probe_register(point, on_exit, NULL) : -ENOENT;

	if (err)
		pr_info("cannot be told of tasks that end (%d)\n", err);
}

/* Nothing is attached any more. When this returns no process is in code of this file. */
void dprobes_user_exit(void)
{
	if (dprobes_symbols.__tracepoint_sched_process_exit) {
		tracepoint_probe_unregister(dprobes_symbols.__tracepoint_sched_process_exit, on_exit, NULL);
		tracepoint_synchronize_unregister();
	}
	wait_var_event(&detours, !atomic_read(&detours));
	/* The last of them is still on its way out of here, and does not sleep before that. */
	synchronize_rcu_tasks();
}

#else

void dprobes_user_init(void)
{
}

void dprobes_user_exit(void)
{
}

#endif
