# shellcheck shell=sh
# Records survive a panic: the machine is reset with its memory as it is, and they are found again.
# Kernel command line: memmap=256K$0x10000000
# The kernel panics with: sysrq triggered crash
# The machine is reset then.

load() { insmod /dprobes.ko persist_address=0x10000000 persist_size=262144; }
load || exit 1
if [ ! -e /dev/dprobes_previous ]; then
    # The kernel that panics.
    cat >/tmp/p.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 7
vars    = nth
offset  = __x64_sys_chdir
minor   = 1
        inc     lv, nth
        push    lv, nth
        log     1
        exit
END
    cat >/tmp/loop <<'END'
times=2000
while [ "$times" -gt 0 ]; do
    cd /
    times=$((times - 1))
done
END
    dprobes insert /tmp/p.rpn >/dev/null && dprobes log --keep newest || exit 1
    for cpu in 1 2; do
        # More than fit into what a CPU may keep there.
        taskset $cpu sh /tmp/loop
    done
    echo c >/proc/sysrq-trigger
fi
dprobes log --previous --json >/tmp/found
check "records of the kernel that has panicked are found" test "$(grep -c '"type":"record"' /tmp/found)" -gt 2000
for cpu in 0 1; do
    numbers=$(grep "\"type\":\"record\".*\"cpu\":$cpu," /tmp/found | sed 's/.*"words":\["0x\(.*\)"\].*/\1/')
    first=$(printf '%d' "0x$(echo "$numbers" | head -n 1)")
    last=$(printf '%d' "0x$(echo "$numbers" | tail -n 1)")
    lost=$(sed -n "s/.*\"lost\",\"cpu\":$cpu,\"count\":\([0-9]*\).*/\1/p" /tmp/found)
    check "the last one of CPU $cpu is" equal "$last" $((2000 * (cpu + 1)))
    check "all are there that were recorded since the first that is" equal $((last - first + 1)) "$(echo "$numbers" | wc -l)"
    check "those before it are counted" equal "$lost" $((2000 - (last - first + 1)))
done
dprobes log --previous --format ctf --output /tmp/trace
check "they can be read again, and written as a trace" test -s /tmp/trace/cpu_1
check "nothing of them is in the rings of this kernel" equal "$(dprobes log)" ""
rmmod dprobes
check "the module is loaded once more" load
check "they are found once" refused "no records of a kernel that has panicked" dprobes log --previous
check "and unloads" rmmod dprobes
# What was found is there still, but for the word by which it is known: with it, it is found again; with another byte, it is not believed.
known() { devmem 0x10000000 64 0x1b5345424f525044; }
known
check "the module finds what is there" load
check "it is what it was" sh -c "dprobes log --previous --json | cmp - /tmp/found"
rmmod dprobes
known
devmem 0x10000040 8 $(($(devmem 0x10000040 8) ^ 1))
dmesg -c >/dev/null
check "the module loads beside what is damaged" load
check "which is not believed" refused "no records of a kernel that has panicked" dprobes log --previous
check "and said" sh -c "dmesg | grep -q 'have been there, and are damaged'"
rmmod dprobes
# Longer than the memory.
known
devmem 0x10000010 64 0x7fffffffffffffff
check "nor is a length that cannot be" load
check "nothing is read" refused "no records of a kernel that has panicked" dprobes log --previous
check "and the module unloads again" rmmod dprobes
