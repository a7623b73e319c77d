// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * /dev/dprobes: requests by ioctl, answered with the facts; records by read, whole ones only.
 */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "shim.h"

/* How often a waiting reader looks for new records. */
#define PUMP_INTERVAL msecs_to_jiffies(20)

/* As large as a CPU's ring, so that the longest record fits. */
#define STREAM_SIZE (256 << 10)

/*
 * Records on their way to readers. One stream for all: a record goes to whoever reads first.
 */
static struct {
	struct mutex lock;		/* the buffer, and the reading end of the rings */
	wait_queue_head_t wait;
	u8 *buffer;
	size_t begin;			/* what has been read */
	size_t end;			/* what has been filled in */
	u32 next_cpu;			/* whose ring is drained first, in turn */
} stream;

/* Moves what is final from the rings to the empty buffer. */
static void stream_drain(void)
{
	u32 i, cpu;
	s64 got;

	stream.begin = 0;
	stream.end = 0;
	for (i = 0; i < nr_cpu_ids; i++) {
		cpu = (stream.next_cpu + i) % nr_cpu_ids;
		got = dprobes_read(cpu, stream.buffer + stream.end, STREAM_SIZE - stream.end);
		if (got > 0)
			stream.end += got;
	}
	stream.next_cpu = (stream.next_cpu + 1) % nr_cpu_ids;
}

static bool stream_has_records(void)
{
	return READ_ONCE(stream.begin) != READ_ONCE(stream.end);
}

/*
 * Has records in the buffer if there are any. Those whose instruction may not have completed are waited for: for a grace period, not for
 * something to happen, so that a reader that does not want to block waits too.
 */
static void stream_fill(void)
{
	lockdep_assert_held(&stream.lock);
	if (!stream_has_records())
		stream_drain();
	if (!stream_has_records() && dprobes_has_provisional()) {
		dprobes_settle();
		stream_drain();
	}
}

/*
 * Looks for records on behalf of those who wait. The path of a hit cannot wake anybody up, so that this has to look again and
 * again; it stops when nobody waits.
 */
static void stream_pump(struct work_struct *work);
static DECLARE_DELAYED_WORK(pump_work, stream_pump);

static void stream_pump(struct work_struct *work)
{
	mutex_lock(&stream.lock);
	stream_fill();
	mutex_unlock(&stream.lock);

	if (stream_has_records())
		wake_up_interruptible(&stream.wait);
	else if (wq_has_sleeper(&stream.wait))
		queue_delayed_work(system_long_wq, &pump_work, PUMP_INTERVAL);
}

static void stream_start_pump(void)
{
	queue_delayed_work(system_long_wq, &pump_work, 0);
}

/* How many of the bytes in the buffer are whole records that `room` bytes hold; -EMSGSIZE when the first does not fit. */
static ssize_t stream_whole_records(size_t room)
{
	size_t available = min(room, stream.end - stream.begin);
	const struct dprobes_header *header;
	size_t whole = 0;

	for (;;) {
		if (whole + sizeof(*header) > available)
			break;
		header = (const void *)(stream.buffer + stream.begin + whole);
		if (!header->length || whole + header->length > available)
			break;
		whole += header->length;
	}
	return whole ?: -EMSGSIZE;
}

/* What is there now: bytes read, 0 when there is nothing, or a negative errno. */
static ssize_t stream_read(char __user *to, size_t room)
{
	ssize_t length = 0;

	if (mutex_lock_interruptible(&stream.lock))
		return -ERESTARTSYS;
	stream_fill();
	if (stream_has_records()) {
		length = stream_whole_records(room);
		if (length > 0 && copy_to_user(to, stream.buffer + stream.begin, length))
			length = -EFAULT;
		if (length > 0)
			stream.begin += length;
	}
	mutex_unlock(&stream.lock);
	return length;
}

/* Has it known of every record that is there now whether its instruction has completed. */
int dprobes_stream_settle(void)
{
	if (mutex_lock_interruptible(&stream.lock))
		return -ERESTARTSYS;
	dprobes_settle();
	mutex_unlock(&stream.lock);
	return 0;
}

