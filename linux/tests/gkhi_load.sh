# shellcheck shell=sh
# Exits come and go, and modules, while two CPUs pass the hooks all the time.

tree=/sys/kernel/debug/gkhi
queue=/sys/module/sample_queue/parameters

insmod /gkhi.ko
insmod /sample_queue.ko threads=2
insmod /gkhi_exits.ko
check "a hundred lives of two exits, armed as a set" sh -c "echo 100 >/sys/module/gkhi_exits/parameters/stress"
calls=$(cat /sys/module/gkhi_exits/parameters/stress)
check "that were called" test "$calls" -gt 0
echo "    $calls calls" >&2
rmmod gkhi_exits

rounds() {
    n=0
    while [ $n -lt 10 ]; do
        "$@" || return 1
        n=$((n + 1))
    done
}
exits_come_and_go() { insmod /sample_watch.ko && usleep 5000 && rmmod sample_watch; }
check "modules with exits come and go" rounds exits_come_and_go

insmod /sample_watch.ko
submitted() { cat $queue/submitted; }
hooks_come_and_go() { rmmod sample_queue && insmod /sample_queue.ko threads=2 && usleep 5000; }
check "modules with hooks come and go" rounds hooks_come_and_go
rmmod sample_queue

# Every pass is counted, whatever happened in between: only the exit's own counts of what it was called for are compared.
insmod /sample_queue.ko threads=2
before=$(sed -n 's,^exit sample_admit/watch_limit .*calls=,,p' $tree/list)
usleep 200000
rmmod sample_queue
check "calls and their counts agree" sh -c "[ $(sed -n 's,^exit sample_admit/watch_limit .*calls=,,p' $tree/list) -gt $before ]"

insmod /sample_queue.ko threads=2
arm_and_disarm() {
    echo 0 >$tree/hooks/sample_enqueue/watch_count && echo 1 >$tree/hooks/sample_enqueue/watch_count &&
        echo sample_enqueue/watch_count sample_admit/watch_limit >$tree/disarm &&
        echo sample_enqueue/watch_count sample_admit/watch_limit >$tree/arm
}
check "sets are armed and disarmed" rounds arm_and_disarm
check "unloading all, exits first" sh -c "rmmod sample_watch && rmmod gkhi"
check "the queue goes on without" sh -c "a=\$(cat $queue/submitted); usleep 50000; [ \$(cat $queue/submitted) -gt \$a ]"
check "and gkhi comes back to it" sh -c "insmod /gkhi.ko && insmod /sample_watch.ko && rmmod sample_watch && rmmod gkhi"
rmmod sample_queue
