# shellcheck shell=sh
# Getting rid of all probes at once while they fire: linux/guest, emergency; and by the command.

DPROBES_MODULES=/ linux-tests --color never emergency:: || exit 1

insmod /dprobes.ko || exit 1
insmod /dprobes_target.ko threads=2
for major in 1 2 3; do
    cat >/tmp/p.rpn <<END
name    = "dprobes_target"
modtype = kmod
major   = $major
vars    = count
offset  = dprobes_target_work
minor   = 1
        inc     lv, count
        push    lv, count
        log     1
        exit
END
    check "program $major goes in" dprobes insert /tmp/p.rpn
done
check "all are removed at once" dprobes remove --all --now
check "nothing is left" equal "$(dprobes query --json)" ""
check "--now is for all" refused "cannot be used with" dprobes remove 1 --now
check "one goes in again" dprobes insert /tmp/p.rpn
check "the key is in the help" sh -c "echo h >/proc/sysrq-trigger; dmesg | grep -q 'remove-all-probes(y)'"
echo y >/proc/sysrq-trigger
until_gone() {
    n=0
    while [ -n "$(dprobes query --json)" ]; do
        n=$((n + 1))
        [ $n -lt 100 ] || return 1
        usleep 50000
    done
}
check "the key removes it" until_gone
rmmod dprobes_target
check "the module unloads" rmmod dprobes

check "another key can be chosen" insmod /dprobes.ko sysrq_key=x
check "and is told" sh -c "echo h >/proc/sysrq-trigger; dmesg | tail -n 3 | grep -q 'remove-all-probes(x)'"
rmmod dprobes
check "a key that is taken is told, and no obstacle" insmod /dprobes.ko sysrq_key=b
check "with the reason" sh -c "dmesg | grep -q 'SysRq-b is taken'"
rmmod dprobes
check "there need be none" insmod /dprobes.ko sysrq_key=
rmmod dprobes
