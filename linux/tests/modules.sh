# shellcheck shell=sh
# Programs for modules that are loaded and unloaded: linux/guest, modules; and what the command says about it.

DPROBES_MODULES=/ linux-tests --color never modules:: || exit 1

insmod /dprobes.ko || exit 1
cat >/tmp/m.rpn <<END
name    = "dprobes_target"
modtype = kmod
major   = 5
vars    = inits
offset  = target_init
minor   = 1
        inc     lv, inits
        abort
offset  = dprobes_target_work
minor   = 2
        inc     lv, inits
        abort
END
says() {
    says_text=$1
    shift
    says_output=$("$@" 2>&1) || {
        echo "failed: $says_output"
        return 1
    }
    case $says_output in
    *"$says_text"*) ;;
    *)
        echo "expected: $says_text"
        echo "found: $says_output"
        return 1
        ;;
    esac
}
check "the command says that a program waits" says "probe 5.1 on target_init: waiting for module dprobes_target" \
    dprobes insert /tmp/m.rpn
check "and so does the query" says "waiting for module dprobes_target" dprobes query
check "and the JSON" says '"state":"waiting"' dprobes query --json
insmod /dprobes_target.ko
check "init has been hit, and is over" says "over: the module's init has run" dprobes query
check "the rest is armed" says "armed" dprobes query
rmmod dprobes_target
check "it waits again" says "waiting for module dprobes_target" dprobes query
check "the counts were kept" says '"hits":1' dprobes query --json
check "it can be removed while it waits" says "removed" dprobes remove 5 --module dprobes_target
sed 's/target_init/not_there/' /tmp/m.rpn >/tmp/n.rpn
check "a symbol that may come is accepted" dprobes insert /tmp/n.rpn
insmod /dprobes_target.ko
check "its absence is told" says "refused: module dprobes_target has no symbol for not_there" dprobes query
check "as is that it holds the others back" says "withheld: another probe of the program was refused" dprobes query
dprobes remove 5 --module dprobes_target >/dev/null
check "when the module is there it is refused at once" refused "has no symbol not_there" dprobes insert /tmp/n.rpn
rmmod dprobes_target
sed '/^name/s/dprobes_target/dprobes-target/' /tmp/m.rpn >/tmp/h.rpn
check "a name that no module has" refused "dprobes_target" dprobes insert /tmp/h.rpn

# driver-init.rpn of the examples.
dprobes log >/dev/null
dprobes insert /examples/driver-init.rpn -D 'MODULE="dprobes_target"' -D INIT=target_init >/dev/null
insmod /dprobes_target.ko
found=$(dprobes log --json | grep '"type":"record"')
check "the first instruction of a driver is logged" equal "$(echo "$found" | grep -c .)" 1
check "by the process that loads it" equal "$(echo "$found" | grep -o '"process":"insmod"')" '"process":"insmod"'
check "and where it was loaded from" test "$(echo "$found" | grep -c 'do_one_initcall+.*finit_module')" = 1
rmmod dprobes_target
insmod /dprobes_target.ko
check "and again at the next load" equal "$(dprobes log --json | grep -c '"type":"record"')" 1
rmmod dprobes_target
dprobes remove 17 --module dprobes_target >/dev/null
check "the module unloads with a program that waits" dprobes insert /tmp/m.rpn
check "in order" rmmod dprobes
