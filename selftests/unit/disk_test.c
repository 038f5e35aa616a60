// SPDX-License-Identifier: MIT OR GPL-2.0
/* Disks: names, specifications, locks between processes, heads of qcow2 images, seeds. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/lib/qcow2.h"
#include "userspace/moatd/disk_file.h"
#include "userspace/moatd/seed.h"

#define MIB	(1ULL << 20)

static char path[] = "/tmp/moat-disk.XXXXXX";
static char why[DISK_WHY];
static int dir;

static struct disk_user self;

static struct disk_spec spec_of(const char *name, uint64_t size)
{
	return (struct disk_spec){ .name = name, .size = size, .owner = geteuid(), .from = -1 };
}

static int create(const char *name, uint64_t size)
{
	const struct disk_spec spec = spec_of(name, size);

	return disk_create(dir, &spec, why);
}

static bool is_there(const char *file)
{
	return !faccessat(dir, file, F_OK, 0);
}

static void put(const char *file, const void *data, size_t size)
{
	int fd = openat(dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	EXPECT(write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static void test_names(void)
{
	static const char *const good[] = { "a", "0", "web-1.data_2", "A.b..c",
		"a12345678901234567890123456789012345678901234567" };
	static const char *const bad[] = { "", ".", "..", ".new-1", "-c", "_a", "a/b", "../a", "a@s", "a b",
		"a\n", "caf\xc3\xa9", "a,b", "a:b",
		"a123456789012345678901234567890123456789012345678" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		EXPECT(!disk_name_check(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT(disk_name_check(bad[i]) == -EINVAL);
		EXPECT(create(bad[i], MIB) == -EINVAL);
		EXPECT(disk_delete(dir, bad[i], why) == -EINVAL);
		EXPECT(disk_snapshot_create(dir, "a", bad[i], why) == -EINVAL);
	}
	EXPECT(disk_snapshot_create(dir, "a", "1", why) == -EINVAL);
}

static void test_specs(void)
{
	struct disk_spec spec = spec_of("spec", 0);
	struct disk_info info;

	EXPECT(disk_create(dir, &spec, why) == -EINVAL);
	EXPECT(create("spec", 511) == -EINVAL);
	EXPECT(create("spec", 1ULL << 47) == -EINVAL);
	spec = spec_of("spec", MIB);
	spec.reflink = true;
	EXPECT(disk_create(dir, &spec, why) == -EOPNOTSUPP);
	EXPECT(!is_there("spec.raw"));
	EXPECT(!create("spec", MIB) && is_there("spec.raw"));
	EXPECT(create("spec", MIB) == -EEXIST && strstr(why, "spec.raw"));
	EXPECT(!disk_look(dir, "spec", &info, why) && info.size == MIB && !info.allocated &&
	       info.owner == geteuid() && !info.in_use && !info.snapshots && info.format == DISK_RAW);
	put("other.qcow2", "x", 1);
	EXPECT(create("other", MIB) == -EEXIST);
	EXPECT(disk_delete(dir, "other", why) == 0 && !is_there("other.qcow2"));
	EXPECT(disk_delete(dir, "spec", why) == 0 && !is_there("spec.raw"));
	EXPECT(disk_delete(dir, "spec", why) == -ENOENT);
}

/* A sparse image, with something at its head. */
static int image_of(uint64_t size, const char *data, size_t length)
{
	int fd;

	put("image", data, length);
	fd = openat(dir, "image", O_RDWR | O_CLOEXEC);
	EXPECT(!ftruncate(fd, size));
	unlinkat(dir, "image", 0);
	return fd;
}

static void test_copies(void)
{
	struct disk_spec spec = spec_of("copy", MIB);
	char data[1000], back[1000];
	struct disk_info info;
	int fd;

	memset(data, 'd', sizeof(data));
	spec.from = image_of(4 * MIB, data, sizeof(data));
	EXPECT(disk_create(dir, &spec, why) == -EINVAL && strstr(why, "less"));
	spec.size = 8 * MIB;
	EXPECT(!disk_create(dir, &spec, why));
	EXPECT(!disk_look(dir, "copy", &info, why) && info.size == 8 * MIB && info.allocated < MIB);
	fd = openat(dir, "copy.raw", O_RDONLY | O_CLOEXEC);
	EXPECT(pread(fd, back, sizeof(back), 0) == sizeof(back) && !memcmp(data, back, sizeof(back)));
	close(fd);
	close(spec.from);
	EXPECT(!disk_delete(dir, "copy", why));
}

/* Another process that has a disk, until it is told to end. */
static pid_t hold(const char *name, bool read_only, int *ret_fd)
{
	enum disk_format format;
	pid_t pid;

	if (!EXPECT(!disk_open(dir, name, &self, read_only, ret_fd, &format, why)))
		return -1;
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	/* From here on it is the other one's alone. */
	close(*ret_fd);
	return pid;
}

