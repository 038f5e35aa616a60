// SPDX-License-Identifier: MIT OR GPL-2.0
/* The serial port between a driver on its registers and pipes at its other end. */
#include <errno.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/vmm/bus.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/serial.h"
#include "userspace/vmm/terminals.h"

static unsigned int checks, failures;

static void check(bool good, const char *what)
{
	checks++;
	failures += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, what);
}

static bool line;

void ioapic_set_line(struct ioapic *ioapic, unsigned int pin, bool asserted)
{
	(void)ioapic;
	(void)pin;
	__atomic_store_n(&line, asserted, __ATOMIC_SEQ_CST);
}

static bool line_becomes(bool asserted)
{
	for (unsigned int i = 0; i < 1000; i++) {
		if (__atomic_load_n(&line, __ATOMIC_SEQ_CST) == asserted)
			return true;
		usleep(1000);
	}
	return false;
}

static struct bus pio, served;
static struct bus *bus = &pio;
static struct serial serial;

static uint8_t get(unsigned int reg)
{
	uint8_t value;

	bus_read(bus, LAYOUT_PORT_COM1 + reg, &value, 1);
	return value;
}

static void set(unsigned int reg, uint8_t value)
{
	bus_write(bus, LAYOUT_PORT_COM1 + reg, &value, 1);
}

/* As drivers find out that there is a UART, and which. */
static void test_probe(void)
{
	set(UART_SCR, 0x5a);
	check(get(UART_SCR) == 0x5a, "the scratch register keeps what is written");
	set(UART_IER, 0xff);
	check(get(UART_IER) == 0x0f, "four interrupts can be enabled");
	set(UART_IER, 0);
	set(UART_MCR, UART_MCR_LOOP | 0x0a);
	check((get(UART_MSR) & 0xf0) == 0x90, "modem lines are looped back");
	set(UART_TX, 'L');
	check(get(UART_LSR) & UART_LSR_DR && get(UART_RX) == 'L', "so is what is sent");
	set(UART_MCR, 0);
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	check((get(UART_IIR) & 0xc0) == 0xc0, "there is a FIFO that works");
	set(UART_LCR, UART_LCR_DLAB | 3);
	set(UART_DLL, 1);
	set(UART_DLM, 2);
	check(get(UART_DLL) == 1 && get(UART_DLM) == 2, "the divisor is behind DLAB");
	set(UART_LCR, 3);
	check(get(UART_IER) == 0, "and not in the way");
}

static void test_send(int out)
{
	char text[6] = "";

	set(UART_MCR, UART_MCR_OUT2);
	set(UART_IER, UART_IER_THRI);
	check(line_becomes(true) && (get(UART_IIR) & 0x0f) == UART_IIR_THRI,
	      "an empty transmitter interrupts once enabled");
	check(line_becomes(false), "and is quiet once that was seen");
	for (const char *c = "hello"; *c; c++)
		set(UART_TX, *c);
	check(read(out, text, 5) > 0 && text[0] == 'h', "what is sent comes out");
	check(line_becomes(true), "and the transmitter is empty again");
	set(UART_IER, 0);
	check(line_becomes(false), "disabled, it says nothing");
}

static void test_receive(int in)
{
	char text[20];
	unsigned int count = 0;

	set(UART_IER, UART_IER_RDI);
	check(write(in, "0123456789abcdefghij", 20) == 20 && line_becomes(true),
	      "what comes in interrupts");
	check((get(UART_IIR) & 0x0f) == UART_IIR_RDI, "as data");
	for (unsigned int i = 0; i < 1000 && count < sizeof(text); i++) {
		if (get(UART_LSR) & UART_LSR_DR)
			text[count++] = get(UART_RX);
		else
			usleep(1000);
	}
	check(count == 20 && !memcmp(text, "0123456789abcdefghij", 20),
	      "more than the FIFO holds comes whole and in order");
	check(line_becomes(false), "and is quiet after the last");
	close(in);
}

/* A reader that does not read: the transmitter is busy in the end, and goes on when it does. */
static void test_backlog(int out)
{
	unsigned int sent = 0, got = 0;
	char piece[4096];

	while ((get(UART_LSR) & UART_LSR_THRE) && sent < 1 << 20) {
		set(UART_TX, 'x');
		sent++;
		if (sent % 1024 == 0)
			usleep(1000);
	}
	check(sent >= 4096 && sent < 1 << 20, "a reader that does not read makes it busy");
	set(UART_IER, UART_IER_THRI);
	get(UART_IIR);
	while (got < sent - 5) {
		ssize_t n = read(out, piece, sizeof(piece));

		if (n <= 0)
			break;
		got += n;
	}
	check(line_becomes(true) && (get(UART_LSR) & UART_LSR_THRE),
	      "it interrupts when there is room");
}

