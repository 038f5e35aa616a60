#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A disk that is up to no good (vhost/attack_device.c), behind the gate, and beside it with all of memory:
# what of the guest's memory it ever gets to see, or to alter. vhost/attack.sh shows it behind stock QEMU.

. selftests/lib/tap.sh

HERE=$(cd "$(dirname "$0")" && pwd)
WORK=$(mktemp -d)
DEVICE=
trap '[ -z "$DEVICE" ] || kill -KILL "$DEVICE" 2>/dev/null; rm -rf "$WORK"' EXIT
UNITS=$((2048 * 256)) ASKED=$((64 * 32 + 64 * 256 + 128 * 256))
chmod 755 "$WORK"

# attack ISOLATION: SEEN and ALTERED, each of memory that is in no request, and of such that is in some.
attack() {
	rm -f "$WORK"/{socket,disk,err,out}
	truncate -s 16M "$WORK/disk"
	"$HERE/vhost/attack_device" --disk "$WORK/disk" --socket "$WORK/socket" --uid 65534 --gid 65534 \
		2>"$WORK/err" &
	DEVICE=$!
	disown
	for _ in $(seq 100); do [ -S "$WORK/socket" ] && break; sleep 0.1; done
	timeout -k 5 100 vmctl run --mem 128M --device-socket "blk,$WORK/socket,isolation=$1" -- \
		"$HERE/vhost/attack_guest" 6 >"$WORK/out" 2>&1 </dev/null
	STATUS=$?
	kill -HUP "$DEVICE"
	for _ in $(seq 50); do grep -q '^seen: ' "$WORK/err" && break; sleep 0.1; done
	kill -KILL "$DEVICE"
	DEVICE=
	read -ra SEEN < <(sed -n 's/^seen: //p' "$WORK/err")
	read -ra ALTERED < <(tr -d '\r' <"$WORK/out" | sed -n 's/^altered: //p')
}

share() { awk "BEGIN { printf \"%.2f%%\", 100 * $1 / $UNITS }"; }

attack shared
tap_ok "$STATUS" "shared: the guest's requests are served, by a disk that attacks it" \
	"$(cat "$WORK/out" "$WORK/err")"
[ "${SEEN[0]:-0}" = "$UNITS" ] && [ "${ALTERED[0]:-0}" -gt 0 ]
tap_ok $? "shared: it sees $(share "${SEEN[0]:-0}") of memory that is in no request, alters $(share "${ALTERED[0]:-0}")" \
	"seen ${SEEN[*]}, altered ${ALTERED[*]}"
attack grant
tap_ok "$STATUS" "grant: the guest's requests are served, by a disk that attacks it" \
	"$(cat "$WORK/out" "$WORK/err")"
tap_is "${SEEN[0]} ${ALTERED[0]}" '0 0' "grant: it sees nothing of memory that is in no request, and alters none"
[ "${SEEN[1]:-0}" -gt 0 ] && [ "${SEEN[1]:-0}" -le "$ASKED" ]
tap_ok $? "grant: it sees ${SEEN[1]} units of 16 bytes, all of the $ASKED that are in requests" \
	"seen ${SEEN[*]}, altered ${ALTERED[*]}"
tap_is "${ALTERED[1]}" 0 "grant: and alters none of what it is to read"
tap_end
