# shellcheck shell=sh
# Returns of functions of the kernel and of modules: as many as there are calls, and as many as a kretprobe on the same functions sees.

insmod /dprobes.ko || exit 1
insmod /dprobes_target.ko || exit 1
cd /tmp || exit 1

# fields MINOR NAME...: of the probe with that minor code.
fields() {
    fields_of=$(dprobes query --json | grep "\"minor\":$1,")
    shift
    for name in "$@"; do echo "$fields_of" | sed -n "s/.*\"$name\":\"\{0,1\}\([^\",}]*\).*/\1/p"; done | xargs
}
hits() { fields "$1" hits; }
parameter() { cat "/sys/module/dprobes_target/parameters/$1"; }
call() { echo "$1 $2" >/dev/dprobes_returning; }

# program MODULE OFFSET MAJOR [HANDLER]: a program with one probe. It counts, if nothing else is said.
program() {
    cat <<END
name    = "$1"
modtype = $([ "$1" = kernel ] && echo kernel || echo kmod)
major   = $3
vars    = count
offset  = $2
minor   = $3
${4-        inc     lv, count
        abort}
END
}
put_in() { program "$@" >p.rpn && dprobes insert p.rpn >/dev/null; }
take_out() { dprobes remove "$1" --module "${2-dprobes_target}" >/dev/null; }

put_in dprobes_target "return(dprobes_returning_work)" 1 || exit 1
call work 1000
check "every return of a function of a module" equal "$(hits 1)" 1000
call kretprobe 1
call work 1000
check "beside a kretprobe both see all" equal "$(hits 1) $(parameter kretprobes)" "2000 1000"
call kretprobe 0
call work 10
check "without it the other still does" equal "$(hits 1) $(parameter kretprobes)" "2010 1000"
call kretprobe 1
before=$(parameter kretprobes)
for cpu in 1 2; do
    taskset $cpu sh -c 'for i in 1 2 3 4 5; do echo "work 1000" >/dev/dprobes_returning; done' &
done
wait
check "on two CPUs too" equal "$(hits 1) $(($(parameter kretprobes) - before))" "12010 10000"
check "nothing was missed, and each call was followed" equal "$(fields 1 missed unfollowed)" "0 0"

put_in dprobes_target "return(dprobes_returning_nested)" 2 '
        push    r, rax
        log     1
        exit' || exit 1
