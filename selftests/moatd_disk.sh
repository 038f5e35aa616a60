#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Disks as moatd keeps them, by disk_tool: on a file system that shares blocks, and on one that does not;
# images that lie; users that have no right; processes that are killed; and a qcow2 image as a guest's disk,
# whose storage daemon is killed again and again while the guest writes.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
TOOL=$(dirname "$0")/moatd/disk_tool
for program in vmctl qemu-img qemu-storage-daemon mkfs.ext4 mkfs.xfs e2fsck debugfs pgrep python3 "$TOOL"; do
	command -v "$program" >/dev/null || {
		tap_skip "moatd_disk" "there is no $program"
		tap_end
	}
done
WORK=$(mktemp -d)
VMCTL=
trap 'finish 2>/dev/null' EXIT
modprobe -a loop ext4 xfs 2>/dev/null

# shellcheck disable=SC2317
finish() {
	[ -z "$VMCTL" ] || kill -TERM "$VMCTL"
	wait
	umount "$WORK/xfs" "$WORK/ext4" "$WORK/seed"
	rm -rf "$WORK"
}

# mounted TYPE SIZE: a file system of its own, in $WORK/TYPE.
mounted() {
	mkdir "$WORK/$1"
	truncate -s "$2" "$WORK/$1.img" && "mkfs.$1" -q "$WORK/$1.img" && mount -o loop "$WORK/$1.img" "$WORK/$1"
}

# refused WHY WHAT ARGUMENT...
refused() {
	OUT=$("$TOOL" "${@:3}" 2>&1)
	tap_is "$?" 1 "refused: $2"
	tap_has "$OUT" "$1" "and why"
}
done_() {
	OUT=$("$TOOL" "${@:2}" 2>&1)
	tap_ok $? "$1" "$OUT"
}
field() { "$TOOL" list "$DIR" | awk -v name="$1" -v n="$2" '$1 == name { print $n }'; }
sum() { sha256sum <"$1" | cut -c-64; }
sum_qcow2() { qemu-img convert -O raw "$1" "$WORK/flat" && sum "$WORK/flat"; }

mounted ext4 600M && mounted xfs 320M
tap_ok $? "two file systems"

# 24 MiB of data in 64, of which the first are a file system that holds the words of a guest.
IMAGE=$WORK/image
truncate -s 64M "$IMAGE"
# Smaller than the image: the guest writes behind it, past the file system.
mkfs.ext4 -q -F "$IMAGE" 40M
dd if=/dev/urandom of="$IMAGE" bs=1M count=24 seek=40 conv=notrunc 2>/dev/null
qemu-img convert -O qcow2 -c "$IMAGE" "$IMAGE.qcow2"
SUM=$(sum "$IMAGE")

raw_disks() {
	DIR=$WORK/$1
	done_ "$1: an empty disk" create "$DIR" empty raw 1G 1000
	tap_is "$("$TOOL" list "$DIR")" "empty raw 1073741824 0 1000 free 0" "$1: takes no room"
	tap_is "$(stat -c '%a %u' "$DIR/empty.raw")" "600 1000" "$1: is its owner's alone"
	cp "$IMAGE" "$DIR/image"
	done_ "$1: a disk from an image" create "$DIR" a raw 80M 1000 "$DIR/image" raw
	truncate -s 80M "$DIR/image"
	cmp -s "$DIR/image" "$DIR/a.raw"
	tap_ok $? "$1: has what the image has, and is larger"
	[ "$(field a 4)" -lt $((40 << 20)) ]
	tap_ok $? "$1: and its holes"
	OUT=$("$TOOL" snapshot "$DIR" a before)
	tap_is "$OUT" "$2" "$1: a snapshot${2:+ is a copy}"
	echo changed | dd of="$DIR/a.raw" conv=notrunc 2>/dev/null
	tap_is "$(field a 7)" 1 "$1: is counted"
	refused "there is one" "$1: two snapshots of one name" snapshot "$DIR" a before
	done_ "$1: reverting" revert "$DIR" a before
	cmp -s "$DIR/image" "$DIR/a.raw"
	tap_ok $? "$1: brings back what was there"
	done_ "$1: a disk goes" delete "$DIR" a
	done_ "$1: the other, too" delete "$DIR" empty
	rm "$DIR/image"
	tap_is "$(find "$DIR" -type f)" "" "$1: with its snapshots"
}
raw_disks ext4 "a copy"
raw_disks xfs ""
cp "$IMAGE" "$WORK/xfs/image"
BEFORE=$(df --output=used -k "$WORK/xfs" | tail -n 1)
done_ "xfs: a disk that shares the image's blocks" create "$WORK/xfs" shared raw 0 1000 "$WORK/xfs/image" raw reflink
sync
AFTER=$(df --output=used -k "$WORK/xfs" | tail -n 1)
[ $((AFTER - BEFORE)) -lt 2048 ]
tap_ok $? "xfs: takes no more room ($((AFTER - BEFORE)) KiB)"
umount "$WORK/xfs"
rm "$WORK/xfs.img"

