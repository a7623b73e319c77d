// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What modules with exits use.
 */
#include <linux/export.h>

#include "shim.h"

EXPORT_SYMBOL_GPL(gkhi_register);
EXPORT_SYMBOL_GPL(gkhi_deregister);
EXPORT_SYMBOL_GPL(gkhi_arm);
EXPORT_SYMBOL_GPL(gkhi_disarm);
EXPORT_SYMBOL_GPL(gkhi_arm_set);
EXPORT_SYMBOL_GPL(gkhi_disarm_set);