static void release(pid_t pid)
{
	if (pid <= 1)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_locks(void)
{
	enum disk_format format;
	struct disk_info info;
	int fd, other;
	pid_t pid;

	EXPECT(!create("lock", MIB));
	pid = hold("lock", false, &fd);
	EXPECT(disk_open(dir, "lock", &self, true, &fd, &format, why) == -EBUSY && strstr(why, "in use"));
	EXPECT(disk_resize(dir, "lock", 2 * MIB, false, why) == -EBUSY);
	EXPECT(disk_delete(dir, "lock", why) == -EBUSY);
	EXPECT(disk_snapshot_create(dir, "lock", "s", why) == -EBUSY);
	EXPECT(disk_snapshot_revert(dir, "lock", "s", why) == -EBUSY);
	EXPECT(!disk_look(dir, "lock", &info, why) && info.in_use);
	release(pid);
	EXPECT(!disk_look(dir, "lock", &info, why) && !info.in_use);

	pid = hold("lock", true, &fd);
	EXPECT(!disk_open(dir, "lock", &self, true, &other, &format, why) && format == DISK_RAW);
	close(other);
	EXPECT(disk_open(dir, "lock", &self, false, &fd, &format, why) == -EBUSY);
	release(pid);
	EXPECT(!disk_resize(dir, "lock", 2 * MIB, false, why));
	EXPECT(disk_resize(dir, "lock", MIB, false, why) == -EINVAL && strstr(why, "lost"));
	EXPECT(!disk_resize(dir, "lock", MIB, true, why));
	EXPECT(!disk_delete(dir, "lock", why));
}

static int collect(void *context, const struct disk_snapshot *snapshot)
{
	strcat(strcat(context, snapshot->name), " ");
	return 0;
}

static void write_at(const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);

	EXPECT(pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
	close(fd);
}

static void expect_at(const char *file, const char *text)
{
	char back[16] = "";
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);

	EXPECT(pread(fd, back, strlen(text), 0) == (ssize_t)strlen(text) && !strcmp(back, text));
	close(fd);
}

static void test_snapshots(void)
{
	char names[256] = "";
	struct disk_info info;

	EXPECT(!create("snap", MIB) && !create("snap2", MIB));
	write_at("snap.raw", "first");
	EXPECT(disk_snapshot_create(dir, "snap", "one", why) >= 0);
	EXPECT(disk_snapshot_create(dir, "snap", "one", why) == -EEXIST);
	write_at("snap.raw", "again");
	EXPECT(!disk_look(dir, "snap", &info, why) && info.snapshots == 1);
	EXPECT(!disk_look(dir, "snap2", &info, why) && !info.snapshots);
	EXPECT(!disk_snapshot_revert(dir, "snap", "one", why));
	expect_at("snap.raw", "first");
	EXPECT(disk_snapshot_revert(dir, "snap", "two", why) == -ENOENT);
	EXPECT(disk_snapshot_delete(dir, "snap", "two", why) == -ENOENT);
	EXPECT(!disk_snapshot_list(dir, "snap", collect, names, why) && !strcmp(names, "one "));
	EXPECT(!disk_delete(dir, "snap", why) && !is_there("snap@one.raw"));
	EXPECT(!disk_delete(dir, "snap2", why));
}

static void test_sweep(void)
{
	struct disk_file disk;

	put(".new-0123", "x", 1);
	put("kept.raw", "x", 1);
	put("@.raw", "x", 1);
	EXPECT(!disk_new(dir, geteuid(), &disk, why) && is_there(disk.file));
	EXPECT(!disk_sweep(dir, why));
	EXPECT(!is_there(".new-0123") && is_there("kept.raw") && is_there(disk.file));
	EXPECT(!disk_publish(&disk, "new.raw", false, why) && is_there("new.raw") && !is_there(disk.file));
	EXPECT(!disk_new(dir, geteuid(), &disk, why));
	EXPECT(disk_publish(&disk, "new.raw", false, why) == -EEXIST && !is_there(disk.file));
	unlinkat(dir, "kept.raw", 0);
	unlinkat(dir, "@.raw", 0);
	EXPECT(!disk_delete(dir, "new", why));
}

