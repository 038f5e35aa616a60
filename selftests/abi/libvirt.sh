#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Debian 12's libvirt, unmodified, on Moat: a machine of type kvm is led through its life by virsh.
# All of it happens within an emulated host (inside/libvirt); here, the guest is put together.
# Environment: MOAT_PEER=kvm does it on KVM.

set -uo pipefail

cd "$(dirname "$0")/../.." || exit
HERE=$PWD/selftests/abi
PEER=${MOAT_PEER:-moat} KERNEL=${KERNEL:-6.1}
TREE=$(realpath -m build/cache/abi-root)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-libvirt.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

bail() { echo "Bail out! $*"; exit 1; }

# The guest: Debian's kernel, busybox, and the drivers of the power button.
make_guest() {
	local kernel=build/cache/kernel-6.1 tree=$WORK/tree name
	mkdir -p "$tree"/{bin,proc,sys,dev}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	install -m 755 "$HERE/inside/counter" "$tree/init"
	for name in evdev button; do
		cp "$kernel"/lib/modules/*/kernel/drivers/*/"$name.ko" "$tree" || return
	done
	(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$WORK/initrd"
	cp "$kernel/vmlinuz" "$WORK/vmlinuz"
}

[ -f "$TREE/done" ] || scripts/deps-abi >&2 || bail "scripts/deps-abi failed"
make_guest || bail "the guest cannot be put together"
# On an emulated host with two CPUs KVM's guests hang: the emulator delivers an interrupt that KVM
# injects a second time where another CPU is heard of meanwhile. Where the host counts instructions
# (--icount), they lose wake-ups.
OPTIONS=(--smp 2 --module-args kvm_node=1)
[ "$PEER" != kvm ] || OPTIONS=(--smp 1)
scripts/lab --kernel "$KERNEL" --peer "$PEER" "${OPTIONS[@]}" --timeout 1200 -- \
	"$HERE/inside/libvirt" "$TREE" "$WORK" </dev/null
