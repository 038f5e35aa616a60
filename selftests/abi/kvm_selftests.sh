#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# The kernel's own KVM selftests on Moat, beside KVM on the same emulated host: what passes on KVM
# has to pass on Moat.
#
# usage: selftests/abi/kvm_selftests.sh [OPTIONS] [PATTERN]
#   --host amd|intel	the emulated host (amd)
#   --kernel 6.1|6.12	its kernel (6.1)
#   --fresh	runs those on KVM again whose outcome is known from an earlier run
#   --write	makes this host's part of docs/kvm-selftests.md of the outcome
#   PATTERN	only rows of the list that match this extended regular expression
#
# kvm_selftests.list says which are run, and how; kvm_selftests.except says which do not pass, or are
# not run on one of the hosts, and why. Environment: MOAT_PEER=kvm runs them on KVM alone, and looks
# whether that is as the exceptions say.
#
# One emulated host runs many tests. Where one hangs the host or kills it, the others get a new one.
# All time is the host's own, which counts instructions: so a busy machine makes no test miss a
# deadline, and the figures of KVM and of Moat can be compared.

set -uo pipefail

cd "$(dirname "$0")/../.." || exit
. selftests/lib/tap.sh

HERE=selftests/abi
LIST=$HERE/kvm_selftests.list
EXCEPTIONS=$HERE/kvm_selftests.except
DOCUMENT=docs/kvm-selftests.md
SUITE=build/cache/kvm-selftests
# Real seconds for what comes before the first row.
BOOT=600
PEER=${MOAT_PEER:-moat} HOST=amd KERNEL=6.1 FRESH='' WRITE='' PATTERN=.
WORK=$(mktemp -d "${TMPDIR:-/tmp}/moat-suite.XXXXXX")
LAB='' RUNNING='' STOPPED=''

# The rows: what is said of a row is at its place in these.
declare -a ROWS NAMES
# By name and peer ("moat NAME"): outcome, seconds, reason; and what the exceptions say.
declare -A OUTCOME TIME REASON EXCEPTION

# shellcheck disable=SC2317
finish() {
	[ -z "$LAB" ] || kill "$LAB" 2>/dev/null
	rm -rf "$WORK"
}

say() { echo "# $*"; }
bail() { echo "Bail out! $*"; exit 1; }
usage() { sed -n '/^# usage: /,/^#$/s/^# //p' "$0" >&2; exit 2; }

parse() {
	while [ $# -gt 0 ]; do
		case $1 in
		--fresh) FRESH=1 ;;
		--write) WRITE=1 ;;
		--host) HOST=${2:-}; shift ;;
		--kernel) KERNEL=${2:-}; shift ;;
		-*) usage ;;
		*) PATTERN=$1 ;;
		esac
		shift
	done
}

# What is known of a host:
#
#	TITLE, MEMORY	its name, and what it gets
#	EMULATOR	the file that its behaviour depends on
#	PART	how many SECONDS of the list, which are the AMD host's, make one of its own; for clocks
#		count instructions, and what they take for a second differs
#	SLOW	real seconds for one of its own, twice what it takes where the machine is not busy,
#		before a row that says nothing is taken to have hung it
host_choose() {
	case $HOST in
	amd) TITLE=AMD MEMORY=3G PART=1 SLOW=20 EMULATOR=qemu/root/usr/bin/qemu-system-x86_64 ;;
	intel) TITLE=Intel MEMORY=2G PART=15 SLOW=160 EMULATOR=bochs/root/usr/bin/bochs-bin ;;
	*) usage ;;
	esac
}

# "PROGRAM SECONDS HOW ARGUMENTS...": a row's name is what is typed to run it.
row_name() {
	local program=$1
	shift 3
	echo "$program${*:+ $*}"
}

