#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Networks of machines, as moatd's privileged half makes them: who gets which address and name, who reaches whom, what
# is left after kill -9 and after a stop. Most machines are network namespaces here, as is the world outside; one is
# a guest.

. selftests/lib/tap.sh

PATH=$PATH:/sbin:/usr/sbin
# Seen by a guest, whose /tmp is its own.
WORK=$(mktemp -d -p /var/lib)
TOOL=$(dirname "$0")/moatd/network_tool
ADDRESS_WORK=$(realpath "$(dirname "$0")/moatd/address_work")
FOLDER=/var/lib/moat/networks
LAN=nat,lan,192.168.77.1,24,192.168.77.100,192.168.77.200
TWO=nat,two,192.168.78.1,24,192.168.78.100,192.168.78.200
ISO=isolated,iso,192.168.79.1,24,192.168.79.100,192.168.79.200
OUTSIDE=203.0.113.2 HOST=203.0.113.1
JOBS=() OTHER=
ROUNDS=${MOAT_ROUNDS:-12}
trap 'kill "${JOBS[@]}" $OTHER 2>/dev/null; ip netns list | cut -d" " -f1 | xargs -rn1 ip netns delete; rm -rf "$WORK"' EXIT

run() { "$TOOL" "$@" 2>"$WORK/why"; }
in_ns() { ip netns exec "$@"; }

# refused ERRNO NAME ARGS...: the tool says no, and why.
refused() {
	run "${@:3}"
	[ $? = 1 ] && grep -q "^$1: ." "$WORK/why"
	tap_ok $? "$2: $(cut -c1-100 "$WORK/why")"
}

# background COMMAND...: until the test ends.
background() {
	"$@" >/dev/null 2>&1 </dev/null &
	JOBS+=($!)
}

# serve NETNS PORT: who asks is told where that is, and its own address.
serve() { background in_ns "$1" "$ADDRESS_WORK" serve "$1" "$2"; }

# ask NETNS HOST PORT [udp]: the answer; "host" for NETNS is no namespace.
ask() {
	local in=(in_ns "$1")
	[ "$1" != host ] || in=()
	"${in[@]}" "$ADDRESS_WORK" ask "${4:-tcp}" "$2" "$3" 2>/dev/null
}

# machine NETNS BRIDGE MAC
machine() {
	ip netns add "$1"
	ip link add "v-$1" type veth peer name eth0 netns "$1" address "$3"
	ip link set "v-$1" master "$2" up
	in_ns "$1" ip link set eth0 up
}

# dhcp NETNS: prints its address.
dhcp() {
	in_ns "$1" ip addr flush dev eth0
	in_ns "$1" busybox udhcpc -i eth0 -n -q -f -t 10 -T 1 -s "$WORK/lease" >"$WORK/dhcp" 2>&1
	in_ns "$1" ip -4 -o addr show dev eth0 | sed 's/.*inet \([0-9.]*\).*/\1/'
}

# lookup NETNS NAME SERVER
lookup() { in_ns "$1" timeout 5 busybox nslookup -type=a "$2" "$3" 2>&1 | sed -n '/^Name/,$s/^Address[^0-9]*//p'; }

# What there is of networks anywhere.
left() {
	ip -o link | grep -o 'moat-[a-z]*'
	nft list ruleset
	pgrep -f "^/usr/sbin/dnsmasq --pid-file=$FOLDER/"
	ls "$FOLDER"
}

set_up() {
	modprobe -a bridge tun veth nf_tables nft_chain_nat nft_ct nft_masq nft_nat nft_fib_inet
	ip link set lo up
	cat >"$WORK/lease" <<-'END'
	#!/bin/sh
	[ "$1" = bound ] || exit 0
	ip addr add "$ip/$mask" dev "$interface"
	[ -z "$router" ] || ip route add default via "$router"
	END
	chmod +x "$WORK/lease"
	ip netns add outside
	ip link add v-outside type veth peer name eth0 netns outside
	ip addr add $HOST/24 dev v-outside
	ip link set v-outside up
	in_ns outside ip addr add $OUTSIDE/24 dev eth0
	in_ns outside ip link set eth0 up
	in_ns outside ip route add 192.168.0.0/16 via $HOST
	background in_ns outside dnsmasq -k --conf-file=/dev/null --pid-file= --no-resolv --no-hosts \
		--address=/world.example/$OUTSIDE
	OTHER=$!
	echo "nameserver $OUTSIDE" >/etc/resolv.conf
	serve outside 7000
	background "$ADDRESS_WORK" serve host 9000
}

