// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Where the sites are.
 *
 * gkhi.h gives every site an entry in the kernel's own table of jump labels, with a key that is never enabled and that stands in the
 * translation unit's struct gkhi_unit. So the kernel tells for every module, and for itself, where its units are, and nobody needs to register
 * them; a module with hooks may be loaded long before this one. What else uses jump labels is told apart by the unit's magic number.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/ratelimit.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "shim.h"

static struct gkhi_unit *unit_of(const struct jump_entry *entry)
{
	static const u64 magic[2] = GKHI_UNIT_MAGIC;
	struct gkhi_unit *unit = container_of(jump_entry_key(entry), struct gkhi_unit, never);
	u64 found[2];

	/* In front of other keys there may be anything, or nothing. */
	if (copy_from_kernel_nofault(found, unit->magic, sizeof(found)))
		return NULL;
	return memcmp(found, magic, sizeof(magic)) ? NULL : unit;
}

/* The text of a module's init functions is freed when they have run. */
static bool has_site_in_init(const struct gkhi_unit *unit, const struct module *mod)
{
	const struct gkhi_site *site;

	for (site = unit->image.sites; site < (const struct gkhi_site *)unit->image.sites_end; site++) {
		if (site->code && within_module_init((unsigned long)&site->code + site->code, mod))
			return true;
	}
	return false;
}

static void add_unit(struct gkhi_unit *unit, const struct module *mod)
{
	int err;

	if (mod && has_site_in_init(unit, mod)) {
		pr_err("%s has a hook in a function that is freed after its initialisation; there, use a generic hook. Its hooks stay dormant\n",
		       unit->image.name);
		return;
	}
	err = gkhi_add_image(&unit->image);
	if (err && err != GKHI_ERROR_IMAGE_KNOWN)
		pr_err("the hooks of %s stay dormant: error %d, see gkhi_abi.h; is there another hook with the same name?\n",
		       unit->image.name, err);
}

typedef void with_unit(struct gkhi_unit *unit, const struct module *mod);

static void for_each_unit(const struct jump_entry *entry, const struct jump_entry *end, const struct module *mod, with_unit *function)
{
	struct gkhi_unit *unit, *last = NULL;

	for (; entry < end; entry++) {
		unit = unit_of(entry);
		/* The entries are sorted by key. */
		if (unit && unit != last)
			function(unit, mod);
		last = unit;
	}
}

static void for_each_unit_of(const struct module *mod, with_unit *function)
{
	for_each_unit(mod->jump_entries, mod->jump_entries + mod->num_jump_entries, mod, function);
}

/* The module goes, whatever we say: it must not go while the registry knows it. (It does not if it was not added.) */
static void remove_unit(struct gkhi_unit *unit, const struct module *mod)
{
	int err;

	while ((err = gkhi_remove_image(&unit->image)) && err != GKHI_ERROR_IMAGE_UNKNOWN) {
		pr_warn_ratelimited("unloading %s waits: its hooks cannot be removed, error %d, see gkhi_abi.h\n", unit->image.name, err);
		msleep(100);
	}
}

static int on_module(struct notifier_block *block, unsigned long event, void *data)
{
	struct module *mod = data;

	switch (event) {
	case MODULE_STATE_COMING:
		for_each_unit_of(mod, add_unit);
		break;
	case MODULE_STATE_GOING:
		for_each_unit_of(mod, remove_unit);
		break;
	default:
		return NOTIFY_DONE;
	}
	return NOTIFY_OK;
}

static struct notifier_block module_notifier = { .notifier_call = on_module };

static void for_each_module(with_unit *function)
{
	struct module *mod;

	mutex_lock(gkhi_symbols.module_mutex);
	list_for_each_entry(mod, gkhi_symbols.modules, list) {
		/* Another is on its way to the notifier, or has been there. */
		if (mod->state == MODULE_STATE_LIVE || mod->state == MODULE_STATE_COMING)
			for_each_unit_of(mod, function);
	}
	mutex_unlock(gkhi_symbols.module_mutex);
}

int gkhi_units_init(void)
{
	int err;

	err = register_module_notifier(&module_notifier);
	if (err)
		return err;
	for_each_unit(gkhi_symbols.__start___jump_table, gkhi_symbols.__stop___jump_table, NULL, add_unit);
	for_each_module(add_unit);
	return 0;
}

void gkhi_units_exit(void)
{
	unregister_module_notifier(&module_notifier);
	for_each_module(remove_unit);
	for_each_unit(gkhi_symbols.__start___jump_table, gkhi_symbols.__stop___jump_table, NULL, remove_unit);
}
