# shellcheck shell=sh
# Programs of this machine, of the packages: bpftrace linux-perf trace-cmd gdb
# The same questions to others, in the same guest, at the same places and at the same time: bpftrace, perf, trace-cmd and gdb as the distribution has
# them. They are in this machine's root, in which they see the guest's own as /tmp/guest.

for module in 0 1 2 3 4 5 6 7 8 9; do
    [ ! -e /9p/$module.ko ] || insmod /9p/$module.ko || exit 1
done
mkdir /host
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host || exit 1
mount -t tmpfs tmpfs /host/tmp && mkdir /host/tmp/guest /host/tmp/home || exit 1
for folder in proc sys dev; do mount -o rbind /$folder /host/$folder || exit 1; done
mount -o rbind / /host/tmp/guest || exit 1
# peer COMMAND...: one of this machine's.
peer() { HOME=/tmp/home PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /host "$@"; }
libc=/lib/x86_64-linux-gnu/libc.so.6

insmod /dprobes.ko && insmod /dprobes_watched.ko || exit 1
cd /tmp || exit 1

# value MAP KEYS: what our map has for keys, which are JSON strings separated by commas.
value() { dprobes maps --json | grep "\"name\":\"$1\"" | grep -o "{\"keys\":\[$2\][^}]*" | sed 's/.*"value"://'; }
# field NAME MAJOR MINOR: of a probe.
field() { dprobes query --json | grep "\"major\":$2,\"minor\":$3," | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
# words NAME: a name as `push name` has it, of eight letters at most.
words() { printf '"0","%d"' "0x$(printf %s "$1" | od -A n -t x1 | tr -d '\n' | awk '{ for (i = NF; i; i--) printf "%s", $i }')"; }

# beside WORKLOAD BPFTRACE EVENT...: runs a script of the guest's with all of them looking. bpftrace says what it has counted in /host/tmp/bpftrace, perf in
# /host/tmp/perf. An event may have a filter behind a slash.
beside() {
    beside_workload=$1
    echo "$2" >/host/tmp/script.bt
    shift 2
    beside_events=
    for event in "$@"; do
        beside_events="$beside_events -e ${event%%/*}"
        case $event in */*) beside_events="$beside_events --filter '${event#*/}'" ;; esac
    done
    cat >/host/tmp/beside <<END_OF_SCRIPT
exec perf stat -x , -o /tmp/perf -a $beside_events -- \\
    bpftrace -q -f json -o /tmp/bpftrace -c '/usr/sbin/chroot /tmp/guest /bin/sh $beside_workload' /tmp/script.bt
END_OF_SCRIPT
    peer sh /tmp/beside || {
        echo "the peers failed"
        return 1
    }
}
# of_perf EVENT: how often perf has counted it.
of_perf() { awk -F , -v event="$1" '$3 == event { print $1 }' /host/tmp/perf; }
# of_bpftrace MAP [KEY]: what bpftrace has in a map.
of_bpftrace() {
    if [ $# = 1 ]; then
        sed -n "s/.*\"@$1\": \([0-9]*\)}.*/\1/p" /host/tmp/bpftrace
    else
        grep "\"@$1\"" /host/tmp/bpftrace | grep -o "\"$2\": [0-9]*" | sed 's/.*: //'
    fi
}

peer perf --version
peer bpftrace --version

# A function of the kernel, by process; and a failing open, injected for one process.
cat >opens.rpn <<'END_OF_PROGRAM'
name    = "kernel"
modtype = kernel
major   = 20
map opens   = count, keys = 2
map results = count, keys = 3
offset = do_sys_openat2;         minor = 1; push name; agg opens; abort
offset = return(do_sys_openat2); minor = 2; push r, rax; push name; agg results; abort
END_OF_PROGRAM
cat >opening <<'END_OF_SCRIPT'
printf %s one >/proc/self/comm
n=0
while [ $n -lt 300 ]; do read -r _ </proc/uptime; n=$((n + 1)); done
printf %s two >/proc/self/comm
while [ $n -lt 500 ]; do read -r _ 2>/dev/null </victim; n=$((n + 1)); done
sh -c 'printf %s three >/proc/self/comm; n=0; while [ $n -lt 70 ]; do read -r _ </proc/uptime; n=$((n + 1)); done'
:
END_OF_SCRIPT
echo there >/victim
check "our programs for opened files are inserted" sh -c "dprobes insert opens.rpn && dprobes insert /examples/inject.rpn"
check "perf probe is on the same function" peer perf probe -q --add opens=do_sys_openat2
check "they look at it together" beside /tmp/opening '
    kprobe:do_sys_openat2 { @opens[comm] = count(); }
    kretprobe:do_sys_openat2 /retval == -14/ { @failed[comm] = count(); }' 'probe:opens/comm == "one" || comm == "two" || comm == "three"'
for name in one two three; do
    ours=$(value opens "$(words $name)")
    check "bpftrace counts as many for $name: $ours" equal "$(of_bpftrace opens $name)" "$ours"
done
sum=$(($(value opens "$(words one)") + $(value opens "$(words two)") + $(value opens "$(words three)")))
check "perf counts as many of all three: $sum" equal "$(of_perf probe:opens)" $sum
check "which are those that there were" test $sum -ge 570
check "each that we have failed has failed for bpftrace" equal "$(of_bpftrace failed two) $(dprobes log --json | grep -c '"type":"record"')" "200 200"
check "and for our probe on its return" equal "$(value results "\"$(printf %u -14)\",$(words two)")" 200
check "nothing was missed" equal "$(field missed 20 1) $(field missed 20 2) $(field unfollowed 20 2) $(field missed 3 1)" "0 0 0 0"
peer perf probe -q --del 'probe:*'
dprobes remove --all >/dev/null

