// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The virtio-pci transport as a driver meets it: over configuration space and BAR, with a device
 * that only notes what it is told, and messages that are counted instead of sent.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "userspace/lib/array.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/bus.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/pci.h"
#include "userspace/vmm/virtio_pci.h"
#include "userspace/vmm/vm.h"

#define TEST_SLOT	1	/* behind the bridge */
#define TEST_BAR_MOVED	0xd0000000u
#define TEST_FEATURES	(0x21ULL | 1ULL << VIRTIO_F_RING_PACKED)
#define TEST_QUEUES	2
#define TEST_MEMORY	(4 << 20)

static unsigned int checks, failures;

static void check(bool good, const char *what)
{
	checks++;
	failures += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, what);
}

/* Messages, counted in place of vm.c */

static unsigned int msi_count;
static uint64_t msi_address;
static uint32_t msi_data;

void vm_signal_msi(struct vm *vm, uint64_t address, uint32_t data)
{
	(void)vm;
	msi_address = address;
	msi_data = data;
	__atomic_add_fetch(&msi_count, 1, __ATOMIC_SEQ_CST);
}

/* What the kernel would do by itself is noted; here it comes by the launcher all the same. */

static unsigned int irqfds, doorbells;
static uint64_t route_address, doorbell_address;
static uint32_t route_data;

static int gsis;

int vm_alloc_gsi(struct vm *vm)
{
	static int next = 24;

	(void)vm;
	gsis++;
	return next++;
}

void vm_free_gsi(struct vm *vm, int gsi)
{
	(void)vm;
	gsis -= gsi >= 24;
}

void vm_set_route(struct vm *vm, unsigned int gsi, uint64_t address, uint32_t data)
{
	(void)vm;
	(void)gsi;
	route_address = address;
	route_data = data;
}

int vm_set_irqfd(struct vm *vm, int fd, unsigned int gsi, bool attach)
{
	(void)vm;
	(void)fd;
	(void)gsi;
	irqfds += attach ? 1 : -1;
	return 0;
}

int vm_set_ioeventfd(struct vm *vm, uint64_t address, int fd, bool attach)
{
	(void)vm;
	(void)fd;
	doorbells += attach ? 1 : -1;
	if (attach)
		doorbell_address = address;
	return 0;
}

static bool msi_arrives(unsigned int count)
{
	for (unsigned int i = 0; i < 1000; i++) {
		if (__atomic_load_n(&msi_count, __ATOMIC_SEQ_CST) == count)
			return true;
		usleep(1000);
	}
	return false;
}

/* The device */

static struct {
	struct device device;
	unsigned int starts, stops, destroyed;
	uint64_t features;
	struct dev_vring rings[TEST_QUEUES];
	uint8_t config[6];
} fake;

static uint64_t fake_features(struct device *dev)
{
	(void)dev;
	return TEST_FEATURES;
}

static void fake_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	(void)dev;
	memcpy(buf, fake.config + offset, len);
}

static void fake_config_write(struct device *dev, uint32_t offset, const void *buf, uint32_t len)
{
	(void)dev;
	memcpy(fake.config + offset, buf, len);
}

static int fake_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		      const struct dev_vring *rings)
{
	(void)dev;
	(void)memory;
	fake.starts++;
	fake.features = features;
	memcpy(fake.rings, rings, sizeof(fake.rings));
	return 0;
}

static void fake_stop(struct device *dev)
{
	(void)dev;
	fake.stops++;
}

static void fake_destroy(struct device *dev)
{
	(void)dev;
	fake.destroyed++;
}

static const struct device_ops fake_ops = {
	.name = "fake", .virtio_id = 4, .queue_count = TEST_QUEUES, .queue_size_max = 64,
	.config_size = sizeof(fake.config), .features = fake_features,
	.config_read = fake_config_read, .config_write = fake_config_write,
	.start = fake_start, .stop = fake_stop, .destroy = fake_destroy,
};

/* The driver */

static struct bus pio, mmio;
static int config_event;
static uint32_t bar;

static uint64_t config_get(unsigned int offset, unsigned int len)
{
	uint64_t value = 0;

	bus_read(&mmio, LAYOUT_ECAM + (TEST_SLOT << 15) + offset, &value, len);
	return value;
}

