/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * GKHI: hooks for kernel code in C, on x86-64, with gcc 11 or clang 14 or newer. docs/hooks.md tells how to use them.
 *
 *	In a header of the hooked code:
 *		GKHI_DECLARE_HOOK(packet_in, struct packet *, packet, unsigned int, length);
 *	In one of its files:
 *		GKHI_DEFINE_HOOK(packet_in);
 *	Wherever it is to be passed:
 *		GKHI_HOOK(packet_in, packet, packet->length);
 *	In another module:
 *		static int count(struct gkhi_exit *self, struct packet *packet, unsigned int length)
 *		{
 *			...
 *			return GKHI_CONTINUE;
 *		}
 *		GKHI_DEFINE_EXIT(count_exit, packet_in, count);
 *		...
 *		err = gkhi_register(&count_exit) ?: gkhi_arm(&count_exit);
 *
 * A dormant site is one 5-byte NOP. The code that calls exits stands out of line, and is no call to the compiler, so that nothing is
 * saved for it on the way in. gkhi_abi.h has gkhi_register() and its like. With GKHI_DISABLED defined every site is nothing: its arguments are checked and not evaluated.
 *
 * For code that is compiled as a kernel is: no red zone, not position-independent.
 */
#ifndef GKHI_H
#define GKHI_H

#include "gkhi_abi.h"

#ifdef __KERNEL__
#include <linux/jump_label.h>
#include <linux/objtool.h>
#include <linux/stringify.h>
#endif

/* ---- Records: gkhi/src/hook.rs, exit.rs, site.rs and target.rs have the same, and say what the fields are for ---- */

struct gkhi_target {
	const void *entry;
	int64_t delta;
	uintptr_t counters;
	const void *call;
};

/* The head of a hook, which GKHI_DEFINE_HOOK makes. */
struct gkhi_hook {
	uintptr_t counter;
	struct gkhi_target *current_target;
	const char *name;
	const char *signature;
	uint32_t kind;
	uint32_t arguments;
	uint32_t enabled;
	uint32_t reserved;		/* zero; the registry's own once it knows the hook */
	uint64_t state[34];
};

/* Names of exits. */
struct gkhi_names {
	const char *const *first;
	uintptr_t count;
};

/* The names given, for `requires` and `conflicts` in GKHI_DEFINE_EXIT. */
#define GKHI_NAMES(...)									\
	{										\
		(const char *const[]){ __VA_ARGS__ },					\
		sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *),	\
	}

/* An exit, which GKHI_DEFINE_EXIT makes. It must stay where it is from gkhi_register() until gkhi_deregister() has succeeded. */
struct gkhi_exit {
	struct gkhi_target target;
	const char *name;		/* the record's own name unless given; unique on the hook */
	const char *hook;
	const char *signature;
	struct gkhi_names requires;	/* exits of this hook that are armed whenever this one is */
	struct gkhi_names conflicts;	/* exits of this hook that are never armed together with this one */
	void *data;			/* for the exit's own use */
	uint64_t watch;			/* not 0: count calls that take more TSC cycles than this, and nested calls */
	uint32_t options;		/* GKHI_PRIORITY_FIRST, GKHI_PRIORITY_LAST, GKHI_QUEUE_LIFO, GKHI_EXCLUSIVE */
	uint32_t reserved;		/* zero; the registry's own from gkhi_register() on */
	uint64_t state[8];
};

/* The answer of an exit on a returning hook: what gkhi_continue(), gkhi_terminate() or gkhi_return_HOOK() made. */
struct gkhi_answer {
	uint64_t flow;
	uint64_t value;
};

/* The next exit, or the hooked code if this was the last. */
static inline struct gkhi_answer gkhi_continue(void)
{
	return (struct gkhi_answer){ (uint64_t)GKHI_CONTINUE, 0 };
}

/* The hooked code; the exits after this one are not called. */
static inline struct gkhi_answer gkhi_terminate(void)
{
	return (struct gkhi_answer){ (uint64_t)GKHI_TERMINATE, 0 };
}

