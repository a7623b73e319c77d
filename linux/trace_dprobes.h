/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The trace event of `exit_to trace`: dprobes:record, which ftrace, perf and trace-cmd see with its fields.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dprobes

#if !defined(DPROBES_LINUX_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DPROBES_LINUX_TRACE_H

#include <linux/tracepoint.h>

struct dprobes_exit_to;

/* A ring of the tracer's takes less than a page at a time: what is longer is cut, and `length` says how long it was. */
#define TRACE_ELEMENTS_MAX 1024

TRACE_EVENT(record,
	TP_PROTO(const struct dprobes_exit_to *exit, const u8 *elements, size_t length),
	TP_ARGS(exit, elements, length),
	TP_STRUCT__entry(
		__field(u16, major)
		__field(u16, minor)
		__field(u32, length)
		__field(unsigned long, address)
		__dynamic_array(u8, elements, min_t(size_t, length, TRACE_ELEMENTS_MAX))
	),
	TP_fast_assign(
		__entry->major = exit->major;
		__entry->minor = exit->minor;
		__entry->length = length;
		__entry->address = exit->address;
		memcpy(__get_dynamic_array(elements), elements, __get_dynamic_array_len(elements));
	),
	TP_printk("probe=%u.%u address=%pS length=%u elements=%s", __entry->major, __entry->minor,
		  (void *)__entry->address, __entry->length,
		  __print_hex(__get_dynamic_array(elements), __get_dynamic_array_len(elements)))
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace_dprobes
#include <trace/define_trace.h>
