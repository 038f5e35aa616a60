#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Machines of moatd's with networks and disks: an address by DHCP, a name, a forwarded port, a disk that is
# made, used, grown, kept and brought back; and who may what.

. selftests/lib/tap.sh

WORK=$(mktemp -d)
. selftests/lib/moatd.sh
trap 'moatd_clean; rm -rf "$WORK"' EXIT
PATH=$PATH:/sbin:/usr/sbin
# Others may have left some.
processes() { pgrep 'dnsmasq|moat-'; pgrep qemu; }
INTERFACES=$(ls /sys/class/net) PROCESSES=$(processes)

modprobe -a tun bridge nf_tables nft_masq nft_chain_nat nft_reject_inet 2>/dev/null
ip link set lo up
moatd_prepare && guest_make && moatd_start
tap_ok $? "moatd and a guest" "$(cat "$WORK/moatd.err")"

# Networks

tap_has "$(vmctl network list)" 'default    nat      192.168.77.1/24    yes' "there is a network from the start"
vmctl network create lonely --isolated
tap_ok $? "another one is made"
tap_has "$(vmctl network list)" 'lonely     isolated 192.168.78.1/24    no' "it has an address that was free"
[ -e /sys/class/net/moat-default ] && [ -e /sys/class/net/moat-lonely ]
tap_ok $? "they are there" "$(ip link; vmctl network list)"
refused 1 "at most 10 letters" 'a network of a name too long' vmctl network create abcdefghijk
refused 1 'there is no such network' 'a network that is none' vmctl network delete nonesuch

guest_create web --network default
tap_ok $? "a machine on a network"
refused 1 "a machine's definition names it" 'a network that is in use' vmctl network delete default
vmctl start web
tap_ok $? "it is started" "$(vmctl log web)"
console_has web '^address 192.168.77'
tap_ok $? "its guest has an address"
address=$(info_of web address)
mac=$(info_of web mac)
tap_is "$(fetch "$address" 80)" "$mac" "the host reaches it at $address"
tap_has "$(busybox nslookup web 192.168.77.1 2>&1)" "$address" "its name is known there"
vmctl network forward default 8080 web:80
tap_ok $? "a port is forwarded"
tap_is "$(fetch 127.0.0.1 8080)" "$mac" "the host has it"
moatd_kill KILL; nft flush ruleset; moatd_start; sleep 2
tap_is "$(fetch 127.0.0.1 8080)" "$mac" "it has it again after the rules were flushed, and moatd began anew"
vmctl network forward default 8080 --delete
get 127.0.0.1 8080 | grep -q .
tap_ok $((! $?)) "and not any more"

refused 1 'another one has that address' "another machine's MAC" guest_create thief --network "default,mac=$(echo "$mac" | tr a-f A-F)"
vmctl create --file - <<END 2>/dev/null
name: thief
boot: { kernel: $MOAT_KERNEL }
networks: [ { network: default, address: $address } ]
END
tap_is $? 1 "nor is its address there to be had"

# Disks

vmctl disk create data --size 64M
tap_ok $? "a disk is made"
tap_has "$(vmctl disk list)" 'data                     raw         64M' "it is listed"
refused 1 'data' 'a second one of that name' vmctl disk create data --size 1M
guest_create disky --disk data && vmctl start disky && console_has disky 'guest is up'
tap_ok $? "a machine has it" "$(vmctl log disky)"
console_run() { console_say "$1" run "$2"; console_has "$1" "$3"; }
console_run disky 'echo first >/dev/vda; sync' 'status 0'
tap_ok $? "its guest writes to it"
refused 1 'in use' 'its removal' vmctl disk delete data
guest_create other --disk data
refused 1 'in use' 'another machine with it' vmctl start other
vmctl stop disky
tap_ok $? "it is stopped by its power button"
tap_has "$(vmctl info disky)" 'ended: powered off' "the guest powered off by itself"
vmctl disk snapshot data before && vmctl disk resize data 128M
tap_ok $? "a snapshot is taken, it is grown"
tap_has "$(vmctl disk snapshots data)" before "the snapshot is listed"
vmctl start disky && console_has disky 'guest is up'
console_run disky 'echo other >/dev/vda; sync; cat /sys/block/vda/size; echo end' '^262144'
tap_ok $? "its guest sees the new size, and writes something else"
vmctl kill disky
vmctl disk revert data before
tap_ok $? "it is reverted"
tap_is "$(head -c 5 "$MOATD_DIR/state/disks/data.raw")" first "it is what it was"
vmctl disk create copy --from "$MOATD_DIR/state/disks/data.raw" --format qcow2 --from-format raw
tap_ok $? "an image becomes a qcow2 disk"
guest_create cow --disk copy && vmctl start cow && console_has cow 'guest is up' &&
	console_run cow 'head -c 5 /dev/vda' '^first'
tap_ok $? "a machine reads it" "$(vmctl log cow)"
vmctl kill cow

# Coming and going

