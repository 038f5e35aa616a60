// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Where the guest sees the host's files by a file system, the initramfs has moat-init and modules, and
 * what to run. Else it has the program with its libraries and a busybox, each where the host has it; the
 * directory that vmctl was called in; moat-init, which is process 1; and in RUN_FOLDER the kernel
 * modules and what to run, which moat-init removes before it runs that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moat/run.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/decompress.h"
#include "userspace/vmctl/guest.h"
#include "userspace/vmctl/launch.h"
#include "userspace/vmctl/library.h"
#include "userspace/vmctl/module.h"
#include "userspace/vmctl/program.h"
#include "userspace/vmctl/terminal.h"

#define GUEST_INIT	"moat-init"
#define GUEST_PATH	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define GUEST_HOME	"/root"
#define GUEST_LOCALES	"/usr/lib/locale"
#define GUEST_LOCALES_MAX	(16 << 20)

static const struct module_wanted guest_modules[] = {
	{ "virtio_pci", false },
	{ "virtio_console", false },
	{ "virtio_rng", true },
};

/* ext4 asks for crc32c by another name than its file's. */
static const struct module_wanted guest_disk_modules[] = {
	{ "virtio_blk", false },
	{ "crc32c_generic", true },
	{ "ext4", true },
};

/* What drives a device, beside what is there anyway. */
static const struct {
	const char *type;
	struct module_wanted module;
} guest_device_modules[] = {
	{ "net,",	{ "virtio_net", false } },
	{ "fs,",	{ "virtiofs", false } },
	{ "balloon,",	{ "virtio_balloon", false } },
	{ "vsock,",	{ "vmw_vsock_virtio_transport", false } },
};

#define GUEST_DEVICE_MODULES	(sizeof(guest_device_modules) / sizeof(guest_device_modules[0]))
#define GUEST_MODULES		(sizeof(guest_modules) / sizeof(guest_modules[0]))
#define GUEST_DISK_MODULES	(sizeof(guest_disk_modules) / sizeof(guest_disk_modules[0]))

/**
 * struct packer - a guest while it is packed
 * @command: RUN_COMMAND_FILE, being written
 */
struct packer {
	const struct guest *guest;
	struct pack pack;
	FILE *command;
	char *text;
	size_t size;
	unsigned int modules;
};

static void command_add(struct packer *packer, char tag, const char *text)
{
	fprintf(packer->command, "%c%s%c", tag, text, 0);
}

static int pack_error(const char *path, int err)
{
	if (err < 0)
		log_error("cannot pack %s: %s", path, strerror(-err));
	return err < 0 ? err : 0;
}

/* Environment */

static bool guest_env_is(const char *variable, const char *name)
{
	size_t len = strlen(name);

	return !strncmp(variable, name, len) && (!variable[len] || variable[len] == '=');
}

/* What --env says of it; NULL: nothing. */
static const char *guest_env(const struct guest *guest, const char *name)
{
	for (size_t i = guest->env_count; i--;) {
		const char *value = strchr(guest->env[i], '=');

		if (guest_env_is(guest->env[i], name))
			return value ? value + 1 : getenv(name);
	}
	return NULL;
}

static void packer_add_env(struct packer *packer, const char *name, const char *value)
{
	if (value)
		fprintf(packer->command, "e%s=%s%c", name, value, 0);
}

static void packer_environment(struct packer *packer)
{
	const struct guest *guest = packer->guest;
	const struct { const char *name; const char *value; } usual[] = {
		{ "PATH", GUEST_PATH }, { "HOME", GUEST_HOME }, { "TERM", getenv("TERM") },
		{ "LANG", getenv("LANG") },
	};

	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (!guest_env(guest, usual[i].name))
			packer_add_env(packer, usual[i].name, usual[i].value);
	for (size_t i = 0; i < guest->env_count; i++) {
		const char *variable = guest->env[i];

		if (strchr(variable, '='))
			command_add(packer, 'e', variable);
		else
			packer_add_env(packer, variable, getenv(variable));
	}
}

/* Modules */

