# shellcheck shell=sh disable=SC2154
# What a hit costs on Linux, in instructions and traps: an empty kprobe and a probe that counts, in one boot. It begins with metering.sh. What a result
# was is a name.

insmod /dprobes.ko || exit 1
result 0 "bare call"
find_middle

optimised 0
kprobe ksys_read 0 && listed ksys_read FTRACE || exit 1
result 0 "kprobe, empty: by ftrace"
rmmod empty_kprobe
kprobe ksys_read "$middle" || exit 1
result "$middle" "kprobe, empty: int3"
rmmod empty_kprobe
optimised 1
kprobe ksys_read "$middle" && sleep 1 && listed ksys_read OPTIMIZED || exit 1
result "$middle" "kprobe, empty: jump"
rmmod empty_kprobe

find_call
rmmod dprobes
optimised 0
kprobe ksys_read "$call" || exit 1
result "$call" "kprobe, empty: int3, a call"
rmmod empty_kprobe

for trap in notifier idt; do
    insmod /dprobes.ko trap=$trap || exit 1
    for offset in 0 $middle $call; do
        what=
        [ "$offset" != "$call" ] || what=", a call"
        probe "$offset" || exit 1
        result "$offset" "dprobes, counts: $trap$what"
        # Every read was a hit, and nothing else was.
        dprobes query --json | sed -n 's/.*"hits":\([0-9]*\).*/@hits \1/p'
        dprobes remove 1 >/dev/null || exit 1
    done
    rmmod dprobes
done
