# SPDX-License-Identifier: MIT OR GPL-2.0
# The networks of machines: NETWORK_OBJS and NETWORK_LIBS are for who links them.

NETWORK_SRCS := $(addprefix userspace/moatd/,network.c network_check.c bridge.c rules.c dnsmasq.c why.c)
NETWORK_OBJS := $(NETWORK_SRCS:%.c=$(B)/obj/%.o)
NETWORK_LIBS := -lnl-route-3 -lnl-3 -lnftables

$(B)/obj/userspace/moatd/bridge.o: CFLAGS += -isystem /usr/include/libnl3

UNIT_TESTS += $(B)/unit/network_test

$(B)/unit/network_test: userspace/moatd/network_test.c $(addprefix userspace/moatd/,network_check.c why.c)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -MF $@.d -MT $@ -o $@ $(filter %.c,$^)

# Each function of network.h as a command, for the lab test.
NETWORK_TOOL := $(B)/selftests/moatd/network_tool

$(NETWORK_TOOL): selftests/moatd/network_tool.c $(NETWORK_OBJS) $(LIB_OBJS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ $(NETWORK_LIBS)

# Runs in guests, too.
$(B)/selftests/moatd/address_work: selftests/moatd/address_work.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -o $@ $<

$(B)/selftests/vmctl_user_net: $(B)/selftests/moatd/address_work $(B)/bin/moat-net
$(B)/selftests/moatd_network: $(NETWORK_TOOL) $(B)/selftests/moatd/address_work $(B)/bin/moat-net

-include $(NETWORK_OBJS:.o=.d) $(B)/unit/network_test.d $(wildcard $(B)/selftests/moatd/*.d)
