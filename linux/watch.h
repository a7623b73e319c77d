/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Between watch.c and watch_process.c. */
#ifndef DPROBES_LINUX_WATCH_H
#define DPROBES_LINUX_WATCH_H

#include <linux/perf_event.h>

/*
 * Watches in all threads of a process for what `attr` says, which this changes; `on_hit` has the number as its context. 0 or a negative errno:
 * -ESRCH when there is no such process.
 */
int dprobes_watch_process(unsigned int number, struct perf_event_attr *attr, perf_overflow_handler_t on_hit, u32 pid);

/* Takes that back, if anything is watched so under this number. */
void dprobes_unwatch_process(unsigned int number);

#endif
