// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest does with its console and ports, as process 1, with modules in /modules: it says a
 * line on the console, and sends back what comes by the port, up to a line that says so.
 */
#include <stdbool.h>

#include "selftests/vhost/guest.h"

#define CONSOLE	"/dev/hvc0"
#define PORT	"vport0p1"

static void say_name(void)
{
	char name[64] = "";
	int fd = open("/sys/class/virtio-ports/" PORT "/name", O_RDONLY);

	if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
		strcpy(name, "none\n");
	printf("name: %s", name);
	close(fd);
}

static void say_on_console(void)
{
	static const char line[] = "a console\n";
	int fd = open(CONSOLE, O_RDWR | O_NOCTTY);

	if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		printf("error: " CONSOLE ": %s\n", strerror(errno));
	close(fd);
}

/* Nothing to read: the host's end is away for a moment. */
static void echo(int fd)
{
	char line[4096];
	bool more = true;

	while (more) {
		ssize_t n = read(fd, line, sizeof(line));

		if (n <= 0) {
			usleep(100000);
			continue;
		}
		more = memcmp(line, "end", 3);
		if (write(fd, line, n) != n)
			printf("error: write: %s\n", strerror(errno));
	}
}

static void guest_run(void)
{
	int fd;

	guest_begin();
	guest_wait_for(CONSOLE);
	guest_wait_for("/dev/" PORT);
	say_name();
	say_on_console();
	fd = open("/dev/" PORT, O_RDWR);
	if (fd < 0)
		printf("error: " PORT ": %s\n", strerror(errno));
	else
		printf("working\n");
	echo(fd);
	printf("echo: end\n");
	guest_end();
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		guest_run();
	fprintf(stderr, "a guest's process 1\n");
	return 2;
}
