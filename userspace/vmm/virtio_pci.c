// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio over PCI (virtio 1.2, section 4.1), modern devices only.
 *
 * The transport keeps what the driver sets up, and judges it: a device is started with rings that
 * are aligned, of a legal size and inside the guest's memory, or not at all. What the standard lets
 * a device ignore is ignored; a setup that cannot work ends in DEVICE_NEEDS_RESET.
 *
 * One BAR holds everything, a page each: the common configuration, the ISR, the device's own
 * configuration, the doorbells, and MSI-X. There is no INTx.
 *
 * The launcher is on the way of no request. A doorbell is its queue's eventfd, signalled by the
 * kernel itself where it can; and while a queue's vector is open, the kernel takes the device's
 * calls too, and sends the message. Those of a masked vector come here, and wait.
 *
 * Doorbells take no lock: the eventfds are there from creation to destruction. Everything else is
 * under the function's lock, which is inside the bus's.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devmodel/device.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/msix.h"
#include "userspace/vmm/pci.h"
#include "userspace/vmm/virtio_pci.h"
#include "userspace/vmm/vm.h"

#define VIRTIO_VENDOR		0x1af4
#define VIRTIO_DEVICE_BASE	0x1040
#define VIRTIO_SUBSYSTEM_BASE	0x0040
#define VIRTIO_REVISION		1

#define VIRTIO_BAR		0
#define VIRTIO_BAR_SIZE		0x8000
#define VIRTIO_PAGE		0x1000
#define VIRTIO_PAGE_COMMON	0
#define VIRTIO_PAGE_ISR		1
#define VIRTIO_PAGE_DEVICE	2
#define VIRTIO_PAGE_NOTIFY	3
#define VIRTIO_PAGE_MSIX	4
#define VIRTIO_PAGE_PENDING	5

#define VIRTIO_COMMON_SIZE	56
#define VIRTIO_CONFIG_MAX	256
#define VIRTIO_NOTIFY_STRIDE	4
#define VIRTIO_QUEUES_MAX	(VIRTIO_PAGE / MSIX_ENTRY_SIZE - 1)
#define VIRTIO_ISR_QUEUE	1

/* In struct virtio_pci_cfg_cap; named here since the header has only the struct. */
#define CFG_CAP_BAR		4
#define CFG_CAP_OFFSET		8
#define CFG_CAP_LENGTH		12
#define CFG_CAP_DATA		16
#define CFG_CAP_SIZE		20

/**
 * struct virtio_queue - a queue as the driver sees it
 * @source: waits for ring.call
 * @ring: what the device gets; its descriptors live as long as the queue
 * @gsi: the kernel's line for its interrupts, or negative
 * @address, @data: the message of that line
 * @direct: the kernel takes ring.call
 */
struct virtio_queue {
	struct loop_source source;
	struct virtio_pci *virtio;
	struct dev_vring ring;
	int gsi;
	uint64_t address;
	uint32_t data;
	bool direct;
	uint16_t vector;
	bool enabled;
};

/**
 * struct virtio_pci - a device on the bus
 * @err_source: waits for the devices' word that a ring is broken
 * @config_source: waits for its word that its configuration has changed
 * @doorbells: where the kernel takes doorbells, 0: nowhere
 * @generation: of the configuration, and what that was: @config
 */
struct virtio_pci {
	struct pci_function pci;
	struct device *dev;
	struct vm *vm;
	const struct memory *memory;
	struct loop_source err_source;
	struct loop_source config_source;
	uint64_t doorbells;
	unsigned int msix_cap;
	unsigned int cfg_cap;

	pthread_mutex_t lock;
	struct msix msix;
	uint64_t driver_features;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t status;
	uint8_t isr;
	uint8_t generation;
	uint8_t config[VIRTIO_CONFIG_MAX];
	bool running;
	unsigned int queue_count;
	struct virtio_queue queue[];
};

static uint64_t virtio_features(struct virtio_pci *virtio)
{
	return virtio->dev->ops->features(virtio->dev) | 1ULL << VIRTIO_F_VERSION_1;
}

