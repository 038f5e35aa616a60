#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# vmctl run --balloon: memory that a guest has used and freed is the host's again, without its doing; and
# what it is asked to do without, it does without.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
VMCTL=
trap '[ -z "$VMCTL" ] || kill "$VMCTL" 2>/dev/null; rm -rf "$WORK"' EXIT

# MiB of the guest's memory that are there.
present() {
	awk '/guest-ram/ { ours = 1; next } /^[0-9a-f]+-[0-9a-f]+ / { ours = 0 } ours && /^Rss:/ { kib += $2 }
		END { print int(kib / 1024) }' "/proc/$(pgrep -x moat-vmm)/smaps"
}

# start OPTION... -- GUEST
start() {
	: >"$WORK/out"
	vmctl run --mem 256M "$@" >"$WORK/out" 2>&1 </dev/null &
	VMCTL=$!
}

came_to() {
	for _ in $(seq 600); do
		! grep -q "^$1" "$WORK/out" || return 0
		[ -e "/proc/$VMCTL" ] || return
		sleep 0.1
	done
	return 1
}

# until_below MIB: what is there, at last.
until_below() {
	for _ in $(seq 300); do
		NOW=$(present)
		[ "$NOW" -ge "$1" ] || return 0
		sleep 0.1
	done
	return 1
}

start --balloon 0 -- sh -c '
	head -c 100000000 /dev/zero >/big; echo used
	sleep 3; rm /big; echo freed; sleep 40 & wait $!'
came_to used
USED=$(present)
[ "$USED" -ge 150 ]
tap_ok $? "a guest uses memory: $USED MiB are there" "$(cat "$WORK/out")"
came_to freed
until_below $((USED - 70))
tap_ok $? "it frees 100 MB, and $NOW MiB are there"
kill "$VMCTL"; wait "$VMCTL"

start --balloon 128M -- sh -c '
	for i in $(seq 100); do
		free=$(sed -n "s/^MemFree: *\([0-9]*\) kB/\1/p" /proc/meminfo)
		[ $free -lt 110000 ] && break
		sleep 0.1
	done
	echo "free $free"; sleep 40 & wait $!'
came_to free
tap_ok $? "a guest of 256 MiB does without 128: $(cat "$WORK/out") KiB"
until_below 128
tap_ok $? "of which $NOW MiB are there"
kill "$VMCTL"; wait "$VMCTL"

OUT=$(vmctl run --mem 64M --balloon 64M -- true 2>&1)
tap_is "$?" 125 "a balloon as large as memory is refused"
tap_has "$OUT" "not smaller" "and why"
tap_end
