// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <sys/ioctl.h>

#include "userspace/lib/fd.h"
#include "userspace/vmm/window.h"

#define WINDOW_PAGE	4096

int window_open(struct window *window, int vm, uint32_t pages)
{
	struct moat_window_create create = { .pages = pages };

	if (ioctl(vm, MOAT_CREATE_WINDOW, &create))
		return -errno;
	window->control = create.control;
	window->map = create.map;
	window->count = 0;
	return 0;
}

void window_close(struct window *window)
{
	fd_close(window->map);
	fd_close(window->control);
	window->map = -1;
	window->control = -1;
	window->count = 0;
}

/* Does @next go on where @last ends? */
static bool change_follows(const struct moat_window_change *last,
			   const struct moat_window_change *next)
{
	if (last->op != next->op || last->page + last->pages != next->page)
		return false;
	return next->op == MOAT_WINDOW_REVOKE ||
	       last->gpa + (uint64_t)last->pages * WINDOW_PAGE == next->gpa;
}

static void window_change(struct window *window, const struct moat_window_change *change)
{
	struct moat_window_change *last = &window->change[window->count - 1];

	if (window->count && change_follows(last, change))
		last->pages += change->pages;
	else
		window->change[window->count++] = *change;
}

void window_grant(struct window *window, uint64_t gpa, uint32_t page, uint32_t pages, bool write)
{
	window_change(window, &(struct moat_window_change){
		.gpa = gpa, .page = page, .pages = pages,
		.op = write ? MOAT_WINDOW_GRANT_WRITE : MOAT_WINDOW_GRANT_READ,
	});
}

void window_revoke(struct window *window, uint32_t page, uint32_t pages)
{
	window_change(window, &(struct moat_window_change){
		.page = page, .pages = pages, .op = MOAT_WINDOW_REVOKE,
	});
}

int window_apply(struct window *window)
{
	struct moat_window_batch batch = { .changes = (uintptr_t)window->change };
	unsigned int count = window->count;
	int made;

	/* A call that makes fewer does not say why; the next one does. */
	for (window->count = 0; count; count -= made) {
		batch.count = count;
		made = ioctl(window->control, MOAT_WINDOW_CHANGE, &batch);
		if (made < 0)
			return -errno;
		batch.changes += made * sizeof(struct moat_window_change);
	}
	return 0;
}
