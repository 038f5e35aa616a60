# SPDX-License-Identifier: MIT OR GPL-2.0
# The launcher of machines with firmware, by QEMU.

QEMU_LAUNCHER_SRCS := $(wildcard userspace/qemu_launcher/*.c)
QEMU_LAUNCHER_OBJS := $(QEMU_LAUNCHER_SRCS:%.c=$(B)/obj/%.o)
QEMU_LAUNCHER_SHARED := $(addprefix $(B)/obj/userspace/,vmm/control.o vmm/stop.o vmm/terminals.o qemu/tool.o)

PROGRAMS += $(B)/bin/moat-qemu

$(B)/bin/moat-qemu: $(QEMU_LAUNCHER_OBJS) $(QEMU_LAUNCHER_SHARED) $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -pthread -ljson-c $(SANDBOX_LIBS)

-include $(QEMU_LAUNCHER_OBJS:.o=.d)

UNIT_TESTS += $(B)/unit/qmp_test

$(B)/unit/qmp_test: selftests/unit/qmp_test.c userspace/qemu_launcher/qmp.c $(LIB_SRCS) \
		$(wildcard userspace/qemu_launcher/*.h userspace/lib/*.h) selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^) -pthread -ljson-c
