# shellcheck shell=sh
# Fifty thousand probes as one transaction: linux/guest, batch.

DPROBES_MODULES=/ linux-tests --color never batch || exit 1
