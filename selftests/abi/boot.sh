#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Debian 12 from its disk in stock QEMU, through firmware and boot loader to a login on the serial
# console: it has the CPUs that it was given, fetches a file by HTTP from the host that it runs on,
# and powers itself off.
#
# usage: boot.sh VERSION MACHINE [IRQCHIP CPUS FIRMWARE]
#	7.2|10.0 q35|pc [on|split 1|4 seabios|ovmf]: without the last three, all eight of them.

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

PORT=8000
FILE_KIB=1024
OVMF=/usr/share/OVMF

# firmware NAME: QEMU's arguments for it, in FIRMWARE. SeaBIOS is what each QEMU has itself.
firmware() {
	FIRMWARE=()
	[ "$1" = ovmf ] || return 0
	cp "$TREE$OVMF/OVMF_VARS_4M.fd" "$WORK/vars.fd"
	FIRMWARE=(-drive "if=pflash,unit=0,readonly=on,format=raw,file=$OVMF/OVMF_CODE_4M.fd"
		-drive "if=pflash,unit=1,format=raw,file=$WORK/vars.fd")
}

# A file of its own for each guest, so that the right sum can only come from this one.
serve_file() {
	mkdir -p "$WORK/www"
	head -c "${FILE_KIB}K" /dev/urandom >"$WORK/www/file"
	SUM=$(sha256sum <"$WORK/www/file")
	SUM=${SUM%% *}
}

# What is typed does not have what is waited for in it, since the console shows that too.
# shellcheck disable=SC2016
write_script() {
	cat >"$WORK/script" <<-END
	wait 600 guest login:
	send root
	wait 120 root@guest:~#
	send echo "The guest has \$(nproc) CPUs"
	wait 60 The guest has $1 CPUs
	send until busybox wget -qO /tmp/file http://10.0.2.2:$PORT/file; do sleep 1; done
	send echo "Received \$(sha256sum </tmp/file)"
	wait 120 Received $SUM
	send poweroff
	end 200
	END
}

# one VERSION MACHINE IRQCHIP CPUS FIRMWARE: one guest, one result.
one() {
	local name="QEMU $1, $2, irqchip $3, $4 CPUs, $5" start=$SECONDS rc=0
	qemu "$1" ",kernel-irqchip=$3" "$2" "$4"
	firmware "$5"
	serve_file
	write_script "$4"
	"$HELPERS/dialogue" "$WORK/script" "${QEMU[@]}" -m 384M "${FIRMWARE[@]}" -serial stdio \
		-drive file=/mnt/disk.img,if=none,id=disk,format=raw,snapshot=on \
		-device virtio-blk-pci,drive=disk,bootindex=0 \
		-netdev user,id=net -device virtio-net-pci,netdev=net,romfile= \
		>"$WORK/out" 2>"$WORK/err" || rc=$?
	[ "$rc" = 0 ] || tail -n 30 "$WORK/out" | tr -d '\r' | sed 's/^/# /'
	sed 's/^/# /' "$WORK/err"
	tap_ok "$rc" "$name ($((SECONDS - start)) s)"
}

all() {
	local irqchip cpus firmware
	for firmware in seabios ovmf; do
		for irqchip in on split; do
			for cpus in 1 4; do one "$1" "$2" "$irqchip" "$cpus" "$firmware"; done
		done
	done
}

inside() {
	WORK=$(mktemp -d)
	tree_enter || exit 1
	serve_file
	chroot "$TREE" busybox httpd -p "127.0.0.1:$PORT" -h "$WORK/www"
	if [ $# -gt 2 ]; then one "$@"; else all "$@"; fi
	tap_end
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
lab_self -- "$@"
