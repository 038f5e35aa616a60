#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A running machine as who controls it has it: by the client of selftests/control, over the control socket.
# The guest is a shell on its serial port, which is served.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
for program in busybox cpio xz readelf pgrep; do
	command -v "$program" >/dev/null || {
		tap_skip "vmctl_control" "there is no $program"
		tap_end
	}
done
HERE=$(cd "$(dirname "$0")" && pwd)
CLIENT=$HERE/control/client
WORK=$(mktemp -d)
MACHINE=
trap 'end_machine 2>/dev/null; rm -rf "$WORK"' EXIT

client() { "$CLIENT" "$WORK" "$@"; }
vmm() { pgrep -x moat-vmm | head -n 1; }

# modules NAME...: their files, what they need first.
modules() {
	local name
	for name; do
		awk -F: -v name="$name" '{
			file = $1; sub(".*/", "", file); sub("[.]ko.*", "", file); gsub("-", "_", file)
			if (file != name) next
			count = split($2, needs, " ")
			while (count) print needs[count--]
			print $1
		}' "$MOAT_MODULES/modules.dep"
	done | awk '!seen[$0]++'
}

# A guest that is a shell, with what drives its devices.
make_initramfs() {
	local tree=$WORK/tree file number=100
	mkdir -p "$tree"/{proc,dev,sys,tmp,mnt,bin,modules}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	ln -s busybox "$tree/bin/sh"
	for file in $(modules virtio_pci virtio_blk virtio_net virtiofs virtio_balloon button evdev); do
		number=$((number + 1))
		case $file in
		*.xz) xz -dc "$MOAT_MODULES/$file" >"$tree/modules/$number.ko" ;;
		*) cp "$MOAT_MODULES/$file" "$tree/modules/$number.ko" ;;
		esac
	done
	cat >"$tree/init" <<-'END'
		#!/bin/sh
		/bin/busybox --install -s /bin
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		mount -t sysfs sys /sys
		mount -t tmpfs tmp /tmp
		for module in /modules/*; do insmod $module; done
		stty -echo -F /dev/ttyS0
		export PS1= PS2=
		echo "=0 ready"
		while :; do sh </dev/ttyS0 >/dev/ttyS0 2>&1; done
	END
	chmod +x "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc 2>/dev/null) >"$WORK/initramfs"
}

# start OPTION...
start() {
	COMMAND=0
	"$CLIENT" run "$WORK" moat-vmm --kernel "$MOAT_KERNEL" --initrd "$WORK/initramfs" \
		--append "console=ttyS0 quiet panic=-1" --serial served --control 10 --supervisor 11 \
		--ended 12 "$@" >"$WORK/out" 2>"$WORK/err" </dev/null &
	MACHINE=$!
	for _ in $(seq 100); do
		client info >/dev/null 2>&1 && break
		sleep 0.1
	done
}
boots() { client guest "" "=0 ready" 60 >"$WORK/console"; }

end_machine() {
	[ -n "$MACHINE" ] || return 0
	kill -TERM "$MACHINE" 2>/dev/null
	wait "$MACHINE"
	MACHINE=
}

# guest COMMAND [SECONDS]: what it says is in OUT; its status.
guest() {
	COMMAND=$((COMMAND + 1))
	client guest "echo '<'$COMMAND; $1"$'\n'"echo =$COMMAND \$?." "=$COMMAND " "${2:-30}" >"$WORK/console" || {
		OUT=$(tail -n 5 "$WORK/console")
		return 99
	}
	sleep 0.1
	OUT=$(tr -d '\r' <"$WORK/console" | sed -n "/^<$COMMAND\$/,/^=$COMMAND /p" | sed -e 1d -e '$d')
}

# How it ended, as --ended has it: its end, its status, and the text.
ended() {
	for _ in $(seq 300); do
		[ -e "/proc/$MACHINE" ] || break
		sleep 0.2
	done
	kill -KILL "$MACHINE" 2>/dev/null
	wait "$MACHINE"
	STATUS=$?
	MACHINE=
	ENDED=$(od -A n -t d4 -N 8 "$WORK/ended" | tr -s ' ')$(tail -c +9 "$WORK/ended" | tr -d '\0')
}

make_initramfs
start --cpus 2 --mem 256M --balloon 0
VMM=$(vmm)
boots
tap_ok $? "a guest boots, whose serial port is served" "$(cat "$WORK/err"; tail -n 5 "$WORK/console")"
tap_is "$(client info | head -n 1)" \
	"pid $VMM paused 0 cpus 2 devices 1 memory 268435456 balloon 0 wanted 0 has 1" "info"
guest 'echo $((6 * 7))'
tap_is "$OUT" 42 "its console takes what is typed, and says what comes of it"

# Standing still
guest 'while :; do echo x >>/tmp/count; usleep 20000; done & wc -c </tmp/count'
tap_is "$(client pause)" "done" "pause"
tap_has "$(client info)" "paused 1" "which info tells"
USED=$(awk '{ print $14 + $15 }' "/proc/$VMM/stat")
A=$(client stats | head -n 1)
sleep 2
tap_is "$(client stats | head -n 1)" "$A" "no vCPU makes an exit: $A"
NOW=$(awk '{ print $14 + $15 }' "/proc/$VMM/stat")
[ $((NOW - USED)) -lt 20 ]
tap_ok $? "nor uses any time" "$USED $NOW"
tap_is "$(client pause; client resume; client resume)" $'done\ndone\ndone' "pause and resume again, as often as one likes"
guest 'a=$(wc -c </tmp/count); sleep 1; b=$(wc -c </tmp/count); echo $((b > a))'
tap_is "$OUT" 1 "it goes on"
for _ in $(seq 50); do
	client pause
	client resume
done | sort | uniq -c | sed 's/^ *//' >"$WORK/result"
tap_is "$(cat "$WORK/result")" "100 done" "a hundred times"
guest 'echo here; kill %1 2>/dev/null'
tap_is "$OUT" here "and it is still there"

