// SPDX-License-Identifier: MIT OR GPL-2.0
/* The keys of a machine's definition: moat.yaml(5) tells the same to people. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "userspace/moatd/definition.h"
#include "userspace/moatd/schema.h"
#include "userspace/moatd/schema_rows.h"

#define CPUS_MAX	255
#define MEMORY_MIN	(2ULL << 20)
#define MEMORY_MAX	(1ULL << 40)
#define MEMORY_DEFAULT	(512ULL << 20)
#define PAGE		4096
#define STOP_TIMEOUT	60
#define STOP_MAX	3600
#define WEIGHT_MAX	10000
#define CAP_MAX		(100 * 1024)

/* What texts have to be */

bool definition_name_valid(const char *name)
{
	const size_t len = strnlen(name, DEFINITION_NAME);

	if (!len || len == DEFINITION_NAME || !isalnum((unsigned char)*name))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len;
}

static const char *name_wrong(const char *text)
{
	return definition_name_valid(text) ? NULL :
	       "at most 48 letters, digits, '-', '_' and '.', a letter or digit first";
}

static const char *path_wrong(const char *text)
{
	return *text == '/' ? NULL : "a path from the root on, as /srv/file";
}

static const char *disk_wrong(const char *text)
{
	return *text == '/' || definition_name_valid(text) ? NULL :
	       "the name of a disk, or a path from the root on";
}

static const char *network_wrong(const char *text)
{
	const size_t len = strlen(text);

	return isalpha((unsigned char)*text) && len < 16 &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == len ?
	       NULL : "the name of a network";
}

static const char *mac_wrong(const char *text)
{
	struct ether_addr address;

	if (strlen(text) != 17 || !ether_aton_r(text, &address) || (address.ether_addr_octet[0] & 1))
		return "an address, as 52:54:00:12:34:56, of a single interface";
	return NULL;
}

static const char *address_wrong(const char *text)
{
	struct in_addr address;

	return inet_pton(AF_INET, text, &address) == 1 ? NULL : "an address, as 192.168.77.10";
}

static const char *uuid_wrong(const char *text)
{
	for (unsigned int i = 0; i < 36; i++) {
		const bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return "a UUID, as 123e4567-e89b-42d3-a456-426614174000";
	}
	return text[36] ? "a UUID of 36 characters" : NULL;
}

static const char *pin_wrong(const char *text)
{
	return strspn(text, "0123456789,-") == strlen(text) ? NULL : "CPUs of the host, as 0-3,8";
}

static const char *tag_wrong(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
	       strlen(text) ? NULL : "letters, digits, '-', '_' and '.'";
}

/* Kept free of what the shell, or cloud-init, could take for something else. */
static const char *user_wrong(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(text) &&
	       islower((unsigned char)*text) ? NULL : "small letters, digits, '-' and '_'";
}

static const char *host_wrong(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") ==
	       strlen(text) && isalnum((unsigned char)*text) ? NULL : "letters, digits, '-' and '.'";
}

/* The tables */

static const char *const formats[] = { "raw", "qcow2", NULL };
static const char *const firmwares[] = { "none", "bios", "uefi", NULL };
static const char *const isolations[] = { "grant", "shared", NULL };
static const char *const restarts[] = { "no", "on-failure", "always", NULL };

static const struct schema boot_rows[] = {
	CHOICE("firmware", struct definition_boot, firmware, firmwares),
	TEXT("cdrom", struct definition_boot, cdrom, path_wrong),
	TEXT("kernel", struct definition_boot, kernel, path_wrong),
	TEXT("initrd", struct definition_boot, initrd, path_wrong),
	TEXT("append", struct definition_boot, append, NULL),
	{ 0 },
};

static const struct schema disk_rows[] = {
	TEXT("disk", struct definition_disk, path, disk_wrong),
	CHOICE("format", struct definition_disk, format, formats),
	FLAG("read-only", struct definition_disk, read_only, 0),
	FLAG("direct", struct definition_disk, direct, 0),
	CHOICE("isolation", struct definition_disk, isolation, isolations),
	{ 0 },
};

static const struct schema network_rows[] = {
	TEXT("network", struct definition_network, network, network_wrong),
	TEXT("mac", struct definition_network, mac, mac_wrong),
	TEXT("address", struct definition_network, address, address_wrong),
	CHOICE("isolation", struct definition_network, isolation, isolations),
	{ 0 },
};

static const struct schema filesystem_rows[] = {
	TEXT("directory", struct definition_filesystem, path, path_wrong),
	TEXT("tag", struct definition_filesystem, tag, tag_wrong),
	FLAG("writable", struct definition_filesystem, writable, 0),
	CHOICE("isolation", struct definition_filesystem, isolation, isolations),
	{ 0 },
};

static const struct schema limit_rows[] = {
	NUMBER("cpu-weight", struct definition_limits, cpu_weight, 1, WEIGHT_MAX, 0),
	NUMBER("cpu-cap", struct definition_limits, cpu_cap, 1, CAP_MAX, 0),
	TEXT("pin", struct definition_limits, pin, pin_wrong),
	SIZE("memory", struct definition_limits, memory, MEMORY_MIN, MEMORY_MAX, 0),
	NUMBER("io-weight", struct definition_limits, io_weight, 1, WEIGHT_MAX, 0),
	{ 0 },
};

static const struct schema key_rows[] = {
	TEXT("", struct definition_key, key, NULL),
	{ 0 },
};

static const struct schema seed_rows[] = {
	TEXT("hostname", struct definition_seed, hostname, host_wrong),
	TEXT("user", struct definition_seed, user, user_wrong),
	LIST("ssh-keys", struct definition_seed, key, key_count, DEFINITION_KEYS, key_rows),
	{ 0 },
};

