// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * isolation=grant: the gate. A back end gets to see the pieces of the requests that it has to serve, as
 * long as it has to, and nothing else of the machine.
 *
 * Each queue of the driver's has a shadow, which is all that the back end knows of. The gate takes a
 * chain from the driver's ring, where it is read once and checked (devmodel/virtq.c); finds room for it
 * (gate_request.c), copies or grants; and puts it into the shadow (shadow.c). What the back end
 * gives back is checked, copied or revoked, and then put into the driver's ring. A queue has room
 * of its own, so that buffers that wait for packets hold up nobody else's.
 *
 * Work is done in turns: what was given back, then what is new, and one call for all grants and revocations
 * of both. A turn ends with one interrupt and one kick at most.
 *
 * Which requests are in flight is known here. Each back end gets memory, a window and eventfds that
 * no other had; so the one before it may live on and do what it likes. Its successor is handed the
 * requests in their order. One that says something, and is in flight when back ends crash is suspected after the second
 * time: those are handed out one at a time, until the third time shows which it is. That one is failed,
 * and the rest goes on. Buffers that are only to be filled are not to blame, and may wait for ever.
 *
 * A driver that breaks its ring has to reset the device, as has one whose request has no room in the
 * gate, 8 MiB. A back end that breaks a rule is dropped.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devmodel/virtq.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/gate_request.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/shadow.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/vhost_user.h"
#include "userspace/vmm/window.h"

/* What the back end calls its memory, and the window. */
#define GATE_MEMORY_AT		(1ULL << 32)
#define GATE_WINDOW_AT		(1ULL << 40)

/* Of each queue: the ring, then memory to copy through; and so many pages of the window. */
#define GATE_STRIDE		(16ULL << 20)
#define GATE_RING_BYTES		((SHADOW_BYTES + GATE_PAGE - 1) / GATE_PAGE * GATE_PAGE)
#define GATE_GRANULES		1024
#define GATE_GRANULES_MAX	RUNS_MAX
#define GATE_PAGES		2048

/* From so many whole pages on, a request's are granted: docs/architecture.md has the figures. */
#define GATE_GRANT_PAGES	64

#define GATE_TURN		32	/* requests, in each direction */
#define GATE_TURNS		64	/* before others are looked after */
#define GATE_EMPTY_CALLS	100000	/* in a row, of which there is no need for one */
#define GATE_SUSPECT		2
#define GATE_GUILTY		3

_Static_assert(GATE_RING_BYTES + GATE_GRANULES_MAX * GATE_GRANULE <= GATE_STRIDE, "there is room");
_Static_assert(GATE_TURN + VIRTQ_IOV_MAX <= WINDOW_CHANGES_MAX, "a turn is one call");

struct gate;

/**
 * struct gate_queue - a queue
 * @kick: the driver's; its descriptor is the transport's
 * @call, @err: the back end's
 * @kick_back_end: eventfd
 * @served: a back end has it
 * @held: waits until no request is in flight, since one is suspected
 * @spare: slots of @request that are free
 * @by_head: the slot of a head of the shadow's
 * @waiting: requests that are not handed out
 * @order: of the next request
 * @empty_calls: since something was given back
 */
struct gate_queue {
	struct loop_source kick;
	struct loop_source call;
	struct loop_source err;
	int kick_back_end;
	struct gate *gate;
	struct dev_vring ring;
	struct virtq vq;
	struct shadow shadow;
	struct gate_area area;
	bool served;
	bool held;
	unsigned int waiting;
	unsigned int empty_calls;
	uint64_t order;
	uint16_t spare_count;
	uint16_t spare[SHADOW_SIZE];
	uint16_t by_head[SHADOW_SIZE];
	struct gate_request request[SHADOW_SIZE];
};

/**
 * struct gate - the queues
 * @memory: shared with the back end, GATE_STRIDE for each queue; NULL while there is none
 * @fd: of it
 * @window: its control descriptor is -1 where the node has no windows
 * @progressed: the back end has given something back
 * @inflight: requests that the back end has, and reads something of
 * @lost: requests that the last back end had when it was lost
 * @suspects: requests that too many back ends have died with
 * @grant: from how many pages on; ~0: never
 */
