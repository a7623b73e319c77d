# shellcheck shell=sh
# Exit facilities: what a program triggers by ending with `exit_to`.

# program FACILITY: one that asks for it whenever the machine's name is set.
program() {
    cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 7
offset  = __x64_sys_sethostname
minor   = 1
        push    0x1234
        log     1
        exit_to $1
END
}
count() { dprobes query --json | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
name_it() { for name in "$@"; do hostname "$name"; done; }

insmod /dprobes.ko || exit 1

program debugger
check "a debugger that is not there is refused" refused "\`exit_to debugger\`, which is not there" dprobes insert /tmp/p.rpn
program core
check "so are core dumps" refused "\`exit_to core\`, which is not there" dprobes insert /tmp/p.rpn
program dump
check "a dump that is not permitted is refused" refused "load the module with \`dump=1\`" dprobes insert /tmp/p.rpn
check "nothing was inserted" equal "$(dprobes query --json)" ""

# The kernel's own tracing.
trace=/sys/kernel/tracing
event=$trace/events/dprobes/record
fields=$(grep 'field:' $event/format | grep -v common_ | sed 's/.*field:\([^;]*\);.*/\1/; s/.* //; s/\[.*//' | tr '\n' ' ')
check "the event tells its fields" equal "$fields" "major minor length address elements "
program trace
check "a program that traces is inserted" dprobes insert /tmp/p.rpn
name_it a b
check "without a listener it is unavailable, and counted" equal "$(count hits) $(count unavailable)" "2 2"
echo 1 >$event/enable
name_it c d e
taskset 2 hostname f
check "with one it is not" equal "$(count hits) $(count unavailable)" "6 2"
found=$(grep 'record: probe=7.1 address=__x64_sys_sethostname' $trace/trace)
check "each hit is an event" equal "$(echo "$found" | grep -c .)" 4
check "with the record's elements" equal "$(echo "$found" | grep -c 'length=11 elements=07 01 00 34 12 00 00 00 00 00 00$')" 4
check "and the process" equal "$(echo "$found" | grep -c ' hostname-')" 4
echo >$trace/trace
echo 'major != 7' >$event/filter
name_it g
check "tracing filters it by its fields" equal "$(grep -c 'record: probe' $trace/trace)" 0
echo 0 >$event/enable
check "the records are in the log too" equal "$(dprobes log --json | grep -c '"type":"record"')" 7
dprobes remove 7 >/dev/null

# Another module's facility. Its module may come and go while programs ask for it.
program 16
check "a program may ask for what comes later" dprobes insert /tmp/p.rpn
name_it a
check "as yet it is unavailable" equal "$(count hits) $(count unavailable)" "1 1"
check "the registry loads" insmod /gkhi.ko
check "and the module with the facility" insmod /sample_facility.ko
name_it b c
taskset 2 hostname d
check "it has taken them" equal "$(cut -d+ -f1 /sys/module/sample_facility/parameters/last)" "3 requests, the last at __x64_sys_sethostname"
check "none of them was unavailable" equal "$(count hits) $(count unavailable)" "4 1"
check "a hook with an exit keeps nobody's facility from the kernel" sh -c "
    dprobes remove 7 && sed -i 's/exit_to 16/exit_to trace/' /tmp/p.rpn && dprobes insert /tmp/p.rpn"
echo 0 >$event/filter
echo 1 >$event/enable
name_it e
check "a trace passes it" equal "$(count unavailable)" 0
echo 0 >$event/enable
dprobes remove 7 >/dev/null
program 16
dprobes insert /tmp/p.rpn >/dev/null
check "the facility goes while a program asks for it" rmmod sample_facility
name_it f
check "it is unavailable again" equal "$(count hits) $(count unavailable)" "1 1"
check "the engine goes before the registry" rmmod dprobes
check "and comes again" insmod /dprobes.ko
check "the registry goes before the engine" rmmod gkhi
check "the module unloads" rmmod dprobes
