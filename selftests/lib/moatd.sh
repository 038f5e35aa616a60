# SPDX-License-Identifier: MIT OR GPL-2.0
# For tests of moatd: a user and control groups for it, a small guest, and moatd itself. $WORK is a directory.

MOATD_DIR=$WORK/moat
export MOAT_SOCKET=$MOATD_DIR/run/control

moatd_prepare() {
	if ! mountpoint -q /sys/fs/cgroup; then mount -t cgroup2 none /sys/fs/cgroup || return; fi
	getent passwd moatd >/dev/null || useradd --system --user-group --no-create-home moatd || return
	getent group moat >/dev/null || groupadd --system moat || return
	mkdir -p "$MOATD_DIR" && chmod 755 "$WORK" "$MOATD_DIR"
}

# moatd_start [PROGRAM [OPTION...]]: and wait until it answers.
moatd_start() {
	"${@:-moatd}" --state "$MOATD_DIR/state" --run "$MOATD_DIR/run" --log "$MOATD_DIR/log" 2>>"$WORK/moatd.err" &
	MOATD=$!
	for _ in $(seq 200); do
		vmctl list >/dev/null 2>&1 && return
		sleep 0.05
	done
	return 1
}

moatd_kill() {
	kill "-${1:-KILL}" "$MOATD"
	wait "$MOATD" 2>/dev/null
}

# Drivers that are modules, where they are.
GUEST_DRIVERS='virtio_pci virtio_net virtio_blk af_packet fuse virtiofs button evdev'

# guest_modules DIR: with what each takes; "order" is how they are to be loaded.
guest_modules() {
	local name file
	for name in $GUEST_DRIVERS; do
		modprobe -d "${MOAT_MODULES%/lib/modules/*}" -S "${MOAT_MODULES##*/}" --show-depends "$name" 2>/dev/null |
			while read -r _ file _; do
				[ -f "$file" ] || continue
				name=${file##*/}; name=${name%%.ko*}
				case $file in *.xz) xz -dc "$file" ;; *.zst) zstd -dc "$file" ;; *) cat "$file" ;; esac >"$1/$name.ko"
				grep -qx "$name" "$1/order" 2>/dev/null || echo "$name" >>"$1/order"
			done
	done
}

# guest_make: an initial RAM disk at $WORK/initrd, whose guest says "guest is up", counts in "tick N" a second, and
# does what it is told on its console, a line each: off, reset, crash, echo TEXT, run COMMAND. Its network is set up by
# DHCP, where it has one: then it says "address A", serves the file /name by HTTP, and powers off when its
# button is pressed. With "ticks=no" on its kernel's command line it does not count, and is idle.
guest_make() {
	local tree=$WORK/tree
	mkdir -p "$tree"/{bin,dev,proc,sys,modules}
	guest_modules "$tree/modules"
	cp "$(command -v busybox)" "$tree/bin/busybox"
	cat >"$tree/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
mount -t sysfs none /sys
for m in $(cat /modules/order); do insmod /modules/$m.ko 2>/dev/null; done
cat >/script <<'SCRIPT'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
echo "address $ip"
SCRIPT
chmod +x /script
mkdir -p /etc
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
	ip link set eth0 up
	(udhcpc -q -n -t 20 -T 1 -i eth0 -s /script >/dev/ttyS0 2>/dev/null; cat /sys/class/net/eth0/address >/name; httpd -p 80 -h /) &
fi
for e in /dev/input/event*; do
	[ -e "$e" ] && (head -c 24 $e >/dev/null; echo button pressed; poweroff -f) &
done
echo guest is up
[ "$ticks" = no ] || (n=0; while sleep 1; do n=$((n + 1)); echo tick $n; done) &
while read -r word rest; do
	case $word in
	off) poweroff -f ;;
	reset) reboot -f ;;
	crash) echo c >/proc/sysrq-trigger ;;
	echo) echo "said $rest" ;;
	memory) grep MemTotal /proc/meminfo ;;
	run) eval "$rest"; echo "status $?" ;;
	esac
