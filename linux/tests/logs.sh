# shellcheck shell=sh
# Where records go beside the ring, and the ring as a flight recorder. (The mapped ring is in requests.)
# A cable from the third serial port to the fourth.

# program ENDING [PLACE]: logs a string, a word and memory whenever the machine's name is set, or PLACE is called, and ends so.
program() {
    cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 7
offset  = ${2-__x64_sys_sethostname}
minor   = 1
        push    2
        push    r, rsp
        log     mrf
        log     name
        push    0x1234
        log     1
        $1
END
}
count() { dprobes query --json | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
name_it() {
    name_times=$1
    while [ "$name_times" -gt 0 ]; do
        hostname "n$name_times"
        name_times=$((name_times - 1))
    done
}
# change_folder TIMES: on one CPU, in one process.
cat >/tmp/loop <<'END'
times=$1
while [ "$times" -gt 0 ]; do
    cd /
    times=$((times - 1))
done
END
change_folder() { taskset 1 sh /tmp/loop "$1"; }
records() { dprobes log --json | grep -c '"type":"record"'; }

insmod /dprobes.ko klog_rate=5 || exit 1
program exit

# The kernel log.
check "a serial port that the module has not is refused" refused "load the module with \`serial_port=0x3f8\`" dprobes insert /tmp/p.rpn --log-to serial
check "a program logs to the kernel log alone" dprobes insert /tmp/p.rpn --log-to klog
dmesg -c >/dev/null
taskset 1 hostname a
usleep 300000
check "a record is a line there" sh -c "dmesg | grep -q 'dprobes: 7.1 cpu 0 [0-9.]* [0-9]* hostname.* \[[0-9a-f]*\] \"hostname\" 0x1234\$' || { dmesg; false; }"
check "and not in the ring" equal "$(dprobes log)" ""
check "with nothing refused" equal "$(count hits) $(count undelivered)" "1 0"
dprobes remove 7 >/dev/null
program exit __x64_sys_chdir
dprobes insert /tmp/p.rpn --log-to klog >/dev/null
change_folder 300
usleep 300000
printed=$(dmesg | grep -c 'dprobes: 7.1 cpu')
undelivered=$(count undelivered)
check "what is more than the rate permits is counted, and nothing else" equal $((printed - 1 + undelivered)) 300
check "some of it is" test "$undelivered" -gt 100
dprobes remove 7 >/dev/null

# The trace event.
program exit
trace=/sys/kernel/tracing
check "a program logs to the ring and the trace" dprobes insert /tmp/p.rpn --log-to ring,trace
name_it 2
check "without a listener records are undelivered" equal "$(count undelivered)" 2
echo 1 >$trace/events/dprobes/record/enable
name_it 3
check "with one they are not" equal "$(count undelivered)" 2
found=$(sed -n 's/.*record: probe=7.1 address=__x64_sys_sethostname.*length=/length=/p' $trace/trace)
check "each record is an event" equal "$(echo "$found" | grep -c .)" 3
# The kernel prints no space behind every sixteenth byte.
check "with its elements" equal "$(echo "$found" | tr -d ' ' | sed 's/=000200..../=000200/' | sort -u)" \
    "length=27elements=000200010800686f73746e616d650701003412000000000000"
echo 0 >$trace/events/dprobes/record/enable
check "all are in the ring" equal "$(records)" 5
dprobes remove 7 >/dev/null

# The flight recorder. A record has 96 bytes, a ring 262,144.
program exit __x64_sys_chdir
dprobes insert /tmp/p.rpn >/dev/null
check "the rings become flight recorders" dprobes log --keep newest
change_folder 3000
check "nothing is lost at the probe" equal "$(count hits) $(count lost)" "3000 0"
dprobes log --snapshot --json >/tmp/all
kept=$(grep -c '"type":"record"' /tmp/all)
lost=$(sed -n 's/.*"lost",.*"count":\([0-9]*\).*/\1/p' /tmp/all | awk '{ n += $1 } END { print n + 0 }')
check "what is there and what gave way is all there was" equal $((kept + lost)) 3000
check "as many are there as there is room for" equal "$kept" 2730
check "nothing is left" equal "$(dprobes log)" ""
change_folder 2
check "it records again" equal "$(records)" 2
dprobes remove 7 >/dev/null

# A probe says when.
program "exit_to snapshot"
dprobes insert /tmp/p.rpn >/dev/null
name_it 1
check "a program has asked for a snapshot" equal "$(count unavailable)" 0
name_it 4
check "after it nothing is recorded, and that is counted" equal "$(count hits) $(count lost)" "5 4"
check "a second one is unavailable until the first is read" equal "$(count unavailable)" 4
check "looking does not end it" equal "$(records)" 1
name_it 1
check "it is still frozen" equal "$(count lost)" 5
dprobes log --snapshot >/dev/null
name_it 1
check "reading the snapshot does" equal "$(count lost)" 5
check "the rings are as they were" dprobes log --keep oldest
dprobes log --snapshot >/dev/null
name_it 1
check "without a flight recorder a snapshot is unavailable" equal "$(count unavailable)" 6
dprobes remove --all
check "no kernel has panicked" refused "no records of a kernel that has panicked" dprobes log --previous
check "the module unloads" rmmod dprobes

# The serial port: what is written to the third arrives at the fourth.
check "a port that is not there is refused" refused "" insmod /dprobes.ko serial_port=0x268
check "so is a speed that it cannot have" refused "" insmod /dprobes.ko serial_port=0x3e8 serial_speed=100000
check "the module takes a serial port" insmod /dprobes.ko serial_port=0x3e8 serial_speed=115200
cat >/tmp/p.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 7
vars    = nth
offset  = __x64_sys_sethostname
minor   = 1
        inc     lv, nth
        push    lv, nth
        push    0x1000
        or
        log     name
        log     1
        exit
END
stty -F /dev/ttyS3 raw -echo 115200
cat /dev/ttyS3 >/tmp/arrived &
reader=$!
dprobes insert /tmp/p.rpn --log-to ring,serial >/dev/null
name_it 20
taskset 2 hostname other
check "records go there" equal "$(count hits) $(count undelivered) $(cat /sys/module/dprobes/parameters/serial_state)" "21 0 works"
for _ in $(seq 50); do
    [ "$(grep -c . /tmp/arrived)" -ge 21 ] && break
    usleep 100000
done
kill $reader
# plain: a line of either without what only one says: the value in decimal, and that it may come again.
plain() { tr -d '\r' | sed 's/^dprobes: //; s/ *([^)]*)//g' | tr -s ' ' | sed 's/ $//' | sort -t ' ' -k 4; }
plain </tmp/arrived >/tmp/arrived.plain
check "as many arrive as there were" equal "$(grep -c . /tmp/arrived.plain)" 21
check "each is what the ring has" equal "$(cat /tmp/arrived.plain)" "$(dprobes log | plain)"
dprobes remove --all
check "the module unloads again" rmmod dprobes
# A port that never takes a character: page registers of the DMA controller's, of which the one in the place of the line status is 0.
check "a dead port is taken for one" insmod /dprobes.ko serial_port=0x82
dprobes insert /tmp/p.rpn --log-to ring,serial >/dev/null
name_it 3
check "and is given up by the first record; each is counted" equal "$(count hits) $(count undelivered) $(cat /sys/module/dprobes/parameters/serial_state)" "3 3 dead"
check "the ring has them" equal "$(records)" 3
dprobes remove --all
check "nothing more can go there" refused "was given up" dprobes insert /tmp/p.rpn --log-to serial
check "the module unloads with it" rmmod dprobes

# Its own memory must not be the kernel's.
check "memory of the kernel is refused for records of a panic" refused "" insmod /dprobes.ko persist_address=0x1000000 persist_size=65536