# Two terminals
client guest "echo one; sleep 1; echo =t2." "=t2." 20 >"$WORK/first" &
FIRST=$!
client guest "" "=t2." 20 >"$WORK/second"
wait "$FIRST"
tap_is "$(tail -n 2 "$WORK/first" | tr -d '\r')" "$(tail -n 2 "$WORK/second" | tr -d '\r')" \
	"two terminals hear the same"
tap_has "$(cat "$WORK/second")" "one" "what was typed at the other"

# Memory
free_of() { guest 'sed -n "s/^MemFree: *\([0-9]*\) kB/\1/p" /proc/meminfo'; echo "$OUT"; }
guest 'echo 3 >/proc/sys/vm/drop_caches'
BEFORE=$(free_of)
tap_is "$(client balloon $((96 << 20)))" "done" "the guest is asked to do without 96 MiB"
for _ in $(seq 100); do
	client info | grep -q "balloon $((96 << 20)) wanted $((96 << 20))" && break
	sleep 0.2
done
tap_has "$(client info)" "balloon $((96 << 20)) wanted $((96 << 20))" "and does"
guest true
WITHOUT=$(free_of)
[ $((BEFORE - WITHOUT)) -gt 80000 ]
tap_ok $? "which its MemFree shows: $BEFORE KiB, then $WITHOUT"
client balloon 0 >/dev/null
for _ in $(seq 100); do
	client info | grep -q "balloon 0 wanted 0" && break
	sleep 0.2
done
COMMAND=$((COMMAND + 10))
AGAIN=$(free_of)
[ $((AGAIN - WITHOUT)) -gt 80000 ]
tap_ok $? "it has it again: $AGAIN KiB"
tap_is "$(client balloon $((1 << 30)))" EINVAL "it cannot do without more than it has"

# A disk under the running guest
truncate -s 16M "$WORK/disk.img"
printf 'from the host' | dd of="$WORK/disk.img" bs=4096 seek=10 conv=notrunc 2>/dev/null
COMMAND=$((COMMAND + 10))
# Its node is there a moment before it can be opened.
until_there='i=0; until dd if=/dev/vda of=/dev/null count=1 2>/dev/null || [ $i -eq 300 ]; do usleep 50000; i=$((i + 1)); done'
tap_is "$(client attach blk disk "$WORK/disk.img" 0 0)" "done" "a disk is attached"
guest "$until_there"'; dd if=/dev/vda bs=4096 skip=10 count=1 2>/dev/null | head -c 13; echo'
tap_is "$OUT" "from the host" "the guest reads it" "$(cat "$WORK/err")"
guest 'echo from the guest >/tmp/text; dd if=/tmp/text of=/dev/vda bs=4096 seek=20 conv=fsync 2>/dev/null'
tap_is "$(dd if="$WORK/disk.img" bs=4096 skip=20 count=1 2>/dev/null | head -c 14)" "from the guest" "and writes"
tap_is "$(client attach blk disk "$WORK/disk.img" 0 0)" EEXIST "there can be one of a name"
tap_has "$(client info)" "devices 2" "info has it"
read -r REQUESTS BYTES < <(client stats | sed -n 's/.* disk \([0-9]*\) \([0-9]*\) .*/\1 \2/p')
[ "$REQUESTS" -gt 0 ] && [ "$BYTES" -gt 4096 ]
tap_ok $? "its requests are counted: $REQUESTS, of $BYTES bytes"

