#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Debian's packages on a host: installed, used with nothing of the build tree in reach, removed and purged.

. selftests/lib/tap.sh

# Nothing that was built is in it.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
DEBS=$(dirname "$0")/../deb
MINE="/usr/bin/vmctl /usr/bin/moat-* /usr/libexec/moat /usr/include/moat /usr/src/moat-* /usr/share/man/man?/moat* \
	/usr/share/man/man?/vmctl* /usr/share/doc/moat* /usr/share/bash-completion/completions/vmctl /usr/share/zsh/*/_vmctl /usr/sbin/moatd \
	/lib/udev/rules.d/*moat* /lib/systemd/system/moat* /usr/lib/sysusers.d/moat* /usr/lib/tmpfiles.d/moat* \
	/etc/modprobe.d/moat* /etc/systemd/system/*/moat* /var/lib/moat /var/log/moat /var/lib/dkms/moat* /var/lib/systemd/*/*moat*"

ls "$DEBS"/moat_*.deb >/dev/null 2>&1 || {
	tap_skip "package" "there are no packages: make deb"
	tap_end
}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# What there is of it now, and of what packages may leave in places that many use.
# shellcheck disable=SC2086
mine() { ls -d $MINE 2>/dev/null; }
snapshot() {
	find /etc /var/lib /lib/systemd /lib/udev /usr/bin /usr/sbin /usr/libexec /usr/src /usr/include/moat -xdev \
		! -path '/var/lib/dpkg/*' ! -path '/etc/*shadow*' ! -path '/etc/passwd*' ! -path '/etc/group*' \
		! -path '/etc/.pwd.lock' ! \( -type d -path '/var/lib/systemd/*' \) 2>/dev/null | sort
}

# package NAME ARGS...: triggers are those of others, and slow.
package() {
	local name=$1 rc=0
	shift
	dpkg --no-triggers --force-unsafe-io "$@" >"$WORK/dpkg" 2>&1 || rc=$?
	tap_ok "$rc" "$name" "$(tail -n 20 "$WORK/dpkg")"
}

version() { dpkg-query -W -f '${Version}' "$1"; }

installed() {
	local program section
	tap_is "$(dpkg --verify moat moat-dkms 2>&1)" "" "all files are what the packages say"
	tap_is "$(dpkg -L moat moat-dkms | while read -r f; do [ ! -f "$f" ] || stat -c '%U:%G' "$f"; done | sort -u)" \
		"root:root" "all of them root's"
	tap_is "$(dpkg -L moat | grep -E '/s?bin/|/libexec/.*-init' | xargs stat -c %a | sort -u)" 755 "programs are for all"
	tap_is "$(getent group moat | cut -d: -f1) $(getent passwd moatd | cut -d: -f1,6,7)" "moat moatd:/:/usr/sbin/nologin" \
		"there are a group and a user"
	tap_is "$(id -nG moatd)" moatd "who is no member"
	for program in $(dpkg -L moat | sed -nE 's,^/usr/s?bin/,,p'); do
		section=1
		[ "$program" != moatd ] || section=8
		tap_is "$(man -w "$section" "$program" 2>&1)" "/usr/share/man/man$section/$program.$section.gz" \
			"$program has a man page"
	done
	tap_is "$(man -w 5 moat.yaml 2>&1)" "/usr/share/man/man5/moat.yaml.5.gz" "definitions have a man page"
	tap_is "$(man -l /usr/share/man/man[158]/{moat,vmctl}*.gz 2>&1 >"$WORK/man" | head)" "" "the pages are rendered"
	tap_has "$(dkms status moat 2>&1)" "moat/$(version moat-dkms)" "dkms knows the module's source"
}

# /dev/moat is for the group's members, by udev's own hand.
node() {
	[ -x /lib/systemd/systemd-udevd ] || { tap_skip "the node's group" "there is no udev"; return; }
	/lib/systemd/systemd-udevd --daemon >"$WORK/udev" 2>&1
	udevadm trigger --action=add --settle /sys/devices/virtual/misc/moat >>"$WORK/udev" 2>&1
	tap_is "$(stat -c '%U:%G %a' /dev/moat)" "root:moat 660" "udev gives /dev/moat to the group"
	udevadm control --exit
	OUT=$(cd / && setpriv --reuid 12345 --regid moat --clear-groups vmctl run -- id -u 2>"$WORK/err" </dev/null)
	tap_is "$OUT" 0 "a member of the group runs a machine"
	sed 's/^/# /' "$WORK/err"
	OUT=$(cd / && setpriv --reuid 12345 --regid 12345 --clear-groups vmctl run -- id -u 2>&1 </dev/null)
	tap_has "$OUT" "/dev/moat: Permission denied" "who is none does not"
	OUT=$(setpriv --reuid moatd --regid moatd --init-groups sh -c ': <>/dev/moat' 2>&1)
	tap_has "$OUT" "Permission denied" "moatd's user is none"
}