starts() {
	run start $LAN && run start $TWO && run start $ISO
	tap_ok $? "three networks start" "$(cat "$WORK/why")"
	run start $LAN
	tap_ok $? "and start again, with nothing to do" "$(cat "$WORK/why")"
	tap_is "$(run list | sort | xargs)" "iso lan two" "they are found"
	refused EADDRINUSE "in the way of an address" start nat,bad,203.0.113.129,25,203.0.113.130,203.0.113.140
	ip route add 10.20.0.0/16 via $OUTSIDE
	refused EADDRINUSE "in the way of a route" start nat,bad,10.20.30.1,24,10.20.30.2,10.20.30.9
	refused EINVAL "a name that is none" start nat,bad/name,10.1.0.1,24,10.1.0.2,10.1.0.9
	tap_is "$(run list | sort | xargs)" "iso lan two" "and nothing of these is there"
}

addresses() {
	machine web moat-lan 02:00:00:00:00:01
	machine db moat-lan 02:00:00:00:00:02
	machine far moat-two 02:00:00:00:00:03
	machine alone moat-iso 02:00:00:00:00:04
	run host $LAN 02:00:00:00:00:01 web 192.168.77.10
	tap_is "$(dhcp web)" 192.168.77.10 "a machine gets the address that is its own"
	local db
	db=$(dhcp db)
	tap_has "$db" 192.168.77.1 "another one gets one of the range: $db"
	tap_is "$(run lease $LAN 02:00:00:00:00:02)" "$db" "which is known of it"
	refused ENOENT "one that has none" lease $LAN 02:00:00:00:00:77
	tap_is "$(dhcp far | cut -d. -f1-3) $(dhcp alone | cut -d. -f1-3)" "192.168.78 192.168.79" \
		"so do machines of the other networks"
	tap_is "$(lookup db web 192.168.77.1) $(lookup db web.lan.internal 192.168.77.1)" \
		"192.168.77.10 192.168.77.10" "the first one's name is known"
	tap_is "$(lookup far web 192.168.78.1)$(lookup far web 192.168.77.1)" "" "and not to another network"
	run host $LAN 02:00:00:00:00:02 db 192.168.77.11
	tap_is "$(dhcp db) $(lookup web db 192.168.77.1)" "192.168.77.11 192.168.77.11" \
		"address and name of a machine can change"
	tap_is "$(lookup db world.example 192.168.77.1)" $OUTSIDE "names of the world outside are known"
	tap_is "$(lookup alone world.example 192.168.79.1)" "" "and not to an isolated network"
	in_ns alone ip route show default >"$WORK/route"
	tap_is "$(cat "$WORK/route")" "" "which has no router either"
}

reaches() {
	serve web 80
	serve far 80
	serve alone 80
	sleep 1
	tap_is "$(ask web $OUTSIDE 7000)" "outside $HOST" "a machine reaches the world outside, as the host"
	tap_is "$(ask web $OUTSIDE 7000 udp)" "outside $HOST" "by datagrams, too"
	tap_is "$(ask db 192.168.77.10 80)" "web 192.168.77.11" "and its neighbour, as itself"
	tap_is "$(ask host 192.168.77.10 80)" "web 192.168.77.1" "the host reaches it"
	in_ns alone ip route add default via 192.168.79.1
	local alone far
	alone=$(run lease $ISO 02:00:00:00:00:04) far=$(run lease $TWO 02:00:00:00:00:03)
	tap_is "$(ask host "$alone" 80)" "alone 192.168.79.1" "and the isolated one"
	tap_is "$(ask alone $OUTSIDE 7000)" "" "from an isolated network nothing leads outside"
	tap_is "$(ask alone 192.168.77.10 80)$(ask web "$alone" 80)" "" "nor to another network, nor back"
	tap_is "$(ask web "$far" 80)$(ask far 192.168.77.10 80)" "" "networks of NAT do not reach each other"
	tap_is "$(ask outside 192.168.77.10 80)" "" "nor does the world outside"
	tap_is "$(ask host $HOST 9000)" "host $HOST" "what the host serves"
	tap_is "$(ask web 192.168.77.1 9000)$(ask web $HOST 9000)$(ask alone 192.168.79.1 9000)" "" \
		"no machine reaches"
	in_ns web busybox ping -c 1 -W 3 192.168.77.1 >/dev/null
	tap_ok $? "but for an answer to ping"
}