/* A port that is served */

static void say(const char *text)
{
	while (*text) {
		while (!(get(UART_LSR) & UART_LSR_THRE))
			usleep(100);
		set(UART_TX, *text++);
	}
}

static int terminal(void)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -1;
	if (!serial_add_terminal(&serial, ends[1]))
		return ends[0];
	close(ends[0]);
	close(ends[1]);
	return -1;
}

/* What comes until @wanted is there, or nothing more. */
static bool hears(int fd, const char *wanted)
{
	static char text[2 * TERMINALS_ROOM];
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	size_t count = 0;
	ssize_t n;

	while (count < sizeof(text) - 1 && poll(&wait, 1, 2000) == 1) {
		n = read(fd, text + count, sizeof(text) - 1 - count);
		if (n <= 0)
			break;
		count += n;
		text[count] = '\0';
		if (count >= strlen(wanted) && !strcmp(text + count - strlen(wanted), wanted))
			return true;
	}
	return false;
}

static bool types(int fd, const char *typed)
{
	size_t count = 0, len = strlen(typed);
	char text[32];

	if (write(fd, typed, len) != (ssize_t)len)
		return false;
	for (unsigned int i = 0; i < 2000 && count < len; i++)
		if (get(UART_LSR) & UART_LSR_DR)
			text[count++] = get(UART_RX);
		else
			usleep(1000);
	return count == len && !memcmp(text, typed, len);
}

static bool is_dropped(int fd)
{
	struct pollfd wait = { .fd = fd };

	return poll(&wait, 1, 5000) == 1 && (wait.revents & POLLHUP);
}

static void drain(int fd)
{
	static char text[1 << 16];

	while (recv(fd, text, sizeof(text), MSG_DONTWAIT) > 0)
		;
}

static void test_served(void)
{
	int one, two, more[TERMINALS_MAX + 1], added = 0, lazy;

	check(serial_add_terminal(&serial, 0) == -ENODEV, "a port that is not served has no terminals");
	if (serial_init_served(&serial, NULL, &served))
		return;
	bus = &served;
	set(UART_FCR, UART_FCR_ENABLE_FIFO);
	say("before");
	one = terminal();
	check(hears(one, "before"), "a terminal finds what was said before");
	two = terminal();
	say(" now");
	check(hears(one, " now") && hears(two, "before now"), "two hear what is said");
	check(types(one, "from one, more than a FIFO") && types(two, "from two"), "both can type");
	close(one);
	usleep(50000);
	one = terminal();
	check(hears(one, "before now") && types(one, "again"), "one goes, and another comes");
	shutdown(two, SHUT_WR);
	say("!");
	check(hears(two, "!") && hears(one, "!"), "one that types no more still hears");
	for (; added <= TERMINALS_MAX; added++) {
		more[added] = terminal();
		if (more[added] < 0)
			break;
	}
	check(added == TERMINALS_MAX - 2, "so many, and no more");
	lazy = more[0];
	for (unsigned int i = 0; i < 20000; i++) {
		say("0123456789abcde\n0123456789abcde\n");
		if (i % 256 == 255)
			drain(one);
	}
	say("last");
	more[added] = terminal();
	say(", and more");
	check(hears(more[added], "last, and more"), "a new one has what is kept, though more is said meanwhile");
	close(more[added]);
	check(hears(one, "last, and more") && is_dropped(lazy), "who does not read is dropped, and who does is not");
	serial_finish(&serial);
	check(is_dropped(one), "the end is the end of all");
	close(one);
	close(two);
	while (added--)
		close(more[added]);
}

int main(void)
{
	int in[2], out[2];

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ||
	    serial_init(&serial, NULL, &pio, in[0], out[1]))
		return 1;
	test_probe();
	test_send(out[0]);
	test_receive(in[1]);
	test_backlog(out[0]);
	for (const char *c = "end"; *c; c++)
		set(UART_TX, *c);
	serial_finish(&serial);
	close(out[1]);
	char rest[8192];
	ssize_t n = read(out[0], rest, sizeof(rest));

	check(n >= 3 && !memcmp(rest + n - 3, "end", 3),
	      "what was sent last is out before the end");
	test_served();
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
