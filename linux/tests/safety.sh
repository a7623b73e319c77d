# shellcheck shell=sh
# Bounds, commands that are killed, and CPUs that go and come: linux/guest, safety; and who may use the device.

DPROBES_MODULES=/ linux-tests --color never safety:: || exit 1

insmod /dprobes.ko || exit 1
check "the device is root's alone" equal "$(stat -c '%a %u %g' /dev/dprobes)" "600 0 0"
cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 1
vars    = count
offset  = vfs_read
minor   = 1
        inc     lv, count
        abort
END
echo 1 >/sys/module/dprobes/parameters/memory_max
check "a bound on memory is told" refused "memory_max" dprobes insert /tmp/p.rpn
echo 0 >/sys/module/dprobes/parameters/memory_max
check "and can be lifted" dprobes insert /tmp/p.rpn
echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd
chmod 666 /dev/dprobes
check "CAP_SYS_ADMIN is asked for, whatever the mode" refused "ermi" su -s /bin/sh nobody -c "dprobes query"
chmod 600 /dev/dprobes

# Nothing can undo this but the next boot.
mount -t securityfs security /sys/kernel/security
check "lock down" sh -c "echo confidentiality >/sys/kernel/security/lockdown"
check "under lockdown nothing can be inserted" refused "ermi" dprobes insert /tmp/p.rpn
check "nor be looked at" refused "ermi" dprobes query
echo y >/proc/sysrq-trigger
check "the module unloads" rmmod dprobes
