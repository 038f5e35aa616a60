// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The requests of virtio-blk (virtio 1.2, section 5.2), carried out by io_uring.
 *
 * A request is a header of 16 bytes, data, and a status byte at the very end; how these are spread
 * over descriptors is the driver's choice. The host's kernel reads into, and writes from, the
 * guest's own pages, so data is touched once. A request is one step, or a few, one after the
 * other: what was short goes on, what O_DIRECT refuses goes through the page cache, zeroes that the
 * file system cannot make by itself are written, and without VIRTIO_BLK_F_FLUSH, which is how a
 * driver asks for durability, each write is durable before it is completed.
 *
 * O_DIRECT refuses memory that is not the kernel's to pin, as the windows of Moat's, by EFAULT, and pieces
 * that are not aligned by EINVAL. Either is of one request.
 *
 * The io_uring is made before the process gives up its rights, and can do no more than the steps
 * here, on the disk's two descriptors.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devmodel/blk/queue.h"
#include "userspace/lib/array.h"

/* Written where the file system makes no zeroes: an untouched piece of nothing, many times. */
#define BLK_ZEROES_SIZE	(256 << 10)
static uint8_t blk_zeroes[BLK_ZEROES_SIZE];

_Static_assert((uint64_t)BLK_RANGE_SECTORS_MAX * BLK_SECTOR <=
	       (uint64_t)BLK_ZEROES_SIZE * BLK_IOV_MAX, "zeroes fit in one list of pieces");

#define BLK_SUBMIT_AGAIN_MS	10

/* The descriptors, as the io_uring knows them. */
enum { BLK_FILE_BUFFERED, BLK_FILE_DIRECT, BLK_FILES };

static bool blk_in_range(const struct blk_disk *disk, uint64_t sector, uint64_t sectors)
{
	uint64_t size = __atomic_load_n(&disk->sectors, __ATOMIC_RELAXED);

	return sector <= size && sectors <= size - sector;
}

static uint8_t blk_status(int err)
{
	if (!err)
		return VIRTIO_BLK_S_OK;
	return err == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* fallocate() of a step. */
static int step_mode(enum blk_step step)
{
	return FALLOC_FL_KEEP_SIZE | (step == BLK_ZERO ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

static void request_prepare(const struct blk_request *request, struct io_uring_sqe *sqe, int file)
{
	switch (request->step) {
	case BLK_READ:
		io_uring_prep_readv(sqe, file, request->left, request->left_count, request->offset);
		break;
	case BLK_WRITE:
		io_uring_prep_writev(sqe, file, request->left, request->left_count,
				     request->offset);
		break;
	case BLK_SYNC:
		io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
	case BLK_UNMAP:
		io_uring_prep_fallocate(sqe, file, step_mode(request->step), request->offset,
					request->length);
	}
}

/* There is an entry for each request, and a request has one step at a time. */
static void request_issue(struct blk_queue *queue, struct blk_request *request)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->uring);

	request_prepare(request, sqe, request->direct ? BLK_FILE_DIRECT : BLK_FILE_BUFFERED);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, request);
}

static void request_step(struct blk_queue *queue, struct blk_request *request, enum blk_step step)
{
	request->step = step;
	request->direct = step <= BLK_WRITE && queue->disk->direct_fd >= 0;
	request_issue(queue, request);
}

/*
 * The length counts from the chain's start up to the first byte not written: of a request that
 * failed with data to read, the status is not among these.
 */
static void request_end(struct blk_queue *queue, struct blk_request *request, int err)
{
	uint32_t written = err ? !request->reads : request->written + 1;

	*request->status = blk_status(err);
	virtq_push_head(&queue->vq, request->head, written);
	queue->free[queue->free_count++] = request;
}

/* The disk has changed as the driver asked. */
static void request_changed(struct blk_queue *queue, struct blk_request *request)
{
	if (queue->disk->write_through)
		request_step(queue, request, BLK_SYNC);
	else
		request_end(queue, request, 0);
}

/* Instead of a range of zeroes that the file system cannot make. */
static void request_write_zeroes(struct blk_queue *queue, struct blk_request *request)
{
	uint64_t left = request->length;

	request->left = request->iov;
	request->left_count = 0;
	while (left) {
		size_t some = left < BLK_ZEROES_SIZE ? left : BLK_ZEROES_SIZE;

		request->iov[request->left_count++] = (struct iovec){ blk_zeroes, some };
		left -= some;
	}
	request_step(queue, request, BLK_WRITE);
}

/* What O_DIRECT refuses goes through the page cache. True: it is under way there. */
static bool request_refused(struct blk_queue *queue, struct blk_request *request, int result)
{
	if (!request->direct || (result != -EFAULT && result != -EINVAL))
		return false;
	request->direct = false;
	request_issue(queue, request);
	return true;
}

