#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Kernels that are no bzImages: Debian's own as an ELF file for PVH, with an initial RAM disk that says
# what it finds; a multiboot kernel, as an ELF file and as a flat one; and what is neither.

. selftests/lib/tap.sh

HERE=$(cd "$(dirname "$0")" && pwd)
VMLINUX="$HERE/vmlinux"
MULTIBOOT="$HERE/multiboot"
FLAT="$HERE/multiboot_flat"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# An initramfs whose process 1 is a script.
make_initramfs() {
	local tree=$WORK/tree
	mkdir -p "$tree/proc" "$tree/dev"
	cp "$(command -v busybox)" "$tree/busybox"
	cat >"$tree/init" <<-'EOF'
		#!/busybox sh
		/busybox mount -t proc proc /proc
		echo "init: $(/busybox cat /proc/cmdline)"
		echo "cpus: $(/busybox grep -c ^processor /proc/cpuinfo)"
		/busybox poweroff -f
	EOF
	chmod +x "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc 2>/dev/null) >"$WORK/initramfs"
}

# What the guest said is in OUT, without carriage returns; its status in STATUS.
boot() {
	timeout -k 5 "${SECONDS_EACH:-150}" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
	STATUS=$?
	OUT=$(tr -d '\r' <"$WORK/out")
}

pvh() {
	make_initramfs
	boot vmctl run --kernel "$VMLINUX" --initrd "$WORK/initramfs" --append 'quiet lpj=4000000 word=1' "$@"
	tap_is "$STATUS" 0 "PVH: it boots, and powers off"
	tap_has "$(grep '^init: ' <<<"$OUT")" " word=1" "PVH: its initramfs runs, and has the command line"
	tap_has "$OUT" "cpus: $CPUS" "PVH: it finds the processors, by the ACPI tables"
	tail -n 5 "$WORK/out" "$WORK/err" | tr -d '\r' | sed 's/^/# /'
}

# multiboot NAME FILE
multiboot() {
	echo "the module" >"$WORK/module"
	boot moat-vmm --mem 16M --kernel "$2" --initrd "$WORK/module" --append "one=1 two"
	tap_is "$STATUS: $OUT" $'42: cmdline: one=1 two\nKiB: 15360\nmodule: the module' \
		"multiboot, $1: it is told command line, memory and module"
	boot moat-vmm --mem 16M --kernel "$2"
	tap_is "$STATUS: $OUT" $'42: cmdline: \nKiB: 15360' "multiboot, $1: without any"
	head -n 5 "$WORK/err" | sed 's/^/# /'
}

# refused NAME FILE WORD
refused() {
	boot vmctl run --kernel "$2"
	tap_is "$((STATUS != 0 && STATUS != 124)): $(wc -l <"$WORK/err")" "1: 1" "$1: refused, in a line"
	tap_has "$(cat "$WORK/err")" "$3" "$1: it says why"
}

CPUS=1
[ "$(nproc)" = 1 ] || CPUS=2
pvh --cpus "$CPUS"
multiboot "an ELF file" "$MULTIBOOT"
multiboot "a flat file" "$FLAT"
refused "an ELF file that is no kernel" "$(command -v busybox)" "no way to boot it"
head -c 100000 "$VMLINUX" >"$WORK/short"
refused "a kernel cut short" "$WORK/short" "cut short"
tap_end
