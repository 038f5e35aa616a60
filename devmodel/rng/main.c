// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-rng: a source of random bytes for one machine, by the vhost-user protocol. */
#include <string.h>
#include <sys/syscall.h>

#include "devmodel/rng/rng.h"
#include "devmodel/vhost_user/program.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"

static const char help[] =
"Usage: moat-rng { --socket PATH | --fd N } [OPTION]...\n"
"Serve the host's random bytes as a virtio entropy source, to a front end of vhost-user.\n"
"\n";

static const struct sandbox_call rng_calls[] = {
	{ SYS_getrandom, 0, "random bytes", 0, 0, 0 },
	{ 0 },
};

static int open_device(void *from, struct device **ret)
{
	int err = rng_create(ret);

	(void)from;
	if (err)
		log_error("cannot make an entropy source: %s", strerror(-err));
	return err;
}

static const struct program program = {
	.name = "moat-rng", .help = help, .open = open_device, .calls = rng_calls,
};

int main(int argc, char **argv)
{
	return program_main(&program, NULL, argc, argv);
}
