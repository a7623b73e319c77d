# shellcheck shell=sh
# The module by requests of the tests' own, without the command in between: linux/guest.

DPROBES_MODULES=/ linux-tests --color never --skip sweep --skip live:: --skip patched:: --skip values:: --skip maps:: --skip conformance:: --skip batch:: --skip soak:: --skip faults:: --skip watch:: --skip safety:: --skip modules:: --skip emergency:: || exit 1
