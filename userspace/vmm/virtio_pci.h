/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

struct device;
struct loop;
struct memory;
struct pci;
struct virtio_pci;
struct vm;

/**
 * virtio_pci_create - put a virtio device onto the PCI bus
 * @dev: the device, which is the transport's from here on, on failure too
 * @loop: where its interrupts are waited for; must have ended before virtio_pci_destroy()
 *
 * Return: 0 or a negative errno.
 */
int virtio_pci_create(struct device *dev, struct vm *vm, const struct memory *memory,
		      struct pci *pci, struct loop *loop, struct virtio_pci **ret);

/**
 * virtio_pci_watch_config - have the driver told when the device's configuration changes
 * @event: eventfd, non-blocking, to which the device then adds; stays the caller's
 *
 * Return: 0 or a negative errno.
 */
int virtio_pci_watch_config(struct virtio_pci *virtio, struct loop *loop, int event);

/* Where on the bus it is. */
unsigned int virtio_pci_slot(const struct virtio_pci *virtio);

/* The guest finds it no more. From any thread but in an access to it. */
void virtio_pci_hide(struct virtio_pci *virtio, struct pci *pci);

/**
 * virtio_pci_remove - take it off the bus while the machine runs, and destroy it with its device
 *
 * Return: 0; a negative errno, and then it has stopped and cannot be found, but is still there.
 */
int virtio_pci_remove(struct virtio_pci *virtio, struct pci *pci, struct loop *loop);

/* Stops and destroys the device too. NULL is fine. Nothing of the bus may run any more. */
void virtio_pci_destroy(struct virtio_pci *virtio);

#endif /* VMM_VIRTIO_PCI_H */
