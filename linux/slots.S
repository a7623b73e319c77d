/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The slot area: where copies of probed instructions run. It is reserved in the module's own text, because that is
 * executable, within reach of all kernel and module text, and set up and torn down by the module loader. It takes no space in
 * the file; text.c fills it with int3 before it is used.
 */
#include "slots.h"

	.section .dprobes_slots, "ax", @nobits
	.balign 4096
	.globl dprobes_slots
	.type dprobes_slots, @object
	.size dprobes_slots, DPROBES_SLOTS_SIZE
dprobes_slots:
	.skip DPROBES_SLOTS_SIZE

/* Where instructions are while the kernel rewrites them for rewrite.c. Nobody runs them there. */
	.balign 64
	.globl dprobes_scratch
	.type dprobes_scratch, @object
	.size dprobes_scratch, 64
dprobes_scratch:
	.skip 64

	.section .note.GNU-stack, "", @progbits