/* A record of the section gkhi_sites. Addresses are relative to the field that has them. */
struct gkhi_site {
	int32_t code;			/* 0: the site is not patched */
	int32_t target;
	int64_t hook;
	void *next;
	uint32_t mode;
	uint32_t reserved;
};

/* The sections of the sites of a kernel, of a module, or of a translation unit. */
struct gkhi_image {
	const char *name;
	const void *sites;
	const void *sites_end;
	const void *calls;
	const void *calls_end;
	struct gkhi_image *next;
	uint32_t known;
	uint32_t reserved;
};

/* One CPU's counters of a hook or an exit. */
struct gkhi_counters {
	uint64_t words[8];
} __attribute__((__aligned__(64)));

/* Bytes to be written to text. */
struct gkhi_write {
	uintptr_t address;
	uint32_t len;			/* how many of `bytes` count */
	uint32_t reserved;
	uint8_t bytes[16];
};

_Static_assert(sizeof(struct gkhi_target) == 32, "as in target.rs");
_Static_assert(sizeof(struct gkhi_site) == 32 && sizeof(struct gkhi_image) == 56, "as in site.rs");
_Static_assert(sizeof(struct gkhi_counters) == 64 && sizeof(struct gkhi_write) == 32, "as in counters.rs and text.rs");
_Static_assert(__builtin_offsetof(struct gkhi_hook, state) == 48 && sizeof(struct gkhi_hook) == 320, "as in hook.rs");
_Static_assert(__builtin_offsetof(struct gkhi_exit, name) == 32 && __builtin_offsetof(struct gkhi_exit, requires) == 56 &&
	       __builtin_offsetof(struct gkhi_exit, data) == 88 && __builtin_offsetof(struct gkhi_exit, options) == 104 &&
	       __builtin_offsetof(struct gkhi_exit, state) == 112 && sizeof(struct gkhi_exit) == 176, "as in exit.rs");

/* ---- Hooks ---- */

/* GKHI_DECLARE_HOOK(name, type, argument, ...): up to eight arguments, each a scalar of at most eight bytes. */
#define GKHI_DECLARE_HOOK(hook, ...) __GKHI_DECLARE(PATCHED, hook, ##__VA_ARGS__)

/* As that, for sites that test a flag in memory and are not patched. */
#define GKHI_DECLARE_GENERIC_HOOK(hook, ...) __GKHI_DECLARE(GENERIC, hook, ##__VA_ARGS__)

/* GKHI_DECLARE_RETURNING_HOOK(name, result, type, argument, ...): its exits may make the hooked function return a `result`. */
#define GKHI_DECLARE_RETURNING_HOOK(hook, result, ...) __GKHI_DECLARE_RETURNING(PATCHED, hook, result, ##__VA_ARGS__)
#define GKHI_DECLARE_GENERIC_RETURNING_HOOK(hook, result, ...) __GKHI_DECLARE_RETURNING(GENERIC, hook, result, ##__VA_ARGS__)

/* GKHI_DECLARE_RETURNING_VOID_HOOK(name, type, argument, ...): its exits may make the hooked function return. */
#define GKHI_DECLARE_RETURNING_VOID_HOOK(hook, ...) __GKHI_DECLARE_RETURNING_VOID(PATCHED, hook, ##__VA_ARGS__)
#define GKHI_DECLARE_GENERIC_RETURNING_VOID_HOOK(hook, ...) __GKHI_DECLARE_RETURNING_VOID(GENERIC, hook, ##__VA_ARGS__)

/* A site of a normal hook. The arguments are evaluated when it is armed, and only then. */
#define GKHI_HOOK(hook, ...)								\
	do {										\
		if (__GKHI_ARMED(hook))							\
			gkhi_pass_##hook(__VA_ARGS__);					\
	} while (0)

