/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DPROBES_TESTMOD_RETURNING_H
#define DPROBES_TESTMOD_RETURNING_H

int returning_init(void);
void returning_exit(void);

#endif
