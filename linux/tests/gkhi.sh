# shellcheck shell=sh
# Hooks in a module, exits in others, the registry's files.

tree=/sys/kernel/debug/gkhi
queue=/sys/module/sample_queue/parameters
test_exits=/sys/module/gkhi_exits/parameters

# field EXIT NAME: what the list says of an exit.
field() { sed -n "s,^exit $1 .*$2=\([0-9]*\).*,\1,p" $tree/list; }
state() { sed -n "s,^exit $1 order=[0-9]* \([^ ]*\) .*,\1,p" $tree/list; }
sites() { sed -n "s,^site $1 .* \(.*\)$,\1,p" $tree/list; }
submit() { echo "$1" >$queue/submit; }
both() { echo "$1" >$tree/"$2" 2>/dev/null; }

check "a module with hooks loads without gkhi" insmod /sample_queue.ko
check "and works" submit 100
check "the module loads" insmod /gkhi.ko
check "it finds the hooks of modules that were there" equal "$(grep -c '^hook sample_' $tree/list)" 4
check "each hook has a folder" test -d $tree/hooks/sample_enqueue
check "a dormant site is a nop" equal "$(sites sample_enqueue)" nop
check "a generic one is not patched" grep -q "^site sample_look generic" $tree/list

check "a module with exits loads" insmod /sample_watch.ko
check "its exits are files" test -f $tree/hooks/sample_enqueue/watch_count
check "they are armed" equal "$(cat $tree/hooks/sample_enqueue/watch_count)" 1
check "the site jumps" equal "$(sites sample_enqueue)" jump
check "packets go through" submit "1500 10"
check "they are counted" equal "$(field sample_enqueue/watch_count calls)" 10
check "the exit's data is its own" equal "$(cat /sys/module/sample_watch/parameters/bytes)" 15000
check "a long one is refused by the exit" refused "Message too long" sh -c "echo 1501 >$queue/submit"
check "and did not get to the other hook" equal "$(field sample_enqueue/watch_count calls)" 10
check "the queue's own refusal is still there" refused "Invalid argument" sh -c "echo 0 >$queue/submit"

check "echo 0 disarms" sh -c "echo 0 >$tree/hooks/sample_admit/watch_limit"
check "and the file says so" equal "$(cat $tree/hooks/sample_admit/watch_limit)" 0
check "its site is a nop again" equal "$(sites sample_admit)" nop
check "a long packet goes through" submit 1501
check "echo 1 arms" sh -c "echo 1 >$tree/hooks/sample_admit/watch_limit"
check "it is refused again" refused "Message too long" sh -c "echo 1501 >$queue/submit"
check "anything else is an error" refused "Invalid argument" sh -c "echo x >$tree/hooks/sample_admit/watch_limit"

check "gkhi stays as long as there are exits" refused "" rmmod gkhi
check "the module with the exits unloads" rmmod sample_watch
check "their files are gone" test ! -e $tree/hooks/sample_enqueue/watch_count
check "the sites are nops" equal "$(sites sample_enqueue)$(sites sample_admit)" nopnop
check "and gkhi unloads" rmmod gkhi
check "the hooked module still works" submit 1501
check "and unloads" rmmod sample_queue

# Exits first, hooks later.
insmod /gkhi.ko
check "exits may be there before the hook" insmod /sample_watch.ko
check "they wait, to be armed" equal "$(state sample_enqueue/watch_count)" waiting,armed
check "their files are there" equal "$(cat $tree/hooks/sample_enqueue/watch_count)" 1
insmod /sample_queue.ko
check "then they are armed" equal "$(state sample_enqueue/watch_count)" armed
submit "64 5"
check "and called" equal "$(field sample_enqueue/watch_count calls)" 5
check "the hooks may go first" rmmod sample_queue
check "the exits wait again" equal "$(state sample_enqueue/watch_count)" waiting,armed
check "and keep their counts" equal "$(field sample_enqueue/watch_count calls)" 5
insmod /sample_queue.ko
submit "64 2"
check "when they come back they go on" equal "$(field sample_enqueue/watch_count calls)" 7
rmmod sample_watch

