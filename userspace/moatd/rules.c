// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Each network has tables of its own, so that making, changing and removing one concerns no rule of others', the
 * host's own among them. What a table drops is dropped, whatever others say; what it lets pass, they may drop. All
 * that is in one text happens in one step, or not at all.
 *
 * A guest reaches of the host what the network serves: addresses, names, and an answer to ping. What the
 * host has forwarded to a guest is in two maps, of the host's addresses and of any, which two rules look
 * up. For 127.0.0.1 to be one of them, the bridge routes loopback addresses (route_localnet); from guests, none
 * passes. One that comes from outside is left as it is, for the kernel to refuse: what is forwarded from
 * 127.0.0.1 is the host's alone.
 */
#include <errno.h>
#include <netinet/in.h>
#include <nftables/libnftables.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/moatd/rules.h"
#include "userspace/moatd/why.h"

/* 1: the bridge, which is also the table; 2: all its addresses; 3: its own. */
#define RULES_ALL \
"add table inet %1$s\n" \
"flush table inet %1$s\n" \
"add map inet %1$s forwards { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }\n" \
"add map inet %1$s forwards-any { type inet_proto . inet_service : ipv4_addr . inet_service; }\n" \
"add chain inet %1$s raw { type filter hook prerouting priority -300; }\n" \
"add rule inet %1$s raw iifname %1$s ip saddr != { %2$s, 0.0.0.0 } drop\n" \
"add rule inet %1$s raw iifname %1$s ip daddr 127.0.0.0/8 drop\n" \
"add chain inet %1$s input { type filter hook input priority 0; }\n" \
"add rule inet %1$s input iifname != %1$s accept\n" \
"add rule inet %1$s input ct state established,related accept\n" \
"add rule inet %1$s input ip daddr { %3$s, 255.255.255.255 } udp dport 67 accept\n" \
"add rule inet %1$s input ip daddr %3$s meta l4proto { tcp, udp } th dport 53 accept\n" \
"add rule inet %1$s input ip daddr %3$s icmp type echo-request accept\n" \
"add rule inet %1$s input drop\n" \
"add chain inet %1$s forward { type filter hook forward priority 0; }\n" \
"add rule inet %1$s forward iifname %1$s oifname %1$s accept\n"

static const char rules_isolated[] = RULES_ALL
"add rule inet %1$s forward iifname %1$s drop\n"
"add rule inet %1$s forward oifname %1$s drop\n";

static const char rules_nat[] = RULES_ALL
"add rule inet %1$s forward oifname %1$s ct state established,related accept\n"
"add rule inet %1$s forward oifname %1$s ct status dnat accept\n"
"add rule inet %1$s forward oifname %1$s drop\n"
"add rule inet %1$s forward iifname %1$s oifname \"" NETWORK_INTERFACE "*\" drop\n"
"add rule inet %1$s forward iifname %1$s meta nfproto != ipv4 drop\n"

"add chain inet %1$s forwarded\n"
"add rule inet %1$s forwarded meta l4proto { tcp, udp } fib daddr type local"
" dnat ip to ip daddr . meta l4proto . th dport map @forwards\n"
"add rule inet %1$s forwarded meta l4proto { tcp, udp } fib daddr type local"
" dnat ip to meta l4proto . th dport map @forwards-any\n"
"add chain inet %1$s prerouting { type nat hook prerouting priority -100; }\n"
"add rule inet %1$s prerouting ip daddr != 127.0.0.0/8 jump forwarded\n"
"add chain inet %1$s output { type nat hook output priority -100; }\n"
"add rule inet %1$s output jump forwarded\n"

"add chain inet %1$s postrouting { type nat hook postrouting priority 100; }\n"
"add rule inet %1$s postrouting ip saddr %2$s oifname != { %1$s, lo } masquerade\n"
"add rule inet %1$s postrouting ip saddr %2$s oifname %1$s ct status dnat masquerade\n"
"add rule inet %1$s postrouting ip saddr 127.0.0.0/8 oifname %1$s masquerade\n";

