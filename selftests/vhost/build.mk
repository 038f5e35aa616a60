# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Device programs behind a stock QEMU; run on this machine, like unit tests, since that QEMU needs no
# hypervisor.

VHOST_DIR := $(B)/selftests/vhost

# As the guest's process 1 it stands alone.
$(VHOST_DIR)/disk_work: selftests/vhost/disk_work.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -pthread -o $@ $<

# What the script says of itself is where it is.
$(VHOST_DIR)/blk_restart $(VHOST_DIR)/blk_restart_packed: selftests/vhost/blk_restart.sh \
		$(VHOST_DIR)/disk_work $(B)/bin/moat-blk
	ln -sf $(CURDIR)/$< $@
	@touch -h $@

UNIT_TESTS += $(VHOST_DIR)/blk_restart $(VHOST_DIR)/blk_restart_packed

-include $(wildcard $(VHOST_DIR)/*.d)
