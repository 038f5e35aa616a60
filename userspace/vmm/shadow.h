/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The driver's side of a split virtqueue, whose device is not trusted; shadow.c tells how. */
#ifndef VMM_SHADOW_H
#define VMM_SHADOW_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#define SHADOW_SIZE	256	/* entries; and of an indirect table */

/* Where things are in the memory that the ring takes. */
#define SHADOW_DESC	0
#define SHADOW_AVAIL	(SHADOW_DESC + 16 * SHADOW_SIZE)
#define SHADOW_USED	(SHADOW_AVAIL + 1024)
#define SHADOW_TABLES	(SHADOW_USED + 3072)
#define SHADOW_BYTES	(SHADOW_TABLES + 16 * SHADOW_SIZE * SHADOW_SIZE)

/**
 * struct shadow - the ring
 * @memory: SHADOW_BYTES that are shared with the device, which may write anything at any moment. Of what
 *	is there only the device area is read
 * @address: what the device calls @memory
 * @added: index into the driver area of what is added next, and
 * @published: up to where the device knows of it
 * @taken: index into the device area of what is taken next
 * @free: heads that are in no chain, the one given back last on top
 * @length: of the chain at a head, in entries of the table; 0: there is none
 * @next: the entry after one, in a chain
 */
struct shadow {
	void *memory;
	uint64_t address;
	uint16_t added;
	uint16_t published;
	uint16_t taken;
	bool indirect;
	bool event_index;
	uint16_t free_count;
	uint16_t free[SHADOW_SIZE];
	uint16_t length[SHADOW_SIZE];
	uint16_t next[SHADOW_SIZE];
};

/* @memory is all zeroes; @features: of the ring, as the device has them. */
void shadow_init(struct shadow *shadow, void *memory, uint64_t address, uint64_t features);

/* The entries of the table that a chain of @count descriptors takes; there are @free_count. */
unsigned int shadow_needs(const struct shadow *shadow, unsigned int count);

/**
 * shadow_add - add a chain, of which the device is not told yet
 * @desc: its descriptors, with flags of 0 or VRING_DESC_F_WRITE; @count of them, 1 to SHADOW_SIZE
 *
 * There has to be room. Return: what shadow_take() calls it.
 */
uint16_t shadow_add(struct shadow *shadow, const struct vring_desc *desc, unsigned int count);

/* Tell of all that was added. True: the device wants a kick for it. */
bool shadow_publish(struct shadow *shadow);

/**
 * shadow_take - take a chain that the device is done with
 * @ret_written: what the device says that it has written: any number
 *
 * Return: 1; 0 when there is none; -EPROTO: the device names what it does not have.
 */
int shadow_take(struct shadow *shadow, uint16_t *ret_head, uint32_t *ret_written);

/* Ask for no calls; some may come all the same. */
void shadow_call_disable(struct shadow *shadow);

/* Ask for calls. True: something was done before the device could know; no call tells of that. */
bool shadow_call_enable(struct shadow *shadow);

#endif /* VMM_SHADOW_H */
