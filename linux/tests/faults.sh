# shellcheck shell=sh
# Probed instructions that fault: linux/guest, faults.

DPROBES_MODULES=/ linux-tests --color never faults:: || exit 1