DIR=$WORK/ext4
cp "$IMAGE" "$DIR/image"
refused "cannot share" "ext4: sharing, where the file system cannot" create "$DIR" a raw 0 1000 "$DIR/image" raw reflink
rm "$DIR/image"

# qcow2, from and to.
done_ "a raw disk from a compressed qcow2 image" create "$DIR" flat raw 0 1000 "$IMAGE.qcow2" qcow2
tap_is "$OUT" "progress 10000" "which tells how far it is"
tap_is "$(sum "$DIR/flat.raw")" "$SUM" "has what was in it"
done_ "a qcow2 disk from a raw image" create "$DIR" q qcow2 128M 1000 "$IMAGE" raw
truncate -s 128M "$IMAGE.128"; dd if="$IMAGE" of="$IMAGE.128" conv=notrunc,sparse bs=1M 2>/dev/null
tap_is "$(sum_qcow2 "$DIR/q.qcow2")" "$(sum "$IMAGE.128")" "has it, too, and is larger"
done_ "a snapshot of it" snapshot "$DIR" q one
qemu-io -f qcow2 -c 'write -P 7 0 1M' "$DIR/q.qcow2" >/dev/null
tap_is "$("$TOOL" snapshots "$DIR" q) $(field q 7)" "one 134217728 1 1" "is there"
refused "there is a snapshot" "two of one name" snapshot "$DIR" q one
done_ "reverting" revert "$DIR" q one
tap_is "$(sum_qcow2 "$DIR/q.qcow2")" "$(sum "$IMAGE.128")" "brings back what was there"
done_ "the snapshot goes" unsnapshot "$DIR" q one
done_ "it grows" resize "$DIR" q 256M
tap_is "$(field q 3)" 268435456 "to what was asked for"
refused "would be lost" "shrinking, unasked" resize "$DIR" q 128M
done_ "it shrinks" resize "$DIR" q 128M shrink
refused "one of that name" "a raw disk of the same name" create "$DIR" q raw 1M 1000
qemu-img check -q "$DIR/q.qcow2"
tap_ok $? "the image is sound"
done_ "deleting it" delete "$DIR" q
done_ "and the other" delete "$DIR" flat

# What images say of other files. This is what a program of QEMU's would open, were it let.
echo words of the host >"$WORK/secret"
truncate -s 1M "$WORK/secret"
chmod 644 "$WORK/secret"
hostile() { qemu-img create -q -f qcow2 "$WORK/hostile" "$@" >/dev/null; }
hostile -u -b /etc/shadow -F raw 1M
refused "backing file" "an image with a backing file" create "$DIR" h raw 0 1000 "$WORK/hostile" qcow2
hostile -o "data_file=$WORK/secret,data_file_raw=on" 1M
refused "another file" "an image whose data is another file" create "$DIR" h raw 0 1000 "$WORK/hostile" qcow2
hostile -u -b "$WORK/secret" -F raw 1M
done_ "the same, as the raw bytes that it is" create "$DIR" h qcow2 0 1000 "$WORK/hostile" raw
tap_is "$(qemu-img convert -O raw "$DIR/h.qcow2" "$WORK/flat"; cmp -n "$(stat -c %s "$WORK/hostile")" "$WORK/flat" \
	"$WORK/hostile" && ! grep -q "words of the host" "$WORK/flat"; echo $?)" 0 "is never taken for anything else"
"$TOOL" delete "$DIR" h
head -c 100000 /dev/urandom >"$WORK/hostile"
printf 'QFI\373\0\0\0\3' | dd of="$WORK/hostile" conv=notrunc 2>/dev/null
refused "" "an image of noise" create "$DIR" h raw 0 1000 "$WORK/hostile" qcow2
tap_is "$(find "$DIR" -type f)" "" "nothing of these is left"