static const struct schema rows[] = {
	TEXT("name", struct definition, name, name_wrong),
	TEXT("uuid", struct definition, uuid, uuid_wrong),
	NUMBER("owner", struct definition, owner, 0, UINT32_MAX - 1, 0),
	NUMBER("cpus", struct definition, cpus, 1, CPUS_MAX, 1),
	SIZE("memory", struct definition, memory, MEMORY_MIN, MEMORY_MAX, MEMORY_DEFAULT),
	FLAG("balloon", struct definition, balloon, 1),
	FLAG("autostart", struct definition, autostart, 0),
	CHOICE("restart", struct definition, restart, restarts),
	NUMBER("stop-timeout", struct definition, stop_timeout, 1, STOP_MAX, STOP_TIMEOUT),
	MAP("boot", struct definition, boot, boot_rows),
	LIST("disks", struct definition, disk, disk_count, DEFINITION_DISKS, disk_rows),
	LIST("networks", struct definition, network, network_count, DEFINITION_NETWORKS, network_rows),
	LIST("filesystems", struct definition, filesystem, filesystem_count, DEFINITION_FILESYSTEMS,
	     filesystem_rows),
	MAP("limits", struct definition, limits, limit_rows),
	MAP("cloud-init", struct definition, seed, seed_rows),
	{ 0 },
};

/* The whole */

static int whole_wrong(struct definition_error *error, const char *text)
{
	error->line = 0;
	error->column = 0;
	snprintf(error->text, sizeof(error->text), "%s", text);
	return -EINVAL;
}

static int lists_check(const struct definition *definition, struct definition_error *error)
{
	for (uint64_t i = 0; i < definition->disk_count; i++)
		if (!*definition->disk[i].path)
			return whole_wrong(error, "disks: each needs a disk");
	for (uint64_t i = 0; i < definition->network_count; i++)
		if (!*definition->network[i].network)
			return whole_wrong(error, "networks: each needs a network");
	for (uint64_t i = 0; i < definition->filesystem_count; i++)
		if (!*definition->filesystem[i].path || !*definition->filesystem[i].tag)
			return whole_wrong(error, "filesystems: each needs a directory and a tag");
	for (uint64_t i = 0; i < definition->seed.key_count; i++)
		if (!*definition->seed.key[i].key)
			return whole_wrong(error, "cloud-init: an SSH key is empty");
	return 0;
}

/* A kernel that is booted without firmware, or firmware. */
static int boot_check(const struct definition *definition, struct definition_error *error)
{
	const struct definition_boot *boot = &definition->boot;

	if (boot->firmware == FIRMWARE_NONE) {
		if (*boot->cdrom)
			return whole_wrong(error, "boot: a cdrom is for firmware to boot: bios or uefi");
		return *boot->kernel ? 0 : whole_wrong(error, "boot: there is no kernel, and no firmware");
	}
	if (*boot->kernel || *boot->initrd || *boot->append)
		return whole_wrong(error, "boot: with firmware, kernel, initrd and append are on the disk or the cdrom");
	if (definition->filesystem_count)
		return whole_wrong(error, "filesystems: a machine with firmware has none");
	for (uint64_t i = 0; i < definition->network_count; i++)
		if (definition_network_is_user(&definition->network[i]))
			return whole_wrong(error, "networks: a machine with firmware has none of a user's");
	return 0;
}

int definition_check(const struct definition *definition, struct definition_error *error)
{
	int err;

	memset(error, 0, sizeof(*error));
	err = schema_check(rows, definition, error);
	if (err)
		return err;
	if (definition->memory % PAGE)
		return whole_wrong(error, "memory: whole pages of 4K");
	err = boot_check(definition, error);
	return err ? err : lists_check(definition, error);
}

void definition_init(struct definition *definition)
{
	memset(definition, 0, sizeof(*definition));
	schema_init(rows, definition);
}

int definition_read(struct definition *definition, const char *text, size_t len,
		    struct definition_error *error)
{
	int err;

	memset(definition, 0, sizeof(*definition));
	memset(error, 0, sizeof(*error));
	if (len > DEFINITION_TEXT_MAX)
		return whole_wrong(error, "a definition has at most 64K");
	err = schema_read(rows, definition, text, len, error);
	return err ? err : definition_check(definition, error);
}

static int uuid_make(char *text)
{
	uint8_t b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return -EIO;
	b[6] = (b[6] & 0x0f) | 0x40;	/* RFC 4122: random */
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		 b[13], b[14], b[15]);
	return 0;
}

static int mac_make(char *text)
{
	uint8_t b[3];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return -EIO;
	snprintf(text, 18, "52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]);
	return 0;
}

int definition_complete(struct definition *definition)
{
	int err = *definition->uuid ? 0 : uuid_make(definition->uuid);

	for (uint64_t i = 0; i < definition->network_count && !err; i++)
		if (!*definition->network[i].mac)
			err = mac_make(definition->network[i].mac);
	return err;
}

const char *definition_launcher(const struct definition *definition)
{
	return definition->boot.firmware == FIRMWARE_NONE ? "moat-vmm" : "moat-qemu";
}

bool definition_network_is_user(const struct definition_network *network)
{
	return !strcmp(network->network, DEFINITION_USER_NETWORK);
}

void definition_disk_device(const struct definition_disk *disk, char *ret)
{
	const char *slash = strrchr(disk->path, '/');

	snprintf(ret, 64, "disk-%.58s", slash ? slash + 1 : disk->path);
	for (char *at = ret; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("-_.", *at))
			*at = '_';
}

char *definition_write(const struct definition *definition)
{
	return schema_write(rows, definition);
}

struct json_object *definition_json(const struct definition *definition)
{
	return schema_json(rows, definition);
}