# A call timed from its entry to its return.
cat >sleeping <<'END_OF_SCRIPT'
printf %s sleeper >/proc/self/comm
n=0
while [ $n -lt 10 ]; do usleep 23000; n=$((n + 1)); done
while [ $n -lt 15 ]; do usleep 92000; n=$((n + 1)); done
:
END_OF_SCRIPT
# usleep is another program than the shell.
sed 's/^map.*/map nanoseconds = log2, keys = 2/; /return/,$s/^        push    clock/        push    name\n&/' /examples/latency.rpn >latency.rpn
check "our histogram is inserted" dprobes insert latency.rpn
check "perf probe is on both ends" sh -c 'set -e
    HOME=/tmp/home chroot /host /usr/bin/perf probe -q --add sleeps=hrtimer_nanosleep
    HOME=/tmp/home chroot /host /usr/bin/perf probe -q --add woken=hrtimer_nanosleep%return'
check "they look at it together" beside /tmp/sleeping '
    kprobe:hrtimer_nanosleep /comm == "usleep"/ { @begun[tid] = nsecs; }
    kretprobe:hrtimer_nanosleep /@begun[tid]/ { @nanoseconds = hist(nsecs - @begun[tid]); @calls = count(); delete(@begun[tid]); }' \
    'probe:sleeps/comm == "usleep"' 'probe:woken__return/comm == "usleep"'
# Buckets that have something: where they begin, and how many.
ours=$(dprobes maps --json | grep '"name":"nanoseconds"' | sed 's/{"keys"/\n&/g' | grep "^{\"keys\":\[$(words usleep)\]" |
    grep -o '"from":[0-9]*,[^}]*"count":[1-9][0-9]*' | sed 's/"from":\([0-9]*\),.*"count":\([0-9]*\)/\1 \2/' | xargs)
theirs=$(grep '"@nanoseconds"' /host/tmp/bpftrace | grep -o '"min": [0-9]*, "max": [0-9]*, "count": [1-9][0-9]*' |
    sed 's/"min": \([0-9]*\),.*"count": \([0-9]*\)/\1 \2/' | xargs)
