# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Tests for the lab: static programs at a fixed address, since a guest runs a copy of their image (lib/guest.h).

include selftests/unit/build.mk
include selftests/abi/build.mk
include selftests/vhost/build.mk

LAB_C := sys_ioctls vm_ioctls memory_slots paging dirty_log dirty_ring regs state exits mmio interrupts lapic \
	irqchip pit irqfd ioeventfd x2apic pv_eoi paravirt vapic cpuid_msr user_msr task_switch mce debug fpu_switch \
	stress scale hostile window
# What is of userspace runs on one kernel: there is time for no more.
LAB_SH_6_1 := vmctl_run vmctl_boot vmctl_disk vmctl_vhost vmctl_supervisor vmctl_devices vmctl_attack vmctl_root \
	vmctl_balloon vmctl_errors vmctl_user_net
LAB_SH_6_12 := vmctl_control vmctl_moatd moatd_network moatd_disk moatd_parts
# By hand, each in a host of its own (scripts/lab -- build/selftests/NAME): they take too long, or want a host to themselves.
LAB_SH_ALONE := moatd_kills moatd_guests moatd_limits moatd_life package
LAB_SH := module_reload $(LAB_SH_6_1) $(LAB_SH_6_12)

LAB_DIR := $(B)/selftests
LAB_CFLAGS := -fno-pie -mno-red-zone -mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
	-fno-tree-loop-distribute-patterns -Iselftests/lib
LAB_LDFLAGS := -static -no-pie -Wl,-z,noexecstack -pthread
LAB_LIB := $(LAB_DIR)/lib/guest.o $(LAB_DIR)/lib/payload.o $(LAB_DIR)/lib/tap.o $(LAB_DIR)/lib/writer.o

LAB_TESTS += $(addprefix $(LAB_DIR)/,$(LAB_C) $(LAB_SH))
LAB_TESTS_6_1 := $(addprefix $(LAB_DIR)/,$(LAB_SH_6_1))
LAB_TESTS_6_12 := $(addprefix $(LAB_DIR)/,$(LAB_SH_6_12))
LAB_HELPERS := bench_boot bench_disk bench_exits bench_net bench_irqchip spin

$(LAB_DIR)/%.o: selftests/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LAB_CFLAGS) -c -o $@ $<

$(addprefix $(LAB_DIR)/,$(LAB_C) $(LAB_HELPERS)): $(LAB_DIR)/%: $(LAB_DIR)/%.o $(LAB_LIB)
	$(CC) $(LAB_LDFLAGS) -o $@ $^

# Scripts are complete in themselves: what they source is put in its place.
SHELL_LIB := $(wildcard selftests/lib/*.sh)
define script_with_lib
@mkdir -p $(@D)
sed -e 's,^\. \(selftests/lib/[a-z]*\.sh\)$$,cat \1,e' $< > $@
chmod +x $@
endef

$(addprefix $(LAB_DIR)/,$(LAB_SH) $(LAB_SH_ALONE)): $(LAB_DIR)/%: selftests/%.sh $(SHELL_LIB)
	$(script_with_lib)

# The fuzzer of the node is a program of its own: no guest runs a copy of it. The test is the script
# that judges what became of the host.
FUZZ_OBJS := $(addprefix $(LAB_DIR)/,node_fuzz.o fuzz/calls.o fuzz/code.o fuzz/rng.o fuzz/steps.o \
	fuzz/world.o)

$(FUZZ_OBJS): LAB_CFLAGS :=

$(LAB_DIR)/node_fuzz: $(FUZZ_OBJS)
	$(CC) -static -pthread -o $@ $^

$(LAB_DIR)/node_fuzz.sh: selftests/node_fuzz.sh $(SHELL_LIB) $(LAB_DIR)/node_fuzz \
		$(LAB_DIR)/exits
	$(script_with_lib)

LAB_TESTS += $(LAB_DIR)/node_fuzz.sh

# The emulated Intel host is slower, has one CPU, and takes its time where tests measure theirs: what
# races for some seconds is left to the other.
INTEL_TESTS := $(addprefix $(LAB_DIR)/,$(filter-out dirty_log dirty_ring irqfd ioeventfd pv_eoi stress \
	module_reload vmctl_disk vmctl_vhost vmctl_supervisor vmctl_devices vmctl_attack vmctl_root vmctl_balloon \
	vmctl_user_net $(LAB_SH_6_12),$(LAB_C) $(LAB_SH)))

# Kernels to boot: a multiboot one, by ELF and by its own addresses; and the lab's as an ELF file.
$(LAB_DIR)/multiboot_elf_0 $(LAB_DIR)/multiboot_elf_1: $(LAB_DIR)/multiboot_elf_%: selftests/boot/multiboot.S
	@mkdir -p $(@D)
	$(CC) -m32 -nostdlib -static -no-pie \
		-Wl,-Ttext=0x100000,--build-id=none,-N,--no-warn-rwx-segments -Wa,--defsym,ADDRESSES=$* \
		-o $@ $<

$(LAB_DIR)/multiboot: $(LAB_DIR)/multiboot_elf_0
	cp $< $@

$(LAB_DIR)/multiboot_flat: $(LAB_DIR)/multiboot_elf_1
	objcopy -O binary $< $@

$(LAB_DIR)/vmlinux: selftests/boot/vmlinux.sh $(firstword $(wildcard $(B)/cache/kernel-*/vmlinuz))
	@mkdir -p $(@D)
	$^ >$@

# A script that runs another program of the tests has it built.
$(LAB_DIR)/vmctl_boot: $(addprefix $(LAB_DIR)/,multiboot multiboot_flat vmlinux)
$(LAB_DIR)/moatd_life: $(LAB_DIR)/multiboot
$(LAB_DIR)/moatd_disk: $(LAB_DIR)/moatd/disk_tool $(B)/bin/moat-qcow2
$(LAB_DIR)/vmctl_supervisor: $(LAB_DIR)/vhost/poison_device
$(LAB_DIR)/vmctl_control: $(LAB_DIR)/multiboot $(LAB_DIR)/control/client $(B)/bin/moat-blk $(B)/bin/moat-fs $(B)/bin/moat-net

$(LAB_DIR)/control/client: selftests/control/client.c include/moat/control.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) -o $@ $<

$(LAB_DIR)/vmctl_attack: $(LAB_DIR)/vhost/attack_device $(LAB_DIR)/vhost/attack_guest
$(LAB_DIR)/module_reload: $(LAB_DIR)/spin $(LAB_DIR)/exits
$(LAB_DIR)/vmctl_devices: $(addprefix $(LAB_DIR)/vhost/,net_work vsock_work) $(addprefix $(B)/bin/moat-,fs net rng vsock)

-include $(wildcard $(LAB_DIR)/*.d $(LAB_DIR)/lib/*.d $(LAB_DIR)/fuzz/*.d)
