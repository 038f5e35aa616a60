# SPDX-License-Identifier: MIT OR GPL-2.0
#
# The programs that the ABI tests (scripts/check-abi) take; static, since they run in guests or
# beside other Debian trees.

ABI_DIR := $(B)/selftests/abi
ABI_HELPERS := $(addprefix $(ABI_DIR)/,dialogue patterns)

# What a guest does with its devices is told in selftests/vhost.
ABI_GUESTS := $(addprefix $(B)/selftests/vhost/,disk_work net_work)

$(ABI_HELPERS): $(ABI_DIR)/%: selftests/abi/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -pthread -o $@ $<

-include $(wildcard $(ABI_DIR)/*.d)