# Order, rules and sets.
insmod /gkhi_exits.ko
enq=sample_enqueue
arm_all="$enq/last $enq/second $enq/third $enq/lifo $enq/first"
check "a set is armed by names" both "$arm_all" arm
# The mark is what the digits make, in the order of the calls.
before=$(cat $queue/marks)
submit 64
check "first, LIFO, FIFO, last" equal $(($(cat $queue/marks) - before)) 71239
order() { sed -n "s,^exit $enq/\([a-z]*\) order=[0-9]* armed.*,\1,p" $tree/list | tr '\n' ' '; }
check "the list is in that order" equal "$(order)" "first lifo second third last "
check "an exit that ends the pass" sh -c "echo 1 >$tree/hooks/$enq/stop"
before=$(cat $queue/marks)
submit 64
check "ends it" equal $(($(cat $queue/marks) - before)) 7
echo 0 >$tree/hooks/$enq/stop

check "a conflict is refused" refused "busy" sh -c "echo $enq/hates_third >$tree/arm"
check "with the reason" grep -q "hates_third conflicts with third" $tree/arm
check "what others require cannot be disarmed alone" sh -c "echo $enq/needs_third >$tree/arm &&
    ! echo $enq/third >$tree/disarm && grep -q 'needs_third requires third' $tree/arm"
check "but with them" both "$enq/third $enq/needs_third" disarm
check "of a set that is refused nothing is armed" sh -c "! echo sample_look/look $enq/hates_third $enq/third >$tree/arm"
check "nothing at all" equal "$(cat $tree/hooks/sample_look/look)$(cat $tree/hooks/$enq/third)$(cat $tree/hooks/$enq/hates_third)" 000
check "a name that is not there is refused" refused "No such file" sh -c "echo $enq/nobody >$tree/arm"
check "by name" grep -q "nobody" $tree/arm
check "all are disarmed in one go" both "$enq/last $enq/second $enq/lifo $enq/first" disarm
before=$(cat $queue/marks)
submit 64
check "and none is called" equal $(($(cat $queue/marks) - before)) 0

# The other kinds.
check "a generic hook's exit" sh -c "echo 1 >$tree/hooks/sample_look/look; cat $queue/queued; cat $queue/queued"
check "is called" equal "$(cat $test_exits/looks)" 2
check "a hook without a value" sh -c "echo 1 >$tree/hooks/sample_flush/keep"
echo 1 >$queue/flush
check "keeps its function from going on" test "$(cat $queue/queued)" -gt 0
echo 0 >$tree/hooks/sample_flush/keep
echo 1 >$queue/flush
check "and lets it again" equal "$(cat $queue/queued)" 0

# An exit that sleeps, and one that deregisters itself.
check "an exit may sleep" sh -c "echo 1 >$tree/hooks/$enq/sleepy; echo 64 >$queue/submit"
check "a slow call is counted" equal "$(field $enq/sleepy slow)" 1
submit 64 &
sleeper=$!
while [ "$(cat $test_exits/sleeping)" = 0 ]; do usleep 1000; done
check "a module with an exit that runs unloads" rmmod gkhi_exits
wait $sleeper
check "when it has returned" test $? = 0
insmod /gkhi_exits.ko
echo 1 >$tree/hooks/$enq/inside
submit 64
check "from inside an exit deregistering is refused" equal "$(cat $test_exits/inside)" -16
check "and later it goes" rmmod gkhi_exits

# What else owns text.
check "kprobes keep off the sites" refused "" insmod /empty_kprobe.ko symbol=enqueue \
    offset=$((0x$(grep ' enqueue.*\[sample_queue\]' /proc/kallsyms | cut -c1-16) * 0 + $(grep "^site $enq " $tree/list | sed 's,.*+\(0x[0-9a-f]*\)/.*,\1,')))
rmmod sample_queue
rmmod gkhi
check "nothing is left" test ! -e $tree
