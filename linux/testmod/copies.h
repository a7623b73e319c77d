/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef COPIES_H
#define COPIES_H

int copies_init(void);
void copies_exit(void);

#endif
