# shellcheck shell=sh
# Unloading the module with probes armed, while they are hit, is safe: refused, or done in order.

cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 4
vars    = count
offset  = vfs_read
minor   = 1
        inc     lv, count
        push    lv, count
        log     1
        exit
END

busy() {
    while [ ! -e /tmp/stop ]; do
        taskset "$1" dd if=/dev/zero of=/dev/null bs=1 count=1000 2>/dev/null
    done
}
busy 1 &
busy 2 &

unloads() {
    n=0
    while [ $n -lt 20 ]; do
        insmod /dprobes.ko || return 1
        dprobes insert /tmp/p.rpn || return 1
        usleep 20000
        rmmod dprobes || return 1
        n=$((n + 1))
    done
}
check "twenty times loaded, armed and unloaded under load" unloads

insmod /dprobes.ko
dprobes insert /tmp/p.rpn >/dev/null
dprobes log --follow >/tmp/log 2>&1 &
follower=$!
sleep 0.5
check "a reader keeps the module" refused "" rmmod dprobes
check "which still works" dprobes query
kill -INT $follower
wait $follower
check "until the reader ends" rmmod dprobes

touch /tmp/stop
wait
check "the workload has ended in order" true
