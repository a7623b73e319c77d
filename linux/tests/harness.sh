# shellcheck shell=sh
# What every file beside this one begins with: a test is a command that must succeed. `./x test linux` runs each file in a guest
# of its own, by busybox's shell, with the module at /dprobes.ko and the examples in /examples.

passed=0
failed=0

# check NAME COMMAND...: one test. What the command prints is shown if it fails.
check() {
    check_name=$1
    shift
    if "$@" >/tmp/check 2>&1; then
        passed=$((passed + 1))
        echo "test $check_name ... ok"
    else
        failed=$((failed + 1))
        echo "test $check_name ... FAILED"
        sed 's/^/    /' /tmp/check
    fi
}

# refused TEXT COMMAND...: the command must fail, and say TEXT when it does.
refused() {
    refused_text=$1
    shift
    if refused_output=$("$@" 2>&1); then
        echo "succeeded: $refused_output"
        return 1
    fi
    case $refused_output in
    *"$refused_text"*) ;;
    *)
        echo "expected: $refused_text"
        echo "found: $refused_output"
        return 1
        ;;
    esac
}

# equal A B: both are the same.
equal() {
    [ "$1" = "$2" ] || {
        echo "expected: $2"
        echo "found: $1"
        return 1
    }
}

# finish: says how many passed. It is called when a file ends.
finish() {
    echo "$passed passed, $failed failed"
}
