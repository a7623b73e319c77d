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
check "the modules unload" sh -c "rmmod dprobes_watched && rmmod dprobes"