static bool virtio_is_packed(const struct virtio_pci *virtio)
{
	return virtio->driver_features >> VIRTIO_F_RING_PACKED & 1;
}

static void virtio_interrupt(struct virtio_pci *virtio, uint16_t vector, uint8_t isr)
{
	if (virtio->msix.enabled)
		msix_raise(&virtio->msix, vector);
	else
		virtio->isr |= isr;
}

static void virtio_needs_reset(struct virtio_pci *virtio)
{
	if (virtio->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	virtio->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (virtio->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_interrupt(virtio, virtio->config_vector, VIRTIO_PCI_ISR_CONFIG);
}

/* What the kernel is to do by itself */

static void virtio_route_queue(struct virtio_queue *queue)
{
	const struct msix_entry *entry = msix_open(&queue->virtio->msix, queue->vector);
	struct vm *vm = queue->virtio->vm;
	bool direct = entry && entry->address;

	if (queue->gsi < 0)
		return;
	if (direct && (entry->address != queue->address || entry->data != queue->data)) {
		queue->address = entry->address;
		queue->data = entry->data;
		vm_set_route(vm, queue->gsi, queue->address, queue->data);
	}
	if (direct != queue->direct && !vm_set_irqfd(vm, queue->ring.call, queue->gsi, direct))
		queue->direct = direct;
}

/* After each change to a vector, or to which queue has which. */
static void virtio_route(struct virtio_pci *virtio)
{
	for (unsigned int i = 0; i < virtio->queue_count; i++)
		virtio_route_queue(&virtio->queue[i]);
}

/* Where the kernel cannot take them, they come by way of virtio_bar_write(). */
static void virtio_move_doorbells(struct virtio_pci *virtio)
{
	uint64_t bar = pci_config_get(&virtio->pci, PCI_BASE_ADDRESS_0, 4) &
		       PCI_BASE_ADDRESS_MEM_MASK;
	bool on = pci_config_get(&virtio->pci, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY;
	uint64_t at = on && bar ? bar + VIRTIO_PAGE_NOTIFY * VIRTIO_PAGE : 0;
	uint64_t was = virtio->doorbells;

	for (unsigned int i = 0; i < virtio->queue_count && at != was; i++) {
		unsigned int offset = i * VIRTIO_NOTIFY_STRIDE;
		int kick = virtio->queue[i].ring.kick;

		if (was)
			vm_set_ioeventfd(virtio->vm, was + offset, kick, false);
		if (at)
			vm_set_ioeventfd(virtio->vm, at + offset, kick, true);
	}
	virtio->doorbells = at;
}

/* Life of the device */

static void virtio_queue_reset(struct virtio_queue *queue)
{
	struct dev_vring *ring = &queue->ring;

	*ring = (struct dev_vring){
		.size = queue->virtio->dev->ops->queue_size_max,
		.kick = ring->kick, .call = ring->call, .err = ring->err,
	};
	queue->vector = VIRTIO_MSI_NO_VECTOR;
	queue->enabled = false;
}

static void virtio_stop(struct virtio_pci *virtio)
{
	if (!virtio->running)
		return;
	virtio->dev->ops->stop(virtio->dev);
	virtio->running = false;
	fd_take_event(virtio->err_source.fd);	/* nobody's any more */
}

static void virtio_reset(struct virtio_pci *virtio)
{
	virtio_stop(virtio);
	virtio->driver_features = 0;
	virtio->device_feature_select = 0;
	virtio->driver_feature_select = 0;
	virtio->queue_select = 0;
	virtio->config_vector = VIRTIO_MSI_NO_VECTOR;
	virtio->status = 0;
	virtio->isr = 0;
	for (unsigned int i = 0; i < virtio->queue_count; i++)
		virtio_queue_reset(&virtio->queue[i]);
	virtio_route(virtio);
}

static bool virtio_area_legal(const struct virtio_pci *virtio, uint64_t at, uint64_t len,
			      unsigned int align)
{
	return !(at % align) && memory_at(virtio->memory, at, len);
}

/* Alignments and sizes: virtio 1.2, sections 2.7 "Split Virtqueues" and 2.8 "Packed Virtqueues". */
static bool virtio_ring_legal(const struct virtio_pci *virtio, const struct dev_vring *ring)
{
	const bool packed = virtio_is_packed(virtio);
	uint64_t size = ring->size;

	return (packed || !(size & (size - 1))) &&
	       virtio_area_legal(virtio, ring->desc, 16 * size, 16) &&
	       virtio_area_legal(virtio, ring->avail, packed ? 4 : 6 + 2 * size, packed ? 4 : 2) &&
	       virtio_area_legal(virtio, ring->used, packed ? 4 : 6 + 8 * size, 4);
}

static int virtio_collect(struct virtio_pci *virtio, struct dev_vring *rings)
{
	const uint16_t begin = virtio_is_packed(virtio) ? DEV_PACKED_START : 0;

	for (unsigned int i = 0; i < virtio->queue_count; i++) {
		const struct virtio_queue *queue = &virtio->queue[i];

		rings[i] = queue->ring;
		rings[i].next_avail = begin;
		rings[i].next_used = begin;
		if (!queue->enabled)
			rings[i].size = 0;
		else if (!virtio_ring_legal(virtio, &queue->ring))
			return -EFAULT;
	}
	return 0;
}

static void virtio_start(struct virtio_pci *virtio)
{
	struct dev_vring rings[VIRTIO_QUEUES_MAX];
	struct device *dev = virtio->dev;
	int err;

	err = virtio_collect(virtio, rings);
	if (!err)
		err = dev->ops->start(dev, &virtio->memory->map, virtio->driver_features, rings);
	virtio->running = !err;
	if (err)
		virtio_needs_reset(virtio);
}

/* Bits are only ever added but by a reset, and NEEDS_RESET is not the driver's. */
static void virtio_write_status(struct virtio_pci *virtio, uint8_t value)
{
	uint8_t added = value & ~virtio->status & ~VIRTIO_CONFIG_S_NEEDS_RESET;
	uint64_t refused = virtio->driver_features & ~virtio_features(virtio);

	if (!value) {
		virtio_reset(virtio);
		return;
	}
	if ((added & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    (refused || !(virtio->driver_features >> VIRTIO_F_VERSION_1 & 1)))
		added &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	virtio->status |= added & ~VIRTIO_CONFIG_S_DRIVER_OK;
	if (!(added & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (!(virtio->status & VIRTIO_CONFIG_S_FEATURES_OK) ||
	    (virtio->status & VIRTIO_CONFIG_S_NEEDS_RESET))
		return;
	virtio->status |= VIRTIO_CONFIG_S_DRIVER_OK;
	virtio_start(virtio);
}

/* The common configuration: a row a field, which must be accessed whole. */

static struct virtio_queue *virtio_selected(struct virtio_pci *virtio)
{
	return virtio->queue_select < virtio->queue_count ?
	       &virtio->queue[virtio->queue_select] : NULL;
}

/* The queue selected, where the driver may still set it up. */
static struct virtio_queue *virtio_changeable(struct virtio_pci *virtio)
{
	struct virtio_queue *queue = virtio_selected(virtio);

	if (!queue || queue->enabled || (virtio->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return NULL;
	return queue;
}

/* A vector that is none reads back as such, which tells the driver. */
static uint16_t virtio_vector(const struct virtio_pci *virtio, uint16_t vector)
{
	return vector < virtio->msix.count ? vector : VIRTIO_MSI_NO_VECTOR;
}

static uint32_t virtio_read_queue(struct virtio_pci *virtio, unsigned int offset)
{
	struct virtio_queue *queue = virtio_selected(virtio);

	if (!queue)
		return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return queue->ring.size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return queue->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return queue->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return virtio->queue_select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return queue->ring.desc;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return queue->ring.desc >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return queue->ring.avail;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return queue->ring.avail >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return queue->ring.used;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return queue->ring.used >> 32;
	}
	return 0;
}

static uint32_t virtio_read_features(uint64_t features, uint32_t select)
{
	return select < 2 ? features >> 32 * select : 0;
}

/* Another one whenever something is not as it was found before. */
static uint8_t virtio_read_generation(struct virtio_pci *virtio)
{
	uint32_t size = virtio->dev->ops->config_size;
	uint8_t config[VIRTIO_CONFIG_MAX];

	if (!size)
		return 0;
	virtio->dev->ops->config_read(virtio->dev, 0, config, size);
	if (memcmp(config, virtio->config, size)) {
		memcpy(virtio->config, config, size);
		virtio->generation++;
	}
	return virtio->generation;
}

static uint32_t virtio_read_common(struct virtio_pci *virtio, unsigned int offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return virtio->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_read_features(virtio_features(virtio),
					    virtio->device_feature_select);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return virtio->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return virtio_read_features(virtio->driver_features,
					    virtio->driver_feature_select);
	case VIRTIO_PCI_COMMON_MSIX:
		return virtio->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return virtio->queue_count;
	case VIRTIO_PCI_COMMON_STATUS:
		return virtio->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return virtio_read_generation(virtio);
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return virtio->queue_select;
	}
	return virtio_read_queue(virtio, offset);
}

static void virtio_set_low(uint64_t *address, uint32_t value)
{
	*address = (*address & ~0xffffffffULL) | value;
}

static void virtio_set_high(uint64_t *address, uint32_t value)
{
	*address = (uint32_t)*address | (uint64_t)value << 32;
}

static void virtio_write_size(struct virtio_queue *queue, uint16_t size)
{
	if (size && (virtio_is_packed(queue->virtio) || !(size & (size - 1))) &&
	    size <= queue->virtio->dev->ops->queue_size_max)
		queue->ring.size = size;
}

static void virtio_write_queue(struct virtio_pci *virtio, unsigned int offset, uint32_t value)
{
	struct virtio_queue *queue = virtio_changeable(virtio);

	if (!queue)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		virtio_write_size(queue, value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		queue->enabled = value == 1;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		virtio_set_low(&queue->ring.desc, value);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		virtio_set_high(&queue->ring.desc, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		virtio_set_low(&queue->ring.avail, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		virtio_set_high(&queue->ring.avail, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		virtio_set_low(&queue->ring.used, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		virtio_set_high(&queue->ring.used, value);
		break;
	}
}

static void virtio_write_features(struct virtio_pci *virtio, uint32_t value)
{
	if (virtio->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (virtio->driver_feature_select == 0)
		virtio_set_low(&virtio->driver_features, value);
	else if (virtio->driver_feature_select == 1)
		virtio_set_high(&virtio->driver_features, value);
}

static void virtio_write_common(struct virtio_pci *virtio, unsigned int offset, uint32_t value)
{
	struct virtio_queue *queue = virtio_selected(virtio);

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		virtio->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		virtio->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_write_features(virtio, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		virtio->config_vector = virtio_vector(virtio, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_write_status(virtio, value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		virtio->queue_select = value;
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		if (queue) {
			queue->vector = virtio_vector(virtio, value);
			virtio_route_queue(queue);
		}
		break;
	default:
		virtio_write_queue(virtio, offset, value);
	}
}

/* The width of the field at @offset; 0: none starts there. Addresses are two halves. */
static unsigned int virtio_common_width(unsigned int offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_STATUS:
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return 1;
	case VIRTIO_PCI_COMMON_MSIX:
	case VIRTIO_PCI_COMMON_NUMQ:
	case VIRTIO_PCI_COMMON_Q_SELECT:
	case VIRTIO_PCI_COMMON_Q_SIZE:
	case VIRTIO_PCI_COMMON_Q_MSIX:
	case VIRTIO_PCI_COMMON_Q_ENABLE:
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return 2;
	}
	return offset < VIRTIO_COMMON_SIZE && !(offset % 4) ? 4 : 0;
}

/* The device's own configuration: at most its size is ever read or written. */

static uint64_t virtio_read_device(struct virtio_pci *virtio, unsigned int offset,
				   unsigned int len)
{
	struct device *dev = virtio->dev;
	uint64_t value = 0;

	if (offset < dev->ops->config_size && len <= dev->ops->config_size - offset)
		dev->ops->config_read(dev, offset, &value, len);
	return value;
}

static void virtio_write_device(struct virtio_pci *virtio, unsigned int offset, uint64_t value,
				unsigned int len)
{
	struct device *dev = virtio->dev;

	if (dev->ops->config_write && offset < dev->ops->config_size &&
	    len <= dev->ops->config_size - offset)
		dev->ops->config_write(dev, offset, &value, len);
}

/* The BAR */

static uint64_t virtio_read_isr(struct virtio_pci *virtio)
{
	uint8_t isr = virtio->isr;

	virtio->isr = 0;
	return isr;
}

static uint64_t virtio_read_page(struct virtio_pci *virtio, unsigned int page, unsigned int at,
				 unsigned int len)
{
	switch (page) {
	case VIRTIO_PAGE_COMMON:
		return len == virtio_common_width(at) ? virtio_read_common(virtio, at) : 0;
	case VIRTIO_PAGE_ISR:
		return at ? 0 : virtio_read_isr(virtio);
	case VIRTIO_PAGE_DEVICE:
		return virtio_read_device(virtio, at, len);
	case VIRTIO_PAGE_MSIX:
		return msix_table_read(&virtio->msix, at, len);
	case VIRTIO_PAGE_PENDING:
		return msix_pending_read(&virtio->msix, at, len);
	}
	return 0;
}

static void virtio_write_page(struct virtio_pci *virtio, unsigned int page, unsigned int at,
			      uint64_t value, unsigned int len)
{
	switch (page) {
	case VIRTIO_PAGE_COMMON:
		if (len == virtio_common_width(at))
			virtio_write_common(virtio, at, value);
		break;
	case VIRTIO_PAGE_DEVICE:
		virtio_write_device(virtio, at, value, len);
		break;
	case VIRTIO_PAGE_MSIX:
		msix_table_write(&virtio->msix, at, value, len);
		virtio_route(virtio);
		break;
	}
}

static void virtio_notify(struct virtio_pci *virtio, unsigned int at)
{
	unsigned int queue = at / VIRTIO_NOTIFY_STRIDE;

	if (queue < virtio->queue_count)
		fd_signal_event(virtio->queue[queue].ring.kick);
}

static uint64_t virtio_bar_read(struct pci_function *function, unsigned int bar, uint64_t offset,
				unsigned int len)
{
	struct virtio_pci *virtio = (struct virtio_pci *)function;
	uint64_t value;

	(void)bar;
	pthread_mutex_lock(&virtio->lock);
	value = virtio_read_page(virtio, offset / VIRTIO_PAGE, offset % VIRTIO_PAGE, len);
	pthread_mutex_unlock(&virtio->lock);
	return value;
}

static void virtio_bar_write(struct pci_function *function, unsigned int bar, uint64_t offset,
			     uint64_t value, unsigned int len)
{
	struct virtio_pci *virtio = (struct virtio_pci *)function;

	(void)bar;
	if (offset / VIRTIO_PAGE == VIRTIO_PAGE_NOTIFY) {
		virtio_notify(virtio, offset % VIRTIO_PAGE);
		return;
	}
	pthread_mutex_lock(&virtio->lock);
	virtio_write_page(virtio, offset / VIRTIO_PAGE, offset % VIRTIO_PAGE, value, len);
	pthread_mutex_unlock(&virtio->lock);
}

/* The window to the BAR in configuration space, for firmware that cannot map BARs. */

static bool virtio_touches(unsigned int offset, unsigned int len, unsigned int first,
			   unsigned int count)
{
	return offset < first + count && first < offset + len;
}

static bool virtio_window(struct virtio_pci *virtio, uint64_t *ret_offset, unsigned int *ret_len)
{
	struct pci_function *pci = &virtio->pci;
	uint32_t offset = pci_config_get(pci, virtio->cfg_cap + CFG_CAP_OFFSET, 4);
	uint32_t len = pci_config_get(pci, virtio->cfg_cap + CFG_CAP_LENGTH, 4);

	if (pci_config_get(pci, virtio->cfg_cap + CFG_CAP_BAR, 1) != VIRTIO_BAR ||
	    (len != 1 && len != 2 && len != 4) || offset % len || offset >= VIRTIO_BAR_SIZE)
		return false;
	*ret_offset = offset;
	*ret_len = len;
	return true;
}

static void virtio_config_read(struct pci_function *function, unsigned int offset,
			       unsigned int len)
{
	struct virtio_pci *virtio = (struct virtio_pci *)function;
	unsigned int width;
	uint64_t at;

	if (!virtio_touches(offset, len, virtio->cfg_cap + CFG_CAP_DATA, 4) ||
	    !virtio_window(virtio, &at, &width))
		return;
	pci_config_set(function, virtio->cfg_cap + CFG_CAP_DATA,
		       virtio_bar_read(function, VIRTIO_BAR, at, width), width);
}

static void virtio_config_written(struct pci_function *function, unsigned int offset,
				  unsigned int len)
{
	struct virtio_pci *virtio = (struct virtio_pci *)function;
	unsigned int width;
	uint64_t at;

	if (virtio_touches(offset, len, virtio->msix_cap + PCI_MSIX_FLAGS, 2)) {
		uint32_t flags = pci_config_get(function, virtio->msix_cap + PCI_MSIX_FLAGS, 2);

		pthread_mutex_lock(&virtio->lock);
		msix_control(&virtio->msix, flags & PCI_MSIX_FLAGS_ENABLE,
			     flags & PCI_MSIX_FLAGS_MASKALL);
		virtio_route(virtio);
		pthread_mutex_unlock(&virtio->lock);
	}
	if (virtio_touches(offset, len, PCI_COMMAND, 2) ||
	    virtio_touches(offset, len, PCI_BASE_ADDRESS_0, 4))
		virtio_move_doorbells(virtio);
	if (virtio_touches(offset, len, virtio->cfg_cap + CFG_CAP_DATA, 4) &&
	    virtio_window(virtio, &at, &width))
		virtio_bar_write(function, VIRTIO_BAR, at,
				 pci_config_get(function, virtio->cfg_cap + CFG_CAP_DATA, width),
				 width);
}

static const struct pci_function_ops virtio_pci_ops = {
	.bar_read = virtio_bar_read,
	.bar_write = virtio_bar_write,
	.config_read = virtio_config_read,
	.config_written = virtio_config_written,
};

/* Building it */

static void virtio_add_cap(struct virtio_pci *virtio, uint8_t type, unsigned int page,
			   uint32_t length)
{
	struct virtio_pci_notify_cap cap = {
		.cap = {
			.cap_len = sizeof(cap.cap),
			.cfg_type = type,
			.bar = VIRTIO_BAR,
			.offset = page * VIRTIO_PAGE,
			.length = length,
		},
	};

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
		cap.cap.cap_len = sizeof(cap);
		cap.notify_off_multiplier = VIRTIO_NOTIFY_STRIDE;
	}
	pci_function_add_cap(&virtio->pci, PCI_CAP_ID_VNDR, &cap, cap.cap.cap_len);
}

static void virtio_add_cfg_cap(struct virtio_pci *virtio)
{
	struct virtio_pci_cfg_cap cap = {
		.cap = { .cap_len = CFG_CAP_SIZE, .cfg_type = VIRTIO_PCI_CAP_PCI_CFG },
	};
	unsigned int at = pci_function_add_cap(&virtio->pci, PCI_CAP_ID_VNDR, &cap, CFG_CAP_SIZE);

	virtio->pci.writable[at + CFG_CAP_BAR] = 0xff;
	memset(virtio->pci.writable + at + CFG_CAP_OFFSET, 0xff, CFG_CAP_SIZE - CFG_CAP_OFFSET);
	virtio->cfg_cap = at;
}

static void virtio_add_msix_cap(struct virtio_pci *virtio)
{
	struct {
		uint8_t id, next;
		uint16_t flags;
		uint32_t table;
		uint32_t pending;
	} cap = {
		.flags = virtio->msix.count - 1,
		.table = VIRTIO_PAGE_MSIX * VIRTIO_PAGE | VIRTIO_BAR,
		.pending = VIRTIO_PAGE_PENDING * VIRTIO_PAGE | VIRTIO_BAR,
	};
	unsigned int at = pci_function_add_cap(&virtio->pci, PCI_CAP_ID_MSIX, &cap, sizeof(cap));

	virtio->pci.writable[at + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	virtio->msix_cap = at;
}

static uint32_t virtio_class(uint16_t virtio_id)
{
	switch (virtio_id) {
	case VIRTIO_ID_NET:
		return 0x020000;
	case VIRTIO_ID_BLOCK:
		return 0x018000;
	case VIRTIO_ID_CONSOLE:
		return 0x078000;
	}
	return 0xff0000;
}

static void virtio_build(struct virtio_pci *virtio)
{
	const struct device_ops *ops = virtio->dev->ops;
	struct pci_identity identity = {
		.vendor = VIRTIO_VENDOR,
		.device = VIRTIO_DEVICE_BASE + ops->virtio_id,
		.subsystem_vendor = VIRTIO_VENDOR,
		.subsystem = VIRTIO_SUBSYSTEM_BASE + ops->virtio_id,
		.class = virtio_class(ops->virtio_id),
		.revision = VIRTIO_REVISION,
	};

	pci_function_init(&virtio->pci, &virtio_pci_ops, &identity);
	pci_function_add_bar(&virtio->pci, VIRTIO_BAR, VIRTIO_BAR_SIZE);
	virtio_add_cap(virtio, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PAGE_COMMON, VIRTIO_COMMON_SIZE);
	virtio_add_cap(virtio, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PAGE_ISR, 1);
	virtio_add_cap(virtio, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PAGE_NOTIFY,
		       virtio->queue_count * VIRTIO_NOTIFY_STRIDE);
	if (ops->config_size)
		virtio_add_cap(virtio, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PAGE_DEVICE,
			       ops->config_size);
	virtio_add_cfg_cap(virtio);
	virtio_add_msix_cap(virtio);
}

static void virtio_called(struct loop_source *source)
{
	struct virtio_queue *queue = (struct virtio_queue *)source;
	struct virtio_pci *virtio = queue->virtio;

	if (!fd_take_event(source->fd))
		return;
	pthread_mutex_lock(&virtio->lock);
	virtio_interrupt(virtio, queue->vector, VIRTIO_ISR_QUEUE);
	pthread_mutex_unlock(&virtio->lock);
}

static void virtio_config_changed(struct loop_source *source)
{
	struct virtio_pci *virtio = (struct virtio_pci *)((char *)source -
				     offsetof(struct virtio_pci, config_source));

	pthread_mutex_lock(&virtio->lock);
	if (fd_take_event(source->fd) && (virtio->status & VIRTIO_CONFIG_S_DRIVER_OK))
		virtio_interrupt(virtio, virtio->config_vector, VIRTIO_PCI_ISR_CONFIG);
	pthread_mutex_unlock(&virtio->lock);
}

static void virtio_broken(struct loop_source *source)
{
	struct virtio_pci *virtio = (struct virtio_pci *)((char *)source -
				     offsetof(struct virtio_pci, err_source));

	pthread_mutex_lock(&virtio->lock);
	if (fd_take_event(source->fd) && virtio->running)
		virtio_needs_reset(virtio);
	pthread_mutex_unlock(&virtio->lock);
}

static int virtio_eventfd(int *ret_fd)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int virtio_queue_init(struct virtio_pci *virtio, struct virtio_queue *queue,
			     struct loop *loop)
{
	int err = virtio_eventfd(&queue->ring.kick);

	if (!err)
		err = virtio_eventfd(&queue->ring.call);
	if (err)
		return err;
	queue->virtio = virtio;
	queue->ring.err = virtio->err_source.fd;
	queue->source = (struct loop_source){ .fd = queue->ring.call, .ready = virtio_called };
	queue->gsi = vm_alloc_gsi(virtio->vm);
	virtio_queue_reset(queue);
	return loop_add(loop, &queue->source);
}

static int virtio_init(struct virtio_pci *virtio, struct loop *loop)
{
	int err = virtio_eventfd(&virtio->err_source.fd);

	virtio->err_source.ready = virtio_broken;
	if (!err)
		err = loop_add(loop, &virtio->err_source);
	if (!err)
		err = msix_init(&virtio->msix, virtio->vm, virtio->queue_count + 1);
	for (unsigned int i = 0; i < virtio->queue_count && !err; i++)
		err = virtio_queue_init(virtio, &virtio->queue[i], loop);
	return err;
}

static struct virtio_pci *virtio_alloc(struct device *dev, const struct memory *memory)
{
	unsigned int count = dev->ops->queue_count;
	struct virtio_pci *virtio;

	if (!count || count > VIRTIO_QUEUES_MAX || dev->ops->config_size > VIRTIO_CONFIG_MAX)
		return NULL;
	virtio = calloc(1, sizeof(*virtio) + count * sizeof(virtio->queue[0]));
	if (!virtio)
		return NULL;
	virtio->dev = dev;
	virtio->memory = memory;
	virtio->queue_count = count;
	virtio->config_vector = VIRTIO_MSI_NO_VECTOR;
	virtio->err_source.fd = -1;
	virtio->config_source.fd = -1;
	for (unsigned int i = 0; i < count; i++)
		virtio->queue[i].ring = (struct dev_vring){ .kick = -1, .call = -1 };
	pthread_mutex_init(&virtio->lock, NULL);
	return virtio;
}

int virtio_pci_create(struct device *dev, struct vm *vm, const struct memory *memory,
		      struct pci *pci, struct loop *loop, struct virtio_pci **ret)
{
	struct virtio_pci *virtio = virtio_alloc(dev, memory);
	int err;

	if (!virtio) {
		dev->ops->destroy(dev);
		return -ENOMEM;
	}
	virtio->vm = vm;
	err = virtio_init(virtio, loop);
	if (!err) {
		virtio_build(virtio);
		err = pci_add(pci, &virtio->pci);
	}
	if (err) {
		virtio_pci_destroy(virtio);
		return err;
	}
	*ret = virtio;
	return 0;
}

int virtio_pci_watch_config(struct virtio_pci *virtio, struct loop *loop, int event)
{
	virtio->config_source = (struct loop_source){
		.fd = event, .ready = virtio_config_changed,
	};
	return loop_add(loop, &virtio->config_source);
}

unsigned int virtio_pci_slot(const struct virtio_pci *virtio)
{
	return virtio->pci.slot;
}

void virtio_pci_hide(struct virtio_pci *virtio, struct pci *pci)
{
	pci_hide(pci, &virtio->pci);
}

/* What the kernel does by itself ends with the doorbells and the reset; then there is the loop. */
int virtio_pci_remove(struct virtio_pci *virtio, struct pci *pci, struct loop *loop)
{
	int err;

	pci_remove(pci, &virtio->pci);
	pci_config_set(&virtio->pci, PCI_COMMAND, 0, 2);
	virtio_move_doorbells(virtio);
	pthread_mutex_lock(&virtio->lock);
	virtio_reset(virtio);
	pthread_mutex_unlock(&virtio->lock);
	for (unsigned int i = 0; i < virtio->queue_count; i++)
		loop_remove(loop, &virtio->queue[i].source);
	loop_remove(loop, &virtio->err_source);
	loop_remove(loop, &virtio->config_source);
	err = loop_sync(loop);
	if (err)
		return err;
	for (unsigned int i = 0; i < virtio->queue_count; i++)
		vm_free_gsi(virtio->vm, virtio->queue[i].gsi);
	virtio_pci_destroy(virtio);
	return 0;
}

void virtio_pci_destroy(struct virtio_pci *virtio)
{
	if (!virtio)
		return;
	virtio_stop(virtio);
	virtio->dev->ops->destroy(virtio->dev);
	for (unsigned int i = 0; i < virtio->queue_count; i++) {
		fd_close(virtio->queue[i].ring.kick);
		fd_close(virtio->queue[i].ring.call);
	}
	fd_close(virtio->err_source.fd);
	msix_finish(&virtio->msix);
	pthread_mutex_destroy(&virtio->lock);
	free(virtio);
}
