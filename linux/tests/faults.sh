# shellcheck shell=sh
# Probed instructions that fault: linux/guest, faults.

# Restartable sequences have the kernel read a thread's memory whenever it was preempted: copies that no test asks for.
export GLIBC_TUNABLES=glibc.pthread.rseq=0
DPROBES_MODULES=/ linux-tests --color never faults:: || exit 1
