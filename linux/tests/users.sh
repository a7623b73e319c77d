# shellcheck shell=sh
# Programs in user space: every process that runs a file, counted as it counts itself.

insmod /dprobes.ko || exit 1
cd /tmp || exit 1

# field NAME MINOR: of the probe with that minor code.
field() { dprobes query --json | grep "\"minor\":$2," | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
hits() { field hits "$1"; }
# executed OUTPUT: the sum of what the victims say.
executed() { echo "$1" | sed -n 's/.* executed \([0-9]*\) .*/\1/p' | awk '{ sum += $1 } END { print sum }'; }
put_in() { dprobes insert "$@" || exit 1; }

# program FILE OFFSET MAJOR [HANDLER]: a program with one probe. It counts, if nothing else is said.
program() {
    cat <<END
name    = "$1"
modtype = user
major   = $3
vars    = count
offset  = $2
minor   = $3
${4-        inc     lv, count
        abort}
END
}

# counted FILE OFFSET VICTIM...: the probe has as many hits as the victim has calls.
counted() {
    program "$1" "$2" 1 >count.rpn
    shift 2
    dprobes insert count.rpn || return 1
    said=$("$@") || return 1
    equal "$(hits 1)" "$(executed "$said")" && [ "$(hits 1)" -gt 0 ] && equal "$(field missed 1)" 0
    counted_result=$?
    dprobes remove 1 --module "$(sed -n 's/^name *= "\(.*\)"/\1/p' count.rpn)" || return 1
    return $counted_result
}

# say32: runs the 32-bit one, whose sum is known.
say32() {
    # shellcheck disable=SC2046 # The two numbers that it prints.
    set -- $(victim32)
    echo "victim32 executed $1 sum $2"
    [ "$2" = 1499500 ]
}

check "a position-independent program" counted /bin/victim work victim calls 1000
check "one that is not" counted /bin/victim-fixed work victim-fixed calls 1000
check "an instruction behind the first" counted /bin/victim work+7 victim calls 1000
check "an instruction that the kernel emulates" counted /bin/victim pushes victim pushes 1000
check "two threads on two CPUs" counted /bin/victim work victim threads 20000
check "children and their children" counted /bin/victim work victim forks 1000
check "a stripped one, by its build ID" counted /bin/victim-by-id work victim-by-id calls 100
check "a stripped one, by its link" counted /bin/victim-by-link work victim-by-link calls 100
check "a line of its source" counted /bin/victim "\"victim.c\":$(grep -n 'return a + limit' /victim.c | cut -d : -f 1)" victim pushes 100
check "32-bit code" counted /bin/victim32 work say32
check "a library function" counted /lib/x86_64-linux-gnu/libc.so.6 drand48 victim library 1000

# A library function in every process: one that has been there before, one that starts later.
victim library-spin >before &
before=$!
sleep 0.2
program /lib/x86_64-linux-gnu/libc.so.6 drand48 2 '
        push    pid
        agg     calls
        abort' | sed 's/^vars.*/map calls = count, keys = 1/' >library.rpn
put_in library.rpn >/dev/null
victim library-spin >after &
after=$!
sleep 0.5
of_process() { dprobes maps --json | sed 's/{"keys"/\n&/g' | grep "^{\"keys\":\[\"$1\"\]" | sed 's/.*"value":\([0-9]*\).*/\1/'; }
kill $after
wait $after
check "a process that starts later is counted exactly" equal "$(of_process $after)" "$(executed "$(cat after)")"
counted_before=$(of_process $before)
check "one that was there before is counted" test "$counted_before" -gt 0
dprobes remove 2 --module /lib/x86_64-linux-gnu/libc.so.6 >removed || exit 1
kill $before
wait $before
check "and goes on uncounted" test "$(executed "$(cat before)")" -gt "$counted_before"

# getenv.rpn of the examples.
put_in /examples/getenv.rpn >/dev/null
victim environment 7 >/dev/null
check "seven looks into the environment are logged" equal "$(dprobes log --json | grep -c '"text":"VICTIM_OPTION"')" 7
check "and counted for the process" equal "$(dprobes maps --json | grep -o '"value":7}' | head -n 1)" '"value":7}'
dprobes remove 14 --module /lib/x86_64-linux-gnu/libc.so.6 >/dev/null || exit 1

# The kernel's own probe event at the same place, as perf makes it.
program /bin/victim work 4 >peer.rpn
put_in peer.rpn >/dev/null
tracing=/sys/kernel/tracing
echo "p:peer /bin/victim:$(field address 4)" >$tracing/uprobe_events
echo 1 >$tracing/events/uprobes/peer/enable
before=$(hits 4)
victim calls 1000 >/dev/null
victim threads 1000 >/dev/null
theirs=$(awk '$2 == "peer" { print $3 }' $tracing/uprobe_profile)
check "the kernel's own event counts as many: $theirs" equal "$(($(hits 4) - before))" "$theirs"
check "and those are not few" test "$theirs" -ge 1000
echo 0 >$tracing/events/uprobes/peer/enable
echo >$tracing/uprobe_events
dprobes remove 4 --module /bin/victim >/dev/null || exit 1

# What programs write is what the process goes on with.
writes() {
    expected=$1
    shift
    put_in write.rpn >/dev/null
    found=$("$@")
    dprobes remove 3 --module "$(sed -n 's/^name *= "\(.*\)"/\1/p' write.rpn)" >/dev/null
    equal "$found" "$expected"
}
program /bin/victim work 3 'push 100; pop r, rdi; abort' >write.rpn
check "an argument is changed" writes "calls executed 10 sum 3010" victim calls 10
program /bin/victim-fixed pushes 3 'push limit; push 7; pop mem, u64; abort' >write.rpn
check "memory is changed" writes "pushes executed 10 sum 115" victim-fixed pushes 10
skip='
        push    r, rsp; push mem, u64; pop r, rip       // to the caller,
        push    r, rsp; push 8; add; pop r, rsp
        push    42; pop r, rax                          // with a result
        abort'
program /bin/victim work 3 "$skip" >write.rpn
check "a function is not executed" writes "calls executed 0 sum 4200" victim calls 100
program /bin/victim pushes 3 "$skip" >write.rpn
check "neither one that the kernel emulates" writes "pushes executed 0 sum 4200" victim pushes 100
program /bin/victim work 3 "$skip" >write.rpn
check "signals come between" writes "signals executed 5000 sum 13207500" victim signals 5000
program /bin/victim32 work 3 'push r, rsp; push 8; add; push 2; pop mem, u32; abort' >write.rpn
check "memory of 32-bit code is changed" writes "1000 1500500" victim32

# Records.
program /bin/victim real 4 '
        push    r, xmm0
        log     2
        push    r, rip
        log     1
        push    4
        log     ustack
        exit' | sed 's/^vars.*//' >record.rpn
put_in record.rpn >/dev/null
victim double >/dev/null
dprobes log --json >logged
check "vector registers are those of the process" grep -q '"words":\["0x3ff8000000000000"\|"0x3ff8000000000000"' logged
check "the record is of the process" grep -q '"process":"victim"' logged
dprobes remove 4 --module /bin/victim >/dev/null

# Returns.
program /bin/victim "return(nested)" 11 '
        inc     lv, count
        push    r, rax
        log     1
        exit' >returns.rpn
put_in returns.rpn >/dev/null
victim nested 5 >/dev/null
check "nested calls return one after the other" equal "$(dprobes log --json | grep -o '"words":\["[^"]*"' | sed 's/.*"0x\(.*\)"/\1/' | xargs)" "1 2 3 4 5"
victim nested 100 >/dev/null
check "calls that are nested too deep are counted as unfollowed" equal "$(hits 11) $(field unfollowed 11)" "69 36"
dprobes log >/dev/null
dprobes remove 11 --module /bin/victim >/dev/null || exit 1

# What a program keeps for a call: the argument at its beginning, with the result at its end.
{
    program /bin/victim nested 12 '
        push    r, rdi
        pop     cv, 3
        abort'
    echo '
offset  = return(nested)
minor   = 13
        push    r, rax
        push    cv, 3
        push    cv, 0
        log     3
        exit'
} | sed 's/^vars.*//' >calls.rpn
put_in calls.rpn >/dev/null
victim nested 4 >/dev/null
check "each call has variables of its own" equal \
    "$(dprobes log --json | grep -o '"words":\["[^]]*' | sed 's/"words":\[//; s/"//g' | xargs)" "0x0,0x1,0x1 0x0,0x2,0x2 0x0,0x3,0x3 0x0,0x4,0x4"
for _ in 1 2 3 4 5 6 7 8; do victim nested 60 >/dev/null; done
check "and there is room for those of others" equal "$(hits 13) $(field unfollowed 12) $(field unfollowed 13)" "484 0 0"
dprobes log >/dev/null
dprobes remove 12 --module /bin/victim >/dev/null || exit 1
check "every return is counted" counted /bin/victim "return(work)" victim threads 5000
check "in children too" counted /bin/victim "return(work)" victim forks 1000
check "in 32-bit code too" counted /bin/victim32 "return(work)" say32
program /bin/victim "return(pushes)" 3 'push 9; pop r, rax; abort' >write.rpn
check "a result is changed" writes "pushes executed 10 sum 90" victim pushes 10
# The entry and the return of a call have the same stack pointer, but for the return address.
cat >both.rpn <<END
name    = "/bin/victim"
modtype = user
major   = 12
map     entries = count, keys = 2
map     returns = count, keys = 2

offset  = nested
minor   = 1
        push    tid
        push    r, rsp
        agg     entries
        abort

offset  = return(nested)
minor   = 2
        push    tid
        push    r, rsp
        push    8
        sub
        agg     returns
        abort
END
put_in both.rpn >/dev/null
victim nested 20 >/dev/null
of_map() { dprobes maps --json | grep "\"name\":\"$1\"" | grep -o '{"keys":[^}]*' | sort; }
check "calls and returns have the same keys" equal "$(of_map returns)" "$(of_map entries)"
check "one for each call" equal "$(of_map returns | grep -c '"value":1')" 20
dprobes remove 12 --module /bin/victim >/dev/null || exit 1

# Several programs, limits, groups.
program /bin/victim work 5 'inc lv, count; abort' | sed 's/^minor.*/&\npass_count = 10\nmax_hits = 20/' >five.rpn
program /bin/victim work 6 'inc lv, count; abort' >six.rpn
program /bin/victim work 7 'inc lv, count; abort' | sed 's/^minor.*/&\ngroup = 1\nsuspended = yes/' >seven.rpn
for name in five six seven; do put_in $name.rpn >/dev/null; done
victim calls 100 >/dev/null
check "limits are kept" equal "$(field skipped 5) $(hits 5) $(field state 5)" "10 20 exhausted"
check "beside them another counts all" equal "$(hits 6)" 100
check "the opcode is compared" refused "not those that the program expects" sh -c \
    'sed "s/^minor.*/minor = 8\nopcode = 0x90, 0x90/; s/^major.*/major = 8/" six.rpn >eight.rpn; dprobes insert eight.rpn'
for major in 5 6 7; do dprobes remove $major --module /bin/victim >/dev/null || exit 1; done

# A file that is replaced is another file.
cp /bin/victim /tmp/copy
program /tmp/copy work 9 >copy.rpn
put_in copy.rpn >/dev/null
/tmp/copy spin >old &
old=$!
sleep 0.2
check "it is the same file" equal "$(dprobes query --json | grep -c '"path":"same"')" 1
cp /bin/victim /tmp/copy.new
mv /tmp/copy.new /tmp/copy
before=$(hits 9)
/tmp/copy calls 100000 >/dev/null
check "a query says that it was replaced" equal "$(field state 9) $(dprobes query --json | grep -c '"path":"replaced"')" "armed 1"
check "and shows it" refused "" sh -c '! dprobes query | grep "armed, file replaced"'
kill $old
wait $old
check "who runs the old one is counted, who runs the new one is not" equal "$(hits 9)" "$(executed "$(cat old)")"
check "which was counted before as well" test "$before" -gt 0
rm /tmp/copy
check "a query says that it was removed" equal "$(dprobes query --json | grep -c '"path":"removed"')" 1
dprobes remove 9 --module /tmp/copy >/dev/null || exit 1

# What cannot be probed.
is_refused() {
    program "$2" "$3" 10 "${4-abort}" >refused.rpn
    refused "$1" dprobes insert refused.rpn
}
check "a file that is not there" is_refused "cannot read /bin/nothing" /bin/nothing main
check "a folder" is_refused "not a regular file" /tmp main
check "a script" is_refused "not a program or a library" /script main
check "a relative path" is_refused "not a whole path" bin/victim main
check "a name that is not there" is_refused "has no symbol wrok" /bin/victim wrok
check "which one was meant" is_refused "is work meant?" /bin/victim wrok
check "a place outside of a function" is_refused "is outside work" /bin/victim work+0x1000
check "the middle of an instruction" is_refused "is inside an instruction" /bin/victim work+1
check "an offset in data" is_refused "is not in the code of /bin/victim" /bin/victim 0
check "an offset behind the end" is_refused "is not in the code of /bin/victim" /bin/victim 0x10000000
check "a lock prefix" is_refused "does not probe the instruction" /bin/victim work+14
check "what uprobes do not take" is_refused "does not probe the instruction" /bin/victim untakable
check "an indirect function" is_refused "one of several functions" /lib/x86_64-linux-gnu/libc.so.6 strlen
check "the address of what moves" is_refused "another address in every process" /bin/victim work 'push limit; log 1; exit'
program /bin/victim work+7 13 >middle.rpn
put_in middle.rpn >/dev/null
middle=$(field address 13)
dprobes remove 13 --module /bin/victim >/dev/null || exit 1
check "a return from the middle of a function" is_refused "beginning of a function that is called" /bin/victim "return($middle)"
check "a return from where nothing returns" is_refused "beginning of a function that is called" /bin/victim "return(_start)"
check "a line without code" is_refused 'there is no code for "victim.c":2' /bin/victim '"victim.c":2'
check "a file with no such source" is_refused "is from a file other.c" /bin/victim '"other.c":2'
check "nothing of that is inserted" equal "$(dprobes query --json)" ""

# In and out under load.
victim spin >spin1 &
one=$!
taskset 2 victim spin >spin2 &
two=$!
under_load() {
    n=0
    while [ $n -lt 30 ]; do
        dprobes insert count.rpn >/dev/null || return 1
        usleep 10000
        dprobes remove 1 --module /bin/victim >/dev/null || return 1
        n=$((n + 1))
    done
}
program /bin/victim work 1 >count.rpn
check "in and out thirty times while it is hit" under_load
unloads() {
    n=0
    while [ $n -lt 5 ]; do
        dprobes insert count.rpn >/dev/null && dprobes insert skip.rpn >/dev/null || return 1
        usleep 50000
        rmmod dprobes || return 1
        insmod /dprobes.ko || return 1
        n=$((n + 1))
    done
}
program /bin/victim work 3 "$skip" >skip.rpn
check "the module is unloaded five times while they are hit" unloads
kill $one $two
wait $one && wait $two
check "the processes have ended in order" test "$(executed "$(cat spin1 spin2)")" -gt 0
check "the module unloads" rmmod dprobes
