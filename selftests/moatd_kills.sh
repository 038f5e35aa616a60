#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# moatd is killed with SIGKILL at random moments, as a whole, or one half of it, or a process that serves a
# request, while others make, start, stop, change and destroy machines. What a command says may be that moatd has hung
# up; what is true then has to be one of the two things that it can be. What was said to be done, is.
#
# MOAT_KILLS: how many (20); MOAT_SEED: of the random numbers.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
. selftests/lib/moatd.sh
trap 'touch "$WORK/stop"; moatd_clean; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin
KILLS=${MOAT_KILLS:-20}
SEED=${MOAT_SEED:-$RANDOM}
RANDOM=$SEED
GROUPS_DIR=/sys/fs/cgroup/moat
STEADY='steady still'

modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
ip link set lo up
moatd_prepare && guest_make && moatd_start
tap_ok $? "moatd and a guest" "$(cat "$WORK/moatd.err")"

# moatd_launch: without waiting until it answers.
moatd_launch() {
	moatd --state "$MOATD_DIR/state" --run "$MOATD_DIR/run" --log "$MOATD_DIR/log" 2>>"$WORK/moatd.err" &
	MOATD=$!
}

bad() { echo "$*" >>"$WORK/bad"; }
names() { tr -d '\n ' | grep -o '"name":"[^"]*"' | cut -d'"' -f4; }
launcher() { vmctl info "$1" --json | tr -d '\n ' | grep -o '"pid":[0-9]*' | cut -d: -f2; }
ticks() { timeout 5 vmctl console "$1" </dev/null | grep -ao 'tick [0-9]*' | tail -n 1 | cut -d' ' -f2; }

# launchers: the machine of each, a line each. What else there is of a machine has one for a parent.
launchers() {
	ps -eo pid=,ppid=,args= | awk '$3 ~ /moat-vmm$/ && $4 == "--name" { of[$1] = $5; parent[$1] = $2 }
		END { for (pid in of) if (of[parent[pid]] != of[pid]) print of[pid] }'
}

# The work: each worker has machines of its own, and says in is[] what has to be true of them: yes, no, or maybe.

# look: moatd's list has what has to be there, once and whole, and nothing else.
look() {
	local list name count
	list=$(vmctl list --json 2>/dev/null) || { sleep 0.05; return 1; }
	case $list in *'"broken"'*) bad "broken: $list" ;; esac
	list=$(names <<<"$list")
	for name in "${!is[@]}"; do
		count=$(grep -cx "$name" <<<"$list")
		[ "$count" -le 1 ] || bad "$name is there $count times"
		case ${is[$name]}$count in
		yes0) bad "$name is lost" ;;
		no1) bad "$name came back" ;;
		made0) is[$name]=no ;;
		made1) is[$name]=yes ;;
		esac
	done
}

# act NAME WORD-IF-DONE WORD-IF-CUT COMMAND...
act() {
	local name=$1 done=$2 cut=$3 said status
	shift 3
	said=$("$@" 2>&1)
	status=$?
	echo "$status" >>"$WORK/ops.$name"
	case $status-$said in
	0-*) [ "$done" = - ] || is[$name]=$done ;;
	*'hung up'* | *'cannot reach'*) [ "$cut" = - ] || is[$name]=$cut; echo "$name" >>"$WORK/cut" ;;
	*'out of memory, or of its other half'*) bad "$name: $said" ;;
	esac
}

edit() { EDITOR="sh $WORK/editor" vmctl edit "$1"; }

# A network comes, and goes.
netter() {
	while [ ! -e "$WORK/stop" ]; do
		timeout 20 vmctl network create lan --isolated && echo 0 >>"$WORK/ops.net"
		sleep "0.$((RANDOM % 10))"
		timeout 20 vmctl network delete lan && echo 0 >>"$WORK/ops.net"
	done >/dev/null 2>&1
}

