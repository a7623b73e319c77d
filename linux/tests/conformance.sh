# shellcheck shell=sh
# The table of what each instruction does, in the kernel and in user space: linux/guest, conformance.

DPROBES_MODULES=/ linux-tests --color never conformance:: || exit 1
