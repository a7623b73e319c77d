# shellcheck shell=sh
# Probes on what the kernel rewrites, and on what it finds by its address: linux/guest, patched.
# Kernel command line: randomize_kstack_offset=off

DPROBES_MODULES=/ linux-tests --color never patched:: || exit 1