struct gate {
	struct vhost_isolation base;
	uint8_t *memory;
	int fd;
	struct window window;
	bool progressed;
	unsigned int inflight;
	unsigned int lost;
	unsigned int suspects;
	unsigned int grant;
	struct virtq_chain chain;
	struct vring_desc desc[SHADOW_SIZE];
	struct gate_queue *queue;
};

/* What a turn is about. */
struct gate_turn {
	unsigned int done_count;
	unsigned int fresh_count;
	unsigned int entries;	/* of the shadow, for those that are fresh */
	struct {
		uint16_t head;
		uint32_t written;
	} done[GATE_TURN];
	struct gate_request *fresh[GATE_TURN];
};

/* Requests */

static void request_free(struct gate_queue *queue, struct gate_request *request)
{
	if (request->deaths >= GATE_SUSPECT)
		queue->gate->suspects--;
	request->state = GATE_FREE;
	queue->spare[queue->spare_count++] = request - queue->request;
}

/* The driver's ring makes no sense, or asks for what there is not. */
static void queue_break(struct gate_queue *queue)
{
	queue->vq.broken = true;
	fd_signal_event(queue->ring.err);
}

/* The next chain of the driver's; NULL: there is none, or no slot. */
static struct gate_request *queue_pop(struct gate_queue *queue)
{
	struct virtq_chain *chain = &queue->gate->chain;
	struct gate_request *request;

	while (queue->spare_count && virtq_pop(&queue->vq, chain) > 0) {
		if (!chain->bytes) {
			virtq_push(&queue->vq, chain, 0);
			virtq_notify(&queue->vq);
			continue;
		}
		request = &queue->request[queue->spare[queue->spare_count - 1]];
		if (gate_request_init(request, chain)) {
			queue_break(queue);
			return NULL;
		}
		queue->spare_count--;
		request->state = GATE_WAITING;
		request->order = queue->order++;
		queue->waiting++;
		return request;
	}
	return NULL;
}

static struct gate_request *queue_oldest_waiting(struct gate_queue *queue)
{
	struct gate_request *oldest = NULL;

	for (unsigned int i = 0; i < SHADOW_SIZE; i++) {
		struct gate_request *request = &queue->request[i];

		if (request->state == GATE_WAITING && (!oldest || request->order < oldest->order))
			oldest = request;
	}
	return oldest;
}

/* Turns */

static void gate_count(struct gate *gate, const struct gate_request *request, uint32_t written)
{
	struct vhost_isolation *base = &gate->base;
	const uint64_t bytes = request->bytes - request->writable + written;

	__atomic_store_n(&base->requests, base->requests + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&base->bytes, base->bytes + bytes, __ATOMIC_RELAXED);
}

/* What the back end has given back. */
static int turn_reap(struct gate_queue *queue, struct gate_turn *turn)
{
	struct gate *gate = queue->gate;
	const bool last = gate->base.failure == VHOST_FAIL_BLK;
	uint16_t head;
	uint32_t written;
	int some = 0;

	while (turn->done_count < GATE_TURN &&
	       (some = shadow_take(&queue->shadow, &head, &written)) > 0) {
		struct gate_request *request = &queue->request[queue->by_head[head]];

		if (written > request->writable)
			return -EPROTO;
		gate_request_copy_out(request, &queue->area, written, last);
		if (request->pages)
			window_revoke(&gate->window, queue->area.window_page + request->page,
				      request->pages);
		gate_request_leave(request, &queue->area);
		gate_count(gate, request, written);
		turn->done[turn->done_count].head = request->head;
		turn->done[turn->done_count++].written = written;
		gate->inflight -= gate_request_speaks(request);
		request_free(queue, request);
	}
	return some < 0 ? some : 0;
}

/* It has its place: let the back end see that, when the turn is at that. */
static void request_grant(struct gate_queue *queue, const struct gate_request *request)
{
	const struct gate_area *area = &queue->area;
	struct gate *gate = queue->gate;

	for (unsigned int i = 0; i < request->count && request->pages; i++) {
		const struct gate_segment *segment = &request->segment[i];

		if (segment->granted)
			window_grant(&gate->window, memory_gpa(gate->base.memory, segment->host),
				     area->window_page + (segment->at - area->window_at) / GATE_PAGE,
				     segment->len / GATE_PAGE, segment->writable);
	}
}

