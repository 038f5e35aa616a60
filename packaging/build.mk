# SPDX-License-Identifier: MIT OR GPL-2.0
#
# Installing, and Debian's packages. DESTDIR= and prefix= are as everywhere; where a program of Moat's finds
# another, from whatever prefix it runs, is told in userspace/lib/beside.c.

VERSION := $(shell cut -sd'"' -f2 include/moat/version.h)

prefix ?= /usr
bindir ?= $(prefix)/bin
sbindir ?= $(prefix)/sbin
libexecdir ?= $(prefix)/libexec
includedir ?= $(prefix)/include
datadir ?= $(prefix)/share
mandir ?= $(datadir)/man
sysconfdir ?= /etc
unitdir ?= $(prefix)/lib/systemd/system
udevdir ?= $(prefix)/lib/udev/rules.d
sysusersdir ?= $(prefix)/lib/sysusers.d
tmpfilesdir ?= $(prefix)/lib/tmpfiles.d
# Where zsh looks, of its own; Debian's has another one for packages.
zshdir ?= $(datadir)/zsh/site-functions
srcdir ?= $(prefix)/src

# What goes where: MODE:FILE:PATH. The control domain's only where it is built.
MOATD := $(filter $(B)/bin/moatd,$(PROGRAMS))
# Those that other programs start, and nobody else.
HELPERS := $(filter $(addprefix $(B)/bin/,moat-init moat-qcow2),$(PROGRAMS))
INSTALLED := \
	$(patsubst %,755:%:$(bindir)/,$(filter-out $(MOATD) $(HELPERS),$(PROGRAMS))) \
	$(patsubst %,755:%:$(libexecdir)/moat/,$(HELPERS)) \
	644:include/uapi/moat.h:$(includedir)/moat/ \
	$(patsubst %,644:%:$(mandir)/man1/,$(wildcard docs/man/*.1)) \
	644:packaging/vmctl.bash:$(datadir)/bash-completion/completions/vmctl \
	644:packaging/_vmctl:$(zshdir)/ \
	644:packaging/60-moat.rules:$(udevdir)/ \
	644:packaging/sysusers.conf:$(sysusersdir)/moat.conf
ifneq ($(MOATD),)
INSTALLED += \
	755:$(MOATD):$(sbindir)/ \
	644:docs/man/moat.yaml.5:$(mandir)/man5/ \
	644:docs/man/moatd.8:$(mandir)/man8/ \
	644:packaging/moatd.service:$(unitdir)/ \
	644:packaging/moatd.socket:$(unitdir)/ \
	644:packaging/tmpfiles.conf:$(tmpfilesdir)/moat.conf
endif

# The module's source, for dkms, with its tree as it is.
DKMS_DIR = $(srcdir)/moat-$(VERSION)
INSTALLED_DKMS = \
	$(foreach f,$(MODULE_SRCS),644:$(f):$(DKMS_DIR)/$(f)) \
	644:packaging/dkms.conf:$(DKMS_DIR)/ \
	644:packaging/modprobe.conf:$(sysconfdir)/modprobe.d/moat.conf

# each_file LIST, COMMAND: with $$mode, $$file and $$to, which is below DESTDIR.
each_file = @set -e; for row in $(1); do \
	mode=$${row%%:*} file=$${row\#*:}; to='$(DESTDIR)'$${file\#*:} file=$${file%%:*}; \
	case $$to in */) to=$$to$${file\#\#*/} ;; esac; \
	$(2); \
done

.PHONY: install uninstall install-dkms uninstall-dkms deb

install: programs
	$(call each_file,$(INSTALLED),install -D -m $$mode $$file "$$to")
ifneq ($(MOATD),)
	@sed -i 's,/usr/sbin/,$(sbindir)/,' '$(DESTDIR)$(unitdir)/moatd.service'
endif

# Of folders, those that are Moat's alone.
uninstall:
	$(call each_file,$(INSTALLED),rm -f "$$to")
	@for dir in '$(DESTDIR)$(libexecdir)/moat' '$(DESTDIR)$(includedir)/moat'; do \
		[ ! -d "$$dir" ] || rmdir --ignore-fail-on-non-empty "$$dir"; \
	done

install-dkms:
	$(call each_file,$(INSTALLED_DKMS),install -D -m $$mode $$file "$$to")
	@sed -i 's/#MODULE_VERSION#/$(VERSION)/' '$(DESTDIR)$(DKMS_DIR)/dkms.conf'

uninstall-dkms:
	rm -rf '$(DESTDIR)$(DKMS_DIR)'
	rm -f '$(DESTDIR)$(sysconfdir)/modprobe.d/moat.conf'

# Debian's packages, in build/deb: built from a copy of the sources and nothing else that is in build/.
DEB := $(B)/deb
DEB_TREE := $(DEB)/moat-$(VERSION)

deb:
	@head -n 1 packaging/debian/changelog | grep -qF '($(VERSION))' || \
		{ echo 'moat: packaging/debian/changelog does not begin with $(VERSION)' >&2; exit 1; }
	@rm -rf $(DEB)
	@mkdir -p $(DEB_TREE)
	@tar -c --exclude-vcs --exclude=./build . | tar -x -C $(DEB_TREE)
	@mv $(DEB_TREE)/packaging/debian $(DEB_TREE)/debian
	@echo '  DEB     $(DEB)'
	@cd $(DEB_TREE) && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS DEB_BUILD_OPTIONS='noautodbgsym nocheck' \
		dpkg-buildpackage -us -uc -j$(shell nproc) >../build.log 2>&1 || \
		{ tail -n 60 $(CURDIR)/$(DEB)/build.log >&2; exit 1; }
	@rm -rf $(DEB_TREE)
