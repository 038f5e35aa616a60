#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Isolation of resources, as Xen's paper has it (SOSP 2003): a fork bomb and a disk hog are guests beside a victim, all
# of equal weight. The victim counts what it gets done; alone, while the others are paused, and beside them. What it
# keeps of its fair share has to be 90 percent at least.
#
# The victim is a kernel of a few bytes, which says a line for each so many turns of a loop; a second one, which reads from
# its disk, is Linux as the others are. The host has one CPU, whose clock counts instructions, so that what else this machine does is not measured: fair is
# one n-th of what n guests that want the CPU would have alone. The disk is a null_blk of a known speed, shared by BFQ,
# with a file system on which each guest's disk is a file.
#
# It is not one of scripts/check-abi's yet: it has not been seen to come to its end.
#
# usage: isolation.sh
# Environment: WINDOW (1), the seconds of the host's clock that each measurement takes; ROUNDS (3), of which the middle
# one counts.

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

SHARE_MIN=90
GROUPS_AT=/sys/fs/cgroup/moat
DISK_MBPS=16
DISK_MIB=256
FILE_MIB=48
APPEND='console=ttyS0 panic=-1 quiet ticks=no mitigations=off'

# mov $0x3f8,%dx; 1: mov $1250000,%ecx; 2: dec %ecx; jnz 2b; mov $'\n',%al; out %al,(%dx); jmp 1b
CODE_WORK='\x66\xba\xf8\x03''\xb9\xd0\x12\x13\0''\x49\x75\xfd''\xb0\x0a\xee''\xeb\xf3'

disk_make() {
	local device=/sys/kernel/config/nullb/nullb1
	modprobe null_blk nr_devices=0 && modprobe bfq || return
	mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config || return
	mkdir "$device" && echo "$DISK_MIB" >"$device/size" && echo 1 >"$device/memory_backed" &&
		echo "$DISK_MBPS" >"$device/mbps" && echo 1 >"$device/power" || return
	echo bfq >/sys/block/nullb1/queue/scheduler
	mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 /dev/nullb1 && mkdir -p "$WORK/disk" &&
		mount -o noatime /dev/nullb1 "$WORK/disk"
}

listen() { vmctl console "$1" </dev/null >"$WORK/$1.out" 2>&1 & }

victim() {
	kernel_make "$WORK/work" "$CODE_WORK" && bare_create victim "$WORK/work" --cpu-weight 100 && vmctl start victim &&
		listen victim
}

# guest NAME CPUS MEMORY: a guest with a disk of its own, that is up.
guest() {
	dd if=/dev/zero of="$WORK/disk/$1" bs=1M count="$FILE_MIB" conv=fsync status=none
	guest_create "$1" --cpus "$2" --memory "$3" --disk "$WORK/disk/$1,direct" --append "$APPEND" \
		--cpu-weight 100 --io-weight 100 --restart always && vmctl start "$1" || return
	listen "$1"
	for _ in {1..600}; do ! grep -q 'guest is up' "$WORK/$1.out" || return 0; sleep 0.5; done
	return 1
}

# What the victim has done so far, and what has been its I/O.
lines() { wc -l <"$WORK/victim.out"; }
bytes_read() { sed 's/.*rbytes=\([0-9]*\).*/\1/' "$GROUPS_AT/reader/io.stat" | awk '{ sum += $1 } END { print sum + 0 }'; }

# rate COUNTER: how much more it counts in WINDOW, a second.
rate() {
	local before begun
	before=$("$1")
	begun=$(cut -d' ' -f1 /proc/uptime)
	sleep "$WINDOW"
	awk -v got=$(($("$1") - before)) -v begun="$begun" '{ print got / ($1 - begun) }' /proc/uptime
}

# share COUNTER PARTS OTHER...: percent of its fair share that the victim keeps beside the others, which are PARTS - 1
# where they want all that they can have.
share() {
	local counter=$1 parts=$2 alone beside name
	shift 2
	for name; do vmctl pause "$name" 2>/dev/null; done
	sleep 1
	alone=$(rate "$counter")
	for name; do vmctl resume "$name"; done
	sleep 1
	beside=$(rate "$counter")
	echo "# $counter beside $*: $beside a second, $alone alone" >&2
	awk -v a="$alone" -v b="$beside" -v parts="$parts" 'BEGIN { print int(100 * parts * b / (a + 1e-9)) }'
}

# keeps COUNTER PARTS WHAT OTHER...
keeps() {
	local what=$3 shares middle
	shares=$(for _ in $(seq "$ROUNDS"); do share "$1" "$2" "${@:4}"; done | sort -n)
	middle=$(sed -n "$(((ROUNDS + 1) / 2))p" <<<"$shares")
	[ "$middle" -ge $SHARE_MIN ]
	tap_ok $? "$what: the victim keeps $middle% of its fair share" "rounds: $(xargs <<<"$shares")"
	for name in "${@:4}"; do vmctl pause "$name" 2>/dev/null; done
}

inside() {
	WINDOW=$1 ROUNDS=$2
	WORK=$(mktemp -d)
	# shellcheck source=selftests/lib/moatd.sh
	. "$TOP/selftests/lib/moatd.sh"
	disk_make
	tap_ok $? "a disk of $DISK_MBPS MiB/s shared by BFQ" "$(dmesg | tail -n 5)"
	moatd_prepare && guest_make && moatd_start && guest bomb 2 128M && guest hog 1 96M && victim
	tap_ok $? "a victim, a fork bomb, a disk hog" "$(cat "$WORK/moatd.err"; vmctl list)"
	echo "# after $SECONDS s"
	console_say bomb run '(b() { b | b & }; b) 2>/dev/null &'
	vmctl pause bomb
	console_say hog run '(while :; do dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null; done) &'
	vmctl pause hog
	keeps lines 2 "a fork bomb" bomb
	keeps lines 2 "a disk hog" hog
	keeps lines 3 "both" bomb hog
	vmctl kill victim bomb
	guest reader 1 96M
	tap_ok $? "a victim that reads from its disk" "$(vmctl list)"
	console_say reader run '(while :; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null; done) &'
	keeps bytes_read 2 "a disk hog, of what the disk gives" hog
	grep -h . "$GROUPS_AT"/*/io.stat | sed 's/^/# /'
	sed 's/^/# /' "$WORK/moatd.err"
	moatd_clean
	tap_end
}

case ${1:-} in
--inside) inside "$2" "$3" ;;
esac
if [ "$PEER" != moat ]; then
	tap_skip isolation "KVM has no windows, without which the gate's requests have to be small"
	tap_end
fi
lab_self --icount --mem 2G -- "${WINDOW:-1}" "${ROUNDS:-3}"