/* What would be more descriptors than fit is copied as a whole, which makes them few. */
static int request_fit(struct gate_queue *queue, struct gate_request *request)
{
	int err = gate_request_place(request, &queue->area, queue->gate->grant);

	if (err || request->descriptors <= SHADOW_SIZE)
		return err;
	gate_request_leave(request, &queue->area);
	err = gate_request_place(request, &queue->area, ~0u);
	if (err || request->descriptors <= SHADOW_SIZE)
		return err;
	gate_request_leave(request, &queue->area);
	return -E2BIG;
}

/* 0: it is fresh. -EAGAIN: it has to wait. */
static int turn_place(struct gate_queue *queue, struct gate_turn *turn, struct gate_request *request)
{
	int err = request_fit(queue, request);
	unsigned int entries;

	entries = shadow_needs(&queue->shadow, request->descriptors);
	if (!err && turn->entries + entries > queue->shadow.free_count) {
		gate_request_leave(request, &queue->area);
		err = -EAGAIN;
	}
	if (err)
		return err;
	request_grant(queue, request);
	turn->entries += entries;
	turn->fresh[turn->fresh_count++] = request;
	request->state = GATE_INFLIGHT;
	queue->waiting--;
	queue->gate->inflight += gate_request_speaks(request);
	return 0;
}

/* What is new, or was waiting. */
static void turn_take(struct gate_queue *queue, struct gate_turn *turn)
{
	struct gate *gate = queue->gate;

	while (!queue->vq.broken && turn->fresh_count < GATE_TURN &&
	       gate->window.count + VIRTQ_IOV_MAX <= WINDOW_CHANGES_MAX) {
		struct gate_request *request;
		int err;

		queue->held = gate->suspects && gate->inflight;
		if (queue->held)
			break;
		request = queue->waiting ? queue_oldest_waiting(queue) : queue_pop(queue);
		if (!request)
			break;
		err = turn_place(queue, turn, request);
		if (err == -E2BIG) {
			log_error("%s: a request of the guest's is larger than the gate",
				  gate->base.name);
			queue_break(queue);
		}
		if (err)
			break;
	}
}

/* The kernel does not grant: those that are fresh are copied, or wait if there is no room. */
static void turn_copy_all(struct gate_queue *queue, struct gate_turn *turn)
{
	unsigned int count = turn->fresh_count;

	for (unsigned int i = 0; i < count; i++)
		if (turn->fresh[i]->pages)
			window_revoke(&queue->gate->window,
				      queue->area.window_page + turn->fresh[i]->page,
				      turn->fresh[i]->pages);
	window_apply(&queue->gate->window);
	turn->fresh_count = 0;
	turn->entries = 0;
	for (unsigned int i = 0; i < count; i++) {
		struct gate_request *request = turn->fresh[i];

		gate_request_leave(request, &queue->area);
		request->state = GATE_WAITING;
		queue->waiting++;
		queue->gate->inflight -= gate_request_speaks(request);
		if (turn_place(queue, turn, request) == -E2BIG)
			queue_break(queue);
	}
}

static void turn_change(struct gate_queue *queue, struct gate_turn *turn)
{
	struct gate *gate = queue->gate;
	int err = window_apply(&gate->window);

	if (!err)
		return;
	log_error("%s: the host does not let guest memory be granted: %s; from now on it is copied%s",
		  gate->base.name, strerror(-err),
		  err == -ENOMEM ? ". Raise the limit of locked memory" : "");
	gate->grant = ~0u;
	turn_copy_all(queue, turn);
}

static void turn_submit(struct gate_queue *queue, const struct gate_turn *turn)
{
	struct gate *gate = queue->gate;

	for (unsigned int i = 0; i < turn->fresh_count; i++) {
		struct gate_request *request = turn->fresh[i];

		gate_request_copy_in(request, &queue->area);
		gate_request_describe(request, gate->desc);
		queue->by_head[shadow_add(&queue->shadow, gate->desc, request->descriptors)] =
			request - queue->request;
	}
	if (shadow_publish(&queue->shadow))
		fd_signal_event(queue->kick_back_end);
}

