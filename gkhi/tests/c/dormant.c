// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Functions with one site each. Compiled with hooks and with GKHI_DISABLED, and compared instruction by instruction. */
#include "gkhi.h"

struct packet {
	long length;
	long mark;
	long next;
};

GKHI_DECLARE_HOOK(plain, long, value);
GKHI_DECLARE_HOOK(reference, struct packet *, packet, long *, sum);
GKHI_DECLARE_HOOK(five, long, a, int, b, unsigned char, c, struct packet *, d, long, e);
GKHI_DECLARE_RETURNING_HOOK(verdict, int, struct packet *, packet);
GKHI_DECLARE_RETURNING_VOID_HOOK(skip, struct packet *, packet);
GKHI_DEFINE_HOOK(plain);
GKHI_DEFINE_HOOK(reference);
GKHI_DEFINE_EXCLUSIVE_HOOK(five);
GKHI_DEFINE_HOOK(verdict);
GKHI_DEFINE_HOOK(skip);

long other(long value);

long leaf(long value)
{
	GKHI_HOOK(plain, value);
	return value;
}

long loop(long *values, long count)
{
	long sum = 0;

	for (long i = 0; i < count; i++) {
		sum += values[i] * i;
		GKHI_HOOK(plain, sum);
	}
	return sum;
}

long calls(struct packet *packet, long value)
{
	long sum = other(value);

	GKHI_HOOK(reference, packet, &packet->mark);
	return other(sum) + packet->length;
}

void many(struct packet *packet, long a, int b)
{
	packet->length = a;
	GKHI_HOOK(five, a, b, (unsigned char)b, packet, packet->next);
	packet->mark = b;
}

int returns(struct packet *packet)
{
	GKHI_HOOK_RETURN(verdict, packet);
	return packet->length > 0;
}

void returns_nothing(struct packet *packet)
{
	GKHI_HOOK_RETURN_VOID(skip, packet);
	packet->length = 0;
}
