# Second-level page tables: by hand and against a model; many threads at once.
UNIT_TESTS += $(B)/unit/stage2_test $(B)/unit/stage2_race_test
STAGE2_TEST_SRC := selftests/unit/stage2_test.c selftests/unit/stage2_model.c \
	selftests/unit/stage2_cpu.c module/stage2.c
STAGE2_RACE_SRC := selftests/unit/stage2_race_test.c selftests/unit/stage2_cpu.c module/stage2.c
STAGE2_FUZZ_SRC := selftests/unit/stage2_fuzz.c selftests/unit/stage2_model.c \
	selftests/unit/stage2_cpu.c module/stage2.c
STAGE2_HDR := module/stage2.h module/pure.h module/pure_atomic.h selftests/unit/unit.h \
	selftests/unit/stage2_cpu.h selftests/unit/stage2_model.h
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
