# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Device programs behind a stock QEMU; run on this machine, like unit tests, since that QEMU needs no
# hypervisor.

VHOST_DIR := $(B)/selftests/vhost

# As the guest's process 1 it stands alone.
$(VHOST_DIR)/%_work: selftests/vhost/%_work.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -pthread -o $@ $<

$(VHOST_DIR)/attack_guest: selftests/vhost/attack_guest.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -o $@ $<

# Nothing that it gets is closed.
$(VHOST_DIR)/attack_device: selftests/vhost/attack_device.c $(B)/obj/devmodel.a $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Wl,--wrap=close -o $@ $^ -pthread $(URING) $(SANDBOX_LIBS)

# One request ends it.
$(VHOST_DIR)/poison_device: selftests/vhost/poison_device.c $(B)/obj/devmodel.a $(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Wl,--wrap=virtq_pop -o $@ $^ -pthread $(URING) $(SANDBOX_LIBS)

# What the script says of itself is where it is.
$(VHOST_DIR)/%: selftests/vhost/%.sh selftests/vhost/lib.sh
	ln -sf $(CURDIR)/$< $@
	@touch -h $@

# By another name, the rings are packed.
$(VHOST_DIR)/%_packed: selftests/vhost/%.sh selftests/vhost/lib.sh
	ln -sf $(CURDIR)/$< $@
	@touch -h $@

$(VHOST_DIR)/blk_restart $(VHOST_DIR)/blk_restart_packed: $(VHOST_DIR)/disk_work $(B)/bin/moat-blk
$(VHOST_DIR)/attack: $(VHOST_DIR)/attack_device $(VHOST_DIR)/attack_guest
$(VHOST_DIR)/console_serve: $(VHOST_DIR)/console_work $(B)/bin/moat-console
$(VHOST_DIR)/fs_serve: $(VHOST_DIR)/fs_work $(B)/bin/moat-fs
$(VHOST_DIR)/net_restart: $(VHOST_DIR)/net_work $(B)/bin/moat-net
$(VHOST_DIR)/rng_serve: $(VHOST_DIR)/rng_work $(B)/bin/moat-rng
$(VHOST_DIR)/vsock_serve $(VHOST_DIR)/vsock_serve_packed: $(VHOST_DIR)/vsock_work $(B)/bin/moat-vsock

UNIT_TESTS += $(addprefix $(VHOST_DIR)/,attack blk_restart blk_restart_packed console_serve fs_serve net_restart rng_serve \
	vsock_serve vsock_serve_packed)

-include $(wildcard $(VHOST_DIR)/*.d)
