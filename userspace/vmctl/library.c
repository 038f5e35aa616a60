// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmctl/elf.h"
#include "userspace/vmctl/library.h"

#define CACHE_MAGIC		"glibc-ld.so.cache1.1"
#define CACHE_SIZE_MAX		(64 << 20)
#define CACHE_X86_64		0x0303	/* flags of an x86-64 library for glibc */

/* Debian's first, then what others have. */
#define LIBRARY_DEFAULT		"/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:" \
				"/usr/lib64:/usr/local/lib:/lib:/usr/lib"

/* glibc's format of /etc/ld.so.cache, since 2.2: this, and @count entries. */
struct cache_header {
	char magic[sizeof(CACHE_MAGIC) - 1];
	uint32_t count;
	uint32_t strings_size;
	uint32_t unused[5];
};

/* Strings are at offsets from the header's start. */
struct cache_entry {
	int32_t flags;
	uint32_t name;
	uint32_t path;
	uint32_t os_version;
	uint64_t hwcap;
};

_Static_assert(sizeof(struct cache_header) == 48, "as glibc has it");
_Static_assert(sizeof(struct cache_entry) == 24, "as glibc has it");

struct search {
	int (*visit)(void *arg, const char *path);
	void *arg;
	unsigned int found;
};

int library_index_init(struct library_index *index, const char *path)
{
	uint64_t size;
	int err = 0, fd = open(LIBRARY_CACHE, O_RDONLY | O_CLOEXEC);

	*index = (struct library_index){ .path = path };
	if (fd < 0)
		return 0;
	if (fd_size(fd, &size) || !size || size > CACHE_SIZE_MAX)
		goto close_fd;
	index->cache = malloc(size);
	err = index->cache ? fd_pread_full(fd, index->cache, size, 0) : -ENOMEM;
	if (!err)
		index->cache_size = size;
close_fd:
	close(fd);
	return err;
}

void library_index_finish(struct library_index *index)
{
	free(index->cache);
}

/* The loader passes over what is not there, or of another machine. */
static bool library_fits(const char *path)
{
	int err, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	struct elf elf;

	if (fd < 0)
		return false;
	err = fstat(fd, &st) || !S_ISREG(st.st_mode) ? -ENOEXEC : elf_read(fd, &elf);
	close(fd);
	if (err)
		return false;
	elf_free(&elf);
	return true;
}

static int search_try(struct search *search, const char *path)
{
	if (!library_fits(path))
		return 0;
	search->found++;
	return search->visit(search->arg, path);
}

/* @text with $ORIGIN and $LIB replaced; false where that is too long. */
static bool library_expand(const char *text, size_t len, const char *origin, char *out)
{
	static const struct { const char *token; const char *value; } tokens[] = {
		{ "$ORIGIN", NULL }, { "${ORIGIN}", NULL },
		{ "$LIB", "lib/x86_64-linux-gnu" }, { "${LIB}", "lib/x86_64-linux-gnu" },
	};
	const char *end = text + len;
	size_t used = 0;

	while (text < end) {
		const char *value = text;
		size_t taken = 1, size = 1;

		for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
			size_t token = strlen(tokens[i].token);

			if ((size_t)(end - text) < token || memcmp(text, tokens[i].token, token))
				continue;
			value = tokens[i].value ? tokens[i].value : origin;
			size = strlen(value);
			taken = token;
		}
		if (used + size >= PATH_MAX)
			return false;
		memcpy(out + used, value, size);
		used += size;
		text += taken;
	}
	out[used] = '\0';
	return true;
}

/* A list of directories, with colons between them. */
static int search_list(struct search *search, const char *list, const char *name,
		       const char *origin)
{
	char directory[PATH_MAX], path[PATH_MAX];
	int err = 0;

	while (list && *list && !err && !search->found) {
		size_t len = strcspn(list, ":");

		if (len && library_expand(list, len, origin, directory) && directory[0] == '/' &&
		    snprintf(path, sizeof(path), "%s/%s", directory, name) < PATH_MAX)
			err = search_try(search, path);
		list += len + (list[len] == ':');
	}
	return err;
}

/* A string of the cache's, or NULL. */
static const char *cache_string(const struct library_index *index, uint32_t offset)
{
	if (offset >= index->cache_size ||
	    !memchr(index->cache + offset, '\0', index->cache_size - offset))
		return NULL;
	return index->cache + offset;
}

static int search_cache(struct search *search, const struct library_index *index,
			const char *name)
{
	struct cache_header header;
	int err = 0;

	if (index->cache_size < sizeof(header))
		return 0;
	memcpy(&header, index->cache, sizeof(header));
	if (memcmp(header.magic, CACHE_MAGIC, sizeof(header.magic)) ||
	    header.count > (index->cache_size - sizeof(header)) / sizeof(struct cache_entry))
		return 0;
	for (uint32_t i = 0; i < header.count && !err; i++) {
		struct cache_entry entry;
		const char *is, *path;

		memcpy(&entry, index->cache + sizeof(header) + i * sizeof(entry), sizeof(entry));
		is = cache_string(index, entry.name);
		path = cache_string(index, entry.path);
		if (entry.flags != CACHE_X86_64 || !is || !path || path[0] != '/')
			continue;
		if (!strcmp(is, name))
			err = search_try(search, path);
	}
	return err;
}

static int search_default(struct search *search, const char *name)
{
	return search_list(search, LIBRARY_DEFAULT, name, "/");
}

static int search_all(struct search *search, const struct library_index *index, const char *name,
		      const struct library_user *user)
{
	int err = 0;

	if (!user->runpath) {
		err = search_list(search, user->rpath, name, user->directory);
		if (!err && !search->found)
			err = search_list(search, user->program_rpath, name, user->directory);
	}
	if (!err && !search->found)
		err = search_list(search, index->path, name, user->directory);
	if (!err && !search->found)
		err = search_list(search, user->runpath, name, user->directory);
	if (!err && !search->found)
		err = search_cache(search, index, name);
	if (!err && !search->found)
		err = search_default(search, name);
	return err;
}

int library_find(const struct library_index *index, const char *name,
		 const struct library_user *user, int (*visit)(void *arg, const char *path),
		 void *arg)
{
	struct search search = { .visit = visit, .arg = arg };
	int err;

	if (strchr(name, '/'))
		err = search_try(&search, name);
	else
		err = search_all(&search, index, name, user);
	if (err)
		return err;
	return search.found ? 0 : -ENOENT;
}
