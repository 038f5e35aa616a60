#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A hundred guests of moatd's at once in one host of 16 GiB, each with Debian's kernel and a network: all answer, what
# each takes of time and memory is told, and all are destroyed, with nothing left. What is done with them is in
# selftests/lib/guests.sh.
#
# usage: guests.sh
# Environment: GUESTS (100), how many; where this machine has less memory to give than they take, it is fewer, and
# that is said.

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

HOST_MIB=16384
# Of this machine's memory, what is left to the emulator itself and others.
KEPT_MIB=2048
# What a guest takes at most, and the host without any.
GUEST_MIB=100
HOST_OWN_MIB=1024

inside() {
	WORK=$(mktemp -d)
	# shellcheck source=selftests/lib/moatd.sh
	. "$TOP/selftests/lib/moatd.sh"
	# shellcheck source=selftests/lib/guests.sh
	. "$TOP/selftests/lib/guests.sh"
	modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet
	moatd_prepare && guest_make && moatd_start
	tap_ok $? "moatd and a guest" "$(cat "$WORK/moatd.err")"
	guests_test "$1"
	sed 's/^/# /' "$WORK/moatd.err"
	moatd_clean
	tap_end
}

case ${1:-} in
--inside) inside "$2" ;;
esac
if [ "$PEER" != moat ]; then
	tap_skip guests "KVM has no windows, without which the gate's requests have to be small"
	tap_end
fi
free=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
host=$((free - KEPT_MIB < HOST_MIB ? free - KEPT_MIB : HOST_MIB))
count=$(((host - HOST_OWN_MIB) / GUEST_MIB))
count=$((count < ${GUESTS:-100} ? count : ${GUESTS:-100}))
echo "# $count guests in a host of $host MiB"
lab_self --mem "${host}M" -- "$count"
