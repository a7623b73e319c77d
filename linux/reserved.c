// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Which places in text the kernel has reserved for something else.
 *
 * The kernel's own questions (jump_label_text_reserved() and the like) go through a whole table for one address. Here there may be 50,000
 * addresses: each table is gone through once, and each of its entries is looked for among the addresses. Where it is not certain that
 * an entry means an address, the kernel is asked.
 */
#include <linux/bsearch.h>
#include <linux/jump_label.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/static_call_types.h>
#include <linux/string.h>
#include <linux/stringhash.h>
#include <linux/uaccess.h>
#include <asm/text-patching.h>

#include <gkhi.h>

#include "reserved.h"
#include "shim.h"

/* The first candidate whose address is not below this one, or the end. */
static struct dprobes_candidate *first_from(struct candidates candidates, unsigned long address)
{
	struct dprobes_candidate *first = candidates.first;
	size_t count = candidates.count;

	while (count) {
		size_t half = count / 2;

		if (first[half].address < address) {
			first += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return first;
}

/* Is this kprobes' or another facility's? Asked where a table alone does not tell. */
typedef bool (*confirm_t)(unsigned long address);

/*
 * Prohibits the candidates from start up to but not including end that are not prohibited yet. If there is somebody to ask, those behind
 * start are only if he says so.
 */
static void prohibit(struct candidates candidates, unsigned long start, unsigned long end, int why, confirm_t confirm)
{
	const struct dprobes_candidate *behind = candidates.first + candidates.count;
	struct dprobes_candidate *candidate;

	/* Most entries are nowhere near when there are few candidates. */
	if (end <= candidates.first->address || start > behind[-1].address)
		return;
	for (candidate = first_from(candidates, start); candidate < behind && candidate->address < end; candidate++) {
		if (!candidate->prohibited && (!confirm || candidate->address == start || confirm(candidate->address)))
			candidate->prohibited = why;
	}
}

static bool jump_label_owns(unsigned long address)
{
	bool owns;

	preempt_disable();
	owns = dprobes_symbols.jump_label_text_reserved((void *)address, (void *)address);
	preempt_enable();
	return owns;
}

/* Notes that the kernel rewrites the instruction that begins at this address. */
static void note_rewritten(struct candidates candidates, unsigned long address)
{
	const struct dprobes_candidate *behind = candidates.first + candidates.count;
	struct dprobes_candidate *candidate = first_from(candidates, address);

	for (; candidate < behind && candidate->address == address; candidate++)
		candidate->special = DPROBES_SPECIAL_REWRITTEN;
}

/* Hooks have entries too (gkhi.h), which somebody else rewrites: by a key that the kernel never toggles. */
static bool is_hook(const struct jump_entry *entry)
{
	static const u64 magic[2] = GKHI_UNIT_MAGIC;
	const struct gkhi_unit *unit = container_of(jump_entry_key(entry), struct gkhi_unit, never);
	u64 found[2];

	/* In front of other keys there may be anything, or nothing. */
	return !copy_from_kernel_nofault(found, unit->magic, sizeof(found)) && !memcmp(found, magic, sizeof(magic));
}

/*
 * An entry does not say whether its instruction has two bytes or five. Nobody asks for an address inside of it whom the boundaries would
 * not refuse.
 */
static void prohibit_jump_labels(struct candidates candidates, const struct jump_entry *entry, const struct jump_entry *stop)
{
	dprobes_symbols.jump_label_lock();
	for (; entry < stop; entry++) {
		const unsigned long code = jump_entry_code(entry);

		if (dprobes_sentry_is_set(DPROBES_SENTRY_JUMP_LABEL) && !is_hook(entry))
			note_rewritten(candidates, code);
		else
			prohibit(candidates, code, code + JMP32_INSN_SIZE, DPROBES_PROHIBITED_JUMP_LABEL,
				 jump_label_owns);
	}
	dprobes_symbols.jump_label_unlock();
}

static void prohibit_static_calls(struct candidates candidates, const struct static_call_site *site,
				  const struct static_call_site *stop)
{
	for (; site < stop; site++) {
		const unsigned long call = (unsigned long)&site->addr + site->addr;

		if (dprobes_sentry_is_set(DPROBES_SENTRY_STATIC_CALL))
			note_rewritten(candidates, call);
		else
			prohibit(candidates, call, call + CALL_INSN_SIZE, DPROBES_PROHIBITED_STATIC_CALL, NULL);
	}
}

/*
 * The #UD handler finds BUG and WARN by their address, and looks for the instruction there. A warning that a static call has become stays one: its
 * target is never another.
 */
static void note_bugs(struct candidates candidates)
{
	bool reported;
	size_t i;

	for (i = 0; i < candidates.count; i++) {
		struct dprobes_candidate *candidate = &candidates.first[i];

		if (candidate->prohibited || !dprobes_is_reported(candidate->address, &reported))
			continue;
		if (reported)
			candidate->special = DPROBES_SPECIAL_REPORTED;
		else
			candidate->prohibited = DPROBES_PROHIBITED_BUG;
	}
}

/* The kernel knows whether there are any left in a range, and usually there are none: lock prefixes are patched while it boots. */
static void prohibit_alternatives(struct candidates candidates)
{
	struct dprobes_candidate *candidate = candidates.first;
	const struct dprobes_candidate *end = candidate + candidates.count;

	if (!dprobes_symbols.alternatives_text_reserved((void *)candidate->address, (void *)end[-1].address))
		return;
	for (; candidate < end; candidate++) {
		void *address = (void *)candidate->address;

		if (!candidate->prohibited && dprobes_symbols.alternatives_text_reserved(address, address))
			candidate->prohibited = DPROBES_PROHIBITED_ALTERNATIVE;
	}
}

void dprobes_prohibit_reserved(struct candidates candidates, const struct module *mod)
{
	if (!candidates.count)
		return;
	if (mod) {
		prohibit_jump_labels(candidates, mod->jump_entries, mod->jump_entries + mod->num_jump_entries);
		prohibit_static_calls(candidates, mod->static_call_sites,
				      mod->static_call_sites + mod->num_static_call_sites);
	} else {
		prohibit_jump_labels(candidates, dprobes_symbols.__start___jump_table,
				     dprobes_symbols.__stop___jump_table);
		prohibit_static_calls(candidates, dprobes_symbols.__start_static_call_sites,
				      dprobes_symbols.__stop_static_call_sites);
	}
	note_bugs(candidates);
	prohibit_alternatives(candidates);
}

void dprobes_prohibit_blacklisted(struct candidates candidates)
{
	const struct kprobe_blacklist_entry *entry;

	list_for_each_entry(entry, dprobes_symbols.kprobe_blacklist, list)
		prohibit(candidates, entry->start_addr, entry->end_addr, DPROBES_PROHIBITED_EXCLUDED, NULL);
}

static int compare(const void *a, const void *b)
{
	const u32 left = *(const u32 *)a, right = *(const u32 *)b;

	return left < right ? -1 : left > right;
}

/* NULL when there is no memory. To be freed by kvfree(). */
static struct blacklisted_names *blacklisted_names(void)
{
	const struct kprobe_blacklist_entry *entry;
	struct blacklisted_names *names;
	char name[KSYM_NAME_LEN];
	size_t capacity = 0;

	list_for_each_entry(entry, dprobes_symbols.kprobe_blacklist, list)
		capacity++;
	names = kvmalloc(struct_size(names, hashes, capacity), GFP_KERNEL);
	if (!names)
		return NULL;
	names->count = 0;
	list_for_each_entry(entry, dprobes_symbols.kprobe_blacklist, list) {
		if (names->count < capacity && !dprobes_symbols.lookup_symbol_name(entry->start_addr, name))
			names->hashes[names->count++] = full_name_hash(NULL, name, strlen(name));
	}
	sort(names->hashes, names->count, sizeof(names->hashes[0]), compare, NULL);
	return names;
}

bool dprobes_part_of_blacklisted(struct blacklisted_names **names, const char *name, unsigned long address)
{
	const char *suffix = strchr(name, '.');
	u32 hash;

	if (!suffix || suffix == name)
		return false;
	if (!*names)
		*names = blacklisted_names();
	hash = full_name_hash(NULL, name, suffix - name);
	if (*names && !bsearch(&hash, (*names)->hashes, (*names)->count, sizeof(hash), compare))
		return false;
	return dprobes_symbols.within_kprobe_blacklist(address);
}