/* 1: the table, 2: the tap, 3: its MAC. */
#define RULES_TAP \
"add table bridge %1$s\n" \
"add map bridge %1$s taps { type ifname : verdict; }\n" \
"add chain bridge %1$s prerouting { type filter hook prerouting priority -300; }\n" \
"flush chain bridge %1$s prerouting\n" \
"add rule bridge %1$s prerouting iifname vmap @taps\n" \
"add chain bridge %1$s tap-%2$s\n" \
"flush chain bridge %1$s tap-%2$s\n" \
"add rule bridge %1$s tap-%2$s ether saddr != %3$s drop\n" \
"add rule bridge %1$s tap-%2$s meta protocol != { ip, arp, ip6 } drop\n" \
"add rule bridge %1$s tap-%2$s arp saddr ether != %3$s drop\n" \
"add rule bridge %1$s tap-%2$s udp sport { 67, 547 } drop\n" \
"add rule bridge %1$s tap-%2$s icmpv6 type nd-router-advert drop\n" \
"add element bridge %1$s taps { \"%2$s\" : jump tap-%2$s }\n"

/* And 4: its address. */
static const char rules_tap[] = RULES_TAP;

static const char rules_tap_address[] = RULES_TAP
"add rule bridge %1$s tap-%2$s arp saddr ip != { %4$s, 0.0.0.0 } drop\n"
"add rule bridge %1$s tap-%2$s ip saddr != { %4$s, 0.0.0.0 } drop\n";

/* Each is made first, so that it can be removed. */
static const char rules_gone[] =
"add table inet %1$s\n"
"delete table inet %1$s\n"
"add table bridge %1$s\n"
"delete table bridge %1$s\n";

/* @ret_text: what nftables says, to be freed; NULL: of no interest. */
static int nft_run(const char *text, char **ret_text, char *why)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	int err = 0;

	if (!nft)
		return why_say(why, -ENOMEM, "no memory for nftables");
	nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_NUMERIC_ALL);
	if (nft_ctx_buffer_output(nft) || nft_ctx_buffer_error(nft))
		err = why_say(why, -ENOMEM, "no memory for nftables");
	else if (nft_run_cmd_from_buffer(nft, text))
		err = why_say(why, -EIO, "nftables: %s", nft_ctx_get_error_buffer(nft));
	else if (ret_text && !(*ret_text = strdup(nft_ctx_get_output_buffer(nft))))
		err = why_say(why, -ENOMEM, "no memory for what nftables says");
	nft_ctx_free(nft);
	return err;
}

static int __attribute__((format(printf, 3, 4))) nft_do(char *why, char **ret_text,
								const char *format, ...)
{
	va_list args;
	char *text;
	int err;

	va_start(args, format);
	err = vasprintf(&text, format, args);
	va_end(args);
	if (err < 0)
		return why_say(why, -ENOMEM, "no memory for rules");
	err = nft_run(text, ret_text, why);
	free(text);
	return err;
}

int rules_set(const struct network_spec *spec, char *why)
{
	const struct network_text bridge = network_interface(spec->name);
	char subnet[24];

	snprintf(subnet, sizeof(subnet), "%s/%u", network_text(spec->address & network_mask(spec->prefix)).text,
		 spec->prefix);
	return nft_do(why, NULL, spec->mode == NETWORK_NAT ? rules_nat : rules_isolated, bridge.text, subnet,
		      network_text(spec->address).text);
}

bool rules_there(const char *name)
{
	char ignored[WHY_SIZE];

	return !nft_do(ignored, NULL, "list chain inet %s forward", network_interface(name).text);
}

int rules_remove(const char *name, char *why)
{
	return nft_do(why, NULL, rules_gone, network_interface(name).text);
}

