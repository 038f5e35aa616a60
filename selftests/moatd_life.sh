#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# What moatd does by itself: machines that start when the host has, and not again with another moatd; crash loops that
# are slowed; launchers that are stuck; guests that do not hear their button. The machines' kernels are a few bytes: one
# that does nothing, and one that ends at once with a status.

. selftests/lib/tap.sh

HERE=$(cd "$(dirname "$0")" && pwd)
WORK=$(mktemp -d)
. selftests/lib/moatd.sh
trap 'moatd_clean; kill "$LISTENER"; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin
HEALTH_SECONDS=3
# More than moatd starts at once.
MANY=20

ENDS=$HERE/multiboot
make_idle() { bare_create "$1" "$WORK/idle" "${@:2}"; }
start() { moatd_start moatd --health $HEALTH_SECONDS; }
now() { cut -d' ' -f1 /proc/uptime; }

# events MACHINE TEXT [COUNT [SECONDS]]: until that has happened so often.
events() {
	for _ in $(seq $((${4:-30} * 10))); do
		[ "$(grep -c " $1: $2" "$WORK/events")" -lt "${3:-1}" ] || return 0
		sleep 0.1
	done
	return 1
}
listen() {
	vmctl events >"$WORK/events" &
	LISTENER=$!
}

moatd_prepare && kernel_make "$WORK/idle" "$CODE_IDLE" && start
tap_ok $? "moatd" "$(cat "$WORK/moatd.err")"
refused 2 '--health: give seconds' 'a time that is none' moatd --health soon

# With the host

many() { seq -f "m%02g" $MANY; }
running() { vmctl list | grep -c ' running '; }
for name in $(many); do make_idle "$name" --autostart; done
make_idle by-hand
tap_is "$(running)" 0 "machines that are to start with the host do not when they are made"
moatd_kill TERM
rm "$MOATD_DIR/run/booted"
begun=$(now)
start
for _ in $(seq 300); do [ "$(running)" -lt $MANY ] || break; sleep 0.2; done
tap_is "$(running)" $MANY "they do with the first moatd after the host's start" "$(vmctl list)"
echo "# $MANY machines run after $(awk -v a="$begun" '{ printf "%.1f", $1 - a }' /proc/uptime) s"
tap_is "$(state_of by-hand)" off "one that is not to does not"
vmctl kill m01 m02
moatd_kill TERM
start
sleep 1
tap_is "$(running) $(state_of m01)" "$((MANY - 2)) off" "another moatd finds those that run, and starts none"
vmctl destroy by-hand $(many)
tap_is "$(vmctl list --json | tr -d ' \n')" '[]' "all are destroyed"

# A crash loop

listen
bare_create loop "$ENDS" --restart on-failure
begun=$(now)
vmctl start loop 2>/dev/null
events loop 'ended: ended with a status' 4
tap_ok $? "a machine that fails at once is started again" "$(cat "$WORK/events")"
spent=$(awk -v a="$begun" '{ print int($1 - a) }' /proc/uptime)
# 1, 2 and 4 s.
[ "$spent" -ge 7 ]
tap_ok $? "its fourth start comes to nothing not before $spent s"
wait_state loop waiting 10
tap_ok $? "then it waits" "$(vmctl list)"
vmctl stop loop
tap_is "$(state_of loop)" off "a stop ends that"
bare_create once "$ENDS"
vmctl start once 2>/dev/null
wait_state once off 10 && sleep 2
tap_is "$(grep -c ' once: ended' "$WORK/events") $(state_of once)" '1 off' "without a policy, one failure is the end"

# Launchers that are stuck

make_idle stuck --restart on-failure && vmctl start stuck
launcher=$(launcher_of stuck)
sleep $((HEALTH_SECONDS * 3))
tap_is "$(launcher_of stuck) $(grep -c 'stuck: stuck' "$WORK/events")" "$launcher 0" "a launcher that answers is left alone"
kill -STOP "$launcher"
events stuck 'stuck' && events stuck started 2
tap_ok $? "one that was stopped is found to be stuck, and its machine is started again" "$(cat "$WORK/events")"
[ "$(launcher_of stuck)" != "$launcher" ] && [ ! -e "/proc/$launcher" ]
tap_ok $? "by another launcher"
vmctl kill stuck

# A guest that hears no button

make_idle deaf --stop-timeout 2 --restart always && vmctl start deaf
begun=$(now)
vmctl stop deaf
tap_ok $? "a stop of a guest that does not hear of it is done all the same"
spent=$(awk -v a="$begun" '{ print int($1 - a) }' /proc/uptime)
[ "$spent" -ge 2 ] && [ "$spent" -lt 12 ]
tap_ok $? "when its time is over: after $spent s"
sleep 2
tap_is "$(state_of deaf)" off "and it stays off"
sed 's/^/# /' "$WORK/moatd.err"
tap_end
