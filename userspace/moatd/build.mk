# SPDX-License-Identifier: MIT OR GPL-2.0
# moatd.

MOATD_SRCS := $(filter-out %_test.c,$(wildcard userspace/moatd/*.c))
MOATD_OBJS := $(MOATD_SRCS:%.c=$(B)/obj/%.o)
MOATD_LIBS = -lsystemd -ljson-c -lyaml $(NETWORK_LIBS) $(DISK_LIBS)

PROGRAMS += $(B)/bin/moatd

# The interface's text becomes a C string.
$(B)/obj/userspace/moatd/org.moat.varlink.h: userspace/moatd/org.moat.varlink
	@mkdir -p $(@D)
	{ echo 'static const char api_description[] ='; \
	  sed 's/["\\]/\\&/g; s/.*/"&\\n"/' $<; echo ';'; } >$@

$(B)/obj/userspace/moatd/api.o: $(B)/obj/userspace/moatd/org.moat.varlink.h
$(B)/obj/userspace/moatd/api.o: CFLAGS += -I$(B)/obj/userspace/moatd

$(B)/bin/moatd: $(MOATD_OBJS) $(B)/obj/userspace/qemu/tool.o $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -pthread $(MOATD_LIBS)

# The unprivileged half under the sanitizers, with strangers for clients and a keeper that answers at random.
API_SRCS := $(addprefix userspace/moatd/,api.c api_attach.c api_disk.c api_network.c control.c definition.c keep.c \
	machine.c network_check.c network_definition.c networks.c schema.c store.c varlink.c why.c)
UNIT_TESTS += $(B)/unit/api_test

$(B)/unit/api_test: $(addprefix selftests/moatd/,api_test.c api_world.c api_world.h) $(API_SRCS) $(LIB_SRCS) \
		$(wildcard userspace/moatd/*.h) selftests/unit/unit.h $(B)/obj/userspace/moatd/org.moat.varlink.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -I$(B)/obj/userspace/moatd -pthread -o $@ $(filter %.c,$^) \
		-lsystemd -ljson-c -lyaml

-include $(MOATD_OBJS:.o=.d)
