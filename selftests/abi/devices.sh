#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Debian 12 from its disk under moat-vmm, with all of its devices in processes of their own behind the
# gate: moat-blk, moat-net, moat-rng, moat-console. The network is a tap in a bridge, where the guest
# gets its address by DHCP; streams go both ways, packages of many small files come and go. Then the
# disk's and the network's processes are killed again and again, while the guest writes and sends what
# can be checked. At last the guest powers off, and nothing is left.
#
# usage: devices.sh
# Environment: STREAM_MIB, how much goes each way in the calm (1024); KILL_SECONDS, how long processes
# are killed (120).

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

HOST=192.0.2.1
ADDRESS=192.0.2.2
DISK_WORK=$TOP/build/selftests/vhost/disk_work
NET_WORK=$TOP/build/selftests/vhost/net_work
TAP=moat0
BRIDGE=br0
PIECE_MIB=16
PORT=5001
WORK_MIB=24
BOOT_SECONDS=600
STEP_SECONDS=900
# Where the root file system is on the disk, as scripts/deps-abi puts it.
ROOT_AT=$((65 << 20))
DRIVERS='virtio_blk virtio_console virtio_net virtio_rng'
# Of the back ends that are killed 200 ms after they came, one in so many has to have been found.
SERVED_IN=3

# A disk of the guest's own, on which are the guest's half of this test and its programs.
disk_make() {
	local file
	cp --sparse=always "$CACHE/abi-guest/disk.img" "$WORK/disk" || return
	DISK_ROOT="$WORK/disk?offset=$ROOT_AT"
	echo 'cd /root' >"$WORK/write"
	for file in "$TOP/selftests/abi/inside/devices" "$DISK_WORK" "$NET_WORK"; do
		echo "write $file ${file##*/}"
	done >>"$WORK/write"
	debugfs -w -f "$WORK/write" "$DISK_ROOT" >"$WORK/written" 2>&1
	[ "$(grep -c '^Allocated inode' "$WORK/written")" = 3 ]
}

network_make() {
	modprobe -a tun bridge
	ip link set lo up && tunctl -t "$TAP" >/dev/null && brctl addbr "$BRIDGE" &&
		brctl addif "$BRIDGE" "$TAP" && ip address add "$HOST/24" dev "$BRIDGE" &&
		ip link set "$BRIDGE" up && ip link set "$TAP" up || return
	: >"$WORK/leases"
	printf '%s\n' "start $ADDRESS" "end $ADDRESS" "interface $BRIDGE" "lease_file $WORK/leases" \
		"pidfile $WORK/udhcpd.pid" 'option subnet 255.255.255.0' >"$WORK/udhcpd.conf"
	busybox udhcpd -f "$WORK/udhcpd.conf" >"$WORK/udhcpd" 2>&1 &
	DHCP=$!
}

ip() { busybox ip "$@"; }
tunctl() { busybox tunctl "$@"; }
brctl() { busybox brctl "$@"; }

devices_start() {
	local name
	declare -gA COMMAND=(
		[blk]="moat-blk --disk $WORK/disk"
		[net]="moat-net --tap $TAP"
		[rng]=moat-rng
		[console]="moat-console --console $WORK/hvc.in,$WORK/hvc.out"
	)
	declare -gA PID KILLED
	mkfifo "$WORK"/hvc.{in,out}
	exec {TO_HVC}<>"$WORK/hvc.in" {FROM_HVC}<>"$WORK/hvc.out"
	for name in "${!COMMAND[@]}"; do device_start "$name"; KILLED[$name]=0; done
	for name in "${!COMMAND[@]}"; do
		for _ in {1..300}; do [ ! -S "$WORK/$name" ] || continue 2; sleep 0.1; done
		return 1
	done
}

device_start() {
	# shellcheck disable=SC2086
	${COMMAND[$1]} --socket "$WORK/$1" --uid 65534 --gid 65534 2>>"$WORK/devices" &
	PID[$1]=$!
}

device_kill() {
	kill -KILL "${PID[$1]}" || return
	wait "${PID[$1]}" 2>/dev/null
	KILLED[$1]=$((KILLED[$1] + 1))
}

vmm_start() {
	local name line sockets=()
	# shellcheck source=scripts/deps-abi
	line=$(. "$TOP/scripts/deps-abi" && echo "$GUEST_LINE") || return
	for name in blk net rng console; do sockets+=(--device-socket "$name,$WORK/$name"); done
	mkfifo "$WORK/in"
	exec {TO_GUEST}<>"$WORK/in"
	moat-vmm --kernel "$CACHE/abi-guest/vmlinuz" --initrd "$CACHE/abi-guest/initrd.img" \
		--append "$line" --mem 384M "${sockets[@]}" <"$WORK/in" >"$WORK/serial" \
		2> >(busybox ts '%.s' >"$WORK/vmm") &
	VMM=$!
}

