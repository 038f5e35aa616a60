# SPDX-License-Identifier: MIT OR GPL-2.0
# Disks: the part of moatd that keeps them, and QEMU's programs for qcow2 images in a sandbox.

QEMU_SRCS := $(wildcard userspace/qemu/*.c)
QEMU_OBJS := $(QEMU_SRCS:%.c=$(B)/obj/%.o)
TOOL_OBJ := $(B)/obj/userspace/qemu/tool.o

PROGRAMS += $(B)/bin/moat-qcow2

$(B)/bin/moat-qcow2: $(QEMU_OBJS) $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -pthread $(SANDBOX_LIBS)

-include $(QEMU_OBJS:.o=.d)
