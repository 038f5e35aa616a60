// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The machine is a q35 without graphics, whose devices are virtio's but for its CDs, and each behind a port of its own,
 * since behind one it can come and go. All that it is made of was opened before: QEMU knows files by the numbers
 * of sets of descriptors (/dev/fdset/N), and sockets and taps by their own.
 *
 * When a guest powers off, asks for a reset, or crashes, QEMU only says so, and waits to be ended.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "userspace/lib/arguments.h"
#include "userspace/lib/array.h"
#include "userspace/qemu_launcher/command.h"

/* Sets of descriptors: that of a disk has the device's number. */
#define SET_VARS	64
#define SET_CDROMS	65

#define PORTS_SLOT	2	/* ports are functions of the slots from here on */
#define PORTS_EACH	8
#define FIRST_BOOT	1	/* disks in their order, then CDs */

static const char *const command_plain[] = {
	"-nodefaults", "-no-user-config", "-S", "-display", "none", "-vga", "none",
	"-L", "/share/seabios", "-L", "/share/qemu", "-accel", "kvm", "-cpu", "host",
	"-action", "reboot=shutdown,shutdown=pause,panic=pause", "-device", "pvpanic",
	/* Of its own sandbox, all. */
	"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
};

static void add_set(struct arguments *arguments, int fd, unsigned int set)
{
	arguments_add(arguments, "-add-fd");
	arguments_add(arguments, "fd=%d,set=%u", fd, set);
}

char *command_file(unsigned int i, const struct parts_device *device)
{
	const char *read_only = device->what.read_only ? "true" : "false";
	char *text;

	return asprintf(&text, "{\"driver\":\"%s\",\"node-name\":\"file%u\",\"filename\":\"/dev/fdset/%u\","
			"\"discard\":\"unmap\",\"read-only\":%s,\"cache\":{\"direct\":%s}}",
			device->block ? "host_device" : "file", i, i, read_only,
			device->what.direct ? "true" : "false") < 0 ? NULL : text;
}

char *command_disk(unsigned int i, const struct parts_device *device)
{
	char *text;

	return asprintf(&text, "{\"driver\":\"%s\",\"node-name\":\"disk%u\",\"file\":\"file%u\",%s"
			"\"discard\":\"unmap\",\"read-only\":%s}", device->what.qcow2 ? "qcow2" : "raw", i, i,
			device->what.qcow2 ? "\"backing\":null," : "",
			device->what.read_only ? "true" : "false") < 0 ? NULL : text;
}

char *command_device(unsigned int i, const struct parts_device *device)
{
	const struct options_device *what = &device->what;
	char *text;
	int len;

	if (!what->network)
		len = asprintf(&text, "{\"driver\":\"virtio-blk-pci\",\"id\":\"dev%u\",\"bus\":\"port%u\","
			       "\"drive\":\"disk%u\",\"bootindex\":%u}", i, i, i, FIRST_BOOT + i);
	else
		len = asprintf(&text, "{\"driver\":\"virtio-net-pci\",\"id\":\"dev%u\",\"bus\":\"port%u\","
			       "\"netdev\":\"net%u\",\"romfile\":\"\"%s%s%s}", i, i, i,
			       what->mac ? ",\"mac\":\"" : "", what->mac ? what->mac : "",
			       what->mac ? "\"" : "");
	return len < 0 ? NULL : text;
}

/* Takes the text. */
static void add_json(struct arguments *arguments, const char *option, char *text)
{
	arguments_add(arguments, "%s", option);
	arguments_add(arguments, "%s", text ? text : "");
	if (!text)
		arguments->err = -ENOMEM;
	free(text);
}

static void add_device(struct arguments *arguments, unsigned int i, const struct parts_device *device)
{
	if (device->fd < 0)
		return;
	if (device->what.network) {
		arguments_add(arguments, "-netdev");
		arguments_add(arguments, "tap,id=net%u,fd=%d,vhost=off", i, device->fd);
	} else {
		add_set(arguments, device->fd, i);
		add_json(arguments, "-blockdev", command_file(i, device));
		add_json(arguments, "-blockdev", command_disk(i, device));
	}
	add_json(arguments, "-device", command_device(i, device));
}

