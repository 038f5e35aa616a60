#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# An ext4 image that the guest writes over virtio-blk is sound afterwards, and holds what was
# written.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
for program in vmctl mkfs.ext4 e2fsck debugfs; do
	command -v "$program" >/dev/null || {
		tap_skip "vmctl_disk" "there is no $program"
		tap_end
	}
done
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
IMAGE=$WORK/disk.img

truncate -s 64M "$IMAGE"
mkfs.ext4 -q -F "$IMAGE"

# The guest's half: a file whose sum the guest knows, many small ones, one deleted.
GUEST='
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt || exit 20
dd if=/dev/urandom of=/mnt/big bs=64k count=200 2>/dev/null || exit 21
i=0; while [ $i -lt 200 ]; do echo "file $i" >/mnt/small$i; i=$((i+1)); done
rm /mnt/small77
sync
sha256sum </mnt/big
umount /mnt || exit 22
'
OUT=$(timeout 100 vmctl run --disk "$IMAGE" -- sh -c "$GUEST" 2>"$WORK/err" </dev/null)
tap_is "$?" 0 "the guest mounts, writes and unmounts"
tail -n 5 "$WORK/err" | sed 's/^/# /'
CHECK=$(e2fsck -fn "$IMAGE" 2>&1)
tap_ok $? "e2fsck -fn finds nothing" "$CHECK"
SUM=$(debugfs -R 'cat /big' "$IMAGE" 2>/dev/null | sha256sum)
tap_is "$SUM" "$OUT" "the big file is what the guest wrote"
tap_is "$(debugfs -R 'cat /small123' "$IMAGE" 2>/dev/null)" "file 123" "a small file is what the guest wrote"
tap_is "$(debugfs -R 'ls -p /' "$IMAGE" 2>/dev/null | grep -c /small)" 199 "all small files but one are there"

# What is on it, the next guest reads.
OUT=$(timeout 100 vmctl run --disk "$IMAGE" -- sh -c \
	'mkdir -p /mnt && mount -t ext4 -o ro /dev/vda /mnt && sha256sum </mnt/big' 2>/dev/null </dev/null)
tap_is "$OUT" "$SUM" "another guest reads the same"

# Bit 34 of each device's features, as negotiated; two devices at least: the disk and vmctl's own.
OUT=$(timeout 100 vmctl run --disk "$IMAGE" -- sh -c \
	'cut -c35 /sys/bus/virtio/devices/*/features' 2>/dev/null </dev/null)
tap_is "$(sort -u <<<"$OUT")" 1 "the guest's rings are packed"
tap_ok "$(($(wc -l <<<"$OUT") < 2))" "of all its devices" "$OUT"
tap_end
