# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Moat: `make help` says what there is to make. All output goes below build/.
#
# The folders' build.mk files add to PROGRAMS, UNIT_TESTS (run on this machine, TAP, sanitized)
# and LAB_TESTS (run in the lab, TAP). The module is built by the kernel's own Kbuild, once for
# each kernel, in build/module/VERSION, where the sources are mirrored by links: so one tree
# serves many kernels, and only what has changed is built again.

B := build
CC := gcc
CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE -Iinclude -I. -MMD -MP
# Linked in whole: it is small, and guests and hosts need nothing of it.
URING := -l:liburing.a
SAN := -fsanitize=address,undefined -fno-sanitize-recover=all
PROGRAMS :=
UNIT_TESTS :=
LAB_TESTS :=
LAB_BENCH :=

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

include $(wildcard userspace/build.mk devmodel/build.mk packaging/build.mk selftests/build.mk)

# The lab's kernels, once `make deps` has fetched them, and where a kernel's headers are.
lab_kvers := $(notdir $(wildcard $(B)/cache/kernel-6.*/lib/modules/*))
kdir_of = $(firstword \
	$(patsubst %/lib/modules/$(1),%/build,$(wildcard $(B)/cache/kernel-*/lib/modules/$(1))) \
	$(wildcard /lib/modules/$(1)/build /usr/src/linux-headers-$(1)))

# The kernel to build for: the named one, else the running one, else (no headers of it here) the
# lab's first.
running := $(shell uname -r)
ifdef KDIR
KVER ?= $(or $(shell cat $(KDIR)/include/config/kernel.release), \
	$(error KDIR: no headers in $(KDIR)))
else
KVER ?= $(if $(call kdir_of,$(running)),$(running),$(or $(firstword $(lab_kvers)),$(running)))
endif
KVER := $(KVER)
KDIR ?= $(call kdir_of,$(KVER))

MODULE_SRCS := Kbuild $(shell find module include -name '*.[chS]' -o -name Kbuild 2>/dev/null)
modules_of = $(patsubst %,$(B)/module/%/moat.ko,$(1))
# Debian's headers come without the vmlinux that BTF is made against.
KBUILD_FLAGS := W=1 KCFLAGS=-Werror CONFIG_DEBUG_INFO_BTF_MODULES=
# Parts of the build that run on their own take all processors, unless the caller said how many.
SUBMAKE = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all module modules-lab programs tests deps lab-ready abi-ready demo check check-abi bench \
	clean help

all: module programs

module: $(call modules_of,$(KVER))

modules-lab: $(call modules_of,$(lab_kvers))
	@[ -n '$(lab_kvers)' ] || \
		{ echo 'moat: the lab has no kernels yet: make deps' >&2; exit 1; }

programs: $(PROGRAMS)

tests: $(UNIT_TESTS) $(LAB_TESTS)

# kbuild VERSION DIR: warnings of objtool and modpost do not fail a build by themselves, and would
# be silent the next time; so what was built with any is thrown away.
define kbuild
$(if $(2),,@echo 'moat: no headers of kernel $(1) here: install linux-headers-$(1),' \
	'or name others by KDIR=, or the lab'"'"'s (make deps) by KVER=' >&2; exit 1)
@mkdir -p $(@D)
@find $(@D) -xtype l -delete
@for f in $(MODULE_SRCS); do \
	[ -h $(@D)/$$f ] && continue; \
	mkdir -p $(@D)/$$(dirname $$f) && ln -sfn $(CURDIR)/$$f $(@D)/$$f || exit 1; \
done
@echo '  KBUILD  $@'
+@$(SUBMAKE) -s -C $(2) M=$(CURDIR)/$(@D) $(KBUILD_FLAGS) modules >$(@D)/build.log 2>&1 || \
	{ cat $(@D)/build.log >&2; exit 1; }
@cat $(@D)/build.log >&2
@! grep -i 'warning:' $(@D)/build.log >/dev/null || \
	{ find $(@D) -name '*.o' -delete; rm -f $@; echo 'moat: built with warnings' >&2; exit 1; }
@touch $@
endef

# The rule for one kernel's module; the wanted and the lab's kernels each have theirs.
define module_rule
$$(B)/module/$(1)/moat.ko: $$(MODULE_SRCS)
	$$(call kbuild,$(1),$(abspath $(if $(filter $(KVER),$(1)),$(KDIR),$(call kdir_of,$(1)))))
endef
$(foreach k,$(sort $(KVER) $(lab_kvers)),$(eval $(call module_rule,$(k))))

deps:
	@scripts/deps

# Everything that a run in the lab takes. A make of its own, since deps changes what this one has
# read.
lab-ready: deps
	@$(SUBMAKE) modules-lab programs $(LAB_TESTS) $(LAB_BENCH)

demo: deps
	@scripts/demo $(HOST)

check:
	@UNIT_TESTS='$(UNIT_TESTS)' LAB_TESTS='$(LAB_TESTS)' INTEL_TESTS='$(INTEL_TESTS)' \
		LAB_TESTS_6_1='$(LAB_TESTS_6_1)' LAB_TESTS_6_12='$(LAB_TESTS_6_12)' \
		MAKE='$(MAKE)' scripts/check

abi-ready: modules-lab programs $(ABI_HELPERS) $(ABI_GUESTS) $(B)/selftests/moatd_kills $(B)/unit/api_test

check-abi:
	@MAKE='$(MAKE)' scripts/check-abi

bench: lab-ready
	@status=0; scripts/bench $(if $(HOST),--host $(HOST)) || status=1; \
	[ '$(HOST)' = intel ] || scripts/bench-boot || status=1; exit $$status

# What was downloaded stays; rm -r build has that too.
clean:
	rm -rf $(filter-out $(B)/cache,$(wildcard $(B)/*))

help:
	@echo 'make             moat.ko for the running kernel (or KVER=, KDIR=), and the programs'
	@echo 'make module      moat.ko only;   make modules-lab: for both of the lab'"'"'s kernels'
	@echo 'make programs    moat-vmm, vmctl and the device programs, in build/bin'
	@echo 'make install     the programs, with DESTDIR= and prefix= (/usr);   make uninstall'
	@echo 'make deb         Debian packages, in build/deb: moat, and moat-dkms for the module'
	@echo 'make deps        installs what this takes from Debian, and fetches the lab'
	@echo 'make demo        boots a Linux guest on Moat: on this machine, else in the lab (HOST=amd, intel)'
	@echo 'make check       all tests'
	@echo 'make fuzz        the fuzzers of what reads from others, a minute each (SECONDS=, FUZZERS=)'
	@echo 'make check-abi   more: what knows only KVM, unmodified on Moat (QEMU with Debian in it)'
	@echo 'make bench       what exits and a whole boot cost, for Moat and for KVM (HOST=intel: exits)'
	@echo 'make clean       removes what was built, keeps what was downloaded'
	@echo 'scripts/lab      an emulated host with Moat loaded: a shell, or one command (--help)'
