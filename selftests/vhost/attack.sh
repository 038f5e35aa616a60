#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A disk that is up to no good (attack_device.c) behind stock QEMU, where each device of vhost-user has
# all of the guest's memory. It is here to show that the attack works; vmctl_attack.sh shows Moat.
#
# Runs on this machine. Environment: see lib.sh.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
DEVICE=$TOP/build/selftests/vhost/attack_device
GUEST=$TOP/build/selftests/vhost/attack_guest
UNITS=$((2048 * 256))

need attack "$DEVICE" "$GUEST"
initramfs "$GUEST" virtio_blk
truncate -s 16M "$WORK/disk"
COMES_BACK=
start_device "$DEVICE" --disk "$WORK/disk"
wait_for_socket
start_qemu 8 -device vhost-user-blk-pci,chardev=device,num-queues=1
wait_for 90 '^altered: '
tap_ok $? "QEMU: the guest's requests are served, by a disk that attacks it" "$(messages)"
kill -HUP "$DEVICE_PID"
for _ in {1..50}; do ! grep -q '^seen: ' "$WORK/device.err" || break; sleep 0.1; done
read -r SEEN _ < <(sed -n 's/^seen: //p' "$WORK/device.err")
read -r ALTERED _ < <(said altered)
[ "${SEEN:-0}" = "$UNITS" ] && [ "${ALTERED:-0}" -gt 0 ]
tap_ok $? "QEMU: it sees ${SEEN:-0} of $UNITS units of memory that is in no request, alters ${ALTERED:-0}" \
	"$(messages)"
tap_end