worker() {
	local name
	local -A is
	RANDOM=$2
	for name in a b c; do is[$1$name]=no; done
	while [ ! -e "$WORK/stop" ]; do
		look || continue
		case $((RANDOM % 3)) in 0) name=$1a ;; 1) name=$1b ;; *) name=$1c ;; esac
		case $((RANDOM % 12))${is[$name]} in
		*no) act "$name" yes made guest_create "$name" --network default ;;
		[0-3]*) act "$name" - - timeout 20 vmctl start "$name" ;;
		4*) act "$name" - - timeout 20 vmctl stop "$name" ;;
		[56]*) act "$name" - - timeout 20 vmctl kill "$name" ;;
		7*) act "$name" - - edit "$name" ;;
		8*) act "$name" - - vmctl attach-disk "$name" "$1" ;;
		9*) act "$name" - - vmctl detach-disk "$name" "$1" ;;
		*) act "$name" no maybe timeout 20 vmctl destroy "$name" ;;
		esac
	done
	until look; do :; done
	for name in "${!is[@]}"; do echo "$name ${is[$name]}"; done >"$WORK/is.$1"
}

# A disk comes to a guest that runs, and goes.
plugger() {
	while [ ! -e "$WORK/stop" ]; do
		timeout 40 vmctl attach-disk steady extra && echo 0 >>"$WORK/ops.plug"
		timeout 40 vmctl detach-disk steady extra && echo 0 >>"$WORK/ops.plug"
		sleep 0.2
	done >/dev/null 2>&1
}

cat >"$WORK/editor" <<'ED'
n=$(($(sed -n 's/^stop-timeout: //p' "$1") % 9 + 1))
sed -i "s/^stop-timeout:.*//; \$a stop-timeout: $n" "$1"
ED

vmctl disk create extra --size 16M && vmctl disk create u --size 1M && vmctl disk create v --size 1M
for name in $STEADY; do guest_create "$name" --network default && vmctl start "$name"; done
for name in $STEADY; do console_has "$name" 'tick 1'; done
tap_ok $? "guests run that nobody is to stop" "$(cat "$WORK/moatd.err")"
declare -A pid tick
for name in $STEADY; do pid[$name]=$(launcher "$name"); tick[$name]=$(ticks "$name"); done

# The kills

worker u $RANDOM &
workers=$!
worker v $RANDOM &
workers+=" $!"
plugger &
workers+=" $!"
netter &
workers+=" $!"

declare -A killed=([both]=0 [front]=0 [child]=0)
strike() { # WHAT PID
	[ -n "$2" ] && [ "$2" -gt 1 ] && kill -KILL "$2" 2>/dev/null && killed[$1]=$((killed[$1] + 1))
}
twice() {
	local more
	more=$(launchers | sort | uniq -d)
	[ -z "$more" ] || bad "two launchers of" $more
}
for _ in $(seq "$KILLS"); do
	sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
	total=$((killed[both] + killed[front] + killed[child]))
	[ $((total % 50)) != 49 ] || echo "# $total kills"
	case $((RANDOM % 4)) in
	0) strike front "$(pgrep -x moatd-front | head -n 1)" ;;
	1)	# One that is at work; if there is none soon, both halves.
		for _ in $(seq 20); do
			child=$(pgrep -x -P "$MOATD" moatd | head -n 1)
			[ -z "$child" ] || break
			sleep 0.02
		done
		[ -z "$child" ] || { strike child "$child"; continue; } ;;&
	*)
		strike both "$MOATD"
		wait "$MOATD" 2>/dev/null
		twice
		moatd_launch ;;
	esac
done
touch "$WORK/stop"
wait $workers
moatd_kill KILL
moatd_launch
for _ in $(seq 200); do vmctl list >/dev/null 2>&1 && break; sleep 0.1; done
total=$((killed[both] + killed[front] + killed[child]))
commands=$(cat "$WORK"/ops.* | wc -l)
done=$(cat "$WORK"/ops.* | grep -cx 0)
echo "# seed $SEED: $total kills (${killed[both]} of both halves, ${killed[front]} of the unprivileged one," \
	"${killed[child]} of a process at work); $commands commands, $done done, $(cat "$WORK/cut" 2>/dev/null | wc -l) cut off"
