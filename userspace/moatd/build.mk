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

-include $(MOATD_OBJS:.o=.d)