# A machine that says it is another one.
spoofs() {
	in_ns outside nft "add table ip t; add chain ip t c { type filter hook input priority 0; };
		add rule ip t c ip saddr 10.9.9.9 counter; add rule ip t c icmp type echo-request counter"
	in_ns web ip addr add 10.9.9.9/32 dev eth0
	in_ns web busybox ping -c 2 -W 1 -I 10.9.9.9 $OUTSIDE >/dev/null
	in_ns web busybox ping -c 2 -W 1 $OUTSIDE >/dev/null
	in_ns web ip addr del 10.9.9.9/32 dev eth0
	tap_is "$(in_ns outside nft list ruleset | grep -o 'packets [0-9]*' | xargs)" "packets 0 packets 2" \
		"from an address beyond the network nothing passes"
	in_ns web sysctl -qw net.ipv4.conf.all.route_localnet=1
	in_ns web ip route add 127.0.0.1 via 192.168.77.1
	tap_is "$(ask web 127.0.0.1 9000)" "" "nor to the host's loopback"
	in_ns web ip route del 127.0.0.1
	run guard $LAN v-web 02:00:00:00:00:01 192.168.77.10
	tap_ok $? "an interface is held to a MAC and an address" "$(cat "$WORK/why")"
	tap_is "$(ask web $OUTSIDE 7000)" "outside $HOST" "with which it works"
	in_ns web ip addr add 192.168.77.11/24 dev eth0
	tap_is "$(in_ns web timeout 5 busybox arping -c 2 -s 192.168.77.11 -I eth0 192.168.77.1 | grep -c reply)" 0 \
		"with another address it does not"
	in_ns web ip addr del 192.168.77.11/24 dev eth0
	in_ns web ip link set eth0 address 02:00:00:00:00:99
	tap_is "$(ask web $OUTSIDE 7000)" "" "nor with another MAC"
	in_ns web ip link set eth0 address 02:00:00:00:00:01
	in_ns web ip route replace default via 192.168.77.1
	tap_is "$(ask web $OUTSIDE 7000)" "outside $HOST" "and again with its own"
}

