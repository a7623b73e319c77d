// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * An exit facility for probe programs: `exit_to 16` counts, and notes who was there last.
 *
 *	cat /sys/module/sample_facility/parameters/last
 */
#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/module.h>
#include <linux/sched.h>

#include <dprobes_exits.h>

#define FACILITY 16

static atomic64_t requests;
static atomic64_t address;
static atomic_t pid;

/* In the hit of a probe: nothing that sleeps, allocates or waits. */
static struct gkhi_answer on_exit_to(struct gkhi_exit *self, const struct dprobes_exit_to *exit,
				     const struct dprobes_trap_frame *frame)
{
	if (exit->facility != FACILITY)
		return gkhi_continue();
	atomic64_inc(&requests);
	atomic64_set(&address, exit->address);
	atomic_set(&pid, current->tgid);
	return gkhi_return_dprobes_exit_to();
}
GKHI_DEFINE_EXIT(sample_facility, dprobes_exit_to, on_exit_to);

static int show_last(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lld requests, the last at %pS by process %d\n", (s64)atomic64_read(&requests),
			  (void *)atomic64_read(&address), atomic_read(&pid));
}

static const struct kernel_param_ops last_operations = { .get = show_last };
module_param_cb(last, &last_operations, NULL, 0400);

static int __init sample_facility_init(void)
{
	struct gkhi_failure failure;
	struct gkhi_exit *const exits[] = { &sample_facility };

	/* It fails when dprobes is not loaded: there is no such hook. */
	if (gkhi_register(&sample_facility))
		return -ENOENT;
	if (gkhi_arm_set(exits, ARRAY_SIZE(exits), &failure)) {
		pr_err("sample_facility: %s\n", failure.message);
		gkhi_deregister(&sample_facility);
		return -EBUSY;
	}
	return 0;
}
module_init(sample_facility_init);

static void __exit sample_facility_exit(void)
{
	/* When this returns no CPU is in our code any more. */
	gkhi_deregister(&sample_facility);
}
module_exit(sample_facility_exit);

MODULE_DESCRIPTION("An exit facility for DProbes");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
