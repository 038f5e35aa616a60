// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest does with a tree of the host's, as process 1, with modules in /modules: it adds up what is
 * in it, or copies it and changes more, and tries what should not be possible. The host does the same sum.
 *
 *	init read|write TAG
 *	fs_work sum DIRECTORY
 */
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "selftests/vhost/guest.h"

#define FNV_START	0xcbf29ce484222325ULL
#define FNV_PRIME	0x100000001b3ULL
#define DEPTH		16
#define BLOCK		65536

static uint64_t sum, bytes;
static unsigned int files, errors;
static size_t root_len;
static const char *copy_to;

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	errors++;
	printf("error: %s: %s\n", what, strerror(errno));
}

#define EXPECT(what) expect(what, #what)

/* The sum of a tree is that of its files, in whatever order. */

static uint64_t hash(uint64_t value, const void *of, size_t len)
{
	const uint8_t *byte = of;

	while (len--)
		value = (value ^ *byte++) * FNV_PRIME;
	return value;
}

static uint64_t hash_file(uint64_t value, const char *path)
{
	static char block[BLOCK];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	EXPECT(fd >= 0);
	while ((n = read(fd, block, sizeof(block))) > 0) {
		value = hash(value, block, n);
		bytes += n;
	}
	EXPECT(n == 0);
	close(fd);
	return value;
}

static int add(const char *path, const struct stat *st, int type, struct FTW *at)
{
	uint64_t value = hash(FNV_START, path + root_len, strlen(path + root_len));
	const uint64_t kept[] = { at->level ? st->st_mode : 0, S_ISDIR(st->st_mode) ? 0 : st->st_size };
	char target[PATH_MAX];

	expect(type != FTW_NS && type != FTW_DNR, path);
	value = hash(value, kept, sizeof(kept));
	if (S_ISLNK(st->st_mode))
		value = hash(value, target, readlink(path, target, sizeof(target)));
	else if (S_ISREG(st->st_mode))
		value = hash_file(value, path);
	sum += value;
	files++;
	return 0;
}

static void sum_tree(const char *path)
{
	sum = files = bytes = 0;
	root_len = strlen(path);
	EXPECT(!nftw(path, add, DEPTH, FTW_PHYS));
}

/* A copy of the tree */

static void copy_file(const char *from, const char *to, mode_t mode)
{
	static char block[BLOCK];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, mode);
	ssize_t n;

	EXPECT(in >= 0 && out >= 0);
	while ((n = read(in, block, sizeof(block))) > 0)
		EXPECT(write(out, block, n) == n);
	close(in);
	EXPECT(!close(out));
}

static int copy(const char *path, const struct stat *st, int type, struct FTW *at)
{
	char to[PATH_MAX], target[PATH_MAX];
	ssize_t len;

	(void)type;
	(void)at;
	snprintf(to, sizeof(to), "%s%s", copy_to, path + root_len);
	if (S_ISDIR(st->st_mode)) {
		EXPECT(!mkdir(to, st->st_mode & 07777));
	} else if (S_ISLNK(st->st_mode)) {
		len = readlink(path, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = 0;
		EXPECT(!symlink(target, to));
	} else {
		copy_file(path, to, st->st_mode & 07777);
	}
	return 0;
}

/* Changes of other kinds, in a directory of their own */

static bool file_is(const char *path, const char *text)
{
	char have[64] = "";
	int fd = open(path, O_RDONLY);
	ssize_t len = read(fd, have, sizeof(have));

	close(fd);
	return len == (ssize_t)strlen(text) && !memcmp(have, text, len);
}

static void write_file(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);

	EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !fsync(fd));
	EXPECT(!close(fd));
}

static void change_mapped(void)
{
	int fd = open("mapped", O_RDWR | O_CREAT, 0644);
	char *at;

	EXPECT(!ftruncate(fd, 10000));
	at = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(at != MAP_FAILED);
	if (at == MAP_FAILED)
		return;
	memset(at, 'm', 10000);
	EXPECT(!msync(at, 10000, MS_SYNC) && !munmap(at, 10000));
	close(fd);
}

