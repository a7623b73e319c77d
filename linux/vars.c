// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The variables of programs, for /dev/dprobes: listed, and set to zero, while probes fire.
 */
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "shim.h"

/* As many as one call gives. */
#define VARS_MAX 65536

long dprobes_vars_get(struct dprobes_vars_request __user *argument)
{
	struct dprobes_vars_request request;
	struct dprobes_var_status *vars = NULL;
	size_t capacity;
	int err;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	capacity = min_t(size_t, request.capacity, VARS_MAX);
	if (capacity) {
		vars = kvcalloc(capacity, sizeof(*vars), GFP_KERNEL);
		if (!vars)
			return -ENOMEM;
	}
	err = dprobes_control_vars(&request, vars, capacity);
	if (!err && copy_to_user(u64_to_user_ptr(request.buffer), vars,
				 min_t(size_t, request.count, capacity) * sizeof(*vars)))
		err = -EFAULT;
	kvfree(vars);
	if (!err && copy_to_user(argument, &request, sizeof(request)))
		err = -EFAULT;
	return err;
}
