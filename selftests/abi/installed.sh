#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Moat as Debian's package installs it, and Debian 12 on it as a machine that stays: by four commands of an
# ordinary user's, a member of the group moat, from an image as those for clouds to its login prompt. Then somebody
# logs in on its console, the host comes in by SSH over its network, and its power button ends it. At last the package goes, and
# nothing is left.
#
# There is no systemd as process 1 in the emulated host: moatd is started as its unit says.

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/abi/lib.sh
. "$TOP/selftests/abi/lib.sh"

DEB=$TOP/build/deb
# Where the root file system is on the disk, as scripts/deps-abi puts it.
ROOT_AT=$((1 << 20))
BOOT_SECONDS=600
PIECE_KIB=2048

# Outside, where it is fast: a key, and an image whose root lets in who has it.
image_make() {
	local work=$1
	cp --sparse=always "$CACHE/abi-cloud/disk.img" "$work/raw" &&
		ssh-keygen -q -t ed25519 -N '' -C '' -f "$work/key" &&
		debugfs -w -R "write $work/key.pub /root/.ssh/authorized_keys" "$work/raw?offset=$ROOT_AT" >"$work/log" 2>&1 &&
		grep -q '^Allocated inode' "$work/log" && qemu-img convert -O qcow2 "$work/raw" "$work/debian.qcow2" &&
		rm "$work/raw"
}

# As a user who has moatd, and nothing else.
anna() { (cd "$WORK" && HOME=$WORK setpriv --reuid anna --regid anna --init-groups -- "$@"); }

# The host's own kernel, as Debian has it: that of the lab is not in /boot.
host_make() {
	mount -t tmpfs -o size=100%,mode=755 tmpfs "$WORK" || return
	cp "$CACHE/abi-cloud/vmlinuz" "/boot/vmlinuz-$(uname -r)" && cp "$CACHE/abi-cloud/initrd.img" "/boot/initrd.img-$(uname -r)" &&
		cp "$1/debian.qcow2" "$1/key" "$WORK/" || return
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup || return
	modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
	busybox ip link set lo up
}

