// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Exits for the hooks of sample_queue: one counts packets, one refuses those that are too long. sample_queue may be loaded before or after.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/module.h>

#include "sample_queue.h"

static unsigned int limit = 1500;
module_param(limit, uint, 0644);
MODULE_PARM_DESC(limit, "longest packet that is let through, in bytes");

static atomic64_t bytes;

static int count(struct gkhi_exit *self, struct sample_packet *packet)
{
	atomic64_add(packet->length, self->data);
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(watch_count, sample_enqueue, count, .data = &bytes);

static struct gkhi_answer refuse(struct gkhi_exit *self, const struct sample_packet *packet)
{
	if (packet->length > READ_ONCE(limit))
		return gkhi_return_sample_admit(-EMSGSIZE);
	return gkhi_continue();
}
GKHI_DEFINE_EXIT(watch_limit, sample_admit, refuse, .options = GKHI_PRIORITY_FIRST);

static struct gkhi_exit *const exits[] = { &watch_count, &watch_limit };

static int show_bytes(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld\n", (s64)atomic64_read(&bytes));
}

static const struct kernel_param_ops bytes_operations = { .get = show_bytes };
module_param_cb(bytes, &bytes_operations, NULL, 0400);

static int __init sample_watch_init(void)
{
	struct gkhi_failure failure;
	int err;

	err = gkhi_register(&watch_count);
	if (err)
		return -EBUSY;
	err = gkhi_register(&watch_limit);
	if (err)
		goto deregister_count;
	/* Both at one moment, or none. */
	err = gkhi_arm_set(exits, ARRAY_SIZE(exits), &failure);
	if (err) {
		pr_err("%s\n", failure.message);
		goto deregister_limit;
	}
	return 0;

deregister_limit:
	gkhi_deregister(&watch_limit);
deregister_count:
	gkhi_deregister(&watch_count);
	return -EBUSY;
}
module_init(sample_watch_init);

static void __exit sample_watch_exit(void)
{
	/* When these return no CPU is in our code any more. */
	gkhi_deregister(&watch_limit);
	gkhi_deregister(&watch_count);
}
module_exit(sample_watch_exit);

MODULE_DESCRIPTION("Exits for the hooks of sample_queue");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
