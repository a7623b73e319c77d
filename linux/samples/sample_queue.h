/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A queue of packets, and the hooks in it.
 */
#ifndef SAMPLE_QUEUE_H
#define SAMPLE_QUEUE_H

#include <linux/types.h>
#include <gkhi.h>

struct sample_packet {
	u64 number;
	u32 length;
	u32 mark;
};

/* A packet is about to be queued. Exits may change its mark. */
GKHI_DECLARE_HOOK(sample_enqueue, struct sample_packet *, packet);

/* May this packet be queued? An exit may answer in the queue's place: 0, or a negative errno. */
GKHI_DECLARE_RETURNING_HOOK(sample_admit, int, const struct sample_packet *, packet);

/* Packets are about to be thrown away. An exit may prevent it. */
GKHI_DECLARE_RETURNING_VOID_HOOK(sample_flush, u32, count);

/* The state of the queue was read, in an inline function. */
GKHI_DECLARE_GENERIC_HOOK(sample_look, u64, length);

#endif
