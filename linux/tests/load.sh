# shellcheck shell=sh
# A million hits on two CPUs with exact counts, while another program comes and goes a thousand times on the same function.

insmod /dprobes.ko || exit 1

# A function that only this workload calls: one call for every byte that dd reads.
program() { # MAJOR OFFSET
    cat >"/tmp/$1.rpn" <<END
name    = "kernel"
modtype = kernel
major   = $1
vars    = count
offset  = read_zero + $2
minor   = 1
        inc     lv, count
        abort
END
}

# The first two places in the middle of the function where a probe can be.
middle() {
    offset=$1
    while [ "$offset" -lt 64 ]; do
        offset=$((offset + 1))
        program 9 $offset
        if dprobes insert /tmp/9.rpn >/dev/null 2>&1; then
            dprobes remove 9 >/dev/null
            echo $offset
            return
        fi
    done
}
first=$(middle 7)
second=$(middle "$first")
echo "probes at read_zero+$first and read_zero+$second"
program 4 "$first"
program 5 "$second"

half() { taskset "$1" dd if=/dev/zero of=/dev/null bs=1 count=500000 2>/dev/null; }
million() {
    half 1 &
    one=$!
    half 2 &
    two=$!
    wait $one && wait $two
}
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
counted() {
    status=$(dprobes query --json | grep '"major":4')
    equal "hits $(echo "$status" | field hits) missed $(echo "$status" | field missed)" "hits $1 missed 0"
}

check "a probe in the middle of a function" dprobes insert /tmp/4.rpn
check "a million calls" million
check "are a million hits" counted 1000000

churn() {
    n=0
    while [ $n -lt 1000 ]; do
        dprobes insert /tmp/5.rpn >/tmp/out 2>&1 || { cat /tmp/out; return 1; }
        dprobes remove 5 >/tmp/out 2>&1 || { cat /tmp/out; return 1; }
        n=$((n + 1))
    done
    touch /tmp/churned
}
# dd runs for as long as it takes, on both CPUs, and each of its calls must be counted.
load() {
    calls=0
    while [ ! -e /tmp/churned ]; do
        taskset "$1" dd if=/dev/zero of=/dev/null bs=1 count=20000 2>/dev/null
        calls=$((calls + 20000))
    done
    echo $calls >/tmp/calls-"$1"
}
load 1 &
one=$!
load 2 &
two=$!
check "a thousand insertions and removals under load" churn
wait $one $two
check "and every call was counted" counted $((1000000 + $(cat /tmp/calls-1) + $(cat /tmp/calls-2)))

check "the probe goes" dprobes remove 4
check "the module unloads" rmmod dprobes
check "and the workload goes on" half 1
