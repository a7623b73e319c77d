# shellcheck shell=sh
# What cannot be done is refused by name, and changes nothing.

check "without the module the command says so" refused "module" dprobes query
insmod /dprobes.ko || exit 1

# program WHERE [MORE]: a program that counts, with its probe at WHERE.
program() {
    cat >/tmp/p.rpn <<END
name    = "kernel"
modtype = kernel
major   = 7
vars    = count
$1
minor   = 1
$2
        inc     lv, count
        abort
END
}

program "offset = no_such_function_anywhere"
check "an unknown symbol" refused "no_such_function_anywhere" dprobes insert /tmp/p.rpn
# Wherever instructions begin on this kernel, not each of these sixteen bytes is one.
inside() {
    offset=16
    while [ $offset -lt 32 ]; do
        program "offset = do_sys_openat2 + $offset"
        if dprobes insert /tmp/p.rpn >/tmp/out 2>&1; then
            dprobes remove 7
        elif grep -q "is inside an instruction" /tmp/out && grep -q "the instruction begins" /tmp/out; then
            return 0
        fi
        offset=$((offset + 1))
    done
    return 1
}
check "an address inside an instruction" inside
program "offset = do_sys_openat2 + 1"
check "an address inside the function tracer's nop" refused "the function tracer owns" dprobes insert /tmp/p.rpn
program "offset = do_sys_openat2 + 0x100000"
check "an offset outside of the function" refused "do_sys_openat2" dprobes insert /tmp/p.rpn
program "address = 0x1000"
check "an address that is not text" refused "is not code" dprobes insert /tmp/p.rpn
program "offset = exc_page_fault"
check "noinstr code" refused "excluded" dprobes insert /tmp/p.rpn
program "offset = entry_SYSCALL_64"
check "entry code" refused "excluded" dprobes insert /tmp/p.rpn
check "a file that is not there" refused "/tmp/none.rpn" dprobes insert /tmp/none.rpn

program "address = 0x64" "watch = io 1"
check "a watchpoint on a port" refused "Linux manages the debug registers, and has no I/O breakpoints" dprobes insert /tmp/p.rpn
program "offset = exc_page_fault" "watch = execute"
check "a watchpoint on noinstr code" refused "excluded" dprobes insert /tmp/p.rpn
program "offset = jiffies + 4" "watch = write 8"
check "a watchpoint that is not aligned" refused "cannot be watched" dprobes insert /tmp/p.rpn

program "offset = do_sys_openat2" "push nothing"
check "a program with an error names the line" refused "/tmp/p.rpn:7" dprobes insert /tmp/p.rpn

dprobes asm /examples/openat.rpn -o /tmp/good.dpo
size=$(stat -c %s /tmp/good.dpo)
truncated() {
    n=0
    while [ $n -lt "$size" ]; do
        head -c $n /tmp/good.dpo >/tmp/bad.dpo
        dprobes insert /tmp/bad.dpo >/tmp/out 2>&1 && { echo "$n bytes were accepted"; return 1; }
        n=$((n + 7))
    done
}
check "a truncated object, wherever it ends" truncated

echo 'nobody:x:65534:65534::/:/bin/sh' >/etc/passwd
check "another user" refused "ermi" su -s /bin/sh nobody -c "dprobes query"
check "nothing was inserted by any of this" equal "$(dprobes query --json)" ""
check "the module unloads" rmmod dprobes
