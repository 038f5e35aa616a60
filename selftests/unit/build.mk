# Second-level page tables: by hand and against a model; many threads at once.
UNIT_TESTS += $(B)/unit/stage2_test $(B)/unit/stage2_race_test
STAGE2_TEST_SRC := selftests/unit/stage2_test.c selftests/unit/stage2_model.c \
	selftests/unit/stage2_cpu.c selftests/unit/stage2_look.c module/stage2.c
STAGE2_RACE_SRC := selftests/unit/stage2_race_test.c selftests/unit/stage2_cpu.c \
	selftests/unit/stage2_look.c module/stage2.c
STAGE2_HDR := module/stage2.h module/pure.h module/pure_atomic.h selftests/unit/unit.h \
	selftests/unit/stage2_cpu.h selftests/unit/stage2_look.h selftests/unit/stage2_model.h
STAGE2_CFLAGS = $(filter-out -MMD -MP,$(CFLAGS))

$(B)/unit/stage2_test: $(STAGE2_TEST_SRC) $(STAGE2_HDR)
	@mkdir -p $(@D)
	$(CC) $(STAGE2_CFLAGS) $(SAN) -o $@ $(STAGE2_TEST_SRC)

$(B)/unit/stage2_race_test: $(STAGE2_RACE_SRC) $(STAGE2_HDR)
	@mkdir -p $(@D)
	$(CC) $(STAGE2_CFLAGS) $(SAN) -pthread -o $@ $(STAGE2_RACE_SRC)

# The same under the thread sanitizer; not part of make check, which has one sanitizer.
$(B)/unit/stage2_tsan: $(STAGE2_RACE_SRC) $(STAGE2_HDR)
	@mkdir -p $(@D)
	$(CC) $(STAGE2_CFLAGS) -fsanitize=thread -pthread -o $@ $(STAGE2_RACE_SRC)

# Virtqueues, split and packed: rules kept, each rule broken, random; chains given back together.
VIRTQ_TESTS := $(addprefix $(B)/unit/,virtq_test virtq_packed_test virtq_batch_test)
UNIT_TESTS += $(VIRTQ_TESTS)
VIRTQ_SRC := $(wildcard devmodel/virtq*.c)
VIRTQ_HDR := $(wildcard devmodel/virtq*.h) devmodel/device.h selftests/unit/unit.h selftests/unit/virtq_ring.h

