// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Watchpoints, through the kernel's hardware breakpoints: one pinned perf event on each CPU for each watchpoint, or, for one in a single
 * process, on each of its threads (watch_process.c). The kernel gives the registers out, to us as to perf, ptrace and whoever else asks, and writes them.
 *
 * A hit comes from the handler of #DB (arch/x86/kernel/hw_breakpoint.c), with interrupts off and, in kernel mode, as in an NMI: the same
 * rules hold as in a breakpoint.
 *
 * What is set, and the events, change under the lock for CPUs: while a program is inserted or removed no CPU comes or goes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/err.h>
#include <linux/hw_breakpoint.h>
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/perf_event.h>
#include <linux/percpu.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>

#include "shim.h"
#include "watch.h"

/* What the engine numbers from 0: as many as a CPU has registers. */
#define WATCHPOINTS HBP_NUM

/* dprobes.h has these as numbers. */
enum {
	REFUSED_ALL = 1,
	REFUSED_EXCLUDED = 2,
	REFUSED_IN_USE = 3,
	REFUSED_PORTS = 5,
	REFUSED_NO_MEMORY = 6,
	REFUSED_NO_PROCESS = 8,
};

static struct {
	/* On each CPU, those included that come on line. */
	bool set;
	struct perf_event_attr attr;
} watchpoints[WATCHPOINTS];

static DEFINE_PER_CPU(struct perf_event *, watch_events[WATCHPOINTS]);

static int hotplug_state;

/* hit */
static void on_hit(struct perf_event *event, struct perf_sample_data *data, struct pt_regs *regs)
{
	dprobes_on_watchpoint((struct dprobes_trap_frame *)regs, 1 << (unsigned long)event->overflow_handler_context);
}
NOKPROBE_SYMBOL(on_hit);

/* Has a CPU that is on line watch; 0 or a negative errno. */
static int watch_on(unsigned int cpu, unsigned int number)
{
	struct perf_event **place = per_cpu_ptr(&watch_events[number], cpu);
	struct perf_event *event;

	if (*place)
		return 0;
	event = perf_event_create_kernel_counter(&watchpoints[number].attr, cpu, NULL, on_hit,
						 (void *)(unsigned long)number);
	if (IS_ERR(event))
		return PTR_ERR(event);
	/* The kernel had one to give, but whoever sets registers behind its back has them all. */
	if (READ_ONCE(event->state) == PERF_EVENT_STATE_ERROR) {
		perf_event_release_kernel(event);
		return -ENOSPC;
	}
	*place = event;
	return 0;
}

/* The event is taken off its CPU by that CPU, outside of any hit. */
static void unwatch_on(unsigned int cpu, unsigned int number)
{
	struct perf_event **place = per_cpu_ptr(&watch_events[number], cpu);

	if (*place)
		perf_event_release_kernel(*place);
	*place = NULL;
}

/*
 * Who has the registers.
 */

/* The process that an event is for, or 0. Its tasks do not go away: interrupts are off, or RCU's lock is held. */
static pid_t process_of(const struct perf_event *event)
{
	const struct task_struct *owner = READ_ONCE(event->owner);
	struct task_struct *traced = event->hw.target;
	struct task_struct *tracer;

	/* What the kernel itself has made has an error in the place of an owner. */
	if (!IS_ERR_OR_NULL(owner))
		return owner->tgid;
	if (!traced)
		return 0;
	tracer = ptrace_parent(traced);
	return tracer ? tracer->tgid : traced->tgid;
}

/* Looks at this CPU's registers, which nobody else changes meanwhile: interrupts are off. */
static void look(void *data)
{
	struct perf_event **registers = this_cpu_ptr(dprobes_symbols.bp_per_reg);
	struct dprobes_watch_users *users = data;
	unsigned int i;

	rcu_read_lock();
	for (i = 0; i < HBP_NUM; i++) {
		const struct perf_event *event = registers[i];

		if (!event)
			continue;
		if (event->overflow_handler == on_hit) {
			users->ours |= BIT(i);
			continue;
		}
		users->others |= BIT(i);
		if (!users->process)
			users->process = process_of(event);
	}
	rcu_read_unlock();
}

/* A debugger's are in the registers only while its process runs, and are kept for it all the time. */
static pid_t find_tracer(void)
{
	struct task_struct *process, *thread, *tracer;
	pid_t found = 0;
	unsigned int i;

	rcu_read_lock();
	for_each_process_thread(process, thread) {
		for (i = 0; i < HBP_NUM && !found; i++) {
			if (!READ_ONCE(thread->thread.ptrace_bps[i]))
				continue;
			tracer = ptrace_parent(thread);
			found = tracer ? tracer->tgid : thread->tgid;
		}
		if (found)
			break;
	}
	rcu_read_unlock();
	return found;
}

