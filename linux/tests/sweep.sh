# shellcheck shell=sh
# A probe on every instruction of busy functions: linux/guest, sweep.

DPROBES_MODULES=/ linux-tests --color never sweep || exit 1
