# shellcheck shell=sh
# Probed instructions that fault: linux/guest, faults.

DPROBES_MODULES=/ linux-tests --color never faults:: --skip copies || exit 1