static void change(void)
{
	struct stat st;
	int fd;

	EXPECT(!mkdir("more", 0755) && !chdir("more"));
	write_file("file", O_TRUNC, "one");
	write_file("file", O_APPEND, " two");
	EXPECT(file_is("file", "one two") && !truncate("file", 5) && file_is("file", "one t"));
	write_file("file", O_TRUNC, "three");
	EXPECT(!link("file", "link") && !stat("link", &st) && st.st_nlink == 2);
	EXPECT(!rename("file", "renamed") && access("file", F_OK) && file_is("renamed", "three"));
	write_file("over", 0, "over");
	EXPECT(!rename("over", "link") && file_is("link", "over") && file_is("renamed", "three"));
	EXPECT(!chmod("renamed", 0600) && !stat("renamed", &st) && (st.st_mode & 07777) == 0600);
	EXPECT(!utimensat(AT_FDCWD, "renamed", (struct timespec[2]){ { 5, 0 }, { 7, 0 } }, 0));
	EXPECT(!stat("renamed", &st) && st.st_mtime == 7);
	fd = open("link", O_RDWR);
	EXPECT(!unlink("link") && pwrite(fd, "gone", 4, 0) == 4 && !fstat(fd, &st) && !st.st_nlink);
	close(fd);
	fd = open("room", O_RDWR | O_CREAT, 0644);
	EXPECT(!fallocate(fd, 0, 0, 100000) && !fstat(fd, &st) && st.st_size == 100000);
	EXPECT(lseek(fd, 0, SEEK_HOLE) >= 0);
	close(fd);
	change_mapped();
	EXPECT(!mkdir("empty", 0700) && !rmdir("empty") && rmdir("."));
}

/* What a guest, root of itself, cannot do with the host's */
static void leave(bool writes)
{
	EXPECT(!chdir("/mnt") && open("../secret", O_RDONLY) < 0 && open("in/up", O_RDONLY) < 0);
	EXPECT(open("in/absolute", O_RDONLY) < 0);
	if (!writes) {
		EXPECT(open("in/new", O_WRONLY | O_CREAT, 0644) < 0 && errno == EROFS);
		EXPECT(mkdir("new", 0755) && errno == EROFS);
		EXPECT(unlink("in/up") && errno == EROFS && chmod("in", 0700) && errno == EROFS);
		return;
	}
	EXPECT(mknod("device", S_IFCHR | 0600, 0x103) && errno == EPERM);
	EXPECT(mkfifo("fifo", 0600) && errno == EPERM);
	EXPECT(chmod("more/renamed", 04755) && errno == EPERM);
	EXPECT(chown("more/renamed", 12345, 12345) && errno == EPERM);
}

static void guest_run(bool writes, const char *tag)
{
	time_t begun;

	guest_begin();
	mkdir("/mnt", 0755);
	umask(0);
	if (mount(tag, "/mnt", "virtiofs", 0, NULL)) {
		printf("error: mount: %s\n", strerror(errno));
		guest_end();
	}
	printf("mounted\n");
	begun = time(NULL);
	sum_tree("/mnt/in");
	printf("sum: %016llx\nread: %u files, %llu KiB in %d s\n", (unsigned long long)sum, files,
	       (unsigned long long)bytes >> 10, (int)(time(NULL) - begun));
	if (writes) {
		begun = time(NULL);
		copy_to = "/mnt/out";
		EXPECT(!nftw("/mnt/in", copy, DEPTH, FTW_PHYS));
		printf("written: in %d s\n", (int)(time(NULL) - begun));
		EXPECT(!chdir("/mnt"));
		change();
	}
	leave(writes);
	sync();
	printf("errors: %u end\n", errors);
	/* Somebody looks at the device program. */
	sleep(2);
	EXPECT(!chdir("/") && !umount("/mnt"));
	guest_end();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && getpid() == 1)
		guest_run(!strcmp(argv[1], "write"), argv[2]);
	if (argc != 3 || strcmp(argv[1], "sum")) {
		fprintf(stderr, "Usage: fs_work sum DIRECTORY\n");
		return 2;
	}
	sum_tree(argv[2]);
	printf("%016llx\n", (unsigned long long)sum);
	return !!errors;
}
