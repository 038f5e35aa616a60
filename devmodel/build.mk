# SPDX-License-Identifier: MIT OR GPL-2.0
# Virtio queues and devices; and the programs of devices, a folder and a main.c each.

DEVMODEL_SRCS := $(filter-out %/main.c,$(wildcard devmodel/*.c devmodel/*/*.c))
DEVMODEL_OBJS := $(DEVMODEL_SRCS:%.c=$(B)/obj/%.o)

$(B)/obj/devmodel/%.o: devmodel/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

$(B)/obj/devmodel.a: $(DEVMODEL_OBJS)
	rm -f $@
	$(AR) rcs $@ $^

# moat-NAME of each folder NAME with a main.c.
DEVICES := $(patsubst devmodel/%/main.c,%,$(wildcard devmodel/*/main.c))
DEVICE_MAINS := $(DEVICES:%=$(B)/obj/devmodel/%/main.o)
PROGRAMS += $(DEVICES:%=$(B)/bin/moat-%)

$(DEVICES:%=$(B)/bin/moat-%): $(B)/bin/moat-%: $(B)/obj/devmodel/%/main.o $(B)/obj/devmodel.a \
		$(LIB_OBJS) $(SANDBOX_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $(filter %main.o,$^) $(B)/obj/devmodel.a $(LIB_OBJS) $(SANDBOX_OBJ) \
		-pthread $(URING) $(SANDBOX_LIBS)

-include $(DEVMODEL_OBJS:.o=.d) $(DEVICE_MAINS:.o=.d)
