#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Devices that are processes of their own, under the launcher's supervisor: a disk whose moat-blk is
# killed again and again while the guest writes; that nothing is left of a machine however it ends; that
# a machine does without its supervisor; and what is said where a device cannot be. With it: what the
# launcher takes, and what it may.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
for program in vmctl moat-blk mkfs.ext4 e2fsck debugfs pgrep; do
	command -v "$program" >/dev/null || {
		tap_skip "vmctl_supervisor" "there is no $program"
		tap_end
	}
done
OWN_KIB=2048
WORK=$(mktemp -d)
VMCTL=
trap 'end_machine 2>/dev/null; rm -rf "$WORK"' EXIT
IMAGE=$WORK/disk.img

# Processes of the machine that runs, by their part: they are below its vmctl, or were.
parts() {
	local comm
	for comm in moat-vmm moat-supervisor moat-blk; do pgrep -x "$comm"; done
}
part() { pgrep -x "$1" | head -n 1; }

# Not by way of vmctl, which would have the guest's command end first.
end_machine() {
	local vmm
	[ -z "$VMCTL" ] || vmm=$(part moat-vmm)
	[ -z "${vmm:-}" ] || kill -TERM "$vmm"
	[ -z "$VMCTL" ] || wait "$VMCTL" 2>/dev/null
	VMCTL=
}

# start GUEST OPTION...
start() {
	local guest=$1
	shift
	rm -f "$WORK/out" "$WORK/err"
	vmctl run "$@" -- sh -c "$guest" >>"$WORK/out" 2>>"$WORK/err" </dev/null &
	VMCTL=$!
}

# wait_for COMMAND...: until it is true, or the machine has ended.
wait_for() {
	for _ in $(seq 1000); do
		"$@" && return
		[ -e "/proc/$VMCTL" ] || return
		sleep 0.05
	done
	return 1
}

# shellcheck disable=SC2317
came_to() { grep -q "^$1" "$WORK/out"; }
# shellcheck disable=SC2317
said() { grep -q "$1" "$WORK/err"; }
# shellcheck disable=SC2317
other_than() { local now; now=$(part moat-blk) && [ "$now" != "$1" ]; }

none_left() {
	local left
	for _ in $(seq 100); do
		left=$(parts)
		[ -n "$left" ] || break
		sleep 0.05
	done
	tap_is "$left" "" "nothing is left of a machine that $1"
}

show() { tail -n 8 "$WORK/err" | sed 's/^/# /'; }

truncate -s 64M "$IMAGE"
mkfs.ext4 -q -F "$IMAGE"

# What cannot be, and what is said of it.
refused() {
	OUT=$(timeout 60 vmctl run "${@:3}" -- true 2>&1 </dev/null)
	tap_is "$?" 125 "refused: $2"
	tap_has "$OUT" "$1" "and why"
}
refused "give PATH" "an isolation that is none" --disk "$IMAGE,isolation=full"
refused "give TAP" "a tap with an isolation that is none" --net tap0,isolation=full
refused "--uid and --gid go together" "a user and no group" --uid 65534

mkdir "$WORK/bin"
cp "$(command -v vmctl)" "$(command -v moat-vmm)" "$(command -v moat-init)" "$WORK/bin"
without() {
	OUT=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin timeout 60 "$WORK/bin/vmctl" run \
		--disk "$IMAGE,isolation=shared" -- true 2>&1 </dev/null)
	tap_is "$?" 125 "$1"
	tap_has "$OUT" "$2" "and why"
}
without "without moat-blk there is no machine" "cannot start moat-blk: No such file"
cp /bin/false "$WORK/bin/moat-blk"
without "nor with one that ends at once" "blk $IMAGE: GET_FEATURES"
none_left "could not be"

# The guest's half: four writers at once, round by round for some time, and at the end all is read from
# the disk.
GUEST='
mkdir -p /mnt && mount -t ext4 /dev/vda /mnt || exit 20
for w in 1 2 3 4; do head -c 400000 /dev/urandom >/source$w; done
round=0
while [ "$(cut -d. -f1 /proc/uptime)" -lt 40 ] || [ $round -lt 4 ]; do
	for w in 1 2 3 4; do
		dd if=/source$w of=/mnt/file$((round % 4)).$w bs=4k conv=fsync 2>/dev/null &
	done
	wait
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
start "$GUEST" --cpus 2 --uid 65534 --gid 65534 --disk "$IMAGE,isolation=grant"
KILLED=0
wait_for came_to "round 1"
USERS=$(for p in moat-vmm moat-blk; do sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$(part $p)/status"; done)
RIGHTS=$(for p in moat-vmm moat-blk; do
	sed -n 's/^\(CapPrm\|CapBnd\|NoNewPrivs\|Seccomp\):\t0*\(.*\)/\1=\2/p' "/proc/$(part $p)/status"
	ls "/proc/$(part $p)/root"
done | tr '\n' ' ')
FILES=$(readlink "/proc/$(part moat-vmm)/fd/"* | grep '^/' |
	grep -v -e '^/memfd:' -e '^/dev/\(moat\|kvm\|null\)$' |
	grep -v -x -e "$WORK/out" -e "$WORK/err")
while [ -e "/proc/$VMCTL" ] && ! came_to last && [ "$KILLED" -lt 30 ]; do
	BLK=$(part moat-blk) || break
	kill -KILL "$BLK"
	KILLED=$((KILLED + 1))
	wait_for other_than "$BLK"
	sleep "0.$((KILLED * 3 % 10))"
done
wait "$VMCTL"
tap_is "$?" 0 "the guest writes, and reads the same, from a disk whose process is killed $KILLED times"
VMCTL=
none_left "has switched itself off"
SEEN=$(grep -c 'its process was ' "$WORK/err")
[ "$SEEN" -gt 1 ] && [ "$SEEN" -le "$KILLED" ]
tap_ok $? "the launcher says so ($SEEN times)"
show
CHECK=$(e2fsck -fn "$IMAGE" 2>&1)
tap_ok $? "e2fsck -fn finds nothing" "$CHECK"
SUMS=$(for w in 1 2 3 4; do debugfs -R "cat /file3.$w" "$IMAGE" 2>/dev/null | sha256sum; done)
tap_is "$SUMS" "$(grep -v -e round -e last "$WORK/out")" "the files are what the guest wrote"
tap_is "$USERS" "65534
65534" "launcher and disk are that user"
tap_is "$RIGHTS" "CapPrm= CapBnd= NoNewPrivs=1 Seccomp=2 CapPrm= CapBnd= NoNewPrivs=1 Seccomp=2 " \
	"and have no capabilities, no files and few system calls"
tap_is "$FILES" "" "the launcher has no file open"

# Memory of the launcher's own, in KiB: what it has changed, and shares with nobody; and what of that is
# anonymous.
own_memory() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { shared = $2 ~ /s$/ }
		/^Rss:/ && !shared { rss += $2 }
		/^Private_Dirty:/ && !shared { own += $2 }
		/^Anonymous:/ { anonymous += $2 }
		END { print own + 0, anonymous + 0, rss + 0 }' "/proc/$1/smaps"
}

