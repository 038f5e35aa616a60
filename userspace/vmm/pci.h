/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include <pthread.h>
#include <stdint.h>

struct bus;

#define PCI_CONFIG_SIZE	256
#define PCI_SLOTS	32
#define PCI_FUNCTION_BARS 6

struct pci_function;

/**
 * struct pci_function_ops - what is particular to a function
 * @bar_read, @bar_write: an access to a BAR, offset + len within it; on any vCPU's thread
 * @config_read: called before a read of the configuration, to bring those bytes up to date; or NULL
 * @config_written: called after a write that changed bytes of the configuration; or NULL
 */
struct pci_function_ops {
	uint64_t (*bar_read)(struct pci_function *function, unsigned int bar, uint64_t offset,
			     unsigned int len);
	void (*bar_write)(struct pci_function *function, unsigned int bar, uint64_t offset,
			  uint64_t value, unsigned int len);
	void (*config_read)(struct pci_function *function, unsigned int offset, unsigned int len);
	void (*config_written)(struct pci_function *function, unsigned int offset,
			       unsigned int len);
};

/**
 * struct pci_function - a single-function device on the root bus
 * @config: its configuration space
 * @writable: the bits of it that the guest may change
 * @bar_size: bytes, a power of two, 0: no such BAR. 32-bit memory BARs only
 * @slot: where it is
 * @busy: who is in a call of @ops->bar_read or bar_write has it for reading
 * @cap_end: where the next capability goes
 * @cap_last: offset of the byte that points to it
 */
struct pci_function {
	const struct pci_function_ops *ops;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];
	uint32_t bar_size[PCI_FUNCTION_BARS];
	unsigned int slot;
	pthread_rwlock_t busy;
	unsigned int cap_end;
	unsigned int cap_last;
};

/**
 * struct pci - a PCI Express root bus, reached by ECAM and by ports 0xcf8 and 0xcfc
 * @lock: all configuration spaces, which BARs are looked up in, and slots; outside of functions' own locks
 * @address: last written to 0xcf8
 */
struct pci {
	pthread_rwlock_t lock;
	struct pci_function *slot[PCI_SLOTS];
	struct pci_function bridge;
	uint32_t address;
};

void pci_init(struct pci *pci, struct bus *pio, struct bus *mmio);
void pci_finish(struct pci *pci);

/* The identity of a function, of which the rest is then made by the calls below. */
struct pci_identity {
	uint16_t vendor;
	uint16_t device;
	uint16_t subsystem_vendor;
	uint16_t subsystem;
	uint32_t class;		/* base class, subclass, interface */
	uint8_t revision;
};

void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops,
		       const struct pci_identity *identity);

/**
 * pci_function_add_cap - append a capability
 * @body: its bytes; id and next pointer, the first two, are filled in here
 *
 * Return: its offset in the configuration space.
 */
unsigned int pci_function_add_cap(struct pci_function *function, uint8_t id, void *body,
				  unsigned int len);

void pci_function_add_bar(struct pci_function *function, unsigned int bar, uint32_t size);

uint32_t pci_config_get(const struct pci_function *function, unsigned int offset,
			unsigned int len);
void pci_config_set(struct pci_function *function, unsigned int offset, uint32_t value,
		    unsigned int len);

/* Put a function into the first free slot and place its BARs. -ENOSPC: no slot, or no room. */
int pci_add(struct pci *pci, struct pci_function *function);

/*
 * Take it out again, if it is there: the guest finds it no more. pci_remove(): and when it returns, no vCPU is in
 * the function any more, so that it can go. Not from a call of the function's.
 */
void pci_hide(struct pci *pci, struct pci_function *function);
void pci_remove(struct pci *pci, struct pci_function *function);

#endif /* VMM_PCI_H */
