/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What a guest fills its memory with, and a malicious device looks for. */
#ifndef SELFTESTS_VHOST_ATTACK_H
#define SELFTESTS_VHOST_ATTACK_H

#include <stdint.h>

#define ATTACK_MAGIC	0x7e11a15ec9e7f00dULL
#define ATTACK_ALTERED	0x80000000u

/* Pages that are in no request, and then those that are in some. */
#define ATTACK_IDLE	2048
#define ATTACK_ASKED	256
#define ATTACK_PAGES	(ATTACK_IDLE + ATTACK_ASKED)
#define ATTACK_UNITS	256	/* of a page */

/* Each 16 bytes of those pages: which ones they are. Who could write them adds ATTACK_ALTERED. */
struct attack_unit {
	uint64_t magic;
	uint32_t page;
	uint32_t unit;
};

#endif
