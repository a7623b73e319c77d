/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The slot area: where copies of probed instructions run. It is reserved in the module's own text, because that is
 * executable, within reach of all kernel and module text, and set up and torn down by the module loader. text.c fills it with int3
 * before it is used.
 *
 * It takes no space in the file where objtool looks at one object at a time, and not at this one. For a kernel with IBT objtool looks at the linked
 * module, this part too, and needs something to read, which long NOPs make few instructions.
 */
#include <linux/objtool.h>

#include "slots.h"

#ifdef CONFIG_X86_KERNEL_IBT
#define SLOTS_SECTION @progbits
/* nopl 0(%rax,%rax), of eight bytes */
#define SLOTS_FILL(size) .fill (size) / 8, 8, 0x00841f0f
#else
#define SLOTS_SECTION @nobits
#define SLOTS_FILL(size) .skip size
#endif

	.section .dprobes_slots, "ax", SLOTS_SECTION
	.balign 4096
	.globl dprobes_slots
	.type dprobes_slots, @object
	.size dprobes_slots, DPROBES_SLOTS_SIZE
dprobes_slots:
	ANNOTATE_NOENDBR
	SLOTS_FILL(DPROBES_SLOTS_SIZE)

/* Where instructions are while the kernel rewrites them for rewrite.c. Nobody runs them there. */
	.balign 64
	.globl dprobes_scratch
	.type dprobes_scratch, @object
	.size dprobes_scratch, 64
dprobes_scratch:
	ANNOTATE_NOENDBR
	SLOTS_FILL(16)
	ANNOTATE_NOENDBR
	SLOTS_FILL(48)

	.section .note.GNU-stack, "", @progbits