# wait_for SECONDS TEXT: until the guest's console shows it.
wait_for() {
	local end=$((SECONDS + $1))
	until grep -aqE "$2" "$WORK/serial"; do
		if [ $SECONDS -ge $end ] || ! kill -0 "$VMM" 2>/dev/null; then return 1; fi
		sleep 0.5
	done
}

send() { echo "$1" >&"$TO_GUEST"; }

# said STEP: what it has said so far.
said() { tr -d '\r' <"$WORK/serial" | sed -n "/^$1: begin/,/^$1: status/p" | grep -a .; }

# finishes STEP: it does, and well.
finishes() { wait_for "$STEP_SECONDS" "^$1: status" && [[ $(said "$1") == *"$1: status 0" ]]; }

# guest STEP ARGS...: the guest does it.
guest() {
	send "./devices $*"
	finishes "$1"
}

details() { tail -n 15 "$WORK/serial" "$WORK/vmm" "$WORK/devices" | tr -d '\r'; }

boots() {
	local start=$SECONDS
	vmm_start && wait_for "$BOOT_SECONDS" 'guest login:' && send root &&
		wait_for 120 'root@guest:~#'
	tap_ok $? "Debian boots from the disk of moat-blk's to a login ($((SECONDS - start)) s)" "$(details)"
	[ "$TAP_FAILED" = 0 ]
}

# Of what programs of ours there are processes.
processes() {
	local exe
	for exe in /proc/[0-9]*/exe; do readlink "$exe"; done | sed -n "s,^$TOP/build/bin/,,p" | sort -u | xargs
}

check_drivers() {
	local got
	tap_is "$(processes)" 'moat-blk moat-console moat-net moat-rng moat-vmm' "it and its devices are processes"
	guest drivers
	tap_ok $? "it has its devices" "$(details)"
	got=$(said drivers)
	tap_is "$(grep -a ^virtio_ <<<"$got" | sort | xargs)" "$DRIVERS" "the stock drivers have them"
	tap_has "$got" 'root is on /dev/vda2' "its root is on the disk"
	tap_has "$got" 'random bytes 10000' "random bytes come from moat-rng"
	echo 'hello' >&"$TO_HVC"
	guest console
	while read -r -t 10 got <&"$FROM_HVC" && [[ $got != heard* ]]; do :; done
	tap_is "${got%$'\r'}" 'heard hello' "a line goes by moat-console there and back"
}

check_address() {
	guest address
	tap_ok $? "it reaches the host" "$(details)"
	tap_has "$(said address)" "inet $ADDRESS/24" "by the address that it has by DHCP"
}

# stream STEP COMMAND ARGS...: the host's end of what the guest connects to for its STEP.
stream() {
	local step=$1 start=$SECONDS
	busybox nc -l -p "$PORT" -e bash -c "$2" &
	shift 2
	guest "$step" "$PORT" "$@" || details
	echo "# $step: $((SECONDS - start)) s"
}

# What is sent is one piece again and again.
check_streams() {
	local count=$((STREAM_MIB / PIECE_MIB)) give sum
	head -c "${PIECE_MIB}M" /dev/urandom >"$WORK/piece"
	give="for ((n = 0; n < $count; n++)); do cat '$WORK/piece'; done"
	sum=$(bash -c "$give" | md5sum)
	stream keep "cat '$WORK/piece'"
	stream receive "$give"
	tap_has "$(said receive)" "$sum" "$STREAM_MIB MiB come from the host as they were sent"
	stream send "md5sum >'$WORK/taken'" "$count"
	for _ in {1..20}; do [ ! -s "$WORK/taken" ] || break; sleep 0.5; done
	tap_is "$(cat "$WORK/taken")" "$sum" "$STREAM_MIB MiB go to the host as they were sent"
}

check_files() {
	local start=$SECONDS
	guest files
	tap_ok $? "packages of thousands of files come, change and go ($((SECONDS - start)) s)" \
		"$(said files | tail -n 15; details)"
}

# Until both of the guest's programs are at work; then kill for the time.
kill_all() {
	local end name
	wait_for "$STEP_SECONDS" '^net: working' && wait_for "$STEP_SECONDS" '^disk: working' || return
	end=$((SECONDS + KILL_SECONDS))
	while [ $SECONDS -lt $end ]; do
		sleep 0.2
		for name in blk net; do device_kill "$name" && device_start "$name"; done
	done
}