# Rights.
"$TOOL" create "$DIR" mine qcow2 16M 1000 >/dev/null
refused "Permission denied" "another user's disk" open "$DIR" mine 1001 1001 ro
refused "Permission denied" "another user's disk, by its path" open-path "$DIR/mine.qcow2" qcow2 1001 1001 ro
refused "Permission denied" "what only root may read" open-path /etc/shadow raw 1000 1000 ro
ln -s /etc/shadow "$WORK/link"
chmod 755 "$WORK"
refused "Permission denied" "the same, by a link" open-path "$WORK/link" raw 1000 1000 ro
done_ "its owner opens it" open "$DIR" mine 1000 1000 rw
# shellcheck disable=SC2016
OUT=$("$TOOL" open "$DIR" mine 1000 1000 rw sh -c '"$0" delete "$1" mine; "$0" open "$1" mine 1000 1000 ro
	vmctl run --disk "$1/mine.qcow2,format=qcow2" -- true; echo $?' "$TOOL" "$DIR" 2>&1)
tap_is "$(grep -c 'in use' <<<"$OUT") ${OUT##*
}" "3 125" "while somebody has it, nobody else does, by its name or its path" "$OUT"
tap_is "$("$TOOL" list "$DIR" | cut -d' ' -f6)" free "and then it is free"
"$TOOL" delete "$DIR" mine

# Killed at any moment: there is no disk, or all of it.
killed() {
	local half=0 pid
	for _ in $(seq 15); do
		"$TOOL" create "$DIR" k "$1" 0 1000 "$2" "$3" >/dev/null 2>&1 &
		pid=$!
		sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
		for _ in $(seq 100); do pgrep -x qemu-img >/dev/null || break; sleep 0.05; done
		if [ -e "$DIR/k.$1" ]; then
			[ "$(sum_qcow2 "$DIR/k.$1")" = "$SUM" ] || half=1
			rm "$DIR/k.$1"
		else
			KILLS=$((KILLS + 1))
		fi
		"$TOOL" sweep "$DIR"
		[ -z "$(find "$DIR" -type f)" ] || half=2
	done
	tap_is "$half $(pgrep -x qemu-img)" "0 " "killed 15 times, $KILLS of them in time: $4"
}
KILLS=0
killed raw "$IMAGE" raw "copying leaves nothing"
ONCE=$KILLS
killed qcow2 "$IMAGE.qcow2" qcow2 "converting leaves nothing"
[ "$ONCE" -gt 0 ] && [ "$KILLS" -gt "$ONCE" ]
tap_ok $? "which happened in the middle of it"

# A seed, as a guest would find it, and as cloud-init would read it.
mkdir "$WORK/seed"
# shellcheck disable=SC2016
NASTY='a"b\c: {$x} - #cloud-config
runcmd: [reboot]'
# shellcheck disable=SC2016
"$TOOL" seed "$NASTY" '- *é' '$6$x: y' 192.0.2.5/24 'ssh-rsa AAAA "me"' "$NASTY" >"$WORK/seed.iso"
tap_is "$(blkid -o value -s LABEL "$WORK/seed.iso")" CIDATA "a seed is called CIDATA"
modprobe -a isofs nls_utf8 2>/dev/null
mount -o loop,ro "$WORK/seed.iso" "$WORK/seed"
tap_ok $? "and is a file system"
OUT=$(cd "$WORK/seed" && python3 - "$NASTY" <<'END' 2>&1
import sys, yaml
nasty = sys.argv[1]
text = open('user-data', encoding='utf-8').read()
assert text.startswith('#cloud-config\n'), text
user = yaml.safe_load(text)
assert user == {'hostname': nasty, 'ssh_pwauth': True, 'users': [{'name': '- *é', 'shell': '/bin/bash',
    'sudo': 'ALL=(ALL) NOPASSWD:ALL', 'lock_passwd': False, 'passwd': '$6$x: y',
    'ssh_authorized_keys': ['ssh-rsa AAAA "me"', nasty]}]}, user
meta = yaml.safe_load(open('meta-data', encoding='utf-8'))
assert meta == {'instance-id': nasty, 'local-hostname': nasty}, meta
net = yaml.safe_load(open('network-config', encoding='utf-8'))
assert net == {'version': 2, 'ethernets': {'net0': {'match': {'macaddress': '02:00:00:00:00:01'},
    'addresses': ['192.0.2.5/24'], 'routes': [{'to': '0.0.0.0/0', 'via': '192.0.2.1'}],
    'nameservers': {'addresses': ['192.0.2.2']}}}}, net
print('same')
END
)
tap_is "$OUT" same "a reader of YAML finds in it what was told, and nothing else"

