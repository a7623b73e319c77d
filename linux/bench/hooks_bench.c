// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What passing a hook costs, beside a tracepoint, a static key and a function pointer: the same small function with each of them in it, and
 * without. Everything that is called does nothing. Loading runs it; /sys/module/hooks_bench/parameters/report has the results:
 * ticks of the time stamp counter for a thousand passes more than without, and what was measured.
 */
#include <linux/irqflags.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <asm/msr.h>
#include <gkhi.h>

#define PASSES 1000
#define ROUNDS 20

GKHI_DECLARE_HOOK(bench_normal, u64, value, u64 *, sum);
GKHI_DEFINE_HOOK(bench_normal);
GKHI_DECLARE_HOOK(bench_empty);
GKHI_DEFINE_HOOK(bench_empty);
GKHI_DECLARE_RETURNING_HOOK(bench_returning, u64, u64, value, u64 *, sum);
GKHI_DEFINE_HOOK(bench_returning);
GKHI_DECLARE_GENERIC_HOOK(bench_generic, u64, value, u64 *, sum);
GKHI_DEFINE_HOOK(bench_generic);

/* Kernels that have this one add something to the names that the other is given. */
#ifndef DECLARE_TRACE_EVENT
#define DECLARE_TRACE_EVENT DECLARE_TRACE
#endif

DECLARE_TRACE_EVENT(bench_tracepoint, TP_PROTO(u64 value, u64 *sum), TP_ARGS(value, sum));
DEFINE_TRACE(bench_tracepoint, TP_PROTO(u64 value, u64 *sum), TP_ARGS(value, sum));

static DEFINE_STATIC_KEY_FALSE(bench_key);
static void (*volatile bench_pointer)(u64 value, u64 *sum);

static noinline void nothing(u64 value, u64 *sum)
{
	asm volatile("" : : "r" (value), "r" (sum));
}

#define PASS(name, ...)									\
	static noinline u64 name(u64 value, u64 *sum)					\
	{										\
		*sum += value;								\
		__VA_ARGS__;								\
		return value ^ *sum;							\
	}
PASS(pass_without)
PASS(pass_normal, GKHI_HOOK(bench_normal, value, sum))
PASS(pass_empty, GKHI_HOOK(bench_empty))
PASS(pass_returning, GKHI_HOOK_RETURN(bench_returning, value, sum))
PASS(pass_generic, GKHI_HOOK(bench_generic, value, sum))
PASS(pass_tracepoint, trace_bench_tracepoint(value, sum))
PASS(pass_key, if (static_branch_unlikely(&bench_key)) nothing(value, sum))
PASS(pass_pointer, void (*function)(u64, u64 *) = bench_pointer; if (unlikely(function)) function(value, sum))