used() {
	tap_is "$(command -v vmctl)" "/usr/bin/vmctl" "vmctl is the package's"
	tap_is "$(vmctl version)" "vmctl $(version moat)" "it tells its version"
	OUT=$(cd / && timeout 100 vmctl run -- uname -a 2>"$WORK/err" </dev/null)
	tap_is "$?" 0 "vmctl run -- uname -a"
	tap_has "$OUT" "Linux moat " "it ran in a machine of its own"
	sed 's/^/# /' "$WORK/err"
}

# completes NAME WANTED WORD...: what is offered for the last word, by bash and by zsh.
completes() {
	local name=$1 wanted=$2
	shift 2
	# shellcheck disable=SC2016
	tap_is "$(bash -c '. /usr/share/bash-completion/completions/vmctl
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _vmctl; echo "${COMPREPLY[*]}"' bash "$@")" "$wanted" "bash: $name"
	# shellcheck disable=SC2016
	tap_is "$(zsh -fc 'compadd() { shift; print -r -- "$@" }; _files() { print }; _command_names() { print dpkg-deb }
		words=("$@") CURRENT=$#; . /usr/share/zsh/vendor-completions/_vmctl' zsh "$@")" "$wanted" "zsh: $name"
}

completion() {
	completes "a command" "version" vmctl ver
	completes "a command of a command's" "snapshot snapshots snapshot-delete" vmctl disk snap
	completes "an option" "--tmpfs" vmctl run --root --tm
	completes "what an option can be" "on-failure" vmctl create one --restart on
	completes "nothing that there is not" "" vmctl run --nonsense
	completes "a program behind --" "dpkg-deb" vmctl run -- dpkg-de
	# shellcheck disable=SC2016
	tap_is "$(zsh -fc 'autoload -Uz compinit; compinit -u -D; print $_comps[vmctl]')" _vmctl "zsh finds it"
}

# moatd as its unit starts it, since systemd is not process 1 here.
names() {
	local command
	[ -x /usr/sbin/moatd ] || { tap_skip "moatd" "it is not there"; return; }
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
	modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
	command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/moatd.service)
	$command 2>"$WORK/moatd" &
	for _ in $(seq 100); do [ ! -S /run/moat/control ] || break; sleep 0.1; done
	vmctl disk create stuff --size 1M && vmctl disk snapshot stuff early && vmctl create stays --kernel "$MOAT_KERNEL" --disk stuff
	tap_ok $? "moatd, as its unit starts it, makes a machine" "$(cat "$WORK/moatd")"
	tap_is "$(stat -c '%U:%G %a' /run/moat/control)" "root:moat 660" "its socket is the group's"
	tap_is "$(ps -o user= -C moatd-front)" moatd "its half that talks to others is the user moatd"
	completes "a machine's name" stays vmctl start st
	completes "another one's" stays vmctl start stays s
	completes "a network's name" default vmctl create two --network de
	completes "another way" default vmctl network info d
	completes "a disk's name" stuff vmctl attach-disk stays st
	completes "a snapshot's name" early vmctl disk revert stuff ""
	vmctl destroy stays && vmctl disk delete stuff && vmctl network delete default
	tap_ok $? "all goes again" "$(cat "$WORK/moatd")"
	kill %% && wait %%
	tap_is $? 0 "moatd ends when it is told to"
}

# systemd has them to its liking where they are, with the programs that they start.
units() {
	[ -x /usr/sbin/moatd ] || { tap_skip "units of systemd" "there is no moatd"; return; }
	tap_is "$(systemd-analyze verify --man=no moatd.service moatd.socket 2>&1 | grep moatd)" "" \
		"systemd finds nothing wrong with its units"
	tap_is "$(systemctl is-enabled moatd.socket moatd.service 2>&1 | sort -u)" "enabled" "they are enabled"
}

leave() {
	package "dpkg --remove" --remove moat moat-dkms
	tap_is "$(mine | grep -v '^/etc/\|/deb-systemd-helper\|^/var/l[io][bg]/moat$')" "" "removed, only configuration and state are left"
	tap_is "$(ls /etc/modprobe.d/moat.conf)" "/etc/modprobe.d/moat.conf" "and that is"
	mkdir -p /var/lib/moat/machines && touch /var/lib/moat/machines/one
	package "dpkg --purge" --purge moat moat-dkms
	tap_is "$(mine)" "/var/lib/moat" "purged, only machines are left, which somebody had"
	tap_is "$(find /var/lib/moat -type f)" "/var/lib/moat/machines/one" "all of them"
	rm -r /var/lib/moat
}

snapshot >"$WORK/before"
package "dpkg --install" --install "$DEBS"/moat*.deb
installed
used
node
completion
names
units
leave
package "dpkg --install, once more" --install "$DEBS"/moat*.deb
package "dpkg --purge, at once" --purge moat moat-dkms
snapshot >"$WORK/after"
tap_is "$(diff "$WORK/before" "$WORK/after")" "" "nothing is left, and nothing else gone"
tap_end
