#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# `vmctl run`: a program in a machine of its own, with all that passes between it and its caller.

. selftests/lib/tap.sh

command -v vmctl >/dev/null || {
	tap_skip "vmctl_run" "there is no vmctl"
	tap_end
}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
SECONDS_EACH=${SECONDS_EACH:-100}

# What the guest printed is in OUT, the status in STATUS; stderr in $WORK/err.
run() {
	OUT=$(timeout "$SECONDS_EACH" vmctl run "$@" 2>"$WORK/err" </dev/null)
	STATUS=$?
}

said() { tail -n 5 "$WORK/err"; }

cpus() {
	run --cpus 4 -- cat /proc/cpuinfo
	tap_is "$(grep -c '^processor' <<<"$OUT"), status $STATUS" "4, status 0" "four CPUs in /proc/cpuinfo"
	said | sed 's/^/# /'
}

status() {
	run -- sh -c 'uname -a; exit 7'
	tap_is "$STATUS" 7 "the exit status is the program's"
	tap_has "$OUT" "Linux " "its output is the guest's uname"
	run -- true
	tap_is "$STATUS: $OUT" "0: " "a program that says nothing"
}

# Bytes of all values, both ways, and in quantity.
bytes() {
	head -c 100000 /dev/urandom >"$WORK/in"
	timeout "$SECONDS_EACH" vmctl run -- cat <"$WORK/in" >"$WORK/out" 2>"$WORK/err"
	cmp "$WORK/in" "$WORK/out" 2>&1
	tap_ok $? "100,000 random bytes through cat come back" "$(wc -c <"$WORK/out") bytes; $(said)"
}

streams() {
	OUT=$(timeout "$SECONDS_EACH" vmctl run -- sh -c 'echo out; echo err >&2' 2>"$WORK/err" </dev/null)
	tap_is "$OUT" "out" "stdout is stdout"
	tap_is "$(grep -c '^err$' "$WORK/err")" 1 "stderr is stderr"
}

environment() {
	run --env GREETING='hello world' -- sh -c 'echo "$GREETING"'
	tap_is "$OUT" "hello world" "--env reaches the program"
	mkdir "$WORK/some where"
	cd "$WORK/some where" && run -- pwd
	cd / || return
	tap_is "$OUT" "$WORK/some where" "the working directory is the caller's"
	run -- printf '<%s>' one 'two three' '' '$HOME'
	tap_is "$OUT" '<one><two three><><$HOME>' "arguments arrive as they are"
}

signals() {
	local pid
	vmctl run -- sh -c 'trap "echo got TERM; exit 9" TERM; echo ready; while :; do sleep 1; done' \
		>"$WORK/out" 2>"$WORK/err" </dev/null &
	pid=$!
	for _ in $(seq 1000); do
		grep -q ready "$WORK/out" && break
		sleep 0.1
	done
	kill -TERM "$pid"
	wait "$pid"
	STATUS=$?
	tap_is "$STATUS" 9 "a signal reaches the program"
	tap_has "$(cat "$WORK/out")" "got TERM" "its handler ran"
}

killed() {
	run -- sh -c 'kill -KILL $$'
	tap_is "$STATUS" 137 "a program that dies of a signal: 128 and its number"
	run -- /no/such/program
	tap_is $((STATUS == 127)) 1 "a program that is not there"
}

cpus
status
bytes
streams
environment
signals
killed
tap_end