#define EXIT(n)										\
	static int exit_##n(struct gkhi_exit *self, u64 value, u64 *sum) { return GKHI_CONTINUE; } \
	GKHI_DEFINE_EXIT(bench_##n, bench_normal, exit_##n)
EXIT(1);
EXIT(2);
EXIT(3);
EXIT(4);
EXIT(5);
EXIT(6);
EXIT(7);
EXIT(8);

static int exit_plain(struct gkhi_exit *self)
{
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(bench_plain, bench_empty, exit_plain);
/* As an exit that the compiler cannot be told to preserve registers in. */
GKHI_DEFINE_EXIT(bench_ordinary, bench_normal, exit_1, .target.entry = NULL);

static struct gkhi_answer exit_returning(struct gkhi_exit *self, u64 value, u64 *sum)
{
	return gkhi_continue();
}
GKHI_DEFINE_EXIT(bench_answer, bench_returning, exit_returning);

static int exit_generic(struct gkhi_exit *self, u64 value, u64 *sum)
{
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(bench_flag, bench_generic, exit_generic);

static struct gkhi_exit *const exits[] = {
	&bench_1, &bench_2, &bench_3, &bench_4, &bench_5, &bench_6, &bench_7, &bench_8,
	&bench_plain, &bench_ordinary, &bench_answer, &bench_flag,
};

static void probe(void *data, u64 value, u64 *sum) { }
static void another_probe(void *data, u64 value, u64 *sum) { barrier(); }

static char text[PAGE_SIZE];
static size_t used;
static u64 without;

#define MEASURE(function, name)								\
	do {										\
		u64 best = U64_MAX, sum = 0, start, ticks;				\
		unsigned int round, i;							\
		unsigned long flags;							\
											\
		for (round = 0; round < ROUNDS; round++) {				\
			local_irq_save(flags);						\
			start = rdtsc_ordered();					\
			for (i = 0; i < PASSES; i++)					\
				function(i, &sum);					\
			ticks = rdtsc_ordered() - start;				\
			local_irq_restore(flags);					\
			best = min(best, ticks);					\
		}									\
		if (!without)								\
			without = best;							\
		else									\
			used += scnprintf(text + used, sizeof(text) - used, "@pass %lld %s\n", best - without, name); \
	} while (0)

static void disarm(void)
{
	WARN_ON(gkhi_disarm_set(exits, ARRAY_SIZE(exits), NULL));
}

static void run(void)
{
	MEASURE(pass_without, "");
	MEASURE(pass_normal, "hook: dormant");
	WARN_ON(gkhi_arm_set(exits, 1, NULL));
	MEASURE(pass_normal, "hook: one exit");
	WARN_ON(gkhi_arm_set(exits, 2, NULL));
	MEASURE(pass_normal, "hook: two exits");
	WARN_ON(gkhi_arm_set(exits, 8, NULL));
	MEASURE(pass_normal, "hook: eight exits");
	disarm();
	MEASURE(pass_normal, "hook: disarmed again");
	WARN_ON(gkhi_arm(&bench_ordinary));
	MEASURE(pass_normal, "hook: one exit, an ordinary function");
	MEASURE(pass_empty, "hook without arguments: dormant");
	WARN_ON(gkhi_arm(&bench_plain));
	MEASURE(pass_empty, "hook without arguments: one exit");
	MEASURE(pass_returning, "returning hook: dormant");
	WARN_ON(gkhi_arm(&bench_answer));
	MEASURE(pass_returning, "returning hook: one exit");
	MEASURE(pass_generic, "generic hook: dormant");
	WARN_ON(gkhi_arm(&bench_flag));
	MEASURE(pass_generic, "generic hook: one exit");
	disarm();

	MEASURE(pass_tracepoint, "tracepoint: dormant");
	WARN_ON(register_trace_bench_tracepoint(probe, NULL));
	MEASURE(pass_tracepoint, "tracepoint: one function");
	WARN_ON(register_trace_bench_tracepoint(another_probe, NULL));
	MEASURE(pass_tracepoint, "tracepoint: two functions");
	unregister_trace_bench_tracepoint(probe, NULL);
	unregister_trace_bench_tracepoint(another_probe, NULL);
	tracepoint_synchronize_unregister();
	MEASURE(pass_key, "static key, a call behind it: off");
	static_branch_enable(&bench_key);
	MEASURE(pass_key, "static key, a call behind it: on");
	MEASURE(pass_pointer, "function pointer: null");
	bench_pointer = nothing;
	MEASURE(pass_pointer, "function pointer: set");
}

static int show_report(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%s", text);
}

static const struct kernel_param_ops report_operations = { .get = show_report };
module_param_cb(report, &report_operations, NULL, 0400);

static void deregister(size_t count)
{
	while (count--)
		WARN_ON(gkhi_deregister(exits[count]));
}

static int __init hooks_bench_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(exits); i++) {
		if (gkhi_register(exits[i])) {
			deregister(i);
			return -EBUSY;
		}
	}
	run();
	return 0;
}
module_init(hooks_bench_init);

static void __exit hooks_bench_exit(void)
{
	deregister(ARRAY_SIZE(exits));
}
module_exit(hooks_bench_exit);

MODULE_DESCRIPTION("What passing a hook costs");
MODULE_AUTHOR("The DProbes authors");
MODULE_LICENSE("Dual MIT/GPL");
