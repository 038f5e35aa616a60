#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# The node under random calls and guests for some minutes, in the lab: selftests/node_fuzz.sh, whose
# results are these.
#
# Environment: MOAT_PEER (moat, kvm), MOAT_FUZZ_SECONDS (600), MOAT_FUZZ_SEED (1), MOAT_FUZZ_KERNEL (6.1).
#
# An emulator that aborts, or stands still with all its CPUs, says that of itself, not of what it
# emulates: the run goes on behind the seeds at which it did, and gives up where that comes too often.
# A host that dies or hangs is a failure; since an emulator's fault can look like this as well, the
# seeds are then tried under KVM, which tells what to think of it.

. "$(dirname "$0")/../lib/tap.sh"
cd "$(dirname "$0")/../.." || exit 1

PEER=${MOAT_PEER:-moat}
LEFT=${MOAT_FUZZ_SECONDS:-600}
SEED=${MOAT_FUZZ_SEED:-1}
KERNEL=${MOAT_FUZZ_KERNEL:-6.1}
ABORTS_MOST=3
WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-fuzz.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

# lab PEER SECONDS SEED: its output to $WORK/out, its own words to $WORK/err.
lab() {
	MOAT_FUZZ_SECONDS=$2 MOAT_FUZZ_SEED=$3 scripts/lab --kernel "$KERNEL" --peer "$1" \
		--timeout $(($2 * 2 + 300)) -- "$PWD/build/selftests/node_fuzz.sh" \
		>"$WORK/out" 2>"$WORK/err" </dev/null
}

last_seed() { sed -n 's/^# seed \([0-9]*\)$/\1/p' "$WORK/out" | tail -n 1; }

# How often the seeds that ran last kill the host under KVM too.
ask_kvm() {
	local i died=0
	for i in 1 2 3; do
		lab kvm 10 "$1"
		[ $? -ne 125 ] || died=$((died + 1))
	done
	echo "# from seed $1 on, the host dies under KVM in $died of 3 runs"
}

# The results inside become those outside: the plan is theirs too.
pass_on() {
	grep -E '^(ok|not ok|#|1\.\.|Bail out!)' "$WORK/out"
	exit "$1"
}

main() {
	local start status last aborts=0
	make -s build/selftests/node_fuzz build/selftests/node_fuzz.sh build/selftests/exits >&2 ||
		{ tap_ok 1 "the fuzzer builds"; tap_end; }
	while :; do
		start=$SECONDS
		lab "$PEER" "$LEFT" "$SEED"
		status=$?
		[ "$status" -eq 125 ] || pass_on "$status"
		last=$(last_seed)
		sed 's/^/# /' "$WORK/err" | tail -n 60
		if ! grep -qE 'lab: the emulator (died|hangs)' "$WORK/err"; then
			tap_ok 1 "the host lives, at seed ${last:-none}"
			[ "$PEER" = kvm ] || ask_kvm "$((${last:-$SEED} > 2 ? ${last:-$SEED} - 2 : 1))"
			tap_end
		fi
		aborts=$((aborts + 1))
		echo "# the emulator died or hangs at seed ${last:-none}, which is its own fault"
		LEFT=$((LEFT - (SECONDS - start)))
		if [ "$aborts" -ge "$ABORTS_MOST" ]; then
			tap_skip "random calls and guests" "the emulator does not live long enough"
			tap_end
		fi
		[ "$LEFT" -gt 10 ] || LEFT=10
		SEED=$((${last:-$SEED} + 1))
	done
}

main