static void config_set(unsigned int offset, uint64_t value, unsigned int len)
{
	bus_write(&mmio, LAYOUT_ECAM + (TEST_SLOT << 15) + offset, &value, len);
}

static uint64_t bar_get(unsigned int offset, unsigned int len)
{
	uint64_t value = 0;

	bus_read(&mmio, bar + offset, &value, len);
	return value;
}

static void bar_set(unsigned int offset, uint64_t value, unsigned int len)
{
	bus_write(&mmio, bar + offset, &value, len);
}

static unsigned int find_cap(uint8_t id, uint8_t type)
{
	unsigned int at = config_get(PCI_CAPABILITY_LIST, 1);

	for (; at; at = config_get(at + PCI_CAP_LIST_NEXT, 1))
		if (config_get(at, 1) == id &&
		    (id != PCI_CAP_ID_VNDR || config_get(at + VIRTIO_PCI_CAP_CFG_TYPE, 1) == type))
			return at;
	return 0;
}

static unsigned int cap_offset(uint8_t type)
{
	return config_get(find_cap(PCI_CAP_ID_VNDR, type) + VIRTIO_PCI_CAP_OFFSET, 4);
}

static unsigned int status(void)
{
	return bar_get(VIRTIO_PCI_COMMON_STATUS, 1);
}

static void set_status(unsigned int value)
{
	bar_set(VIRTIO_PCI_COMMON_STATUS, value, 1);
}

static void set_features(uint64_t features)
{
	for (unsigned int i = 0; i < 2; i++) {
		bar_set(VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		bar_set(VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32 * i), 4);
	}
}

/* As far as FEATURES_OK. */
static void negotiate(uint64_t features)
{
	set_status(0);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	set_features(features);
	set_status(status() | VIRTIO_CONFIG_S_FEATURES_OK);
}