/* What is no disk, or none for this format, or of another user, is not opened, and holds nobody up. */
static void test_opening(void)
{
	static const struct disk_user nobody = { 65534, 65534 };
	int fd, memory = memfd_create("ours", MFD_CLOEXEC);
	char file[64];

	snprintf(file, sizeof(file), "/proc/self/fd/%d", memory);
	EXPECT(!ftruncate(memory, MIB));
	EXPECT(disk_open_path(file, DISK_RAW, &self, true, &fd, why) == -ELOOP);
	snprintf(file, sizeof(file), "/dev/fd/%d", memory);
	EXPECT(disk_open_path(file, DISK_RAW, &self, true, &fd, why) == -ELOOP);
	close(memory);
	EXPECT(disk_open_path("it", DISK_RAW, &self, false, &fd, why) == -EINVAL);
	snprintf(file, sizeof(file), "%s/it", path);
	EXPECT(disk_open_path(file, DISK_RAW, &self, false, &fd, why) == -ENOENT);
	EXPECT(!mkfifo(file, 0600));
	EXPECT(disk_open_path(file, DISK_RAW, &self, false, &fd, why) == -EINVAL && strstr(why, "neither"));
	EXPECT(disk_open_path("/dev/null", DISK_RAW, &self, false, &fd, why) == -EINVAL);
	EXPECT(disk_open_path(path, DISK_RAW, &self, true, &fd, why) == -EINVAL);
	unlink(file);
	put("it", "QFI\xfb", 4);
	EXPECT(!truncate(file, MIB));
	EXPECT(disk_open_path(file, DISK_QCOW2, &self, false, &fd, why) == -EINVAL && strstr(why, "qcow2"));
	EXPECT(!disk_open_path(file, DISK_RAW, &self, false, &fd, why));
	EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
	close(fd);
	if (!geteuid()) {
		EXPECT(disk_open_path(file, DISK_RAW, &nobody, true, &fd, why) == -EACCES);
		EXPECT(!disk_open_path(file, DISK_RAW, &self, true, &fd, why));
		close(fd);
	}
	unlink(file);
}

/* As on the disk: version 3, 104 bytes. */
static void head_put(unsigned char *head, size_t at, uint64_t value, size_t size)
{
	while (size--) {
		head[at + size] = value;
		value >>= 8;
	}
}

static const unsigned char *good_head(void)
{
	static unsigned char head[104];

	memset(head, 0, sizeof(head));
	head_put(head, 0, 0x514649fb, 4);
	head_put(head, 4, 3, 4);
	head_put(head, 20, 16, 4);
	head_put(head, 24, MIB, 8);
	return head;
}

static int read_head(const void *head, size_t size, const char **ret_why)
{
	struct qcow2 qcow2;
	int err, fd;

	put("head", head, size);
	fd = openat(dir, "head", O_RDONLY | O_CLOEXEC);
	err = qcow2_read(fd, &qcow2, ret_why);
	if (!err)
		EXPECT(qcow2.size == MIB);
	close(fd);
	unlinkat(dir, "head", 0);
	return err;
}

