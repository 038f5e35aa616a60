# SPDX-License-Identifier: MIT OR GPL-2.0
# Many small guests of moatd's at once: started, all reached by network, what they take told, and all destroyed.
# After lib/tap.sh and lib/moatd.sh.

# Debian's kernel takes 68 MiB to unpack itself, and moat-vmm refuses to start it with less.
GUESTS_MEMORY=72M
GUESTS_AT_ONCE=8
# What may be gone of the host's memory when all is over, MiB: logs, leases, what the kernel keeps for next time.
GUESTS_LOST_MAX=24

guests_names() { seq -f "g%03g" "$1"; }

seconds() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v a="$1" '{ printf "%.1f", $1 - a }' /proc/uptime; }

# MiB that the host has, without what it only caches.
available() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo
}

# own PID...: KiB that the processes have for themselves, without their guests' RAM.
own() {
	cat "${@/%//smaps}" 2>/dev/null | awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = /guest-ram/ }
		/^Private_Dirty/ && !guest { sum += $2 } END { print sum + 0 }'
}

# fds NAME: how many descriptors moatd's half of that name has.
fds() { ls "/proc/$(pgrep -xo "$1")/fd" | wc -l; }

# What there is of machines in the host, and what moatd has open.
guests_traces() {
	echo "processes: $(pgrep -c moat-)"
	echo "control groups: $(find /sys/fs/cgroup/moat -mindepth 1 -type d | wc -l)"
	echo "taps: $(ls /sys/class/net | grep -c '^mt')"
	echo "places: $(find "$MOATD_DIR/run/machines" -mindepth 1 | wc -l)"
	echo "descriptors: $(fds moatd) $(fds moatd-front)"
	echo "users of the module: $(cat /sys/module/moat/refcnt)"
}

# spread UNIT: the least, the mean and the most of the numbers that come in.
spread() {
	sort -n | awk -v unit="$1" '{ sum += $1; at[NR] = $1 }
		END { printf "%d to %d, on average %d %s", at[1], at[NR], sum / NR, unit }'
}

guests_start() {
	local name begun
	for name in $(guests_names "$1"); do
		guest_create "$name" --memory "$GUESTS_MEMORY" --network default \
			--append 'console=ttyS0 panic=-1 quiet ticks=no' || return
	done
	begun=$(seconds)
	guests_names "$1" | xargs -P "$GUESTS_AT_ONCE" -n 1 vmctl start
	tap_ok $? "$1 guests of $GUESTS_MEMORY start" "$(vmctl list)"
	echo "# all launchers run after $(since "$begun") s"
	guests_reach "$1"
	echo "# all guests answer after $(since "$begun") s"
}

# Each says its own MAC, by its own address.
guests_reach() {
	local name silent=''
	for name in $(guests_names "$1"); do
		[ "$(fetch "$(info_of "$name" address)" 80 300)" = "$(info_of "$name" mac)" ] || silent+=" $name"
	done
	tap_is "$silent" '' "all answer by HTTP, each at its own address"
}

guests_measure() {
	local name begun root=/sys/fs/cgroup/moat
	echo "# a machine's control group has" \
		"$(cat "$root"/g*/memory.current | awk '{ print int($1 / 1024) }' | spread KiB)"
	echo "# its processes ($(cat "$root"/g001/*/cgroup.procs | wc -l)) have for themselves" \
		"$(for name in $(guests_names "$1"); do own $(sed 's,^,/proc/,' "$root/$name"/*/cgroup.procs); done |
			spread KiB)"
	echo "# moatd's halves have $(own "/proc/$(pgrep -xo moatd)") and $(own "/proc/$(pgrep -xo moatd-front)") KiB," \
		"and $(fds moatd) and $(fds moatd-front) descriptors"
	begun=$(seconds)
	[ "$(vmctl list | grep -c ' running ')" = "$1" ]
	tap_ok $? "all are listed as running, in $(since "$begun") s" "$(vmctl list)"
}

guests_destroy() {
	local begun
	begun=$(seconds)
	guests_names "$1" | xargs -P "$GUESTS_AT_ONCE" -n 1 vmctl destroy
	tap_ok $? "all are destroyed in $(since "$begun") s" "$(vmctl list)"
}

# guests_test COUNT: moatd runs.
guests_test() {
	local before traces after
	before=$(available)
	traces=$(guests_traces)
	guests_start "$1"
	guests_measure "$1"
	after=$(available)
	echo "# the host has $((before - after)) MiB less, $((((before - after) << 10) / $1)) KiB a guest"
	guests_destroy "$1"
	for _ in $(seq 50); do [ "$(guests_traces)" != "$traces" ] || break; sleep 0.2; done
	tap_is "$(guests_traces)" "$traces" "nothing is left of them"
	after=$(available)
	[ $((before - after)) -le $GUESTS_LOST_MAX ]
	tap_ok $? "the host has its memory again, but $((before - after)) MiB"
}
