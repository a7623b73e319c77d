// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* With no WRONG it compiles; with each number it must not. */
#include "gkhi.h"

struct packet;

GKHI_DECLARE_HOOK(normal, struct packet *, packet, unsigned int, length);
GKHI_DECLARE_RETURNING_HOOK(verdict, int, struct packet *, packet);
GKHI_DEFINE_HOOK(normal);
GKHI_DEFINE_HOOK(verdict);

static int right(struct gkhi_exit *self, struct packet *packet, unsigned int length)
{
	return GKHI_CONTINUE;
}
GKHI_DEFINE_EXIT(right_exit, normal, right);
struct gkhi_exit *use = &right_exit;

#if WRONG == 1		/* an argument is missing */
static int wrong(struct gkhi_exit *self, struct packet *packet) { return 0; }
GKHI_DEFINE_EXIT(wrong_exit, normal, wrong);
#elif WRONG == 2	/* an argument of another type */
static int wrong(struct gkhi_exit *self, struct packet *packet, unsigned long length) { return 0; }
GKHI_DEFINE_EXIT(wrong_exit, normal, wrong);
#elif WRONG == 3	/* a normal exit on a returning hook */
static int wrong(struct gkhi_exit *self, struct packet *packet) { return 0; }
GKHI_DEFINE_EXIT(wrong_exit, verdict, wrong);
#elif WRONG == 4	/* a site with too few arguments */
void site(struct packet *packet) { GKHI_HOOK(normal, packet); }
#elif WRONG == 5	/* a site with an argument of another type */
void site(unsigned int length) { GKHI_HOOK(normal, length, length); }
#elif WRONG == 6	/* a returning hook as a normal one */
void site(struct packet *packet) { GKHI_HOOK(verdict, packet); }
#elif WRONG == 7	/* an argument that is not one word */
struct large { long words[2]; };
GKHI_DECLARE_HOOK(large, struct large, large);
#elif WRONG == 8	/* a hook that is not declared */
GKHI_DEFINE_HOOK(unknown);
#elif WRONG == 9	/* nine arguments */
GKHI_DECLARE_HOOK(nine, int, a, int, b, int, c, int, d, int, e, int, f, int, g, int, h, int, i);
#endif
