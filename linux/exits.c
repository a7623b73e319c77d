// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Exit facilities: what a program triggers with `exit_to`. First those of other modules, which are exits on a hook; then the kernel's own.
 *
 * All of this runs in the hit of a probe, as in an NMI.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/moduleparam.h>
#include <linux/panic.h>
#include <linux/rcupdate.h>

#include <dprobes_exits.h>

#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace_dprobes.h"

/* dprobes.h has these as numbers. */
enum { FACILITY_DEBUGGER = 1, FACILITY_DUMP = 2, FACILITY_CORE = 3, FACILITY_TRACE = 4 };

static bool dump;
module_param(dump, bool, 0444);
MODULE_PARM_DESC(dump, "programs may stop the machine: `exit_to dump` takes a crash dump by kexec if one is loaded, and panics otherwise");

/* gkhi.ko finds it, whether it is loaded before or after. */
GKHI_DEFINE_HOOK(dprobes_exit_to);

static void offer(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame, bool *taken)
{
	*taken = true;
	GKHI_HOOK_RETURN_VOID(dprobes_exit_to, exit, frame);
	*taken = false;
}
NOKPROBE_SYMBOL(offer);

/* What nobody listens to is not there. */
int dprobes_pass_to_tracer(const struct dprobes_exit_to *exit, const u8 *elements, size_t length)
{
	if (!trace_record_enabled())
		return -ENOENT;
	/* A hit through a gate of our own may be unknown to RCU, which keeps the list of tracers. */
	if (!rcu_is_watching())
		return -EAGAIN;
	trace_record(exit, elements, length);
	return 0;
}
NOKPROBE_SYMBOL(dprobes_pass_to_tracer);

/* With a crash kernel loaded, panicking starts it. This returns only when this CPU is panicking already. */
static int take_dump(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame)
{
	char message[160];

	if (!dump)
		return -EPERM;
	scnprintf(message, sizeof(message), "dprobes: probe %u.%u at %pS asks for a dump", exit->major, exit->minor,
		  (void *)exit->address);
	nmi_panic((struct pt_regs *)frame, message);
	return -EALREADY;
}
NOKPROBE_SYMBOL(take_dump);

int dprobes_host_exit_to(const struct dprobes_exit_to *exit, const struct dprobes_trap_frame *frame, const u8 *elements,
			 uintptr_t length)
{
	bool taken;

	offer(exit, frame, &taken);
	if (taken)
		return 0;
	switch (exit->facility) {
	case FACILITY_TRACE:
		return dprobes_pass_to_tracer(exit, elements, length);
	case FACILITY_DUMP:
		return take_dump(exit, frame);
	case FACILITY_CORE:
		return dprobes_core_begin(exit, frame);
	default:
		return -ENOSYS;
	}
}
NOKPROBE_SYMBOL(dprobes_host_exit_to);

/* As far as it is known when a program is inserted. */
u32 dprobes_host_facility(u32 facility)
{
	/* An exit may be any facility, and does not say which. */
	if (gkhi_armed_dprobes_exit_to())
		return 0;
	switch (facility) {
	case FACILITY_DEBUGGER:
		return DPROBES_FACILITY_ERROR_ABSENT;
	case FACILITY_CORE:
		return dprobes_core_is_there() ? 0 : DPROBES_FACILITY_ERROR_ABSENT;
	case FACILITY_DUMP:
		return dump ? 0 : DPROBES_FACILITY_ERROR_FORBIDDEN;
	default:
		/* Modules may bring theirs later, and tracing may be switched on later. */
		return 0;
	}
}
