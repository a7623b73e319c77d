// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The maps of inserted programs, for /dev/dprobes: listed, and read piece by piece while probes fire.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "shim.h"

/* As much as one call reads at once. The largest entry is far smaller. */
#define PIECE_SIZE (1 << 20)

/* How often a call reads again by itself when entries change all the time. */
#define ATTEMPTS 16

long dprobes_maps_list(struct dprobes_maps_request __user *argument)
{
	struct dprobes_maps_request request;
	struct dprobes_map_status *maps = NULL;
	size_t capacity;
	s64 count;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	count = dprobes_control_maps(NULL, 0);
	if (count < 0)
		return count;
	/* Some may come until they are listed. */
	capacity = min_t(size_t, request.capacity, count + 64);
	if (capacity) {
		maps = kvcalloc(capacity, sizeof(*maps), GFP_KERNEL);
		if (!maps)
			return -ENOMEM;
	}
	count = dprobes_control_maps(maps, capacity);
	if (count >= 0 &&
	    copy_to_user(u64_to_user_ptr(request.buffer), maps, min_t(size_t, count, capacity) * sizeof(*maps)))
		count = -EFAULT;
	kvfree(maps);
	if (count < 0)
		return count;
	request.count = count;
	if (copy_to_user(argument, &request, sizeof(request)))
		return -EFAULT;
	return 0;
}

long dprobes_maps_read(struct dprobes_read_map_request __user *argument)
{
	struct dprobes_read_map_request request;
	int err, attempts = ATTEMPTS;
	u8 *piece = NULL;
	size_t length;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	length = min_t(u64, request.length, PIECE_SIZE);
	if (length) {
		piece = kvmalloc(length, GFP_KERNEL);
		if (!piece)
			return -ENOMEM;
	}
	do {
		err = dprobes_control_read_map(&request, piece, length);
	} while (err == -EAGAIN && --attempts && !fatal_signal_pending(current));
	if (!err && copy_to_user(u64_to_user_ptr(request.buffer), piece, request.count * request.entry_bytes))
		err = -EFAULT;
	kvfree(piece);
	if (!err && copy_to_user(argument, &request, sizeof(request)))
		err = -EFAULT;
	return err;
}
