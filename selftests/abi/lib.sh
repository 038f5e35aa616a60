#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# What the ABI tests share. Sourced on this machine and again in the emulated host, where the test
# runs itself with --inside (lab_self): here it only starts the host.

# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"

CACHE=$(realpath "$TOP/build/cache")
TREE=$CACHE/abi-root
# shellcheck disable=SC2034
HELPERS=$TOP/build/selftests/abi
PEER=${MOAT_PEER:-moat}

# lab_self OPTION... -- ARGS...: this test once more, inside an emulated host with the peer, which
# is /dev/kvm there. One CPU does: with two, KVM's guests were seen to make no headway, since the
# emulator lets the host's CPUs take turns, and one that waits for the other uses up its own turn.
lab_self() {
	local options=(--peer "$PEER" --smp 1 --append mitigations=off
		--timeout "${LAB_SECONDS:-1500}")
	[ "$PEER" = kvm ] || options+=(--module-args 'kvm_node=1')
	while [ "$1" != -- ]; do options+=("$1"); shift; done
	shift
	exec "$TOP/scripts/lab" "${options[@]}" -- "$(realpath "$0")" --inside "$@"
}

# Makes the Debian tree one to chroot into: devices, /tmp and the guest's disk (/mnt) as outside.
# KVM is not to poll for what another vCPU does: on one CPU that only keeps it from doing it.
tree_enter() {
	local dir poll=/sys/module/kvm/parameters/halt_poll_ns
	[ ! -e "$poll" ] || echo 0 >"$poll"
	for dir in dev proc sys tmp; do mount --rbind "/$dir" "$TREE/$dir" || return 1; done
	mount --bind "$CACHE/abi-guest" "$TREE/mnt"
}

# qemu VERSION ACCEL MACHINE CPUS: the command of that QEMU in QEMU, with no devices; ACCEL has
# further properties of the accelerator. QEMU 7.2 knows /dev/kvm only.
qemu() {
	QEMU=(chroot "$TREE")
	case $1 in
	7.2) QEMU+=(qemu-system-x86_64 -accel "kvm$2") ;;
	10.0) QEMU+=(env LD_LIBRARY_PATH=/opt/qemu-10.0/usr/lib/x86_64-linux-gnu
		/opt/qemu-10.0/usr/bin/qemu-system-x86_64 -L /opt/qemu-10.0/usr/share/qemu
		-L /opt/qemu-10.0/usr/share/seabios
		-accel "kvm,device=${MOAT_DEVICE:-/dev/moat}$2") ;;
	esac
	QEMU+=(-machine "$3" -smp "$4" -cpu host -nodefaults -no-user-config -display none)
}
