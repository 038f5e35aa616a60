# SPDX-License-Identifier: MIT OR GPL-2.0
# Virtio queues and devices.

DEVMODEL_SRCS := $(wildcard devmodel/*.c)
DEVMODEL_OBJS := $(DEVMODEL_SRCS:%.c=$(B)/obj/%.o)

$(B)/obj/devmodel/%.o: devmodel/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

$(B)/obj/devmodel.a: $(DEVMODEL_OBJS)
	rm -f $@
	$(AR) rcs $@ $^

-include $(DEVMODEL_OBJS:.o=.d)
