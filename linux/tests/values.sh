# shellcheck shell=sh
# What programs see of tasks, processes and CPUs: linux/guest, values.

DPROBES_MODULES=/ linux-tests --color never values:: || exit 1
