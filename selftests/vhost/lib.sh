# SPDX-License-Identifier: MIT OR GPL-2.0
# shellcheck shell=bash
#
# What the tests of device programs behind stock QEMU share (no hypervisor: TCG): a guest with Debian's
# kernel and one program as its process 1, and a device program that comes and goes. Sourced by scripts
# that run on this machine, with TOP set. QEMU, in the environment: the command of another QEMU.

# shellcheck disable=SC2034
CACHE=$TOP/build/cache
KERNEL=$CACHE/kernel-6.1
OWN_KIB=1024
WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-vhost.XXXXXX")
SOCKET=$WORK/socket
DEVICE_PID='' QEMU_PID='' OTHER_PID=''
trap 'end_all 2>/dev/null; rm -rf "$WORK"' EXIT

end_all() {
	local pid
	for pid in $DEVICE_PID $QEMU_PID $OTHER_PID; do kill -9 "$pid"; done
	wait
}

# need NAME FILE...: what must be there, for a run at all.
need() {
	local name=$1 file
	shift
	for file in "$@" "$KERNEL/vmlinuz"; do
		[ -e "$file" ] || { tap_skip "$name" "there is no $file"; tap_end; }
	done
}

# initramfs PROGRAM MODULE...: what the guest has.
initramfs() {
	local tree=$WORK/tree n=0 file
	mkdir -p "$tree"/{dev,sys,modules}
	cp "$1" "$tree/init"
	shift
	for file in $(PATH=$PATH:/sbin:/usr/sbin modprobe -S "$(ls "$KERNEL/lib/modules")" \
		-d "$(realpath "$KERNEL")" --show-depends -a virtio_pci "$@" |
		awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
		cp "$file" "$tree/modules/$(printf %02d.ko $n)"
		n=$((n + 1))
	done
	(cd "$tree" && find . | cpio -o -H newc -R 0:0 --quiet) >"$WORK/initramfs"
}

# start_device PROGRAM ARGS...: as nobody, where this is root.
start_device() {
	local user=()
	[ "$(id -u)" != 0 ] || user=(--uid 65534 --gid 65534)
	[ -z "${IN_USER_NAMESPACE:-}" ] || user=()
	"$@" --socket "$SOCKET" "${user[@]}" 2>>"$WORK/device.err" &
	DEVICE_PID=$!
}

wait_for_socket() {
	for _ in {1..50}; do [ ! -S "$SOCKET" ] || return 0; sleep 0.1; done
}

# The emulator that the lab has, on its own loader and libraries; else Debian's.
qemu_command() {
	local root=$CACHE/qemu/root
	RECONNECT=reconnect=1
	if [ -n "${QEMU:-}" ]; then
		read -ra COMMAND <<<"$QEMU"
	elif [ -f "$root/../done" ]; then
		COMMAND=("$root/usr/lib64/ld-linux-x86-64.so.2" --library-path
			"$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/qemu-system-x86_64"
			-L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
		RECONNECT=reconnect-ms=1000
	else
		COMMAND=(qemu-system-x86_64)
	fi
}

# start_qemu INIT_ARGUMENTS ARGS...: the device program is behind the character device "device". Empty
# where QEMU cannot do without it for a moment: COMES_BACK.
COMES_BACK=yes
start_qemu() {
	local arguments=$1
	shift
	: >"$WORK/console"
	qemu_command
	"${COMMAND[@]}" -accel tcg,thread=multi -machine q35,memory-backend=mem -cpu max -smp 2 -m 256M \
		-object memory-backend-memfd,id=mem,size=256M,share=on \
		-nodefaults -no-user-config -display none -no-reboot -serial stdio \
		-kernel "$KERNEL/vmlinuz" -initrd "$WORK/initramfs" \
		-append "console=ttyS0 quiet panic=-1 -- $arguments" \
		-chardev "socket,id=device,path=$SOCKET${COMES_BACK:+,$RECONNECT}" "$@" \
		>"$WORK/console" 2>"$WORK/qemu.err" </dev/null &
	QEMU_PID=$!
}

# wait_for SECONDS TEXT: until the guest has said it.
wait_for() {
	local i
	for ((i = 0; i < $1 * 10; i++)); do
		! grep -q "$2" "$WORK/console" || return 0
		kill -0 "$QEMU_PID" 2>/dev/null || break
		sleep 0.1
	done
	grep -q "$2" "$WORK/console"
}

# said NAME: what the guest has said of it.
said() { tr -d '\r' <"$WORK/console" | sed -n "s/^$1: //p"; }

messages() { tail -n 5 "$WORK/console" "$WORK/qemu.err" "$WORK/device.err"; }

# Memory of the device program's own, in KiB: what it has changed, and shares with nobody.
own_memory() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { shared = $2 ~ /s$/ }
		/^Private_Dirty:/ && !shared { own += $2 }
		/^Anonymous:/ { anonymous += $2 }
		END { print own + 0, anonymous + 0 }' "/proc/$DEVICE_PID/smaps"
}

# kill_and_restart SECONDS PAUSE COMMAND...: again and again, COMMAND being what starts it.
kill_and_restart() {
	local until=$((SECONDS + $1)) pause=$2 own anonymous
	shift 2
	KILLS=0 OWN=0 ANONYMOUS=0
	while [ $SECONDS -lt $until ]; do
		sleep "$pause.$((RANDOM % 10))"
		read -r own anonymous < <(own_memory)
		[ "${own:-0}" -le "$OWN" ] || { OWN=$own; ANONYMOUS=$anonymous; }
		kill -9 "$DEVICE_PID" || break
		wait "$DEVICE_PID" 2>/dev/null
		"$@"
		KILLS=$((KILLS + 1))
	done
}

# tap_own NAME: was it small, all the time?
tap_own() {
	[ "$OWN" -gt 0 ] && [ "$OWN" -le "$OWN_KIB" ]
	tap_ok $? "$1 has $OWN KiB of its own, $ANONYMOUS of them anonymous; at most $OWN_KIB"
}
