// SPDX-License-Identifier: MIT OR GPL-2.0
#include "userspace/lib/log.h"
#include "userspace/vmm/bus.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/power.h"
#include "userspace/vmm/stop.h"

#define SLEEP_ENABLE		0x20
#define SLEEP_TYPE(value)	((value) >> 2 & 7)

/* Nothing has been woken, nothing is pending. */
static uint64_t power_read(void *device, uint64_t offset, unsigned int len)
{
	(void)device;
	(void)offset;
	(void)len;
	return 0;
}

static void power_sleep(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	if (!offset && len == 1 && (value & SLEEP_ENABLE) && SLEEP_TYPE(value) == LAYOUT_SLEEP_S5)
		stop_request(device, CONTROL_END_OFF, 0);
}

static void power_reset(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	(void)offset;
	(void)len;
	if (!(value & 1))
		return;
	log_error("the guest asked for a reset: ended, start it again");
	stop_request(device, CONTROL_END_RESET, 0);
}

static void power_exit(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	(void)offset;
	(void)len;
	stop_request(device, CONTROL_END_STATUS, value & 0xff);
}

static const struct bus_ops power_sleep_ops = { power_read, power_sleep };
static const struct bus_ops power_reset_ops = { power_read, power_reset };
static const struct bus_ops power_exit_ops = { power_read, power_exit };

void power_init(struct bus *pio, struct stop *stop)
{
	bus_add(pio, LAYOUT_PORT_SLEEP, 2, &power_sleep_ops, stop);
	bus_add(pio, LAYOUT_PORT_RESET, 1, &power_reset_ops, stop);
	bus_add(pio, LAYOUT_PORT_EXIT, 1, &power_exit_ops, stop);
}
