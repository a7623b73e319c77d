# shellcheck shell=sh
# From insert to remove, with the examples.

echo secret >/victim

check "the module loads" insmod /dprobes.ko
check "the device is there" test -c /dev/dprobes
check "nothing is inserted" equal "$(dprobes query --json)" ""

check "insert arms the probe" dprobes insert /examples/openat.rpn
field() { dprobes query --json | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
check "query shows it armed" equal "$(field state)" armed

name=/tmp/opened-$$
echo content >$name
cat $name >/dev/null
records() { dprobes log --json | grep -c "\"text\":\"$name\"\|$name"; }
check "each opening of a file is a record" equal "$(records)" 2
check "nothing was lost" equal "$(field lost)" 0

# A hit, or nothing: each opening is counted by one of the counters.
before=$(($(field hits) + $(field missed) + $(field late)))
cat $name $name $name $name $name $name $name $name $name $name >/dev/null
after=$(($(field hits) + $(field missed) + $(field late)))
# The queries open files of their own.
check "every opening is counted" test $((after - before)) -ge 10

check "a program is inserted once" refused "is inserted for kernel already" dprobes insert /examples/openat.rpn

check "a second program has the same function" dprobes insert /examples/inject.rpn
check "the victim cannot be opened" refused "Bad address" cat /victim
check "other files can" cat $name
check "the second program goes alone" dprobes remove 3
check "the victim can be opened again" cat /victim

# For one process: this shell.
dprobes insert /examples/inject.rpn -D PID=$$ >/dev/null
mine=opened
read -r _ </victim 2>/dev/null || mine=failed
check "one process cannot open it" equal "$mine" failed
check "others can" cat /victim
dprobes remove 3 >/dev/null
read -r mine </victim
check "and that one can again" equal "$mine" secret
check "the first is still there" equal "$(field state)" armed

check "the first goes" dprobes remove 1

# Another form of a program takes its place, probes are added, and are taken out one by one.
sed 's/^minor .*/minor = 7\ngroup = 3/' /examples/openat.rpn >/tmp/changed.rpn
cat >/tmp/more.rpn <<'END'
name    = "kernel"
modtype = kernel
major   = 1
vars    = opens
offset  = __x64_sys_sethostname
minor   = 8
group   = 4
opcode  = 0xcc
        inc     lv, opens
        abort
END
opens() { dprobes vars kernel 1 -v opens --json | sed 's/.*"value":"\([0-9]*\)".*/\1/'; }
of() { dprobes query --json | grep "\"minor\":$1," | sed -n "s/.*\"$2\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
check "nothing is there to be merged with" refused "insert it without --merge" dprobes insert --merge /tmp/more.rpn
check "a program is inserted if there is none to replace" dprobes insert --replace /examples/openat.rpn
cat $name
check "the old one's counts are shown" sh -c 'dprobes insert --replace /tmp/changed.rpn | grep -q "removed  .*[1-9]"'
check "the new one begins anew" equal "$(of 7 state) $(of 1 state)" "armed "
check "what is to be merged is looked at" refused "opcode" dprobes insert --merge /tmp/more.rpn
check "unless that is not wanted" dprobes insert --merge --dont-verify-opcodes /tmp/more.rpn
check "both are one program" equal "$(of 7 state) $(of 8 state)" "armed armed"
before=$(opens)
hostname cmd
check "and count in its variables" test "$(opens)" -gt "$before"
check "no minor code is there twice" refused "this minor code" dprobes insert --merge --dont-verify-opcodes /tmp/more.rpn
check "what is in no group that is wanted is not inserted" refused "no probe of the groups" dprobes insert --group 5 /tmp/more.rpn
check "one probe is taken out" sh -c 'dprobes remove 1 --at __x64_sys_sethostname | grep -q "taken out"'
check "the other one stays" equal "$(of 7 state) $(of 8 active) $(of 8 hits)" "armed false 1"
hostname again
check "it does not fire any more" equal "$(of 8 hits)" 1
check "a group is taken out" dprobes remove 1 --group 3
check "no probe is active" equal "$(dprobes query --json | grep -c '"active":true')" 0
check "what the program does not have is not taken out" refused "no probe of group 9" dprobes remove 1 --group 9
check "the program goes with all of them" equal "$(dprobes remove 1 --json | grep -c .)" 2
check "nothing is left" equal "$(dprobes query --json)" ""
dprobes log >/dev/null
cat $name >/dev/null
check "nothing is logged any more" equal "$(dprobes log --json)" ""
check "what is not there cannot be removed" refused "no program with major code 1" dprobes remove 1
check "the module unloads" rmmod dprobes
check "the device is gone" test ! -e /dev/dprobes
check "the module loads again" insmod /dprobes.ko
check "and unloads again" rmmod dprobes
