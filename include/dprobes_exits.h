/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Exit facilities of other modules: what a probe program triggers with `exit_to 16` to `exit_to 255`.
 *
 *	static struct gkhi_answer on_exit_to(struct gkhi_exit *self, const struct dprobes_exit_to *exit,
 *					     const struct dprobes_trap_frame *frame)
 *	{
 *		if (exit->facility != MY_NUMBER)
 *			return gkhi_continue();
 *		...
 *		return gkhi_return_void();
 *	}
 *	GKHI_DEFINE_EXIT(my_facility, dprobes_exit_to, on_exit_to);
 *
 * The hook is passed in the hit of a probe, with interrupts off, in any context, an NMI or a page fault included: what an exit does must not
 * sleep, allocate, page in, or take a lock that interrupted code may hold. A facility that no exit takes is counted for its probe as unavailable.
 * linux/samples/sample_facility.c is one.
 */
#ifndef DPROBES_EXITS_H
#define DPROBES_EXITS_H

#include <dprobes.h>
#include <gkhi.h>

GKHI_DECLARE_GENERIC_RETURNING_VOID_HOOK(dprobes_exit_to, const struct dprobes_exit_to *, exit,
					 const struct dprobes_trap_frame *, frame);

#endif
