#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with a socket device that moat-vsock serves. Guest and host have many
# connections to each other, in both directions, and check each byte that comes back. (Where its back end
# goes, QEMU does not look for another one: that is for selftests/vmctl_devices.sh.)
#
# Runs on this machine. By the name of vsock_serve_packed, the guest's rings are packed. Environment:
# WORK_SECONDS (5), the time that the guest works; QEMU, the command of another QEMU.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
VSOCK=$TOP/build/bin/moat-vsock
GUEST=$TOP/build/selftests/vhost/vsock_work
WORK_SECONDS=${WORK_SECONDS:-5}
COMES_BACK=''
PACKED=off
[[ $0 != *_packed ]] || PACKED=on

# good NAME SAID: rounds there were, and none of another outcome.
good() {
	local rounds
	rounds=$(sed -n 's/^rounds: //p' <<<"$2")
	tap_is "$(grep -E '^(broken|wrong|stuck):' <<<"$2" | tr '\n' ' ')" 'broken: 0 wrong: 0 stuck: 0 ' \
		"none of $1's $rounds connections breaks, or has a wrong byte"
	[ "${rounds:-0}" -gt 20 ]
	tap_ok $? "there were some, and $(sed -n 's/^bytes: //p' <<<"$2") bytes came back" "$2"
}

need vsock_serve "$VSOCK" "$GUEST"
initramfs "$GUEST" vmw_vsock_virtio_transport
mkdir "$WORK/sockets"
start_device "$VSOCK" --cid 42 --listen "$WORK/sockets/vsock"
wait_for_socket
chmod -R a+rwX "$WORK" "$WORK/sockets"
(umask 0; exec "$GUEST" host "$WORK/sockets/vsock") >"$WORK/host" 2>&1 &
OTHER_PID=$!
start_qemu "$WORK_SECONDS" -device "vhost-user-vsock-pci,chardev=device,packed=$PACKED"
wait_for 60 '^working'
tap_ok $? "the guest has connections" "$(messages)"
read -r OWN ANONYMOUS < <(own_memory)
wait_for $((WORK_SECONDS + 30)) '^work: end'
tap_ok $? "the guest comes to its end" "$(messages)"
kill -TERM "$OTHER_PID" && wait "$OTHER_PID"
tap_is "$(said many)" 200 "200 connections at once"
good "the guest" "$(tr -d '\r' <"$WORK/console")"
good "the host" "$(cat "$WORK/host")"
tap_is "$(said ended)" 0 "a connection by which nothing comes stays"
tap_own moat-vsock
tap_is "$(cat "$WORK/device.err")" '' "moat-vsock has nothing to complain of"
tap_end
