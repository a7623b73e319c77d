# shellcheck shell=sh
# What a hit costs on Linux, in instructions and traps: an empty kprobe and a probe that counts, in one boot under -icount shift=0.
# `./x bench` runs this in a guest; a line of the report is: @result TICKS OFFSET NAME.

reads=1000
rounds=20
# How many reads are between two marks in QEMU's log of exceptions; xtask knows it too.
marked=100

# result OFFSET NAME: measures what is in place now.
result() {
    echo "@result $(meter ticks $reads $rounds) $*"
    meter marked $marked 2>/dev/null
}
optimised() { echo "$1" >/proc/sys/debug/kprobes-optimization; }
listed() { grep -q "ksys_read.*\[$1\]" /sys/kernel/debug/kprobes/list; }
kprobe() { insmod /empty_kprobe.ko symbol=ksys_read offset="$1" 2>/dev/null; }

insmod /dprobes.ko || exit 1
result 0 "bare call"

# The middle of ksys_read, which runs once for each read: the first instruction behind its entry that the kernel can replace by a jump,
# so that all mechanisms are comparable. (It never can in a function that may fault, such as read_zero.)
optimised 1
middle=0
offset=9
while [ $offset -lt 80 ] && [ $middle = 0 ]; do
    if kprobe $offset; then
        sleep 1
        if listed OPTIMIZED; then middle=$offset; fi
        rmmod empty_kprobe
    fi
    offset=$((offset + 1))
done
[ $middle != 0 ] || { echo "no place in ksys_read for an optimised kprobe" >&2; exit 1; }

optimised 0
kprobe 0 && listed FTRACE || exit 1
result 0 "kprobe, empty: by ftrace"
rmmod empty_kprobe
kprobe $middle || exit 1
result $middle "kprobe, empty: int3"
rmmod empty_kprobe
optimised 1
kprobe $middle && sleep 1 && listed OPTIMIZED || exit 1
result $middle "kprobe, empty: jump"
rmmod empty_kprobe

# probe OFFSET [OPCODE]: a program that counts.
probe() {
    cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 1
vars    = count
offset  = ksys_read + $1
${2:+opcode = $2}
minor   = 1
        inc     lv, count
        abort
END
    dprobes insert /tmp/p.rpn >/dev/null 2>&1
}

# The first call that every read makes.
call=$((middle + 1))
until probe $call 0xe8 && meter ticks 10 1 >/dev/null && ! dprobes query --json | grep -q '"hits":0[,}]'; do
    dprobes remove 1 >/dev/null 2>&1
    call=$((call + 1))
    [ $call -lt 200 ] || { echo "no call in ksys_read" >&2; exit 1; }
done
dprobes remove 1 >/dev/null || exit 1
rmmod dprobes

optimised 0
kprobe $call || exit 1
result $call "kprobe, empty: int3, a call"
rmmod empty_kprobe

for trap in notifier idt; do
    insmod /dprobes.ko trap=$trap || exit 1
    for offset in 0 $middle $call; do
        what=
        [ "$offset" != $call ] || what=", a call"
        probe "$offset" || exit 1
        result "$offset" "dprobes, counts: $trap$what"
        # Every read was a hit, and nothing else was.
        dprobes query --json | sed -n 's/.*"hits":\([0-9]*\).*/@hits \1/p'
        dprobes remove 1 >/dev/null || exit 1
    done
    rmmod dprobes
done
