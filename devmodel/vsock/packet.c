// SPDX-License-Identifier: MIT OR GPL-2.0
#include <endian.h>
#include <errno.h>

#include "devmodel/vsock/packet.h"

int packet_read(struct virtq_chain *chain, uint64_t guest_cid, struct vsock_packet *ret)
{
	struct virtio_vsock_hdr header;

	if (chain_read(chain, &header, sizeof(header)) != sizeof(header))
		return -EPROTO;
	if (le64toh(header.src_cid) != guest_cid || le64toh(header.dst_cid) != PACKET_HOST_CID)
		return -EPROTO;
	*ret = (struct vsock_packet){
		.guest_port = le32toh(header.src_port), .host_port = le32toh(header.dst_port),
		.len = le32toh(header.len), .flags = le32toh(header.flags),
		.buf_alloc = le32toh(header.buf_alloc), .fwd_cnt = le32toh(header.fwd_cnt),
		.type = le16toh(header.type), .op = le16toh(header.op),
	};
	if (ret->len > iov_bytes(chain->readable, chain->readable_count))
		ret->op = VIRTIO_VSOCK_OP_INVALID;
	return 0;
}

uint32_t packet_write(struct virtq_chain *chain, uint64_t guest_cid,
		      const struct vsock_packet *packet)
{
	const struct virtio_vsock_hdr header = {
		.src_cid = htole64(PACKET_HOST_CID), .dst_cid = htole64(guest_cid),
		.src_port = htole32(packet->host_port), .dst_port = htole32(packet->guest_port),
		.len = htole32(packet->len), .flags = htole32(packet->flags),
		.buf_alloc = htole32(packet->buf_alloc), .fwd_cnt = htole32(packet->fwd_cnt),
		.type = htole16(packet->type), .op = htole16(packet->op),
	};

	return chain_write(chain, &header, sizeof(header));
}

unsigned int iov_part(const struct iovec *iov, unsigned int count, size_t skip, size_t len,
		      struct iovec *part, unsigned int max)
{
	unsigned int parts = 0;

	for (; count && len && parts < max; iov++, count--) {
		size_t some = iov->iov_len;

		if (skip >= some) {
			skip -= some;
			continue;
		}
		some = some - skip < len ? some - skip : len;
		part[parts++] = (struct iovec){ (char *)iov->iov_base + skip, some };
		len -= some;
		skip = 0;
	}
	return parts;
}
