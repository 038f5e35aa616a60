/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Packets: a header (virtio 1.2, section 5.10.6), and what it says follows. */
#ifndef DEVMODEL_VSOCK_PACKET_H
#define DEVMODEL_VSOCK_PACKET_H

#include <linux/virtio_vsock.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devmodel/virtq.h"

#define PACKET_HEADER	sizeof(struct virtio_vsock_hdr)
#define PACKET_DATA_MAX	65536

/* Both directions go between the guest and this. */
#define PACKET_HOST_CID	2

/**
 * struct vsock_packet - of a header, what is left to be known
 * @len: of the data that follows
 * @op: VIRTIO_VSOCK_OP_INVALID also where there is less data than @len
 */
struct vsock_packet {
	uint32_t guest_port;
	uint32_t host_port;
	uint32_t len;
	uint32_t flags;
	uint32_t buf_alloc;
	uint32_t fwd_cnt;
	uint16_t type;
	uint16_t op;
};

/* The header, which is dropped from @chain. -EPROTO: it is none, or not from this guest to us. */
int packet_read(struct virtq_chain *chain, uint64_t guest_cid, struct vsock_packet *ret);

/* The header of a packet to the guest. Return: its bytes; fewer at the chain's end. */
uint32_t packet_write(struct virtq_chain *chain, uint64_t guest_cid,
		      const struct vsock_packet *packet);

/**
 * iov_part - some bytes of some pieces, as pieces
 * @skip: bytes at the front to pass over
 * @len: the most that is wanted
 * @max: the most pieces that @part has room for
 *
 * Return: pieces in @part.
 */
unsigned int iov_part(const struct iovec *iov, unsigned int count, size_t skip, size_t len,
		      struct iovec *part, unsigned int max);

#endif /* DEVMODEL_VSOCK_PACKET_H */