IDLE='echo up; while :; do sleep 1; done'
SHARED="$IMAGE,isolation=shared"

start "$IDLE" --disk "$IMAGE,ro,direct,isolation=shared"
wait_for came_to up
tap_is "$(tr '\0' ' ' <"/proc/$(part moat-blk)/cmdline")" \
	"moat-blk --disk $IMAGE --read-only --direct --fd 3 " "moat-blk is told what was asked for"
read -r OWN ANONYMOUS RSS < <(own_memory "$(part moat-vmm)")
[ "$OWN" -gt 0 ] && [ "$OWN" -le "$OWN_KIB" ]
tap_ok $? "the launcher has $OWN KiB of its own, $ANONYMOUS anonymous (resident with libraries $RSS); at most $OWN_KIB"
read -r OWN ANONYMOUS RSS < <(own_memory "$(part moat-supervisor)")
tap_ok 0 "the supervisor has $OWN KiB of its own, $ANONYMOUS anonymous (resident with libraries $RSS)"
end_machine
none_left "was told to end"

start "$IDLE" --disk "$SHARED"
wait_for came_to up
kill -KILL "$(part moat-vmm)"
wait "$VMCTL"
none_left "was killed"

start "$IDLE" --disk "$SHARED"
wait_for came_to up
kill -KILL "$VMCTL"
wait "$VMCTL" 2>/dev/null
none_left "was killed with its vmctl"

# One write ends whoever serves it. The guest gets an error for that one; the rest goes on, before it and
# behind it. The device program is one of the test's, in the place of moat-blk.
mkdir -p "$WORK/bin"
cp "$(dirname "$(command -v vmctl)")"/{vmctl,moat-vmm,moat-init} "$WORK/bin"
cp "$(dirname "$0")/vhost/poison_device" "$WORK/bin/moat-blk"
PATH=$WORK/bin:$PATH start '
for i in 1 2 3 4 5 6 7 8; do
	dd if=/dev/zero of=/dev/vda bs=4k count=20 seek=$((1000 + i * 20)) oflag=direct conv=notrunc 2>/dev/null &
done
dd if=/dev/zero of=/dev/vda bs=512 count=1 seek=4096 oflag=direct conv=notrunc,fsync 2>/dev/null && exit 20
wait
dd if=/dev/zero of=/dev/vda bs=512 count=1 seek=5000 oflag=direct conv=notrunc,fsync 2>/dev/null || exit 21
dmesg | grep -c "I/O error, dev"' --disk "$IMAGE"
wait "$VMCTL"
tap_is "$? $(cat "$WORK/out")" "0 1" "a request that ends three processes fails, and no other does" \
	"$(cat "$WORK/err")"
tap_is "$(grep -c 'its process was killed by signal' "$WORK/err")" 3 "it was tried three times"
tap_has "$(cat "$WORK/err")" "one request has ended 3 back ends" "which is said"

# Without its supervisor a machine goes on, and so do its devices; one that ends then stays so.
start 'echo up; while :; do dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; echo read; sleep 1; done' \
	--disk "$SHARED"
wait_for came_to read
kill -KILL "$(part moat-supervisor)"
wait_for said 'the supervisor of devices has ended'
: >"$WORK/out"
wait_for came_to read
tap_ok $? "the disk is there without the supervisor"
kill -KILL "$(part moat-blk)"
wait_for said 'there will be no other back end'
sleep 3
tap_is "$(grep -c 'the supervisor of devices has ended' "$WORK/err") $(grep -c 'no other back end' "$WORK/err")" \
	"1 1" "what ends then is not started again, which is said once"
[ -n "$(part moat-vmm)" ]
tap_ok $? "and the machine stays"
show
end_machine
none_left "has lost its supervisor"
tap_end