static ssize_t device_read(struct file *file, char __user *to, size_t room, loff_t *position)
{
	ssize_t length;

	for (;;) {
		length = stream_read(to, room);
		if (length)
			return length;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		stream_start_pump();
		if (wait_event_interruptible(stream.wait, stream_has_records()))
			return -ERESTARTSYS;
	}
}

static __poll_t device_poll(struct file *file, poll_table *table)
{
	poll_wait(file, &stream.wait, table);
	if (stream_has_records())
		return EPOLLIN | EPOLLRDNORM;
	stream_start_pump();
	return 0;
}

/* What probes can do to the kernel includes what kprobes can. */
static int locked_down(void)
{
	return security_locked_down(LOCKDOWN_KPROBES);
}

/* Room for as many states as the caller has room for, and there are; NULL for none. */
static struct dprobes_probe_status *states_alloc(size_t *capacity)
{
	s64 count;

	/* Some may come until they are listed. */
	count = dprobes_control_query(NULL, 0);
	if (count < 0)
		return ERR_PTR(count);
	*capacity = min_t(size_t, *capacity, count + 64);
	if (!*capacity)
		return NULL;
	return kvcalloc(*capacity, sizeof(struct dprobes_probe_status), GFP_KERNEL) ?: ERR_PTR(-ENOMEM);
}

static int states_copy(u64 to, const struct dprobes_probe_status *states, size_t count, size_t capacity)
{
	return copy_to_user(u64_to_user_ptr(to), states, min(count, capacity) * sizeof(*states)) ? -EFAULT : 0;
}

static long insert(struct dprobes_insert_request __user *argument)
{
	struct dprobes_insert_options options = { };
	struct dprobes_insert_request request;
	struct dprobes_probe_status *last;
	struct file *file = NULL;
	uintptr_t count = 0;
	size_t capacity;
	void *object;
	int err;

	/* It may have come since the device was opened. */
	err = locked_down();
	if (err)
		return err;
	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (!request.length || request.length > DPROBES_OBJECT_MAX || request.file < -1 ||
	    request.how > DPROBES_INSERT_REPLACE)
		return -EINVAL;
	if (request.file >= 0) {
		file = fget(request.file);
		if (!file)
			return -EBADF;
	}
	object = vmemdup_user(u64_to_user_ptr(request.object), request.length);
	if (IS_ERR(object)) {
		err = PTR_ERR(object);
		goto put_file;
	}
	capacity = request.how == DPROBES_INSERT_REPLACE ? request.capacity : 0;
	last = states_alloc(&capacity);
	if (IS_ERR(last)) {
		err = PTR_ERR(last);
		goto free_object;
	}
	options.file = (unsigned long)file;
	options.how = request.how;
	options.targets = request.targets;
	options.process = request.process;
	err = dprobes_control_insert(object, request.length, &options, last, capacity, &count, &request.reply);
	if (!err)
		err = states_copy(request.last, last, count, capacity);
	request.count = count;
	kvfree(last);
	if (copy_to_user(argument, &request, sizeof(request)))
		err = -EFAULT;

free_object:
	kvfree(object);
put_file:
	if (file)
		fput(file);
	return err;
}

static long remove(struct dprobes_remove_request __user *argument)
{
	struct dprobes_remove_request request;
	struct dprobes_probe_status *last;
	size_t capacity;
	uintptr_t count = 0;
	int err;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.all > DPROBES_REMOVE_ALL_NOW || request.keep > DPROBES_KEEP_TYPE || (request.all && request.keep) ||
	    (request.keep <= DPROBES_KEEP_ALL && request.number))
		return -EINVAL;
	/* Before the lock, which somebody may have for long. */
	if (request.all == DPROBES_REMOVE_ALL_NOW)
		dprobes_halt();
	if (request.all) {
		err = dprobes_control_remove_all(&request.reply);
	} else if (request.keep) {
		err = dprobes_control_disarm((const char *)request.module, request.major, request.keep, request.number,
					     &request.reply);
	} else {
		capacity = request.capacity;
		last = states_alloc(&capacity);
		if (IS_ERR(last))
			return PTR_ERR(last);
		err = dprobes_control_remove((const char *)request.module, request.major, last, capacity, &count,
					     &request.reply);
		if (!err)
			err = states_copy(request.last, last, count, capacity);
		kvfree(last);
	}
	request.count = count;
	if (copy_to_user(argument, &request, sizeof(request)))
		return -EFAULT;
	return err;
}

