#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with a network that moat-net serves, by two pairs of queues, on a tap
# in a network namespace of this test's. While guest and host send each other TCP streams, moat-net is
# killed again and again, and started anew. All streams must go on, and arrive whole.
#
# Runs on this machine. Environment: WORK_SECONDS (30), the time that the guest works; NET_OPTIONS,
# more for moat-net; QEMU, the command of another QEMU, one that knows reconnect=1.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
if [ -z "${IN_NAMESPACE:-}" ]; then
	if unshare -n true 2>/dev/null; then exec env IN_NAMESPACE=1 unshare -n "$0" "$@"; fi
	if unshare -rn true 2>/dev/null; then
		exec env IN_NAMESPACE=1 IN_USER_NAMESPACE=1 unshare -rn "$0" "$@"
	fi
	tap_skip net_restart "no network namespace can be made here"
	tap_end
fi
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
NET=$TOP/build/bin/moat-net
GUEST=$TOP/build/selftests/vhost/net_work
WORK_SECONDS=${WORK_SECONDS:-30}
PAUSE=3
TAP=moat0

# shellcheck disable=SC2086
start_net() { start_device "$NET" --tap "$TAP" --queues 2 ${NET_OPTIONS:-}; }

# host NAME: what the host's end has said of it.
host() { sed -n "s/^$1: //p" "$WORK/host"; }

need net_restart "$NET" "$GUEST"
OUT=$("$GUEST" tap "$TAP") || { tap_skip net_restart "$OUT"; tap_end; }
initramfs "$GUEST" virtio_net
"$GUEST" serve >"$WORK/host" 2>&1 &
OTHER_PID=$!
start_net
wait_for_socket
start_qemu "$WORK_SECONDS" -netdev vhost-user,id=net,chardev=device,queues=2 \
	-device virtio-net-pci,netdev=net,mq=on,romfile=,mac=02:00:00:00:00:02
wait_for 60 '^working'
BOOTED=$?
tap_ok "$BOOTED" "the guest reaches the host" "$(messages)"
[ "$BOOTED" = 0 ] || tap_end
kill_and_restart $((WORK_SECONDS - 2 * PAUSE)) "$PAUSE" start_net
wait_for "$((4 * PAUSE + 60))" '^received: .* end'
ENDED=$?
tap_ok "$ENDED" "the guest comes to its end, moat-net killed $KILLS times" "$(messages)"
[ "$ENDED" = 0 ] || tap_end
wait "$OTHER_PID"
tap_ok $? "so does the host's end" "$(cat "$WORK/host")"
tap_is "$(tr -d '\r' <"$WORK/console" | grep -a '^error')" 'errors: 0' "the guest sees no error"
tap_is "$(host received)" "$(said sent)" "what the guest sent has arrived: $(said sent)"
tap_is "$(said received)" "$(host sent)" "what the host sent has arrived: $(host sent)"
tap_own moat-net
tap_is "$(cat "$WORK/device.err")" '' "moat-net has nothing to complain of"
tap_end
