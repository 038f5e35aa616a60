// SPDX-License-Identifier: MIT OR GPL-2.0
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "userspace/lib/beside.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/kernel.h"
#include "userspace/vmctl/launch.h"

#define KERNEL_SECTOR		512
#define KERNEL_MAGIC		"HdrS"
#define KERNEL_MULTIBOOT	0x1badb002
#define KERNEL_SEARCH		8192
#define KERNEL_BUILD_TREE	"../cache/kernel-*/vmlinuz"

/*
 * The version string's first word; its place is in the header, less one sector. False for what is
 * no bzImage.
 */
static bool kernel_read_version(struct kernel *kernel)
{
	struct setup_header header;

	kernel->version[0] = '\0';
	if (fd_pread_full(kernel->fd, &header, sizeof(header), offsetof(struct boot_params, hdr)) ||
	    memcmp(&header.header, KERNEL_MAGIC, 4))
		return false;
	if (!header.kernel_version ||
	    fd_pread_full(kernel->fd, kernel->version, sizeof(kernel->version) - 1,
			  header.kernel_version + KERNEL_SECTOR))
		kernel->version[0] = '\0';
	kernel->version[sizeof(kernel->version) - 1] = '\0';
	kernel->version[strcspn(kernel->version, " \n/")] = '\0';
	return true;
}

/* ELF, or multiboot by the looks of it: moat-vmm looks closer. None that tells a version. */
static bool kernel_is_other(int fd)
{
	uint32_t words[KERNEL_SEARCH / sizeof(uint32_t)];
	ssize_t len = pread(fd, words, sizeof(words), 0);

	if (len >= SELFMAG && !memcmp(words, ELFMAG, SELFMAG))
		return true;
	for (ssize_t i = 0; i < len / (ssize_t)sizeof(*words); i++)
		if (words[i] == KERNEL_MULTIBOOT)
			return true;
	return false;
}

static int kernel_try(struct kernel *kernel, const char *path)
{
	if (strlen(path) >= sizeof(kernel->path))
		return -ENAMETOOLONG;
	kernel->fd = fd_open(path, O_RDONLY);
	if (kernel->fd < 0)
		return kernel->fd;
	strcpy(kernel->path, path);
	if (kernel_read_version(kernel) || kernel_is_other(kernel->fd))
		return 0;
	close(kernel->fd);
	return -ENOEXEC;
}

static int kernel_try_host(struct kernel *kernel)
{
	struct utsname name;
	char path[PATH_MAX];

	uname(&name);
	snprintf(path, sizeof(path), "/boot/vmlinuz-%s", name.release);
	return kernel_try(kernel, path);
}

static int kernel_try_build_tree(struct kernel *kernel)
{
	char pattern[PATH_MAX];
	glob_t found;
	int err = beside_path(KERNEL_BUILD_TREE, pattern);

	if (err)
		return err;
	if (glob(pattern, 0, NULL, &found))
		return -ENOENT;
	err = kernel_try(kernel, found.gl_pathv[0]);
	globfree(&found);
	return err;
}

static int kernel_open_named(struct kernel *kernel, const char *path)
{
	int err = kernel_try(kernel, path);

	if (err == -ENOEXEC)
		log_error("%s is no kernel: name a bzImage as /boot/vmlinuz-*, or one for PVH or multiboot",
			  path);
	else if (err)
		log_error("cannot open the kernel %s: %s", path, strerror(-err));
	return err;
}

int kernel_open(const char *named, struct kernel *ret)
{
	const char *other = getenv("MOAT_KERNEL");
	int err;

	if (named)
		return kernel_open_named(ret, named);
	if (!kernel_try_host(ret))
		return 0;
	if (other && *other)
		return kernel_open_named(ret, other);
	err = kernel_try_build_tree(ret);
	if (err)
		log_error("no kernel: cannot read this host's in /boot; name one by --kernel");
	return err;
}

/* Is it a lib/modules/VERSION of that version? */
static int kernel_modules_at(const struct kernel *kernel, const char *format, const char *base,
			     char *ret)
{
	char path[PATH_MAX], file[PATH_MAX + 16], real[PATH_MAX];
	const char *name;

	if (snprintf(path, sizeof(path), format, base, kernel->version) >= PATH_MAX)
		return -ENAMETOOLONG;
	snprintf(file, sizeof(file), "%s/modules.dep", path);
	if (access(file, R_OK) || !realpath(path, real))
		return -errno;
	name = strrchr(real, '/');
	if (strcmp(name + 1, kernel->version))
		return -ENOENT;
	strcpy(ret, real);
	return 0;
}

static int kernel_modules_below(const struct kernel *kernel, const char *base, char *ret)
{
	static const char * const formats[] = { "%s", "%s/%s", "%s/lib/modules/%s" };

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (!kernel_modules_at(kernel, formats[i], base, ret))
			return 0;
	return -ENOENT;
}

int kernel_modules(const struct kernel *kernel, char *ret)
{
	const char *named = getenv("MOAT_MODULES");
	char beside[PATH_MAX];

	if (!kernel->version[0]) {
		log_error("%s does not tell its version: name one that does by --kernel",
			  kernel->path);
		return -ENOEXEC;
	}
	if (named && *named && !kernel_modules_below(kernel, named, ret))
		return 0;
	if (!kernel_modules_below(kernel, "", ret))
		return 0;
	strcpy(beside, kernel->path);
	if (strrchr(beside, '/')) {
		*strrchr(beside, '/') = '\0';
		if (!kernel_modules_below(kernel, beside, ret))
			return 0;
	}
	log_error("no modules for the kernel %s (%s): name them by MOAT_MODULES=lib/modules/%s",
		  kernel->path, kernel->version, kernel->version);
	return -ENOENT;
}