forwards() {
	run forward $LAN tcp 0.0.0.0 8080 192.168.77.10 80 && run forward $LAN tcp $HOST 8081 192.168.77.10 80 &&
		run forward $LAN udp 0.0.0.0 8080 192.168.77.10 80
	tap_ok $? "ports are forwarded" "$(cat "$WORK/why")"
	tap_is "$(ask outside $HOST 8080)" "web $OUTSIDE" "from outside, and the machine sees who it is"
	tap_is "$(ask outside $HOST 8081)" "web $OUTSIDE" "of one address of the host's"
	tap_is "$(ask host 127.0.0.1 8080)" "web 192.168.77.1" "from the host, to 127.0.0.1"
	tap_is "$(ask host $HOST 8080)" "web $HOST" "from the host, to its address"
	tap_is "$(ask host 192.168.77.1 8080)$(ask host 127.0.0.1 8081)" "web 192.168.77.1" "only to what was said"
	tap_is "$(ask db $HOST 8080)" "web 192.168.77.1" "from its neighbour"
	tap_is "$(ask far $HOST 8080)$(ask alone $HOST 8080)" "" "and not from other networks"
	tap_is "$(ask outside $HOST 8080 udp);$(ask host 127.0.0.1 8080 udp)" "web $OUTSIDE;web 192.168.77.1" \
		"datagrams, too"
	run start $LAN
	tap_is "$(run forwards lan | sort | tr '\n' ';')" \
		"tcp 0.0.0.0 8080 192.168.77.10 80;tcp $HOST 8081 192.168.77.10 80;udp 0.0.0.0 8080 192.168.77.10 80;" \
		"a network that starts again has them"
	refused EADDRINUSE "a port twice" forward $LAN tcp $HOST 8080 192.168.77.11 80
	refused EADDRINUSE "a port of another network's" forward $TWO tcp 0.0.0.0 8081 192.168.78.100 80
	refused EINVAL "to nobody on the network" forward $LAN tcp 0.0.0.0 8082 192.168.78.10 80
	refused EINVAL "to an isolated network" forward $ISO tcp 0.0.0.0 8082 192.168.79.100 80
	run forward $LAN tcp 127.0.0.1 8083 192.168.77.10 80
	tap_is "$(ask host 127.0.0.1 8083)" "web 192.168.77.1" "of 127.0.0.1 alone, from the host"
	in_ns outside sysctl -qw net.ipv4.conf.all.route_localnet=1
	in_ns outside ip route add 127.0.0.1 via $HOST
	tap_is "$(ask outside 127.0.0.1 8083)$(ask outside 127.0.0.1 8080)" "" \
		"and not from outside, to a loopback address that is sent there"
	in_ns outside ip route del 127.0.0.1
	run unforward $LAN tcp 127.0.0.1 8083 192.168.77.10 80
	run unforward $LAN tcp 0.0.0.0 8080 192.168.77.10 80
	tap_is "$(ask outside $HOST 8080)$(ask outside $HOST 8081)" "web $OUTSIDE" "a forward ends alone"
	refused ENOENT "one that is not there" unforward $LAN tcp 0.0.0.0 8080 192.168.77.10 80
}

# Its server killed; its range another one; its mode another one.
changes() {
	tap_is "$(run watch $LAN)" ran "the server of addresses runs"
	kill -KILL "$(cat $FOLDER/lan/dnsmasq.pid)"
	tap_is "$(run watch $LAN) $(run watch $LAN)" "started ran" "killed, it is started again"
	tap_is "$(run lease $LAN 02:00:00:00:00:02) $(dhcp db)" "192.168.77.11 192.168.77.11" \
		"and knows what it knew"
	nft delete table inet moat-lan
	tap_is "$(run watch $LAN) $(run watch $LAN) $(ask web $OUTSIDE 7000)" "started ran outside $HOST" \
		"rules that somebody removed are there again"
	run unhost $LAN 02:00:00:00:00:02
	run start nat,lan,192.168.77.1,24,192.168.77.50,192.168.77.50
	tap_is "$(dhcp db)" 192.168.77.50 "a network can get another range"
	run start isolated,lan,192.168.77.1,24,192.168.77.50,192.168.77.50
	in_ns web ip route replace default via 192.168.77.1
	tap_is "$(ask web $OUTSIDE 7000)$(ask outside $HOST 8081)" "" "and be isolated"
	run start $LAN
	tap_is "$(ask web $OUTSIDE 7000)" "outside $HOST" "and be what it was"
	kill -0 $OTHER
	tap_ok $? "a dnsmasq of somebody else's is left alone"
	ip link add br-own type bridge
	run start bridge,own,br-own && run tap bridge,own,br-own t-own 1 ip -o link show dev t-own >"$WORK/out"
	tap_has "$(cat "$WORK/out")" "master br-own" "a tap on a bridge of the host's"
	refused ENODEV "a bridge that is not there" start bridge,own,br-none
	refused EINVAL "one that is none" start bridge,own,v-outside
	tap_is "$(run list | sort | xargs)" "iso lan two" "of which nothing is made"
	ip link del br-own
}