# A guest's disk. Its storage daemon is another's program, in a sandbox.
start() {
	rm -f "$WORK/out" "$WORK/err"
	"${@:2}" -- sh -c "$1" >"$WORK/out" 2>"$WORK/err" </dev/null &
	VMCTL=$!
}
# shellcheck disable=SC2317
came_to() { grep -q "^$1" "$WORK/out"; }
part() { pgrep -x "$1" | head -n 1; }
# shellcheck disable=SC2317
other_than() { local now; now=$(part qemu-storage-da) && [ "$now" != "$1" ]; }
wait_for() {
	for _ in $(seq 1000); do
		"$@" && return
		[ -e "/proc/$VMCTL" ] || return
		sleep 0.05
	done
	return 1
}
none_left() {
	local left comm
	for _ in $(seq 100); do
		left=$(for comm in moat-vmm moat-supervisor moat-qcow2 qemu-storage-da; do pgrep -x "$comm"; done)
		[ -n "$left" ] || break
		sleep 0.05
	done
	tap_is "$left" "" "nothing is left of a machine that $1"
}

"$TOOL" create "$DIR" disk qcow2 0 1000 "$IMAGE" raw >/dev/null
# shellcheck disable=SC2016
GUEST='
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt || exit 20
for w in 1 2 3 4; do head -c 300000 /dev/urandom >/source$w; done
round=0
while [ "$(cut -d. -f1 /proc/uptime)" -lt 45 ] || [ $round -lt 4 ]; do
	for w in 1 2 3 4; do
		dd if=/source$w of=/mnt/file$((round % 4)).$w bs=4k 2>/dev/null &
	done
	wait
	dd if=/source1 of=/dev/vda bs=4k count=40 seek=$((12000 + round % 40 * 40)) oflag=direct conv=notrunc 2>/dev/null || exit 23
	dd if=/dev/vda bs=4k count=40 skip=$((12000 + round % 40 * 40)) iflag=direct 2>/dev/null |
		cmp -n 163840 - /source1 || exit 24
	round=$((round + 1))
	echo "round $round"
done
echo last
sync
echo 3 >/proc/sys/vm/drop_caches
for f in 0 1 2 3; do
	for w in 1 2 3 4; do cmp /source$w /mnt/file$f.$w || exit 21; done
done
for w in 1 2 3 4; do sha256sum </source$w; done
umount /mnt || exit 22
'
# The machine is one user, the disk another one's, opened as that and handed over.
start "$GUEST" "$TOOL" open "$DIR" disk 1000 1000 rw vmctl run --cpus 2 --uid 4242 --gid 4242 \
	--disk /proc/self/fd/9,format=qcow2
KILLED=0
wait_for came_to "round 1"
RIGHTS=$(for p in qemu-storage-da moat-qcow2; do
	sed -n 's/^\(Uid\|CapPrm\|CapBnd\|NoNewPrivs\|Seccomp\):\t0*\([0-9]*\).*/\1=\2/p' "/proc/$(part $p)/status"
done | tr '\n' ' ')
ROOT=$(ls "/proc/$(part qemu-storage-da)/root")
SEES=$(cat "/proc/$(part qemu-storage-da)/root/etc/shadow" "/proc/$(part qemu-storage-da)/root/../etc/shadow" 2>&1 |
	grep -vc 'No such file')
NET=$(readlink "/proc/$(part qemu-storage-da)/ns/net")
FILES=$(readlink "/proc/$(part qemu-storage-da)/fd/"* | grep '^/' | grep -vx "$WORK/err" | sort -u | tr '\n' ' ')
NAMES=$(find /tmp -maxdepth 1 -name 'moat-??????')
MEMORY=$(for p in qemu-storage-da moat-qcow2; do
	awk -v p="$p" '/^Private_Dirty/ { own = $2 } /^Pss:/ { pss = $2 } END { print p, own, pss }' \
		"/proc/$(part $p)/smaps_rollup"
done | tr '\n' ' ')
while [ -e "/proc/$VMCTL" ] && ! came_to last && [ "$KILLED" -lt 20 ]; do
	DAEMON=$(part qemu-storage-da) || break
	if [ $((KILLED % 4)) = 3 ]; then kill -KILL "$(part moat-qcow2)"; else kill -KILL "$DAEMON"; fi
	KILLED=$((KILLED + 1))
	wait_for other_than "$DAEMON"
	sleep "0.$((KILLED * 3 % 10))"