static void request_transferred(struct blk_queue *queue, struct blk_request *request, int result)
{
	if (request_refused(queue, request, result))
		return;
	if (result <= 0) {
		/* Nothing at all: the file has become shorter. */
		request_end(queue, request, result ? result : -EIO);
		return;
	}
	iov_advance(&request->left, &request->left_count, result);
	request->offset += result;
	if (request->left_count)
		request_issue(queue, request);
	else if (request->step == BLK_WRITE)
		request_changed(queue, request);
	else
		request_end(queue, request, 0);
}

/* A discard that cannot be done is done: the driver has no claim on what it reads there. */
static void request_ranged(struct blk_queue *queue, struct blk_request *request, int result)
{
	if (!result || (result == -EOPNOTSUPP && request->step == BLK_DISCARD))
		request_changed(queue, request);
	else if (result == -EOPNOTSUPP)
		request_write_zeroes(queue, request);
	else
		request_end(queue, request, result);
}

static void request_stepped(struct blk_queue *queue, struct blk_request *request, int result)
{
	if (result == -EINTR || result == -EAGAIN) {
		request_issue(queue, request);
		return;
	}
	switch (request->step) {
	case BLK_READ:
	case BLK_WRITE:
		request_transferred(queue, request, result);
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
	case BLK_UNMAP:
		request_ranged(queue, request, result);
		break;
	case BLK_SYNC:
		request_end(queue, request, result);
	}
}

/* What begins a request returns 0 where a step is under way, 1 where all is done, or an errno. */

static int begin_transfer(struct blk_queue *queue, struct blk_request *request, uint64_t sector,
			  bool write)
{
	struct iovec *iov = write ? queue->chain.readable : queue->chain.writable;
	unsigned int count = write ? queue->chain.readable_count : queue->chain.writable_count;
	uint64_t len = iov_bytes(iov, count);

	if (write && queue->disk->read_only)
		return -EIO;
	if (count > BLK_IOV_MAX || len % BLK_SECTOR ||
	    !blk_in_range(queue->disk, sector, len / BLK_SECTOR))
		return -EIO;
	if (!len)
		return 1;
	memcpy(request->iov, iov, count * sizeof(*iov));
	request->left = request->iov;
	request->left_count = count;
	request->offset = sector * BLK_SECTOR;
	request->written = write ? 0 : len;
	request_step(queue, request, write ? BLK_WRITE : BLK_READ);
	return 0;
}

/* Discard and write-zeroes: exactly one range, as announced. */
static int begin_range(struct blk_queue *queue, struct blk_request *request, bool discard)
{
	struct virtio_blk_discard_write_zeroes range;

	if (queue->disk->read_only ||
	    chain_read(&queue->chain, &range, sizeof(range)) != sizeof(range) ||
	    queue->chain.readable_count)
		return -EIO;
	if (range.flags & ~(discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return -EOPNOTSUPP;
	if (range.num_sectors > BLK_RANGE_SECTORS_MAX ||
	    !blk_in_range(queue->disk, range.sector, range.num_sectors))
		return -EIO;
	if (!range.num_sectors)
		return 1;
	request->offset = range.sector * BLK_SECTOR;
	request->length = (uint64_t)range.num_sectors * BLK_SECTOR;
	request_step(queue, request, discard ? BLK_DISCARD : range.flags ? BLK_UNMAP : BLK_ZERO);
	return 0;
}

static int begin_get_id(struct blk_queue *queue, struct blk_request *request)
{
	request->written = chain_write(&queue->chain, queue->disk->id, sizeof(queue->disk->id));
	return 1;
}

static int begin_dispatch(struct blk_queue *queue, struct blk_request *request)
{
	struct virtio_blk_outhdr header;

	if (chain_read(&queue->chain, &header, sizeof(header)) != sizeof(header))
		return -EIO;
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return begin_transfer(queue, request, header.sector,
				      header.type == VIRTIO_BLK_T_OUT);
	case VIRTIO_BLK_T_FLUSH:
		request_step(queue, request, BLK_SYNC);
		return 0;
	case VIRTIO_BLK_T_GET_ID:
		return begin_get_id(queue, request);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return begin_range(queue, request, header.type == VIRTIO_BLK_T_DISCARD);
	}
	return -EOPNOTSUPP;
}

/* The chain in queue->chain. One without room for a status can only be dropped. */
static void request_begin(struct blk_queue *queue)
{
	struct virtq_chain *chain = &queue->chain;
	struct blk_request *request;
	uint8_t *status;
	int done;

	limit_take(&queue->disk->limit, chain->bytes);
	status = chain_take_last(chain);
	if (!status) {
		virtq_push(&queue->vq, chain, 0);
		return;
	}
	request = queue->free[--queue->free_count];
	request->status = status;
	request->head = chain->head;
	request->written = 0;
	request->reads = chain->writable_count;
	done = begin_dispatch(queue, request);
	if (done)
		request_end(queue, request, done > 0 ? 0 : done);
}

/* Return: chains taken. @ret_wait: milliseconds until more may be taken, by the disk's limits. */
static unsigned int queue_take(struct blk_queue *queue, int *ret_wait)
{
	unsigned int taken = 0;

	while (queue->free_count && !worker_ends(&queue->worker)) {
		*ret_wait = limit_wait(&queue->disk->limit);
		if (*ret_wait || virtq_pop(&queue->vq, &queue->chain) <= 0)
			break;
		request_begin(queue);
		taken++;
	}
	return taken;
}

/* Return: steps that came to an end. */
static unsigned int queue_reap(struct blk_queue *queue)
{
	struct io_uring_cqe *cqe;
	unsigned int reaped = 0;

	while (!io_uring_peek_cqe(&queue->uring, &cqe)) {
		struct blk_request *request = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&queue->uring, cqe);
		request_stepped(queue, request, result);
		reaped++;
	}
	return reaped;
}