int rules_guard(const char *name, const char *tap, const uint8_t *mac, uint32_t address, char *why)
{
	const struct network_text table = network_interface(name);

	if (!address)
		return nft_do(why, NULL, rules_tap, table.text, tap, network_mac_text(mac).text);
	return nft_do(why, NULL, rules_tap_address, table.text, tap, network_mac_text(mac).text,
		      network_text(address).text);
}

/* @what: "add", "delete". To delete, nftables has to be told both sides of the map. */
static int forward_do(const char *what, const char *name, const struct network_forward *forward, char *why)
{
	const bool any = !forward->host_address;

	return nft_do(why, NULL, "%s element inet " NETWORK_INTERFACE "%s forwards%s { %s%s%u . %u : %s . %u }",
		      what, name, any ? "-any" : "", any ? "" : network_text(forward->host_address).text,
		      any ? "" : " . ", forward->protocol, forward->host_port,
		      network_text(forward->guest_address).text, forward->guest_port);
}

int rules_forward(const char *name, const struct network_forward *forward, char *why)
{
	return forward_do("add", name, forward, why);
}

int rules_forward_remove(const char *name, const struct network_forward *forward, char *why)
{
	return forward_do("delete", name, forward, why);
}

/* Takes an address from @text, as far as there is one. */
static const char *read_address(const char *text, uint32_t *ret)
{
	unsigned int a, b, c, d;
	int used = 0;

	if (sscanf(text, " %u.%u.%u.%u%n", &a, &b, &c, &d, &used) != 4)
		return NULL;
	*ret = a << 24 | b << 16 | c << 8 | d;
	return text + used;
}

/* Takes one element of a map, "ADDRESS . 6 . 80 : ADDRESS . 80"; of that for any address, without the first. */
static const char *read_forward(const char *text, bool any, struct network_forward *forward)
{
	int used = 0;

	*forward = (struct network_forward){ 0 };
	if (!any) {
		text = read_address(text, &forward->host_address);
		if (!text || strncmp(text, " . ", 3))
			return NULL;
		text += 3;
	}
	if (sscanf(text, " %u . %u :%n", &forward->protocol, &forward->host_port, &used) != 2 || !used)
		return NULL;
	text = read_address(text + used, &forward->guest_address);
	used = 0;
	if (!text || sscanf(text, " . %u%n", &forward->guest_port, &used) != 1)
		return NULL;
	return text + used;
}

/* Adds those of one map to @count. */
static int forwards_add(const char *name, bool any, struct network_forward *forwards, unsigned int max,
			unsigned int *count, char *why)
{
	struct network_forward forward;
	const char *at;
	char *text;
	int err = nft_do(why, &text, "list map inet " NETWORK_INTERFACE "%s forwards%s", name, any ? "-any" : "");

	if (err)
		return err;
	at = strstr(text, "elements = {");
	at = at ? at + strlen("elements = {") : NULL;
	while (at && (at = read_forward(at, any, &forward))) {
		if (*count < max)
			forwards[*count] = forward;
		++*count;
		at = *at == ',' ? at + 1 : NULL;
	}
	free(text);
	return 0;
}

int rules_forwards(const char *name, struct network_forward *forwards, unsigned int max, char *why)
{
	unsigned int count = 0;
	int err = forwards_add(name, false, forwards, max, &count, why);

	if (!err)
		err = forwards_add(name, true, forwards, max, &count, why);
	return err ? err : (int)count;
}

/* @line: "table FAMILY NAME". */
static int table_each(const char *line, int (*each)(void *context, const char *name), void *context)
{
	char name[NETWORK_NAME_SIZE];

	if (sscanf(line, "table %*s " NETWORK_INTERFACE "%11s", name) != 1 || !network_name_valid(name))
		return 0;
	return each(context, name);
}

int rules_list(int (*each)(void *context, const char *name), void *context, char *why)
{
	char *text, *rest, *line;
	int err = nft_do(why, &text, "list tables");

	if (err)
		return err;
	for (line = strtok_r(text, "\n", &rest); line && !err; line = strtok_r(NULL, "\n", &rest))
		err = table_each(line, each, context);
	free(text);
	return err;
}