# Who runs machines by moatd needs no right to the node.
install() {
	local out
	out=$(dpkg --no-triggers --force-unsafe-io --install "$DEB"/moat_*.deb 2>&1)
	tap_ok $? "the package is installed" "$out"
	useradd --no-create-home --groups moat anna && chown anna:anna "$WORK" "$WORK"/*
	tap_ok $? "there is a member of the group moat"
	chown root:moat /dev/moat && chmod 600 /dev/moat
}

moatd_start() {
	local command
	command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/moatd.service)
	$command 2>"$WORK/moatd" &
	MOATD=$!
	for _ in {1..100}; do [ ! -S /run/moat/control ] || break; sleep 0.1; done
	tap_is "$(anna vmctl list --json | tr -d ' \n')" '[]' "moatd, by its unit's command, has no machines"
}

# does NAME COMMAND...: ok where it ends well; how long it took is in TOOK.
does() {
	local name=$1 out rc start=$EPOCHREALTIME
	shift
	out=$(anna "$@" 2>&1)
	rc=$?
	TOOK=$(passed "$start")
	tap_ok $rc "$name: $* ($TOOK s)" "$out$(cat "$WORK/moatd")"
}

passed() { awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $1 }"; }

# From a terminal, as a person would: the login prompt, a login, a command, and away.
console() {
	printf '%s\n' "wait $BOOT_SECONDS guest login:" 'send root' 'wait 120 root@guest:~#' \
		"send echo cpus \$(nproc)" 'wait 30 cpus 2' $'send \001x' 'end 20' >"$WORK/script"
	anna "$HELPERS/dialogue" "$WORK/script" script -qec 'vmctl console web' /dev/null >"$WORK/serial" 2>"$WORK/waits"
	tap_ok $? "vmctl console web: a login prompt, a login, two CPUs, Ctrl-A x" "$(tail -n 30 "$WORK/serial"; cat "$WORK/waits")"
	sed 's/^/# /' "$WORK/waits"
}

# Four commands.
boot() {
	local start
	does first vmctl disk create web --from debian.qcow2 --from-format qcow2
	does second vmctl create web --disk web --network default --cpus 2 --memory 512M
	start=$EPOCHREALTIME
	does third vmctl start web
	console
	echo "# from vmctl start on: the login prompt after $(awk -v took="$TOOK" '/login/ { print took + $1 }' "$WORK/waits") s," \
		"the end of the session after $(passed "$start") s"
}

looks() {
	local json
	tap_has "$(anna vmctl list)" 'web                  running      2    512M anna' "vmctl list"
	json=$(anna vmctl info web --json)
	ADDRESS=$(grep -o '"address":"[0-9.]*"' <<<"$json" | cut -d'"' -f4)
	tap_has "$ADDRESS" 192.168.77. "vmctl info has its address"
	tap_has "$(anna vmctl info web)" 'network: default' "and its network"
	tap_has "$(busybox nslookup web.default.internal 192.168.77.1 2>&1)" "$ADDRESS" "its name is known there"
	json=$(anna bash -c '. /usr/share/bash-completion/completions/vmctl
		COMP_WORDS=(vmctl stop w) COMP_CWORD=2; _vmctl; echo "${COMPREPLY[*]}"')
	tap_is "$json" web "its name is completed"
}

remote() {
	anna timeout 120 ssh -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 \
		-o ConnectionAttempts=10 -o LogLevel=ERROR "root@$ADDRESS" "$@"
}

ssh_in() {
	local start=$EPOCHREALTIME
	tap_is "$(remote 'uname -n; systemctl is-active systemd-logind')" $'guest\nactive' "the host comes in by SSH ($(passed "$start") s)"
	head -c "${PIECE_KIB}K" /dev/urandom >"$WORK/piece"
	chown anna "$WORK/piece"
	tap_is "$(remote 'cat >piece; md5sum <piece; cat piece' <"$WORK/piece" | { head -n 1; md5sum; })" \
		"$(md5sum <"$WORK/piece"; md5sum <"$WORK/piece")" "$PIECE_KIB KiB go there and come back"
}

ends() {
	does stop vmctl stop web
	tap_has "$(anna vmctl info web)" 'ended: powered off' "its button has the guest power off"
	tap_ok "$(e2fsck -fn "/var/lib/moat/disks/web.raw?offset=$ROOT_AT" >"$WORK/fsck" 2>&1; echo $?)" "e2fsck -fn finds nothing" \
		"$(cat "$WORK/fsck")"
	does destroy vmctl destroy web
	does destroy vmctl disk delete web
	vmctl network delete default
	tap_ok $? "and root its network"
	kill "$MOATD" && wait "$MOATD"
	tap_is $? 0 "moatd ends"
	tap_is "$(pgrep -l 'moat|dnsm|qemu')" '' "no process is left"
	tap_is "$(ls /sys/class/net | grep -v -e '^lo$' -e '^eth' -e '^sit' -e '^ip6')" '' "no interface is left"
	tap_is "$(nft list ruleset)" '' "no rule is left"
	tap_is "$(find /sys/fs/cgroup/moat -mindepth 1 -type d)" '' "no control group is left"
	tap_is "$(dpkg --no-triggers --force-unsafe-io --purge moat >"$WORK/purge" 2>&1 || cat "$WORK/purge")" '' "the package is purged"
	tap_is "$(ls -d /var/lib/moat /var/log/moat /usr/bin/vmctl 2>/dev/null)" '' "nothing of it is left"
	sed 's/^/# moatd: /' "$WORK/moatd"
}

inside() {
	# Nothing that was built is in it.
	PATH=/usr/sbin:/usr/bin:/sbin:/bin
	WORK=$(mktemp -d)
	host_make "$1" || exit 1
	install
	moatd_start
	boot
	looks
	ssh_in
	ends
	tap_end
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
if [ "$PEER" != moat ] || ! ls "$DEB"/moat_*.deb >/dev/null 2>&1; then
	tap_skip installed "it takes Moat, and packages (make deb)"
	tap_end
fi
OUT=$(mktemp -d "${TMPDIR:-/tmp}/moat-installed.XXXXXX")
trap 'rm -rf "$OUT"' EXIT
image_make "$OUT" || exit 1
(lab_self --mem 3G -- "$OUT")
exit