static int packer_add_module(struct packer *packer, const char *file)
{
	char path[64];
	size_t size;
	void *data;
	int err = decompress_file(file, &data, &size);

	if (err)
		return pack_error(file, err);
	snprintf(path, sizeof(path), RUN_FOLDER "/%03u.ko", packer->modules++);
	command_add(packer, 'm', path);
	err = pack_data(&packer->pack, path, 0600, data, size);
	free(data);
	return pack_error(file, err);
}

static int packer_add_modules(struct packer *packer, const char *directory,
			      const struct module_wanted *wanted, size_t count)
{
	struct module_list list;
	int err = module_resolve(directory, wanted, count, &list);

	for (size_t i = 0; !err && i < list.count; i++)
		err = packer_add_module(packer, list.files[i]);
	module_list_free(&list);
	return err;
}

/* One that several lists need is loaded again, which does no harm. */
static int packer_modules(struct packer *packer)
{
	char directory[PATH_MAX];
	int err = kernel_modules(packer->guest->kernel, directory);

	if (!err)
		err = packer_add_modules(packer, directory, guest_modules,
					 GUEST_MODULES);
	for (size_t i = 0; i < GUEST_DEVICE_MODULES && !err; i++)
		if (strstr(packer->guest->types, guest_device_modules[i].type))
			err = packer_add_modules(packer, directory,
						 &guest_device_modules[i].module, 1);
	if (!err && strstr(packer->guest->types, "blk,"))
		err = packer_add_modules(packer, directory, guest_disk_modules,
					 GUEST_DISK_MODULES);
	return err;
}

/* Files */

static int packer_init_program(struct packer *packer)
{
	char path[PATH_MAX];
	int fd, err = launch_find(GUEST_INIT, path);

	if (err)
		return err;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	err = fd < 0 ? -errno : pack_file_as(&packer->pack, "/init", fd);
	if (fd >= 0)
		close(fd);
	return pack_error(path, err);
}

static int packer_skeleton(struct packer *packer)
{
	static const char * const directories[] = {
		"/dev", "/proc", "/sys", "/etc", "/tmp", "/bin",
	};
	static const struct { const char *path; const char *text; } files[] = {
		{ "/etc/passwd", "root:x:0:0:root:" GUEST_HOME ":/bin/sh\n" },
		{ "/etc/group", "root:x:0:\n" },
		{ "/etc/hosts", "127.0.0.1 localhost moat\n" },
	};
	char real[PATH_MAX];
	int err = pack_directory(&packer->pack, RUN_FOLDER, 0700);

	if (!err)
		err = pack_directory(&packer->pack, GUEST_HOME, 0700);
	for (size_t i = 0; err >= 0 && i < sizeof(directories) / sizeof(*directories); i++)
		err = pack_host(&packer->pack, directories[i], real);
	for (size_t i = 0; err >= 0 && i < sizeof(files) / sizeof(*files); i++)
		err = pack_data(&packer->pack, files[i].path, 0644, files[i].text,
				strlen(files[i].text));
	return pack_error("the guest's directories", err);
}

/* With the cache the loader finds in the guest what it finds on the host. */
static int packer_library_cache(struct packer *packer)
{
	char real[PATH_MAX];
	int err = pack_host(&packer->pack, LIBRARY_CACHE, real);

	return err == -ENOENT ? 0 : pack_error(LIBRARY_CACHE, err);
}

static int packer_directory(struct packer *packer)
{
	char path[PATH_MAX], real[PATH_MAX];
	int err;

	if (!getcwd(path, sizeof(path)))
		return pack_error("the working directory", -errno);
	if (packer->guest->root) {
		command_add(packer, 'c', path);
		return 0;
	}
	err = pack_host(&packer->pack, path, real);
	if (err < 0)
		return pack_error(path, err);
	command_add(packer, 'c', real);
	return 0;
}

