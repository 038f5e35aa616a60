// SPDX-License-Identifier: MIT OR GPL-2.0
/* What a network may be, and what dnsmasq's leases may say. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/moatd/network.h"
#include "userspace/moatd/why.h"

#define NET		0xc0a84d00U	/* 192.168.77.0 */
#define NOW		1000000
#define FUZZ_ROUNDS	200000

static const struct network_spec good = {
	.name = "lan", .mode = NETWORK_NAT, .address = NET + 1, .prefix = 24, .dhcp_first = NET + 100,
	.dhcp_last = NET + 200,
};

static const uint8_t mac[6] = { 2, 0, 0, 0, 0xab, 1 };

static bool refused(struct network_spec spec)
{
	char why[WHY_SIZE] = "";

	return network_check(&spec, why) == -EINVAL && *why && strlen(why) < WHY_SIZE;
}

#define WITH(member, value) ({ struct network_spec spec_ = good; spec_.member = (value); spec_; })

static struct network_spec named(const char *name)
{
	struct network_spec spec = good;

	memset(spec.name, 'x', sizeof(spec.name));
	memcpy(spec.name, name, strnlen(name, sizeof(spec.name) - 1) + 1);
	return spec;
}

static void test_names(void)
{
	char why[WHY_SIZE], longest[65];
	struct network_spec spec = named("a123456-90");

	EXPECT(!network_check(&spec, why));
	EXPECT(refused(named("a123456-90x")) && refused(named("")) && refused(named("1a")));
	EXPECT(refused(named("-a")) && refused(named("a/b")) && refused(named("a b")) && refused(named("a\nb")));
	EXPECT(refused(named("a.b")) && refused(named("\303\244")) && refused(named("a\"")));
	memset(spec.name, 'a', sizeof(spec.name));
	EXPECT(refused(spec));
	EXPECT(strlen(network_interface("a123456-90").text) == IFNAMSIZ - 1);
	EXPECT(network_host_name_valid("web") && network_host_name_valid("Web-2"));
	EXPECT(!network_host_name_valid("infinite") && !network_host_name_valid("Ignore"));
	EXPECT(!network_host_name_valid("web-") && !network_host_name_valid("a,b") && !network_host_name_valid(""));
	memset(longest, 'a', 64);
	longest[64] = '\0';
	EXPECT(!network_host_name_valid(longest) && network_host_name_valid(longest + 1));
	EXPECT(network_tap_name_valid("tap0") && network_tap_name_valid("a_b.c-d") && !network_tap_name_valid("a/b"));
	EXPECT(!network_tap_name_valid("moat-lan") && !network_tap_name_valid("a123456789012345"));
	EXPECT(network_tap_name_valid("a12345678901234") && !network_tap_name_valid("a\""));
	EXPECT(network_mac_valid(mac) && !network_mac_valid((uint8_t[]){ 1, 0, 0, 0, 0, 1 }) &&
	       !network_mac_valid((uint8_t[6]){ 0 }));
}

static void test_addresses(void)
{
	char why[WHY_SIZE];

	EXPECT(!network_check(&good, why));
	EXPECT(refused(WITH(prefix, 15)) && refused(WITH(prefix, 31)) && refused(WITH(prefix, 0)) &&
	       refused(WITH(prefix, 33)) && refused(WITH(prefix, ~0U)));
	EXPECT(refused(WITH(address, NET)) && refused(WITH(address, NET + 255)) && refused(WITH(address, 0)));
	for (unsigned int i = 0; i < 256; i++) {
		const uint32_t base = i << 24 | 0xa84d00;
		const struct network_spec spec = {
			.name = "a", .address = base + 1, .prefix = 24, .dhcp_first = base + 2,
			.dhcp_last = base + 254,
		};

		EXPECT(!!network_check(&spec, why) == (!i || i == 127 || i >= 224));
	}
	EXPECT(refused(WITH(mode, NETWORK_MODES)) && refused(WITH(mode, ~0U)) && refused(WITH(bridge[0], 'b')));
}

static void test_ranges(void)
{
	char why[WHY_SIZE];
	struct network_spec spec = WITH(dhcp_last, NET + 254);

	EXPECT(!network_check(&spec, why));
	EXPECT(refused(WITH(dhcp_last, NET + 255)) && refused(WITH(dhcp_last, NET + 256)));
	EXPECT(refused(WITH(dhcp_first, NET)) && refused(WITH(dhcp_first, NET - 1)) && refused(WITH(dhcp_first, 0)));
	EXPECT(refused(WITH(dhcp_first, NET + 201)) && refused(WITH(dhcp_first, NET + 1)));
	EXPECT(refused(WITH(address, NET + 150)) && refused(WITH(address, NET + 100)) &&
	       refused(WITH(address, NET + 200)));
	spec = WITH(dhcp_first, NET + 200);
	EXPECT(!network_check(&spec, why));
	spec = (struct network_spec){ .name = "a", .address = NET + 1, .prefix = 30, .dhcp_first = NET + 2,
				      .dhcp_last = NET + 2 };
	EXPECT(!network_check(&spec, why));
	EXPECT(network_has(&good, NET + 2) && !network_has(&good, NET + 1) && !network_has(&good, NET));
	EXPECT(!network_has(&good, NET + 255) && !network_has(&good, NET + 256 + 2));
	EXPECT(network_overlap(NET + 1, 24, NET + 200, 32) && network_overlap(NET, 24, 0xc0a80000, 16));
	EXPECT(!network_overlap(NET, 24, NET + 256, 24) && network_overlap(NET, 24, 0x01020304, 0));
}