static void turn_deliver(struct gate_queue *queue, const struct gate_turn *turn)
{
	for (unsigned int i = 0; i < turn->done_count; i++)
		virtq_push_head(&queue->vq, turn->done[i].head, turn->done[i].written);
	if (turn->done_count)
		virtq_notify(&queue->vq);
}

/* 1: something was done. 0: there was nothing to do. -EPROTO: the back end has broken its ring. */
static int queue_turn(struct gate_queue *queue)
{
	struct gate_turn turn;
	int err;

	turn.done_count = turn.fresh_count = turn.entries = 0;
	err = turn_reap(queue, &turn);
	if (!err)
		turn_take(queue, &turn);
	turn_change(queue, &turn);
	turn_submit(queue, &turn);
	turn_deliver(queue, &turn);
	if (turn.done_count) {
		queue->empty_calls = 0;
		queue->gate->progressed = true;
	}
	return err ? err : turn.done_count || turn.fresh_count;
}

/* Is what the driver has made available of no use just now? */
static bool queue_is_full(const struct gate_queue *queue)
{
	return queue->waiting || !queue->spare_count || queue->held;
}

/*
 * Work until there is none. Who was just given something, and is as fast as a cache, has it done before
 * anybody needs to sleep and be called: so the CPU is his, once, if he waits for it.
 */
static int queue_work(struct gate_queue *queue)
{
	bool kicked = true, called = true, yields = false;
	int some = 1;

	for (unsigned int i = 0; i < GATE_TURNS && (kicked || called); i++) {
		if (some) {
			virtq_kick_disable(&queue->vq);
			shadow_call_disable(&queue->shadow);
		}
		some = queue_turn(queue);
		if (some < 0)
			return some;
		yields |= some;
		if (some)
			continue;
		if (yields && queue->gate->inflight) {
			yields = false;
			sched_yield();
			continue;
		}
		kicked = virtq_kick_enable(&queue->vq) && !queue_is_full(queue);
		called = shadow_call_enable(&queue->shadow);
	}
	if (kicked || called)
		fd_signal_event(queue->call.fd);	/* it goes on when others had their turn */
	return 0;
}

/* Those that had to wait for one request to come to its end, of whatever queue. */
static void gate_release(struct gate *gate)
{
	for (unsigned int i = 0; i < gate->base.count && !gate->inflight; i++) {
		struct gate_queue *queue = &gate->queue[i];

		if (queue->held && queue->served)
			fd_signal_event(queue->call.fd);
		queue->held = false;
	}
}

static void queue_ready(struct gate_queue *queue)
{
	struct gate *gate = queue->gate;

	if (queue_work(queue)) {
		log_error("%s: the back end gives back what it does not have, or too much of it",
			  gate->base.name);
		gate->base.lose(gate->base.owner);
		return;
	}
	gate_release(gate);
}

static void queue_kicked(struct loop_source *source)
{
	struct gate_queue *queue = (struct gate_queue *)source;

	pthread_mutex_lock(queue->gate->base.lock);
	if (queue->served)
		queue_ready(queue);
	pthread_mutex_unlock(queue->gate->base.lock);
}

static void queue_called(struct loop_source *source)
{
	struct gate_queue *queue = (struct gate_queue *)((char *)source -
							  offsetof(struct gate_queue, call));
	struct gate *gate = queue->gate;

	pthread_mutex_lock(gate->base.lock);
	if (queue->served && ++queue->empty_calls < GATE_EMPTY_CALLS) {
		queue_ready(queue);
	} else if (queue->served) {
		log_error("%s: the back end calls again and again for nothing", gate->base.name);
		gate->base.lose(gate->base.owner);
	}
	pthread_mutex_unlock(gate->base.lock);
}

static void queue_failed(struct loop_source *source)
{
	struct gate_queue *queue = (struct gate_queue *)((char *)source -
							  offsetof(struct gate_queue, err));
	struct gate *gate = queue->gate;

	pthread_mutex_lock(gate->base.lock);
	if (queue->served) {
		log_error("%s: the back end finds fault with its ring", gate->base.name);
		gate->base.lose(gate->base.owner);
	}
	pthread_mutex_unlock(gate->base.lock);
}

/* What a back end gets, and none after it */

static int source_open(struct gate *gate, struct loop_source *source)
{
	source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return source->fd < 0 ? -errno : loop_add_edge(gate->base.loop, source);
}

