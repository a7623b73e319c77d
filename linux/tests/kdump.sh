# shellcheck shell=sh
# Programs of this machine, of the packages: kexec-tools
# `exit_to dump` with a crash kernel loaded: the same kernel is started by the panic, and finds the memory of the first in /proc/vmcore, with the record of the hit in it.
# Kernel command line: mem=640M crashkernel=192M
# The crash kernel says how the guest ends. The message of the panic is not on the console: the kernel prints from a breakpoint later, and by then the other kernel runs.

for module in 0 1 2 3 4 5 6 7 8 9; do
    [ ! -e /9p/$module.ko ] || insmod /9p/$module.ko || exit 1
done
mkdir /host
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host || exit 1
mount -t tmpfs tmpfs /host/tmp || exit 1
for folder in proc sys dev; do mount -o rbind /$folder /host/$folder || exit 1; done

# What the crash kernel runs. A file that has no name in the first kernel's memory is not what is looked for in it: the letters are put together there.
capture=/tmp/capture
mkdir -p $capture/bin $capture/proc $capture/sys $capture/dev $capture/tmp
cp /bin/busybox /bin/eu-readelf $capture/bin
cp -a /lib /lib64 $capture
sed '/^finish()/,/^}/{/^}/q}' /script >$capture/harness
cat >$capture/init <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec >/dev/ttyS0
. /harness
word=RPN
check "the crash kernel has the memory of the one that has panicked" test -s /proc/vmcore
eu-readelf -h /proc/vmcore >/tmp/head
check "it is an ELF core dump" grep -q 'Type: *CORE' /tmp/head
eu-readelf -n /proc/vmcore >/tmp/notes
check "of this kernel" grep -q "OSRELEASE=$(uname -r)" /tmp/notes
check "which names the CPUs that were stopped" equal "$(grep -c PRSTATUS /tmp/notes)" 2
strings -n 8 /proc/vmcore | grep -o -e "kdump$word" -e 'not syncing: dprobes: probe 16.1 at __x64_sys_sethostname' | sort | uniq -c >/tmp/found
check "the record of the hit is in it" grep -q "kdump$word" /tmp/found
check "and the reason in the kernel log" grep -q 'not syncing: dprobes: probe 16.1' /tmp/found
finish
echo "@ended $((failed > 0))"
poweroff -f
END
chmod +x $capture/init
(cd $capture && find . | cpio -o -H newc >/host/tmp/capture.cpio 2>/dev/null) || exit 1

insmod /dprobes.ko dump=1 || exit 1
# The word of the record is nowhere in the program: 0x4e5052706d75646b is kdumpRPN.
cat >/tmp/p.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 16
offset  = __x64_sys_sethostname
minor   = 1
        push    0x1111111111111111
        push    0x5f4143617c64757a
        xor
        log     1
        exit_to dump
END
dprobes insert /tmp/p.rpn || exit 1
PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /host kexec -p "/boot/vmlinuz-$(uname -r)" --initrd=/tmp/capture.cpio \
    --append="console=ttyS1 nr_cpus=1 irqpoll reset_devices no_timer_check panic=-1 loglevel=5" || exit 1
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ] || exit 1
hostname now
echo "test the machine stops ... FAILED"
exit 1