static void test_bridge_of_the_host(void)
{
	char why[WHY_SIZE];
	struct network_spec spec = { .name = "a", .mode = NETWORK_BRIDGE, .bridge = "br0" };

	EXPECT(!network_check(&spec, why));
	spec.address = 1;
	EXPECT(refused(spec));
	spec.address = 0;
	strcpy(spec.bridge, "../x");
	EXPECT(refused(spec));
	memset(spec.bridge, 'b', sizeof(spec.bridge));
	EXPECT(refused(spec));
	spec.bridge[0] = '\0';
	EXPECT(refused(spec));
}

static void test_forwards(void)
{
	const struct network_forward forward = { IPPROTO_TCP, 0, 80, NET + 10, 8080 };
	const struct network_spec isolated = WITH(mode, NETWORK_ISOLATED);
	struct network_forward other = forward;
	char why[WHY_SIZE];

	EXPECT(!network_forward_check(&good, &forward, why));
	EXPECT(network_forward_check(&isolated, &forward, why) == -EINVAL);
	EXPECT(network_forward_clash(&forward, &other));
	other.host_address = 0x0a000001;
	EXPECT(!network_forward_check(&good, &other, why) && network_forward_clash(&forward, &other));
	EXPECT(!network_forward_clash(&other, &(struct network_forward){ IPPROTO_TCP, 0x0a000002, 80, 0, 0 }));
	other.host_address = 0x7f000001;
	EXPECT(!network_forward_check(&good, &other, why));
	other.host_address = 0xe0000001;
	EXPECT(network_forward_check(&good, &other, why) == -EINVAL);
	other = forward;
	other.protocol = IPPROTO_UDP;
	EXPECT(!network_forward_check(&good, &other, why) && !network_forward_clash(&forward, &other));
	other.protocol = IPPROTO_ICMP;
	EXPECT(network_forward_check(&good, &other, why) == -EINVAL);
	for (unsigned int i = 0; i < 2; i++) {
		static const uint32_t ports[] = { 0, 65536, ~0U };

		for (unsigned int j = 0; j < ARRAY_SIZE(ports); j++) {
			other = forward;
			*(i ? &other.host_port : &other.guest_port) = ports[j];
			EXPECT(network_forward_check(&good, &other, why) == -EINVAL);
		}
	}
	other = forward;
	other.guest_address = NET + 1;
	EXPECT(network_forward_check(&good, &other, why) == -EINVAL);
	other.guest_address = NET + 256;
	EXPECT(network_forward_check(&good, &other, why) == -EINVAL);
}

/* The last byte of the address; or 0. */
static uint32_t lease(const char *line)
{
	uint32_t address = 0;

	return network_lease_read(line, &good, mac, NOW, &address) ? address - NET : 0;
}

static void test_leases(void)
{
	static const char *const bad[] = {
		"", "\n", "1000001 02:00:00:00:ab:01 192.168.77.10 web *",
		"1000000 02:00:00:00:ab:01 192.168.77.10 web *\n", "-5 02:00:00:00:ab:01 192.168.77.10 web *\n",
		"1000001 02:00:00:00:ab:02 192.168.77.10 web *\n", "1000001 02:00:00:00:ab:01 192.168.77.1 web *\n",
		"1000001 02:00:00:00:ab:01 192.168.77.0 web *\n", "1000001 02:00:00:00:ab:01 192.168.77.255 web *\n",
		"1000001 02:00:00:00:ab:01 192.168.78.10 web *\n", "1000001 02:00:00:00:ab:01 192.168.77.999 web *\n",
		"1000001 02:00:00:00:ab:01 192.168.77.266 web *\n", "1000001 02:00:00:00:ab:01 192.168.77.10\n",
		"1000001 02:00:00:00:ab:01 192.168.77.1000 web *\n", "1000001 02:00:00:00:ab:01 192.168.77.10x web *\n",
		"1000001 02:00:00:00:ab:01 192.168.77.-9 web *\n", "duid 00:01:00:01:2c:e9\n",
		"1000001 06-02:00:00:00:ab:01 192.168.77.10 web *\n", "x 02:00:00:00:ab:01 192.168.77.10 web *\n",
		"99999999999999999999999999 02:00:00:00:ab:01 192.168.77.10 web *\n",
	};

	EXPECT(lease("1000001 02:00:00:00:ab:01 192.168.77.10 web *\n") == 10);
	EXPECT(lease("0 02:00:00:00:AB:01 192.168.77.254 * 01:02:00:00:00:ab:01\n") == 254);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		if (!EXPECT(!lease(bad[i])))
			printf("# %s", bad[i]);
}

/* A line with bytes changed, cut or doubled is one of the network, or none. */
static void test_leases_random(void)
{
	static const char line[] = "1000001 02:00:00:00:ab:01 192.168.77.10 web 01:02:00:00:00:ab:01\n";
	unsigned int found = 0;

	srand(1);
	for (unsigned int i = 0; i < FUZZ_ROUNDS; i++) {
		/* To the byte, so that the sanitizer sees what is read after it. */
		const size_t len = rand() % 8 ? strlen(line) : rand() % strlen(line);
		char *text = strndup(line, len);
		uint32_t address;

		for (int n = rand() % 4; n && len; n--)
			text[rand() % len] = rand() % 4 ? "0123456789 .:-*\n"[rand() % 16] : rand();
		if (network_lease_read(text, &good, mac, NOW, &address)) {
			found++;
			EXPECT(network_has(&good, address));
		}
		free(text);
	}
	EXPECT(found > FUZZ_ROUNDS / 8 && found < FUZZ_ROUNDS);
}

static const struct unit_test tests[] = {
	{ "names", test_names },
	{ "addresses", test_addresses },
	{ "ranges", test_ranges },
	{ "a bridge of the host's", test_bridge_of_the_host },
	{ "forwards", test_forwards },
	{ "leases", test_leases },
	{ "random leases", test_leases_random },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
