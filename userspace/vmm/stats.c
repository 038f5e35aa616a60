// SPDX-License-Identifier: MIT OR GPL-2.0
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmm/stats.h"

#define STATS_NAME_MAX		64
#define STATS_DESCRIPTIONS_MAX	512

/* As Moat calls them, and KVM. */
static const char *const stats_names[STATS_COUNT][2] = {
	[STATS_EXITS]		= { "exits", "exits" },
	[STATS_EXITS_USER]	= { "user_exits", NULL },
	[STATS_HALTS]		= { "halts", "halt_exits" },
	[STATS_INTERRUPTS]	= { "injections", "irq_injections" },
	[STATS_FAULTS]		= { "faults", "pf_taken" },
};

static bool stats_is(const char *name, const char *wanted)
{
	return wanted && !strcmp(name, wanted);
}

static void stats_note(struct stats *stats, const char *name, uint64_t offset)
{
	for (unsigned int i = 0; i < STATS_COUNT; i++)
		if (stats_is(name, stats_names[i][0]) || stats_is(name, stats_names[i][1]))
			stats->offset[i] = offset;
}

static void stats_find(struct stats *stats, const struct kvm_stats_header *header)
{
	struct {
		struct kvm_stats_desc desc;
		char name[STATS_NAME_MAX];
	} one;
	const size_t size = sizeof(one.desc) + header->name_size;

	for (unsigned int i = 0; i < header->num_desc && i < STATS_DESCRIPTIONS_MAX; i++) {
		if (fd_pread_full(stats->fd, &one, size, header->desc_offset + i * size))
			return;
		one.name[header->name_size - 1] = '\0';
		stats_note(stats, one.name, (uint64_t)header->data_offset + one.desc.offset);
	}
}

void stats_open(struct stats *stats, int vcpu)
{
	struct kvm_stats_header header;

	*stats = (struct stats){ .fd = ioctl(vcpu, KVM_GET_STATS_FD, 0) };
	if (stats->fd >= 0 && !fd_pread_full(stats->fd, &header, sizeof(header), 0) &&
	    header.name_size && header.name_size <= STATS_NAME_MAX)
		stats_find(stats, &header);
}

void stats_close(struct stats *stats)
{
	fd_close(stats->fd);
	stats->fd = -1;
}

uint64_t stats_read(const struct stats *stats, unsigned int which)
{
	uint64_t value;

	if (!stats->offset[which] ||
	    fd_pread_full(stats->fd, &value, sizeof(value), stats->offset[which]))
		return 0;
	return value;
}