call nested 5
check "nested calls return innermost first" equal \
    "$(dprobes log --json | grep -o '"words":\["[^"]*"' | sed 's/.*"0x\(.*\)"/\1/' | xargs)" "1 2 3 4 5"
call nested 60
check "as deep as the stack goes" equal "$(fields 2 hits unfollowed)" "65 0"
dprobes log >/dev/null
take_out 2
call kretprobe 0

# What a program keeps for a call: the argument at its beginning, with the result at its end; and the stack pointer.
# calls FUNCTION MAJOR: a program that does it.
calls() {
    program dprobes_target "$1" "$2" '
        push    r, rdi
        pop     cv, 7
        push    r, rsp
        pop     cv, 6
        push    clock
        pop     cv, 0
        abort' | sed 's/^vars.*/map nanoseconds = sum/'
    echo "
offset  = return($1)
minor   = $(($2 + 1))
        push    clock
        push    cv, 0
        sub
        agg     nanoseconds
        push    r, rax
        push    cv, 7
        push    r, rsp
        push    cv, 6
        sub
        log     3
        exit"
}
calls dprobes_returning_nested 20 >p.rpn
dprobes insert p.rpn >/dev/null || exit 1
call nested 4
check "each call has variables of its own" equal \
    "$(dprobes log --json | grep -o '"words":\["[^]]*' | sed 's/"words":\[//; s/"//g' | xargs)" "0x8,0x1,0x1 0x8,0x2,0x2 0x8,0x3,0x3 0x8,0x4,0x4"
check "both probes of the program count" equal "$(fields 20 hits) $(fields 21 hits)" "4 4"
take_out 20
calls dprobes_returning_sleep 22 >p.rpn
dprobes insert p.rpn >/dev/null || exit 1
for milliseconds in 100 200 300; do call sleep $milliseconds & done
wait
slept=$(dprobes maps --json | sed -n 's/.*"nanoseconds".*"value":"\{0,1\}\([0-9]*\).*/\1/p')
check "calls that are under way together are timed" test "$slept" -ge 600000000
check "and no longer than they take" test "$slept" -lt 2000000000
dprobes log >/dev/null
take_out 22
program dprobes_target dprobes_returning_work 24 'push cv, 0; log 1; exit' >p.rpn
check "without a probe on the returns there are none" refused "is in no call" dprobes insert p.rpn

# Several programs on one function, and on its beginning and end.
put_in dprobes_target "return(dprobes_returning_work)" 3 || exit 1
put_in dprobes_target "dprobes_returning_work" 4 || exit 1
before=$(hits 1)
call work 500
check "two programs on the returns, one on the calls" equal "$(($(hits 1) - before)) $(hits 3) $(hits 4)" "500 500 500"
take_out 3
call work 500
check "one goes, the others stay" equal "$(($(hits 1) - before)) $(hits 4)" "1000 1000"
take_out 4
take_out 1

# What programs write.
before=$(parameter returned_sum)
put_in dprobes_target "return(dprobes_returning_work)" 5 'push 7; pop r, rax; abort' || exit 1
call work 100
check "a result is changed" equal "$(($(parameter returned_sum) - before))" 700
take_out 5
before=$(parameter returned_sum)
call work 3
check "and afterwards it is not" equal "$(($(parameter returned_sum) - before))" 6

# rip is where the call has returned to, rsp what the caller has then; the stack is that of the caller.
put_in dprobes_target "return(dprobes_returning_sleep)" 6 '
        push    5
        log     kstack
        exit' || exit 1
put_in kernel msleep 7 '
        push    8
        log     kstack
        exit' || exit 1
call sleep 1
dprobes log --json >/tmp/logged
check "the caller is where it has returned to" grep -q '"kernel_stack","frames":\[{"address":"[^"]*","symbol":"returning_write+.*vfs_write' /tmp/logged
check "a stack trace in a function that is followed has its callers" \
    grep -q 'msleep.*dprobes_returning_sleep+[^}]*},{[^}]*returning_write+.*vfs_write' /tmp/logged
take_out 6
take_out 7 kernel

# The first instruction faults.
put_in dprobes_target "return(dprobes_returning_load)" 8 || exit 1
before=$(parameter returned_sum)
call fault 200
check "a call whose first instruction is repeated, or fixed up, returns once" equal "$(fields 8 hits missed unfollowed)" "400 0 0"
check "with its result" equal "$(($(parameter returned_sum) - before))" 200
take_out 8

# Beside the function graph tracer, which replaces return addresses as well, and a kretprobe: whoever comes first.
tracing=/sys/kernel/tracing
graph() {
    if [ "$1" = 0 ]; then
        echo nop >$tracing/current_tracer && echo >$tracing/set_ftrace_filter
    else
        echo "dprobes_returning_work dprobes_returning_nested" >$tracing/set_ftrace_filter && echo function_graph >$tracing/current_tracer
    fi
}
# traced FUNCTION: how many of its calls the tracer shows.
traced() { grep -c "$1.*()" $tracing/trace; }
both_in() {
    put_in dprobes_target "return(dprobes_returning_work)" 25 && put_in dprobes_target "return(dprobes_returning_nested)" 26
}
both_out() { take_out 25 && take_out 26; }
# everybody_sees WHEN: 200 calls, and one 20 deep.
everybody_sees() {
    graph_hits="$(hits 25) $(hits 26)" graph_kretprobes=$(parameter kretprobes) graph_sum=$(parameter returned_sum)
    echo >$tracing/trace
    call work 200
    call nested 20
    # shellcheck disable=SC2086
    set -- "$1" $graph_hits
    check "$1: the probes see all calls" equal "$(($(hits 25) - $2)) $(($(hits 26) - $3))" "200 20"
    check "$1: the tracer does" equal "$(traced dprobes_returning_work) $(traced dprobes_returning_nested)" "200 20"
    check "$1: the results are right" equal "$(($(parameter returned_sum) - graph_sum))" $((200 * 201 / 2 + 20))
}
graph 1 && both_in
everybody_sees "behind the function graph tracer"
graph 0 && both_out && both_in && graph 1
everybody_sees "in front of it"
call kretprobe 1
everybody_sees "with a kretprobe"
check "which sees them too" equal "$(($(parameter kretprobes) - graph_kretprobes))" 220
graph 0
graph_kretprobes=$(parameter kretprobes) before=$(hits 26)
call nested 20
check "without the tracer both go on" equal "$(($(hits 26) - before)) $(($(parameter kretprobes) - graph_kretprobes))" "20 20"
call kretprobe 0
check "none was missed, and each was followed" equal "$(fields 25 missed unfollowed) $(fields 26 missed unfollowed)" "0 0 0 0"
both_out

# In NMIs, which interrupt the other calls anywhere: whatever they interrupt, each is in one of the counts, and none is followed.
# nmis_count TRAP
nmis_count() {
    put_in dprobes_target "return(dprobes_returning_in_nmi)" 27 || return 1
    put_in dprobes_target "dprobes_returning_in_nmi" 28 || return 1
    put_in dprobes_target "return(dprobes_returning_work)" 29 || return 1
    nmis=$(parameter nmis)
    taskset 1 sh -c 'for i in 1 2; do echo "work 2000" >/dev/dprobes_returning; done' &
    taskset 2 sh -c 'echo "nmi 150" >/dev/dprobes_returning'
    wait
    nmis=$(($(parameter nmis) - nmis))
    check "$1: NMIs have come" test "$nmis" -gt 100
    # shellcheck disable=SC2046
    set -- "$1" $(fields 27 hits missed unfollowed) $(fields 28 hits missed)
    check "$1: calls in them are counted, and not followed" equal "$2 $(($3 + $4))" "0 $nmis"
    check "$1: what is hit in a hit is missed, and the rest is not" equal "$(($5 + $6)) $6" "$nmis $3"
    check "$1: all others are followed" equal "$(fields 29 hits missed unfollowed)" "4000 0 0"
    take_out 27 && take_out 28 && take_out 29
}
nmis_count notifier

# Limits.
program dprobes_target "return(dprobes_returning_work)" 9 | sed 's/^minor.*/&; pass_count = 10; max_hits = 20/' >p.rpn
dprobes insert p.rpn >/dev/null || exit 1
call work 100
sleep 0.2
check "limits are exact" equal "$(fields 9 skipped hits state)" "10 20 exhausted"
take_out 9

# The kernel's own, and what is refused.
put_in kernel "return(do_sys_openat2)" 10 || exit 1
before=$(hits 10)
for _ in 1 2 3 4 5; do cat /etc/passwd /proc/version >/dev/null 2>&1; done
check "a function of the kernel" test "$(hits 10)" -gt "$before"
take_out 10 kernel
refuse() { program kernel "$1" 11 >p.rpn; refused "$2" dprobes insert p.rpn; }
check "one that never returns is refused" refuse "return(do_exit)" "never returns"
check "one that returns for another task" refuse "return(__switch_to)" "another task"
start=0x$(sed -n 's/^\([0-9a-f]*\) [tT] do_sys_openat2$/\1/p' /proc/kallsyms)
program kernel "return($(printf '0x%x' $((start + 5))))" 11 | sed 's/^offset/address/' >p.rpn
check "a place that is not the beginning" refused "not where a function begins" dprobes insert p.rpn
check "one that is returned to, not called" refuse "return(return_to_handler)" ""
check "what no probe may be on" refuse "return(do_int3)" "is excluded"

# Calls that sleep while things go away.
put_in dprobes_target "return(dprobes_returning_sleep)" 12 || exit 1
for _ in 1 2 3 4; do call sleep 800 & done
sleep 0.2
take_out 12
check "a program goes while calls are under way" equal "$(dprobes query --json | wc -l)" 0
put_in dprobes_target "return(dprobes_returning_sleep)" 12 || exit 1
call sleep 1
check "and comes back for others" equal "$(hits 12)" 1
take_out 12

# Too many calls at a time.
may_note() { echo "$1" >/sys/module/dprobes/parameters/calls && echo "$2" >/sys/module/dprobes/parameters/calls_max; }
may_note 4 4
put_in dprobes_target "return(dprobes_returning_nested)" 13 || exit 1
call nested 10
check "calls for which there is no room are counted" equal "$(fields 13 hits unfollowed)" "4 6"
take_out 13
may_note 16 1000
put_in dprobes_target "return(dprobes_returning_sleep)" 14 || exit 1
put_in dprobes_target "return(dprobes_returning_nested)" 15 || exit 1
for _ in 1 2 3 4 5 6 7 8 9 10; do
    call sleep 1500 &
    usleep 10000
done
sleep 0.1
call nested 20
check "room is made before it is used up" equal "$(fields 15 hits unfollowed) $(fields 14 unfollowed)" "20 0 0"
wait
check "all have returned" equal "$(hits 14)" 10

# The target goes, and comes again.
check "the probed module goes" rmmod dprobes_target
check "and its programs wait" equal "$(fields 14 state)" "waiting"
insmod /dprobes_target.ko || exit 1
call nested 10
check "and fire when it is back" equal "$(hits 15)" 30
dprobes remove --all >/dev/null
check "no memory is kept" equal "$(cat /sys/module/dprobes/parameters/memory_used)" 0
put_in dprobes_target "return(dprobes_returning_sleep)" 16 || exit 1
for _ in 1 2 3 4; do call sleep 2500 & done
sleep 0.2
check "the module goes while calls are under way" rmmod dprobes
wait
insmod /dprobes.ko trap=idt || exit 1
put_in dprobes_target "return(dprobes_returning_work)" 17 || exit 1
call work 100
check "through a gate of the module's own" equal "$(fields 17 hits missed unfollowed)" "100 0 0"
take_out 17
nmis_count gate
check "those that slept have returned all the same" sh -c "rmmod dprobes_target && rmmod dprobes"
check "the kernel has complained of nothing" equal "$(dmesg | grep -c 'BUG:\|WARNING:\|rethook:')" 0
