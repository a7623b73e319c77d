# shellcheck shell=sh
# The examples on a kernel that does what they are about, with counts that are known beforehand.

insmod /dprobes.ko || exit 1
cd /examples || exit 1

# returns FUNCTION: the offset of its return instruction, which the compiler pads with int3 or the kernel with a thunk's rest.
returns() {
    start=0x$(sed -n "s/^\([0-9a-f]*\) [tT] $1\$/\1/p" /proc/kallsyms)
    # The headers of /proc/kcore say where memory is in it.
    od -A n -v -t d8 -w56 -j 64 -N 1120 /proc/kcore | while read -r _ offset address _ size _; do
        if [ $((start >= address && start < address + size)) = 1 ]; then
            dd if=/proc/kcore bs=1 skip=$((offset + start - address)) count=1024 2>/dev/null | od -A n -v -t x1 |
                tr -d '\n' | sed 's/ c3 cc cc cc.*//' | wc -w
            break
        fi
    done
}

# value MAP KEYS: what a map has for keys, which are JSON strings separated by commas.
value() { dprobes maps --json | grep "\"name\":\"$1\"" | grep -o "{\"keys\":\[$2\][^}]*" | sed 's/.*"value"://'; }
# total MAP: the sum of all its values.
total() { dprobes maps --json | grep "\"name\":\"$1\"" | grep -o '"value":[0-9]*' | awk -F: '{ sum += $2 } END { print sum + 0 }'; }
# hits MINOR: of the probe with that minor code.
hits() { dprobes query --json | grep "\"minor\":$1," | sed 's/.*"hits":\([0-9]*\).*/\1/'; }
put_in() { dprobes insert "$@" >/dev/null || exit 1; }
# put_in_renamed FILE: functions may have other names in this kernel than in 6.1, for which the examples are.
put_in_renamed() {
    cp "$1" "/tmp/renamed-$1"
    for names in __kmalloc:__kmalloc_noprof do_mkdirat:filename_mkdirat do_rmdir:filename_rmdir; do
        if grep -q " ${names#*:}\$" /proc/kallsyms; then
            sed -i "s/\\b${names%:*}\\b/${names#*:}/" "/tmp/renamed-$1"
        fi
    done
    put_in "/tmp/renamed-$1"
}
take_out() { dprobes remove "$1" >/dev/null || exit 1; }
records() { dprobes log --json | grep '"type":"record"'; }
# as NAME COMMANDS: a shell of that name.
as() { sh -c "printf $1 >/proc/self/comm; $2; :"; }

# short-reads.rpn: "dd" asks for 4096 bytes and gets one at a time.
printf %100s x >/tmp/hundred
put_in short-reads.rpn -D VICTIM=0x6464
check "a hundred bytes take a hundred reads" equal "$(dd if=/tmp/hundred of=/tmp/copy bs=4096 2>&1 | head -n 1)" "0+100 records in"
check "they are the right ones" cmp /tmp/hundred /tmp/copy
take_out 9
check "without the program they take one" equal "$(dd if=/tmp/hundred of=/tmp/copy bs=4096 2>&1 | head -n 1)" "0+1 records in"

# window.rpn
put_in_renamed window.rpn
for name in before inside after; do : >/tmp/$name; done
cat /tmp/before
mkdir /tmp/folder
cat /tmp/inside
rmdir /tmp/folder
cat /tmp/after
check "only what is opened in the window is logged" equal "$(records | grep -o '/tmp/[a-z]*')" /tmp/inside
check "both events are logged" equal "$(hits 2) $(hits 3)" "1 1"
take_out 10

# forks.rpn
put_in forks.rpn
as forker 'for _ in 1 2 3 4 5 6 7; do (:); done'
check "seven children are counted" equal "$(value clones "\"0\",\"$((0x72656b726f66))\"")" 7
take_out 11