static long query(struct dprobes_query_request __user *argument)
{
	struct dprobes_query_request request;
	struct dprobes_probe_status *probes;
	size_t capacity;
	s64 count;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (request.reserved)
		return -EINVAL;
	capacity = request.capacity;
	probes = states_alloc(&capacity);
	if (IS_ERR(probes))
		return PTR_ERR(probes);
	count = dprobes_control_query(probes, capacity);
	if (count >= 0 && states_copy(request.buffer, probes, count, capacity))
		count = -EFAULT;
	kvfree(probes);
	if (count < 0)
		return count;
	request.count = count;
	request.version = DPROBES_INTERFACE_VERSION;
	if (copy_to_user(argument, &request, sizeof(request)))
		return -EFAULT;
	return 0;
}

static long check(struct dprobes_check_request __user *argument)
{
	struct dprobes_check_request request;
	struct dprobes_point_check *checks;
	size_t size;
	int err;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	if (!request.count || request.count > DPROBES_CHECKS_MAX || request.reserved)
		return -EINVAL;
	size = request.count * sizeof(*checks);
	checks = vmemdup_user(u64_to_user_ptr(request.checks), size);
	if (IS_ERR(checks))
		return PTR_ERR(checks);
	err = dprobes_control_check(checks, request.count);
	if (!err && copy_to_user(u64_to_user_ptr(request.checks), checks, size))
		err = -EFAULT;
	kvfree(checks);
	return err;
}

static long device_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case DPROBES_IOCTL_INSERT:
		return insert((void __user *)argument);
	case DPROBES_IOCTL_REMOVE:
		return remove((void __user *)argument);
	case DPROBES_IOCTL_QUERY:
		return query((void __user *)argument);
	case DPROBES_IOCTL_CHECK:
		return check((void __user *)argument);
	case DPROBES_IOCTL_MAPS:
		return dprobes_maps_list((void __user *)argument);
	case DPROBES_IOCTL_READ_MAP:
		return dprobes_maps_read((void __user *)argument);
	case DPROBES_IOCTL_VARS:
		return dprobes_vars_get((void __user *)argument);
	case DPROBES_IOCTL_RINGS:
		return dprobes_rings(file, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

/* Who opens a device of ours. */
int dprobes_may_open(void)
{
	return capable(CAP_SYS_ADMIN) ? locked_down() : -EPERM;
}

static int device_open(struct inode *inode, struct file *file)
{
	int err = dprobes_may_open();

	if (err)
		return err;
	/* Where misc devices have their own description, which this one knows. */
	file->private_data = NULL;
	return stream_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	dprobes_rings_release(file);
	return 0;
}

static const struct file_operations device_operations = {
	.owner		= THIS_MODULE,
	.open		= device_open,
	.release	= device_release,
	.mmap		= dprobes_rings_mmap,
	.read		= device_read,
	.poll		= device_poll,
	.unlocked_ioctl	= device_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dprobes",
	.fops	= &device_operations,
	.mode	= 0600,
};

int dprobes_device_init(void)
{
	int err;

	mutex_init(&stream.lock);
	init_waitqueue_head(&stream.wait);
	stream.buffer = kvzalloc(STREAM_SIZE, GFP_KERNEL);
	if (!stream.buffer)
		return -ENOMEM;
	err = misc_register(&device);
	if (err)
		kvfree(stream.buffer);
	return err;
}

/* The module is not unloaded while the device is open: nobody reads, and nobody starts the pump again. */
void dprobes_device_exit(void)
{
	misc_deregister(&device);
	cancel_delayed_work_sync(&pump_work);
	kvfree(stream.buffer);
}
