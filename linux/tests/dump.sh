# shellcheck shell=sh
# `exit_to dump`, exactly when two conditions meet: the kernel panics, and nothing that is behind that in this file happens.
# The kernel panics with: dprobes: probe 16.1 at __x64_sys_sethostname

insmod /dprobes.ko dump=1 || exit 1
check "a program that may stop the machine is inserted" dprobes insert /examples/stop-when.rpn
hostname a
hostname b
check "one condition is not enough" equal "$(hostname)" b
hostname c
echo "test the machine stops ... FAILED"
