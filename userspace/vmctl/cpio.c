// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userspace/vmctl/cpio.h"

#define CPIO_ALIGN	4
#define CPIO_TRAILER	"TRAILER!!!"
#define CPIO_COPY_SIZE	65536

int cpio_init(struct cpio *cpio)
{
	int err, fd = memfd_create("initramfs", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	cpio->entries = 0;
	cpio->out = fdopen(fd, "w+");
	if (cpio->out) {
		setvbuf(cpio->out, NULL, _IOFBF, CPIO_COPY_SIZE);
		return 0;
	}
	err = -errno;
	close(fd);
	return err;
}

static int cpio_error(const struct cpio *cpio)
{
	return ferror(cpio->out) ? -(errno ? errno : EIO) : 0;
}

/* Both a header with its name and a file's data are padded. */
static void cpio_pad(struct cpio *cpio, size_t len)
{
	for (; len % CPIO_ALIGN; len++)
		fputc(0, cpio->out);
}

static int cpio_header(struct cpio *cpio, const char *name, mode_t mode, uint64_t size)
{
	size_t name_size = strlen(name) + 1;
	int len;

	if (size > UINT32_MAX)
		return -EFBIG;
	len = fprintf(cpio->out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		      ++cpio->entries, mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0, (uint32_t)size, 0, 0,
		      0, 0, (uint32_t)name_size, 0);
	fwrite(name, name_size, 1, cpio->out);
	cpio_pad(cpio, len + name_size);
	return cpio_error(cpio);
}

static int cpio_add(struct cpio *cpio, const char *path, mode_t mode, const void *data, size_t len)
{
	int err = cpio_header(cpio, path + 1, mode, len);

	if (err)
		return err;
	if (len)
		fwrite(data, len, 1, cpio->out);
	cpio_pad(cpio, len);
	return cpio_error(cpio);
}

int cpio_add_directory(struct cpio *cpio, const char *path, mode_t mode)
{
	return cpio_add(cpio, path, S_IFDIR | mode, NULL, 0);
}

int cpio_add_link(struct cpio *cpio, const char *path, const char *target)
{
	return cpio_add(cpio, path, S_IFLNK | 0777, target, strlen(target));
}

int cpio_add_data(struct cpio *cpio, const char *path, mode_t mode, const void *data, size_t len)
{
	return cpio_add(cpio, path, S_IFREG | mode, data, len);
}

static int cpio_copy(struct cpio *cpio, int fd, uint64_t size)
{
	static char buf[CPIO_COPY_SIZE];

	while (size) {
		ssize_t n = read(fd, buf, size < sizeof(buf) ? size : sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;
		fwrite(buf, n, 1, cpio->out);
		size -= n;
	}
	return cpio_error(cpio);
}

int cpio_add_file(struct cpio *cpio, const char *path, int fd)
{
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return -errno;
	err = cpio_header(cpio, path + 1, st.st_mode, st.st_size);
	if (!err)
		err = cpio_copy(cpio, fd, st.st_size);
	if (err)
		return err;
	cpio_pad(cpio, st.st_size % CPIO_ALIGN);
	return cpio_error(cpio);
}

int cpio_finish(struct cpio *cpio)
{
	int fd, err = cpio_header(cpio, CPIO_TRAILER, 0, 0);

	if (!err && fflush(cpio->out))
		err = -errno;
	if (err)
		return err;
	rewind(cpio->out);
	fd = fcntl(fileno(cpio->out), F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? -errno : fd;
}

void cpio_abandon(struct cpio *cpio)
{
	fclose(cpio->out);
}
