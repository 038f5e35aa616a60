// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "devmodel/vhost_user/inflight.h"
#include "devmodel/virtq_inflight.h"
#include "userspace/lib/fd.h"

/* A record begins on a cache line of its own. */
#define INFLIGHT_ALIGN	64

/* Room for either kind of ring: which it will be need not be known yet. */
static size_t inflight_stride(uint16_t queue_size)
{
	size_t size = offsetof(struct virtq_inflight_packed, desc[queue_size]);

	_Static_assert(sizeof(struct virtq_inflight_packed) >= sizeof(struct virtq_inflight_split) &&
		       sizeof(struct virtq_inflight_packed_desc) >=
			       sizeof(struct virtq_inflight_split_desc), "the larger one");

	return (size + INFLIGHT_ALIGN - 1) / INFLIGHT_ALIGN * INFLIGHT_ALIGN;
}

int inflight_create(struct vhost_user_inflight *area)
{
	area->mmap_size = area->num_queues * inflight_stride(area->queue_size);
	area->mmap_offset = 0;
	return fd_memory("inflight", area->mmap_size);
}

static int inflight_check(const struct vhost_user_inflight *area, int fd)
{
	const uint64_t needed = area->num_queues * inflight_stride(area->queue_size);
	uint64_t end;
	struct stat st;

	if (area->mmap_size < needed || area->mmap_size > SIZE_MAX / 2 ||
	    __builtin_add_overflow(area->mmap_offset, area->mmap_size, &end))
		return -EINVAL;
	if (fstat(fd, &st))
		return -errno;
	return S_ISREG(st.st_mode) && end <= (uint64_t)st.st_size ? 0 : -EINVAL;
}

int inflight_map(const struct vhost_user_inflight *area, int fd, struct inflight *ret)
{
	void *base;
	int err = inflight_check(area, fd);

	if (err)
		return err;
	base = mmap(NULL, area->mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    area->mmap_offset);
	if (base == MAP_FAILED)
		return -errno;
	*ret = (struct inflight){
		.base = base, .length = area->mmap_size,
		.num_queues = area->num_queues, .queue_size = area->queue_size,
	};
	return 0;
}

void inflight_unmap(struct inflight *inflight)
{
	if (inflight->base)
		munmap(inflight->base, inflight->length);
	*inflight = (struct inflight){ .base = NULL };
}

void *inflight_queue(const struct inflight *inflight, unsigned int index)
{
	if (!inflight->base || index >= inflight->num_queues)
		return NULL;
	return (char *)inflight->base + index * inflight_stride(inflight->queue_size);
}

void inflight_forget(const struct inflight *inflight, unsigned int index)
{
	struct virtq_inflight_packed *record = inflight_queue(inflight, index);

	_Static_assert(offsetof(struct virtq_inflight_packed, version) ==
		       offsetof(struct virtq_inflight_split, version), "in both");
	if (record)
		__atomic_store_n(&record->version, 0, __ATOMIC_RELEASE);
}
