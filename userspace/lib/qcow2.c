// SPDX-License-Identifier: MIT OR GPL-2.0
/* The format is that of QEMU's document "qcow2 image file format": all numbers big-endian. */
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/qcow2.h"

#define QCOW2_MAGIC		0x514649fbu	/* "QFI" and 0xfb */
#define QCOW2_HEAD_V2		72

/* Incompatible features: of which reader must know. */
#define QCOW2_DIRTY		(1ULL << 0)
#define QCOW2_CORRUPT		(1ULL << 1)
#define QCOW2_EXTERNAL_DATA	(1ULL << 2)
#define QCOW2_COMPRESSION	(1ULL << 3)
#define QCOW2_EXTENDED_L2	(1ULL << 4)
#define QCOW2_KNOWN		(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_EXTERNAL_DATA | \
				 QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

/* What QEMU allows a snapshot's entry to have beside. */
#define QCOW2_EXTRA_MAX		1024
#define QCOW2_ENTRY_ALIGN	8

struct qcow2_head {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_at;
	uint32_t backing_length;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt;
	uint32_t l1_size;
	uint64_t l1_at;
	uint64_t refcounts_at;
	uint32_t refcount_clusters;
	uint32_t snapshots;
	uint64_t snapshots_at;
	uint64_t incompatible;		/* from version 3 on */
} __attribute__((packed));
_Static_assert(offsetof(struct qcow2_head, incompatible) == QCOW2_HEAD_V2, "as on the disk");

struct qcow2_entry {
	uint64_t l1_at;
	uint32_t l1_size;
	uint16_t id_length;
	uint16_t name_length;
	uint32_t seconds;
	uint32_t nanoseconds;
	uint64_t clock;
	uint32_t state_size;
	uint32_t extra_length;
	uint64_t state_size_large;	/* what is extra, as far as it is there */
	uint64_t size;
} __attribute__((packed));
#define QCOW2_ENTRY_SIZE	offsetof(struct qcow2_entry, state_size_large)
_Static_assert(QCOW2_ENTRY_SIZE == 40, "as on the disk");

static const char *head_fault(const struct qcow2_head *head)
{
	const uint64_t incompatible = be32toh(head->version) < 3 ? 0 : be64toh(head->incompatible);

	if (be32toh(head->magic) != QCOW2_MAGIC)
		return "it is not a qcow2 image";
	if (be32toh(head->version) != 2 && be32toh(head->version) != 3)
		return "it is a qcow2 image of a version that is not known";
	if (head->backing_at || head->backing_length)
		return "it has a backing file, which is not allowed: qemu-img convert makes one whole";
	if (incompatible & QCOW2_EXTERNAL_DATA)
		return "its data is in another file, which is not allowed";
	if (incompatible & ~QCOW2_KNOWN)
		return "it has features that are not known";
	if (incompatible & QCOW2_CORRUPT)
		return "it is marked as corrupt: qemu-img check may repair it";
	if (head->crypt)
		return "it is encrypted";
	return head->size ? NULL : "it holds nothing";
}

int qcow2_read(int fd, struct qcow2 *ret, const char **ret_why)
{
	struct qcow2_head head = { 0 };
	int err = fd_pread_full(fd, &head, QCOW2_HEAD_V2, 0);

	*ret_why = err == -ENODATA ? "it is not a qcow2 image" : "it cannot be read";
	if (!err && be32toh(head.version) == 3)
		err = fd_pread_full(fd, &head, sizeof(head), 0);
	if (err)
		return err == -ENODATA ? -EINVAL : err;
	*ret_why = head_fault(&head);
	if (*ret_why)
		return -EINVAL;
	*ret = (struct qcow2){
		.size = be64toh(head.size), .snapshots = be32toh(head.snapshots),
		.snapshots_at = be64toh(head.snapshots_at),
	};
	return 0;
}

static int entry_read_name(int fd, uint64_t at, const struct qcow2_entry *entry, char *ret)
{
	size_t length = be16toh(entry->name_length);
	char *to = ret;
	int err;

	if (length >= QCOW2_NAME_MAX)
		length = QCOW2_NAME_MAX - 1;
	err = fd_pread_full(fd, ret, length, at + QCOW2_ENTRY_SIZE + be32toh(entry->extra_length) +
			    be16toh(entry->id_length));
	for (size_t i = 0; i < length && !err; i++)
		if (ret[i] > ' ' && ret[i] <= '~')
			*to++ = ret[i];
	*to = '\0';
	return err;
}

int qcow2_read_snapshot(int fd, uint64_t *at, struct qcow2_snapshot *ret)
{
	struct qcow2_entry entry = { 0 };
	uint32_t extra;
	int err = fd_pread_full(fd, &entry, QCOW2_ENTRY_SIZE, *at);

	extra = be32toh(entry.extra_length);
	if (!err && extra > QCOW2_EXTRA_MAX)
		err = -EINVAL;
	if (!err && extra >= sizeof(entry) - QCOW2_ENTRY_SIZE)
		err = fd_pread_full(fd, &entry, sizeof(entry), *at);
	if (!err)
		err = entry_read_name(fd, *at, &entry, ret->name);
	if (err)
		return err;
	ret->size = be64toh(entry.size);
	ret->seconds = be32toh(entry.seconds);
	*at += QCOW2_ENTRY_SIZE + extra + be16toh(entry.id_length) + be16toh(entry.name_length);
	*at = (*at + QCOW2_ENTRY_ALIGN - 1) & -(uint64_t)QCOW2_ENTRY_ALIGN;
	return 0;
}
