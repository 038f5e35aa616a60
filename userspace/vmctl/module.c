// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * modules.dep has a line for each module, "FILE: FILE FILE ...": all that it needs, directly or
 * not, so that the last is to be loaded first. modules.builtin has the names of what is built in.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/lib/log.h"
#include "userspace/vmctl/module.h"

#define MODULE_WORDS	" \t\n"

/* Is @file, as "kernel/drivers/char/virtio-rng.ko.xz", the module @name? - and _ are the same. */
static bool module_is(const char *file, const char *name)
{
	const char *slash = strrchr(file, '/');

	file = slash ? slash + 1 : file;
	for (; *name; name++, file++)
		if (*file != *name && !(*file == '-' && *name == '_'))
			return false;
	return !strncmp(file, ".ko", 3);
}

static int module_add(struct module_list *list, const char *directory, const char *file)
{
	char path[PATH_MAX];
	char **files;

	if (snprintf(path, sizeof(path), "%s/%s", directory, file) >= PATH_MAX)
		return -ENAMETOOLONG;
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->files[i], path))
			return 0;
	files = realloc(list->files, (list->count + 1) * sizeof(*files));
	if (!files)
		return -ENOMEM;
	list->files = files;
	files[list->count] = strdup(path);
	return files[list->count++] ? 0 : -ENOMEM;
}

/* What stands behind a module's colon, the last first, and then itself. */
static int module_add_line(struct module_list *list, const char *directory, const char *file,
			   char *needs)
{
	char *last;
	int err = 0;

	while (!err && *needs) {
		size_t len = strlen(needs);

		while (len && strchr(MODULE_WORDS, needs[len - 1]))
			needs[--len] = '\0';
		for (last = needs + len; last > needs && !strchr(MODULE_WORDS, last[-1]); last--)
			;
		if (*last)
			err = module_add(list, directory, last);
		*last = '\0';
	}
	return err ? err : module_add(list, directory, file);
}

static FILE *module_open(const char *directory, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= PATH_MAX)
		return NULL;
	return fopen(path, "re");
}

/* 1: added; 0: there is none of that name. */
static int module_find(struct module_list *list, const char *directory, const char *name)
{
	FILE *lines = module_open(directory, "modules.dep");
	size_t room = 0;
	char *line = NULL;
	int found = 0;

	while (lines && !found && getline(&line, &room, lines) > 0) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = '\0';
		if (module_is(line, name))
			found = module_add_line(list, directory, line, colon + 1) ? : 1;
	}
	free(line);
	if (lines)
		fclose(lines);
	return found;
}

static bool module_is_built_in(const char *directory, const char *name)
{
	FILE *lines = module_open(directory, "modules.builtin");
	bool found = false;
	size_t room = 0;
	char *line = NULL;

	while (lines && !found && getline(&line, &room, lines) > 0)
		found = module_is(line, name);
	free(line);
	if (lines)
		fclose(lines);
	return found;
}

int module_resolve(const char *directory, const struct module_wanted *wanted, size_t count,
		   struct module_list *ret)
{
	*ret = (struct module_list){ 0 };
	for (size_t i = 0; i < count; i++) {
		int found = module_find(ret, directory, wanted[i].name);

		if (found < 0)
			return found;
		if (found || wanted[i].optional || module_is_built_in(directory, wanted[i].name))
			continue;
		log_error("%s has no module %s: name another kernel by --kernel", directory,
			  wanted[i].name);
		return -ENOENT;
	}
	return 0;
}

void module_list_free(struct module_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->files[i]);
	free(list->files);
}
