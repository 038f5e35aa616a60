// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * 16550A UART.
 *
 * A vCPU never waits for a terminal: what the guest sends goes into a backlog that a thread writes
 * out, and a full backlog looks to the guest like a busy transmitter. So the line is as fast as the
 * reader, nothing is lost, and a burst of characters is one write.
 *
 * The thread polls rather than using the event loop: input may be a regular file, which epoll
 * refuses, and a write may block without harm to anything but this port. A port that is served has
 * terminals (terminals.c) in the place of descriptors, which are never waited for.
 */
#include <errno.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/thread.h"
#include "userspace/vmm/bus.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/serial.h"
#include "userspace/vmm/terminals.h"

#define SERIAL_PORTS		8
#define SERIAL_IER_BITS		0x0f
#define SERIAL_MCR_BITS		0x1f
#define SERIAL_IIR_FIFO		0xc0
#define SERIAL_DRAIN_SECONDS	1

/* The transmitter is empty while a whole FIFO's worth fits: drivers then send that much unasked. */
static bool serial_can_send(const struct serial *serial)
{
	return SERIAL_BACKLOG - serial->tx_count >= SERIAL_FIFO;
}

/* The cause with the highest priority. */
static uint8_t serial_cause(const struct serial *serial)
{
	if ((serial->ier & UART_IER_RLSI) && serial->overrun)
		return UART_IIR_RLSI;
	if ((serial->ier & UART_IER_RDI) && serial->rx_count)
		return UART_IIR_RDI;
	if ((serial->ier & UART_IER_THRI) && serial->thre)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* On a PC, OUT2 gates the interrupt. */
static void serial_update_irq(struct serial *serial)
{
	bool asserted = serial_cause(serial) != UART_IIR_NO_INT && (serial->mcr & UART_MCR_OUT2) &&
			!(serial->mcr & UART_MCR_LOOP);

	ioapic_set_line(serial->ioapic, LAYOUT_PIN_COM1, asserted);
}

static void serial_wake(struct serial *serial)
{
	eventfd_write(serial->wake, 1);
}

static void serial_receive(struct serial *serial, uint8_t byte)
{
	if (serial->rx_count == SERIAL_FIFO) {
		serial->overrun = UART_LSR_OE;
		return;
	}
	serial->rx[serial->rx_count++] = byte;
}

static void serial_send(struct serial *serial, uint8_t byte)
{
	serial->thre = false;
	if (serial->mcr & UART_MCR_LOOP) {
		serial_receive(serial, byte);
	} else if ((serial->terminals || serial->out >= 0) && serial->tx_count < SERIAL_BACKLOG) {
		unsigned int at = (serial->tx_first + serial->tx_count) % SERIAL_BACKLOG;

		serial->tx[at] = byte;
		if (!serial->tx_count++)
			serial_wake(serial);
	}
	/* Where there is no room, the thread sets it when there is. */
	serial->thre = serial_can_send(serial);
}

static uint8_t serial_take(struct serial *serial)
{
	uint8_t byte = serial->rx[0];

	if (!serial->rx_count)
		return 0;
	if (serial->rx_count == SERIAL_FIFO)
		serial_wake(serial);
	memmove(serial->rx, serial->rx + 1, --serial->rx_count);
	return byte;
}

static uint8_t serial_read_iir(struct serial *serial)
{
	uint8_t iir = serial_cause(serial);

	if (iir == UART_IIR_THRI)
		serial->thre = false;
	return serial->fcr & UART_FCR_ENABLE_FIFO ? iir | SERIAL_IIR_FIFO : iir;
}

static uint8_t serial_read_lsr(struct serial *serial)
{
	uint8_t lsr = serial->overrun;

	serial->overrun = 0;
	if (serial->rx_count)
		lsr |= UART_LSR_DR;
	if (serial_can_send(serial))
		lsr |= UART_LSR_THRE | UART_LSR_TEMT;
	return lsr;
}

/* In loopback the modem lines are wired to each other: drivers tell a UART from nothing by it. */
static uint8_t serial_read_msr(const struct serial *serial)
{
	uint8_t mcr = serial->mcr, msr = 0;

	if (!(mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	msr |= mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
	msr |= mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
	msr |= mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
	msr |= mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
	return msr;
}

static uint8_t serial_read_register(struct serial *serial, unsigned int reg)
{
	bool dlab = serial->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return dlab ? serial->dll : serial_take(serial);
	case UART_IER:
		return dlab ? serial->dlm : serial->ier;
	case UART_IIR:
		return serial_read_iir(serial);
	case UART_LCR:
		return serial->lcr;
	case UART_MCR:
		return serial->mcr;
	case UART_LSR:
		return serial_read_lsr(serial);
	case UART_MSR:
		return serial_read_msr(serial);
	}
	return serial->scr;
}

static void serial_write_ier(struct serial *serial, uint8_t value)
{
	value &= SERIAL_IER_BITS;
	if ((value & ~serial->ier & UART_IER_THRI) && serial_can_send(serial))
		serial->thre = true;
	serial->ier = value;
}

static void serial_write_fcr(struct serial *serial, uint8_t value)
{
	if (value & UART_FCR_CLEAR_RCVR) {
		if (serial->rx_count == SERIAL_FIFO)
			serial_wake(serial);
		serial->rx_count = 0;
	}
	serial->fcr = value & UART_FCR_ENABLE_FIFO;
}

static void serial_write_register(struct serial *serial, unsigned int reg, uint8_t value)
{
	bool dlab = serial->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			serial->dll = value;
		else
			serial_send(serial, value);
		break;
	case UART_IER:
		if (dlab)
			serial->dlm = value;
		else
			serial_write_ier(serial, value);
		break;
	case UART_FCR:
		serial_write_fcr(serial, value);
		break;
	case UART_LCR:
		serial->lcr = value;
		break;
	case UART_MCR:
		serial->mcr = value & SERIAL_MCR_BITS;
		break;
	case UART_SCR:
		serial->scr = value;
		break;
	}
}

static uint64_t serial_read(void *device, uint64_t offset, unsigned int len)
{
	struct serial *serial = device;
	uint64_t value;

	if (len != 1)
		return UINT64_MAX;
	pthread_mutex_lock(&serial->lock);
	value = serial_read_register(serial, offset);
	serial_update_irq(serial);
	pthread_mutex_unlock(&serial->lock);
	return value;
}

static void serial_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct serial *serial = device;

	if (len != 1)
		return;
	pthread_mutex_lock(&serial->lock);
	serial_write_register(serial, offset, value);
	serial_update_irq(serial);
	pthread_mutex_unlock(&serial->lock);
}