$(VIRTQ_TESTS): $(B)/unit/%: selftests/unit/%.c $(VIRTQ_SRC) $(VIRTQ_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# Devices over their rings; what vmctl and moat-init say to each other; the reader of programs.
UNIT_TESTS += $(B)/unit/device_test $(B)/unit/channel_test $(B)/unit/elf_test
DEVICE_TEST_SRC := selftests/unit/device_test.c $(wildcard devmodel/*.c) userspace/lib/thread.c \
	userspace/lib/fd.c userspace/lib/parse.c \
	$(addprefix devmodel/,blk/blk.c blk/queue.c console/console.c console/control.c console/stream.c \
	balloon/balloon.c rng/rng.c)
DEVICE_TEST_HDR := $(addprefix selftests/unit/,unit.h device_driver.h)
CHANNEL_TEST_SRC := selftests/unit/channel_test.c userspace/init/channel.c userspace/init/stream.c \
	userspace/lib/fd.c userspace/lib/parse.c
ELF_TEST_SRC := selftests/unit/elf_test.c userspace/vmctl/elf.c userspace/lib/fd.c userspace/lib/parse.c

$(B)/unit/device_test: $(DEVICE_TEST_SRC) $(wildcard devmodel/*.h devmodel/*/*.h) $(DEVICE_TEST_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(DEVICE_TEST_SRC) $(URING)

$(B)/unit/channel_test: $(CHANNEL_TEST_SRC) $(wildcard userspace/init/*.h) include/moat/run.h \
		selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(CHANNEL_TEST_SRC)

$(B)/unit/elf_test: $(ELF_TEST_SRC) userspace/vmctl/elf.h selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(ELF_TEST_SRC)

# Where programs find each other.
UNIT_TESTS += $(B)/unit/beside_test

$(B)/unit/beside_test: selftests/unit/beside_test.c userspace/lib/beside.c userspace/lib/beside.h selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# The network device, with a socket for a tap.
UNIT_TESTS += $(B)/unit/net_test

$(B)/unit/net_test: selftests/unit/net_test.c $(wildcard devmodel/*.[ch] devmodel/net/*.h) \
		$(addprefix devmodel/net/,net.c queue.c rx.c stream.c tx.c) $(DEVICE_TEST_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^) userspace/lib/thread.c \
		userspace/lib/fd.c userspace/lib/parse.c

# The file system: requests kept to the rules and not, in a tree of the test's.
UNIT_TESTS += $(B)/unit/fs_test
FS_SRC := $(addprefix devmodel/fs/,change.c files.c look.c request.c table.c tree.c) $(VIRTQ_SRC)
FS_HDR := $(wildcard devmodel/fs/*.h) $(VIRTQ_HDR) \
	selftests/unit/fs_client.h

$(B)/unit/fs_test: selftests/unit/fs_test.c devmodel/fs/fs.c devmodel/worker.c userspace/lib/thread.c \
		$(FS_SRC) $(FS_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^)

# vhost-user back ends, and front ends that break each rule.
UNIT_TESTS += $(B)/unit/vhost_user_test
VHOST_USER_SRC := $(addprefix devmodel/vhost_user/,backend.c inflight.c message.c regions.c) $(VIRTQ_SRC) \
	userspace/lib/fd.c userspace/lib/parse.c
VHOST_USER_HDR := $(wildcard devmodel/vhost_user/*.h) include/moat/vhost_user.h $(VIRTQ_HDR) \
	selftests/unit/vhost_user_front.h

$(B)/unit/vhost_user_test: selftests/unit/vhost_user_test.c $(VHOST_USER_SRC) $(VHOST_USER_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# The sandbox, and each device program and the launcher in it; without sanitizers, which make system calls of their own.
PROGRAM_TESTS := $(addprefix $(B)/unit/,moat_blk_test moat_console_test moat_fs_test moat_net_test moat_rng_test \
	moat_vsock_test moat_qcow2_test)
UNIT_TESTS += $(B)/unit/sandbox_test $(B)/unit/confine_test $(PROGRAM_TESTS)

$(B)/unit/confine_test: selftests/unit/confine_test.c userspace/vmm/confine.c $(SANDBOX_OBJ) $(LIB_OBJS) \
		selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) -o $@ $(filter %.c %.o,$^) -pthread $(SANDBOX_LIBS)

$(B)/unit/sandbox_test: selftests/unit/sandbox_test.c userspace/lib/sandbox.c userspace/lib/sandbox.h \
		selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) -o $@ $(filter %.c,$^) $(SANDBOX_LIBS)

$(PROGRAM_TESTS): $(B)/unit/moat_%_test: selftests/unit/moat_%_test.c selftests/unit/program_front.h \
		$(VHOST_USER_HDR) $(B)/bin/moat-%
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) -o $@ $<

$(B)/unit/moat_fs_test: selftests/unit/fs_client.h

# Instruction decoder, emulator (by hand, and against this machine's CPU), page-table walker.
UNIT_TESTS += $(B)/unit/decode_test $(B)/unit/emulate_test $(B)/unit/emulate_native_test $(B)/unit/walk_test
EMULATE_SRC := module/x86/decode.c module/x86/emulate.c
EMULATE_HDR := $(addprefix module/,pure.h x86/decode.h x86/emulate.h x86/walk.h) selftests/unit/unit.h
EMULATE_CFLAGS = $(filter-out -MMD -MP,$(CFLAGS))

$(B)/unit/decode_test: selftests/unit/decode_test.c module/x86/decode.c selftests/unit/decode_table.h
$(B)/unit/emulate_test: selftests/unit/emulate_test.c selftests/unit/emulate_world.c $(EMULATE_SRC)
$(B)/unit/emulate_native_test: selftests/unit/emulate_native_test.c selftests/unit/emulate_native.c $(EMULATE_SRC)
$(B)/unit/walk_test: selftests/unit/walk_test.c module/x86/walk.c
$(B)/unit/decode_test $(B)/unit/emulate_test $(B)/unit/emulate_native_test $(B)/unit/walk_test: $(EMULATE_HDR)
	@mkdir -p $(@D)
	$(CC) $(EMULATE_CFLAGS) $(SAN) -o $@ $(filter %.c,$^)

$(B)/unit/emulate_test: selftests/unit/emulate_world.h
$(B)/unit/emulate_native_test: selftests/unit/emulate_native.h

# The vhost-user front end, against a back end that misbehaves.
UNIT_TESTS += $(B)/unit/vhost_client_test $(B)/unit/vhost_device_test $(B)/unit/vring_track_test
GATE_SRC := $(addprefix userspace/vmm/,vhost_gate.c gate_request.c runs.c shadow.c window.c) $(VIRTQ_SRC)
VHOST_HDR := include/moat/vhost_user.h $(wildcard userspace/vmm/*.h) devmodel/device.h \
	selftests/unit/unit.h selftests/unit/vhost_mock.h

$(B)/unit/vhost_client_test: $(addprefix selftests/unit/,vhost_client_test.c vhost_mock.c) \
		userspace/vmm/vhost_user.c
$(B)/unit/vhost_device_test: $(addprefix selftests/unit/,vhost_device_test.c vhost_mock.c) \
		$(addprefix userspace/vmm/,vhost_device.c vhost_share.c vhost_user.c vring_track.c \
		memory.c) $(GATE_SRC)
UNIT_TESTS += $(B)/unit/vhost_gate_test
$(B)/unit/vhost_gate_test: $(addprefix selftests/unit/,vhost_gate_test.c vhost_mock.c) \
		$(addprefix userspace/vmm/,vhost_user.c memory.c) $(GATE_SRC)
$(B)/unit/vring_track_test: selftests/unit/vring_track_test.c userspace/vmm/vring_track.c
$(addprefix $(B)/unit/,vhost_client_test vhost_device_test vhost_gate_test vring_track_test): $(VHOST_HDR) \
		$(LIB_SRCS)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^)

# The supervisor of devices, and programs that it starts.
UNIT_TESTS += $(B)/unit/supervisor_test
SUPERVISOR_SRC := $(addprefix userspace/vmm/,supervisor.c wards.c program.c) userspace/lib/sandbox.c

$(B)/unit/supervisor_test: selftests/unit/supervisor_test.c $(SUPERVISOR_SRC) $(LIB_SRCS) \
		$(addprefix userspace/vmm/,supervisor.h wards.h program.h options.h) selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^) $(SANDBOX_LIBS)

# The control socket, with messages of all kinds.
UNIT_TESTS += $(B)/unit/control_test

$(B)/unit/control_test: selftests/unit/control_test.c userspace/vmm/control.c $(LIB_SRCS) \
		userspace/vmm/control.h include/moat/control.h selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^)

# moatd: definitions and their files; the life of machines, with a keeper that is the test; its interface, with clients
# that are strangers.
UNIT_TESTS += $(addprefix $(B)/unit/,definition_test keep_test machine_test varlink_test)
DEFINITION_SRC := $(addprefix userspace/moatd/,definition.c network_check.c network_definition.c schema.c store.c why.c)
DEFINITION_LIBS := -lyaml -ljson-c
MOATD_HDR := $(wildcard userspace/moatd/*.h userspace/lib/*.h) include/moat/control.h

$(B)/unit/definition_test: selftests/unit/definition_test.c $(DEFINITION_SRC)
$(B)/unit/machine_test: selftests/unit/machine_test.c $(DEFINITION_SRC) $(addprefix userspace/moatd/,control.c machine.c)
$(B)/unit/keep_test: selftests/unit/keep_test.c userspace/moatd/keep.c
$(B)/unit/varlink_test: selftests/unit/varlink_test.c userspace/moatd/varlink.c
$(addprefix $(B)/unit/,definition_test keep_test machine_test varlink_test): $(LIB_SRCS) $(MOATD_HDR) selftests/unit/unit.h
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^) $(DEFINITION_LIBS) -lsystemd

# Fuzzers, by clang's libFuzzer. Another NAME takes NAME_fuzz.c, NAME_corpus with inputs to begin with, and
# here its name and FUZZ_NAME, what it is made of beside that. make check executes the inputs; make fuzz
# goes on from there.
FUZZERS := stage2 decode virtq_split virtq_packed vhost_user vhost_client gate vsock fs boot qcow2 definition varlink
FUZZ_stage2 := $(addprefix selftests/unit/,stage2_model.c stage2_cpu.c stage2_look.c) module/stage2.c
FUZZ_decode := selftests/unit/emulate_world.c $(EMULATE_SRC)
FUZZ_virtq_split := $(VIRTQ_SRC)
FUZZ_virtq_packed := $(VIRTQ_SRC)
FUZZ_vhost_user := $(VHOST_USER_SRC)
FUZZ_vhost_client := userspace/vmm/vhost_user.c userspace/lib/fd.c userspace/lib/parse.c
FUZZ_gate := $(GATE_SRC) userspace/vmm/memory.c userspace/lib/fd.c userspace/lib/parse.c
FUZZ_boot := $(BOOT_SRC) userspace/lib/fd.c userspace/lib/parse.c
FUZZ_fs := $(FS_SRC)
FUZZ_definition := $(filter-out %/store.c,$(DEFINITION_SRC)) userspace/lib/parse.c
FUZZ_LIBS_definition := $(DEFINITION_LIBS)
FUZZ_varlink := userspace/moatd/varlink.c
FUZZ_LIBS_varlink := -ljson-c -lsystemd
FUZZ_qcow2 := userspace/lib/qcow2.c userspace/lib/fd.c userspace/lib/parse.c
FUZZ_vsock := $(addprefix devmodel/vsock/,conn.c greeting.c guest.c packet.c stream.c) $(VIRTQ_SRC) \
	userspace/lib/fd.c userspace/lib/parse.c

FUZZ_HDR := $(wildcard $(addsuffix .h,selftests/unit/* include/moat/* module/* module/x86/* devmodel/* devmodel/*/* \
	userspace/lib/* userspace/moatd/* userspace/vmm/*))
FUZZ_BINS := $(FUZZERS:%=$(B)/fuzz/%)

define fuzzer_rule
$(B)/fuzz/$(1): selftests/unit/$(1)_fuzz.c $(FUZZ_$(1)) $(FUZZ_HDR)
	@mkdir -p $$(@D)
	clang $(filter-out -MMD -MP,$(CFLAGS)) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-o $$@ $$(filter %.c,$$^) $(FUZZ_LIBS_$(1))
endef
$(foreach f,$(FUZZERS),$(eval $(call fuzzer_rule,$(f))))

UNIT_TESTS += $(B)/unit/fuzz_replay

$(B)/unit/fuzz_replay: $(FUZZ_BINS) scripts/fuzz
	@mkdir -p $(@D)
	printf '#!/bin/sh\nexec $(CURDIR)/scripts/fuzz --replay $(FUZZ_BINS)\n' >$@
	chmod +x $@

# Of each fuzzer, or of those that FUZZERS= names, SECONDS=.
SECONDS ?= 60
.PHONY: fuzz
fuzz: $(FUZZ_BINS)
	@scripts/fuzz $(SECONDS) $(FUZZ_BINS)
