#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A guest that writes memory on two CPUs, and finds in each word what it wrote before (patterns.c),
# is saved and loaded (savevm, loadvm; qcow2) and moved to another QEMU process (migrate; a Unix
# socket) ten times in a row: it goes on each time, and nothing is lost. Then a byte of its memory
# is spoilt while it stands still between two processes, and it has to notice.
#
# usage: migrate.sh VERSION IRQCHIP ROUNDS [ACCEL]
#	ACCEL: more properties of the accelerator, dirty-ring-size=4096 for one

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

MEMORY=96M
STEP_SECONDS=300
# The name of the guest's memory in the stream, as it is where no file is named.
BLOCK=x-use-canonical-path-for-ramblock-id=off

# The guest: the kernel that is on Debian's disk, and our program as its first process.
make_guest() {
	mkdir -p "$WORK/initramfs/dev"
	cp "$HELPERS/patterns" "$WORK/initramfs/init"
	mknod "$WORK/initramfs/dev/console" c 5 1
	(cd "$WORK/initramfs" && find . | cpio -o -H newc --quiet) >"$WORK/initrd"
	chroot "$TREE" qemu-img create -q -f qcow2 "$WORK/disk.qcow2" 64M
	truncate -s "$MEMORY" "$WORK/memory"
}

# vm_start NAME ARGS...: a QEMU, whose guest's console goes to $WORK/NAME.console. What it is told
# goes into the descriptor IN[NAME], what it answers comes from OUT[NAME].
vm_start() {
	local name=$1 in out
	shift
	mkfifo "$WORK/$name.in" "$WORK/$name.out"
	exec {in}<>"$WORK/$name.in" {out}<>"$WORK/$name.out"
	: >"$WORK/$name.console"
	"${QEMU[@]}" -m "$MEMORY" -serial "file:$WORK/$name.console" -qmp stdio \
		-kernel /mnt/vmlinuz -initrd "$WORK/initrd" \
		-append "quiet console=ttyS0 panic=-1 tsc=reliable" -no-reboot \
		-drive "file=$WORK/disk.qcow2,if=none,id=disk,format=qcow2" \
		-device virtio-blk-pci,drive=disk "$@" \
		<"$WORK/$name.in" >"$WORK/$name.out" 2>"$WORK/$name.err" &
	PID[$name]=$! IN[$name]=$in OUT[$name]=$out
	qmp "$name" '"qmp_capabilities"'
}

# qmp NAME COMMAND: COMMAND is the JSON after "execute":. The reply is left in REPLY; false where it
# is an error, or none comes.
qmp() {
	printf '{"execute":%s}\n' "$2" >&"${IN[$1]}"
	while read -r -t "$STEP_SECONDS" REPLY <&"${OUT[$1]}"; do
		case $REPLY in
		*'"return":'*) return 0 ;;
		*'"error":'*) break ;;
		esac
	done
	echo "# $1: $2: ${REPLY:-no answer}"
	tail -n 3 "$WORK/$1.err" | sed 's/^/# /'
	return 1
}

# hmp NAME LINE: what only QEMU's own monitor has; it says nothing where it went well.
hmp() {
	qmp "$1" "\"human-monitor-command\",\"arguments\":{\"command-line\":\"$2\"}" || return 1
	[[ $REPLY == *'"return": ""'* ]] || { echo "# $1: $2: $REPLY"; return 1; }
}

# vm_end NAME: QEMU ends by itself, with status 0.
vm_end() {
	local in=${IN[$1]} out=${OUT[$1]}
	qmp "$1" '"quit"'
	wait "${PID[$1]}" || { echo "# $1: QEMU ended with status $?"; return 1; }
	exec {in}>&- {out}>&-
}

# passes NAME: how many passes its console tells of, of both CPUs: the lesser number.
passes() {
	awk '/^cpu [01] pass/ { n[$2]++ } END { print (n[0] < n[1] ? n[0] : n[1]) + 0 }' \
		"$WORK/$1.console"
}

# Anything but passes is a loss: the guest's own word for it, or a panic.
lost() {
	grep -aE 'LOST|panic|BUG|Oops' "$WORK/$1.console" | head -n 5 | sed 's/^/# /' | grep .
}

