/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_RTC_H
#define VMM_RTC_H

#include <pthread.h>
#include <stdint.h>

struct bus;

/* The clock of a PC (MC146818): the host's time in UTC, which the guest can read but not set. */
struct rtc {
	pthread_mutex_t lock;
	uint8_t index;
	uint8_t ram[128];
};

void rtc_init(struct rtc *rtc, struct bus *pio);
void rtc_finish(struct rtc *rtc);

#endif /* VMM_RTC_H */
