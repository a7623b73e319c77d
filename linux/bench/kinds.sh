# shellcheck shell=sh disable=SC2034,SC2154 # variables are metering.sh's too
# What a hit costs on Linux, of each kind of probe, in instructions and traps, beside what else the kernel has for the same place. It begins with
# metering.sh. What a result was is PLACE|WHO|WORK|HOW. WORK is what is done at the hit: it "counts", it "logs" a word, or it is "empty", a handler that
# returns.

calls=200
rounds=10
tracing=/sys/kernel/tracing

die() {
    echo "$*" >&2
    exit 1
}
# field NAME: of the only probe.
field() { dprobes query --json | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

# at PLACE: each place has a call that passes it once, a function, and for us a module and its type.
at() {
    place=$1
    offset=0 watch='' name=kernel type=kernel function=ksys_read metered='' returns=
    case $place in
    kernel-copied) offset=$middle ;;
    kernel-emulated) offset=$call ;;
    module-*)
        name=dprobes_target type=kmod function=dprobes_returning_work
        metered="--write /dev/dprobes_returning work 1"
        ;;
    user-*)
        name=/bin/meter type=user function=metered
        metered=--function
        ;;
    watchpoint)
        name=dprobes_watched type=kmod function=dprobes_watched_word watch='watch = write 8'
        metered="--write /dev/dprobes_watched store 1"
        ;;
    esac
    case $place in
    module-copied) offset=$behind ;;
    user-stepped) offset=1 ;;
    *-return) returns=1 ;;
    esac
}

bare() {
    at "$1"
    result 0 "$1|bare||"
}

# program WORK: at the current place.
program() {
    where="$function + $offset"
    [ -z "$returns" ] || where="return($function)"
    register=rdi
    [ -z "$returns" ] || register=rax
    echo "name = \"$name\"; modtype = $type; major = 1; $([ "$1" = logs ] || echo "vars = count")
offset = $where; minor = 1; $watch"
    case $1 in
    counts) echo "inc lv, count; abort" ;;
    logs) echo "push r, $register; log 1; exit" ;;
    esac
}

# ours PLACE HOW: with a program that counts, and one that logs. Each call is a hit, and each that is logged a record.
ours() {
    at "$1"
    for work in counts logs; do
        program $work >/tmp/p.rpn
        dprobes insert /tmp/p.rpn >/dev/null || die "$1: not inserted"
        result "$offset" "$1|dprobes|$work|$2"
        hits=$(field hits)
        # Others read too; the rest is called by nobody else.
        expected=$((calls * rounds + marked))
        most=$expected
        [ "$function" != ksys_read ] || most=$hits
        [ "$hits" -ge $expected ] || die "$1: $hits hits"
        [ "$hits" -le "$most" ] || die "$1: $hits hits"
        [ "$(field missed)" = 0 ] || die "$1: hits were missed"
        dprobes remove 1 --module $name >/dev/null || die "$1: not removed"
        if [ $work = logs ]; then
            dprobes log --json >/tmp/log
            grep -q '"type":"lost"' /tmp/log && die "$1: records were lost"
            [ "$(grep -c '"type":"record"' /tmp/log)" -ge "$hits" ] || die "$1: too few records"
        fi
    done
}

# theirs PLACE WHO HOW MODULE [PARAMETER...]: with an empty handler, that a module of its own has.
theirs() {
    at "$1"
    who=$2 how=$3 module=$4
    shift 4
    insmod "/$module.ko" "$@" || die "$place: $module does not load"
    result "$offset" "$place|$who|empty|$how"
    rmmod "$module"
}

# event PLACE WHO KIND DEFINITION HOW: one of the kernel's own, which logs the same word.
event() {
    at "$1"
    echo "$4" >"$tracing/$3_events" || die "$1: no event"
    echo 1 >"$tracing/events/$3s/event/enable"
    [ "$5" != jump ] || { sleep 1 && listed "$function" OPTIMIZED; } || die "$1: no jump"
    result "$offset" "$1|$2|logs|$5"
    seen=$(awk '{ print $(NF - 1) }' "$tracing/$3_profile")
    [ "$3" = kprobe ] || seen=$(awk '{ print $NF }' "$tracing/$3_profile")
    [ "$seen" -ge $((calls * rounds + marked)) ] || die "$1: the event was seen $seen times"
    echo 0 >"$tracing/events/$3s/event/enable"
    echo >"$tracing/$3_events"
    echo >$tracing/trace
}

insmod /dprobes_target.ko && insmod /dprobes_watched.ko && insmod /dprobes.ko || exit 1
echo 16384 >$tracing/buffer_size_kb
find_middle
find_call
behind=5
until kprobe dprobes_returning_work $behind; do
    behind=$((behind + 1))
    [ $behind -lt 80 ] || die "no place in dprobes_returning_work"
done
rmmod empty_kprobe
rmmod dprobes

traps="kernel-entry kernel-copied kernel-emulated module-entry module-copied kernel-return module-return user-emulated user-stepped user-return"
for place in $traps watchpoint; do bare "$place"; done
for trap in notifier idt; do
    insmod /dprobes.ko trap="$trap" || exit 1
    for place in $traps; do ours "$place" "$trap"; done
    [ "$trap" != notifier ] || ours watchpoint "$trap"
    if [ "$trap" = idt ]; then
        # Where the function is in the file.
        at user-emulated
        program counts >/tmp/p.rpn
        dprobes insert /tmp/p.rpn >/dev/null && file_offset=$(field address) || exit 1
        dprobes remove 1 --module $name >/dev/null
    fi
    rmmod dprobes
done

for place in kernel-entry module-entry; do
    at "$place"
    theirs "$place" kprobe ftrace empty_kprobe symbol="$function" offset=0
    event "$place" "kprobe event" kprobe "p:event $function word=%di" ftrace
done
optimised 0
for place in kernel-copied kernel-emulated module-copied; do
    at "$place"
    theirs "$place" kprobe int3 empty_kprobe symbol="$function" offset="$offset"
    event "$place" "kprobe event" kprobe "p:event $function+$offset word=%di" int3
done
optimised 1
at kernel-copied
kprobe "$function" "$offset" && sleep 1
listed "$function" OPTIMIZED || die "no jump"
result "$offset" "kernel-copied|kprobe|empty|jump"
rmmod empty_kprobe
event kernel-copied "kprobe event" kprobe "p:event $function+$offset word=%di" jump
for place in kernel-return module-return; do
    at "$place"
    theirs "$place" kretprobe ftrace empty_kretprobe symbol="$function"
    # shellcheck disable=SC2016 # it is the event's word
    event "$place" "kretprobe event" kprobe "r:event $function"' word=$retval' ftrace
done
for place in user-emulated user-stepped; do
    at "$place"
    where=$((file_offset + offset))
    theirs "$place" uprobe "" empty_uprobe file=/bin/meter offset="$where"
    event "$place" "uprobe event" uprobe "p:event /bin/meter:$(printf %#x $where) word=%di" ""
done
theirs user-return uretprobe "" empty_uprobe file=/bin/meter offset=$((file_offset)) returns=1
# shellcheck disable=SC2016 # it is the event's word
event user-return "uretprobe event" uprobe "r:event /bin/meter:$(printf %#x $((file_offset)))"' word=$retval' ""
theirs watchpoint "hardware breakpoint" "" empty_watch address="$(cat /sys/module/dprobes_watched/parameters/word)"
