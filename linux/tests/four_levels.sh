# shellcheck shell=sh
# Kernel command line: no5lvl
# Page tables of four levels on a CPU that knows five: what is an address goes by the tables. linux/guest.

DPROBES_MODULES=/ linux-tests --color never values::what_can_be_written || exit 1
