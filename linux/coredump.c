// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * `exit_to core`: a core dump of the process that was hit, which goes on living.
 *
 * The hit notes who it was. On its way to user mode that thread waits in a task work, where it holds nothing, while a program in user space, `core_helper`, stops the other
 * threads by ptrace, reads the memory and writes the file. What the waiting thread has in its registers that program cannot see, since the thread is not stopped for
 * ptrace: it would execute the probed instruction first. The kernel's own regsets are read here and handed over on standard input.
 *
 * A dump that is not taken is counted: by the engine, as unavailable, if that is known in the hit; else in `cores_failed`, with a line in the kernel log. Nobody
 * waits for longer than `core_seconds`: the helper is killed then, and with it the kernel lets go of all that it had stopped.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/mmu_context.h>
#include <linux/completion.h>
#include <linux/elf.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/namei.h>
#include <linux/path.h>
#include <linux/pid.h>
#include <linux/ratelimit.h>
#include <linux/refcount.h>
#include <linux/regset.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/shmem_fs.h>
#include <linux/string.h>
#include <linux/task_work.h>
#include <linux/timekeeping.h>
#include <linux/umh.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "shim.h"

/* It is read by hits, which look only whether it is empty, and under the lock of the module's parameters. */
static char core_helper[256];

static int set_helper(const char *value, const struct kernel_param *param)
{
	char *name;
	struct path path;
	bool runs;
	int err;

	if (strlen(value) >= sizeof(core_helper))
		return -ENAMETOOLONG;
	name = kstrdup(value, GFP_KERNEL);
	if (!name)
		return -ENOMEM;
	/* `echo` ends its line. */
	err = 0;
	if (*strim(name)) {
		err = kern_path(strim(name), LOOKUP_FOLLOW, &path);
		if (!err) {
			runs = S_ISREG(d_inode(path.dentry)->i_mode) && d_inode(path.dentry)->i_mode & 0111;
			path_put(&path);
			err = runs ? 0 : -EACCES;
		}
	}
	if (err)
		pr_err("core_helper: %s cannot be run (%d)\n", strim(name), err);
	else
		strscpy(core_helper, strim(name), sizeof(core_helper));
	kfree(name);
	return err;
}

static int get_helper(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%s\n", core_helper);
}
static const struct kernel_param_ops helper_operations = { .set = set_helper, .get = get_helper };
module_param_cb(core_helper, &helper_operations, NULL, 0600);
MODULE_PARM_DESC(core_helper, "program that takes core dumps for `exit_to core`, such as /usr/bin/dprobes (default: none)");

static char core_directory[256] = "/var/lib/dprobes";
module_param_string(core_directory, core_directory, sizeof(core_directory), 0600);
MODULE_PARM_DESC(core_directory, "folder that they are written to, as core.PID.N (default /var/lib/dprobes)");

static uint core_seconds = 30;
module_param(core_seconds, uint, 0600);
MODULE_PARM_DESC(core_seconds, "how long a process waits for its dump, up to 100 (default 30)");
/* Behind 120 seconds the kernel says of a task that it hangs. */
#define SECONDS_MAX 100

static uint core_rate = 6;
module_param(core_rate, uint, 0600);
MODULE_PARM_DESC(core_rate, "dumps that are begun in a minute (default 6); the others are counted as unavailable");

static atomic_t cores_taken, cores_failed;

static int get_count(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read((atomic_t *)param->arg));
}
static const struct kernel_param_ops count_operations = { .get = get_count };
module_param_cb(cores_taken, &count_operations, &cores_taken, 0400);
MODULE_PARM_DESC(cores_taken, "core dumps that have been written");
module_param_cb(cores_failed, &count_operations, &cores_failed, 0400);
MODULE_PARM_DESC(cores_failed, "core dumps that were begun and not written; the kernel log says why");

/* Core dumps under way at a time, at most. A process has one place, so that it has one dump at a time; others that have the same wait for nobody, and are refused. */
#define PLACES 8

static struct dump {
	/* Whose it is, by its process id; 0: nobody's. */
	atomic_t process;
	/* The thread, and who works for it: the last of them frees the place. */
	refcount_t users;
	struct irq_work irq_work;
	struct callback_head task_work;
	struct work_struct work;
	struct completion done;

	struct task_struct *thread;
	struct dprobes_exit_to exit;
	/* Of a hit in user mode: the registers at the probe. */
	struct pt_regs regs;
	bool in_user_mode;

	/* What the helper reads. */
	struct file *state;
	struct pid *helper;
	pid_t helper_process;
	/* The thread waits no longer. */
	bool given_up;
} dumps[PLACES];

static void free_dump(struct dump *dump)
{
	put_task_struct(dump->thread);
	dump->thread = NULL;
	put_pid(dump->helper);
	dump->helper = NULL;
	atomic_set_release(&dump->process, 0);
	wake_up_var(&dumps);
}

static void put_dump(struct dump *dump)
{
	if (refcount_dec_and_test(&dump->users))
		free_dump(dump);
}

