#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Loads and unloads moat.ko a hundred times, without and with a guest that is killed in mid-run: no
# memory and no message is left, and a module with a VM open stays. Then CPUs go and come back under
# running guests.
#
# The module is $MOAT_MODULE, which the lab sets. Where the module is loaded at the start, it is
# again at the end.

. selftests/lib/tap.sh
. selftests/lib/module.sh

HERE=$(dirname "$0")
ROUNDS=${ROUNDS:-100}
LEAK_KIB=4096	# the kernel's own use wavers by as much

[ -n "${MOAT_MODULE:-}" ] && [ -f "$MOAT_MODULE" ] || {
	tap_skip "module_reload" "MOAT_MODULE names no module"
	tap_end
}

load() { insmod "$MOAT_MODULE" 2>&1 && [ -c /dev/moat ]; }

unload() { rmmod moat 2>&1; }

slab_kib() { awk '/^SUnreclaim/ { print $2 }' /proc/meminfo; }

# Starts a guest; its pid is in GUEST once it runs.
guest_start() {
	local line
	exec 3< <(exec "$HERE/spin" "${1:-1}")
	GUEST=$!
	read -r -t 10 line <&3
	[ "$line" = running ]
}

guest_kill() {
	kill -KILL "$GUEST"
	wait "$GUEST" 2>/dev/null
	exec 3<&-
}

reload_plain() { load && unload; }

reload_with_guest() {
	load && guest_start 2 || return
	guest_kill
	unload_soon
}

# rounds FUNCTION: prints nothing and gives 0 where every round worked.
rounds() {
	local i out
	for i in $(seq "$ROUNDS"); do
		out=$("$1" 2>&1) || { echo "round $i: $out"; return 1; }
	done
}

# growth FUNCTION: runs the rounds, leaves what they took in USED and SLAB, and what went wrong in
# OUT. What the kernel frees late (a module's memory, by RCU and a work queue) gets time: what leaked
# stays.
growth() {
	local used slab i
	settle
	used=$(used_kib) slab=$(slab_kib)
	OUT=$(rounds "$1") || return
	for i in $(seq 15); do
		settle
		USED=$(($(used_kib) - used)) SLAB=$(($(slab_kib) - slab))
		[ "$USED" -gt "$LEAK_KIB" ] || [ "$SLAB" -gt "$LEAK_KIB" ] || break
	done
}

# The kernel keeps some of what it once allocated, a leak grows each time: so the second of two runs
# counts where the first took more than it may.
reload_case() {
	local what=$1 function=$2 used slab
	"$function" >/dev/null 2>&1
	growth "$function"
	tap_ok $? "$ROUNDS times insmod and rmmod $what" "$OUT"
	used=$USED slab=$SLAB
	if [ "$used" -gt "$LEAK_KIB" ] || [ "$slab" -gt "$LEAK_KIB" ]; then
		growth "$function"
	fi
	tap_ok $((USED > LEAK_KIB)) "no memory is left $what" "$used, then $USED KiB more are in use"
	tap_ok $((SLAB > LEAK_KIB)) "no slab is left $what" "$slab, then $SLAB KiB more are in slabs"
}

check_traces() {
	local left
	left=$(grep -s '^moat' /proc/slabinfo)
	tap_ok $(($([ -z "$left" ]; echo $?))) "no slab cache is left" "$left"
	left=$(ls -d /sys/kernel/debug/moat* /sys/module/moat /dev/moat \
		/sys/kernel/tracing/events/moat 2>/dev/null)
	tap_ok $(($([ -z "$left" ]; echo $?))) "no file is left" "$left"
}

# Moat's own words; what any foreign module makes the kernel say; CPUs that go and come; this script;
# that the emulator itself stood still for a while, on a busy machine.
EXPECTED='\] moat: |loading out-of-tree module|module verification failed|drop_caches: '
EXPECTED+='|smpboot: |x86: Booting|CPU[0-9]+ (is up|is now offline)|kvm-clock: cpu|Unregister pv'
EXPECTED+='|IRQ .*(affinity|no longer)|masked .* irq|hrtimer: interrupt took'

# What else the kernel said since line $1.
messages_since() { dmesg | tail -n "+$(($1 + 1))" | grep -vE "$EXPECTED"; }

busy_case() {
	load >/dev/null && guest_start || { tap_ok 1 "a guest starts"; return; }
	unload >/dev/null
	tap_ok $(($? == 0)) "rmmod with a VM open is refused"
	loaded
	tap_ok $? "the module is still there"
	kill -0 "$GUEST" 2>/dev/null
	tap_ok $? "the guest still runs"
	guest_kill
	unload_soon >/dev/null
	tap_ok $? "rmmod works once the VM is gone"
}

hotplug_case() {
	local cpu=/sys/devices/system/cpu/cpu1/online i out=''
	if [ ! -w "$cpu" ]; then
		tap_skip "CPUs go and come back under guests" "there is no second CPU to take offline"
		return
	fi
	load >/dev/null && guest_start 3 || { tap_ok 1 "a guest starts"; return; }
	for i in $(seq 5); do
		echo 0 >"$cpu" || out="offline failed in round $i"
		sleep 0.1
		echo 1 >"$cpu" || out="online failed in round $i"
		sleep 0.1
	done
	kill -0 "$GUEST" 2>/dev/null || out="$out; the guest died"
	guest_kill
	# A guest on the CPU that came back, and one begun while it is away.
	taskset -c 1 "$HERE/exits" hlt port_out >/dev/null ||
		out="$out; guests fail on the CPU that came back"
	echo 0 >"$cpu"
	"$HERE/exits" hlt >/dev/null || out="$out; guests fail with a CPU offline"
	echo 1 >"$cpu"
	unload_soon >/dev/null || out="$out; rmmod failed"
	tap_ok $(($([ -z "$out" ]; echo $?))) "CPUs go and come back under guests" "$out"
}

unset MOAT_DEVICE
WAS_LOADED=1
loaded && WAS_LOADED=0 && unload >/dev/null
LINES_BEFORE=$(dmesg | wc -l)
reload_case "without a guest" reload_plain
reload_case "with a guest killed in mid-run" reload_with_guest
busy_case
check_traces
hotplug_case
check_traces
OUT=$(messages_since "$LINES_BEFORE")
tap_ok $(($([ -z "$OUT" ]; echo $?))) "the kernel's log has nothing but Moat's own lines" "$OUT"
[ "$WAS_LOADED" -ne 0 ] || load >/dev/null
tap_end
