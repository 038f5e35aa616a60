# SPDX-License-Identifier: MIT OR GPL-2.0
# The module under test, and the host's memory, for shell: whether something of it is left there.

loaded() { grep -q '^moat ' /proc/modules; }

# rmmod as soon as the last reference is gone: a killed process gives its descriptors back a moment
# later.
unload_soon() {
	local i
	for i in $(seq 100); do
		rmmod moat 2>/dev/null && return
		sleep 0.1
	done
	rmmod moat
}

# Before memory is counted: what caches hold goes.
settle() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 0.5
	echo 3 >/proc/sys/vm/drop_caches
}

# Memory that is not free, not even kept by a CPU for its own next use, and in no cache.
used_kib() {
	awk '/^MemFree|^Cached|^Buffers|^SReclaimable/ { free += $2 } /^MemTotal/ { total = $2 }
		$1 == "count:" { free += $2 * 4 }
		END { print total - free }' /proc/meminfo /proc/zoneinfo
}
