# shellcheck shell=sh
# `sti`, where the kernel switches interrupts on a thousand times a second, and where it goes to sleep: it and the instruction that it shields
# are hit together, in one trap, no interrupt comes in between, and the machine goes on.

# probes MAJOR FUNCTION OFFSET: a program on the `sti` there and on what is behind it.
probes() {
    cat >/tmp/sti.rpn <<PROGRAM
name    = "kernel"
modtype = kernel
major   = $1
vars    = on, shielded

offset  = $2+$3
minor   = 1
opcode  = 0xfb
        inc     lv, on
        abort

offset  = $2+$(($3 + 1))
minor   = 2
        inc     lv, shielded
        abort
PROGRAM
}

# insert_at_sti MAJOR FUNCTION: where it is depends on the kernel, so that its byte is looked for.
insert_at_sti() {
    offset=0
    while [ $offset -lt 96 ]; do
        probes "$1" "$2" $offset
        if dprobes insert /tmp/sti.rpn >/dev/null 2>&1; then
            echo "$2+$offset"
            return 0
        fi
        offset=$((offset + 1))
    done
    dprobes insert /tmp/sti.rpn
}

# count_of MAJOR MINOR WHAT: of what the last query said.
count_of() { grep "\"major\":$1,\"minor\":$2,." /tmp/query | sed -n "s/.*\"$3\":\([0-9]*\).*/\1/p"; }

# Each CPU may be between the two counts, and while interrupts are off nothing of the kernel's jumps to the second instruction alone.
together() {
    hits=$(count_of "$1" 1 hits)
    shielded=$(count_of "$1" 2 hits)
    echo "$hits hits of sti, $shielded of what it shields"
    [ "$hits" -gt 10 ] && [ "$shielded" -ge $((hits - 2)) ] && [ "$shielded" -le $((hits + 2)) ]
}

none_lost() {
    cat /tmp/query
    for minor in 1 2; do
        [ "$(count_of "$1" $minor faulted)$(count_of "$1" $minor late)" = 00 ] || return 1
    done
}

work() {
    for _ in 1 2 3 4 5; do
        find /proc -maxdepth 2 -name stat -exec cat {} + >/dev/null 2>&1
        sh -c 'sleep 0.01 & sleep 0.01; wait' || return 1
    done
    dprobes query --json >/tmp/query
}

check "the module loads" insmod /dprobes.ko
check "an sti is probed, and what it shields" insert_at_sti 50 _raw_spin_unlock_irq
# What an idle CPU runs nobody may instrument any more since 6.3: it is refused.
idle=probed
grep -q " pv_native_safe_halt$" /proc/kallsyms && idle=refused
if [ $idle = probed ]; then
    check "the sti of an idle CPU is probed, and its hlt" insert_at_sti 51 native_safe_halt
else
    probes 51 pv_native_safe_halt 0
    check "the sti of an idle CPU is refused" refused "noinstr" dprobes insert /tmp/sti.rpn
fi
check "work is done" work
check "both are hit, in one trap" together 50
[ $idle = refused ] || check "a CPU that goes to sleep is woken up each time" together 51
check "no hit is lost, none late" none_lost 50
[ $idle = refused ] || check "nor of those that sleep" none_lost 51
dprobes query
check "they go" dprobes remove 50
[ $idle = refused ] || check "those in which a CPU sleeps too" dprobes remove 51
check "the module unloads" rmmod dprobes
