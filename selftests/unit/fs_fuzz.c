// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A fuzzer's way into the requests of the file system. The input is one request after the other: opcode, how
 * it is made, how its message is cut, and what is behind the header. Numbers that were told before are put
 * in the place of those that it could only guess. What is beside the tree stays as it is.
 * With clang: -fsanitize=fuzzer,address,undefined.
 */
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "devmodel/fs/files.h"
#include "devmodel/fs/tree.h"
#include "selftests/unit/fs_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NODES		16
#define HANDLES		8
#define LEARNT		8
#define FILE_SIZE_MAX	(1 << 20)

/* How a request is made. */
enum { OWN_NODE = 7, PUT_HANDLE = 8, PUT_NODE = 16, WRONG_LENGTH = 32, READ_ONLY = 64, NO_ROOM = 128 };

static char folder[] = "/tmp/moat-fs-fuzz.XXXXXX";
static char tree[64], outside[64];
static int self;
static struct files files;
static uint64_t nodes[LEARNT], handles[LEARNT];
static unsigned int told;
static uint32_t piece_size;

static unsigned int cut(struct iovec *iov, void *bytes, uint32_t len)
{
	unsigned int count = 0;

	for (uint32_t at = 0; at < len; at += piece_size)
		iov[count++] = (struct iovec){
			(char *)bytes + at, at + piece_size < len ? piece_size : len - at,
		};
	return count;
}

static uint32_t client_exchange(const void *message, uint32_t len, void *reply, uint32_t room)
{
	static struct virtq_chain chain;
	static struct request request;
	void *in = malloc(len), *out = malloc(room);
	uint32_t got;

	memcpy(in, message, len);
	chain.readable = chain.iov;
	chain.readable_count = cut(chain.readable, in, len);
	chain.writable = chain.iov + chain.readable_count;
	chain.writable_count = cut(chain.writable, out, room);
	chain.bytes = (uint64_t)len + room;
	got = files_serve(&files, &request, &chain);
	if (got > room)
		abort();
	memcpy(reply, out, room);
	free(in);
	free(out);
	return got;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	if (at->level)
		remove(path);
	return 0;
}

static void make_file(const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	close(fd);
}

static void make_tree(void)
{
	char path[128];

	nftw(tree, remove_one, 16, FTW_PHYS | FTW_DEPTH);
	snprintf(path, sizeof(path), "%s/d", tree);
	mkdir(path, 0755);
	make_file("f", "hello");
	make_file("d/f", "below");
	make_file("../outside", "secret");
	snprintf(path, sizeof(path), "%s/l", tree);
	if (symlink("../outside", path))
		abort();
	snprintf(path, sizeof(path), "%s/p", tree);
	mkfifo(path, 0644);
}

/* Of no name that a guest gives a file outlasts the input; nothing is larger than a test may make it. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct rlimit limit = { FILE_SIZE_MAX, FILE_SIZE_MAX };

	(void)argc;
	(void)argv;
	setrlimit(RLIMIT_FSIZE, &limit);
	self = open("/proc/self/fd", O_PATH | O_DIRECTORY);
	if (!mkdtemp(folder))
		abort();
	/* Root has it in memory, where syncing is for nothing. */
	if (!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		mount("none", folder, "tmpfs", 0, "size=64m");
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	snprintf(outside, sizeof(outside), "%s/outside", folder);
	if (mkdir(tree, 0755))
		abort();
	files = (struct files){ .self = &self, .root = { .id = FUSE_ROOT_ID, .count = 1 } };
	files.root.fd = tree_root(tree);
	if (table_init(&files.nodes, NODES) || table_init(&files.handles, HANDLES))
		abort();
	return 0;
}

static void learn(uint32_t opcode)
{
	const unsigned int at = told++ % LEARNT;

	if (client_got == sizeof(struct fuse_open_out) && (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR))
		handles[at] = ((const struct fuse_open_out *)client_reply)->fh;
	else if (client_got >= sizeof(struct fuse_entry_out) && opcode != FUSE_READ)
		nodes[at] = client_entry()->nodeid;
	if (opcode == FUSE_CREATE)
		handles[at] = ((const struct fuse_open_out *)(client_entry() + 1))->fh;
}

static void request(uint8_t opcode, uint8_t how, const uint8_t *body, uint32_t len)
{
	struct fuse_in_header *head = (void *)client_message;
	uint64_t *first = (void *)(client_message + sizeof(*head));
	int err;

	files.writable = !(how & READ_ONLY);
	client_begin(opcode, how & OWN_NODE ? nodes[how & OWN_NODE] : FUSE_ROOT_ID);
	client_add(body, len);
	if (len >= sizeof(*first) && how & PUT_HANDLE)
		*first = handles[how & OWN_NODE];
	if (len >= sizeof(*first) && how & PUT_NODE)
		*first = nodes[how & OWN_NODE];
	if (how & WRONG_LENGTH)
		head->len += len ? body[0] - 128 : 1;
	err = client_send(how & NO_ROOM ? len : 300);
	if (err < -511)
		abort();
	if (!err)
		learn(opcode);
}

static void check_outside(void)
{
	struct stat st;

	if (lstat(outside, &st) || !S_ISREG(st.st_mode) || st.st_size != 6 || (st.st_mode & 07777) != 0644 ||
	    st.st_nlink != 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	signal(SIGXFSZ, SIG_IGN);	/* which the fuzzer takes for itself */
	make_tree();
	table_clear(&files.handles);
	table_clear(&files.nodes);
	memset(nodes, 0, sizeof(nodes));
	memset(handles, 0, sizeof(handles));
	told = 1;
	while (size >= 4) {
		const uint32_t len = data[3] < size - 4 ? data[3] : size - 4;

		piece_size = data[2] < 4 ? 4 : data[2];
		request(data[0], data[1], data + 4, len);
		data += 4 + len;
		size -= 4 + len;
	}
	check_outside();
	return 0;
}
