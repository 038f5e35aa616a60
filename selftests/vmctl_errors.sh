#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# `vmctl run` with what cannot work: one line that says what is wrong, a status that is not 0, and
# no machine left.

. selftests/lib/tap.sh

command -v vmctl >/dev/null || {
	tap_skip "vmctl_errors" "there is no vmctl"
	tap_end
}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# refused NAME WORD ARGS...: WORD must be in the line.
refused() {
	local name=$1 word=$2 out status
	shift 2
	out=$(timeout 30 vmctl "$@" 2>&1 >/dev/null </dev/null)
	status=$?
	tap_ok $((status == 0 || status == 124)) "$name: a status" "status $status"
	tap_is "$(grep -c . <<<"$out")" 1 "$name: one line"
	tap_has "$out" "$word" "$name: it says what"
}

head -c 100000 /dev/zero >"$WORK/zeros"
: >"$WORK/empty"
refused "a kernel that is missing" "$WORK/none" run --kernel "$WORK/none"
refused "a kernel that is no bzImage" "$WORK/zeros" run --kernel "$WORK/zeros"
refused "an empty kernel" "$WORK/empty" run --kernel "$WORK/empty"
refused "a kernel that is a directory" "$WORK" run --kernel "$WORK"
refused "too little memory" "mem" run --mem 1M -- true
refused "memory that is no size" "mem" run --mem lots -- true
refused "no CPU at all" "cpus" run --cpus 0 -- true
refused "CPUs beyond all bounds" "cpus" run --cpus 99999999999 -- true
refused "a disk that is missing" "$WORK/none" run --disk "$WORK/none" -- true
refused "an initrd that is missing" "$WORK/none" run --initrd "$WORK/none"
refused "a program that is missing" "$WORK/none" run -- "$WORK/none"
MOAT_DEVICE=$WORK/none refused "a node that is missing" "$WORK/none" run -- true
MOAT_DEVICE=/dev/null refused "a node that is none" "/dev/null" run -- true
tap_end