# root-exec.rpn
put_in root-exec.rpn
as httpd '/bin/cat /dev/null'
sh -c '/bin/cat /dev/null; :'
found=$(records)
check "one program is logged" equal "$(echo "$found" | grep -c .)" 1
check "it is the one that was started" equal "$(echo "$found" | grep -o '"text":"[^"]*"')" '"text":"httpd"
"text":"/bin/cat"'
take_out 13

# failure-stack.rpn: 20 is ENOTDIR, which nothing else runs into.
put_in failure-stack.rpn -D ERROR=20 -D "RET=$(returns do_sys_openat2)"
cat /init/nothing 2>/dev/null
cat /init/nothing 2>/dev/null
found=$(records)
check "the first failure is logged, and no other" equal "$(echo "$found" | grep -c .)" 1
check "with its error" equal "$(echo "$found" | grep -o '"words":\["[^"]*"')" '"words":["0xffffffffffffffec"'
check "by the process that failed" equal "$(echo "$found" | grep -o '"text":"cat"')" '"text":"cat"'
check "its kernel stack leads to the system call" test "$(echo "$found" | grep -c 'do_sys_openat2+.*__x64_sys_open')" = 1
check "the probe has removed itself" equal "$(dprobes query --json | grep -o '"state":"[^"]*"')" '"state":"removed itself"'
take_out 7

# latency.rpn
put_in latency.rpn
for _ in 1 2 3 4 5; do usleep 20000; done
check "five sleeps are measured" equal "$(dprobes maps --json | grep -o '"total":[0-9]*')" '"total":5'
# A bucket's first value; 20 ms are in the one from 2^24 ns on.
fast=$(dprobes maps --json | grep -o '"from":[0-9]*,[^}]*"count":[1-9]' | sed 's/"from":\([0-9]*\).*/\1/' | sort -n | head -n 1)
check "none of them was shorter than asked for" test "$fast" -ge 16777216
take_out 6

# read-sizes.rpn
put_in read-sizes.rpn
dd if=/dev/zero of=/dev/null bs=3000 count=20 2>/dev/null
# One entry a line, then its bucket from 2048 on.
counted=$(dprobes maps --json | sed 's/{"keys"/\n&/g' | grep "^{\"keys\":\[\"0\",\"$((0x6464))\"\]" | grep -o '"from":2048,[^}]*')
check "twenty reads of 3000 bytes are counted" equal "${counted##*:}" 20
take_out 4

# allocators.rpn: every hit is counted somewhere.
put_in_renamed allocators.rpn
before=$(hits 1)
counted=$(total calls)
after=$(hits 1)
check "every allocation is counted for somebody" test "$before" -le "$counted" -a "$counted" -le "$after"
check "and by name" test "$(dprobes maps kernel 5 calls | grep -c '+0x')" -gt 0
take_out 5

# page-faults.rpn
put_in page-faults.rpn -D EVERY=10
dd if=/dev/zero of=/dev/null bs=4M count=1 2>/dev/null
before=$(hits 1)
counted=$(total regions)
after=$(hits 1)
check "every page fault is counted" test "$before" -le "$counted" -a "$counted" -le "$after" -a "$before" -gt 0
check "some are logged" test "$(records | grep -c .)" -gt 0
take_out 12
dprobes log >/dev/null

# And while memory runs out.
put_in page-faults.rpn -D EVERY=1000
tail /dev/zero 2>/dev/null
check "memory has run out" sh -c 'dmesg | grep -q "Out of memory: Killed process .*(tail)"'
before=$(hits 1)
counted=$(total regions)
after=$(hits 1)
check "every page fault on the way is counted" test "$before" -le "$counted" -a "$counted" -le "$after" -a "$before" -gt 1000
check "none was missed, and no key had no room" equal "$(dprobes query --json | grep -o '"missed":0') $(dprobes maps --json | grep -o '"dropped":0')" '"missed":0 "dropped":0'
take_out 12
dprobes log >/dev/null

# wrong-value.rpn
put_in wrong-value.rpn
before=$(cat /proc/sys/vm/overcommit_memory)
for value in 1 0 2 1 2; do echo "$value" >/proc/sys/vm/overcommit_memory; done
found=$(records)
check "three writes are watched, up to the wrong one" equal "$(hits 1)" 3
check "which is logged" equal "$(echo "$found" | grep -o '"words":\["[^"]*"')" '"words":["0x2"'
check "with its way through the kernel" test "$(echo "$found" | grep -c 'proc_sys_call_handler+.*vfs_write+')" = 1
echo "$before" >/proc/sys/vm/overcommit_memory
take_out 14

# corrupted.rpn: nothing is, so it says nothing.
put_in corrupted.rpn -D THEN=trace
cat /proc/self/maps /proc/modules /etc/* >/dev/null 2>&1
check "files are looked at" test "$(hits 1)" -gt 0
check "and all are good" equal "$(records)" ""
take_out 8

# The same questions to the kernel's own probe events, which perf makes: a process of one name opens files, reads them, and touches memory.
tracing=/sys/kernel/tracing
cat >/tmp/peer.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 20
map opens  = count, keys = 2
map reads  = count, keys = 2
map faults = count, keys = 2
offset = do_sys_openat2;  minor = 1; push name; agg opens;  abort
offset = vfs_read;        minor = 2; push name; agg reads;  abort
offset = handle_mm_fault; minor = 3; push name; agg faults; abort
END
echo "p:opens do_sys_openat2
p:reads vfs_read
p:faults handle_mm_fault" >$tracing/kprobe_events
echo 'comm == "worker"' >$tracing/events/kprobes/filter
echo 4096 >$tracing/buffer_size_kb
echo >$tracing/trace
echo 1 >$tracing/events/kprobes/enable
put_in /tmp/peer.rpn
# shellcheck disable=SC2016 # That shell expands it.
as worker 'n=0; while [ $n -lt 50 ]; do read -r _ </proc/uptime; (:); n=$((n + 1)); done'
echo 0 >$tracing/events/kprobes/enable
for what in opens reads faults; do
    ours=$(value $what "\"0\",\"$((0x72656b726f77))\"")
    theirs=$(grep -c " $what: " $tracing/trace)
    check "the kernel's own events count as many $what: $theirs" equal "$ours" "$theirs"
    check "and those are not few" test "$theirs" -ge 50
done
echo >$tracing/kprobe_events
take_out 20

check "the module unloads" rmmod dprobes
