#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A guest's disk served by another process, over vhost-user: QEMU's storage daemon, as Debian has it,
# behind the gate (isolation=grant) and with all of memory (isolation=shared). The daemon is killed again
# and again while the guest writes; the guest notices nothing, and the file system is sound and holds
# what was written.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
for program in vmctl mkfs.ext4 e2fsck debugfs; do
	command -v "$program" >/dev/null || {
		tap_skip "vmctl_vhost" "there is no $program"
		tap_end
	}
done
# The one of the ABI tests' tree, on its own loader and libraries, where this machine has none.
CACHE=$(cd "$(dirname "$0")/../cache" 2>/dev/null && pwd)
TREE=$CACHE/abi-root
if command -v qemu-storage-daemon >/dev/null; then
	DAEMON=(qemu-storage-daemon)
elif [ -x "$TREE/usr/bin/qemu-storage-daemon" ]; then
	DAEMON=("$TREE/lib64/ld-linux-x86-64.so.2"
		--library-path "$TREE/lib/x86_64-linux-gnu:$TREE/usr/lib/x86_64-linux-gnu"
		"$TREE/usr/bin/qemu-storage-daemon")
else
	tap_skip "vmctl_vhost" "there is no qemu-storage-daemon"
	tap_end
fi
WORK=$(mktemp -d)
BACKEND=
trap 'backend_kill; rm -rf "$WORK"' EXIT
IMAGE=$WORK/disk.img
SOCKET=$WORK/socket

# Reads are held up, and writes overtake them: what is in flight when it dies is not what came last.
backend_start() {
	rm -f "$SOCKET"
	"${DAEMON[@]}" --object throttle-group,id=slow,limits.iops-read=60 \
		--blockdev "driver=file,node-name=file,filename=$IMAGE" \
		--blockdev driver=throttle,throttle-group=slow,node-name=disk,file=file \
		--export "vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path=$SOCKET" \
		</dev/null >>"$WORK/daemon" 2>&1 &
	BACKEND=$!
	disown
	for _ in $(seq 300); do
		[ -S "$SOCKET" ] && return
		sleep 0.1
	done
	echo "# the storage daemon does not come up: $(tail -n 3 "$WORK/daemon")"
}

backend_kill() {
	[ -z "$BACKEND" ] || kill -KILL "$BACKEND" 2>/dev/null
	while [ -n "$BACKEND" ] && [ -e "/proc/$BACKEND" ]; do sleep 0.02; done
	BACKEND=
}

said() { tail -n 8 "$WORK/err" | sed 's/^/# /'; }

truncate -s 64M "$IMAGE"
mkfs.ext4 -q -F "$IMAGE"

# What is asked for is not there, or not good.
refused() {
	OUT=$(vmctl run --device-socket "$1" -- true 2>&1 </dev/null)
	tap_is "$?" 125 "refused: $3"
	tap_has "$OUT" "$2" "and why"
}
refused "blk,$SOCKET,isolation=some" "grant or shared" "an isolation that is none"
refused "tape,$SOCKET,isolation=shared" "blk, net" "a type that is none"
refused "blk,$SOCKET" "cannot connect" "a back end that is not there"

# The guest's half: eight writers and readers at once, round by round, and at the end all is read
# from the disk. Whether its rings are packed is bit 34 of the features.
GUEST='
echo "round 0, packed: $(cut -c35 /sys/block/vda/device/features)"
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt || exit 20
for w in 1 2 3 4 5 6 7 8; do head -c 400000 /dev/urandom >/source$w; done
for round in 1 2 3 4 5 6 7 8; do
	for w in 1 2 3 4 5 6 7 8; do
		dd if=/source$w of=/mnt/file$((round % 4)).$w bs=4k conv=fsync 2>/dev/null &
		dd if=/dev/vda of=/dev/null bs=4k count=6 skip=$((round * 300 + w * 20)) iflag=direct 2>/dev/null &
	done
	wait
	echo "round $round"
done
sync
echo 3 >/proc/sys/vm/drop_caches
for f in 0 1 2 3; do
	for w in 1 2 3 4 5 6 7 8; do cmp /source$w /mnt/file$f.$w || exit 21; done
done
for w in 1 2 3 4 5 6 7 8; do sha256sum </source$w; done
umount /mnt || exit 22
'