static void set_queue(unsigned int queue, unsigned int size, uint64_t desc, uint64_t avail,
		      uint64_t used)
{
	bar_set(VIRTIO_PCI_COMMON_Q_SELECT, queue, 2);
	bar_set(VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	bar_set(VIRTIO_PCI_COMMON_Q_DESCLO, (uint32_t)desc, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_DESCHI, desc >> 32, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_AVAILLO, (uint32_t)avail, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_AVAILHI, avail >> 32, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_USEDLO, (uint32_t)used, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_USEDHI, used >> 32, 4);
	bar_set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

static void driver_ok(void)
{
	set_status(status() | VIRTIO_CONFIG_S_DRIVER_OK);
}

#define GOOD_FEATURES	(0x21ULL | 1ULL << VIRTIO_F_VERSION_1)
#define PACKED_FEATURES	(GOOD_FEATURES | 1ULL << VIRTIO_F_RING_PACKED)

static void start_good(void)
{
	negotiate(GOOD_FEATURES);
	set_queue(0, 32, 0x10000, 0x20000, 0x30000);
	driver_ok();
}

static void test_identity(void)
{
	check(config_get(PCI_VENDOR_ID, 4) == 0x10441af4, "identity of a modern entropy device");
	check(config_get(PCI_REVISION_ID, 1) >= 1, "revision of a modern device");
	config_set(PCI_VENDOR_ID, 0, 4);
	check(config_get(PCI_VENDOR_ID, 4) == 0x10441af4, "identity cannot be written");
	for (uint8_t type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_PCI_CFG; type++)
		check(find_cap(PCI_CAP_ID_VNDR, type), "a virtio capability is there");
	check(find_cap(PCI_CAP_ID_MSIX, 0), "the MSI-X capability is there");
	check(config_get(0x100, 4) == 0, "no extended capability");
}

static void test_bar(void)
{
	bar = config_get(PCI_BASE_ADDRESS_0, 4);
	check(bar >= LAYOUT_PCI_MEM && !(bar & 0x7fff),
	      "the BAR is placed, at a multiple of its size");
	check(bar_get(VIRTIO_PCI_COMMON_NUMQ, 2) == 0xffff, "nothing answers while memory is off");
	config_set(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	check(bar_get(VIRTIO_PCI_COMMON_NUMQ, 2) == TEST_QUEUES, "the BAR answers");
	config_set(PCI_BASE_ADDRESS_0, 0xffffffff, 4);
	check(config_get(PCI_BASE_ADDRESS_0, 4) == 0xffff8000, "the BAR's size");
	check(bar_get(VIRTIO_PCI_COMMON_NUMQ, 2) == 0xffff, "it answers no more where it was");
	config_set(PCI_BASE_ADDRESS_0, TEST_BAR_MOVED, 4);
	bar = TEST_BAR_MOVED;
	check(bar_get(VIRTIO_PCI_COMMON_NUMQ, 2) == TEST_QUEUES, "it answers where it was moved");
	check(doorbells == TEST_QUEUES &&
	      doorbell_address == bar + cap_offset(VIRTIO_PCI_CAP_NOTIFY_CFG) + 4,
	      "the kernel takes the doorbells, there and nowhere else");
	config_set(PCI_COMMAND, 0, 2);
	check(!doorbells, "none while memory is off");
	config_set(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static void test_features(void)
{
	negotiate(GOOD_FEATURES);
	check(status() & VIRTIO_CONFIG_S_FEATURES_OK, "features offered are accepted");
	set_features(0);
	bar_set(VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	check(bar_get(VIRTIO_PCI_COMMON_GF, 4) == (uint32_t)TEST_FEATURES,
	      "features are fixed once accepted");
	negotiate(GOOD_FEATURES | 2);
	check(!(status() & VIRTIO_CONFIG_S_FEATURES_OK), "a feature not offered is refused");
	negotiate(TEST_FEATURES);
	check(!(status() & VIRTIO_CONFIG_S_FEATURES_OK), "a driver without VERSION_1 is refused");
	driver_ok();
	check(!(status() & VIRTIO_CONFIG_S_DRIVER_OK) && !fake.starts,
	      "DRIVER_OK without FEATURES_OK starts nothing");
}

static void test_start(void)
{
	start_good();
	check(fake.starts == 1 && fake.features == GOOD_FEATURES, "DRIVER_OK starts the device");
	check(fake.rings[0].size == 32 && fake.rings[0].desc == 0x10000 &&
	      fake.rings[0].avail == 0x20000 && fake.rings[0].used == 0x30000,
	      "with the ring that was set up");
	check(fake.rings[1].size == 0, "and none that was not");
	check(!fake.rings[0].next_avail && !fake.rings[0].next_used, "from its beginning");
	driver_ok();
	check(fake.starts == 1, "DRIVER_OK again starts nothing");
	bar_set(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	bar_set(VIRTIO_PCI_COMMON_Q_DESCLO, 0x50000, 4);
	check(bar_get(VIRTIO_PCI_COMMON_Q_DESCLO, 4) == 0x10000, "a ring in use cannot be moved");
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	check(status() & VIRTIO_CONFIG_S_DRIVER_OK, "status bits cannot be cleared one by one");
	set_status(0);
	check(fake.stops == 1 && !status(), "a reset stops the device");
	check(bar_get(VIRTIO_PCI_COMMON_Q_SIZE, 2) == 64 &&
	      !bar_get(VIRTIO_PCI_COMMON_Q_ENABLE, 2) && !bar_get(VIRTIO_PCI_COMMON_Q_DESCLO, 4),
	      "and forgets its queues");
}

static void test_start_packed(void)
{
	unsigned int starts = fake.starts;

	negotiate(PACKED_FEATURES);
	set_queue(0, 33, 0x10000, 0x20000, TEST_MEMORY - 4);
	driver_ok();
	check(fake.starts == starts + 1 && fake.rings[0].size == 33 &&
	      fake.rings[0].used == TEST_MEMORY - 4, "a packed ring of any size starts");
	check(fake.rings[0].next_avail == DEV_PACKED_START &&
	      fake.rings[0].next_used == DEV_PACKED_START, "with wrap counters that are set");
}

static void test_bad_queue(uint64_t features, unsigned int size, uint64_t desc, uint64_t avail,
			   uint64_t used, const char *what)
{
	unsigned int starts = fake.starts;

	negotiate(features);
	set_queue(0, size, desc, avail, used);
	driver_ok();
	check(fake.starts == starts && (status() & VIRTIO_CONFIG_S_NEEDS_RESET), what);
}

static void test_bad_queues(void)
{
	const uint64_t features = GOOD_FEATURES;

	negotiate(GOOD_FEATURES);
	set_queue(0, 33, 0x10000, 0x20000, 0x30000);
	check(bar_get(VIRTIO_PCI_COMMON_Q_SIZE, 2) == 64,
	      "a size that is no power of two is ignored");
	negotiate(GOOD_FEATURES);
	set_queue(0, 128, 0x10000, 0x20000, 0x30000);
	check(bar_get(VIRTIO_PCI_COMMON_Q_SIZE, 2) == 64, "a size above the most is ignored");
	bar_set(VIRTIO_PCI_COMMON_Q_SELECT, TEST_QUEUES, 2);
	bar_set(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	check(!bar_get(VIRTIO_PCI_COMMON_Q_SIZE, 2), "a queue that is none has size 0");
	test_bad_queue(features, 32, 0x10008, 0x20000, 0x30000, "an unaligned descriptor table");
	test_bad_queue(features, 32, 0x10000, 0x20001, 0x30000, "an unaligned driver area");
	test_bad_queue(features, 32, 0x10000, 0x20000, 0x30002, "an unaligned device area");
	test_bad_queue(features, 32, TEST_MEMORY - 16, 0x20000, 0x30000,
		       "a table past the end of memory");
	test_bad_queue(features, 32, 0x10000, TEST_MEMORY, 0x30000, "a driver area outside of memory");
	test_bad_queue(features, 32, 0x10000, 0x20000, ~0ULL - 3, "a device area that wraps");
}

static void test_bad_packed_queues(void)
{
	const uint64_t features = PACKED_FEATURES;

	test_bad_queue(features, 33, 0x10008, 0x20000, 0x30000, "an unaligned packed ring");
	test_bad_queue(features, 33, 0x10000, 0x20002, 0x30000, "unaligned driver events");
	test_bad_queue(features, 33, 0x10000, 0x20000, 0x30002, "unaligned device events");
	test_bad_queue(features, 33, TEST_MEMORY - 512, 0x20000, 0x30000,
		       "a packed ring past the end of memory");
	test_bad_queue(features, 33, 0x10000, TEST_MEMORY, 0x30000,
		       "driver events outside of memory");
	test_bad_queue(features, 33, 0x10000, 0x20000, ~0ULL - 3, "device events that wrap");
}

static void enable_msix(unsigned int flags)
{
	config_set(find_cap(PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, flags, 2);
}

static void set_vector(unsigned int vector, uint64_t address, uint32_t data, uint32_t control)
{
	unsigned int table = config_get(find_cap(PCI_CAP_ID_MSIX, 0) + PCI_MSIX_TABLE, 4) & ~7u;

	bar_set(table + 16 * vector, address, 8);
	bar_set(table + 16 * vector + 8, data, 4);
	bar_set(table + 16 * vector + 12, control, 4);
}

static void test_interrupts(void)
{
	unsigned int pending = config_get(find_cap(PCI_CAP_ID_MSIX, 0) + PCI_MSIX_PBA, 4) & ~7u;

	enable_msix(PCI_MSIX_FLAGS_ENABLE);
	set_vector(1, 0xfee01000, 0x41, 0);
	negotiate(GOOD_FEATURES);
	set_queue(0, 32, 0x10000, 0x20000, 0x30000);
	bar_set(VIRTIO_PCI_COMMON_Q_MSIX, 3, 2);
	check(bar_get(VIRTIO_PCI_COMMON_Q_MSIX, 2) == VIRTIO_MSI_NO_VECTOR,
	      "a vector past the table");
	bar_set(VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
	check(irqfds == 1 && route_address == 0xfee01000 && route_data == 0x41,
	      "the kernel takes the calls of a queue whose vector is open");
	driver_ok();
	eventfd_write(fake.rings[0].call, 1);
	check(msi_arrives(1) && msi_address == 0xfee01000 && msi_data == 0x41,
	      "a call is the queue's message");
	set_vector(1, 0xfee01000, 0x41, 1);
	check(!irqfds, "not of one whose vector is masked");
	eventfd_write(fake.rings[0].call, 1);
	for (unsigned int i = 0; i < 1000 && !(bar_get(pending, 8) & 2); i++)
		usleep(1000);
	check(bar_get(pending, 8) == 2 && msi_arrives(1), "a masked one is pending");
	set_vector(1, 0xfee02000, 0x42, 0);
	check(msi_arrives(2) && msi_data == 0x42 && !bar_get(pending, 8), "and sent when unmasked");
	check(irqfds == 1 && route_address == 0xfee02000 && route_data == 0x42,
	      "the kernel then knows the new message");
	enable_msix(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	eventfd_write(fake.rings[0].call, 1);
	for (unsigned int i = 0; i < 1000 && !(bar_get(pending, 8) & 2); i++)
		usleep(1000);
	enable_msix(PCI_MSIX_FLAGS_ENABLE);
	check(msi_arrives(3), "so with the whole function masked");
}

static void test_broken_ring(void)
{
	set_vector(0, 0xfee00000, 0x50, 0);
	bar_set(VIRTIO_PCI_COMMON_MSIX, 0, 2);
	eventfd_write(fake.rings[0].err, 1);
	check(msi_arrives(4) && msi_data == 0x50 && (status() & VIRTIO_CONFIG_S_NEEDS_RESET),
	      "a broken ring asks for a reset, and says so");
	start_good();
	check(!(status() & VIRTIO_CONFIG_S_NEEDS_RESET) && (status() & VIRTIO_CONFIG_S_DRIVER_OK),
	      "which makes all well");
}

static void test_notify(void)
{
	unsigned int base = cap_offset(VIRTIO_PCI_CAP_NOTIFY_CFG);
	eventfd_t count = 0;

	bar_set(base, 0, 2);
	check(!eventfd_read(fake.rings[0].kick, &count) && count == 1,
	      "a doorbell kicks its queue");
	bar_set(base + 4 * TEST_QUEUES, 0, 2);
	check(eventfd_read(fake.rings[0].kick, &count) && errno == EAGAIN,
	      "none past the last does");
}

static void test_device_config(void)
{
	unsigned int before, base = cap_offset(VIRTIO_PCI_CAP_DEVICE_CFG);

	set_vector(0, 0xfee00000, 0x50, 0);
	bar_set(VIRTIO_PCI_COMMON_MSIX, 0, 2);
	memcpy(fake.config, "abcdef", 6);
	check(bar_get(base + 2, 4) == 0x66656463, "device configuration is read");
	check(bar_get(base + 4, 4) == 0, "nothing past its end");
	bar_set(base, 'x', 1);
	bar_set(base + 4, 0x31313131, 4);
	check(!memcmp(fake.config, "xbcdef", 6), "it is written, and nothing past its end");
	before = bar_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	check(bar_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1) == before,
	      "its generation stays while it does");
	fake.config[3]++;
	check(bar_get(VIRTIO_PCI_COMMON_CFGGENERATION, 1) != before, "and no longer");
	eventfd_write(config_event, 1);
	check(msi_arrives(5) && msi_data == 0x50, "a change is the configuration's message");
}

static void test_config_window(void)
{
	unsigned int cap = find_cap(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

	config_set(cap + VIRTIO_PCI_CAP_BAR, 0, 1);
	config_set(cap + VIRTIO_PCI_CAP_OFFSET, VIRTIO_PCI_COMMON_NUMQ, 4);
	config_set(cap + VIRTIO_PCI_CAP_LENGTH, 2, 4);
	check(config_get(cap + 16, 2) == TEST_QUEUES,
	      "the BAR is read through configuration space");
	config_set(cap + VIRTIO_PCI_CAP_OFFSET, 0xfffffffe, 4);
	config_get(cap + 16, 4);
	config_set(cap + VIRTIO_PCI_CAP_LENGTH, 0, 4);
	config_set(cap + 16, 1, 4);
	config_set(cap + VIRTIO_PCI_CAP_OFFSET, VIRTIO_PCI_COMMON_Q_SELECT, 4);
	config_set(cap + VIRTIO_PCI_CAP_LENGTH, 2, 4);
	config_set(cap + 16, 1, 2);
	check(bar_get(VIRTIO_PCI_COMMON_Q_SELECT, 2) == 1, "and written");
}

/* Every offset and width of the BAR and of configuration space, with hostile values. */
static void test_nonsense(void)
{
	static const uint64_t values[] = { 0, 1, 0xff, 0x8000, 0xffffffff, ~0ULL };

	for (unsigned int i = 0; i < ARRAY_SIZE(values); i++)
		for (unsigned int len = 1; len <= 8; len++)
			for (unsigned int at = 0; at < 0x8000; at += at % 0x1000 < 64 ? 1 : 61) {
				bar_set(at, values[i], len);
				bar_get(at, len);
			}
	for (unsigned int i = 0; i < ARRAY_SIZE(values); i++)
		for (unsigned int at = 0x40; at < 0x1000; at++)
			for (unsigned int len = 1; len <= 8; len++) {
				config_set(at, values[i], len);
				config_get(at, len);
			}
	enable_msix(0);
	start_good();
	check(status() & VIRTIO_CONFIG_S_DRIVER_OK, "nonsense leaves it whole");
}

/* A vCPU that does not care whether there is a device. */
static void *hammer(void *arg)
{
	while (!__atomic_load_n((bool *)arg, __ATOMIC_SEQ_CST)) {
		bar_get(VIRTIO_PCI_COMMON_NUMQ, 2);
		bar_set(cap_offset(VIRTIO_PCI_CAP_NOTIFY_CFG), 0, 2);
		config_get(0, 4);
	}
	return NULL;
}

/* It goes while vCPUs are at it, and another one comes to the same place. */
static struct virtio_pci *test_removal(struct virtio_pci *virtio, struct memory *memory,
				       struct pci *pci, struct loop *loop)
{
	bool ends = false;
	pthread_t thread;
	int good = 0;

	config_set(PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	pthread_create(&thread, NULL, hammer, &ends);
	for (unsigned int i = 0; i < 200; i++) {
		uint32_t at = config_get(PCI_BASE_ADDRESS_0, 4);

		good += virtio_pci_slot(virtio) == TEST_SLOT && at >= LAYOUT_PCI_MEM &&
			at < LAYOUT_ECAM && !virtio_pci_remove(virtio, pci, loop) && !doorbells &&
			!irqfds && !gsis && config_get(0, 4) == UINT32_MAX &&
			!virtio_pci_create(&fake.device, NULL, memory, pci, loop, &virtio);
		bar = config_get(PCI_BASE_ADDRESS_0, 4);
		config_set(PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	}
	check(good == 200, "it goes, with all that the kernel did for it, and comes again");
	check(fake.destroyed == 200, "so does its device");
	ends = true;
	pthread_join(thread, NULL);
	enable_msix(0);
	start_good();
	check(status() & VIRTIO_CONFIG_S_DRIVER_OK, "which then works");
	virtio_pci_hide(virtio, pci);
	check(config_get(0, 4) == UINT32_MAX && bar_get(VIRTIO_PCI_COMMON_NUMQ, 2) == 0xffff,
	      "hidden, it is not found");
	return virtio;
}

int main(void)
{
	static struct pci pci;
	struct virtio_pci *virtio;
	struct memory memory;
	struct loop loop;

	fake.device.ops = &fake_ops;
	if (memory_init(&memory, TEST_MEMORY) || loop_init(&loop))
		return 1;
	config_event = eventfd(0, EFD_NONBLOCK);
	pci_init(&pci, &pio, &mmio);
	if (virtio_pci_create(&fake.device, NULL, &memory, &pci, &loop, &virtio) ||
	    virtio_pci_watch_config(virtio, &loop, config_event) ||
	    loop_start(&loop, "interrupts"))
		return 1;
	test_identity();
	test_bar();
	test_features();
	test_start();
	test_start_packed();
	test_bad_queues();
	test_bad_packed_queues();
	test_interrupts();
	test_broken_ring();
	test_notify();
	test_device_config();
	test_config_window();
	test_nonsense();
	virtio = test_removal(virtio, &memory, &pci, &loop);
	loop_finish(&loop);
	virtio_pci_destroy(virtio);
	check(fake.starts == fake.stops && fake.destroyed == 201, "started and stopped in pairs");
	pci_finish(&pci);
	memory_finish(&memory);
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