/* A site of a returning hook: in a function that returns a value, and in one that returns none. */
#define GKHI_HOOK_RETURN(hook, ...)							\
	do {										\
		gkhi_result_##hook __gkhi_result;					\
											\
		if (__GKHI_ARMED(hook) && gkhi_pass_##hook(&__gkhi_result, ##__VA_ARGS__)) \
			return __gkhi_result;						\
	} while (0)
#define GKHI_HOOK_RETURN_VOID(hook, ...)						\
	do {										\
		if (__GKHI_ARMED(hook) && gkhi_pass_##hook(__VA_ARGS__))		\
			return;								\
	} while (0)

#ifndef GKHI_DISABLED
/* Defines the head of a declared hook, once. GKHI_DEFINE_EXCLUSIVE_HOOK: of a hook that takes one exit only. */
#define GKHI_DEFINE_HOOK(hook) __GKHI_DEFINE(hook, 0)
#define GKHI_DEFINE_EXCLUSIVE_HOOK(hook) __GKHI_DEFINE(hook, GKHI_EXCLUSIVE)
#define __GKHI_ARMED(hook) __builtin_expect(gkhi_armed_##hook(), 0)
#else
#define GKHI_DEFINE_HOOK(hook) _Static_assert(1, "hooks are configured out")
#define GKHI_DEFINE_EXCLUSIVE_HOOK(hook) _Static_assert(1, "hooks are configured out")
#define __GKHI_ARMED(hook) 0
#endif

/* ---- Exits ---- */

/*
 * Defines the exit `record` for a hook. The function has the prototype gkhi_function_HOOK; another does not compile. It returns GKHI_CONTINUE
 * or GKHI_TERMINATE; on a returning hook gkhi_continue(), gkhi_terminate() or gkhi_return_HOOK(value). Fields of the record may
 * be given behind it:
 *
 *	GKHI_DEFINE_EXIT(early_count, packet_in, count, .options = GKHI_PRIORITY_FIRST, .data = &counter);
 *
 * The record is static. The function may be called in any context in which the hook is passed, on several CPUs at once.
 */
#define GKHI_DEFINE_EXIT(record, hook_, function, ...)					\
	_Static_assert(__builtin_types_compatible_p(__typeof__(function), gkhi_function_##hook_), \
		       "the exit does not have the prototype of its hook");		\
	__GKHI_ENTRY(record, hook_, function)						\
	static struct gkhi_exit record = {						\
		.target.entry = __GKHI_ENTRY_OF(record, hook_),				\
		.target.call = (const void *)(function),				\
		.name = #record,							\
		.hook = #hook_,								\
		.signature = gkhi_signature_##hook_,					\
		##__VA_ARGS__								\
	}

/* ---- What follows is for the macros above ---- */

#define __GKHI_CAT_(a, b) a##b
#define __GKHI_CAT(a, b) __GKHI_CAT_(a, b)

#define __gkhi_always_inline inline __attribute__((__always_inline__, __unused__))

/*
 * An exit's entry preserves all registers but R11. A compiler that can be told so saves what the exit really uses; otherwise the
 * registry puts code in front of the exit that saves all. (gcc preserves no vector registers: only where it uses none.)
 */
#if defined(__clang__)
#define __gkhi_preserving __attribute__((__preserve_most__, __no_instrument_function__, __unused__))
#elif !defined(__SSE__) && !defined(__MMX__)
#define __gkhi_preserving __attribute__((__no_caller_saved_registers__, __no_instrument_function__, __unused__))
#endif
#ifdef __gkhi_preserving
#define __GKHI_ENTRY(record, hook, function)						\
	static __gkhi_preserving gkhi_entry_result_##hook record##_entry(struct gkhi_exit *self, \
		unsigned long w1, unsigned long w2, unsigned long w3, unsigned long w4,	\
		unsigned long w5, unsigned long w6, unsigned long w7, unsigned long w8)	\
	{										\
		return gkhi_run_##hook(function, self, w1, w2, w3, w4, w5, w6, w7, w8);	\
	}
/* clang 14 restores RAX and RDX over the answer: there, only on hooks that take none. */
#ifdef __clang__
#define __GKHI_ENTRY_OF(record, hook)							\
	((gkhi_kind_##hook & GKHI_KIND_RETURNING) ? (const void *)0 : (const void *)(record##_entry))
#else
#define __GKHI_ENTRY_OF(record, hook) ((const void *)(record##_entry))
#endif
#else
#define __GKHI_ENTRY(record, hook, function)
#define __GKHI_ENTRY_OF(record, hook) ((const void *)0)
#endif

/* Where a label stands that is seldom reached. */
#ifdef __clang__
#define __gkhi_cold
#else
#define __gkhi_cold __attribute__((__cold__));
#endif

#define __GKHI_STRING_(...) #__VA_ARGS__
#define __GKHI_STRING(...) __GKHI_STRING_(__VA_ARGS__)

#define __GKHI_COUNT_(_0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, n, ...) n
/* How many pairs; a name without a type does not compile. */
#define __GKHI_COUNT(...)								\
	__GKHI_COUNT_(0, ##__VA_ARGS__, 8, x, 7, x, 6, x, 5, x, 4, x, 3, x, 2, x, 1, x, 0)

#define __GKHI_MAP0(m, ...)
#define __GKHI_MAP1(m, t1, a1) \
	m(1, t1, a1)
#define __GKHI_MAP2(m, t1, a1, t2, a2) \
	m(1, t1, a1) m(2, t2, a2)
#define __GKHI_MAP3(m, t1, a1, t2, a2, t3, a3) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3)
#define __GKHI_MAP4(m, t1, a1, t2, a2, t3, a3, t4, a4) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3) m(4, t4, a4)
#define __GKHI_MAP5(m, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3) m(4, t4, a4) m(5, t5, a5)
#define __GKHI_MAP6(m, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3) m(4, t4, a4) m(5, t5, a5) m(6, t6, a6)
#define __GKHI_MAP7(m, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6, t7, a7) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3) m(4, t4, a4) m(5, t5, a5) m(6, t6, a6) m(7, t7, a7)
#define __GKHI_MAP8(m, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6, t7, a7, t8, a8) \
	m(1, t1, a1) m(2, t2, a2) m(3, t3, a3) m(4, t4, a4) m(5, t5, a5) m(6, t6, a6) m(7, t7, a7)  \
	m(8, t8, a8)
#define __GKHI_PARAMETERS0() void
#define __GKHI_PARAMETERS1(t1, a1) \
	t1 a1
#define __GKHI_PARAMETERS2(t1, a1, t2, a2) \
	t1 a1, t2 a2
#define __GKHI_PARAMETERS3(t1, a1, t2, a2, t3, a3) \
	t1 a1, t2 a2, t3 a3
#define __GKHI_PARAMETERS4(t1, a1, t2, a2, t3, a3, t4, a4) \
	t1 a1, t2 a2, t3 a3, t4 a4
#define __GKHI_PARAMETERS5(t1, a1, t2, a2, t3, a3, t4, a4, t5, a5) \
	t1 a1, t2 a2, t3 a3, t4 a4, t5 a5
#define __GKHI_PARAMETERS6(t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6) \
	t1 a1, t2 a2, t3 a3, t4 a4, t5 a5, t6 a6
#define __GKHI_PARAMETERS7(t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6, t7, a7) \
	t1 a1, t2 a2, t3 a3, t4 a4, t5 a5, t6 a6, t7 a7
#define __GKHI_PARAMETERS8(t1, a1, t2, a2, t3, a3, t4, a4, t5, a5, t6, a6, t7, a7, t8, a8) \
	t1 a1, t2 a2, t3 a3, t4 a4, t5 a5, t6 a6, t7 a7, t8 a8
#define __GKHI_MAP(m, ...) __GKHI_CAT(__GKHI_MAP, __GKHI_COUNT(__VA_ARGS__))(m, ##__VA_ARGS__)
#define __GKHI_PARAMETERS(...) __GKHI_CAT(__GKHI_PARAMETERS, __GKHI_COUNT(__VA_ARGS__))(__VA_ARGS__)

#define __GKHI_TYPE(n, t, a) , t
#define __GKHI_PARAMETER(n, t, a) , t a
#define __GKHI_FROM_WORD(n, t, a) , (t)w##n
#define __GKHI_TO_WORD(n, t, a) unsigned long w##n = (unsigned long)(a);
#define __GKHI_CHECK(n, t, a)								\
	_Static_assert(sizeof(t) <= sizeof(unsigned long), "an argument of a hook is one word; pass a pointer"); \
	_Static_assert(__builtin_classify_type((t)0) != 8, "an argument of a hook is in a general register");

/* Arguments travel in RSI, RDX, RCX, R8, R9 and on the stack: RDI has the target. */
#define __GKHI_REGISTERS0
#define __GKHI_REGISTERS1
#define __GKHI_REGISTERS2
#define __GKHI_REGISTERS3
#define __GKHI_REGISTERS4 register unsigned long __r8 __asm__("r8") = w4;
#define __GKHI_REGISTERS5 __GKHI_REGISTERS4 register unsigned long __r9 __asm__("r9") = w5;
#define __GKHI_REGISTERS6 __GKHI_REGISTERS5
#define __GKHI_REGISTERS7 __GKHI_REGISTERS5
#define __GKHI_REGISTERS8 __GKHI_REGISTERS5
#define __GKHI_INPUTS0
#define __GKHI_INPUTS1 , "S" (w1)
#define __GKHI_INPUTS2 __GKHI_INPUTS1, "d" (w2)
#define __GKHI_INPUTS3 __GKHI_INPUTS2, "c" (w3)
#define __GKHI_INPUTS4 __GKHI_INPUTS3, "r" (__r8)
#define __GKHI_INPUTS5 __GKHI_INPUTS4, "r" (__r9)
#define __GKHI_INPUTS6 __GKHI_INPUTS5, [w6] "r" (w6)
#define __GKHI_INPUTS7 __GKHI_INPUTS6, [w7] "r" (w7)
#define __GKHI_INPUTS8 __GKHI_INPUTS7, [w8] "r" (w8)
/* Always three words on the stack if any, which code of the registry passes on, and one that keeps it aligned. */
#define __GKHI_PUSH0 ""
#define __GKHI_PUSH1 ""
#define __GKHI_PUSH2 ""
#define __GKHI_PUSH3 ""
#define __GKHI_PUSH4 ""
#define __GKHI_PUSH5 ""
#define __GKHI_PUSH6 "lea -24(%%rsp), %%rsp\n\tpush %[w6]\n\t"
#define __GKHI_PUSH7 "lea -16(%%rsp), %%rsp\n\tpush %[w7]\n\tpush %[w6]\n\t"
#define __GKHI_PUSH8 "lea -8(%%rsp), %%rsp\n\tpush %[w8]\n\tpush %[w7]\n\tpush %[w6]\n\t"
#define __GKHI_POP0 ""
#define __GKHI_POP1 ""
#define __GKHI_POP2 ""
#define __GKHI_POP3 ""
#define __GKHI_POP4 ""
#define __GKHI_POP5 ""
#define __GKHI_POP6 "\n\tlea 32(%%rsp), %%rsp"
#define __GKHI_POP7 __GKHI_POP6
#define __GKHI_POP8 __GKHI_POP6

#define __GKHI_NOP5 ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t"

#ifdef __KERNEL__
/*
 * Linux. A site is also an entry of __jump_table, with a key that is never enabled: the kernel never writes it, but objtool sees where it may
 * jump to, kprobes refuse to be set on it, and the gkhi module finds it in modules that are loaded before or after. The key is in
 * the unit, which names the sections of this translation unit: the .1 subsection of each comes behind all that the unit has.
 */
struct gkhi_unit {
	uint64_t magic[2];
	struct gkhi_image image;
	struct static_key never;
};
#define GKHI_UNIT_MAGIC { 0x676b68692d756e69ull, 0x742d763100c0ffeeull }

extern const char __gkhi_sites[], __gkhi_sites_end[], __gkhi_calls[], __gkhi_calls_end[];
__asm__(".pushsection gkhi_sites, \"aw\"\n\t.balign 8\n__gkhi_sites:\n\t.popsection\n\t"
	".pushsection gkhi_sites, 1\n__gkhi_sites_end:\n\t.popsection\n\t"
	".pushsection gkhi_calls, \"aw\"\n\t.balign 8\n__gkhi_calls:\n\t.popsection\n\t"
	".pushsection gkhi_calls, 1\n__gkhi_calls_end:\n\t.popsection");

static struct gkhi_unit __gkhi_unit __attribute__((__unused__)) = {
	.magic = GKHI_UNIT_MAGIC,
	.image = {
		.name = KBUILD_MODNAME,
		.sites = __gkhi_sites,
		.sites_end = __gkhi_sites_end,
		.calls = __gkhi_calls,
		.calls_end = __gkhi_calls_end,
	},
	.never = STATIC_KEY_INIT_FALSE,
};
#define __GKHI_KEY , [key] "i" (&__gkhi_unit.never)
#define __GKHI_JUMP_ENTRY(at, to)							\
	".pushsection __jump_table, \"aw\"\n\t.balign 8\n\t"				\
	".long " at " - .\n\t.long " to " - .\n\t.quad %c[key] - .\n\t.popsection\n\t"
/* A site that is not patched has none: this one is in the code out of line. */
#define __GKHI_ANCHOR "771:\t" __GKHI_NOP5 __GKHI_JUMP_ENTRY("771b", "772f") "772:\n\t"
/* No indirect branch goes to a site: says that to objtool, which for a kernel with indirect-branch tracking looks at all that refers to code. */
#ifdef ANNOTYPE_NOENDBR
#define __GKHI_NO_LANDING(at)								\
	".pushsection .discard.annotate_insn, \"M\", @progbits, 8\n\t"			\
	".long " at " - ., " __stringify(ANNOTYPE_NOENDBR) "\n\t.popsection\n\t"
#else
#define __GKHI_NO_LANDING(at)								\
	".pushsection .discard.noendbr\n\t.long " at "\n\t.popsection\n\t"
#endif
#else
#define __GKHI_KEY
#define __GKHI_JUMP_ENTRY(at, to)
#define __GKHI_ANCHOR
#define __GKHI_NO_LANDING(at)
#endif

#define __GKHI_SITE_RECORD(code, target)						\
	".pushsection gkhi_sites, \"aw\"\n\t.balign 8\n\t"				\
	".long " code "\n\t.long " target "\n\t.quad %c[head] - .\n\t.quad 0, 0\n\t.popsection\n\t"

/* Is the code out of line to run? */
#define __GKHI_TEST_PATCHED(hook)							\
	__asm__ goto("773:\t" __GKHI_NOP5						\
		     __GKHI_SITE_RECORD("773b - .", "%l[armed] - .")			\
		     __GKHI_JUMP_ENTRY("773b", "%l[armed]")				\
		     __GKHI_NO_LANDING("773b") __GKHI_NO_LANDING("%l[armed]")		\
		     : : [head] "i" (&gkhi_hook_##hook) __GKHI_KEY : : armed);		\
	return 0;									\
armed: __gkhi_cold									\
	return 1;
#define __GKHI_RECORD_PATCHED ""

#define __GKHI_TEST_GENERIC(hook)							\
	return __atomic_load_n(&gkhi_hook_##hook.enabled, __ATOMIC_RELAXED) != 0;
#define __GKHI_RECORD_GENERIC __GKHI_SITE_RECORD("0", "0") __GKHI_ANCHOR

/* The kernel's way of calling what a register points to. */
#if defined(CONFIG_RETPOLINE) || defined(CONFIG_MITIGATION_RETPOLINE)
#define __GKHI_CALL_TARGET "mov (%%rdi), %%r11\n\tcall __x86_indirect_thunk_r11\n\t"
#else
#define __GKHI_CALL_TARGET "call *(%%rdi)\n\t"
#endif

/* The last byte of the call, behind which it returns to: how the registry finds out that it was called from inside an exit. */
#define __GKHI_CALL_RECORD(after)							\
	".pushsection gkhi_calls, \"aw\"\n\t.balign 8\n\t"				\
	".long " after " - 1 - .\n\t.long 0\n\t.quad %c[head] - .\n\t.popsection\n\t"

/*
 * The pass: counts itself in, calls the hook's target, counts itself out (gkhi/src/macros.rs has the same). The answer is in RAX and RDX.
 */
#define __GKHI_OUTPUTS_NONE
#define __GKHI_OUTPUTS_ANSWER , "=a" (__flow), "=d" (__value)
#define __GKHI_PASS(style, hook, outputs, ...)						\
	__GKHI_PASS_(style, hook, outputs, __GKHI_COUNT(__VA_ARGS__), __GKHI_MAP(__GKHI_TO_WORD, ##__VA_ARGS__))
#define __GKHI_PASS_(style, hook, outputs, n, words) __GKHI_PASS__(style, hook, outputs, n, words)
#define __GKHI_PASS__(style, hook, outputs, n, words)					\
	{										\
		unsigned long __target;							\
		words									\
		__GKHI_REGISTERS##n							\
											\
		__asm__ volatile(__GKHI_RECORD_##style					\
				 __GKHI_PUSH##n						\
				 "mov %c[head](%%rip), %%r10\n\t"			\
				 "incq %%gs:(%%r10)\n\t"				\
				 "mov %c[head] + 8(%%rip), %%rdi\n\t"			\
				 __GKHI_CALL_TARGET					\
				 "774:" __GKHI_POP##n "\n\t"				\
				 "add 8(%%rdi), %%r10\n\t"				\
				 "incq %%gs:(%%r10)\n\t"				\
				 __GKHI_CALL_RECORD("774b")				\
				 : "=&D" (__target) __GKHI_OUTPUTS_##outputs		\
				 : [head] "i" (&gkhi_hook_##hook) __GKHI_KEY __GKHI_INPUTS##n \
				 : "r10", "r11", "memory", "cc");				\
	}

#define __GKHI_DECLARE_COMMON(style, hook, result, ...)					\
	extern struct gkhi_hook gkhi_hook_##hook;					\
	static __gkhi_always_inline _Bool gkhi_armed_##hook(void)			\
	{										\
		__GKHI_TEST_##style(hook)						\
	}										\
	static const char gkhi_signature_##hook[] __attribute__((__unused__)) =		\
		__GKHI_STRING(result) "(" __GKHI_STRING(__GKHI_TYPES(__VA_ARGS__)) ")";	\
	enum { gkhi_arguments_##hook = __GKHI_COUNT(__VA_ARGS__) };			\
	__GKHI_MAP(__GKHI_CHECK, ##__VA_ARGS__)

#define __GKHI_TYPES(...) (0 __GKHI_MAP(__GKHI_TYPE, ##__VA_ARGS__))

#define __GKHI_DECLARE(style, hook, ...)						\
	__GKHI_DECLARE_COMMON(style, hook, , ##__VA_ARGS__)					\
	enum { gkhi_kind_##hook = GKHI_KIND_##style };					\
	typedef void gkhi_entry_result_##hook;						\
	typedef int gkhi_function_##hook(struct gkhi_exit *self __GKHI_MAP(__GKHI_PARAMETER, ##__VA_ARGS__)); \
	static __gkhi_always_inline void gkhi_run_##hook(gkhi_function_##hook *function, struct gkhi_exit *self, \
		unsigned long w1, unsigned long w2, unsigned long w3, unsigned long w4,	\
		unsigned long w5, unsigned long w6, unsigned long w7, unsigned long w8)	\
	{										\
		function(self __GKHI_MAP(__GKHI_FROM_WORD, ##__VA_ARGS__));		\
	}										\
	static __gkhi_always_inline void gkhi_pass_##hook(__GKHI_PARAMETERS(__VA_ARGS__)) \
	{										\
		__GKHI_PASS(style, hook, NONE, ##__VA_ARGS__)				\
	}										\
	struct gkhi_hook

#define __GKHI_DECLARE_RETURNING_COMMON(style, hook, ...)				\
	enum { gkhi_kind_##hook = GKHI_KIND_RETURNING | GKHI_KIND_##style };		\
	typedef struct gkhi_answer gkhi_entry_result_##hook;				\
	typedef struct gkhi_answer gkhi_function_##hook(struct gkhi_exit *self __GKHI_MAP(__GKHI_PARAMETER, ##__VA_ARGS__)); \
	static __gkhi_always_inline struct gkhi_answer gkhi_run_##hook(gkhi_function_##hook *function, struct gkhi_exit *self, \
		unsigned long w1, unsigned long w2, unsigned long w3, unsigned long w4,	\
		unsigned long w5, unsigned long w6, unsigned long w7, unsigned long w8)	\
	{										\
		return function(self __GKHI_MAP(__GKHI_FROM_WORD, ##__VA_ARGS__));	\
	}

#define __GKHI_DECLARE_RETURNING(style, hook, result, ...)				\
	__GKHI_DECLARE_COMMON(style, hook, result, ##__VA_ARGS__)				\
	__GKHI_CHECK(0, result, )							\
	__GKHI_DECLARE_RETURNING_COMMON(style, hook, ##__VA_ARGS__)			\
	typedef result gkhi_result_##hook;						\
	/* The hooked function returns this; the exits behind this one are not called. */ \
	static __gkhi_always_inline struct gkhi_answer gkhi_return_##hook(result value)	\
	{										\
		return (struct gkhi_answer){ (uint64_t)GKHI_RETURN, (uint64_t)value };	\
	}										\
	static __gkhi_always_inline _Bool gkhi_pass_##hook(result *gkhi_value __GKHI_MAP(__GKHI_PARAMETER, ##__VA_ARGS__)) \
	{										\
		unsigned long __flow, __value;						\
											\
		__GKHI_PASS(style, hook, ANSWER, ##__VA_ARGS__)			\
		*gkhi_value = (result)__value;						\
		return (int)__flow < 0;							\
	}										\
	struct gkhi_hook

#define __GKHI_DECLARE_RETURNING_VOID(style, hook, ...)					\
	__GKHI_DECLARE_COMMON(style, hook, void, ##__VA_ARGS__)				\
	__GKHI_DECLARE_RETURNING_COMMON(style, hook, ##__VA_ARGS__)			\
	/* The hooked function returns; the exits behind this one are not called. */	\
	static __gkhi_always_inline struct gkhi_answer gkhi_return_##hook(void)		\
	{										\
		return (struct gkhi_answer){ (uint64_t)GKHI_RETURN, 0 };		\
	}										\
	static __gkhi_always_inline _Bool gkhi_pass_##hook(__GKHI_PARAMETERS(__VA_ARGS__)) \
	{										\
		unsigned long __flow, __value;						\
											\
		__GKHI_PASS(style, hook, ANSWER, ##__VA_ARGS__)			\
		return (int)__flow < 0;							\
	}										\
	struct gkhi_hook

#define __GKHI_DEFINE(hook, more)							\
	struct gkhi_hook gkhi_hook_##hook = {						\
		.name = #hook,								\
		.signature = gkhi_signature_##hook,					\
		.kind = gkhi_kind_##hook | (more),					\
		.arguments = gkhi_arguments_##hook,					\
	}

#endif