# wait_for COMMAND...: until it is true, or the guest has ended.
wait_for() {
	for _ in $(seq 1500); do
		"$@" && return
		[ -e "/proc/$GUEST_PID" ] || return
		sleep 0.1
	done
}

# shellcheck disable=SC2317
came_to() { grep -q "^round $1" "$WORK/out"; }
returned() { grep -c 'a back end is there again' "$WORK/err"; }
# shellcheck disable=SC2317
has_returned() { [ "$(returned)" -ge "$1" ]; }

# killed_again_and_again ISOLATION PACKED
killed_again_and_again() {
	backend_start
	timeout -k 5 200 vmctl run --cpus 2 --device-socket "blk,$SOCKET,isolation=$1" -- sh -c "$GUEST" \
		>"$WORK/out" 2>"$WORK/err" </dev/null &
	GUEST_PID=$!
	KILLED=0
	wait_for came_to 1
	while [ -e "/proc/$GUEST_PID" ] && ! came_to 7 && [ "$KILLED" -lt 30 ]; do
		backend_kill
		backend_start
		KILLED=$((KILLED + 1))
		wait_for has_returned "$KILLED"
		sleep "$((KILLED % 2)).$((KILLED * 3 % 10))"
	done
	wait "$GUEST_PID"
	tap_is "$?" 0 "$1: the guest writes, and reads the same, from a disk whose server dies $KILLED times"
	tap_is "$(returned)" "$KILLED" "$1: the launcher says so each time"
	said
	tap_is "$(sed -n 's/^round 0, packed: //p' "$WORK/out")" "$2" "$1: packed rings: $2"
	backend_kill
	CHECK=$(e2fsck -fn "$IMAGE" 2>&1)
	tap_ok $? "$1: e2fsck -fn finds nothing" "$CHECK"
	SUMS=$(for w in 1 2 3 4 5 6 7 8; do debugfs -R "cat /file3.$w" "$IMAGE" 2>/dev/null | sha256sum; done)
	tap_is "$SUMS" "$(grep -v round "$WORK/out")" "$1: the files are what the guest wrote"
}
killed_again_and_again shared 0
killed_again_and_again grant 1

# A driver that resets the device, and sets it up again, finds it as a new machine does.
backend_start
OUT=$(timeout -k 5 100 vmctl run --cpus 2 --device-socket "blk,$SOCKET" -- sh -c '
device=$(basename "$(readlink /sys/block/vda/device)")
mkdir -p /mnt && mount -t ext4 -o ro /dev/vda /mnt && sha256sum </mnt/file3.1 && umount /mnt || exit 20
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind && [ ! -e /dev/vda ] || exit 21
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind || exit 22
mount -t ext4 -o ro /dev/vda /mnt && sha256sum </mnt/file3.1' 2>"$WORK/err" </dev/null)
SUM=$(head -n 1 <<<"$SUMS")
tap_is "$OUT" "$SUM
$SUM" "another guest of two CPUs reads the same, and again after a reset"
said

# A directory of the host's, by the lab's own virtiofsd.
directory() {
	local root=$CACHE/qemu/root server
	if [ ! -x "$root/usr/libexec/virtiofsd" ]; then
		tap_skip "a directory by virtiofs" "there is no virtiofsd"
		return
	fi
	mkdir "$WORK/shared"
	head -c 1000000 /dev/urandom >"$WORK/shared/file"
	"$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
		"$root/usr/libexec/virtiofsd" --socket-path="$WORK/fs" --shared-dir="$WORK/shared" \
		--tag=host --sandbox=none --seccomp=none >/dev/null 2>&1 &
	server=$!
	disown
	for _ in $(seq 100); do [ -S "$WORK/fs" ] && break; sleep 0.1; done
	OUT=$(timeout -k 5 100 vmctl run --device-socket "fs,$WORK/fs" -- sh -c \
		'mkdir -p /mnt && mount -t virtiofs host /mnt && sha256sum </mnt/file && cp /mnt/file /mnt/copy' \
		2>"$WORK/err" </dev/null)
	kill -KILL "$server" 2>/dev/null
	tap_is "$OUT" "$(sha256sum <"$WORK/shared/file")" "the guest reads a directory of the host's"
	said
	cmp "$WORK/shared/file" "$WORK/shared/copy"
	tap_ok $? "and writes there"
}
directory
tap_end
