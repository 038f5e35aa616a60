/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_MSIX_H
#define VMM_MSIX_H

#include <stdbool.h>
#include <stdint.h>

struct vm;

#define MSIX_ENTRY_SIZE	16

struct msix_entry {
	uint64_t address;
	uint32_t data;
	bool masked;
	bool pending;
};

/**
 * struct msix - the message-signalled interrupts of a function; its owner's lock guards it
 * @enabled, @masked: of the capability's message control, by msix_control()
 */
struct msix {
	struct vm *vm;
	unsigned int count;
	bool enabled;
	bool masked;
	struct msix_entry *entry;
};

int msix_init(struct msix *msix, struct vm *vm, unsigned int count);
void msix_finish(struct msix *msix);

/* The guest wrote the capability's message control. */
void msix_control(struct msix *msix, bool enabled, bool masked);

/* Send the message of an entry, or keep it for the unmasking. A @vector that is none is ignored. */
void msix_raise(struct msix *msix, unsigned int vector);

/* The entry of a vector that would be sent at once; NULL: none, or one that is masked. */
const struct msix_entry *msix_open(const struct msix *msix, unsigned int vector);

uint64_t msix_table_read(const struct msix *msix, uint64_t offset, unsigned int len);
void msix_table_write(struct msix *msix, uint64_t offset, uint64_t value, unsigned int len);
uint64_t msix_pending_read(const struct msix *msix, uint64_t offset, unsigned int len);

#endif /* VMM_MSIX_H */
