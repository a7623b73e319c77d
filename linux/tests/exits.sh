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
check "so are core dumps without a program that takes them" refused "echo /usr/bin/dprobes >/sys/module/dprobes/parameters/core_helper" dprobes insert /tmp/p.rpn
check "a program that is not there takes none" refused "" sh -c "echo /bin/nothing >/sys/module/dprobes/parameters/core_helper"
check "nor does one that cannot be run" refused "" sh -c "echo /tmp/p.rpn >/sys/module/dprobes/parameters/core_helper"
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

# Core dumps. `victim dumped` says what has failed: that nothing has is the same output with and without dumps.
parameters=/sys/module/dprobes/parameters
helper() { echo "$1" >$parameters/core_helper; }
# script COMMANDS: a helper that is a shell script.
script() {
    printf '#!/bin/sh\n%s\n' "$1" >/tmp/helper
    chmod +x /tmp/helper
    helper /tmp/helper
}
# user PLACE RDI...: dumps at the place when rdi has one of these.
user() {
    user_place=$1
    shift
    printf 'name = "/bin/victim-fixed"\nmodtype = user\nmajor = 8\noffset = %s\nminor = 1\n' "$user_place"
    for rdi in "$@"; do
        printf 'push r, rdi\npush %s\nsub\njz take\n' "$rdi"
    done
    printf 'abort\ntake: exit_to core\n'
}
taken() { echo "$(cat $parameters/cores_taken) $(cat $parameters/cores_failed) $(count unavailable)"; }
# settled N: as many have been taken or have failed.
settled() {
    for _ in $(seq 100); do
        [ $(($(cat $parameters/cores_taken) + $(cat $parameters/cores_failed))) -ge "$1" ] && return
        usleep 50000
    done
    return 1
}
# note REGISTER: what the first thread has in it, of the notes in /tmp/notes.
note() { sed -n "/^$1:\$/{n;p;q}" /tmp/notes; }
# memory CORE ADDRESS LENGTH: by the program headers that eu-readelf shows.
memory() {
    eu-readelf -l "$1" | while read -r type offset start _ size _; do
        if [ "$type" = LOAD ] && [ $(($2)) -ge $((start)) ] && [ $(($2)) -lt $((start + size)) ]; then
            dd if="$1" bs=1 skip=$((offset + $2 - start)) count="$3" 2>/dev/null
            break
        fi
    done
}
symbol() { eu-readelf -s /bin/victim-fixed | sed -n "s/.*: \([0-9a-f]\{16\}\) .* $1\$/0x\1/p"; }

echo 1000 >$parameters/core_rate
echo /tmp/cores >$parameters/core_directory
helper /bin/dprobes
unprobed=$(victim-fixed dumped 300)
unprobed_short=$(victim-fixed dumped 150)
user work 100 200 >/tmp/p.rpn
check "a program that takes core dumps is inserted" dprobes insert /tmp/p.rpn
victim-fixed dumped 300 >/tmp/said &
victim=$!
wait $victim
check "a process that was dumped twice goes on as if it had not been" equal "$(cat /tmp/said)" "$unprobed"
check "both dumps were taken" equal "$(count hits) $(taken)" "300 2 0 0"
check "nobody else may read them" equal "$(stat -c '%a %u' /tmp/cores/core.$victim.1 /tmp/cores/core.$victim.2 | sort -u)" "600 0"
for number in 1 2; do
    core=/tmp/cores/core.$victim.$number
    eu-readelf -n "$core" | tr -s ' ' '\n' >/tmp/notes
    check "dump $number is one of three threads" equal "$(grep -c PRSTATUS /tmp/notes)" 3
    check "the first of which is at the probe" equal "$(printf '%d' "$(note rip)")" "$(printf '%d' "$(symbol work)")"
    check "with its registers" equal "$(note rdi) $(note rsi) $(note r12)" "${number}00 1 1302123111085380114"
    check "and its vector registers" equal "$(note xmm6)" 0x00000000000000001212121212121212
    check "its memory" equal "$(memory $core "$(symbol marker)" 24)" "the memory of the victim"
    check "at that moment" equal "$(memory $core "$(symbol executed)" 8 | od -An -t d8 | tr -d ' ')" "${number}00"
