/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct bus;
struct terminals;
struct ioapic;

#define SERIAL_FIFO	16
#define SERIAL_BACKLOG	4096

/**
 * struct serial - a 16550A UART at COM1
 * @terminals: in the place of @in and @out; or NULL
 * @lock: guards all below it
 * @wake: eventfd for the thread: there is something to write, or room to read, or the end
 * @thre: "transmitter holding register empty" is pending
 * @rx: what the guest has yet to read
 * @tx: what the thread has yet to write, a ring from @tx_first
 */
struct serial {
	struct ioapic *ioapic;
	int in;
	int out;
	struct terminals *terminals;
	int wake;
	pthread_t thread;

	pthread_mutex_t lock;
	bool ending;
	bool thre;
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t overrun;
	uint8_t rx[SERIAL_FIFO];
	unsigned int rx_count;
	uint8_t tx[SERIAL_BACKLOG];
	unsigned int tx_first;
	unsigned int tx_count;
};

/* @in, @out: descriptors, which stay the caller's; -1: nothing comes in, what goes out is lost. */
int serial_init(struct serial *serial, struct ioapic *ioapic, struct bus *pio, int in, int out);

/* The same, served: who comes by serial_add_terminal() is at its other end. */
int serial_init_served(struct serial *serial, struct ioapic *ioapic, struct bus *pio);

/* From any thread. -ENODEV: it is not served; -EMFILE. Else @fd is the port's, and is closed in time. */
int serial_add_terminal(struct serial *serial, int fd);

/* Writes out what the guest has sent, for at most a second where nobody takes it. */
void serial_finish(struct serial *serial);

#endif /* VMM_SERIAL_H */
