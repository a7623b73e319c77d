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
check "the first is still there" equal "$(field state)" armed

check "the first goes" dprobes remove 1
check "nothing is left" equal "$(dprobes query --json)" ""
dprobes log >/dev/null
cat $name >/dev/null
check "nothing is logged any more" equal "$(dprobes log --json)" ""
check "what is not there cannot be removed" refused "no program with major code 1" dprobes remove 1
check "the module unloads" rmmod dprobes
check "the device is gone" test ! -e /dev/dprobes
check "the module loads again" insmod /dprobes.ko
check "and unloads again" rmmod dprobes