static int queue_open(struct gate_queue *queue, unsigned int index)
{
	struct gate *gate = queue->gate;
	uint64_t at = index * GATE_STRIDE + GATE_RING_BYTES;
	int err = source_open(gate, &queue->call);

	if (!err)
		err = source_open(gate, &queue->err);
	if (err)
		return err;
	queue->kick_back_end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->kick_back_end < 0)
		return -errno;
	queue->area = (struct gate_area){
		.bounce.size = GATE_GRANULES, .granules_max = GATE_GRANULES_MAX,
		.pages.size = GATE_PAGES,
		.host = gate->memory + at, .bounce_at = GATE_MEMORY_AT + at,
		.window_at = GATE_WINDOW_AT + (uint64_t)index * GATE_PAGES * GATE_PAGE,
		.window_page = index * GATE_PAGES,
	};
	queue->empty_calls = 0;
	return 0;
}

static void queue_close(struct gate_queue *queue)
{
	int *fds[] = { &queue->call.fd, &queue->err.fd, &queue->kick_back_end };

	queue->served = false;
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		fd_close(*fds[i]);
		*fds[i] = -1;
	}
}

static void gate_close(struct gate *gate)
{
	for (unsigned int i = 0; i < gate->base.count; i++)
		queue_close(&gate->queue[i]);
	window_close(&gate->window);
	if (gate->memory)
		munmap(gate->memory, gate->base.count * GATE_STRIDE);
	gate->memory = NULL;
	fd_close(gate->fd);
	gate->fd = -1;
}

static int gate_open_memory(struct gate *gate)
{
	size_t size = gate->base.count * GATE_STRIDE;
	void *memory;

	gate->fd = fd_memory("gate", size);
	if (gate->fd < 0)
		return gate->fd;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, gate->fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	gate->memory = memory;
	return 0;
}

static int gate_open(struct gate *gate)
{
	int err = gate_open_memory(gate);

	gate->progressed = false;
	gate->grant = ~0u;
	if (!err && gate->base.vm >= 0) {
		err = window_open(&gate->window, gate->base.vm, gate->base.count * GATE_PAGES);
		if (!err)
			gate->grant = GATE_GRANT_PAGES;
		else if (err == -ENOTTY)	/* KVM's node: all is copied */
			err = 0;
	}
	for (unsigned int i = 0; i < gate->base.count && !err; i++)
		err = queue_open(&gate->queue[i], i);
	if (err)
		log_error("%s: cannot make a gate: %s", gate->base.name, strerror(-err));
	return err;
}

/* Serving */

static int gate_set_memory(struct gate *gate, struct vhost_user *user)
{
	const struct vhost_user_map map[] = {
		{ .gpa = GATE_MEMORY_AT, .user = GATE_MEMORY_AT, .fd = gate->fd,
		  .size = gate->base.count * GATE_STRIDE },
		{ .gpa = GATE_WINDOW_AT, .user = GATE_WINDOW_AT, .fd = gate->window.map,
		  .size = (uint64_t)gate->base.count * GATE_PAGES * GATE_PAGE },
	};

	return vhost_user_set_memory(user, map, gate->window.control < 0 ? 1 : 2);
}

static int gate_set_queue(struct gate *gate, struct vhost_user *user, unsigned int index,
			  uint64_t features)
{
	struct gate_queue *queue = &gate->queue[index];
	const uint64_t at = GATE_MEMORY_AT + index * GATE_STRIDE;

	shadow_init(&queue->shadow, gate->memory + index * GATE_STRIDE, at, features);
	return vhost_user_set_vring(user, index, &(struct vhost_user_vring){
		.size = SHADOW_SIZE,
		.desc = at + SHADOW_DESC, .avail = at + SHADOW_AVAIL, .used = at + SHADOW_USED,
		.kick = queue->kick_back_end, .call = queue->call.fd, .err = queue->err.fd,
	});
}

/* A back end has the queues: hand out what there is. */
static int gate_begin(struct gate *gate)
{
	int err = 0;

	for (unsigned int i = 0; i < gate->base.count && !err; i++) {
		struct gate_queue *queue = &gate->queue[i];

		if (!queue->ring.size)
			continue;
		queue->served = true;
		queue->held = false;
		err = queue_work(queue);
	}
	return err;
}

