#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Stock QEMU boots Debian's kernel with a tree of this machine's that moat-fs serves: to be read, then to
# be written. What the guest has read is what is there, what it has written is here, and more than
# that it cannot reach. (Of such a device QEMU may abort where its back end goes.)
#
# Runs on this machine. Environment: FILES (2000), small ones in the tree; QEMU, the command of another
# QEMU.

set -uo pipefail

TOP=$(cd "$(dirname "$(realpath "$0")")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/vhost/lib.sh
. "$TOP/selftests/vhost/lib.sh"
FS=$TOP/build/bin/moat-fs
GUEST=$TOP/build/selftests/vhost/fs_work
FILES=${FILES:-2000}
COMES_BACK=''

# A tree of many small files, a few large ones, a sparse one, and links in and out of it.
make_tree() {
	local shared=$1 i
	mkdir -p "$shared/in"
	for ((i = 0; i < FILES; i++)); do
		[ $((i % 100)) != 0 ] || mkdir -p "$shared/in/d$((i / 100))/deeper/and deeper"
		head -c $((i * 7 % 20000)) /dev/zero | tr '\0' "$((i % 10))" >"$shared/in/d$((i / 100))/deeper/f$i"
	done
	head -c 5000000 /dev/urandom >"$shared/in/large"
	head -c 3000001 /dev/urandom >"$shared/in/d0/odd"
	truncate -s 20M "$shared/in/sparse"
	: >"$shared/in/empty"
	ln "$shared/in/large" "$shared/in/d0/same"
	ln -s ../../secret "$shared/in/up"
	ln -s "$WORK/secret" "$shared/in/absolute"
	ln -s d0 "$shared/in/inside"
	chmod 600 "$shared/in/d0/odd"
	[ "$(id -u)" != 0 ] || chown -Rh 65534:65534 "$shared"
}

# guest MODE: what it says is in $WORK/console.
guest() {
	rm -f "$SOCKET"
	start_device "$FS" --tag host --directory "$WORK/shared" "--read-$1"
	wait_for_socket
	start_qemu "${1/only/read} host" -device vhost-user-fs-pci,chardev=device,tag=host
	wait_for 60 '^mounted'
	tap_ok $? "the guest mounts a tree, read-$1" "$(messages)"
	wait_for 120 '^errors: .* end'
	tap_ok $? "it is $(said read)" "$(messages)"
	read -r OWN ANONYMOUS < <(own_memory)
	tap_is "$(said errors)" "0 end" "nothing went wrong, and nothing went that should not"
	wait "$QEMU_PID"
	QEMU_PID=''
	tap_is "$(said sum)" "$SUM" "what the guest has read is what is there"
	tap_own "moat-fs, with all of these known,"
	kill "$DEVICE_PID" 2>/dev/null
	wait "$DEVICE_PID"
	tap_is "$?" 0 "moat-fs ends when it is told to"
}

need fs_serve "$FS" "$GUEST"
initramfs "$GUEST" virtiofs
make_tree "$WORK/shared"
echo secret >"$WORK/secret"
SUM=$("$GUEST" sum "$WORK/shared/in")
guest only
guest write
tap_is "$("$GUEST" sum "$WORK/shared/out")" "$SUM" "what the guest has copied is here, $(said written)"
(cd "$WORK/shared/more" && [ "$(<renamed)" = three ] && [ "$(tr -d m <mapped | wc -c)" = 0 ] &&
	[ "$(stat -c %s mapped room | tr '\n' ' ')" = "10000 100000 " ] && [ "$(stat -c %a:%Y renamed)" = 600:7 ] &&
	[ ! -e link ] && [ ! -e empty ] && [ ! -e file ])
tap_ok $? "and so is what it changed" "$(ls -l "$WORK/shared/more")"
tap_is "$(cat "$WORK/device.err")" '' "moat-fs has nothing to complain of"
tap_end
