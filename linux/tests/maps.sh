# shellcheck shell=sh
# Maps: by requests of the tests' own, and as the command shows them.

DPROBES_MODULES=/ linux-tests --color never maps:: || exit 1

cat >/tmp/maps.rpn <<'PROGRAM'
name    = "kernel"
modtype = kernel
major   = 9

map seeks  = count, keys = 1
map whence = log2, keys = 1
map callers = count, keys = 1

offset  = __x64_sys_getppid
minor   = 1
        push    pid
        agg     seeks
        push    pid
        push    pid
        agg     whence
        push    r, rip
        agg     callers
        abort
PROGRAM

check "the module loads" insmod /dprobes.ko
check "there are no maps" equal "$(dprobes maps --json)" ""
check "a program with maps is inserted" dprobes insert /tmp/maps.rpn
check "its maps are there, and empty" equal "$(dprobes maps 2>&1)" "seeks of program 9 for kernel: count, nothing yet

whence of program 9 for kernel: log2, nothing yet

callers of program 9 for kernel: count, nothing yet"
check "a map that is not there is missed" refused "no map nothing is inserted by program 9 for kernel" \
	dprobes maps kernel 9 nothing
check "what there is is named then" refused "there are: kernel 9 seeks, kernel 9 whence" dprobes maps e1000

# The shell of a new process asks for its parent's number, and so do the children that these lines make.
for _ in 1 2 3; do
	sh -c 'exit 0'
done
total() { dprobes maps kernel 9 "$1" --json | grep -o '"value":[0-9]*' | cut -d: -f2 | awk '{ sum += $1 } END { print sum + 0 }'; }
hits=$(dprobes query --json | sed -n 's/.*"hits":\([0-9]*\).*/\1/p')
check "every hit is in an entry" test "$(total seeks)" -ge "$hits"
check "there are some" test "$hits" -gt 0
# The function has two names: it has no arguments, and so no difference between 64 and 32 bits.
check "addresses of the kernel are named" sh -c 'dprobes maps kernel 9 callers | grep -q "^  0xffffffff[0-9a-f]* __[a-z0-9]*_sys_getppid"'
check "histograms are drawn" sh -c 'dprobes maps kernel 9 whence | grep -q "%  |@*"'
check "lines are as wide as the terminal" sh -c 'COLUMNS=60 dprobes maps kernel 9 whence | grep -q "^.\{59\}|$"'
check "the maps go with the program" dprobes remove 9
check "nothing is left of them" equal "$(dprobes maps --json)" ""
check "the module unloads" rmmod dprobes
