# shellcheck shell=sh
# A probe on every function at once, then on every instruction of those that run most: linux/guest, live.

ip link set lo up
DPROBES_MODULES=/ linux-tests --color never live || exit 1
