#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Machines with firmware, whose launcher is moat-qemu: Debian 12's QEMU with SeaBIOS and OVMF, on Moat's node, as
# machines of moatd's. A small guest boots from a disk by BIOS and by UEFI, and from a CD; it is worked like any
# other machine, its QEMU is killed, moatd is killed; QEMU's sandbox is looked at from outside. At last Debian 12
# boots from its disk to a login.
#
# usage: moatd_qemu.sh [refused|bios|network|uefi|cdrom|debian]...: only some of it

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

FAT_AT=1048576
DISK_MIB=65
PARTS=(refused bios network uefi cdrom debian)
LINE='console=ttyS0 panic=-1 quiet'
BOOT_SECONDS=600

# files_make DIR: the small guest, and what boots it: syslinux, and systemd-boot.
files_make() {
	mkdir -p "$1"
	cp "$MOAT_KERNEL" "$1/vmlinuz" && cp "$WORK/initrd" "$1/initrd.img" || return
	printf '%s\n' 'SERIAL 0' 'DEFAULT moat' 'LABEL moat' 'LINUX vmlinuz' 'INITRD initrd.img' "APPEND $LINE" \
		>"$1/syslinux.cfg"
	printf '%s\n' 'title Moat' 'linux /vmlinuz' 'initrd /initrd.img' "options $LINE" >"$1/debian.conf"
}

# A disk that both kinds of firmware boot: the first partition of Debian's, with this guest in it.
disk_make() {
	local file
	head -c "${DISK_MIB}M" "$CACHE/abi-guest/disk.img" >"$WORK/boot.img"
	truncate -r "$CACHE/abi-guest/disk.img" "$WORK/boot.img"
	for file in vmlinuz initrd.img syslinux.cfg; do
		mcopy -o -i "$WORK/boot.img@@$FAT_AT" "$WORK/files/$file" :: || return
	done
	mcopy -o -i "$WORK/boot.img@@$FAT_AT" "$WORK/files/debian.conf" ::/loader/entries/debian.conf
}

cdrom_make() {
	local tree=$WORK/cd
	cp -r "$WORK/files" "$tree" && mv "$tree/syslinux.cfg" "$tree/isolinux.cfg" &&
		cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$tree" &&
		xorriso -as mkisofs -quiet -o "$WORK/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
			-boot-load-size 4 -boot-info-table "$tree"
}

firmware_create() { # NAME FIRMWARE OPTION...
	local name=$1 firmware=$2
	shift 2
	vmctl create "$name" --memory 256M --firmware "$firmware" "$@"
}

console_run() { console_say "$1" run "$2"; console_has "$1" "$3" 120; }
launcher() { vmctl info "$1" --json | grep -o '"pid":[0-9]*' | cut -d: -f2; }
qemu_pid() { pgrep -P "$(launcher "$1")"; }
# up NAME: it is started, and its guest is there.
up() {
	local start=$SECONDS
	TOOK=
	vmctl start "$1" && console_has "$1" 'guest is up' "$BOOT_SECONDS" || return
	TOOK=$((SECONDS - start))
}
ended() { vmctl info "$1" | sed -n 's/^ *ended: //p' | head -n 1; }
why() { vmctl info "$1" | sed -n 's/^ *why: //p' | head -n 1; }
processes() { pgrep -l . | grep -E 'moat-qemu|qemu-system'; }
# opened PID...: the files that they have open.
opened() { find "${@/%//fd}" -type l -printf '%l\n' | grep '^/' | sort -u; }

check_refused() {
	refused 1 'a cdrom is for firmware to boot' 'a CD without firmware' \
		vmctl create x --kernel "$MOAT_KERNEL" --cdrom "$WORK/boot.iso"
	refused 1 'with firmware, kernel, initrd and append are on the disk' 'a kernel with firmware' \
		vmctl create x --firmware bios --kernel "$MOAT_KERNEL"
	refused 2 'give none, bios or uefi' 'firmware that is none' vmctl create x --firmware coreboot
	firmware_create x bios --cdrom "$WORK/boot.iso" && mv "$WORK/boot.iso" "$WORK/away"
	refused 1 'No such file or directory' 'a CD that is missing' vmctl start x
	mv "$WORK/away" "$WORK/boot.iso"
	qemu-img create -q -f qcow2 -u -b /etc/shadow -F raw "$WORK/hostile" 1M
	vmctl destroy x
	firmware_create x bios --disk "$WORK/hostile,format=qcow2"
	refused 1 'backing file' 'an image that names a file of the host' vmctl start x
	vmctl destroy x
	tap_is "$(processes)" '' "no process is left of these"
}

status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | tr -s '[:space:]' ' ' | sed 's/ $//'; }