# The rows for this host, with its own seconds.
read_list() {
	local line name
	while read -r line; do
		# shellcheck disable=SC2086
		set -- $line
		if [ $# -lt 3 ] || [ "$2" = without ]; then continue; fi
		name=$(row_name "$@")
		[[ $name =~ $PATTERN && -z ${EXCEPTION["$HOST $name"]:-} ]] || continue
		ROWS+=("$1 $((($2 + PART - 1) / PART)) ${*:3}")
		NAMES+=("$name")
	done < <(grep -v '^#' "$LIST")
}

read_exceptions() {
	local line who name
	while read -r line; do
		who=${line%%: *} line=${line#*: } name=${line%%: *}
		EXCEPTION["${who#"$HOST "} $name"]=${line#*: }
	done < <(grep -v '^#' "$EXCEPTIONS" | grep .)
}

# Every program that was built is in the list, every row has its program, every exception its row.
check_list() {
	local built listed
	built=$(cd "$SUITE/bin" && find . -type f -printf '%P\n' | sort)
	listed=$(awk '!/^#/ && NF { print $1 }' "$LIST" | sort -u)
	tap_is "$(diff <(echo "$built") <(echo "$listed"))" "" "the list has every selftest"
	tap_is "$(comm -23 <(awk -F ': ' '!/^#/ && NF { print $2 }' "$EXCEPTIONS" | sort -u) \
		<(awk '!/^#/ && NF { $2 = $3 = ""; print }' "$LIST" | tr -s ' ' | sed 's/ $//' |
			sort -u))" "" "every exception is of a row in the list"
}

# What the outcome on KVM depends on.
key() {
	echo "kernel $(sha256sum <"build/cache/kernel-$KERNEL/vmlinuz" | cut -c 1-16)" \
		"suite $(cat "$SUITE/version")" \
		"icount emulator $(sha256sum <"build/cache/$EMULATOR" | cut -c 1-16)"
}

# Known outcomes: the key, then "OUTCOME<tab>SECONDS<tab>NAME<tab>REASON" a line.
known_file() { echo "$SUITE/outcomes-$HOST-$KERNEL"; }

read_known() {
	local outcome seconds name reason
	[ "$(head -n 1 "$(known_file)" 2>/dev/null)" = "$KEY" ] || return 0
	while IFS=$'\t' read -r outcome seconds name reason; do
		[ -n "$FRESH" ] && [[ $name =~ $PATTERN ]] && continue
		note kvm "$name" "$outcome" "$seconds" "$reason"
	done < <(tail -n +2 "$(known_file)")
}

# A time-out or a dead host is nothing to remember: the next run tries that again.
write_known() {
	local file name
	file=$(known_file)
	touch "$file"
	for name in "${NAMES[@]}"; do
		case ${OUTCOME["kvm $name"]} in pass|skip|fail) ;; *) continue ;; esac
		printf '%s\t%s\t%s\t%s\n' "${OUTCOME["kvm $name"]}" "${TIME["kvm $name"]}" "$name" \
			"${REASON["kvm $name"]}"
	done >"$WORK/known"
	(
		flock 9
		{
			echo "$KEY"
			awk -F '\t' -v key="$KEY" 'FILENAME == ARGV[1] { new[$3] = 1; print; next }
				FNR == 1 && $0 != key { exit }
				FNR > 1 && !($3 in new)' "$WORK/known" "$file"
		} >"$file.new"
		mv "$file.new" "$file"
	) 9<"$SUITE/done"
}

# note PEER NAME OUTCOME SECONDS REASON
note() {
	OUTCOME["$1 $2"]=$3
	TIME["$1 $2"]=$4
	REASON["$1 $2"]=$5
	if [ -n "${6:-}" ]; then say "$1 $2: $3, $4 s${5:+, $5}"; fi
}

# The rows of the list that PEER has not run yet, by number.
rows_left() {
	local i
	for i in "${!ROWS[@]}"; do
		[ -n "${OUTCOME["$1 ${NAMES[i]}"]:-}" ] || echo "$i"
	done
}

seconds_of() { awk '{ print $2 }' <<<"${ROWS[$1]}"; }

