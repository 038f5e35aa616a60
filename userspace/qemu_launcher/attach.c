// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Devices that come and go. Who has one to be attached says so to the supervisor's socket, with the disk or tap, and
 * gets a link for CONTROL_ATTACH: here there is no process behind it, but all that was said, and the descriptor, wait in
 * it to be read. So nothing is kept for who does not come back.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/qemu_launcher/command.h"
#include "userspace/qemu_launcher/launcher.h"
#include "userspace/qemu_launcher/verbs.h"

#define ADD_FLAGS	(SUPERVISOR_ADD_READ_ONLY | SUPERVISOR_ADD_DIRECT | SUPERVISOR_ADD_QCOW2)

/* The supervisor's part */

static bool add_is_legal(const struct supervisor_add *add)
{
	const bool ended = memchr(add->type, 0, sizeof(add->type)) && memchr(add->mac, 0, sizeof(add->mac)) &&
			   memchr(add->tag, 0, sizeof(add->tag));

	if (!ended || (add->flags & ~ADD_FLAGS))
		return false;
	if (!strcmp(add->type, "net"))
		return !add->flags && (!*add->mac || options_mac_legal(add->mac));
	return !strcmp(add->type, "blk") && !*add->mac;
}

/* Return: the link, in which it waits; or a negative errno. */
static int add_link(const struct supervisor_add *add, int fd)
{
	int ends[2], err;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	err = fd_send(ends[0], add, sizeof(*add), fd);
	fd_close(ends[0]);
	if (!err)
		return ends[1];
	fd_close(ends[1]);
	return err;
}

static void adder_ready(struct loop_source *source)
{
	struct supervisor_added added = { 0 };
	struct supervisor_add add;
	int fd, link;
	ssize_t n = fd_receive(source->fd, &add, sizeof(add), &fd);

	if (n == -EAGAIN || n == -EINTR)
		return;
	link = n == sizeof(add) && fd >= 0 && add_is_legal(&add) ? add_link(&add, fd) : -EPROTO;
	added.error = link < 0 ? link : 0;
	if (link == -EPROTO || fd_send(source->fd, &added, sizeof(added), link)) {
		fd_close(source->fd);
		source->fd = -1;
	}
	fd_close(link);
	fd_close(fd);
}

static void supervisor_ready(struct loop_source *source)
{
	struct launcher *launcher = (struct launcher *)((char *)source -
							offsetof(struct launcher, supervisor));
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned int i = 0; i < LAUNCHER_ADDERS && fd >= 0; i++) {
		struct loop_source *adder = &launcher->adder[i];

		if (adder->fd >= 0)
			continue;
		*adder = (struct loop_source){ .fd = fd, .ready = adder_ready };
		if (!loop_add(&launcher->control.loop, adder))
			return;
		adder->fd = -1;
		break;
	}
	fd_close(fd);
}

int attach_listen(struct launcher *launcher)
{
	const int fd = launcher->options->supervisor;

	for (unsigned int i = 0; i < LAUNCHER_ADDERS; i++)
		launcher->adder[i].fd = -1;
	if (fd < 0)
		return 0;
	if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK))
		return -errno;
	launcher->supervisor = (struct loop_source){ .fd = fd, .ready = supervisor_ready };
	return loop_add(&launcher->control.loop, &launcher->supervisor);
}

/* QEMU's */

static void object_add(struct json_object *object, const char *key, const char *format, unsigned int i)
{
	char text[16];

	snprintf(text, sizeof(text), format, i);
	json_object_object_add(object, key, json_object_new_string(text));
}

static struct json_object *object_of(const char *key, const char *format, unsigned int i)
{
	struct json_object *object = json_object_new_object();

	object_add(object, key, format, i);
	return object;
}

/* @text: of command.h's, and taken. */
static int call_text(struct qmp *qmp, const char *command, char *text)
{
	struct json_object *arguments = text ? json_tokener_parse(text) : NULL;

	free(text);
	return arguments ? qmp_call(qmp, command, arguments, -1, NULL) : -ENOMEM;
}

static int disk_give(struct qmp *qmp, unsigned int i, int fd)
{
	struct json_object *arguments = json_object_new_object();

	json_object_object_add(arguments, "fdset-id", json_object_new_int(i));
	return qmp_call(qmp, "add-fd", arguments, fd, NULL);
}

/* All of it that is there: QEMU keeps what it does not have. */
static void back_end_remove(struct qmp *qmp, unsigned int i, bool network)
{
	struct json_object *set;

	if (network) {
		qmp_call(qmp, "netdev_del", object_of("id", "net%u", i), -1, NULL);
		return;
	}
	qmp_call(qmp, "blockdev-del", object_of("node-name", "disk%u", i), -1, NULL);
	qmp_call(qmp, "blockdev-del", object_of("node-name", "file%u", i), -1, NULL);
	set = json_object_new_object();
	json_object_object_add(set, "fdset-id", json_object_new_int(i));
	qmp_call(qmp, "remove-fd", set, -1, NULL);
}

