// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Probes on instructions that the kernel rewrites: jump labels and static calls.
 *
 * Before it writes another instruction the kernel compares what is there with what it expects, and stops the machine if that is not so
 * (arch/x86/kernel/jump_label.c, static_call.c). With a breakpoint there it must not look. So at the entries of the functions that do it are
 * sentries. Where there is no breakpoint of ours they go on. Where there is one they do it to a copy of the instruction at a place that nobody
 * runs; what they have made of it is what the engine then carries out, and what is written behind the breakpoint. The breakpoint itself stays,
 * and no hit is missed.
 *
 * The kernel does these things under one mutex for each of the two, and so does the engine, from comparing text with what it expects to
 * noting that there is a breakpoint (dprobes_host_lock_rewrites()).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/irqflags.h>
#include <linux/jump_label.h>
#include <linux/kprobes.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/static_call.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <asm/text-patching.h>

#include "shim.h"
#include "text_alias.h"

/* The longest instruction of this kind: a conditional jump, as a static call. */
#define LENGTH_MAX 6

/* Who is in which of the two, so that the kernel's own function is not redirected when it is called from here; under the mutex. */
static struct task_struct *in_jump_label;
static struct task_struct *in_static_call;

void dprobes_host_lock_rewrites(void)
{
	dprobes_symbols.jump_label_lock();
	mutex_lock(dprobes_symbols.static_call_mutex);
}

void dprobes_host_unlock_rewrites(void)
{
	mutex_unlock(dprobes_symbols.static_call_mutex);
	dprobes_symbols.jump_label_unlock();
}

/* Is there a breakpoint of ours? Then the whole instruction, as it was when the kernel last wrote it. */
static bool is_probed(unsigned long address, u8 *code, size_t length)
{
	unsigned long flags;
	u8 first = 0;
	bool probed;

	local_irq_save(flags);
	probed = dprobes_rewritten(address, &first);
	local_irq_restore(flags);
	if (!probed)
		return false;
	code[0] = first;
	/* A short one may be at the very end of text. */
	while (--length)
		if (copy_from_kernel_nofault(code + length, (u8 *)address + length, 1))
			code[length] = 0;
	return true;
}

/* By the kernel's function, which needs no memory: this must not fail. */
static void write_bytes(unsigned long address, const u8 *bytes, size_t length)
{
	mutex_lock(dprobes_symbols.text_mutex);
	dprobes_symbols.text_poke((void *)address, bytes, length);
	mutex_unlock(dprobes_symbols.text_mutex);
}

/* Has the engine carry out other bytes, and writes them behind the breakpoint. */
static void take_over(unsigned long address, const u8 *code, size_t length)
{
	unsigned long flags;
	bool known;

	local_irq_save(flags);
	known = dprobes_rewrite(address, code, length);
	local_irq_restore(flags);
	write_bytes(address + 1, code + 1, length - 1);
	text_alias_sync_cores();
	if (known)
		return;
	pr_warn("the probe at %pS does not fire any more: the kernel has written an instruction there that is not known, %*ph\n",
		(void *)address, (int)length, code);
	write_bytes(address, code, 1);
	text_alias_sync_cores();
}

/* Where in a static call its distance to the target is, or 0 if it has none. */
static size_t distance_at(const u8 *code)
{
	switch (code[0]) {
	case 0xe8:	/* call */
	case 0xe9:	/* jmp */
		return 1;
	case 0x0f:	/* jcc */
		return (code[1] & 0xf0) == 0x80 ? 2 : 0;
	default:
		return 0;
	}
}

/* Makes code that was at one place do the same at another. */
static void move(u8 *code, unsigned long from, unsigned long to)
{
	const size_t at = distance_at(code);
	s32 distance;

	if (!at)
		return;
	memcpy(&distance, code + at, sizeof(distance));
	distance += (s32)(from - to);
	memcpy(code + at, &distance, sizeof(distance));
}

/* arch_static_call_transform() */
static void static_call_transform(void *site, void *trampoline, void *function, bool tail)
{
	const unsigned long address = (unsigned long)site;
	const unsigned long scratch = (unsigned long)dprobes_scratch.static_call;
	u8 code[LENGTH_MAX];

	WRITE_ONCE(in_static_call, current);
	if (!site || !is_probed(address, code, sizeof(code))) {
		dprobes_symbols.arch_static_call_transform(site, trampoline, function, tail);
	} else {
		if (trampoline)
			dprobes_symbols.arch_static_call_transform(NULL, trampoline, function, tail);
		move(code, address, scratch);
		write_bytes(scratch, code, sizeof(code));
		dprobes_symbols.arch_static_call_transform((void *)scratch, NULL, function, tail);
		memcpy(code, (void *)scratch, sizeof(code));
		move(code, scratch, address);
		/* Only a conditional jump, which stays one, is longer. */
		take_over(address, code, distance_at(code) == 2 ? LENGTH_MAX : CALL_INSN_SIZE);
	}
	WRITE_ONCE(in_static_call, NULL);
}

/* arch_jump_label_transform_queue(): what is not queued is done at once. */
static bool jump_label_transform(struct jump_entry *entry, enum jump_label_type type)
{
	/* It is addressed relative to itself. */
	static struct jump_entry moved;
	const unsigned long address = jump_entry_code(entry);
	const unsigned long scratch = (unsigned long)dprobes_scratch.jump_label;
	u8 code[JMP32_INSN_SIZE];
	bool queued = true;
	size_t length;

	if (!is_probed(address, code, sizeof(code))) {
		WRITE_ONCE(in_jump_label, current);
		queued = dprobes_symbols.arch_jump_label_transform_queue(entry, type);
		WRITE_ONCE(in_jump_label, NULL);
		return queued;
	}
	/* A NOP of five bytes is longer than one of two, and so are the jumps. */
	length = code[0] == 0x0f || code[0] == JMP32_INSN_OPCODE ? JMP32_INSN_SIZE : JMP8_INSN_SIZE;
	write_bytes(scratch, code, length);
	moved.code = (long)scratch - (long)&moved.code;
	moved.target = (long)(scratch + (jump_entry_target(entry) - address)) - (long)&moved.target;
	dprobes_symbols.arch_jump_label_transform(&moved, type);
	memcpy(code, (void *)scratch, length);
	take_over(address, code, length);
	return true;
}

void dprobes_on_static_call_transform(struct pt_regs *regs)
{
	if (READ_ONCE(in_static_call) != current)
		regs->ip = (unsigned long)static_call_transform;
}
NOKPROBE_SYMBOL(dprobes_on_static_call_transform);

void dprobes_on_jump_label_transform(struct pt_regs *regs)
{
	if (READ_ONCE(in_jump_label) != current)
		regs->ip = (unsigned long)jump_label_transform;
}
NOKPROBE_SYMBOL(dprobes_on_jump_label_transform);
