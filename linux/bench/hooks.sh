# shellcheck shell=sh
# What passing a hook costs on Linux, in instructions, beside tracepoints and static keys in one boot under -icount shift=0.
# `./x bench hooks` runs this in a guest.

insmod /gkhi.ko || exit 1
insmod /hooks_bench.ko || exit 1
cat /sys/module/hooks_bench/parameters/report
rmmod hooks_bench || exit 1
insmod /hooks_many.ko || exit 1
cat /sys/module/hooks_many/parameters/report
rmmod hooks_many || exit 1
rmmod gkhi