# Its process is killed, and another one serves it.
client event 20 >"$WORK/event" &
EVENT=$!
sleep 0.5
kill -KILL "$(pgrep -x moat-blk)"
wait "$EVENT"
tap_is "$(cat "$WORK/event")" "restarted disk" "its process is killed: another one is there"
guest 'dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>&1 | tail -n 1'
tap_has "$OUT" "16+0 records out" "the disk goes on"
tap_has "$(client stats)" "restarts 1" "which is counted"

# detached NAME: it goes, and its process with it.
detached() {
	client detached "$1" 30 >"$WORK/result"
	[ "$(cat "$WORK/result")" = "done
detached $1" ]
}
detached disk
tap_ok $? "the guest lets it go" "$(cat "$WORK/result" "$WORK/err")"
guest 'ls /dev/vda'
tap_has "$OUT" "No such file" "it is not there any more"
for _ in $(seq 50); do pgrep -x moat-blk >/dev/null || break; sleep 0.1; done
tap_is "$(pgrep -x moat-blk)" "" "nor is its process"
tap_is "$(client detach disk)" ENOENT "it cannot go twice"
DESCRIPTORS=$(ls "/proc/$VMM/fd" | wc -l)
ROUNDS=0
for _ in $(seq 20); do
	client attach blk disk "$WORK/disk.img" 0 $((ROUNDS % 2)) >/dev/null || break
	guest "$until_there; dd if=/dev/vda bs=4096 skip=20 count=1 2>/dev/null | head -c 14; echo"
	[ "$OUT" = "from the guest" ] || break
	detached disk || break
	ROUNDS=$((ROUNDS + 1))
done
[ "$ROUNDS" = 20 ]
tap_ok $? "it comes and goes 20 times" "$ROUNDS times; $OUT; $(cat "$WORK/result" "$WORK/err"; tail -n 3 "$WORK/console")"
tap_is "$(ls "/proc/$VMM/fd" | wc -l)" "$DESCRIPTORS" "and leaves nothing open"
tap_has "$(client info)" "devices 1" "nor any device"

# A directory
mkdir "$WORK/shared"
echo "of the host's" >"$WORK/shared/file"
tap_is "$(client attach fs dir "$WORK/shared" 0 0 tag)" "done" "a directory is attached"
guest 'for i in $(seq 100); do mount -t virtiofs tag /mnt 2>/dev/null && break; usleep 50000; done; cat /mnt/file; umount /mnt'
tap_is "$OUT" "of the host's" "the guest reads a file of it"
detached dir
tap_ok $? "and lets it go" "$(cat "$WORK/result")"

# A network
modprobe tun 2>/dev/null
if [ -e /dev/net/tun ]; then
	tap_is "$(client attach net nic tap7 0 0 02:00:00:00:00:07)" "done" "a network is attached"
	guest 'i=0; until [ -e /sys/class/net/eth0 ] || [ $i -eq 100 ]; do usleep 50000; i=$((i + 1)); done; cat /sys/class/net/eth0/address'
	tap_is "$OUT" "02:00:00:00:00:07" "the guest has it, with its address" "$(cat "$WORK/err")"
	detached nic
	tap_ok $? "and lets it go" "$(cat "$WORK/result")"
fi

# A dump
guest 'x=5; echo "MARKER-$((x * 1111))-$((x + 2))" >/tmp/marker'
tap_is "$(client dump "$WORK/core")" "done" "a dump"
OUT=$(readelf -lW "$WORK/core" 2>&1)
tap_has "$OUT" "0x0000000000000000 0x0000000000000000 0x10000000 0x10000000 RWE" "is an ELF core with the memory"
tap_is "$(readelf -n "$WORK/core" 2>&1 | grep -c -e PRSTATUS -e Unknown -e Warning)" 2 "and with two vCPUs"
grep -q -a MARKER-5555-7 "$WORK/core"
tap_ok $? "what was in memory is in it"
tap_has "$(client info)" "paused 0" "the machine goes on"
tap_is "$(client pause; client dump "$WORK/core"; client info | grep -o 'paused .'; client resume)" \
	$'done\ndone\npaused 1\ndone' "one that stands still goes on standing"
if command -v gdb >/dev/null; then
	OUT=$(gdb -batch -ex 'info threads' -ex 'x/s 0xe0000' -c "$WORK/core" 2>&1)
	tap_has "$OUT" '"RSD PTR ' "gdb reads the guest's memory"
fi
"$CLIENT" "$WORK" dump /dev/full >"$WORK/result"
tap_is "$(cat "$WORK/result")" EINVAL "what is no file is refused"
rm "$WORK/core"

# Those who do not keep to it
tap_is "$(client raw 104 0 0; client raw 104 12 0; client raw 104 64 0; client raw 103 1 0; client raw 105 1 0)" \
	$'dropped\ndropped\ndropped\ndropped\ndropped' "what is no message ends its connection"
tap_is "$(client raw 104 1 1; client raw 104 8 0)" $'dropped\ndropped' "so does a descriptor too many, or too few"
tap_is "$(client flood 10)" dropped "and not to take answers"
client event 2 >"$WORK/event" &
EVENT=$!
client raw 7 1 0 >/dev/null
wait "$EVENT"
tap_is "$(cat "$WORK/event")" none "others do not notice"
guest 'echo here'
tap_is "$OUT" here "nor does the machine"

# The button, and the end of it
guest 'for e in /dev/input/event*; do head -c 24 $e >/tmp/pressed & done; sleep 0.2; ls /dev/input'
tap_has "$OUT" event "the guest has a power button"
client button >/dev/null
guest 'wait; od -A n -t u2 -j 16 -N 6 /tmp/pressed'
tap_is "$(echo $OUT)" "1 116 1" "it is pressed: KEY_POWER comes down"
guest '(head -c 48 /dev/input/event0 >/dev/null; poweroff -f) & sleep 0.2'
tap_is "$(client button)" "done" "it is pressed again"
ended
tap_is "$STATUS:$ENDED" "0: 1 0" "the guest powers off, and --ended says so" "$(cat "$WORK/err")"

# One that was there from the start, in a cgroup of its own
if mkdir "$WORK/cgroup" && mount -t cgroup2 none "$WORK/cgroup" 2>/dev/null &&
	mkdir "$WORK/cgroup/devices"; then
	start --disk "$WORK/disk.img,name=first" --devices-cgroup 13 13>"$WORK/cgroup/devices/cgroup.procs"
	boots
	tap_is "$(for p in vmm supervisor blk; do sed -n 's/^0:://p' "/proc/$(pgrep -x "moat-$p")/cgroup"; done)" \
		$'/\n/devices\n/devices' "--devices-cgroup: devices are counted apart from the launcher"
	detached first
	tap_ok $? "a disk that was there from the start goes, too" "$(cat "$WORK/result" "$WORK/err")"
	client guest 'poweroff -f' =never 2 >/dev/null 2>&1
	ended
	tap_is "$ENDED:$(wc -l <"$WORK/err")" " 1 0:0" "the machine ends without a word" "$(cat "$WORK/err")"
	rmdir "$WORK/cgroup/devices"
	umount "$WORK/cgroup"
fi

# Other ends
ends() {
	start "${@:5}"
	boots
	[ -z "$2" ] || client guest "$2" "=never" 1 >/dev/null 2>&1
	[ -z "$3" ] || eval "$3" >/dev/null
	ended
	tap_is "$STATUS:$ENDED" "$4" "--ended: $1"
}
ends "a reset" "reboot -f" "" "0: 2 0the guest asked for a reset: ended, start it again"
ends "a crash" "reboot -f" "" "1: 3 1CPU 0: the guest crashed by a triple fault; ended" \
	--append "console=ttyS0 quiet reboot=t"
ends "it is told to stop" "" "client stop" "0: 5 0"
ends "while it stands still" "" "client pause; client stop" "0: 5 0"
ends "a signal" "" 'kill -TERM $MACHINE' "143: 5 143"
ends "a signal while it stands still" "" 'client pause; kill -TERM $MACHINE' "143: 5 143"
# without_control KERNEL
without_control() {
	"$CLIENT" run "$WORK" moat-vmm --kernel "$1" --mem 16M --ended 12 >"$WORK/out" 2>"$WORK/err" </dev/null &
	MACHINE=$!
	ended
}
without_control "$HERE/multiboot"
tap_is "$STATUS:$ENDED" "42: 4 42" "--ended: a byte to the exit port" "$(cat "$WORK/err")"
without_control /nowhere
tap_has "$ENDED" " 6 1" "--ended: it could not begin"
tap_has "$ENDED" "/nowhere" "and why"
tap_end
