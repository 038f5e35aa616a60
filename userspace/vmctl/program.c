// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/elf.h"
#include "userspace/vmctl/library.h"
#include "userspace/vmctl/program.h"

#define SCRIPT_LINE_MAX		256
#define SCRIPT_DEPTH_MAX	4
#define PATH_DEFAULT		"/usr/local/bin:/usr/bin:/bin"

/* Finding */

static int program_judge(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || access(path, X_OK))
		return -EACCES;
	return 0;
}

/* One that is there but cannot be executed is passed over, and told of if there is no other. */
static int program_search(const char *name, char *ret)
{
	const char *list = getenv("PATH");
	char path[PATH_MAX];
	int best = -ENOENT;

	if (!list || !*list)
		list = PATH_DEFAULT;
	for (size_t len; *list; list += len + (list[len] == ':')) {
		len = strcspn(list, ":");
		if (snprintf(path, sizeof(path), "%.*s/%s", len ? (int)len : 1, len ? list : ".",
			     name) >= PATH_MAX)
			continue;
		switch (program_judge(path)) {
		case 0:
			strcpy(ret, path);
			return 0;
		case -EACCES:
			best = -EACCES;
		}
	}
	return best;
}

static int program_make_absolute(char *path)
{
	char copy[PATH_MAX], directory[PATH_MAX];

	if (path[0] == '/')
		return 0;
	if (!getcwd(directory, sizeof(directory)))
		return -errno;
	strcpy(copy, path);
	return snprintf(path, PATH_MAX, "%s/%s", directory, copy) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int program_find(const char *name, char *ret)
{
	char path[PATH_MAX];
	int err;

	if (strlen(name) >= PATH_MAX)
		return -ENAMETOOLONG;
	if (!*name)
		return -ENOENT;
	if (strchr(name, '/')) {
		strcpy(path, name);
		err = program_judge(path);
	} else {
		err = program_search(name, path);
	}
	if (!err)
		err = program_make_absolute(path);
	if (!err)
		strcpy(ret, path);
	return err;
}

/* Packing: the libraries of what was packed are packed, and so on. */

/**
 * struct packing - a program and its libraries
 * @objects: real paths of what is packed, @done of which were looked into
 */
struct packing {
	struct pack *pack;
	struct library_index index;
	char *program_rpath;
	char **objects;
	unsigned int count;
	unsigned int done;
};

static int packing_add(struct packing *packing, const char *path)
{
	char real[PATH_MAX];
	char **objects;
	int new = pack_host(packing->pack, path, real);

	if (new < 0) {
		log_error("cannot pack %s: %s", path, strerror(-new));
		return new;
	}
	for (unsigned int i = 0; i < packing->count; i++)
		if (!strcmp(packing->objects[i], real))
			return 0;
	objects = realloc(packing->objects, (packing->count + 1) * sizeof(*objects));
	if (!objects)
		return -ENOMEM;
	packing->objects = objects;
	objects[packing->count] = strdup(real);
	return objects[packing->count++] ? 0 : -ENOMEM;
}

static int packing_visit(void *arg, const char *path)
{
	return packing_add(arg, path);
}

static int packing_add_needed(struct packing *packing, const char *object, const struct elf *elf)
{
	char directory[PATH_MAX];
	struct library_user user = {
		.directory = directory, .rpath = elf->rpath, .runpath = elf->runpath,
		.program_rpath = packing->program_rpath,
	};
	int err = 0;

	strcpy(directory, object);
	*strrchr(directory, '/') = '\0';
	if (elf->interp)
		err = packing_add(packing, elf->interp);
	for (unsigned int i = 0; i < elf->needed_count && !err; i++) {
		err = library_find(&packing->index, elf->needed[i], &user, packing_visit, packing);
		if (err == -ENOENT)
			log_error("%s needs %s, not found; try --env LD_LIBRARY_PATH=DIR", object,
				  elf->needed[i]);
	}
	return err;
}

static int elf_open(const char *path, struct elf *elf)
{
	int err, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = elf_read(fd, elf);
	close(fd);
	return err;
}

static int packing_look_into(struct packing *packing, const char *object)
{
	struct elf elf;
	int err = elf_open(object, &elf);

	if (err) {
		log_error("%s is no program or library for x86-64: %s", object, strerror(-err));
		return err;
	}
	if (!packing->done && elf.rpath && !elf.runpath)
		packing->program_rpath = strdup(elf.rpath);
	err = packing_add_needed(packing, object, &elf);
	elf_free(&elf);
	return err;
}

static int pack_elf(struct pack *pack, const char *path, const char *library_path)
{
	struct packing packing = { .pack = pack };
	int err = library_index_init(&packing.index, library_path);

	if (!err)
		err = packing_add(&packing, path);
	for (; !err && packing.done < packing.count; packing.done++)
		err = packing_look_into(&packing, packing.objects[packing.done]);
	for (unsigned int i = 0; i < packing.count; i++)
		free(packing.objects[i]);
	free(packing.objects);
	free(packing.program_rpath);
	library_index_finish(&packing.index);
	return err;
}

/* Scripts */

/* The first line without "#!". False for what is no script. */
static bool script_line(const char *path, char *line)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, line, SCRIPT_LINE_MAX - 1, 0);

	fd_close(fd);
	if (n < 2 || line[0] != '#' || line[1] != '!')
		return false;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	memmove(line, line + 2, strlen(line + 2) + 1);
	return true;
}

