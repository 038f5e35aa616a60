# Second-level page tables: by hand and against a model; many threads at once.
UNIT_TESTS += $(B)/unit/stage2_test $(B)/unit/stage2_race_test
STAGE2_TEST_SRC := selftests/unit/stage2_test.c selftests/unit/stage2_model.c \
	selftests/unit/stage2_cpu.c selftests/unit/stage2_look.c module/stage2.c
STAGE2_RACE_SRC := selftests/unit/stage2_race_test.c selftests/unit/stage2_cpu.c \
	selftests/unit/stage2_look.c module/stage2.c
STAGE2_FUZZ_SRC := selftests/unit/stage2_fuzz.c selftests/unit/stage2_model.c \
	selftests/unit/stage2_cpu.c selftests/unit/stage2_look.c module/stage2.c
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

# Needs clang.
$(B)/unit/stage2_fuzz: $(STAGE2_FUZZ_SRC) $(STAGE2_HDR)
	@mkdir -p $(@D)
	clang $(STAGE2_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $(STAGE2_FUZZ_SRC)

# Virtqueues: rules kept, each rule broken, random.
UNIT_TESTS += $(B)/unit/virtq_test
VIRTQ_HDR := devmodel/virtq.h devmodel/device.h selftests/unit/unit.h selftests/unit/virtq_ring.h

$(B)/unit/virtq_test: selftests/unit/virtq_test.c devmodel/virtq.c $(VIRTQ_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# Needs clang.
$(B)/unit/virtq_fuzz: selftests/unit/virtq_fuzz.c devmodel/virtq.c $(VIRTQ_HDR)
	@mkdir -p $(@D)
	clang $(filter-out -MMD -MP,$(CFLAGS)) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.c,$^)

# Devices over their rings; what vmctl and moat-init say to each other; the reader of programs.
UNIT_TESTS += $(B)/unit/device_test $(B)/unit/channel_test $(B)/unit/elf_test
DEVICE_TEST_SRC := selftests/unit/device_test.c $(wildcard devmodel/*.c) userspace/lib/thread.c \
	userspace/lib/fd.c userspace/lib/parse.c \
	$(addprefix devmodel/,blk/blk.c blk/queue.c console/console.c console/control.c console/stream.c \
	rng/rng.c)
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

# The network device, with a socket for a tap; chains given back together.
UNIT_TESTS += $(B)/unit/net_test $(B)/unit/virtq_batch_test

$(B)/unit/net_test: selftests/unit/net_test.c $(wildcard devmodel/*.[ch] devmodel/net/*.h) \
		$(addprefix devmodel/net/,net.c queue.c rx.c tx.c) $(DEVICE_TEST_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^) userspace/lib/thread.c \
		userspace/lib/fd.c userspace/lib/parse.c

$(B)/unit/virtq_batch_test: selftests/unit/virtq_batch_test.c devmodel/virtq.c devmodel/virtq_batch.c \
		devmodel/virtq_batch.h $(VIRTQ_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# The file system: requests kept to the rules and not, in a tree of the test's.
UNIT_TESTS += $(B)/unit/fs_test
FS_SRC := $(addprefix devmodel/fs/,change.c files.c look.c request.c table.c tree.c) devmodel/virtq.c
FS_HDR := $(wildcard devmodel/fs/*.h) devmodel/virtq.h devmodel/device.h \
	$(addprefix selftests/unit/,unit.h fs_client.h)

$(B)/unit/fs_test: selftests/unit/fs_test.c devmodel/fs/fs.c devmodel/worker.c userspace/lib/thread.c \
		$(FS_SRC) $(FS_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -pthread -o $@ $(filter %.c,$^)

# Needs clang.
$(B)/unit/fs_fuzz: selftests/unit/fs_fuzz.c $(FS_SRC) $(FS_HDR)
	@mkdir -p $(@D)
	clang $(filter-out -MMD -MP,$(CFLAGS)) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.c,$^)

# vhost-user back ends, and front ends that break each rule.
UNIT_TESTS += $(B)/unit/vhost_user_test
VHOST_USER_SRC := $(addprefix devmodel/vhost_user/,backend.c inflight.c message.c regions.c) devmodel/virtq.c \
	userspace/lib/fd.c userspace/lib/parse.c
VHOST_USER_HDR := $(wildcard devmodel/vhost_user/*.h) include/moat/vhost_user.h devmodel/virtq.h devmodel/device.h \
	selftests/unit/unit.h selftests/unit/vhost_user_front.h

$(B)/unit/vhost_user_test: selftests/unit/vhost_user_test.c $(VHOST_USER_SRC) $(VHOST_USER_HDR)
	@mkdir -p $(@D)
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(SAN) -o $@ $(filter %.c,$^)

# Needs clang. Begins with selftests/unit/vhost_user_corpus.
$(B)/unit/vhost_user_fuzz: selftests/unit/vhost_user_fuzz.c $(VHOST_USER_SRC) $(VHOST_USER_HDR)
	@mkdir -p $(@D)
	clang $(filter-out -MMD -MP,$(CFLAGS)) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.c,$^)

# The sandbox, and each device program in it; without sanitizers, which make system calls of their own.
PROGRAM_TESTS := $(addprefix $(B)/unit/,moat_blk_test moat_console_test moat_fs_test moat_net_test moat_rng_test)
UNIT_TESTS += $(B)/unit/sandbox_test $(PROGRAM_TESTS)

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

$(B)/unit/emulate_test $(B)/unit/decode_fuzz: selftests/unit/emulate_world.h
$(B)/unit/emulate_native_test: selftests/unit/emulate_native.h

# Needs clang.
$(B)/unit/decode_fuzz: selftests/unit/decode_fuzz.c selftests/unit/emulate_world.c $(EMULATE_SRC) $(EMULATE_HDR)
	@mkdir -p $(@D)
	clang $(EMULATE_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $(filter %.c,$^)

# The vhost-user front end, against a back end that misbehaves.
UNIT_TESTS += $(B)/unit/vhost_client_test $(B)/unit/vhost_device_test $(B)/unit/vring_track_test
GATE_SRC := $(addprefix userspace/vmm/,vhost_gate.c gate_request.c runs.c shadow.c window.c) devmodel/virtq.c
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

# All fuzzers, to be started by hand.
.PHONY: fuzz
fuzz: $(B)/unit/stage2_fuzz $(B)/unit/virtq_fuzz $(B)/unit/decode_fuzz $(B)/unit/vhost_user_fuzz \
	$(B)/unit/fs_fuzz