/* Any context but that of a hit. */
static void fail(struct dump *dump, const char *why, int error)
{
	atomic_inc(&cores_failed);
	pr_warn_ratelimited("no core dump of process %d for probe %u.%u: %s (%d)\n", atomic_read(&dump->process), dump->exit.major,
			    dump->exit.minor, why, error);
}

/*
 * What the helper reads: for each set of registers the type of its note in a core dump and its length, as two words of 32 bits, and the bytes. First the thread's id, with
 * 0 as its type. cli/src/coredump/held.rs reads it.
 */
static int write_part(struct file *file, loff_t *position, u32 type, const void *bytes, u32 length)
{
	const u32 head[2] = { type, length };
	ssize_t done;

	done = kernel_write(file, head, sizeof(head), position);
	if (done == sizeof(head))
		done = kernel_write(file, bytes, length, position);
	return done < 0 ? done : done == length ? 0 : -EIO;
}

static int write_registers(struct dump *dump, struct file *file, loff_t *position)
{
	const struct user_regset_view *view = task_user_regset_view(current);
	const struct user_regset *set;
	unsigned int i;
	void *bytes;
	int length, err = 0;

	for (i = 0; i < view->n && !err; i++) {
		set = &view->regsets[i];
		if (set->core_note_type != NT_PRSTATUS && set->core_note_type != NT_PRFPREG && set->core_note_type != NT_X86_XSTATE)
			continue;
		if (set->active && set->active(current, set) <= 0)
			continue;
		length = regset_get_alloc(current, set, set->n * set->size, &bytes);
		if (length < 0)
			return length;
		/* By now the kernel may have sent the thread to its copy of the instruction, or carried that out. Those registers come first, and as they are here. */
		if (set->core_note_type == NT_PRSTATUS && dump->in_user_mode && length >= sizeof(dump->regs))
			memcpy(bytes, &dump->regs, sizeof(dump->regs));
		err = write_part(file, position, set->core_note_type, bytes, length);
		kvfree(bytes);
	}
	return err;
}

/* The state of the current thread, as a file. */
static struct file *state_of(struct dump *dump)
{
	const u32 thread = current->pid;
	loff_t position = 0;
	struct file *file;
	int err;

	file = shmem_file_setup("dprobes core", 0, COMPAT_NO_VM_FLAGS);
	if (IS_ERR(file))
		return file;
	err = write_part(file, &position, 0, &thread, sizeof(thread));
	if (!err)
		err = write_registers(dump, file, &position);
	if (!err)
		return file;
	fput(file);
	return ERR_PTR(err);
}

/* In the process that is about to be the helper. */
static int become_helper(struct subprocess_info *info, struct cred *new)
{
	struct dump *dump = info->data;
	int fd = get_unused_fd_flags(0);

	if (fd < 0)
		return fd;
	fd_install(fd, get_file(dump->state));
	/* It begins without any, so that this is its standard input. */
	if (fd)
		return -EMFILE;
	WRITE_ONCE(dump->helper_process, current->tgid);
	smp_store_release(&dump->helper, get_task_pid(current, PIDTYPE_TGID));
	/* Either this sees that nobody waits, or he who has waited sees whom to kill. */
	smp_mb();
	return READ_ONCE(dump->given_up) ? -EINTR : 0;
}