done
wait "$VMCTL"
tap_is "$?" 0 "the guest writes, and reads the same, from a qcow2 disk whose server is killed $KILLED times" \
	"$(tail -n 8 "$WORK/err")"
[ "$KILLED" -ge 1 ]
tap_ok $? "which is some"
VMCTL=
none_left "has switched itself off"
echo "# own memory and share of all, KiB: $MEMORY; rounds: $(grep -c round "$WORK/out")"
tap_is "$RIGHTS" "Uid=4242 CapPrm= CapBnd= NoNewPrivs=1 Seccomp=2 Uid=4242 CapPrm= CapBnd= NoNewPrivs=1 Seccomp=2 " \
	"daemon and proxy are the machine's user, without any rights"
# shellcheck disable=SC2012
tap_is "$(tr '\n' ' ' <<<"$ROOT")" "$(ls /usr | tr '\n' ' ')" "the daemon's root is /usr"
tap_is "$SEES" 0 "where no file of the host's is"
[ "$NET" != "$(readlink /proc/self/ns/net)" ]
tap_ok $? "it has no network"
tap_is "$FILES" "/dev/null $DIR/disk.qcow2 " "and no file but the disk"
tap_is "$NAMES" "" "nor is there a name by which it could be connected to"
qemu-img check -q "$DIR/disk.qcow2" >/dev/null 2>&1
CHECK=$?
[ "$CHECK" = 0 ] || [ "$CHECK" = 3 ]	# clusters that nobody uses are no fault
tap_ok $? "the image is sound" "$(qemu-img check "$DIR/disk.qcow2" 2>&1 | tail -n 5)"
qemu-img convert -O raw "$DIR/disk.qcow2" "$WORK/flat"
CHECK=$(e2fsck -fn "$WORK/flat" 2>&1)
tap_ok $? "e2fsck -fn finds nothing" "$CHECK"
SUMS=$(for w in 1 2 3 4; do debugfs -R "cat /file3.$w" "$WORK/flat" 2>/dev/null | sha256sum; done)
tap_is "$SUMS" "$(grep -v -e round -e last "$WORK/out")" "the files are what the guest wrote"

# By its path, read-only, by an ordinary user.
cp "$DIR/disk.qcow2" "$WORK/disk.qcow2"
# shellcheck disable=SC2016
OUT=$(vmctl run --disk "$WORK/disk.qcow2,format=qcow2,ro" --uid 4242 --gid 4242 -- sh -c '
	mkdir -p /mnt && mount -t ext4 -o ro,noload /dev/vda /mnt && sha256sum </mnt/file3.1
	dd if=/dev/zero of=/dev/vda bs=512 count=1 oflag=direct 2>/dev/null || echo refused' 2>"$WORK/err" </dev/null)
tap_is "$OUT" "$(head -n 1 <<<"$SUMS")
refused" "a read-only one is read, and not written" "$(cat "$WORK/err")"
hostile -u -b /etc/shadow -F raw 1M
OUT=$(vmctl run --disk "$WORK/hostile,format=qcow2" -- true 2>&1 </dev/null)
tap_has "$? $OUT" "125 vmctl: disk $WORK/hostile: it has a backing file" "an image with a backing file is no disk"
OUT=$(vmctl run --disk "$WORK/disk.qcow2,format=vmdk" -- true 2>&1 </dev/null)
tap_has "$? $OUT" "format=raw or qcow2" "nor is one of another format"
OUT=$(vmctl run --disk "$WORK/disk.qcow2,format=qcow2,direct" -- true 2>&1 </dev/null)
tap_has "$? $OUT" "page cache" "and none is past the page cache"

# A machine that ends without its supervisor takes the daemon along.
start 'echo up; while :; do sleep 1; done' vmctl run --disk "$WORK/disk.qcow2,format=qcow2"
wait_for came_to up
kill -KILL "$(part moat-supervisor)"
sleep 1
[ -n "$(part qemu-storage-da)" ]
tap_ok $? "the daemon stays without a supervisor"
kill -KILL "$(part moat-vmm)"
wait "$VMCTL"
VMCTL=
none_left "was killed, after its supervisor was"
tap_end