# start_host PEER ROW...: one that runs these rows; what it says is at descriptor 3.
start_host() {
	local peer=$1 i total=$BOOT bin options=()
	shift
	bin=$(realpath "$SUITE/bin")
	: >"$WORK/rows"
	for i; do
		echo "${ROWS[i]}" >>"$WORK/rows"
		total=$((total + SLOW * ($(seconds_of "$i") + 5)))
	done
	rm -f "$WORK/said"
	mkfifo "$WORK/said"
	[ "$peer" = kvm ] || options=(--module-args kvm_node=1)
	scripts/lab --host "$HOST" --kernel "$KERNEL" --peer "$peer" --icount --mem "$MEMORY" \
		--timeout "$total" --share "$bin" "${options[@]}" -- \
		"$PWD/$HERE/inside/kvm_selftests" "$bin" "$WORK/rows" \
		>"$WORK/said" 2>"$WORK/lab.err" </dev/null &
	LAB=$!
	exec 3<"$WORK/said"
}

# Ends the host; 0 where it has run all rows.
end_host() {
	local rc=0
	exec 3<&-
	[ "$1" != hung ] || kill "$LAB"
	wait "$LAB" || rc=$?
	LAB=''
	return $rc
}

# follow_host PEER ROW...: takes in what it says, row by row. The one that was under way when it
# stopped saying anything is left in RUNNING.
follow_host() {
	local peer=$1 line row outcome ms why limit=$BOOT
	shift
	local rows=("$@")
	RUNNING='' STOPPED=''
	while :; do
		IFS= read -r -t "$limit" -u 3 line || { [ $? -le 128 ] || STOPPED=hung; return; }
		case $line in
		'@begin '*)
			RUNNING=${rows[${line#@begin } - 1]}
			limit=$((SLOW * ($(seconds_of "$RUNNING") + 5))) ;;
		'@end '*)
			read -r _ row outcome ms why <<<"$line"
			row=${rows[row - 1]} RUNNING=''
			note "$peer" "${NAMES[row]}" "$outcome" \
				"$(printf '%d.%02d' $((ms / 1000)) $((ms % 1000 / 10)))" "$why" say ;;
		'@bail '*) bail "${line#@bail }" ;;
		*) say "  $line" ;;
		esac
	done
}

# A host that dies takes one row along: that is tried once more, in a new one, then given up.
run_rows() {
	local peer=$1 rows tried=' '
	while mapfile -t rows < <(rows_left "$peer"); [ ${#rows[@]} -gt 0 ]; do
		say "${#rows[@]} selftests on $peer"
		start_host "$peer" "${rows[@]}"
		follow_host "$peer" "${rows[@]}"
		end_host "$STOPPED" && [ -z "$RUNNING" ] && continue
		sed 's/^/#   /' "$WORK/lab.err" | tail -n 40
		if [[ $tried == *" ${RUNNING:-none} "* ]]; then
			[ -n "$RUNNING" ] || bail "no emulated host comes up"
			note "$peer" "${NAMES[RUNNING]}" "${STOPPED:-died}" "-" \
				"took the host along, twice" say
		fi
		tried+="${RUNNING:-none} "
	done
}

# stale PEER NAME: it passes, but there is an exception for it.
stale() {
	local why=${EXCEPTION["$1 $2"]:-}
	[ "${OUTCOME["$1 $2"]}" = pass ] && [ -n "$why" ] || return 1
	tap_ok 1 "$2" "it passes on $1, against its exception: $why"
}

# As the exceptions say, where MOAT_PEER=kvm.
# shellcheck disable=SC2317
judge_kvm() {
	local name=$1 outcome=${OUTCOME["kvm $1"]} why=${EXCEPTION["kvm $1"]:-}
	stale kvm "$name" && return
	case $outcome${why:+-excepted} in
	pass) tap_ok 0 "$name" ;;
	skip) tap_skip "$name" "${REASON["kvm $name"]}" ;;
	*-excepted) tap_skip "$name" "$outcome: $why" ;;
	*) tap_ok 1 "$name" "$outcome: ${REASON["kvm $name"]}" ;;
	esac
}