done
rm -rf /tmp/cores

# What is not there, or does not come to its end.
cp /bin/dprobes /tmp/gone
helper /tmp/gone
rm /tmp/gone
check "without its helper a process goes on" equal "$(victim-fixed dumped 150)" "$unprobed_short"
settled 3
check "and that is counted" equal "$(taken)" "2 1 0"
check "and said" sh -c "dmesg | grep -q 'no core dump of process [0-9]* for probe 8.1: core_helper cannot be run (-2)'"
helper /bin/dprobes
check "one that is traced goes on" equal "$(victim-fixed traced 150)" "traced executed 150 sum 33675"
check "and is counted" equal "$(taken)" "2 1 1"
check "so does one of whose threads another is traced" equal "$(victim-fixed half-traced 150)" "$unprobed_short"
settled 4
check "which is counted, and said" equal "$(taken) $(dmesg | grep -c 'core dump of process [0-9]*: error: process [0-9]* traces thread [0-9]* already')" "2 2 1 1"
echo 1 >$parameters/core_rate
check "what is more than the rate permits is counted" equal "$(victim-fixed dumped 150) $(taken)" "$unprobed_short 2 2 2"
echo 1000 >$parameters/core_rate
dprobes remove 8 --module /bin/victim-fixed >/dev/null
dprobes insert /tmp/p.rpn >/dev/null
# shellcheck disable=SC2016 # The helper's own words.
script 'exec sleep 100'
victim-fixed dumped 300 >/tmp/said &
victim=$!
usleep 300000
check "a process that waits can be killed" sh -c "kill -9 $victim; for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e /proc/$victim ] || exit 0; usleep 100000; done; exit 1"
settled 5
check "which is counted" equal "$(taken)" "2 3 0"
# shellcheck disable=SC2016
script 'for process; do :; done; kill -9 $process; exec dprobes "$@"'
victim-fixed dumped 300 >/tmp/said
settled 6
check "so is one that is killed while it is dumped" equal "$(taken) $(ls -A /tmp/cores 2>/dev/null)" "2 4 0 "
script 'exec sleep 100'
echo 1 >$parameters/core_seconds
check "a process waits no longer than is permitted" equal "$(victim-fixed dumped 150)" "$unprobed_short"
settled 7
check "and that is counted, too" equal "$(taken)" "2 5 0"
victim-fixed dumped 150 >/tmp/said &
usleep 300000
dprobes remove 8 --module /bin/victim-fixed >/dev/null
check "the module unloads while a process waits for its dump" rmmod dprobes
wait
check "which goes on" equal "$(cat /tmp/said)" "$unprobed_short"
insmod /dprobes.ko core_helper=/bin/dprobes core_directory=/tmp/cores

# In the kernel: the process is dumped when it is back in user mode. A kernel thread is none.
program core
check "a program for the kernel takes core dumps" dprobes insert /tmp/p.rpn
hostname core-of-this
check "of the process that has called it" equal "$(taken) $(eu-readelf -n /tmp/cores/core.*.1 | grep -o 'fname: hostname')" "1 0 0 fname: hostname"
dprobes remove 7 >/dev/null
sed -i 's/__x64_sys_sethostname/rcu_gp_cleanup/' /tmp/p.rpn
dprobes insert /tmp/p.rpn
usleep 500000
dprobes query --json >/tmp/counts
check "a kernel thread is hit" test "$(sed -n 's/.*"hits":\([0-9]*\).*/\1/p' /tmp/counts)" -gt 0
check "and has none" equal "$(sed 's/.*"unavailable":\([0-9]*\).*/\1/' /tmp/counts)" "$(sed 's/.*"hits":\([0-9]*\).*/\1/' /tmp/counts)"
dprobes remove 7 >/dev/null
rm -rf /tmp/cores

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