/* What is no program for this machine cannot be executed, as a shell would say. */
static int packer_program(struct packer *packer, const char *path)
{
	int err;

	command_add(packer, 'p', path);
	for (char **arg = packer->guest->argv; *arg; arg++)
		command_add(packer, 'a', *arg);
	if (packer->guest->root)
		return 0;
	err = program_pack(&packer->pack, path, guest_env(packer->guest, "LD_LIBRARY_PATH"));
	return err == -ENOEXEC || err == -ENOTSUP ? -EACCES : err;
}

/* Those of a host with many languages are left out: a program without its own has the C locale. */
static int packer_locale(struct packer *packer)
{
	static const char * const files[] = { "LC_CTYPE", "LC_COLLATE", "LC_NUMERIC", "LC_TIME",
		"LC_MONETARY", "LC_MESSAGES/SYS_LC_MESSAGES", "LC_PAPER", "LC_NAME", "LC_ADDRESS",
		"LC_TELEPHONE", "LC_MEASUREMENT", "LC_IDENTIFICATION" };
	char path[PATH_MAX], real[PATH_MAX];
	struct stat st;
	int err = 0;

	for (size_t i = 0; err >= 0 && i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), GUEST_LOCALES "/C.utf8/%s", files[i]);
		if (!access(path, R_OK))
			err = pack_host(&packer->pack, path, real);
	}
	strcpy(path, GUEST_LOCALES "/locale-archive");
	if (err >= 0 && !stat(path, &st) && st.st_size <= GUEST_LOCALES_MAX)
		err = pack_host(&packer->pack, path, real);
	return pack_error(path, err);
}

static int packer_command(struct packer *packer)
{
	struct run_window_size size = terminal_size();

	packer_environment(packer);
	fprintf(packer->command, "w%u %u%c", size.rows, size.columns, 0);
	command_add(packer, 't', packer->guest->terminals);
	if (fclose(packer->command))
		return -ENOMEM;
	packer->command = NULL;
	return pack_error(RUN_COMMAND_FILE, pack_data(&packer->pack, RUN_COMMAND_FILE, 0600,
						      packer->text, packer->size));
}

static void packer_mounts(struct packer *packer)
{
	const struct guest *guest = packer->guest;

	command_add(packer, 'r', guest->root);
	for (size_t i = 0; i < guest->mount_count; i++)
		command_add(packer, guest->mounts[i][0], guest->mounts[i] + 1);
}

/* What the command finds here as on the host. */
static int packer_surroundings(struct packer *packer)
{
	int err = packer_library_cache(packer);

	if (!err)
		err = packer_locale(packer);
	return err ? err : program_pack_busybox(&packer->pack);
}

static int packer_run(struct packer *packer)
{
	int err = packer_skeleton(packer);

	if (!err)
		err = packer_init_program(packer);
	if (!err)
		err = packer_modules(packer);
	if (!err)
		err = packer_directory(packer);
	if (packer->guest->root)
		packer_mounts(packer);
	else if (!err)
		err = packer_surroundings(packer);
	return err ? err : packer_command(packer);
}

static int guest_find(const char *name, char *ret)
{
	int err = program_find(name, ret);

	if (!err)
		return 0;
	if (err == -EACCES)
		log_error("%s: cannot be executed", name);
	else if (strchr(name, '/'))
		log_error("%s: %s", name, strerror(-err));
	else
		log_error("%s: not found in PATH", name);
	return err == -EACCES ? -EACCES : -ENOENT;
}

int guest_pack(const struct guest *guest)
{
	struct packer packer = { .guest = guest };
	char program[PATH_MAX];
	int fd, err = guest_find(guest->argv[0], program);

	if (err)
		return err;
	packer.command = open_memstream(&packer.text, &packer.size);
	if (!packer.command || pack_init(&packer.pack)) {
		log_error("no memory for the guest's initramfs");
		return -EIO;
	}
	fd = packer_program(&packer, program);
	if (!fd && packer_run(&packer))
		fd = -EIO;
	if (!fd) {
		fd = cpio_finish(&packer.pack.cpio);
		pack_error("the initramfs", fd);
	}
	if (packer.command)
		fclose(packer.command);
	free(packer.text);
	pack_finish(&packer.pack);
	if (fd == -EACCES)
		return fd;
	return fd < 0 ? -EIO : fd;
}