# As on KVM, or better; but for what the exceptions say.
# shellcheck disable=SC2317
judge_moat() {
	local name=$1 kvm=${OUTCOME["kvm $1"]} moat=${OUTCOME["moat $1"]}
	local why=${EXCEPTION["moat $1"]:-} kvm_why=${EXCEPTION["kvm $1"]:-}
	stale kvm "$name" && return
	stale moat "$name" && return
	case $moat-$kvm in
	pass-*) tap_ok 0 "$name" ;;
	skip-skip) tap_skip "$name" "${REASON["moat $name"]}" ;;
	*) if [ -n "$why" ]; then
		tap_skip "$name" "$moat: $why"
	elif [ "$kvm" = fail ] && [ -n "$kvm_why" ]; then
		tap_skip "$name" "$moat, and fails on KVM: $kvm_why"
	else
		tap_ok 1 "$name" "$moat: ${REASON["moat $name"]} (KVM: $kvm)"
	fi ;;
	esac
}

# The text of the table's last column.
remark() {
	local name=$1 peer text=''
	for peer in kvm moat; do
		text=${EXCEPTION["$peer $name"]:-}
		[ -z "$text" ] || break
	done
	[ -n "$text" ] || text=${REASON["moat $name"]:-}
	[ -n "$text" ] || text=${REASON["kvm $name"]:-}
	echo "${text//|/\\|}"
}

table() {
	local name
	echo "| selftest | KVM | Moat | KVM, s | Moat, s | |"
	echo "| --- | --- | --- | ---: | ---: | --- |"
	for name in "${NAMES[@]}"; do
		echo "| $name | ${OUTCOME["kvm $name"]} | ${OUTCOME["moat $name"]:--} |" \
			"${TIME["kvm $name"]} | ${TIME["moat $name"]:--} | $(remark "$name") |"
	done
}

# "WHY<tab>NAME" a line: the names, by reason.
by_reason() {
	awk -F '\t' '{ names[$1] = names[$1] (names[$1] ? ", " : "") $2 }
		END { for (why in names) print "- " why ": " names[why] }' | sort
}

# A host's part of the document: this one's anew, the other's as it was.
host_part() {
	echo "## The emulated $1 host"
	if [ "$1" != "$TITLE" ]; then
		sed -n "/^## The emulated $1 host/,/^## /{//!p}" "$DOCUMENT"
		return
	fi
	printf '\n%s\n\n' "$(table)"
	grep -q "^$HOST: " "$EXCEPTIONS" || return 0
	printf 'Not run on this host:\n\n%s\n\n' \
		"$(awk -F ': ' -v OFS='\t' -v host="$HOST" '$1 == host { print $3, $2 }' "$EXCEPTIONS" |
			by_reason)"
}

document() {
	cat <<-END
	# The kernel's KVM selftests

	Made by \`selftests/abi/kvm_selftests.sh --write\`, and with \`--host intel\`: the KVM selftests of
	Linux $(cat "$SUITE/version"), unmodified, in emulated hosts with Debian's kernel $KERNEL, on
	KVM and on Moat. A test that skips finds something missing that it needs. A second is 1,000
	million instructions of the AMD host's, and 3,500 million of the Intel one's.

	END
	host_part AMD
	host_part Intel
	cat <<-END
	## Left out

	$(awk '$2 == "without" {
		name = $1; sub(/.*\//, "", name); $1 = $2 = ""; sub(/^ */, "")
		print "for want of " $0 "\t" name
	}' "$LIST" | by_reason)
	END
}

main() {
	local name
	parse "$@"
	host_choose
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	scripts/deps-suite >&2 || bail "scripts/deps-suite failed"
	KEY=$(key)
	read_exceptions
	read_list
	check_list
	[ "$PEER" = kvm ] && FRESH=1
	[ -z "$WRITE" ] || [ "$PATTERN" = . ] || bail "--write takes all rows"
	read_known
	run_rows kvm
	write_known
	[ "$PEER" = kvm ] || run_rows moat
	for name in "${NAMES[@]}"; do "judge_$PEER" "$name"; done
	table | sed 's/^/# /'
	[ -z "$WRITE" ] || { document >"$WORK/document" && cp "$WORK/document" "$DOCUMENT"; }
	tap_end
}

main "$@"; exit
