#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU 7.2 on the emulated Intel host: it boots Debian's kernel by -kernel, with both ways to
# split the interrupt controllers. That host has no files but those that are packed for it, and much
# less speed: so QEMU's program, its libraries and firmware are all that it gets, and the guest is an
# initramfs that says that it is up and powers off.
#
# usage: kernel.sh

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"

# take FILE...: from the Debian tree into ours, what it is linked to included.
take() {
	local file
	for file in $({ printf '%s\n' "$@"; chroot "$TREE" ldd "$1" | grep -oE '/[^ ]+'; } | sort -u); do
		mkdir -p "$SMALL/usr${file%/*}" "$SMALL${file%/*}"
		case $file in
		/usr/*) cp -L "$TREE$file" "$SMALL$file" ;;
		*) cp -L "$TREE$file" "$SMALL/usr$file" ;;
		esac || return
	done
}

guest_pack() {
	local root=$WORK/guest
	mkdir -p "$root/bin" "$root/proc"
	cp /bin/busybox "$root/bin"
	cat >"$root/init" <<-'END'
	#!/bin/busybox sh
	/bin/busybox mount -t proc proc /proc
	echo "The guest is up: $(/bin/busybox uname -r)"
	/bin/busybox poweroff -f
	END
	chmod +x "$root/init"
	(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$SMALL/initrd"
}

outside() {
	local options=(--host intel --peer "$PEER" --append mitigations=off --timeout 900)
	# shellcheck source=selftests/abi/lib.sh
	. "$TOP/selftests/abi/lib.sh"
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-kernel.XXXXXX")
	trap 'rm -rf "$WORK"' EXIT
	SMALL=$WORK/tree
	[ "$PEER" = kvm ] || options+=(--module-args 'kvm_node=1')
	take /usr/bin/qemu-system-x86_64 /usr/share/seabios/bios-256k.bin \
		/usr/share/qemu/linuxboot_dma.bin /usr/share/qemu/kvmvapic.bin &&
		cp "$CACHE/kernel-6.1/vmlinuz" "$SMALL" && guest_pack ||
		{ tap_ok 1 "QEMU can be packed"; tap_end; }
	"$TOP/scripts/lab" "${options[@]}" --share "$SMALL" --share "$TOP/selftests/lib" -- \
		"$(realpath "$0")" --inside "$SMALL"
}

# one TREE IRQCHIP
one() {
	local out status
	out=$(chroot "$1" /usr/bin/qemu-system-x86_64 -accel "kvm,kernel-irqchip=$2" -machine pc \
		-cpu host -m 192 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
		-kernel /vmlinuz -initrd /initrd -append 'console=ttyS0 panic=-1 quiet' 2>&1)
	status=$?
	grep -q 'The guest is up' <<<"$out" && [ "$status" = 0 ]
	tap_ok $? "QEMU 7.2, -kernel, irqchip $2" "status $status: $out"
}

# Links and directories are not packed.
inside() {
	local tree=$1 irqchip
	mkdir -p "$tree"/{dev,tmp}
	ln -s usr/lib "$tree/lib"
	ln -s usr/lib64 "$tree/lib64"
	mount --bind /dev "$tree/dev" || { tap_ok 1 "the tree can be entered"; tap_end; }
	for irqchip in on split; do one "$tree" "$irqchip"; done
	tap_end
}

if [ "${1:-}" = --inside ]; then inside "$2"; else PEER=${MOAT_PEER:-moat} && outside; fi
