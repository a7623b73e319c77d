# shellcheck shell=sh
# The same, with the module's own breakpoint gate, which comes before what the kernel does about breakpoints of its own.
# Kernel command line: randomize_kstack_offset=off

DPROBES_PARAMETERS=trap=idt DPROBES_MODULES=/ linux-tests --color never patched:: || exit 1
