# shellcheck shell=sh
# The module's own breakpoint gate, trap=idt: hits and records as through the notifier, and the gate's neighbours.

for tests in a_programs_breakpoint counts:: records::every_one records::reading_keeps; do
    DPROBES_MODULES=/ DPROBES_PARAMETERS=trap=idt linux-tests --color never $tests || exit 1
done

probe() {
    printf 'name = "kernel"\nmodtype = kernel\nmajor = 1\nvars = n\noffset = %s\nminor = 1\n inc lv, n\n abort\n' "$1" >/tmp/p.rpn
    dprobes insert /tmp/p.rpn
}
hits() { dprobes query --json | sed -n 's/.*"hits":\([0-9]*\).*/\1/p'; }

kprobes_work_beside() {
    insmod /empty_kprobe.ko symbol=ksys_write offset=0 && probe ksys_read || return 1
    echo hello | cat >/dev/null
    [ "$(hits)" -gt 0 ] && rmmod empty_kprobe
}

# The kernel's own transient breakpoints, made by switching a static key.
text_is_patched_beside() {
    for n in 1 0 1 0; do echo $n >/proc/sys/kernel/sched_schedstats || return 1; done
    before=$(hits)
    cat /proc/self/stat >/dev/null
    [ "$(hits)" -gt "$before" ]
}

an_unknown_source_is_refused() {
    refused "Invalid argument" insmod /dprobes.ko trap=tdi
    dmesg | grep -q "trap=tdi: must be notifier or idt"
}

insmod /dprobes.ko trap=idt
check kprobes_work_beside kprobes_work_beside
check text_is_patched_beside text_is_patched_beside
check unloading_with_a_probe_armed rmmod dprobes
check the_default_is_still_the_notifier insmod /dprobes.ko
check and_unloads rmmod dprobes
check an_unknown_source_is_refused an_unknown_source_is_refused