static void test_heads(void)
{
	static const struct {
		size_t at;
		size_t size;
		uint64_t value;
		const char *why;
	} bad[] = {
		{ 0, 4, 0x514649fa, "not a qcow2" }, { 4, 4, 1, "version" }, { 4, 4, 4, "version" },
		{ 8, 8, 200, "backing" }, { 16, 4, 5, "backing" }, { 24, 8, 0, "nothing" },
		{ 32, 4, 1, "encrypted" }, { 72, 8, 4, "another file" }, { 72, 8, 2, "corrupt" },
		{ 72, 8, 1ULL << 40, "not known" },
	};
	const char *reason;

	EXPECT(!read_head(good_head(), 104, &reason));
	EXPECT(read_head(good_head(), 79, &reason) == -EINVAL);
	EXPECT(read_head(good_head(), 0, &reason) == -EINVAL && strstr(reason, "not a qcow2"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		unsigned char head[104];

		memcpy(head, good_head(), sizeof(head));
		head_put(head, bad[i].at, bad[i].value, bad[i].size);
		EXPECT(read_head(head, sizeof(head), &reason) == -EINVAL && strstr(reason, bad[i].why));
	}
}

/* A table that goes beyond the file, has entries that are too long, and names that are none. */
static void test_tables(void)
{
	unsigned char table[128] = { 0 };
	struct qcow2_snapshot snapshot;
	uint64_t at = 0;
	int fd;

	head_put(table, 12, 1, 2);
	head_put(table, 14, 6, 2);
	head_put(table, 36, 16, 4);
	head_put(table, 48, MIB, 8);
	memcpy(table + 56, "1a\n\xff\x1b[b", 7);
	put("head", table, sizeof(table));
	fd = openat(dir, "head", O_RDWR | O_CLOEXEC);
	EXPECT(!qcow2_read_snapshot(fd, &at, &snapshot));
	EXPECT(!strcmp(snapshot.name, "a[b") && snapshot.size == MIB && at == 64);
	at = 100;
	EXPECT(qcow2_read_snapshot(fd, &at, &snapshot) < 0);
	at = UINT64_MAX - 8;
	EXPECT(qcow2_read_snapshot(fd, &at, &snapshot) < 0);
	head_put(table, 36, 1025, 4);
	EXPECT(pwrite(fd, table, sizeof(table), 0) == sizeof(table));
	at = 0;
	EXPECT(qcow2_read_snapshot(fd, &at, &snapshot) == -EINVAL);
	close(fd);
	unlinkat(dir, "head", 0);
}

/* The text of a seed that begins with @begin: one line. Freed by the next call. */
static const char *seed_line(const struct seed_spec *spec, const char *begin)
{
	static char *image;
	const char *line, *end;
	struct stat st;
	int fd;

	free(image);
	image = NULL;
	if (!EXPECT(!seed_create(spec, &fd, why)))
		return "";
	EXPECT(pwrite(fd, "x", 1, 0) < 0 && errno == EPERM && ftruncate(fd, 0) < 0);
	fstat(fd, &st);
	image = calloc(1, st.st_size + 1);
	EXPECT(pread(fd, image, st.st_size, 0) == st.st_size);
	close(fd);
	line = memmem(image, st.st_size, begin, strlen(begin));
	if (!EXPECT(line))
		return "";
	line += strlen(begin);
	end = strchr(line, '\n');
	image[end - image] = '\0';
	return line;
}

static void test_seed(void)
{
	const char *const keys[] = { "ssh-ed25519 AAAA me@here", "a\"b\\c\n#cloud-config\nruncmd: [x]" };
	const struct seed_network network = { .address = "192.0.2.5/24", .gateway = "fe80::1" };
	const struct seed_spec spec = {
		.hostname = "h\r\t\x01\x7f", .user = "\xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80\xc2\x85\xef\xbb\xbf",
		.keys = keys, .key_count = 2, .network = &network,
	};

	EXPECT(!strcmp(seed_line(&spec, "#cloud-config\n"),
		"{\"hostname\":\"h\\u000d\\u0009\\u0001\\u007f\",\"users\":[{\"name\":"
		"\"\xc3\xa9\\u2028\xf0\x9f\x98\x80\\u0085\\ufeff\",\"shell\":\"/bin/bash\","
		"\"sudo\":\"ALL=(ALL) NOPASSWD:ALL\",\"lock_passwd\":true,\"ssh_authorized_keys\":["
		"\"ssh-ed25519 AAAA me@here\","
		"\"a\\u0022b\\u005cc\\u000a#cloud-config\\u000aruncmd: [x]\"]}],\"ssh_pwauth\":false}"));
	EXPECT(!strcmp(seed_line(&spec, "{\"version\":2,"),
		"\"ethernets\":{\"net0\":{\"match\":{\"name\":\"e*\"},\"addresses\":[\"192.0.2.5/24\"],"
		"\"routes\":[{\"to\":\"::/0\",\"via\":\"fe80::1\"}]}}}"));
	EXPECT(!strncmp(seed_line(&spec, "{\"instance-id\":"), "\"h\\u000d", 8));
}

static void test_seed_refused(void)
{
	static const char *const bad[] = { "\xff", "a\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
		"\xf5\x80\x80\x80", "\xf4\x90\x80\x80", "\xe2\x80", "\xc3" };
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct seed_spec spec = { .hostname = "h", .user = bad[i] };
		const struct seed_spec key = { .hostname = "h", .user = "u", .keys = &bad[i], .key_count = 1 };

		EXPECT(seed_create(&spec, &fd, why) == -EILSEQ && strstr(why, "UTF-8"));
		EXPECT(seed_create(&key, &fd, why) == -EILSEQ);
	}
}

static const struct unit_test tests[] = {
	{ "names: what is none of a disk, or of a snapshot, is refused by all", test_names },
	{ "specifications: sizes; no two of one name", test_specs },
	{ "a copy of an image has its holes, and can be larger", test_copies },
	{ "a disk that another process has is not used twice, and free when that dies", test_locks },
	{ "snapshots of raw disks", test_snapshots },
	{ "what was left half done is swept, what is being done is not", test_sweep },
	{ "only what is a disk to that user is opened, as what it is said to be", test_opening },
	{ "heads of qcow2 images: those that name other files, or are damaged, are refused", test_heads },
	{ "tables of snapshots, and such as are none", test_tables },
	{ "a seed says what it was told, whatever is in that", test_seed },
	{ "a seed that is not UTF-8 is refused", test_seed_refused },
};

int main(void)
{
	int status;

	self = (struct disk_user){ geteuid(), getegid() };
	if (!mkdtemp(path))
		return 1;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	status = unit_main(tests, ARRAY_SIZE(tests));
	if (rmdir(path)) {
		printf("# %s: %s\n", path, strerror(errno));
		status = 1;
	}
	return status;
}
