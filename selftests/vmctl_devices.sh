#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A guest's network, entropy source, sockets and files by moat-net, moat-rng, moat-vsock and moat-fs, which are
# killed again and again while the guest uses them. TCP streams, in both directions, arrive whole; no random
# byte is missing; of connections by moat-vsock both sides see the end, and new ones work; of files, only what
# was open is stale.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
WORK=$(mktemp -d)
SOCKET=$WORK/socket
STREAMS=$(dirname "$0")/vhost/net_work
SOCKETS=$(dirname "$0")/vhost/vsock_work
BACKEND=
trap 'backend_kill; rm -rf "$WORK"' EXIT

# backend_start PROGRAM ARGS...
backend_start() {
	"$@" --socket "$SOCKET" </dev/null 2>>"$WORK/backend" &
	BACKEND=$!
	disown
	for _ in $(seq 300); do [ ! -S "$SOCKET" ] || return; sleep 0.1; done
}

# The socket goes, too: where it is there again, so is a back end.
backend_kill() {
	[ -z "$BACKEND" ] || kill -KILL "$BACKEND" 2>/dev/null
	while [ -n "$BACKEND" ] && [ -e "/proc/$BACKEND" ]; do sleep 0.02; done
	rm -f "$SOCKET"
	BACKEND=
}

guest_start() {
	timeout -k 5 200 vmctl run --cpus 2 --device-socket "$1,$SOCKET" -- "${@:2}" \
		>"$WORK/out" 2>"$WORK/err" </dev/null &
	GUEST=$!
}

returned() { grep -c 'a back end is there again' "$WORK/err"; }

# kill_while_working BACKEND...: until the guest has ended, or that is often enough.
kill_while_working() {
	KILLED=0
	while [ -e "/proc/$GUEST" ] && ! grep -q '^working' "$WORK/out"; do sleep 0.1; done
	while [ -e "/proc/$GUEST" ] && [ "$KILLED" -lt 8 ]; do
		sleep "$((KILLED % 2)).$((KILLED * 3 % 10))"
		backend_kill
		backend_start "$@"
		KILLED=$((KILLED + 1))
		for _ in $(seq 100); do
			[ "$(returned)" -lt "$KILLED" ] || break
			[ -e "/proc/$GUEST" ] || break
			sleep 0.1
		done
	done
	wait "$GUEST"
}

details() { tail -n 8 "$WORK/err" "$WORK/out" "$WORK/backend"; }

# line NAME FILE: what is said of it there.
line() { sed -n "s/^$1: //p" "$2"; }

network() {
	local made
	modprobe tun 2>/dev/null
	made=$("$STREAMS" tap moat0) || { tap_skip "a network by moat-net" "$made"; return; }
	"$STREAMS" serve >"$WORK/host" 2>&1 &
	local host=$!
	backend_start moat-net --tap moat0
	guest_start net "$STREAMS" work 10
	kill_while_working moat-net --tap moat0
	tap_ok $? "the guest has a network whose server dies $KILLED times" "$(details)"
	[ "$KILLED" -ge 4 ] && [ "$(returned)" -ge 4 ]
	tap_ok $? "it did die, and the next one was there" "$(details)"
	[ -s "$WORK/out" ] && wait "$host"
	tap_is "$(line received "$WORK/host")" "$(line sent "$WORK/out")" "what the guest sent has arrived"
	tap_is "$(line received "$WORK/out")" "$(line sent "$WORK/host")" "what the host sent has arrived"
	tap_has "$(line sent "$WORK/out")" end "which was: $(line sent "$WORK/out" | sed 's/ end//')"
	kill "$host" 2>/dev/null
	backend_kill
}

# The launcher has a source of its own, which comes last.
entropy() {
	backend_start moat-rng
	guest_start rng sh -c '
		cd /sys/class/misc/hw_random && echo virtio_rng.0 >rng_current || exit 20
		echo working
		for n in 1 2 3 4 5 6 7 8; do head -c 60000 /dev/hwrng | wc -c; done'
	kill_while_working moat-rng
	tap_ok $? "the guest has an entropy source whose server dies $KILLED times" "$(details)"
	tap_is "$(grep -c '^60000$' "$WORK/out")" 8 "all bytes are there"
	backend_kill
}

# No byte is wrong in what came of connections that a dead back end broke off, either.
sockets() {
	local vsock=(moat-vsock --cid 3 --listen "$WORK/vsock") side
	"$SOCKETS" host "$WORK/vsock" >"$WORK/host" 2>&1 &
	local host=$!
	backend_start "${vsock[@]}"
	guest_start vsock "$SOCKETS" guest 10
	kill_while_working "${vsock[@]}"
	tap_ok $? "the guest has sockets whose server dies $KILLED times" "$(details)"
	[ "$KILLED" -ge 4 ] && [ "$(returned)" -ge 4 ]
	tap_ok $? "it did die, and the next one was there" "$(details)"
	kill "$host"
	wait "$host"
	for side in out host; do
		tap_is "$(line wrong "$WORK/$side") $(line stuck "$WORK/$side")" "0 0" \
			"$side: no byte is wrong, no connection without its end"
		[ "$(line rounds "$WORK/$side")" -ge 20 ] && [ "$(line broken "$WORK/$side")" -ge 1 ]
		tap_ok $? "$side: some work, some are broken off" "$(cat "$WORK/$side")"
	done
	[ "$(line ended "$WORK/out")" -ge "$((KILLED - 1))" ]
	tap_ok $? "a connection by which nothing comes ends each time" "$(cat "$WORK/out")"
	backend_kill
}

# A file that was open before, and one that is opened again and again.
files() {
	mkdir -p "$WORK/tree/dir"
	head -c 3000000 /dev/urandom >"$WORK/tree/dir/file"
	backend_start moat-fs --tag host --directory "$WORK/tree" --read-write
	guest_start fs sh -c '
		mkdir -p /mnt && mount -t virtiofs host /mnt && cd /mnt && sha256sum dir/file || exit 20
		exec 3<dir/file
		echo working
		n=0
		while [ $n -lt 60 ]; do sha256sum dir/file || echo "not read"; n=$((n + 1)); sleep 0.3; done 2>&1
		# It is stale, unless the guest has all of it in its cache.
		cat <&3 >/tmp/held && { cmp /tmp/held dir/file || exit 21; }
		mkdir dir/new && cp dir/file dir/new/copy && sync || exit 22
		sha256sum dir/file && ls -R'
	kill_while_working moat-fs --tag host --directory "$WORK/tree" --read-write
	tap_ok $? "the guest has files whose server dies $KILLED times" "$(details)"
	local sum whole
	sum=$(sha256sum <"$WORK/tree/dir/file")
	whole=$(grep -c "^${sum%% *} " "$WORK/out")
	[ "$KILLED" -ge 4 ] && [ "$whole" -ge 40 ]
	tap_ok $? "it reads one $whole times, $(grep -c '^not read' "$WORK/out") times in vain" "$(details)"
	tap_is "$(grep 'dir/file$' "$WORK/out" | grep -cv "^${sum%% *} ")" 0 "and never what is not in it"
	cmp "$WORK/tree/dir/file" "$WORK/tree/dir/new/copy"
	tap_ok $? "what it wrote is there"
	backend_kill
}

network
entropy
sockets
files
tap_is "$(cat "$WORK/backend")" '' "the back ends have nothing to complain of"
tap_end
