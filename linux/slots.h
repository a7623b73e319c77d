/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DPROBES_LINUX_SLOTS_H
#define DPROBES_LINUX_SLOTS_H

/* 65536 slots of 32 bytes. */
#define DPROBES_SLOTS_SIZE (1 << 21)

#endif
