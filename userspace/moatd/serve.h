/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the keeper's children do, a request each. */
#ifndef MOATD_SERVE_H
#define MOATD_SERVE_H

#include "userspace/moatd/keeper.h"

struct keeper_work {
	const struct keeper_options *options;
	int link;
	struct keeper_answer answer;
};

/* One more answer before the last. */
void work_more(struct keeper_work *work);

/* Says why, if nothing has, where @err is negative. Return: @err. */
int work_fail(struct keeper_work *work, int err, const char *what);

/*
 * Each serves its kind (keeper.h). @carried has that kind's length and is not looked at before. Return: 0, or a
 * descriptor for the answer, or a negative errno.
 */
int serve_list(struct keeper_work *work, const void *carried);
int serve_start(struct keeper_work *work, const void *carried);
int serve_connect(struct keeper_work *work, const void *carried);
int serve_reap(struct keeper_work *work, const void *carried);
int serve_kill(struct keeper_work *work, const void *carried);
int serve_clean(struct keeper_work *work, const void *carried);
int serve_limits(struct keeper_work *work, const void *carried);
int serve_usage(struct keeper_work *work, const void *carried);
int serve_log(struct keeper_work *work, const void *carried);
int serve_booted(struct keeper_work *work, const void *carried);
int serve_attach(struct keeper_work *work, const void *carried);
int serve_forget(struct keeper_work *work, const void *carried);

int serve_network_start(struct keeper_work *work, const void *carried);
int serve_network_stop(struct keeper_work *work, const void *carried);

int serve_disk_list(struct keeper_work *work, const void *carried);
int serve_disk_create(struct keeper_work *work, const void *carried);
int serve_disk_resize(struct keeper_work *work, const void *carried);
int serve_disk_delete(struct keeper_work *work, const void *carried);
int serve_disk_snapshot(struct keeper_work *work, const void *carried);
int serve_disk_snapshot_delete(struct keeper_work *work, const void *carried);
int serve_disk_revert(struct keeper_work *work, const void *carried);
int serve_disk_snapshots(struct keeper_work *work, const void *carried);

/* The directory of disks. A descriptor, or a negative errno. */
int disk_directory(const struct keeper_options *options);

/* Is there a file that says that what starts by itself has been started? @path: PATH_MAX bytes. */
void booted_path(const struct keeper_options *options, char *path);

#endif /* MOATD_SERVE_H */