static void run_helper(struct work_struct *work)
{
	static char *environment[] = { "HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	struct dump *dump = container_of(work, struct dump, work);
	char process[16], *helper, *directory;
	struct subprocess_info *info;
	int result = -ENOMEM;

	snprintf(process, sizeof(process), "%d", atomic_read(&dump->process));
	kernel_param_lock(THIS_MODULE);
	helper = kstrdup(core_helper, GFP_KERNEL);
	directory = kstrdup(strim(core_directory), GFP_KERNEL);
	kernel_param_unlock(THIS_MODULE);
	if (helper && directory) {
		char *arguments[] = { helper, "core", "--held", "--directory", directory, process, NULL };

		info = call_usermodehelper_setup(helper, arguments, environment, GFP_KERNEL, become_helper, NULL, dump);
		if (info)
			result = call_usermodehelper_exec(info, UMH_WAIT_PROC);
	}
	if (READ_ONCE(dump->given_up))
		fail(dump, "it took too long, or the process was killed", result);
	else if (result < 0)
		fail(dump, "core_helper cannot be run", result);
	else if (result)
		fail(dump, "core_helper has failed, and says why in the kernel log", result);
	else
		atomic_inc(&cores_taken);
	kfree(directory);
	kfree(helper);
	fput(dump->state);
	WRITE_ONCE(dump->helper_process, 0);
	complete(&dump->done);
	put_dump(dump);
}

static void give_up(struct dump *dump)
{
	struct pid *helper;

	WRITE_ONCE(dump->given_up, true);
	smp_mb();
	helper = smp_load_acquire(&dump->helper);
	if (helper)
		kill_pid(helper, SIGKILL, 1);
}

/* The thread is on its way to user mode, or to its end. */
static void wait_for_dump(struct callback_head *work)
{
	struct dump *dump = container_of(work, struct dump, task_work);
	const unsigned long limit = clamp(READ_ONCE(core_seconds), 1U, (uint)SECONDS_MAX) * HZ;

	if (current->flags & PF_EXITING) {
		fail(dump, "it has ended", -ESRCH);
		goto out;
	}
	if (READ_ONCE(current->ptrace)) {
		fail(dump, "somebody else traces it", -EBUSY);
		goto out;
	}
	dump->state = state_of(dump);
	if (IS_ERR(dump->state)) {
		fail(dump, "its registers cannot be read", PTR_ERR(dump->state));
		goto out;
	}
	refcount_inc(&dump->users);
	queue_work(system_long_wq, &dump->work);
	if (wait_for_completion_killable_timeout(&dump->done, limit) <= 0) {
		give_up(dump);
		/* A process that goes on must not do so under the helper's hands. */
		wait_for_completion_timeout(&dump->done, HZ);
	}
out:
	put_dump(dump);
}

static void add_task_work(struct irq_work *work)
{
	struct dump *dump = container_of(work, struct dump, irq_work);

	if (task_work_add(dump->thread, &dump->task_work, TWA_RESUME)) {
		fail(dump, "it has ended", -ESRCH);
		put_dump(dump);
	}
}

/* One that ends is of no use, and one that takes dumps would wait for itself. */
static bool has_no_dump(void)
{
	unsigned int i;

	if (current->flags & (PF_KTHREAD | PF_EXITING | COMPAT_USER_WORKERS) || !current->mm)
		return true;
	for (i = 0; i < PLACES; i++) {
		if (READ_ONCE(dumps[i].helper_process) == current->tgid)
			return true;
	}
	return false;
}
NOKPROBE_SYMBOL(has_no_dump);

/* Is another one permitted in this minute? The minute is in the upper half of the word, and how many there were in the lower. */
static bool within_rate(void)
{
	static atomic64_t begun;
	const u64 minute = ktime_get_mono_fast_ns() / (60ULL * NSEC_PER_SEC);
	s64 old = atomic64_read(&begun), new;

	do {
		new = (u64)old >> 32 == (u32)minute ? old + 1 : (s64)(minute << 32 | 1);
		if ((u32)new > READ_ONCE(core_rate))
			return false;
	} while (!atomic64_try_cmpxchg(&begun, &old, new));
	return true;
}
NOKPROBE_SYMBOL(within_rate);

/* hit: as in an NMI */
int dprobes_core_begin(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame)
{
	const struct pt_regs *regs = (const struct pt_regs *)frame;
	struct dump *dump = &dumps[(u32)current->tgid % PLACES];

	if (!READ_ONCE(core_helper[0]))
		return -ENOENT;
	if (has_no_dump())
		return -ESRCH;
	/* The notes of a 32-bit process are others. */
	if (!is_64bit_mm(current->mm))
		return -ENOEXEC;
	if (READ_ONCE(current->ptrace))
		return -EBUSY;
	if (atomic_cmpxchg_acquire(&dump->process, 0, current->tgid))
		return -EBUSY;
	if (!within_rate()) {
		atomic_set_release(&dump->process, 0);
		return -EAGAIN;
	}
	dump->thread = get_task_struct(current);
	dump->exit = *exit;
	dump->in_user_mode = user_mode((struct pt_regs *)regs);
	if (dump->in_user_mode)
		dump->regs = *regs;
	dump->given_up = false;
	reinit_completion(&dump->done);
	refcount_set(&dump->users, 1);
	/* The task's list of works is not for those who may have interrupted its scheduler. */
	irq_work_queue(&dump->irq_work);
	return 0;
}
NOKPROBE_SYMBOL(dprobes_core_begin);

bool dprobes_core_is_there(void)
{
	return READ_ONCE(core_helper[0]);
}

void dprobes_core_init(void)
{
	struct dump *dump;

	for (dump = dumps; dump < dumps + PLACES; dump++) {
		init_irq_work(&dump->irq_work, add_task_work);
		init_task_work(&dump->task_work, wait_for_dump);
		INIT_WORK(&dump->work, run_helper);
		init_completion(&dump->done);
	}
}

static bool none_under_way(void)
{
	unsigned int i;

	for (i = 0; i < PLACES; i++) {
		if (atomic_read_acquire(&dumps[i].process))
			return false;
	}
	return true;
}

/* No hit comes any more. When this returns no thread and no helper is in code of this file. */
void dprobes_core_exit(void)
{
	struct dump *dump;

	wait_var_event(&dumps, none_under_way());
	for (dump = dumps; dump < dumps + PLACES; dump++) {
		irq_work_sync(&dump->irq_work);
		flush_work(&dump->work);
	}
	/* The last thread is still on its way out of here, and does not sleep before that. */
	synchronize_rcu_tasks();
}