static void find_users(struct dprobes_watch_users *users)
{
	unsigned int cpu;

	if (dprobes_symbols.bp_per_reg)
		for_each_online_cpu(cpu)
			smp_call_function_single(cpu, look, users, true);
	if (!users->process)
		users->process = find_tracer();
}

/*
 * What the engine asks for.
 */

static int refusal(int err, struct dprobes_watch_users *users)
{
	switch (err) {
	case 0:
		return 0;
	case -ENOSPC:
		find_users(users);
		return REFUSED_IN_USE;
	case -EINVAL:
		/* What the way to the handler of #DB needs (arch/x86/kernel/hw_breakpoint.c). */
		return REFUSED_EXCLUDED;
	case -ENOMEM:
		return REFUSED_NO_MEMORY;
	case -ESRCH:
		return REFUSED_NO_PROCESS;
	default:
		pr_warn("the kernel has no hardware breakpoints to give: perf_event_create_kernel_counter says %d\n", err);
		return REFUSED_ALL;
	}
}

/* Has all CPUs watch. The lock for CPUs is held. */
static int watch_always(unsigned int number)
{
	unsigned int cpu;
	int err = 0;

	for_each_online_cpu(cpu) {
		err = watch_on(cpu, number);
		if (err)
			break;
	}
	if (err)
		for_each_online_cpu(cpu)
			unwatch_on(cpu, number);
	watchpoints[number].set = !err;
	return err;
}

int dprobes_host_set_watchpoint(u32 number, u64 address, u32 kind, u32 length, u32 process, struct dprobes_watch_users *users)
{
	struct perf_event_attr *attr = &watchpoints[number].attr;
	int err;

	if (kind == DPROBES_WATCH_KIND_IO)
		return REFUSED_PORTS;
	hw_breakpoint_init(attr);
	attr->bp_addr = address;
	if (kind == DPROBES_WATCH_KIND_EXECUTE) {
		attr->bp_type = HW_BREAKPOINT_X;
		attr->bp_len = sizeof(long);	/* what the kernel has for one byte of an instruction */
	} else {
		attr->bp_type = kind == DPROBES_WATCH_KIND_WRITE ? HW_BREAKPOINT_W : HW_BREAKPOINT_RW;
		attr->bp_len = length;
	}
	/* Its threads are watched without the lock: perf takes it itself. */
	err = process ? dprobes_watch_process(number, attr, on_hit, process) : 0;
	cpus_read_lock();
	if (!process)
		err = watch_always(number);
	err = refusal(err, users);
	cpus_read_unlock();
	return err;
}

void dprobes_host_clear_watchpoint(u32 number)
{
	unsigned int cpu;

	dprobes_unwatch_process(number);
	cpus_read_lock();
	watchpoints[number].set = false;
	for_each_online_cpu(cpu)
		unwatch_on(cpu, number);
	cpus_read_unlock();
}

/*
 * CPUs come and go. What a CPU does while it starts, before this, is not watched.
 */

static int cpu_comes(unsigned int cpu)
{
	unsigned long flags;
	unsigned int number;
	int err;

	for (number = 0; number < WATCHPOINTS; number++) {
		if (!watchpoints[number].set)
			continue;
		err = watch_on(cpu, number);
		if (!err)
			continue;
		/* Worse than a CPU that does not watch is one that does not come. */
		local_irq_save(flags);
		dprobes_on_watchpoint_lost(number);
		local_irq_restore(flags);
		pr_warn("CPU %u, which has come on line, does not watch 0x%llx: no debug register is free there (%d)\n",
			cpu, watchpoints[number].attr.bp_addr, err);
	}
	return 0;
}

static int cpu_goes(unsigned int cpu)
{
	unsigned int number;

	for (number = 0; number < WATCHPOINTS; number++)
		unwatch_on(cpu, number);
	return 0;
}

int dprobes_watch_init(void)
{
	int state;

	/* Behind perf's own state, and therefore before it when a CPU goes. */
	state = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "dprobes:watch", cpu_comes, cpu_goes);
	if (state < 0)
		return state;
	hotplug_state = state;
	return 0;
}

/* Nothing is watched any more. */
void dprobes_watch_exit(void)
{
	cpuhp_remove_state_nocalls(hotplug_state);
}