/*
 * Works until nothing is left to do. Return: milliseconds until there is; -1: when a kick or an end
 * of a step tells.
 */
static int queue_serve(struct blk_queue *queue)
{
	while (!worker_ends(&queue->worker)) {
		unsigned int done;
		int wait = 0;

		virtq_kick_disable(&queue->vq);
		done = queue_take(queue, &wait);
		/* Short of memory: what was not taken is still there a moment later. */
		if (io_uring_submit(&queue->uring) < 0)
			wait = BLK_SUBMIT_AGAIN_MS;
		done += queue_reap(queue);
		virtq_notify(&queue->vq);
		if (done)
			continue;
		if (wait)
			return wait;
		if (!queue->free_count || !virtq_kick_enable(&queue->vq))
			return -1;
	}
	return -1;
}

static void queue_drain(struct blk_queue *queue)
{
	while (queue->free_count < queue->depth) {
		io_uring_submit_and_wait(&queue->uring, 1);
		queue_reap(queue);
	}
	virtq_notify(&queue->vq);
}

static void *queue_run(void *arg)
{
	struct blk_queue *queue = arg;
	struct pollfd wait[] = {
		{ 0 },
		{ .fd = queue->vq.kick, .events = POLLIN },
		{ .fd = queue->uring.ring_fd, .events = POLLIN },
	};
	eventfd_t count;

	/* There may have been kicks before this thread. */
	while (worker_wait_for(&queue->worker, wait, ARRAY_SIZE(wait), queue_serve(queue)))
		if (wait[1].revents)
			eventfd_read(queue->vq.kick, &count);
	queue_drain(queue);
	return NULL;
}

int queue_start(struct blk_queue *queue, const struct dev_memory *memory,
		const struct dev_vring *ring, uint64_t features)
{
	int err = virtq_init(&queue->vq, memory, ring, features);

	return err ? err : worker_start(&queue->worker, "blk", queue_run, queue);
}

void queue_stop(struct blk_queue *queue)
{
	worker_stop(&queue->worker);
}

/* From here on the io_uring does these steps, on registered files, and nothing else. */
static int uring_restrict(struct io_uring *uring)
{
	static const uint8_t steps[] = {
		IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
	};
	struct io_uring_restriction list[ARRAY_SIZE(steps) + 2] = {
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++)
		list[i + 2] = (struct io_uring_restriction){
			.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = steps[i],
		};
	return io_uring_register_restrictions(uring, list, ARRAY_SIZE(list));
}

static int uring_init(struct io_uring *uring, const struct blk_disk *disk, unsigned int depth)
{
	const int files[BLK_FILES] = { disk->fd, disk->direct_fd };
	int err = io_uring_queue_init(depth, uring, IORING_SETUP_R_DISABLED);

	if (err)
		return err;
	err = io_uring_register_files(uring, files, BLK_FILES);
	if (!err)
		err = uring_restrict(uring);
	if (!err)
		err = io_uring_enable_rings(uring);
	if (err)
		io_uring_queue_exit(uring);
	return err;
}

int queue_init(struct blk_queue *queue, struct blk_disk *disk, unsigned int depth)
{
	int err = uring_init(&queue->uring, disk, depth);

	if (err)
		return err;
	queue->disk = disk;
	queue->depth = depth;
	while (queue->free_count < depth) {
		queue->free[queue->free_count] = &queue->request[queue->free_count];
		queue->free_count++;
	}
	return 0;
}

void queue_finish(struct blk_queue *queue)
{
	io_uring_queue_exit(&queue->uring);
}