static const struct bus_ops serial_ops = { serial_read, serial_write };

/* Write out the next piece. Output that fails is lost, as on a line that nobody is at. */
static void serial_drain(struct serial *serial)
{
	uint8_t piece[256];
	unsigned int count, tail;

	pthread_mutex_lock(&serial->lock);
	tail = SERIAL_BACKLOG - serial->tx_first;
	count = serial->tx_count < tail ? serial->tx_count : tail;
	if (count > sizeof(piece))
		count = sizeof(piece);
	memcpy(piece, serial->tx + serial->tx_first, count);
	pthread_mutex_unlock(&serial->lock);

	if (serial->terminals) {
		terminals_say(serial->terminals, piece, count);
		terminals_send(serial->terminals);
	} else {
		fd_write_full(serial->out, piece, count);
	}

	pthread_mutex_lock(&serial->lock);
	if (!serial_can_send(serial))
		serial->thre = true;
	serial->tx_first = (serial->tx_first + count) % SERIAL_BACKLOG;
	serial->tx_count -= count;
	serial_update_irq(serial);
	pthread_mutex_unlock(&serial->lock);
}

/* Only this thread adds to rx but for the loopback, which overruns then. */
static void serial_type(struct serial *serial, const uint8_t *bytes, size_t count)
{
	pthread_mutex_lock(&serial->lock);
	for (size_t i = 0; i < count; i++)
		serial_receive(serial, bytes[i]);
	serial_update_irq(serial);
	pthread_mutex_unlock(&serial->lock);
}

static void serial_fill(struct serial *serial, unsigned int room)
{
	uint8_t piece[SERIAL_FIFO];
	ssize_t n = read(serial->in, piece, room);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		serial_type(serial, piece, n);
	else
		serial->in = -1;
}

