// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/beside.h"

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
