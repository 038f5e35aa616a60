#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# moatd and its machines: made, started, paused, stopped, restarted by policy, changed, forgotten; moatd killed
# under them; and what is refused.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
. selftests/lib/moatd.sh
trap 'moatd_clean; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin

moatd_prepare && guest_make
tap_ok $? "a user, control groups, a guest"
moatd_start
tap_ok $? "moatd answers" "$(cat "$WORK/moatd.err")"

# What is refused

refused 1 'there is no such machine' 'a start of nothing' vmctl start nobody
refused 2 'Usage: vmctl start' 'a start without a name' vmctl start
refused 1 'at most 48 letters' 'a name with a slash' guest_create a/b
definition() { printf '%b' "$1" >"$WORK/d.yaml"; vmctl create --file "$WORK/d.yaml"; }
refused 1 'line 2, column 1: colour: there is no such key' 'an unknown key' definition 'name: x\ncolour: red\n'
refused 1 'line 3, column 9: memory: "lots": a size' 'a size that is none' definition 'name: x\ncpus: 1\nmemory: lots\n'
refused 1 'line 2, column 7: cpus: from 1 to 255' 'too many CPUs' definition 'name: x\ncpus: 999\n'
refused 1 'line 2, column 4: aliases are not taken' 'an alias' definition 'a: &x b\nc: *x\n'
refused 1 'there is no kernel' 'a machine without a kernel' definition 'name: x\n'
refused 1 'cpus: is there twice' 'a key that is there twice' definition 'name: x\ncpus: 1\ncpus: 2\n'
guest_create gone --kernel /etc/passwd && mv "$WORK/initrd" "$WORK/away"
refused 1 'No such file or directory' 'a file that is missing' vmctl start gone
mv "$WORK/away" "$WORK/initrd"
refused 1 'is not a bzImage' 'a kernel that is none' vmctl start gone
refused 1 'there is a machine of that name' 'a name that is taken' guest_create gone
vmctl destroy gone

# A life

guest_create web
tap_ok $? "a machine is made"
tap_is "$(state_of web)" off "it is off"
said=$(vmctl start web 2>&1)
tap_ok $? "it is started" "$said$(vmctl log web 2>&1)"
tap_is "$(state_of web)" running "it runs"
console_has web 'guest is up'
tap_ok $? "its guest is up"
refused 1 'it is running, so there is nothing to start' 'a second start' vmctl start web
console_say web echo hello
console_has web 'said hello' 10
tap_ok $? "its console takes what is typed"
vmctl pause web && [ "$(state_of web)" = paused ]
tap_ok $? "it is paused"
refused 1 'it is paused, so there is nothing to pause' 'a second pause' vmctl pause web
vmctl resume web && [ "$(state_of web)" = running ]
tap_ok $? "it goes on"
tap_has "$(vmctl info web)" 'pid:' "info tells its process"
tap_has "$(vmctl stats web)" 'cpu_usec:' "stats tells what it used"
tap_has "$(vmctl top --count 1)" web "top has it"

# moatd comes and goes

launcher() { vmctl info web --json | grep -o '"pid":[0-9]*' | cut -d: -f2; }
before=$(launcher)
moatd_kill KILL
[ -e "/proc/$before" ]
tap_ok $? "it goes on when moatd is killed"
refused 3 'cannot reach moatd' 'a client without moatd' vmctl list
moatd_start
tap_is "$(state_of web)" running "the next moatd finds it"
tap_is "$(launcher)" "$before" "it is the same process"
console_say web echo again
console_has web 'said again' 10
tap_ok $? "its console is as it was"
front=$(pgrep -x moatd-front)
kill -KILL "$front"
for _ in $(seq 100); do vmctl list >/dev/null 2>&1 && break; sleep 0.1; done
tap_is "$(launcher)" "$before" "a new unprivileged half finds it, too"
refused 1 'another moatd is at work there' 'a second moatd' moatd --state "$MOATD_DIR/state" --run "$MOATD_DIR/run" \
	--log "$MOATD_DIR/log"
tap_is "$(launcher)" "$before" "the first one is still there for clients"
moatd_kill TERM
tap_is "$(pgrep -x moatd) $(pgrep -x moatd-front)" ' ' "moatd ends when it is told to"
[ -e "/proc/$before" ]
tap_ok $? "its machines do not"
kill -KILL "$before"
moatd_start
tap_is "$(state_of web)" off "of a machine that ended meanwhile it is known"

# Ends, and what comes of them

# comes_back NAME: it is started a second time.
comes_back() {
	for _ in $(seq 300); do
		[ "$(grep -c " $1: started" "$WORK/events")" -lt 2 ] || return 0
		sleep 0.1
	done
	return 1
}

vmctl events >"$WORK/events" &
ends() { # NAME WORD OPTION...
	local name=$1 word=$2
	guest_create "$name" "${@:3}" && vmctl start "$name" && console_has "$name" 'guest is up' &&
		console_say "$name" "$word"
}
ends off off --restart on-failure && wait_state off off
tap_ok $? "a power-off is the end, with restart: on-failure"
tap_has "$(vmctl info off)" 'ended: powered off' "it is told as one"
ends crash crash --restart on-failure
comes_back crash && console_has crash 'guest is up'
tap_ok $? "a crash is followed by a start, with restart: on-failure" "$(cat "$WORK/events")"
tap_has "$(cat "$WORK/events")" 'crash: ended: reset' "panic=-1 makes a reset of it"
vmctl kill crash
tap_is "$(state_of crash)" off "kill is the end"
ends reset reset
comes_back reset && console_has reset 'guest is up'
tap_ok $? "a reset is followed by a start" "$(vmctl list)"
vmctl start web && console_has web 'guest is up' && kill -KILL "$(launcher)"
wait_state web off
tap_ok $? "a launcher that is killed is noticed"
tap_has "$(vmctl info web)" 'ended: killed' "it is told as such"

# Definitions

cat >"$WORK/editor" <<'ED'
sed -i 's/^cpus:.*//; $a cpus: 2' "$1"
ED
chmod +x "$WORK/editor"
EDITOR="sh $WORK/editor" vmctl edit web
tap_ok $? "a definition is edited"
tap_has "$(vmctl list)" 'web                  off          2' "it is as it was edited"
echo 'name: [' >"$MOATD_DIR/state/definitions/machines/torn.yaml"
moatd_kill KILL; moatd_start
tap_is "$(state_of torn)" broken "a definition that is none is shown as that"
vmctl destroy torn
tap_is "$(state_of torn)" '' "and can be forgotten"
vmctl start web
vmctl destroy web reset crash off
tap_is "$(vmctl list --json | tr -d ' \n')" '[]' "all are forgotten"
tap_is "$(find "$MOATD_DIR/run/machines" "$MOATD_DIR/state/definitions/machines" /sys/fs/cgroup/moat -mindepth 1 \
	\( -type d -o -path "$MOATD_DIR/*" \))" '' "nothing is left of them"
tap_is "$(pgrep -l moat-)" '' "no process either"
sed 's/^/# /' "$WORK/moatd.err"
tap_end
