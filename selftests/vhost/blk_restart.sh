#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU (no hypervisor: TCG) boots Debian's kernel with a disk that moat-blk serves, by several
# queues. While the guest writes, flushes and reads back, moat-blk is killed again and again, and
# started anew. The guest must see no error, and the disk must hold at last what the guest wrote.
#
# Runs on this machine. By the name of blk_restart_packed, the guest's rings are packed, and without
# indirect tables, so that what is in flight takes several descriptors of the ring.
#
# Environment: WORK_SECONDS (40), the time that the guest works; DISK, a file or block device to be used,
# and overwritten, instead of a new file; BLK_OPTIONS, more for moat-blk; QEMU, the command of another
# QEMU, one that knows reconnect=1.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
CACHE=$TOP/build/cache
KERNEL=$CACHE/kernel-6.1
BLK=$TOP/build/bin/moat-blk
GUEST=$TOP/build/selftests/vhost/disk_work
WORK_SECONDS=${WORK_SECONDS:-40}
RINGS=split RING_OPTIONS=packed=off
[[ $0 != *_packed ]] || RINGS=packed RING_OPTIONS=packed=on,indirect_desc=off
PAUSE=3
DISK_SIZE=48M
OWN_KIB=1024
WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-vhost.XXXXXX")
BLK_PID='' QEMU_PID=''
DISK=${DISK:-$WORK/disk}
trap 'end_all 2>/dev/null; rm -rf "$WORK"' EXIT

end_all() {
	local pid
	for pid in $BLK_PID $QEMU_PID; do kill -9 "$pid"; done
	wait
}

initramfs() {
	local tree=$WORK/tree n=0 file
	mkdir -p "$tree"/{dev,sys,modules}
	cp "$GUEST" "$tree/init"
	for file in $(PATH=$PATH:/sbin:/usr/sbin modprobe -S "$(ls "$KERNEL/lib/modules")" \
		-d "$(realpath "$KERNEL")" --show-depends -a virtio_pci virtio_blk |
		awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
		cp "$file" "$tree/modules/$(printf %02d.ko $n)"
		n=$((n + 1))
	done
	(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet) >"$WORK/initramfs"
}

# shellcheck disable=SC2086
start_blk() {
	local user=()
	[ "$(id -u)" != 0 ] || user=(--uid 65534 --gid 65534)
	"$BLK" --disk "$DISK" --socket "$WORK/socket" --queues 2 --serial moat-vhost \
		"${user[@]}" ${BLK_OPTIONS:-} 2>>"$WORK/blk.err" &
	BLK_PID=$!
}

# The emulator that the lab has, on its own loader and libraries; else Debian's.
qemu_command() {
	local root=$CACHE/qemu/root
	RECONNECT=reconnect=1
	if [ -n "${QEMU:-}" ]; then
		read -ra COMMAND <<<"$QEMU"
	elif [ -f "$root/../done" ]; then
		COMMAND=("$root/usr/lib64/ld-linux-x86-64.so.2" --library-path
			"$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/qemu-system-x86_64"
			-L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
		RECONNECT=reconnect-ms=1000
	else
		COMMAND=(qemu-system-x86_64)
	fi
}

start_qemu() {
	: >"$WORK/console"
	qemu_command
	"${COMMAND[@]}" -accel tcg,thread=multi -machine q35,memory-backend=mem -cpu max -smp 2 -m 256M \
		-object memory-backend-memfd,id=mem,size=256M,share=on \
		-nodefaults -no-user-config -display none -no-reboot -serial stdio \
		-kernel "$KERNEL/vmlinuz" -initrd "$WORK/initramfs" \
		-append "console=ttyS0 quiet panic=-1 -- $WORK_SECONDS" \
		-chardev "socket,id=disk,path=$WORK/socket,$RECONNECT" \
		-device vhost-user-blk-pci,chardev=disk,num-queues=2,$RING_OPTIONS \
		>"$WORK/console" 2>"$WORK/qemu.err" </dev/null &
	QEMU_PID=$!
}

# wait_for SECONDS TEXT: until the guest has said it.
wait_for() {
	local i
	for ((i = 0; i < $1 * 10; i++)); do
		! grep -q "$2" "$WORK/console" || return 0
		kill -0 "$QEMU_PID" 2>/dev/null || break
		sleep 0.1
	done
	grep -q "$2" "$WORK/console"
}

# Memory of moat-blk's own, in KiB: what it has changed, and shares with nobody.
own_memory() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { shared = $2 ~ /s$/ }
		/^Private_Dirty:/ && !shared { own += $2 }
		/^Anonymous:/ { anonymous += $2 }
		END { print own + 0, anonymous + 0 }' "/proc/$BLK_PID/smaps"
}

messages() { tail -n 5 "$WORK/console" "$WORK/qemu.err" "$WORK/blk.err"; }

kill_and_restart() {
	local until=$((SECONDS + WORK_SECONDS - 2 * PAUSE)) own anonymous
	KILLS=0 OWN=0 ANONYMOUS=0
	while [ $SECONDS -lt $until ]; do
		sleep "$PAUSE.$((RANDOM % 10))"
		read -r own anonymous < <(own_memory)
		[ "${own:-0}" -le "$OWN" ] || { OWN=$own; ANONYMOUS=$anonymous; }
		kill -9 "$BLK_PID" || break
		wait "$BLK_PID" 2>/dev/null
		start_blk
		KILLS=$((KILLS + 1))
	done
}

# What must be there, for a run at all.
for need in "$BLK" "$GUEST" "$KERNEL/vmlinuz"; do
	[ -e "$need" ] || { tap_skip "blk_restart" "there is no $need"; tap_end; }
done
initramfs
[ -e "$DISK" ] || truncate -s "$DISK_SIZE" "$DISK"
start_blk
for _ in {1..50}; do [ ! -S "$WORK/socket" ] || break; sleep 0.1; done
start_qemu
wait_for 60 '^working'
BOOTED=$?
tap_ok "$BOOTED" "the guest finds its disk" "$(messages)"
[ "$BOOTED" = 0 ] || tap_end
kill_and_restart
wait_for "$((4 * PAUSE + 30))" '^rounds: .* end'
tap_ok $? "the guest comes to its end, moat-blk killed $KILLS times" \
	"$(messages)"
tap_is "$(tr -d '\r' <"$WORK/console" | grep -a '^error')" 'errors: 0' "the guest sees no error"
tap_is "$(tr -d '\r' <"$WORK/console" | grep -a '^rings')" "rings: $RINGS" "its rings are $RINGS"
read -ra ROUNDS < <(tr -d '\r' <"$WORK/console" | sed -n 's/^rounds: \(.*\) end$/\1/p')
OUT=$("$GUEST" "$DISK" "${ROUNDS[@]}" 2>&1)
tap_ok $? "the disk holds what the guest wrote in its rounds ${ROUNDS[*]}" "$OUT"
[ "$OWN" -gt 0 ] && [ "$OWN" -le "$OWN_KIB" ]
tap_ok $? "moat-blk has $OWN KiB of its own, $ANONYMOUS of them anonymous; at most $OWN_KIB"
tap_is "$(cat "$WORK/blk.err")" '' "moat-blk has nothing to complain of"
tap_end
