/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* How all vCPUs of a machine come to stand outside of the guest, and go on. */
#ifndef VMM_PAUSE_H
#define VMM_PAUSE_H

#include <pthread.h>
#include <stdbool.h>

struct stop;

/**
 * struct pause
 * @wanted: vCPUs are to stand
 * @standing: so many do
 */
struct pause {
	struct stop *stop;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool wanted;
	unsigned int standing;
};

void pause_init(struct pause *pause, struct stop *stop);

/* Of a vCPU's thread: is it to stand? And do so, until it is to go on, or the machine comes to its end. */
bool pause_is_wanted(const struct pause *pause);
void pause_stand(struct pause *pause);

/* From now on they are to stand; who asked kicks them. Or no more. */
void pause_want(struct pause *pause, bool wanted);

/* Do all @count of them stand? Waits for some seconds. 0, -ETIMEDOUT, or -ESHUTDOWN at the machine's end. */
int pause_wait(struct pause *pause, unsigned int count);

#endif /* VMM_PAUSE_H */
