#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with a disk that moat-blk serves, by several queues. While the guest
# writes, flushes and reads back, moat-blk is killed again and again, and started anew. The guest must
# see no error, and the disk must hold at last what the guest wrote.
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
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
BLK=$TOP/build/bin/moat-blk
GUEST=$TOP/build/selftests/vhost/disk_work
WORK_SECONDS=${WORK_SECONDS:-40}
RINGS=split RING_OPTIONS=packed=off
[[ $0 != *_packed ]] || RINGS=packed RING_OPTIONS=packed=on,indirect_desc=off
PAUSE=3
DISK_SIZE=48M
DISK=${DISK:-$WORK/disk}

# shellcheck disable=SC2086
start_blk() { start_device "$BLK" --disk "$DISK" --queues 2 --serial moat-vhost ${BLK_OPTIONS:-}; }

need blk_restart "$BLK" "$GUEST"
initramfs "$GUEST" virtio_blk
[ -e "$DISK" ] || truncate -s "$DISK_SIZE" "$DISK"
start_blk
wait_for_socket
start_qemu "$WORK_SECONDS" -device vhost-user-blk-pci,chardev=device,num-queues=2,$RING_OPTIONS
wait_for 60 '^working'
BOOTED=$?
tap_ok "$BOOTED" "the guest finds its disk" "$(messages)"
[ "$BOOTED" = 0 ] || tap_end
kill_and_restart $((WORK_SECONDS - 2 * PAUSE)) "$PAUSE" start_blk
wait_for "$((4 * PAUSE + 30))" '^rounds: .* end'
tap_ok $? "the guest comes to its end, moat-blk killed $KILLS times" "$(messages)"
tap_is "$(tr -d '\r' <"$WORK/console" | grep -a '^error')" 'errors: 0' "the guest sees no error"
tap_is "$(said rings)" "$RINGS" "its rings are $RINGS"
read -ra ROUNDS < <(said rounds | sed 's/ end$//')
OUT=$("$GUEST" "$DISK" "${ROUNDS[@]}" 2>&1)
tap_ok $? "the disk holds what the guest wrote in its rounds ${ROUNDS[*]}" "$OUT"
tap_own moat-blk
tap_is "$(cat "$WORK/device.err")" '' "moat-blk has nothing to complain of"
tap_end
