# SPDX-License-Identifier: MIT OR GPL-2.0
# Disks: the part of moatd that keeps them, and QEMU's programs for qcow2 images in a sandbox.

# Who links DISK_OBJS takes LIB_OBJS, SANDBOX_OBJ and DISK_LIBS, too.
DISK_SRCS := $(addprefix userspace/moatd/,disk.c disk_file.c image.c seed.c snapshot.c) userspace/qemu/tool.c
DISK_OBJS := $(DISK_SRCS:%.c=$(B)/obj/%.o)
DISK_LIBS := -lisofs $(SANDBOX_LIBS)

QEMU_SRCS := $(wildcard userspace/qemu/*.c)
QEMU_OBJS := $(QEMU_SRCS:%.c=$(B)/obj/%.o)

PROGRAMS += $(B)/bin/moat-qcow2

$(B)/bin/moat-qcow2: $(QEMU_OBJS) $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -pthread $(SANDBOX_LIBS)

# A program of the tests that does with disks what its arguments say.
DISK_TOOL := $(B)/selftests/moatd/disk_tool

$(DISK_TOOL): selftests/moatd/disk_tool.c $(DISK_OBJS) $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MF $@.d -MT $@ -o $@ $(filter %.c %.o,$^) -pthread $(DISK_LIBS)

UNIT_TESTS += $(B)/unit/disk_test

$(B)/unit/disk_test: selftests/unit/disk_test.c $(DISK_SRCS) userspace/lib/sandbox.c $(LIB_SRCS) \
		$(wildcard $(addsuffix /*.h,userspace/lib userspace/moatd userspace/qemu)) selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^) -pthread $(DISK_LIBS)

-include $(QEMU_OBJS:.o=.d) $(DISK_OBJS:.o=.d) $(DISK_TOOL).d
