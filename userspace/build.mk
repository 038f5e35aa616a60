# SPDX-License-Identifier: MIT OR GPL-2.0
# Programs of Moat's that run on the host, and their unit tests.

LIB_SRCS := $(filter-out %/sandbox.c,$(wildcard userspace/lib/*.c))
LIB_OBJS := $(LIB_SRCS:%.c=$(B)/obj/%.o)

# Apart from the others for the libraries that it takes.
SANDBOX_OBJ := $(B)/obj/userspace/lib/sandbox.o
SANDBOX_LIBS := -lseccomp -lcap-ng

VMM_SRCS := $(filter-out %_test.c,$(wildcard userspace/vmm/*.c))
VMM_OBJS := $(VMM_SRCS:%.c=$(B)/obj/%.o)

PROGRAMS += $(B)/bin/moat-vmm

$(B)/obj/userspace/%.o: userspace/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

# The machine's DSDT becomes a C array. The preprocessor gives it the addresses of layout.h.
$(B)/obj/userspace/vmm/dsdt.hex: userspace/vmm/dsdt.asl userspace/vmm/layout.h
	@mkdir -p $(@D)
	$(CC) -E -P -x c -I. -o $(@D)/dsdt.i $<
	iasl -vs -va -tc -p $(@:.hex=) $(@D)/dsdt.i >$(@D)/dsdt.log || { cat $(@D)/dsdt.log; exit 1; }

$(B)/obj/userspace/vmm/acpi.o: $(B)/obj/userspace/vmm/dsdt.hex
$(B)/obj/userspace/vmm/acpi.o: CFLAGS += -I$(B)/obj/userspace/vmm

$(B)/bin/moat-vmm: $(VMM_OBJS) $(LIB_OBJS) $(SANDBOX_OBJ) $(B)/obj/devmodel.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -pthread $(URING) $(SANDBOX_LIBS)

# A unit test is NAME_test.c beside NAME.c, linked with what it tests and nothing that needs a node.
VMM_TESTS := virtio_pci serial ioapic boot boot_pvh boot_multiboot
BOOT_SRC := $(filter-out %_test.c,$(wildcard userspace/vmm/boot*.c)) userspace/vmm/memory.c
UNIT_TESTS += $(VMM_TESTS:%=$(B)/unit/%_test)

$(B)/unit/virtio_pci_test: $(addprefix userspace/vmm/,virtio_pci.c pci.c msix.c bus.c memory.c)
$(B)/unit/serial_test: $(addprefix userspace/vmm/,serial.c terminals.c bus.c)
$(B)/unit/ioapic_test: $(addprefix userspace/vmm/,ioapic.c bus.c)
$(addprefix $(B)/unit/,boot_test boot_pvh_test boot_multiboot_test): $(BOOT_SRC)
$(VMM_TESTS:%=$(B)/unit/%_test): $(B)/unit/%_test: userspace/vmm/%_test.c $(LIB_SRCS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -MF $@.d -MT $@ -o $@ $(filter %.c,$^) -pthread

-include $(VMM_TESTS:%=$(B)/unit/%_test.d)
-include $(LIB_OBJS:.o=.d) $(SANDBOX_OBJ:.o=.d) $(VMM_OBJS:.o=.d)
-include userspace/vmctl/build.mk
-include userspace/moatd/build.mk
-include userspace/moatd/network.mk
-include userspace/moatd/disk.mk
-include userspace/qemu_launcher/build.mk
