# shellcheck shell=sh
# `exit_to dump`, exactly when two conditions meet: the kernel panics, and nothing that is behind that in this file happens.
# The kernel panics with: dprobes: probe 7.1 at __x64_sys_sethostname

insmod /dprobes.ko dump=1 || exit 1
cat >/tmp/p.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 7
vars    = seen
offset  = __x64_sys_sethostname
minor   = 1
        inc     lv, seen
        push    lv, seen        // the third time
        push    3
        sub
        jnz     fine
        push    uid             // by root
        jnz     fine
        exit_to dump
fine:   abort
END
check "a program that may stop the machine is inserted" dprobes insert /tmp/p.rpn
hostname a
hostname b
check "one condition is not enough" equal "$(hostname)" b
hostname c
echo "test the machine stops ... FAILED"