static int gate_serve(struct vhost_isolation *isolation, struct vhost_user *user)
{
	struct gate *gate = (struct gate *)isolation;
	const uint64_t shadow = VIRTQ_FEATURES & ~(1ULL << VIRTIO_F_RING_PACKED);
	const uint64_t features = (isolation->features & VHOST_OWN_FEATURES) |
		(user->features & (shadow | 1ULL << VIRTIO_F_VERSION_1));
	int err = gate_open(gate);

	if (!err)
		err = vhost_user_set_features(user, features);
	if (!err)
		err = gate_set_memory(gate, user);
	for (unsigned int i = 0; i < isolation->count && !err; i++)
		if (gate->queue[i].ring.size)
			err = gate_set_queue(gate, user, i, features);
	for (unsigned int i = 0; i < isolation->count && !err; i++)
		if (gate->queue[i].ring.size)
			err = vhost_user_enable_vring(user, i, true);
	if (!err)
		err = vhost_user_sync(user);
	return err ? err : gate_begin(gate);
}

static bool gate_progressed(const struct vhost_isolation *isolation)
{
	return ((const struct gate *)isolation)->progressed;
}

static void queue_take_back(struct gate_queue *queue)
{
	for (unsigned int i = 0; i < SHADOW_SIZE; i++) {
		struct gate_request *request = &queue->request[i];

		request->lost = request->state == GATE_INFLIGHT;
		if (!request->lost)
			continue;
		request->state = GATE_WAITING;
		queue->waiting++;
	}
}

static void gate_lost(struct vhost_isolation *isolation)
{
	struct gate *gate = (struct gate *)isolation;

	gate_close(gate);
	gate->lost = gate->inflight;
	gate->inflight = 0;
	for (unsigned int i = 0; i < isolation->count; i++)
		queue_take_back(&gate->queue[i]);
}

/* What the driver finds in a request that is failed. Return: how much of it was written. */
static uint32_t request_write_failure(const struct gate *gate, const struct gate_request *request)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -EIO };
	struct fuse_in_header in;

	switch (gate->base.failure) {
	case VHOST_FAIL_BLK:
		gate_request_write_last(request, VIRTIO_BLK_S_IOERR);
		return request->writable == 1;
	case VHOST_FAIL_FS:
		if (gate_request_read(request, &in, sizeof(in)) == sizeof(in))
			out.unique = in.unique;
		return gate_request_write(request, &out, sizeof(out));
	case VHOST_FAIL_EMPTY:
		break;
	}
	return 0;
}

static void request_blame(struct gate_queue *queue, struct gate_request *request)
{
	struct gate *gate = queue->gate;

	request->lost = false;
	if (!gate_request_speaks(request))
		return;
	if (++request->deaths == GATE_SUSPECT)
		gate->suspects++;
	if (gate->lost > 1 || request->deaths < GATE_GUILTY)
		return;
	log_error("%s: one request has ended %u back ends: it is failed", gate->base.name,
		  request->deaths);
	virtq_push_head(&queue->vq, request->head, request_write_failure(gate, request));
	virtq_notify(&queue->vq);
	queue->waiting--;
	request_free(queue, request);
}

static void gate_blame(struct vhost_isolation *isolation)
{
	struct gate *gate = (struct gate *)isolation;

	for (unsigned int i = 0; i < isolation->count; i++)
		for (unsigned int j = 0; j < SHADOW_SIZE; j++)
			if (gate->queue[i].request[j].lost)
				request_blame(&gate->queue[i], &gate->queue[i].request[j]);
}

/* Requests out, and those in the driver's ring that nobody took yet. */
static unsigned int gate_outstanding(const struct vhost_isolation *isolation)
{
	const struct gate *gate = (const struct gate *)isolation;
	unsigned int sum = 0;

	for (unsigned int i = 0; i < isolation->count && isolation->running; i++)
		if (gate->queue[i].ring.size)
			sum += SHADOW_SIZE - gate->queue[i].spare_count;
	return sum;
}

/* Life */

static void queue_clear(struct gate_queue *queue)
{
	queue->waiting = 0;
	queue->order = 0;
	for (unsigned int i = 0; i < SHADOW_SIZE; i++) {
		queue->request[i].state = GATE_FREE;
		queue->request[i].lost = false;
		queue->spare[i] = SHADOW_SIZE - 1 - i;
	}
	queue->spare_count = SHADOW_SIZE;
}