static int disk_add(struct qmp *qmp, unsigned int i, const struct parts_device *device)
{
	int err = disk_give(qmp, i, device->fd);

	if (!err)
		err = call_text(qmp, "blockdev-add", command_file(i, device));
	return err ? err : call_text(qmp, "blockdev-add", command_disk(i, device));
}

static int network_add(struct qmp *qmp, unsigned int i, const struct parts_device *device)
{
	struct json_object *arguments = object_of("fdname", "tap%u", i);
	int err = qmp_call(qmp, "getfd", arguments, device->fd, NULL);

	if (err)
		return err;
	arguments = object_of("id", "net%u", i);
	json_object_object_add(arguments, "type", json_object_new_string("tap"));
	json_object_object_add(arguments, "vhost", json_object_new_boolean(false));
	object_add(arguments, "fd", "tap%u", i);
	return qmp_call(qmp, "netdev_add", arguments, -1, NULL);
}

static int device_add(struct qmp *qmp, unsigned int i, const struct parts_device *device)
{
	int err = device->what.network ? network_add(qmp, i, device) : disk_add(qmp, i, device);

	if (!err)
		err = call_text(qmp, "device_add", command_device(i, device));
	if (!err)
		return 0;
	log_error("%s: %s", device->what.name, qmp->why);
	back_end_remove(qmp, i, device->what.network);
	return err;
}

/* Verbs */

static struct parts_device *device_find(struct launcher *launcher, const char *name)
{
	for (unsigned int i = 0; i < launcher->ports; i++) {
		struct parts_device *device = &launcher->parts.device[i];

		if (device->fd >= 0 && !strcmp(device->what.name, name))
			return device;
	}
	return NULL;
}

static int port_find(const struct launcher *launcher)
{
	for (unsigned int i = 0; i < launcher->ports; i++)
		if (launcher->parts.device[i].fd < 0)
			return i;
	return -ENOSPC;
}

/* @what's MAC is @add's. */
static void what_of(const struct supervisor_add *add, const char *name, struct options_device *what)
{
	*what = (struct options_device){
		.network = !strcmp(add->type, "net"), .mac = *add->mac ? add->mac : NULL,
		.read_only = add->flags & SUPERVISOR_ADD_READ_ONLY,
		.direct = add->flags & SUPERVISOR_ADD_DIRECT,
		.qcow2 = add->flags & SUPERVISOR_ADD_QCOW2,
	};
	snprintf(what->name, sizeof(what->name), "%s", name);
}

int verb_attach(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	const int port = port_find(launcher);
	struct parts_device *device;
	struct options_device what;
	struct supervisor_add add;
	int fd, err;

	if (device_find(launcher, call->request->name) || port < 0)
		return port < 0 ? port : -EEXIST;
	if (fd_receive(call->descriptor, &add, sizeof(add), &fd) != sizeof(add) || fd < 0)
		return -EPROTO;
	device = &launcher->parts.device[port];
	what_of(&add, call->request->name, &what);
	err = add_is_legal(&add) && !strcmp(add.type, call->request->type) ? 0 : -EINVAL;
	if (!err)
		err = parts_take(device, &what, fd);
	if (!err)
		err = device_add(&launcher->qmp, port, device);
	device->what.mac = NULL;
	if (err) {
		fd_close(fd);
		device->fd = -1;
	}
	return err;
}

int verb_detach(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	struct parts_device *device = device_find(launcher, call->request->name);
	int err;

	if (!device)
		return -ENOENT;
	err = qmp_call(&launcher->qmp, "device_del",
		       object_of("id", "dev%u", device - launcher->parts.device), -1, NULL);
	/* QEMU refuses to ask a guest a second time that has not answered yet. */
	if (err == -EIO && device->leaving)
		return 0;
	device->leaving |= !err;
	return err;
}

void attach_gone(struct launcher *launcher, const char *id)
{
	struct parts_device *device;
	char name[CONTROL_NAME];
	unsigned int i;

	if (sscanf(id, "dev%u", &i) != 1 || i >= launcher->ports || launcher->parts.device[i].fd < 0)
		return;
	device = &launcher->parts.device[i];
	back_end_remove(&launcher->qmp, i, device->what.network);
	snprintf(name, sizeof(name), "%s", device->what.name);
	fd_close(device->fd);
	device->fd = -1;
	control_tell(&launcher->control, CONTROL_DETACHED, name);
}
