#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with an entropy source that moat-rng serves, and the guest reads from
# it. (Of such a device QEMU aborts where its back end goes.)
#
# Runs on this machine. Environment: WORK_SECONDS (3), the time that the guest works; QEMU, the command
# of another QEMU.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
RNG=$TOP/build/bin/moat-rng
GUEST=$TOP/build/selftests/vhost/rng_work
WORK_SECONDS=${WORK_SECONDS:-3}
COMES_BACK=''

need rng_serve "$RNG" "$GUEST"
initramfs "$GUEST" virtio_rng
start_device "$RNG"
wait_for_socket
start_qemu "$WORK_SECONDS" -device vhost-user-rng-pci,chardev=device
wait_for 60 '^working'
tap_ok $? "the guest reads random bytes" "$(messages)"
read -r OWN ANONYMOUS < <(own_memory)
wait_for $((WORK_SECONDS + 30)) '^blocks: .* end'
tap_ok $? "the guest comes to its end" "$(messages)"
tap_is "$(said errors)" 0 "all of its $(said blocks | sed 's/ end//') blocks of 4 KiB were random"
tap_own moat-rng
tap_is "$(cat "$WORK/device.err")" '' "moat-rng has nothing to complain of"
tap_end
