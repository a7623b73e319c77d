// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What arming a thousand hooks costs: one after the other, and all in one transaction. Loading runs it;
 * /sys/module/hooks_many/parameters/report has the nanoseconds of each.
 */
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <gkhi.h>

#define TEN(m, n) m(n##0) m(n##1) m(n##2) m(n##3) m(n##4) m(n##5) m(n##6) m(n##7) m(n##8) m(n##9)
#define HUNDRED(m, n) TEN(m, n##0) TEN(m, n##1) TEN(m, n##2) TEN(m, n##3) TEN(m, n##4) \
	TEN(m, n##5) TEN(m, n##6) TEN(m, n##7) TEN(m, n##8) TEN(m, n##9)
#define THOUSAND(m) HUNDRED(m, 0) HUNDRED(m, 1) HUNDRED(m, 2) HUNDRED(m, 3) HUNDRED(m, 4) \
	HUNDRED(m, 5) HUNDRED(m, 6) HUNDRED(m, 7) HUNDRED(m, 8) HUNDRED(m, 9)

#define HOOK(n)										\
	GKHI_DECLARE_HOOK(many_##n);							\
	GKHI_DEFINE_HOOK(many_##n);							\
	static int exit_##n(struct gkhi_exit *self) { return GKHI_CONTINUE; }		\
	GKHI_DEFINE_EXIT(record_##n, many_##n, exit_##n);
THOUSAND(HOOK)

#define ADDRESS(n) &record_##n,
static struct gkhi_exit *const exits[] = { THOUSAND(ADDRESS) };

void hooks_many_pass(void);

void hooks_many_pass(void)
{
#define SITE(n) GKHI_HOOK(many_##n);
	THOUSAND(SITE)
}

static u64 single, set, disarm_set;

static int show_report(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "@arm %llu %zu hooks, one by one\n@arm %llu %zu hooks, in one transaction\n"
			  "@arm %llu disarming %zu hooks, in one transaction\n",
			  single, ARRAY_SIZE(exits), set, ARRAY_SIZE(exits), disarm_set, ARRAY_SIZE(exits));
}

static const struct kernel_param_ops report_operations = { .get = show_report };
module_param_cb(report, &report_operations, NULL, 0400);

static void deregister(size_t count)
{
	while (count--)
		WARN_ON(gkhi_deregister(exits[count]));
}

static int __init hooks_many_init(void)
{
	ktime_t start;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(exits); i++) {
		if (gkhi_register(exits[i])) {
			deregister(i);
			return -EBUSY;
		}
	}
	start = ktime_get();
	for (i = 0; i < ARRAY_SIZE(exits); i++)
		WARN_ON(gkhi_arm(exits[i]));
	single = ktime_get() - start;
	hooks_many_pass();
	start = ktime_get();
	WARN_ON(gkhi_disarm_set(exits, ARRAY_SIZE(exits), NULL));
	disarm_set = ktime_get() - start;
	start = ktime_get();
	WARN_ON(gkhi_arm_set(exits, ARRAY_SIZE(exits), NULL));
	set = ktime_get() - start;
	hooks_many_pass();
	return 0;
}
module_init(hooks_many_init);

static void __exit hooks_many_exit(void)
{
	deregister(ARRAY_SIZE(exits));
}
module_exit(hooks_many_exit);

MODULE_DESCRIPTION("What arming a thousand hooks costs");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