# at_least NANOSECONDS BUCKETS: how many calls took as long or longer.
at_least() { echo "$2" | awk -v from="$1" '{ for (i = 1; i < NF; i += 2) if ($i >= from) sum += $(i + 1); print sum + 0 }'; }
# bpftrace's kprobe at the entry is called before ours is hit, and its handler at the return after ours: what it measures is longer by both, and on a busy
# machine by what comes in between. So a call is in the same bucket, or in a higher one.
encloses() {
    for from in $(echo "$ours $theirs" | awk '{ for (i = 1; i < NF; i += 2) print $i }'); do
        [ "$(at_least "$from" "$ours")" -le "$(at_least "$from" "$theirs")" ] || return 1
    done
}
check "bpftrace has the same calls in its histogram, each as long or longer: $theirs" encloses
check "none is shorter than asked for, ours neither" equal "$(at_least 16777216 "$ours")" 15
check "and none of the long ones" test "$(at_least 67108864 "$ours")" -ge 5
check "of 15 calls" equal "$(of_bpftrace calls) $(echo "$ours" | awk '{ for (i = 2; i <= NF; i += 2) sum += $i; print sum }')" "15 15"
check "perf counts as many beginnings and ends" equal "$(of_perf probe:sleeps) $(of_perf probe:woken__return)" "15 15"
check "all calls were followed, and nothing was missed" equal "$(field missed 6 1) $(field missed 6 2) $(field unfollowed 6 2)" "0 0 0"
peer perf probe -q --del 'probe:*'
dprobes remove --all >/dev/null

# A function of a library, in every process: one that has been there before, and those that start later.
mkfifo begin
victim waits 400 <begin >waited &
waiting=$!
exec 9>begin
cat >library.rpn <<END_OF_PROGRAM
name    = "$libc"
modtype = user
major   = 21
map calls   = count, keys = 1
map results = count, keys = 1
offset = getenv;         minor = 1; push pid; agg calls; abort
offset = return(getenv); minor = 2; push pid; agg results; abort
END_OF_PROGRAM
cat >looking <<'END_OF_SCRIPT'
echo >/tmp/begin
victim environment 300 >/dev/null
victim environment 20 >/dev/null
while [ ! -s /tmp/waited ]; do usleep 10000; done
END_OF_SCRIPT
check "our program for the library is inserted" dprobes insert library.rpn
check "perf probe is on the same function" peer perf probe -q -x /tmp/guest$libc --add looks=getenv
check "they look at it together" beside /tmp/looking "
    uprobe:/tmp/guest$libc:getenv /comm == \"victim\"/ { @calls[pid] = count(); }
    uretprobe:/tmp/guest$libc:getenv /comm == \"victim\"/ { @results[pid] = count(); }" 'probe_libc:looks/comm == "victim"'
exec 9>&-
wait $waiting
# What is counted for processes that called it, in ascending order.
counts() { sed 's/{"keys"/\n&/g; s/, "/\n"/g; s/{"/\n"/g' | grep -o "$1" | grep -o '[0-9]*$' | sort -n | xargs; }
for what in calls results; do
    ours=$(dprobes maps --json | grep "\"name\":\"$what\"" | grep -o '"value":[0-9]*' | grep -o '[0-9]*$' | sort -n | xargs)
    theirs=$(grep "\"@$what\"" /host/tmp/bpftrace | grep -o '"[0-9]*": [0-9]*' | grep -o '[0-9]*$' | sort -n | xargs)
    check "bpftrace counts the same $what: $theirs" equal "$ours" "$theirs"
    check "which are those of the three processes" equal "$ours" "20 300 400"
done
check "the one that was there before has its own" equal "$(value calls "\"$waiting\"") $(of_bpftrace calls $waiting)" "400 400"
check "perf counts all" equal "$(of_perf probe_libc:looks)" 720
peer perf probe -q --del 'probe_libc:*'
dprobes remove --all >/dev/null

# Our own trace event, as others see it.
cat >traced.rpn <<'END_OF_PROGRAM'
name    = "kernel"
modtype = kernel
major   = 7
offset  = __x64_sys_sethostname
minor   = 1
        push    0x1234
        log     1
        exit_to trace
END_OF_PROGRAM
echo "hostname a; hostname b; hostname c; hostname d; hostname e" >naming
guests() { peer "$@" /usr/sbin/chroot /tmp/guest /bin/sh /tmp/naming; }
sed 's/exit_to trace/exit/; s/^major.*/major = 8/' traced.rpn >delivered.rpn
check "a program that ends in a trace, and one whose records go there" \
    sh -c "dprobes insert traced.rpn && dprobes insert delivered.rpn --log-to trace"
check "perf records the event" guests perf record -q -a -o /tmp/perf.data -e dprobes:record --filter 'major == 7'
peer perf script -i /tmp/perf.data -F comm,event,trace >events
check "it sees each, with its fields" equal \
    "$(grep -c '^ *hostname.*dprobes:record: probe=7.1 address=.*__x64_sys_sethostname.* length=11 elements=07 01 00 34 12 00 00 00 00 00 00' events)" 5
