// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * CMOS RAM and clock. The clock's registers are made from the host's clock at each read, so there
 * is nothing to keep: a guest that must not see a date change between two reads watches
 * update-in-progress, as it does on hardware. No alarm, no periodic interrupt.
 */
#include <string.h>
#include <time.h>

#include "userspace/vmm/bus.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/rtc.h"

enum {
	RTC_SECONDS	= 0x00,
	RTC_MINUTES	= 0x02,
	RTC_HOURS	= 0x04,
	RTC_WEEKDAY	= 0x06,
	RTC_DAY		= 0x07,
	RTC_MONTH	= 0x08,
	RTC_YEAR	= 0x09,
	RTC_A		= 0x0a,
	RTC_B		= 0x0b,
	RTC_C		= 0x0c,
	RTC_D		= 0x0d,
	RTC_CENTURY	= 0x32,
};

#define RTC_A_UPDATING	0x80
#define RTC_A_32768HZ	0x26
#define RTC_B_BINARY	0x04
#define RTC_B_24H	0x02
#define RTC_D_VALID	0x80

/* An update is announced this long before the second ends. */
#define RTC_UPDATE_NS	(1000000000L - 244000)

/* A field of the clock, or -1: another register. */
static int rtc_field(unsigned int index, const struct tm *tm)
{
	switch (index) {
	case RTC_SECONDS:
		return tm->tm_sec;
	case RTC_MINUTES:
		return tm->tm_min;
	case RTC_HOURS:
		return tm->tm_hour;
	case RTC_WEEKDAY:
		return tm->tm_wday + 1;
	case RTC_DAY:
		return tm->tm_mday;
	case RTC_MONTH:
		return tm->tm_mon + 1;
	case RTC_YEAR:
		return tm->tm_year % 100;
	case RTC_CENTURY:
		return 19 + tm->tm_year / 100;
	}
	return -1;
}

static uint8_t rtc_register(struct rtc *rtc, unsigned int index)
{
	struct timespec now;
	struct tm tm;
	int field;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	field = rtc_field(index, &tm);
	if (field >= 0)
		return rtc->ram[RTC_B] & RTC_B_BINARY ? field : field / 10 << 4 | field % 10;
	if (index == RTC_A)
		return RTC_A_32768HZ | (now.tv_nsec >= RTC_UPDATE_NS ? RTC_A_UPDATING : 0);
	if (index == RTC_C)
		return 0;
	if (index == RTC_D)
		return RTC_D_VALID;
	return rtc->ram[index];
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned int len)
{
	struct rtc *rtc = device;
	uint64_t value;

	if (offset != 1 || len != 1)
		return UINT64_MAX;
	pthread_mutex_lock(&rtc->lock);
	value = rtc_register(rtc, rtc->index);
	pthread_mutex_unlock(&rtc->lock);
	return value;
}

static void rtc_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct rtc *rtc = device;

	if (len != 1)
		return;
	pthread_mutex_lock(&rtc->lock);
	if (!offset)
		rtc->index = value & 0x7f;
	else if (rtc->index == RTC_B)
		rtc->ram[RTC_B] = (value & RTC_B_BINARY) | RTC_B_24H;
	else
		rtc->ram[rtc->index] = value;
	pthread_mutex_unlock(&rtc->lock);
}

static const struct bus_ops rtc_ops = { rtc_read, rtc_write };

void rtc_init(struct rtc *rtc, struct bus *pio)
{
	*rtc = (struct rtc){ .ram[RTC_B] = RTC_B_24H };
	pthread_mutex_init(&rtc->lock, NULL);
	bus_add(pio, LAYOUT_PORT_RTC, 2, &rtc_ops, rtc);
}

void rtc_finish(struct rtc *rtc)
{
	pthread_mutex_destroy(&rtc->lock);
}
