#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Opens the node to an ordinary user, lets node_fuzz loose on it as nobody, with limits, and judges what
# became of the host: no complaint of its kernel, no process that cannot end, the module goes and
# comes back, memory is what it was, and a good guest runs right.
#
# Environment: MOAT_FUZZ_SECONDS (30), MOAT_FUZZ_SEED (1), the first of as many seeds as there is time
# for. The module is $MOAT_MODULE, which the lab sets; MOAT_DEVICE names another node, as KVM's.

. selftests/lib/tap.sh
. selftests/lib/module.sh

HERE=$(dirname "$0")
NODE=${MOAT_DEVICE:-/dev/moat}
RUN_SECONDS=${MOAT_FUZZ_SECONDS:-30}
SEED=${MOAT_FUZZ_SEED:-1}
GROUP=/sys/fs/cgroup/node_fuzz
MEMORY_LIMIT=700M
PROCESSES=300
LEAK_KIB=6144	# the kernel's own use wavers by as much

COMPLAINT='WARNING: |BUG: |Oops|general protection|kernel BUG|unchecked MSR|lockup|LOCKUP'
COMPLAINT+='|blocked for more|detected .*stall|Bad page|UBSAN|bad pte'

# What stirs up the memory under the guests: pages that are merged, and put together. And a detector
# of memory that is used after it was freed, where the kernel has it.
host_stir() {
	chgrp nogroup "$NODE" && chmod 660 "$NODE" || return
	setting /sys/kernel/mm/ksm/run "$1"
	setting /sys/kernel/mm/ksm/sleep_millisecs 20
	setting /sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs 100
	setting /sys/kernel/mm/transparent_hugepage/shmem_enabled advise
	setting /sys/module/kfence/parameters/sample_interval "$1"
}

setting() { [ ! -w "$1" ] || echo "$2" 2>/dev/null >"$1"; }

# KSM's "2" takes apart again what it has merged.
host_calm() { host_stir 0; setting /sys/kernel/mm/ksm/run 2; }

group_create() {
	echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p "$GROUP"
	echo "$MEMORY_LIMIT" >"$GROUP/memory.max"
	echo "$PROCESSES" >"$GROUP/pids.max"
}

# fuzz SECONDS SEED ARGS...
fuzz() {
	local seconds=$1 seed=$2
	shift 2
	(
		echo "$BASHPID" >"$GROUP/cgroup.procs"
		exec setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs \
			"$HERE/node_fuzz" --seconds "$seconds" --seed "$seed" "$@"
	)
}

# What is in use when the module is not loaded: the least of some looks, since the kernel frees late.
used_settled() {
	local i least='' now
	for i in $(seq 8); do
		settle
		now=$(used_kib)
		[ -n "$least" ] && [ "$least" -le "$now" ] || least=$now
	done
	echo "$least"
}

complaints() { dmesg | sed "1,/$MARK/d" | grep -E -A30 "$COMPLAINT" | head -n 80; }

stuck() {
	local stat
	for stat in /proc/[0-9]*/stat; do
		awk '/^[0-9]+ \(node_fuzz\) D/ { print }' "$stat" 2>/dev/null
	done
}

judge_host() {
	local left
	left=$(complaints)
	tap_ok $(($([ -z "$left" ]; echo $?))) "the host's kernel has nothing to say" "$left"
	left=$(stuck)
	tap_ok $(($([ -z "$left" ]; echo $?))) "no process is left that cannot end" "$left"
}

judge_module() {
	local used=$1 more out
	out=$(unload_soon 2>&1)
	tap_ok $? "the module goes" "$out"
	more=$(($(used_settled) - used))
	tap_ok $((more > LEAK_KIB)) "memory is what it was" "$more KiB more are in use"
	out=$(insmod "$MOAT_MODULE" 2>&1)
	tap_ok $? "the module comes back" "$out"
}

judge_guest() {
	local out
	out=$("$HERE/exits" 2>&1)
	tap_ok $? "a good guest runs right" "$out"
}

# The first run, which does not count, fills the kernel's own caches.
main() {
	local used=0
	group_create
	host_stir 1 || { tap_ok 1 "the node can be opened to a user"; tap_end; }
	fuzz 3 $((SEED + 1000000)) >/dev/null
	if [ "$NODE" = /dev/moat ]; then
		host_calm
		unload_soon && used=$(used_settled) && insmod "$MOAT_MODULE"
		host_stir 1
	fi
	MARK="node_fuzz $$ begins"
	echo "$MARK" >/dev/kmsg
	fuzz "$RUN_SECONDS" "$SEED" --table
	tap_ok $? "random calls and guests, $RUN_SECONDS s from seed $SEED"
	host_calm
	judge_host
	if [ "$NODE" = /dev/moat ]; then judge_module "$used"; fi
	judge_guest
	tap_end
}

main
