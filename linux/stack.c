// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The kernel stack of a hit, by the kernel's own unwinder: the one that perf calls in NMIs. It takes no lock, and reads nothing but
 * stacks that it knows and its own tables.
 */
#include <asm/unwind.h>
#include <linux/kprobes.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include "shim.h"

s64 dprobes_host_kernel_stack(const struct dprobes_trap_frame *frame, u64 *addresses, uintptr_t capacity)
{
	struct unwind_state state;
	unsigned long address;
	uintptr_t count = 0;

	if (user_mode((struct pt_regs *)frame) || !capacity)
		return 0;
	/* The unwinder looks modules up under RCU, which has not been told of a hit through a gate of our own. */
	if (dprobes_gate_installed() && !rcu_is_watching())
		return -EAGAIN;
	/* It starts with the frame after that of the registers. */
	addresses[count++] = frame->rip;
	unwind_start(&state, current, (struct pt_regs *)frame, NULL);
	for (; count < capacity && !unwind_done(&state); unwind_next_frame(&state)) {
		address = unwind_get_return_address(&state);
		if (!address)
			break;
		addresses[count++] = address;
	}
	return count;
}
NOKPROBE_SYMBOL(dprobes_host_kernel_stack);
