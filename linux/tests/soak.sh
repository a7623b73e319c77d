# shellcheck shell=sh
# Everything at once, for a while: linux/guest, soak. `./x soak` does the same for as long as it is told.

DPROBES_MODULES=/ linux-tests --color never soak || exit 1