# Of QEMU's process; what it is shown is what /proc tells of it.
check_sandbox() {
	local pid
	pid=$(qemu_pid bios)
	[ "$(status_of "$pid" Uid | cut -d' ' -f1)" -gt 1000 ]
	tap_ok $? "QEMU is a user of its machine's own, $(status_of "$pid" Uid | cut -d' ' -f1)"
	tap_is "$(status_of "$pid" CapEff) $(status_of "$pid" CapBnd)" '0000000000000000 0000000000000000' \
		"it has no capabilities, and no way to get any"
	tap_is "$(status_of "$pid" NoNewPrivs) $(status_of "$pid" Seccomp) $(status_of "$pid" Seccomp_filters)" '1 2 2' \
		"it has Moat's filter of system calls, and its own"
	tap_is "$(status_of "$pid" NSpid)" "$pid 1" "it is alone in its namespace of processes"
	tap_is "$(cd "/proc/$pid/root" && find . -maxdepth 1 | grep -xE './(dev|proc|sys|etc|home|root|var|tmp)' | xargs)" '' \
		"its root is /usr, where there is no device and no secret"
	tap_is "$(busybox nsenter -t "$pid" -n cat /proc/net/dev | grep -c :)" 1 "it has no network but a loopback of its own"
	tap_is "$(opened "/proc/$pid" | xargs)" "/dev/moat /dev/null $WORK/boot.img" "the files that it has open are the node and its disk"
	[ ! -e /dev/kvm ]
	tap_ok $? "there is no /dev/kvm on this host"
	pid=$(launcher bios)
	tap_is "$(status_of "$pid" CapEff) $(status_of "$pid" Seccomp)" '0000000000000000 2' "so has its launcher none"
	[ "$(status_of "$pid" Uid)" = "$(status_of "$(qemu_pid bios)" Uid)" ] && [ -z "$(ls -A "/proc/$pid/root")" ]
	tap_ok $? "which is the same user, in an empty root"
	echo "# moat-qemu: $(status_of "$pid" VmRSS) resident, $(status_of "$pid" RssAnon) of its own;" \
		"QEMU: $(status_of "$(qemu_pid bios)" VmRSS)"
}

check_work() {
	local size
	tap_has "$(vmctl info bios)" 'program: moat-qemu' "info says which launcher"
	tap_is "$(state_of bios)" running "it runs"
	console_say bios echo hello
	console_has bios 'said hello' 30
	tap_ok $? "its console takes what is typed"
	vmctl pause bios && [ "$(state_of bios)" = paused ]
	tap_ok $? "it is paused"
	vmctl resume bios && [ "$(state_of bios)" = running ]
	tap_ok $? "it goes on"
	size=$(vmctl stats bios | sed -n 's/^exits: //p')
	[ "${size:-0}" -gt 1000 ] && [ "$(vmctl stats bios | sed -n 's/^disk_bytes: //p')" -gt 1000000 ]
	tap_ok $? "exits and what went to the disk are counted" "$(vmctl stats bios)"
	vmctl dump bios "$WORK/core" && [ "$(head -c 4 "$WORK/core" | tr -d '\177')" = ELF ] &&
		[ "$(stat -c %s "$WORK/core")" -gt $((200 << 20)) ]
	tap_ok $? "it is dumped, as an ELF core" "$(ls -l "$WORK/core")"
	rm -f "$WORK/core"
	tap_is "$(state_of bios)" running "and goes on"
}

check_devices() {
	truncate -s 4M "$WORK/extra.img"
	vmctl attach-disk bios "$WORK/extra.img"
	tap_ok $? "a disk comes" "$(vmctl log bios)"
	console_run bios 'sleep 2; head -c 1000000 /dev/zero | tr "\\0" x >/dev/vdb; sync; sum /dev/vdb' '^[0-9].* /dev/vdb'
	tap_ok $? "its guest uses it" "$(timeout 2 vmctl console bios </dev/null | tail -n 8)"
	vmctl detach-disk bios "$WORK/extra.img"
	tap_ok $? "it goes" "$(vmctl log bios)"
	tap_is "$(head -c 1000000 "$WORK/extra.img" | tr -d x | wc -c)" 0 "what the guest wrote is on it"
	tap_is "$(opened "/proc/$(launcher bios)" "/proc/$(qemu_pid bios)" | grep -c extra)" 0 "nobody has it open any more"
}

check_moatd() {
	local before
	before=$(launcher bios)
	moatd_kill KILL
	moatd_start
	tap_is "$(launcher bios) $(state_of bios)" "$before running" "another moatd finds it"
	console_say bios echo again
	console_has bios 'said again' 30
	tap_ok $? "with its console"
}

check_ends() {
	vmctl stop bios
	tap_ok $? "it is stopped by its power button" "$(vmctl log bios)"
	tap_is "$(ended bios)" 'powered off' "it powered off by itself"
	tap_is "$(processes)" '' "no process is left"
	vmctl events >"$WORK/events" &
	EVENTS=$!
	up bios && console_say bios reset
	for _ in $(seq 600); do [ "$(grep -c ' bios: started' "$WORK/events")" -lt 2 ] || break; sleep 0.1; done
	tap_has "$(cat "$WORK/events")" 'bios: ended: reset' "a reset is told as one"
	console_has bios 'guest is up' "$BOOT_SECONDS"
	tap_ok $? "and followed by a start"
	kill "$EVENTS"
	kill -KILL "$(qemu_pid bios)"
	wait_state bios off
	tap_is "$(ended bios)" failed "a QEMU that is killed is noticed"
	tap_has "$(why bios)" 'killed by signal 9' "and told"
	vmctl start bios && kill -KILL "$(launcher bios)"
	wait_state bios off
	tap_is "$(ended bios)" killed "so is its launcher"
	tap_is "$(processes)" '' "with which QEMU ends"
}