vmctl disk create extra --size 16M
vmctl attach-disk web extra
tap_ok $? "a disk comes to a running machine" "$(vmctl log web)"
console_run web 'head -c 1000000 /dev/zero | tr "\\0" x >/dev/vda; sync; wc -c </dev/vda' '^16777216'
tap_ok $? "its guest uses it"
tap_has "$(vmctl info web)" 'disk: extra' "it is in the definition"
vmctl detach-disk web extra
tap_ok $? "it goes" "$(vmctl log web)"
tap_is "$(head -c 1000000 "$MOATD_DIR/state/disks/extra.raw" | tr -d x | wc -c)" 0 "what the guest wrote is on it"
tap_is "$(vmctl info web | grep -c 'disk: extra')" 0 "it is in the definition no more"
refused 1 'it has no such disk' 'a disk that it does not have' vmctl detach-disk web extra
mac=$(vmctl attach-net web lonely)
tap_ok $? "a network comes" "$(vmctl log web)"
console_run web 'cat /sys/class/net/eth1/address' "^$mac"
tap_ok $? "its guest sees it"
moatd_kill KILL; moatd_start
vmctl detach-net web "$mac"
tap_ok $? "it goes, by another moatd"
vmctl destroy disky other cow 2>/dev/null

# A directory of the host's

mkdir -p "$WORK/tree" && echo from the host >"$WORK/tree/file"
guest_create filed --fs "$WORK/tree,tag=tree,rw" && vmctl start filed && console_has filed 'guest is up'
tap_ok $? "a machine with a directory" "$(vmctl log filed)"
console_run filed 'mkdir /mnt; mount -t virtiofs tree /mnt; cat /mnt/file; cp /mnt/file /mnt/copy; echo end' '^from the host'
tap_ok $? "its guest reads it"
tap_is "$(cat "$WORK/tree/copy")" 'from the host' "and writes there"
tap_has "$(vmctl info filed)" 'isolation: grant' "info tells what devices see of the guest"
vmctl destroy filed

# Users

useradd --no-create-home anna && useradd --no-create-home ben && usermod -aG moat anna && usermod -aG moat ben &&
	useradd --no-create-home carl
chmod 755 "$WORK"; chmod 644 "$WORK/initrd"; chmod 666 /dev/moat
as() { local user=$1; shift; busybox su -s /bin/sh "$user" -c "MOAT_SOCKET=$MOAT_SOCKET $(printf "'%s' " "$@")"; }
VMCTL=$(command -v vmctl)
refused 3 'users of the group moat may' 'somebody who is not in the group' as carl "$VMCTL" list
as anna "$VMCTL" create hers --memory 96M --kernel "$MOAT_KERNEL" --initrd "$WORK/initrd" --append 'console=ttyS0 quiet' \
	--network default
tap_ok $? "a user makes a machine"
said=$(as anna "$VMCTL" start hers 2>&1)
tap_ok $? "and starts it" "$said"
tap_has "$(as anna "$VMCTL" list)" hers "she sees it"
tap_is "$(as anna "$VMCTL" list | grep -c web)" 0 "and none of root's"
tap_is "$(as ben "$VMCTL" list | grep -c hers)" 0 "another user does not see it"
for verb in start stop kill reset pause resume destroy info stats console log edit 'set-memory hers 64M' 'dump hers /tmp/x'; do
	case $verb in *' '*) set -- $verb ;; *) set -- "$verb" hers ;; esac
	refused 1 "another user's machine" "another's $1" as ben "$VMCTL" "$@"
done
echo secret >>"$MOATD_DIR/log/hers.log"
tap_has "$(as anna "$VMCTL" log hers)" secret "she reads its log"
as anna "$VMCTL" destroy hers && as ben "$VMCTL" create hers --memory 96M --kernel "$MOAT_KERNEL"
refused 1 'it has no log yet' "the log of another's machine that had that name" as ben "$VMCTL" log hers
refused 1 'it is for root to do' "a user's network" as anna "$VMCTL" network create mine
as anna "$VMCTL" create shadow --memory 96M --kernel /etc/shadow
refused 1 'Permission denied' "a user's file that she cannot read" as anna "$VMCTL" start shadow
as anna "$VMCTL" create lone --memory 96M --kernel "$MOAT_KERNEL" --network lonely
refused 1 'not open to all users' "a network that is not hers" as anna "$VMCTL" start lone
as anna "$VMCTL" create disk --memory 96M --kernel "$MOAT_KERNEL" --disk data
refused 1 'Permission denied' "root's disk" as anna "$VMCTL" start disk
refused 1 "another user's" "root's disk, to be deleted" as anna "$VMCTL" disk delete data
as anna "$VMCTL" disk create hers --size 1M
tap_has "$(as anna "$VMCTL" disk list)" anna "she has disks of her own"
tap_is "$(as anna "$VMCTL" disk list | grep -c data)" 0 "and sees no others"
user=$(ps -o user:20= -C moat-vmm | sort | uniq -d)
tap_is "$user" '' "each machine runs as a user of its own"

# The end

vmctl list --json | tr -d '\n' | grep -o '"name":"[a-z]*"' | cut -d'"' -f4 | xargs vmctl destroy
tap_ok $? "all are destroyed"
vmctl network delete default lonely
tap_ok $? "so are the networks"
tap_is "$(ls /sys/class/net)" "$INTERFACES" "no interface is left"
tap_is "$(processes)" "$PROCESSES" "no process is left"
vmctl disk delete data copy hers extra
tap_is "$(ls "$MOATD_DIR/state/disks")" '' "no disk is left"
sed 's/^/# /' "$WORK/moatd.err"
tap_end
