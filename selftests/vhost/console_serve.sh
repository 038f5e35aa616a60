#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with a console and a port that moat-console serves, on pipes of this
# script's. The guest says a line on the console, and sends back what comes by the port. (Of such a
# device QEMU aborts where its back end goes.)
#
# Runs on this machine. Environment: QEMU, the command of another QEMU that has the device
# vhost-user-test-device-pci.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
CONSOLE=$TOP/build/bin/moat-console
GUEST=$TOP/build/selftests/vhost/console_work
DEVICE=vhost-user-test-device-pci
LINES_SENT=100
NAME=moat.test
COMES_BACK=''

# answer LINE: what comes back of it by the port.
answer() {
	local got=''
	echo "$1" >&7
	read -r -t 20 got <&8
	echo "$got"
}

need console_serve "$CONSOLE" "$GUEST"
qemu_command
"${COMMAND[@]}" -device help 2>/dev/null | grep -q "\"$DEVICE\"" ||
	{ tap_skip console_serve "this QEMU has no $DEVICE"; tap_end; }
initramfs "$GUEST" virtio_console
# Open in both directions, so that neither end waits for the other, nor sees it go.
mkfifo "$WORK"/{console,port}.{in,out}
exec 5<>"$WORK/console.in" 6<>"$WORK/console.out" 7<>"$WORK/port.in" 8<>"$WORK/port.out"
start_device "$CONSOLE" --console "$WORK/console.in,$WORK/console.out" \
	--port "$NAME,$WORK/port.in,$WORK/port.out"
wait_for_socket
start_qemu '' -device "$DEVICE,chardev=device,virtio-id=3,num_vqs=6,config_size=12"
wait_for 60 '^working'
BOOTED=$?
tap_ok "$BOOTED" "the guest finds console and port" "$(messages)"
[ "$BOOTED" = 0 ] || tap_end
tap_is "$(said name)" "$NAME" "the port has its name"
read -r -t 20 LINE <&6
LINE=${LINE:-}
tap_is "${LINE%$'\r'}" 'a console' "what the guest says on its console arrives"
FAULTS=''
for ((i = 1; i <= LINES_SENT; i++)); do
	[ "$(answer "line $i")" = "line $i" ] || FAULTS+="line $i "
done
tap_is "$FAULTS" '' "each of $LINES_SENT lines comes back"
read -r OWN ANONYMOUS < <(own_memory)
tap_own moat-console
tap_is "$(answer end)" end "so does the last one"
wait_for 20 '^echo: end'
tap_ok $? "the guest comes to its end" "$(messages)"
tap_is "$(tr -d '\r' <"$WORK/console" | grep -a '^error')" '' "the guest sees no error"
tap_is "$(cat "$WORK/device.err")" '' "moat-console has nothing to complain of"
tap_end
