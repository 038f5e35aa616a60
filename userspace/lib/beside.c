// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/beside.h"

/* The build tree has all programs in one; and as they are installed, from where any of them is. */
static const char * const beside_folders[] = { "", "../libexec/moat/", "../bin/" };

int beside_path(const char *name, char *ret)
{
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len < 0)
		return -errno;
	self[len] = '\0';
	*strrchr(self, '/') = '\0';
	return snprintf(ret, PATH_MAX, "%s/%s", self, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int beside_program(const char *name, char *ret)
{
	char place[PATH_MAX], found[PATH_MAX];
	int err;

	for (size_t i = 0; i < sizeof(beside_folders) / sizeof(beside_folders[0]); i++) {
		if (snprintf(place, PATH_MAX, "%s%s", beside_folders[i], name) >= PATH_MAX)
			return -ENAMETOOLONG;
		err = beside_path(place, found);
		if (err)
			return err;
		if (!access(found, X_OK)) {
			strcpy(ret, found);
			return 0;
		}
	}
	return -ENOENT;
}