static void queue_start(struct gate_queue *queue, const struct dev_vring *ring, uint64_t features)
{
	struct gate *gate = queue->gate;

	queue_clear(queue);
	queue->ring = *ring;
	if (!ring->size)
		return;
	queue->kick.fd = ring->kick;
	if (virtq_init(&queue->vq, &gate->base.memory->map, ring, features) ||
	    loop_add_edge(gate->base.loop, &queue->kick)) {
		fd_signal_event(ring->err);
		queue->ring.size = 0;
	}
}

static void gate_start(struct vhost_isolation *isolation, uint64_t features,
		       const struct dev_vring *rings)
{
	struct gate *gate = (struct gate *)isolation;

	for (unsigned int i = 0; i < isolation->count; i++)
		queue_start(&gate->queue[i], &rings[i], features);
	isolation->features = features;
	isolation->running = true;
	gate->suspects = 0;
}

/* What the back end did before its queue was stopped is the driver's. */
static int queue_stop(struct gate_queue *queue, struct vhost_user *user, unsigned int index)
{
	uint16_t base;
	int err = vhost_user_stop_vring(user, index, &base);

	queue->vq.broken = true;	/* nothing new */
	return err ? err : queue_work(queue);
}

static int gate_stop(struct vhost_isolation *isolation, struct vhost_user *user)
{
	struct gate *gate = (struct gate *)isolation;
	int err = 0;

	for (unsigned int i = 0; i < isolation->count; i++) {
		struct gate_queue *queue = &gate->queue[i];

		if (!queue->ring.size)
			continue;
		loop_remove(isolation->loop, &queue->kick);
		if (queue->served && user->socket >= 0 && !err)
			err = queue_stop(queue, user, i);
	}
	gate_close(gate);
	for (unsigned int i = 0; i < isolation->count; i++)
		queue_clear(&gate->queue[i]);
	gate->inflight = 0;
	gate->lost = 0;
	isolation->running = false;
	return err;
}

static void gate_destroy(struct vhost_isolation *isolation)
{
	struct gate *gate = (struct gate *)isolation;

	gate_close(gate);
	for (unsigned int i = 0; i < isolation->count; i++)
		for (unsigned int j = 0; j < SHADOW_SIZE; j++)
			free(gate->queue[i].request[j].segment);
	free(gate->queue);
	free(gate);
}

static int gate_create(const struct vhost_isolation *setup, const struct vhost_user *user,
		       struct vhost_isolation **ret)
{
	struct gate *gate = calloc(1, sizeof(*gate));

	(void)user;
	if (!gate)
		return -ENOMEM;
	gate->base = *setup;
	gate->fd = -1;
	gate->window.control = -1;
	gate->window.map = -1;
	gate->queue = calloc(setup->count, sizeof(*gate->queue));
	if (!gate->queue) {
		free(gate);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < setup->count; i++) {
		struct gate_queue *queue = &gate->queue[i];

		queue->gate = gate;
		queue->kick = (struct loop_source){ .fd = -1, .ready = queue_kicked };
		queue->call = (struct loop_source){ .fd = -1, .ready = queue_called };
		queue->err = (struct loop_source){ .fd = -1, .ready = queue_failed };
		queue->kick_back_end = -1;
	}
	*ret = &gate->base;
	return 0;
}

/* The driver's rings are the gate's to read, whatever the back end can. */
static uint64_t gate_ring_features(uint64_t offered)
{
	return VIRTQ_FEATURES | (offered & 1ULL << VIRTIO_F_VERSION_1);
}

static const char *gate_lacks(const struct vhost_isolation *isolation, const struct vhost_user *user)
{
	(void)isolation;
	(void)user;
	return NULL;
}

const struct vhost_isolation_ops vhost_gate = {
	.name = "grant",
	.ring_features = gate_ring_features,
	.create = gate_create,
	.destroy = gate_destroy,
	.lacks = gate_lacks,
	.start = gate_start,
	.serve = gate_serve,
	.progressed = gate_progressed,
	.lost = gate_lost,
	.blame = gate_blame,
	.stop = gate_stop,
	.outstanding = gate_outstanding,
};