check "and no other" equal "$(grep -c . events)" 5
check "trace-cmd records it" guests trace-cmd record -q -o /tmp/trace.dat -e dprobes:record -f 'major == 8'
peer trace-cmd report -q -i /tmp/trace.dat >events
check "and sees its fields" equal "$(grep -c 'hostname-.* record: .*probe=8.1 address=.*length=11 elements=07 01 00 34 12 00 00 00 00 00 00' events)" 5
check "each is one of ours" equal "$(field hits 7 1) $(field hits 8 1)" "10 10"
dprobes remove --all >/dev/null

# The debug registers.
word=$(cat /sys/module/dprobes_watched/parameters/word)
at() { printf 0x%x $((word + $1 * 8)); }
cat >watching.rpn <<'END_OF_PROGRAM'
name    = "dprobes_watched"
modtype = kmod
major   = 22
vars    = count
offset  = dprobes_watched_word
minor   = 1
watch   = write 8
        inc     lv, count
        abort
END_OF_PROGRAM
echo 'echo store 500 >/dev/dprobes_watched; taskset 2 sh -c "echo store 500 >/dev/dprobes_watched"' >storing
stores() { peer "$@" /usr/sbin/chroot /tmp/guest /bin/sh /tmp/storing; }
check "our watchpoint is set" dprobes insert watching.rpn
# The word behind it, which is stored to as often: of two registers with one address QEMU (7.2) reports one.
check "perf watches its neighbour" stores perf stat -x , -o /tmp/perf -a -e "mem:$(at 1)/8:w"
check "both count every store" equal "$(awk -F , '/mem:/ { print $1 }' /host/tmp/perf) $(field hits 22 1)" "1000 1000"
dprobes remove --all >/dev/null
cat >/host/tmp/four <<END_OF_SCRIPT
exec perf stat -x , -o /tmp/perf -a -e mem:$(at 0)/8:w -e mem:$(at 1)/8:w -e mem:$(at 2)/8:w -e mem:$(at 3)/8:w -- sleep 1000
END_OF_SCRIPT
peer sh /tmp/four &
four=$!
# What it runs begins when it has opened all.
until pidof sleep >/dev/null; do usleep 100000; done
check "perf has all registers, and it is said who has them" refused "perf" dprobes insert watching.rpn
kill "$(pidof perf)"
wait $four
check "when it has gone they are ours" dprobes insert watching.rpn
dprobes remove --all >/dev/null
cat >/host/tmp/gdb <<'END_OF_SCRIPT'
set pagination off
set can-use-hw-watchpoints 1
break main
run
watch last
continue
shell touch /tmp/guest/tmp/stopped; while [ ! -e /tmp/guest/tmp/go ]; do sleep 0.1; done
continue
continue
kill
quit
END_OF_SCRIPT
peer gdb -q -batch -x /tmp/gdb --args /tmp/guest/bin/victim-fixed calls 100 >gdb.log 2>&1 &
debugger=$!
waited=0
until [ -e stopped ] || [ $waited = 600 ]; do
    usleep 100000
    waited=$((waited + 1))
done
check "gdb watches a variable of a program" sh -c "[ -e stopped ] && grep -q 'Hardware watchpoint 2: last' gdb.log || { cat gdb.log; false; }"
check "our watchpoint is set beside it" dprobes insert watching.rpn
sh storing
check "and counts every store" equal "$(field hits 22 1)" 1000
{
    sed -n '1,3p' watching.rpn
    for n in 1 2 3; do echo "offset = dprobes_watched_word + $((n * 8)); minor = $n; watch = write 8; abort"; done
} | sed 's/^major.*/major = 23/' >three.rpn
check "for three more there is no room, and gdb is named" refused "gdb" dprobes insert three.rpn
: >go
wait $debugger
check "gdb has seen every change" equal "$(grep -c 'Hardware watchpoint 2: last' gdb.log)" 4
check "when it has gone there is room" dprobes insert three.rpn
dprobes remove --all >/dev/null
check "the modules unload" sh -c "rmmod dprobes_watched && rmmod dprobes"
