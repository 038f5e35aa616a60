# SPDX-License-Identifier: MIT OR GPL-2.0
# vmctl, and moat-init, which it puts into guests: static, since nothing else is sure to be there.

VMCTL_SRCS := $(wildcard userspace/vmctl/*.c)
# A definition is put together here by the same code as moatd reads it with.
VMCTL_OBJS := $(VMCTL_SRCS:%.c=$(B)/obj/%.o) \
	$(addprefix $(B)/obj/userspace/moatd/,definition.o schema.o network_definition.o network_check.o why.o)
INIT_SRCS := $(wildcard userspace/init/*.c)
INIT_OBJS := $(INIT_SRCS:%.c=$(B)/obj/%.o)
INIT_SHARED := $(B)/obj/userspace/init/channel.o $(B)/obj/userspace/init/stream.o

PROGRAMS += $(B)/bin/vmctl $(B)/bin/moat-init

$(B)/bin/vmctl: $(VMCTL_OBJS) $(INIT_SHARED) $(LIB_OBJS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -llzma -lzstd -lz -ljson-c -lyaml

$(B)/bin/moat-init: $(INIT_OBJS) $(LIB_OBJS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -s -Wl,--gc-sections -o $@ $^

-include $(VMCTL_OBJS:.o=.d) $(INIT_OBJS:.o=.d)
