/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_THREAD_H
#define LIB_THREAD_H

#include <pthread.h>

/* A thread with a name to be seen by ps and top, and a small stack. 0 or a negative errno. */
int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg);

#endif /* LIB_THREAD_H */