# goes_on NAME: both CPUs say two more passes (the second began after whatever was done to it), and
# nothing is lost.
goes_on() {
	local i before
	before=$(passes "$1")
	for ((i = 0; i < STEP_SECONDS * 5; i++)); do
		if lost "$1"; then return 1; fi
		[ "$(passes "$1")" -lt $((before + 2)) ] || return 0
		sleep 0.2
	done
	echo "# $1: no two passes within $STEP_SECONDS s after $before"
	tail -n 3 "$WORK/$1.console" | sed 's/^/# /'
	return 1
}

saves() {
	local i
	for ((i = 1; i <= ROUNDS; i++)); do
		if ! { hmp vm "savevm round" && goes_on vm && hmp vm "loadvm round" && goes_on vm; }; then
			break
		fi
	done
	tap_is "$((i - 1))" "$ROUNDS" "$NAME: savevm and loadvm $ROUNDS times in a row"
}

# move FROM TO: also says how many rounds it took to send what had been written meanwhile.
move() {
	local i
	qmp "$1" "\"migrate\",\"arguments\":{\"uri\":\"unix:$WORK/$2.socket\"}" || return 1
	for ((i = 0; i < STEP_SECONDS * 5; i++)); do
		qmp "$1" '"query-migrate"' || return 1
		case $REPLY in
		*'"status": "completed"'*) break ;;
		*'"status": "failed"'*) echo "# $REPLY"; return 1 ;;
		esac
		sleep 0.2
	done
	[[ $REPLY =~ \"dirty-sync-count\":\ ([0-9]+) ]] && SYNCS+=" ${BASH_REMATCH[1]}"
	[[ $REPLY == *'"completed"'* ]] || { echo "# not moved in time: $REPLY"; return 1; }
}

# vm_next NAME ARGS...: a QEMU that waits for the guest to be moved to it.
vm_next() {
	vm_start "$@" -incoming "unix:$WORK/$1.socket"
}

# The guest never stops writing: more than a second's standstill is allowed, or it never ends.
patience() {
	qmp "$1" '"migrate-set-parameters","arguments":{"downtime-limit":4000}'
}

moves() {
	local i from=vm to
	SYNCS=''
	for ((i = 1; i <= ROUNDS; i++)); do
		to=vm$i
		if ! { vm_next "$to" && patience "$from" && move "$from" "$to" &&
			vm_end "$from" && goes_on "$to"; }; then
			break
		fi
		from=$to
	done
	echo "# rounds of dirty memory in each move:$SYNCS"
	tap_is "$((i - 1))" "$ROUNDS" "$NAME: migrated $ROUNDS times in a row"
	LAST=$from
}

# The guest's memory on the other side is a file that can be seen from outside. One byte of a
# piece is changed there before the guest goes on: the test itself must see that.
spoil() {
	local place
	vm_next spoilt -S -machine memory-backend=pc.ram -object \
		"memory-backend-file,id=pc.ram,$BLOCK,size=$MEMORY,mem-path=$WORK/memory,share=on" &&
		patience "$LAST" && move "$LAST" spoilt && vm_end "$LAST" || return 1
	place=$(LC_ALL=C grep -obUaP 'moat[\x00-\xff]{4}moat[\x00-\xff]{4}moat' "$WORK/memory" |
		head -n 1)
	[ -n "$place" ] || return 1
	printf X | dd of="$WORK/memory" bs=1 seek="$((${place%%:*} + 1))" conv=notrunc status=none
	qmp spoilt '"cont"'
	! goes_on spoilt >"$WORK/spoilt" && grep -q LOST "$WORK/spoilt"
}

inside() {
	local VERSION=$1 IRQCHIP=$2 ACCEL=${4:+,$4}
	declare -A PID IN OUT
	ROUNDS=$3
	NAME="QEMU $VERSION, irqchip $IRQCHIP$ACCEL"
	WORK=$(mktemp -d)
	tree_enter && make_guest || exit 1
	qemu "$VERSION" ",kernel-irqchip=$IRQCHIP$ACCEL" q35 2
	if ! { vm_start vm && goes_on vm; }; then
		tap_ok 1 "$NAME: the guest starts"
		tap_end
	fi
	saves
	moves
	spoil
	tap_ok $? "$NAME: one byte changed between two processes is seen"
	[ ! -s "$WORK/spoilt" ] || sed 's/^#/#  as it should:/' "$WORK/spoilt"
	qmp spoilt '"quit"'
	tap_end
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
lab_self -- "$@"
