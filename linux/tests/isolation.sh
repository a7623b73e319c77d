# shellcheck shell=sh
# Kernel command line: pti=on
# Page-table isolation: the module's own gate is refused, the notifier works.

the_gate_is_refused() {
    grep -q '\bpti\b' /proc/cpuinfo || {
        echo "page-table isolation is not on"
        return 1
    }
    refused "not supported" insmod /dprobes.ko trap=idt
    dmesg | grep -q "trap=idt is not possible: page-table isolation is on"
}

check the_gate_is_refused the_gate_is_refused
DPROBES_MODULES=/ linux-tests --color never counts::pass || exit 1