static void serial_serve(struct serial *serial, const struct pollfd *ready, unsigned int room)
{
	uint8_t piece[SERIAL_FIFO];
	size_t count = terminals_take(serial->terminals, ready, piece, room);

	if (count)
		serial_type(serial, piece, count);
	terminals_send(serial->terminals);
}

enum { PLAN_WAKE, PLAN_IN, PLAN_OUT, PLAN_TERMINALS, PLAN_COUNT = PLAN_TERMINALS + TERMINALS_MAX };

/* What to wait for; false at the end. A negative descriptor is one that poll() passes over. */
static bool serial_plan(struct serial *serial, struct pollfd *plan, unsigned int *ret_room)
{
	bool goes_on;

	pthread_mutex_lock(&serial->lock);
	*ret_room = SERIAL_FIFO - serial->rx_count;
	plan[PLAN_WAKE] = (struct pollfd){ .fd = serial->wake, .events = POLLIN };
	plan[PLAN_IN] = (struct pollfd){
		.fd = *ret_room ? serial->in : -1, .events = POLLIN,
	};
	/* Terminals are always ready, as is an eventfd. */
	plan[PLAN_OUT] = (struct pollfd){
		.fd = serial->terminals ? serial->wake : serial->out, .events = POLLOUT,
	};
	if (!serial->tx_count)
		plan[PLAN_OUT].fd = -1;
	goes_on = !serial->ending || serial->tx_count;
	pthread_mutex_unlock(&serial->lock);
	if (serial->terminals)
		terminals_plan(serial->terminals, plan + PLAN_TERMINALS, *ret_room);
	return goes_on;
}

static void *serial_run(void *arg)
{
	struct serial *serial = arg;
	struct pollfd plan[PLAN_COUNT];
	unsigned int room;

	while (serial_plan(serial, plan, &room)) {
		eventfd_t count;

		if (poll(plan, serial->terminals ? PLAN_COUNT : PLAN_TERMINALS, -1) < 0)
			continue;
		if (plan[PLAN_WAKE].revents)
			eventfd_read(serial->wake, &count);
		if (plan[PLAN_IN].revents)
			serial_fill(serial, room);
		if (serial->terminals)
			serial_serve(serial, plan + PLAN_TERMINALS, room);
		if (plan[PLAN_OUT].revents)
			serial_drain(serial);
	}
	return NULL;
}

static int serial_start(struct serial *serial, struct ioapic *ioapic, struct bus *pio)
{
	int err;

	serial->ioapic = ioapic;
	serial->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (serial->wake < 0)
		return -errno;
	pthread_mutex_init(&serial->lock, NULL);
	err = thread_start(&serial->thread, "serial", serial_run, serial);
	if (err) {
		fd_close(serial->wake);
		pthread_mutex_destroy(&serial->lock);
		return err;
	}
	bus_add(pio, LAYOUT_PORT_COM1, SERIAL_PORTS, &serial_ops, serial);
	return 0;
}

int serial_init(struct serial *serial, struct ioapic *ioapic, struct bus *pio, int in, int out)
{
	*serial = (struct serial){ .in = in, .out = out };
	return serial_start(serial, ioapic, pio);
}

int serial_init_served(struct serial *serial, struct ioapic *ioapic, struct bus *pio)
{
	int err = -ENOMEM;

	*serial = (struct serial){ .in = -1, .out = -1, .terminals = terminals_create() };
	if (serial->terminals)
		err = serial_start(serial, ioapic, pio);
	if (err)
		terminals_destroy(serial->terminals);
	return err;
}

int serial_add_terminal(struct serial *serial, int fd)
{
	int err = serial->terminals ? terminals_add(serial->terminals, fd) : -ENODEV;

	if (!err)
		serial_wake(serial);
	return err;
}

void serial_finish(struct serial *serial)
{
	struct timespec limit;

	pthread_mutex_lock(&serial->lock);
	serial->ending = true;
	pthread_mutex_unlock(&serial->lock);
	serial_wake(serial);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += SERIAL_DRAIN_SECONDS;
	if (pthread_timedjoin_np(serial->thread, NULL, &limit))
		return;		/* it hangs in a write: the process's end is its end */
	terminals_destroy(serial->terminals);
	fd_close(serial->wake);
	pthread_mutex_destroy(&serial->lock);
}