# How often a successor of it was found, and which part of the time from first to last one was there.
served() { grep -c " $1 .*: a back end is there again" "$WORK/vmm"; }
presence() {
	awk -v name=" $1 " 'index($0, name) && /has gone/ { last = $1; first = first ? first : $1
			if (came) there += $1 - came; came = 0 }
		index($0, name) && /there again/ { came = $1 }
		END { print int(100 * there / (last - first + 0.001)) }' "$WORK/vmm"
}

# The words after NAME in what the guest's or the host's end of the work said.
number() { sed -n "s/^$1: //p" | sed 's/ end$//'; }
total() { local sum=0 n; for n in $(number "$1"); do sum=$((sum + n)); done; echo "$sum"; }

check_killed() {
	local name work
	"$NET_WORK" serve >"$WORK/host" 2>&1 &
	send "./devices work $WORK_MIB $((KILL_SECONDS + 10))"
	kill_all
	finishes work
	tap_ok $? "it works, its disk killed ${KILLED[blk]} times and its network ${KILLED[net]} times" \
		"$(said work; details)"
	for name in blk net; do
		[ "${KILLED[$name]}" -gt 0 ] && [ $(($(served $name) * SERVED_IN)) -ge "${KILLED[$name]}" ]
		tap_ok $? "$(served $name) times a moat-$name served in between, $(presence $name)% of the time"
	done
	work=$(said work)
	sed 's/^/# /' <<<"$work"
	echo "# $(($(total 'disk: rounds' <<<"$work") * WORK_MIB / 6)) MiB written, flushed and read back," \
		"$(($(total 'net: sent' <<<"$work") >> 20)) MiB sent," \
		"$(($(total 'net: received' <<<"$work") >> 20)) MiB received"
	tap_is "$(number received <"$WORK/host")" "$(number 'net: sent' <<<"$work")" \
		"what the guest sent has arrived"
	tap_is "$(number 'net: received' <<<"$work")" "$(number sent <"$WORK/host")" \
		"what the host sent has arrived"
	read -ra ROUNDS < <(number 'disk: rounds' <<<"$work")
	guest log
	tap_ok $? "the guest's kernel has nothing to complain of" "$(said log)"
}

check_end() {
	local name
	send poweroff
	for _ in {1..600}; do kill -0 "$VMM" 2>/dev/null || break; sleep 0.5; done
	kill -0 "$VMM" 2>/dev/null && kill "$VMM"
	wait "$VMM"
	tap_is $? 0 "it powers off, and moat-vmm ends with status 0"
	for name in "${!PID[@]}"; do
		kill "${PID[$name]}" && wait "${PID[$name]}"
		tap_is $? 0 "moat-$name ends when told to"
	done
	tap_is "$(cat "$WORK/devices")" '' "they have nothing to complain of"
	tap_is "$(processes)" '' "no process is left"
	kill "$DHCP"
	tunctl -d "$TAP" >/dev/null; ip link set "$BRIDGE" down; brctl delbr "$BRIDGE"
	tap_is "$(ip -o link | grep -v ' lo:')" '' "nobody holds the tap or the bridge"
}

check_disk() {
	local out seen
	out=$(e2fsck -fn "$DISK_ROOT" 2>&1)
	tap_ok $? "e2fsck -fn finds nothing" "$out"
	debugfs -R "dump /root/work $WORK/work" "$DISK_ROOT" 2>/dev/null
	out=$("$DISK_WORK" "$WORK/work" "${ROUNDS[@]}" 2>&1)
	tap_ok $? "the file is what the guest wrote in its rounds ${ROUNDS[*]}" "$out"
	printf X | dd of="$WORK/work" bs=1 seek=5000001 conv=notrunc status=none
	if "$DISK_WORK" "$WORK/work" "${ROUNDS[@]}" >/dev/null 2>&1; then seen=1; else seen=0; fi
	tap_ok "$seen" "one byte changed in it is seen"
}

inside() {
	STREAM_MIB=$1 KILL_SECONDS=$2 ROUNDS=()
	WORK=$(mktemp -d)
	mount -t tmpfs -o size=100% tmpfs "$WORK" && disk_make && network_make && devices_start || exit 1
	if boots; then
		check_drivers
		check_address
		check_streams
		check_files
		check_killed
	fi
	check_end
	check_disk
	tap_end
}

case ${1:-} in
--inside)
	shift
	exec unshare --net "$0" --in-network "$@" ;;
--in-network)
	shift
	inside "$@" ;;
esac
if [ "$PEER" != moat ]; then
	tap_skip devices "KVM has no windows, without which the gate's requests have to be small"
	tap_end
fi
lab_self --mem 3G -- "${STREAM_MIB:-1024}" "${KILL_SECONDS:-120}"