check_bios() {
	firmware_create bios bios --disk "$WORK/boot.img" && up bios
	tap_ok $? "a small guest boots from a disk by BIOS (${TOOK:-?} s)" \
		"$(vmctl log bios; timeout 2 vmctl console bios </dev/null | tail -n 5)"
	check_sandbox
	check_work
	check_devices
	check_moatd
	check_ends
	vmctl destroy bios
}

check_network() {
	local mac
	firmware_create net bios --disk "$WORK/boot.img" --network default && up net
	tap_ok $? "one with a network" "$(vmctl log net)"
	console_has net '^address 192.168.77' 60
	tap_ok $? "has an address by DHCP"
	mac=$(vmctl attach-net net default)
	tap_ok $? "a second network comes" "$(vmctl log net)"
	console_run net 'sleep 2; cat /sys/class/net/eth1/address' "^$mac"
	tap_ok $? "its guest sees it"
	vmctl detach-net net "$mac"
	tap_ok $? "it goes" "$(vmctl log net)"
	vmctl destroy net
}

check_uefi() {
	local vars=$MOATD_DIR/state/nvram/uefi.fd
	firmware_create uefi uefi --disk "$WORK/boot.img" && up uefi
	tap_ok $? "the same disk boots by UEFI (${TOOK:-?} s)" "$(vmctl log uefi; timeout 2 vmctl console uefi </dev/null | tail -n 5)"
	console_run uefi 'ls -d /sys/firmware/efi' '^/sys/firmware/efi'
	tap_ok $? "its guest says so"
	tap_is "$(stat -c '%u %a %s' "$vars")" "0 600 $(stat -c %s "$TREE/usr/share/OVMF/OVMF_VARS_4M.fd")" \
		"its variables are a file of root's"
	cmp -s "$vars" "$TREE/usr/share/OVMF/OVMF_VARS_4M.fd"
	tap_is $? 1 "in which the firmware has written"
	vmctl kill uefi
	tap_is "$(ended uefi)" stopped "it is ended at once"
	vmctl destroy uefi
	[ ! -e "$vars" ]
	tap_ok $? "with the machine they go"
}

check_cdrom() {
	truncate -s 16M "$WORK/empty.img"
	firmware_create cd bios --disk "$WORK/empty.img" --cdrom "$WORK/boot.iso" && up cd
	tap_ok $? "a CD boots where the disk is empty (${TOOK:-?} s)" "$(vmctl log cd; timeout 2 vmctl console cd </dev/null | tail -n 5)"
	console_run cd 'echo installed >/dev/vda; sync' 'status 0'
	tap_is "$(head -c 9 "$WORK/empty.img")" installed "its guest installs to that"
	vmctl destroy cd
}

check_debian() {
	local start=$SECONDS
	cp --sparse=always "$CACHE/abi-guest/disk.img" "$WORK/debian.img"
	vmctl create debian --memory 384M --firmware bios --disk "$WORK/debian.img" && vmctl start debian &&
		console_has debian 'guest login:' 600
	tap_ok $? "Debian 12 boots from its disk to a login ($((SECONDS - start)) s)" "$(vmctl log debian)"
	vmctl destroy debian
}

inside() { # PART...
	WORK=$(mktemp -d)
	PATH=$PATH:/sbin:/usr/sbin
	mount -t tmpfs -o size=100% tmpfs "$WORK" || exit 1
	# shellcheck source=selftests/lib/moatd.sh
	. "$TOP/selftests/lib/moatd.sh"
	trap moatd_clean EXIT
	export MOAT_QEMU_TREE=$TREE/usr
	modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
	busybox ip link set lo up
	moatd_prepare && guest_make && files_make "$WORK/files" && disk_make && cdrom_make && moatd_start
	tap_ok $? "moatd, a disk and a CD" "$(cat "$WORK/moatd.err")"
	[ "$TAP_FAILED" = 0 ] || tap_end
	for part; do "check_$part"; done
	tap_is "$(vmctl list --json | tr -d ' \n')$(processes)" '[]' "nothing is left"
	tap_is "$(find "$MOATD_DIR/run/machines" "$MOATD_DIR/state/nvram" /sys/fs/cgroup/moat -mindepth 1 \
		\( -type d -o -path "$MOATD_DIR/*" \))" '' "nor files of theirs"
	sed 's/^/# /' "$WORK/moatd.err"
	tap_end
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
if [ "$PEER" != moat ]; then
	tap_skip moatd_qemu "moatd's node is Moat's"
	tap_end
fi
exec "$TOP/scripts/lab" --smp 1 --append mitigations=off --mem 4G --timeout "${LAB_SECONDS:-1500}" -- \
	"$(realpath "$0")" --inside "${@:-${PARTS[@]}}"
