#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# A machine's limits: its CPUs are threads with names, a cap is kept, so are pins, weights are written for each
# scheduler that has them; and a machine that wants more memory than its limit ends, and its neighbour does not feel it.
# Kernels of a few bytes do what is to be limited.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
. selftests/lib/moatd.sh
trap 'moatd_clean; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin
GROUPS_AT=/sys/fs/cgroup/moat
MEASURE_SECONDS=5

modprobe bfq 2>/dev/null
moatd_prepare && kernel_make "$WORK/spin" "$CODE_SPIN" && kernel_make "$WORK/idle" "$CODE_IDLE" &&
	kernel_make "$WORK/eat" "$CODE_EAT" && moatd_start
tap_ok $? "moatd" "$(cat "$WORK/moatd.err")"

cpu_spent() { awk '/^usage_usec/ { print $2 }' "$GROUPS_AT/$1/cpu.stat"; }

# share_of NAME: percent of one CPU that the machine takes, for MEASURE_SECONDS.
share_of() {
	local before begun
	before=$(cpu_spent "$1")
	begun=$(cut -d' ' -f1 /proc/uptime)
	sleep "$MEASURE_SECONDS"
	awk -v used=$(($(cpu_spent "$1") - before)) -v begun="$begun" '{ print int(used / 10000 / ($1 - begun)) }' /proc/uptime
}

# of_all NAME WORD: what the status of each of the machine's threads says of it, once each.
of_all() {
	local pid
	for pid in $(cat "$GROUPS_AT/$1"/*/cgroup.procs); do
		sed -n "s/^$2:\t//p" "/proc/$pid/task"/*/status
	done | sort -u
}

# has FILE TEXT NAME: of the machine with limits, where the host has that file.
has() {
	if [ -e "$GROUPS_AT/capped/$1" ]; then
		tap_is "$(cat "$GROUPS_AT/capped/$1")" "$2" "$3"
	else
		tap_skip "$3" "this host has no $1"
	fi
}

bare_create neighbour "$WORK/spin" && vmctl start neighbour
bare_create capped "$WORK/spin" --cpus 2 --pin 0 --cpu-weight 200 --io-weight 5050 && vmctl start capped
tap_ok $? "a machine with a pin and weights" "$(vmctl log capped)"
tap_is "$(of_all capped Name | grep -x 'vcpu[0-9]*' | xargs)" 'vcpu0 vcpu1' "its CPUs are threads with names"
tap_is "$(of_all capped Cpus_allowed_list)" 0 "all of its threads are on the CPU that it is pinned to"
has cpu.weight 200 "its share of CPU time is as was asked for"
has io.weight 'default 5050' "so is its share of disks"
has io.bfq.weight 'default 550' "also where BFQ shares them"
vmctl pause neighbour
share=$(share_of capped)
[ "$share" -ge 60 ]
tap_ok $? "a loop takes $share% of a CPU"
# What is edited holds at once.
cat >"$WORK/editor" <<'ED'
sed -i '/^limits:/,/^[a-z]/ { /^limits:/d; /^ /d; }' "$1"
printf 'limits:\n  cpu-cap: 50\n' >>"$1"
ED
EDITOR="sh $WORK/editor" vmctl edit capped
tap_ok $? "it gets a cap while it runs" "$(cat "$MOATD_DIR/state/definitions/machines/capped.yaml")"
for _ in $(seq 100); do [ "$(cat $GROUPS_AT/capped/cpu.max)" != '50000 100000' ] || break; sleep 0.1; done
tap_is "$(cat $GROUPS_AT/capped/cpu.max)" '50000 100000' "of 50%"
# An emulated host that has to wait itself charges that to whoever it runs: a loop that is not held never is in it.
for _ in 1 2 3; do
	share=$(share_of capped)
	[ "$share" -gt 55 ] || break
done
[ "$share" -le 55 ] && [ "$share" -ge 30 ]
tap_ok $? "the loop takes $share% of a CPU" "$(cat $GROUPS_AT/capped/cpu.stat)"
has cpu.weight 100 "what it has no more of is as it was"
vmctl kill capped
vmctl resume neighbour

# The guest's RAM is its launcher's, and counts.
LIMIT=128
bare_create eater "$WORK/idle" --memory 256M --memory-limit ${LIMIT}M && vmctl start eater
tap_ok $? "a machine of 256 MiB with a limit of $LIMIT runs, as long as its guest takes no more" "$(vmctl log eater)"
tap_is "$(cat "$GROUPS_AT/eater/memory.max")" $((LIMIT << 20)) "it has the limit"
vmctl destroy eater
launcher=$(launcher_of neighbour)
before=$(cpu_spent neighbour)
bare_create eater "$WORK/eat" --memory 256M --memory-limit ${LIMIT}M
(while [ -e "$WORK" ]; do cat "$GROUPS_AT/eater/memory.peak"; sleep 0.1; done) >"$WORK/peak" 2>/dev/null &
PEAK=$!
vmctl start eater 2>/dev/null
wait_state eater off 60
tap_ok $? "it ends when its guest takes more" "$(vmctl list)"
kill $PEAK
tap_has "$(vmctl info eater)" 'ended: killed' "it was killed"
peak=$(sort -n "$WORK/peak" | tail -n 1)
[ "${peak:-0}" -le $((LIMIT << 20)) ]
tap_ok $? "it was never seen with more: $((${peak:-0} >> 20)) MiB"
tap_is "$(launcher_of neighbour) $(state_of neighbour)" "$launcher running" "its neighbour runs"
[ "$(cpu_spent neighbour)" -gt "$before" ] && [ "$(share_of neighbour)" -ge 60 ]
tap_ok $? "and has its CPU"
sed 's/^/# /' "$WORK/moatd.err"
tap_end