# moat-net has the tap from this tool, and with it the tap goes.
guest() {
	refused EEXIST "a tap whose name is taken" tap $LAN v-web 1 true
	run tap $LAN many 4 sh -c 'ip -o -d link show many; ls -l /proc/self/fd/' >"$WORK/out"
	tap_is "$(grep -c /dev/net/tun "$WORK/out") $(grep -o 'master moat-lan' "$WORK/out")" "4 master moat-lan" \
		"a tap of four queues"
	[ -c /dev/moat ] || { tap_skip "a guest" "there is no Moat"; return; }
	run host $LAN 02:00:00:00:00:05 guest 192.168.77.20
	"$TOOL" tap $LAN t-guest 1 moat-net --tap-fd 3 --mac 02:00:00:00:00:05 --socket "$WORK/socket" \
		>"$WORK/net" 2>&1 </dev/null &
	local net=$!
	for _ in $(seq 100); do [ ! -S "$WORK/socket" ] || break; sleep 0.1; done
	run guard $LAN t-guest 02:00:00:00:00:05 192.168.77.20
	timeout -k 5 120 vmctl run --root --device-socket "net,$WORK/socket" -- sh -c "
		busybox ip link set eth0 up
		busybox udhcpc -i eth0 -n -q -f -t 10 -T 1 -s $WORK/lease
		busybox nslookup -type=a web 192.168.77.1
		$ADDRESS_WORK ask tcp 192.168.77.10 80
		$ADDRESS_WORK ask tcp $OUTSIDE 7000
		echo ends" >"$WORK/out" 2>&1 </dev/null
	tap_has "$(cat "$WORK/out")" "lease of 192.168.77.20 obtained" "a guest gets its address"
	tap_has "$(cat "$WORK/out")" "192.168.77.10" "knows names"
	tap_is "$(sed -n '/^web /,$p' "$WORK/out" | xargs)" "web 192.168.77.20 outside $HOST ends" \
		"and reaches what it may"
	tap_is "$(run lease $LAN 02:00:00:00:00:05)" 192.168.77.20 "which is known of it"
	kill -KILL $net
	wait $net 2>/dev/null
	for _ in $(seq 50); do [ -e /sys/class/net/t-guest ] || break; sleep 0.1; done
	[ ! -e /sys/class/net/t-guest ]
	tap_ok $? "with its server, the tap goes"
}

stops() {
	run stop lan && run stop two && run stop iso
	tap_ok $? "they stop" "$(cat "$WORK/why")"
	tap_is "$(left)" "" "and nothing is left"
	run stop lan
	tap_ok $? "one that is not there stops, too" "$(cat "$WORK/why")"
	refused EINVAL "a name that is none" stop ../x
	ip link add moat-other type dummy
	refused EINVAL "an interface by such a name that is no bridge" stop other
	[ -e /sys/class/net/moat-other ]
	tap_ok $? "is left alone"
	ip link del moat-other
}

# killed MILLISECONDS ARGS...: the tool, which has that much time.
killed() {
	"$TOOL" "${@:2}" >/dev/null 2>&1 &
	sleep "0.$(printf %03d "$1")"
	kill -KILL $! 2>/dev/null && DIED=$((DIED + 1))
	wait $! 2>/dev/null
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

dies() {
	local from start stop round bad=0
	DIED=0
	from=$(now_ms); run start $LAN; start=$(($(now_ms) - from))
	from=$(now_ms); run stop lan; stop=$(($(now_ms) - from))
	for round in $(seq "$ROUNDS"); do
		killed $((RANDOM % (start + 20) % 1000)) start $LAN
		[ $((round % 3)) != 0 ] || run start $LAN || bad=1
		killed $((RANDOM % (stop + 20) % 1000)) stop lan
		[ $((round % 3)) != 1 ] || run start $LAN || bad=1
		if ! run stop lan || [ -n "$(left)" ]; then bad=1; left; cat "$WORK/why"; fi
	done >"$WORK/rounds" 2>/dev/null
	[ $bad = 0 ] && [ $DIED -ge $((ROUNDS / 2)) ]
	tap_ok $? "after kill -9, $DIED times amid starts ($start ms) and stops ($stop ms), both work and leave nothing" \
		"$(cat "$WORK/rounds")"
	kill -0 $OTHER
	tap_ok $? "the dnsmasq of somebody else's is still there"
}

set_up
starts
addresses
reaches
spoofs
forwards
changes
guest
stops
dies
tap_end