[ "$total" -ge $((KILLS * 9 / 10)) ] && [ "$done" -ge "$KILLS" ]
tap_ok $? "$total kills, $commands commands"

# What is true then

tap_is "$(cat "$WORK/bad" 2>/dev/null)" '' "no machine was lost, came back, was there twice, or had two launchers"
list=$(vmctl list --json)
there=$(names <<<"$list" | sort)
wanted=$({ cat "$WORK"/is.* | awk '$2 == "yes" { print $1 }'; printf '%s\n' $STEADY; } | sort)
tap_is "$(comm -13 <(echo "$there") <(echo "$wanted"))" '' "$(wc -w <<<"$wanted") machines that were made are there"
tap_is "$(cat "$WORK"/is.* | awk '$2 == "no" { print $1 }' | grep -xF "$there")" '' "none that was destroyed is"
tap_is "$(cd "$MOATD_DIR/state/definitions/machines" && ls -A | sed 's/\.yaml$//' | sort)" "$there" \
	"each has a definition, and nothing else lies there"
tap_is "$(grep -c '"state":"broken"' <<<"$(tr -d ' ' <<<"$list")")" 0 "all definitions are whole"
for name in $STEADY; do
	tap_is "$(launcher "$name")" "${pid[$name]}" "$name: the launcher is the one that it was"
	sleep 2
	now=$(ticks "$name")
	[ "${now:-0}" -gt "${tick[$name]:-0}" ]
	tap_ok $? "$name: its guest counted on, from ${tick[$name]} to $now"
done

vmctl detach-disk steady extra >/dev/null 2>&1
vmctl attach-disk steady extra && vmctl detach-disk steady extra
tap_ok $? "steady: a disk still comes and goes" "$(vmctl info steady; vmctl log steady | tail -n 5)"

# at_rest: nothing starts, ends or waits.
at_rest() {
	! vmctl list --json | tr -d ' \n' | grep -qE '"state":"(starting|ending|waiting|stopping)"'
}
for _ in $(seq 300); do at_rest && break; sleep 0.2; done
on=$(vmctl list --json | tr -d ' \n' | grep -o '"name":"[^}]*"state":"\(running\|paused\)"' | cut -d'"' -f4 | sort)
tap_is "$(launchers | sort)" "$on" "each that is on has one launcher, and no other has"
tap_is "$(find "$GROUPS_DIR" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)" "$on" "and a control group"
tap_is "$(ls "$MOATD_DIR/run/machines" | sort)" "$on" "and a place"
taps=$(for name in $on; do vmctl info "$name" --json | tr -d ' \n' | grep -o '"mac":"[^"]*"' | cut -d'"' -f4 | tr -d :; done | sort)
tap_is "$(ls /sys/class/net | sed -n 's/^mt//p' | sort)" "$taps" "and a tap for each of its networks"

networks=$(vmctl network list --json | names | sed 's/^/moat-/' | sort)
for _ in $(seq 50); do there=$(ls /sys/class/net | grep '^moat-' | sort); [ "$there" != "$networks" ] || break; sleep 0.2; done
tap_is "$there" "$networks" "a bridge for each network, and no other"

# The end

names <<<"$list" | xargs vmctl destroy
tap_ok $? "all are destroyed"
vmctl network list --json | names | xargs vmctl network delete
tap_is "$(find "$MOATD_DIR/run/machines" "$MOATD_DIR/state/definitions/machines" "$GROUPS_DIR" -mindepth 1 \
	\( -type d -o -path "$MOATD_DIR/*" \))" '' "no file or control group is left of them"
tap_is "$(pgrep -l 'dnsmasq|moat-')" '' "no process either"
tap_is "$(ls /sys/class/net | grep -E '^(mt|moat)')" '' "nor an interface"
sed 's/^/# /' "$WORK/moatd.err" | tail -n 60
tap_end
