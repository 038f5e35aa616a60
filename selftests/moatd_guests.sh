#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Some guests of moatd's at once: all answer by network, and nothing is left of them. selftests/abi/guests.sh has
# a hundred.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
. selftests/lib/moatd.sh
. selftests/lib/guests.sh
trap 'moatd_clean; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin

modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
ip link set lo up
moatd_prepare && guest_make && moatd_start
tap_ok $? "moatd and a guest" "$(cat "$WORK/moatd.err")"
guests_test 5
sed 's/^/# /' "$WORK/moatd.err"
tap_end
