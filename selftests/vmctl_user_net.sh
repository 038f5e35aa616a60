#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A guest's network without any right of its user's: moat-net with passt behind it. What the guest reaches,
# under which address, and what not; and that passt and moat-net are there again when they were killed, and gone with
# the guest. A network namespace is the world outside.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
# Seen by a guest, whose /tmp is its own.
WORK=$(mktemp -d -p /var/lib)
ADDRESS_WORK=$(realpath "$(dirname "$0")/moatd/address_work")
OUTSIDE=203.0.113.2 HOST=203.0.113.1
JOBS=()
trap 'kill "${JOBS[@]}" 2>/dev/null; rm -rf "$WORK"' EXIT

background() {
	"$@" >/dev/null 2>&1 </dev/null &
	JOBS+=($!)
}

set_up() {
	modprobe veth
	ip link set lo up
	ip netns add outside
	ip link add v-outside type veth peer name eth0 netns outside
	ip addr add $HOST/24 dev v-outside
	ip link set v-outside up
	ip netns exec outside ip addr add $OUTSIDE/24 dev eth0
	ip netns exec outside ip link set eth0 up
	ip route add default via $OUTSIDE
	background ip netns exec outside "$ADDRESS_WORK" serve outside 7000
	background "$ADDRESS_WORK" serve host 9000
	chmod 711 "$WORK"
	chmod 666 /dev/moat
	cat >"$WORK/lease" <<-'END'
	#!/bin/sh
	[ "$1" = bound ] || exit 0
	ip addr add "$ip/$mask" dev "$interface"
	ip route add default via "$router"
	END
	cat >"$WORK/guest" <<-END
	busybox ip link set eth0 up
	busybox udhcpc -i eth0 -n -q -f -t 10 -T 1 -s $WORK/lease 2>&1
	$ADDRESS_WORK ask tcp $OUTSIDE 7000
	$ADDRESS_WORK ask udp $OUTSIDE 7000
	echo loopback: \$($ADDRESS_WORK ask tcp $OUTSIDE 9000)
	n=0
	while [ \$n -lt \$1 ]; do
		$ADDRESS_WORK ask tcp $OUTSIDE 7000 >/dev/null && n=\$((n + 1)) && echo round \$n
		sleep 0.5
	done
	echo ends
	END
	chmod 755 "$WORK/lease" "$WORK/guest"
}

# As USER ROUNDS
guest() {
	local as=(setpriv --reuid "$1" --regid "$1" --clear-groups)
	[ "$1" != 0 ] || as=()
	timeout -k 5 150 "${as[@]}" vmctl run --root --net user -- sh "$WORK/guest" "$2" >"$WORK/out" 2>"$WORK/err" \
		</dev/null
}

reaches() {
	tap_has "$(cat "$WORK/out")" "lease of $HOST obtained" "$1 gets the host's address"
	tap_is "$(grep -c "^outside $HOST" "$WORK/out")" 2 "reaches the world outside under it, by TCP and UDP"
	tap_is "$(grep '^loopback' "$WORK/out")" "loopback:" "and nothing of the host's loopback"
}

# Of one guest: moat-net, and passt, which may have its CPU's name behind its own.
running() {
	pgrep -x moat-net
	pgrep '^passt'
}

# One after the other, each time that the guest has got somewhere.
kill_while_working() {
	local round process killed=0
	for round in 2 4 6 8; do
		for _ in $(seq 600); do
			grep -qx "round $round" "$WORK/out" && break
			[ -e "/proc/$GUEST" ] || return
			sleep 0.1
		done
		process=$(running | sed -n "$((round / 2 % 2 + 1))p")
		kill -KILL "$process" && killed=$((killed + 1))
	done
	[ $killed = 4 ]
}

set_up
guest 0 0
tap_ok $? "a guest of root's ends well" "$(cat "$WORK/err" "$WORK/out")"
reaches "it"
guest 1000 10 &
GUEST=$!
kill_while_working
tap_ok $? "for a guest of an ordinary user's, passt and moat-net are killed"
wait $GUEST
tap_ok $? "which ends well" "$(cat "$WORK/err" "$WORK/out")"
reaches "it"
tap_has "$(cat "$WORK/out")" "round 10" "and reaches it again after each time"
tap_is "$(running)" "" "nothing of it is left"
tap_end