static void add_ports(struct arguments *arguments, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		arguments_add(arguments, "-device");
		arguments_add(arguments, "pcie-root-port,id=port%u,chassis=%u,addr=%x.%x,multifunction=on,io-reserve=0",
			      i, i + 1, PORTS_SLOT + i / PORTS_EACH, i % PORTS_EACH);
	}
}

static void add_cdrom(struct arguments *arguments, unsigned int i, int fd)
{
	add_set(arguments, fd, SET_CDROMS + i);
	arguments_add(arguments, "-blockdev");
	arguments_add(arguments, "{\"driver\":\"file\",\"node-name\":\"cd%u\",\"filename\":\"/dev/fdset/%u\","
		      "\"read-only\":true}", i, SET_CDROMS + i);
	arguments_add(arguments, "-device");
	arguments_add(arguments, "ide-cd,drive=cd%u,bus=ide.%u,bootindex=%u", i, i,
		      FIRST_BOOT + PARTS_DEVICES + i);
}

/* What firmware says goes to the serial port, as there is no screen. */
static void add_machine(struct arguments *arguments, const struct options *options,
			const struct parts *parts)
{
	const char *const flash = parts->vars < 0 ? "" : ",pflash0=code,pflash1=vars";

	arguments_add(arguments, "-machine");
	arguments_add(arguments, "q35,graphics=off,usb=off,vmport=off,dump-guest-core=off%s", flash);
	arguments_add(arguments, "-smp");
	arguments_add(arguments, "%u", options->cpus);
	arguments_add(arguments, "-m");
	arguments_add(arguments, "%lluK", (unsigned long long)options->memory >> 10);
	if (parts->vars < 0)
		return;
	add_set(arguments, parts->vars, SET_VARS);
	arguments_add(arguments, "-blockdev");
	arguments_add(arguments, "{\"driver\":\"file\",\"node-name\":\"code\",\"filename\":\""
		      COMMAND_UEFI_CODE "\",\"read-only\":true}");
	arguments_add(arguments, "-blockdev");
	arguments_add(arguments, "{\"driver\":\"file\",\"node-name\":\"vars\",\"filename\":\"/dev/fdset/%u\"}",
		      SET_VARS);
}

static void add_sockets(struct arguments *arguments, int qmp, int line)
{
	arguments_add(arguments, "-chardev");
	arguments_add(arguments, "socket,id=qmp,fd=%d", qmp);
	arguments_add(arguments, "-mon");
	arguments_add(arguments, "chardev=qmp,mode=control");
	arguments_add(arguments, "-chardev");
	arguments_add(arguments, "socket,id=line,fd=%d", line);
	arguments_add(arguments, "-serial");
	arguments_add(arguments, "chardev:line");
}

void command_build(struct arguments *arguments, const struct options *options,
		   const struct parts *parts, int qmp, int line)
{
	arguments_add(arguments, "moat-qemu-guest");
	for (size_t i = 0; i < ARRAY_SIZE(command_plain); i++)
		arguments_add(arguments, "%s", command_plain[i]);
	add_machine(arguments, options, parts);
	add_sockets(arguments, qmp, line);
	add_ports(arguments, options->device_count + PARTS_SPARE);
	for (unsigned int i = 0; i < PARTS_DEVICES; i++)
		add_device(arguments, i, &parts->device[i]);
	for (unsigned int i = 0; i < parts->cdrom_count; i++)
		add_cdrom(arguments, i, parts->cdrom[i]);
	if (options->rng) {
		arguments_add(arguments, "-object");
		arguments_add(arguments, "rng-builtin,id=rng");
		arguments_add(arguments, "-device");
		arguments_add(arguments, "virtio-rng-pci,rng=rng");
	}
	if (options->balloon) {
		arguments_add(arguments, "-device");
		arguments_add(arguments, "virtio-balloon-pci,id=balloon,free-page-reporting=on");
	}
}