done
sleep 100000
INIT
	chmod +x "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc --quiet) >"$WORK/initrd"
}

# Kernels of a few bytes: kernel_make FILE CODE makes one that runs CODE, in 32 bits, without paging or interrupts. It
# is a multiboot header, with the addresses of all and of the code, which is at 32, and the code.
kernel_make() {
	printf '%b' '\x02\xb0\xad\x1b\0\0\x01\0\xfe\x4f\x51\xe4' \
		'\0\0\x10\0\0\0\x10\0\x40\0\x10\0\x40\0\x10\0\x20\0\x10\0' "$2" >"$1" && truncate -s 64 "$1"
}

# hlt, and back to it; back to itself; a byte in each page from 2 MiB on.
CODE_IDLE='\xf4\xeb\xfd'
CODE_SPIN='\xeb\xfe'
CODE_EAT='\xb8\0\0\x20\0''\x89\0\x05\0\x10\0\0\xeb\xf7'

# bare_create NAME FILE OPTION...: a machine with such a kernel.
bare_create() { vmctl create "$1" --memory 16M --kernel "$2" "${@:3}"; }

# guest_create NAME OPTION...
guest_create() {
	local name=$1
	shift
	vmctl create "$name" --memory 96M --kernel "$MOAT_KERNEL" --initrd "$WORK/initrd" \
		--append 'console=ttyS0 panic=-1 quiet' "$@"
}

state_of() { vmctl list --json | tr -d '\n' | grep -o "\"name\":\"$1\"[^}]*" | grep -o '"state":"[a-z]*"' | cut -d'"' -f4; }

# wait_state NAME STATE [SECONDS]
wait_state() {
	for _ in $(seq $((${3:-60} * 10))); do
		[ "$(state_of "$1")" != "$2" ] || return 0
		sleep 0.1
	done
	return 1
}

# console_has NAME TEXT [SECONDS]: until the console of the machine shows it.
console_has() {
	timeout "${3:-60}" sh -c 'vmctl console "$0" </dev/null | grep -qm1 -- "$1"' "$1" "$2"
}

# console_say NAME TEXT...
console_say() {
	local name=$1
	shift
	{ echo "$*"; sleep 1; } | timeout 3 vmctl console "$name" >/dev/null
}

# info_of NAME KEY: the first text of that key that "info" has.
info_of() { vmctl info "$1" --json | grep -o "\"$2\":\"[^\"]*\"" | head -n 1 | cut -d'"' -f4; }

# launcher_of NAME: its process.
launcher_of() { vmctl info "$1" --json | grep -o '"pid":[0-9]*' | cut -d: -f2; }

# get ADDRESS PORT: what the guest serves; fetch ADDRESS PORT [TIMES]: until it does.
get() {
	exec 9<>"/dev/tcp/$1/$2" || return
	printf 'GET /name HTTP/1.0\r\n\r\n' >&9
	timeout 3 cat <&9 | tail -n 1
	exec 9<&-
} 2>/dev/null
fetch() { for _ in $(seq "${3:-50}"); do get "$1" "$2" | grep . && return; sleep 0.3; done; return 1; }

# refused STATUS TEXT NAME COMMAND...: it fails with that status, and says that text.
refused() {
	local status=$1 text=$2 name=$3 said
	shift 3
	said=$("$@" 2>&1)
	tap_is $? "$status" "$name: a status"
	tap_has "$said" "$text" "$name: it says why"
}

# At a test's end, however it came.
moatd_clean() {
	vmctl list --json 2>/dev/null | tr -d '\n' | grep -o '"name":"[^"]*"' | cut -d'"' -f4 | xargs -r vmctl destroy 2>/dev/null
	vmctl network list --json 2>/dev/null | tr -d '\n' | grep -o '"name":"[^"]*"' | cut -d'"' -f4 | xargs -r vmctl network delete 2>/dev/null
	kill "$MOATD" 2>/dev/null
}