/* What env is told to execute: its first argument that is neither option nor assignment. */
static const char *script_env_program(char *rest)
{
	for (char *word = strtok(rest, " \t"); word; word = strtok(NULL, " \t"))
		if (*word != '-' && !strchr(word, '='))
			return word;
	return NULL;
}

static int pack_any(struct pack *pack, const char *path, const char *library_path, int depth);

static int pack_named(struct pack *pack, const char *script, const char *name,
		      const char *library_path, int depth)
{
	char path[PATH_MAX];
	int err = program_find(name, path);

	if (err) {
		log_error("%s needs the interpreter %s: %s", script, name, strerror(-err));
		return err;
	}
	return pack_any(pack, path, library_path, depth);
}

static int pack_script(struct pack *pack, const char *path, char *line, const char *library_path,
		       int depth)
{
	char *interpreter = strtok(line, " \t"), *rest = strtok(NULL, "");
	char real[PATH_MAX];
	const char *name;
	int err;

	if (!interpreter || depth == SCRIPT_DEPTH_MAX) {
		log_error("%s is a script without an interpreter", path);
		return -ENOEXEC;
	}
	err = pack_host(pack, path, real);
	if (err < 0) {
		log_error("cannot pack %s: %s", path, strerror(-err));
		return err;
	}
	err = pack_named(pack, path, interpreter, library_path, depth + 1);
	name = strrchr(interpreter, '/');
	if (err || !rest || !name || strcmp(name, "/env"))
		return err;
	name = script_env_program(rest);
	return name ? pack_named(pack, path, name, library_path, depth + 1) : 0;
}

static int pack_any(struct pack *pack, const char *path, const char *library_path, int depth)
{
	char line[SCRIPT_LINE_MAX];

	if (script_line(path, line))
		return pack_script(pack, path, line, library_path, depth);
	return pack_elf(pack, path, library_path);
}

int program_pack(struct pack *pack, const char *path, const char *library_path)
{
	return pack_any(pack, path, library_path, 0);
}

/* busybox */

static FILE *busybox_list(const char *path, pid_t *ret_pid)
{
	char *argv[] = { (char *)path, (char *)"--list-full", NULL };
	posix_spawn_file_actions_t actions;
	FILE *list = NULL;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	if (!posix_spawn(ret_pid, path, &actions, NULL, argv, environ))
		list = fdopen(fds[0], "r");
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (!list)
		close(fds[0]);
	return list;
}

/* @applet is a path without its first slash; only those in a directory are commands. */
static int busybox_link(struct pack *pack, const char *applet, const char *busybox)
{
	char directory[PATH_MAX], path[PATH_MAX];
	const char *name = strrchr(applet, '/');
	int err;

	if (!name)
		return 0;
	snprintf(path, sizeof(path), "/%.*s", (int)(name - applet), applet);
	err = pack_host(pack, path, directory);
	if (err == -ENOENT)
		return 0;
	if (err < 0)
		return err;
	if (snprintf(path, sizeof(path), "%s%s", directory, name) >= PATH_MAX)
		return 0;
	return pack_link(pack, path, busybox);
}

int program_pack_busybox(struct pack *pack)
{
	char path[PATH_MAX], real[PATH_MAX], line[PATH_MAX];
	pid_t pid;
	FILE *list;
	int err;

	if (program_find("busybox", path) && program_find("/bin/busybox", path)) {
		log_error("no busybox (apt install busybox-static): the guest has no commands");
		return 0;
	}
	err = program_pack(pack, path, NULL);
	if (!err)
		err = pack_host(pack, path, real);
	list = err < 0 ? NULL : busybox_list(path, &pid);
	if (!list)
		return err < 0 ? err : -ENOENT;
	while (err >= 0 && fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = '\0';
		err = busybox_link(pack, line, real);
	}
	fclose(list);
	waitpid(pid, NULL, 0);
	return err < 0 ? err : 0;
}
