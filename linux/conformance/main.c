// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Runs the table of what each instruction does when it is loaded. /sys/module/dprobes_conformance/parameters/ has what came out:
 * `cases`, how many were run, `failed`, how many of them did something else than the table says, and `digest`, a number
 * that depends on every byte of what they did.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

struct conformance_totals {
	u64 cases;
	u64 failed;
	u64 digest;
};

/* The library's, and what it takes from here. */
struct conformance_totals conformance_run(void);
void *conformance_alloc(size_t size, size_t align);
void conformance_free(void *memory);
void conformance_say(const char *text, size_t len);
void __noreturn conformance_panic(void);

static unsigned long long cases;
module_param(cases, ullong, 0444);
static unsigned long long failed;
module_param(failed, ullong, 0444);
static unsigned long long digest;
module_param(digest, ullong, 0444);

/* kmalloc() aligns a size that is a power of two to itself, and others to 8 at least. */
void *conformance_alloc(size_t size, size_t align)
{
	return kvmalloc(align > 8 ? roundup_pow_of_two(max(size, align)) : size, GFP_KERNEL);
}

void conformance_free(void *memory)
{
	kvfree(memory);
}

void conformance_say(const char *text, size_t len)
{
	pr_err("%.*s\n", (int)len, text);
}

void __noreturn conformance_panic(void)
{
	BUG();
}

static int __init conformance_init(void)
{
	struct conformance_totals totals = conformance_run();

	cases = totals.cases;
	failed = totals.failed;
	digest = totals.digest;
	pr_info("%llu cases, %llu failed\n", cases, failed);
	return 0;
}

static void __exit conformance_exit(void)
{
}

module_init(conformance_init);
module_exit(conformance_exit);
MODULE_DESCRIPTION("What each instruction of DProbes does, for tests");
MODULE_LICENSE("Dual MIT/GPL");
