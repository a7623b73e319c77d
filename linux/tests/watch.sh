# shellcheck shell=sh
# Watchpoints: by requests of the tests' own, and the story of docs/tutorial.md as the command shows it.

DPROBES_MODULES=/ linux-tests --color never watch:: || exit 1

# The story: a counter is stored to all the time, and now and then it is wrong.
insmod /dprobes.ko || exit 1
insmod /dprobes_watched.ko || exit 1
cd /examples || exit 1
insert_it() {
    dprobes insert wrong-value.rpn -D MODULE='"dprobes_watched"' -D KIND=kmod -D VARIABLE=dprobes_watched_word -D WRONG=4242
}
value() { dprobes query --json | sed -n "s/.*\"$1\":\"*\([^,\"]*\).*/\1/p"; }
check "a watchpoint is inserted" insert_it
check "it is shown" sh -c 'dprobes query | grep -q "write 4"'
echo store 4000 >/dev/dprobes_watched
check "nothing is wrong yet" equal "$(dprobes log)" ""
check "every store was looked at" equal "$(value hits)" 4000
taskset 2 sh -c 'echo "break 4242" >/dev/dprobes_watched'
echo "break 4242" >/dev/dprobes_watched
found=$(dprobes log --json | grep '"type":"record"')
check "the first wrong value is logged, and no other" equal "$(echo "$found" | grep -c .)" 1
check "with the value" equal "$(echo "$found" | grep -o '"0x1092"')" '"0x1092"'
check "by the process that stored it" equal "$(echo "$found" | grep -o '"text":"sh"')" '"text":"sh"'
check "at the function that does it, and how it came there" \
    test "$(echo "$found" | grep -c 'dprobes_watched_break+.*watched_write+.*vfs_write')" = 1
check "the program has removed itself" equal "$(value state)" "removed itself"
check "the command removes it" dprobes remove 14 --module dprobes_watched
check "its register is free" insert_it
dprobes remove --all >/dev/null

# Suspended to idle: what was armed is armed, on the way down and up as well. QEMU (7.2) has nothing that wakes a machine that idles, so the kernel
# goes all the way down but for that, and comes up again after a second.
cat >/tmp/suspended.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 20

offset  = freeze_processes
minor   = 1
        exit

offset  = thaw_processes
minor   = 2
        exit
END
sed -e 's/MODULE/"dprobes_watched"/' >/tmp/watching.rpn <<'END'
name    = MODULE
modtype = kmod
major   = 21

offset  = dprobes_watched_word
minor   = 1
watch   = write 8
        exit
END
check "probes on the way down and up are inserted" dprobes insert /tmp/suspended.rpn
check "and a watchpoint" dprobes insert /tmp/watching.rpn
echo store 1000 >/dev/dprobes_watched
echo 1 >/sys/module/suspend/parameters/pm_test_delay
check "the machine is suspended, and comes back" \
    sh -c 'echo platform >/sys/power/pm_test && echo freeze >/sys/power/state'
for cpu in 1 2; do taskset $cpu sh -c 'echo store 1000 >/dev/dprobes_watched'; done
hits() { dprobes query --json | sed -n "s/.*\"major\":$1,\"minor\":$2,.*\"state\":\"armed\".*\"hits\":\([0-9]*\).*/\1/p"; }
check "both were hit" equal "$(hits 20 1) $(hits 20 2)" "1 1"
check "every store is seen, on both CPUs" equal "$(hits 21 1)" 3000
dprobes remove --all >/dev/null
check "the modules unload" sh -c "rmmod dprobes_watched && rmmod dprobes"
