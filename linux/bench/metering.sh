# shellcheck shell=sh
# What the files here that measure a hit begin with. `./x bench` runs each in a guest under -icount shift=0, by busybox's shell; a line of the report is:
# @result TICKS OFFSET and what it was.

# How many calls in a round, and how many rounds.
calls=1000
rounds=20
# How many calls are between two marks in QEMU's log of exceptions; xtask knows it too.
marked=100
# Which call, as meter takes it.
metered=

# result OFFSET WORD...: measures what is in place now.
# shellcheck disable=SC2086 # the words of $metered are arguments
result() {
    echo "@result $(meter ticks $calls $rounds $metered) $*"
    meter marked $marked $metered 2>/dev/null
}
optimised() { echo "$1" >/proc/sys/debug/kprobes-optimization; }
# listed FUNCTION WORD: is the kprobe there marked so?
listed() { grep -q "$1.*\[$2\]" /sys/kernel/debug/kprobes/list; }
# kprobe FUNCTION OFFSET: an empty one.
kprobe() { insmod /empty_kprobe.ko symbol="$1" offset="$2" 2>/dev/null; }

# The middle of ksys_read, which runs once for each read: the first instruction behind its entry that the kernel can replace by a jump,
# so that all mechanisms are comparable. (It never can in a function that may fault, such as read_zero.)
find_middle() {
    optimised 1
    middle=0
    offset=9
    while [ $offset -lt 80 ] && [ $middle = 0 ]; do
        if kprobe ksys_read $offset; then
            sleep 1
            if listed ksys_read OPTIMIZED; then middle=$offset; fi
            rmmod empty_kprobe
        fi
        offset=$((offset + 1))
    done
    [ $middle != 0 ] || {
        echo "no place in ksys_read for an optimised kprobe" >&2
        exit 1
    }
}

# The first call that every read makes, behind the middle. It takes probe OFFSET [OPCODE], which inserts one into ksys_read.
find_call() {
    call=$((middle + 1))
    until probe $call 0xe8 && meter ticks 10 1 >/dev/null && ! dprobes query --json | grep -q '"hits":0[,}]'; do
        dprobes remove 1 >/dev/null 2>&1
        call=$((call + 1))
        [ $call -lt 200 ] || {
            echo "no call in ksys_read" >&2
            exit 1
        }
    done
    dprobes remove 1 >/dev/null || exit 1
}

# probe OFFSET [OPCODE]: a program that counts, in ksys_read.
probe() {
    cat >/tmp/p.rpn <<END_OF_PROGRAM
name    = "kernel"
modtype = kernel
major   = 1
vars    = count
offset  = ksys_read + $1
${2:+opcode = $2}
minor   = 1
        inc     lv, count
        abort
END_OF_PROGRAM
    dprobes insert /tmp/p.rpn >/dev/null 2>&1
}
