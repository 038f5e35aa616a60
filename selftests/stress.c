// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Many things at once: vCPUs in threads, processes that die in mid-run, signals, and a host that
 * changes memory under the guest. The guests keep count of what they do, and find every count that
 * is lost.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "guest.h"

#define N_VCPUS		3
#define KILLS		50
#define SLOT_GPA	0x40000000ul
#define SLOT_SIZE	MIB(2)
#define PAGES		64
#define SECONDS_NS	1500000000ull
#define MMIO_ANSWER	0x4d4d4d4d4d4d4d4d

static struct vm *vm;
static struct vcpu *vcpus[N_VCPUS];

static volatile uint64_t quit;

static void machine_create(unsigned int n, void *payload)
{
	unsigned int i;

	vm = vm_create(GUEST_RAM, false);
	for (i = 0; i < n; i++) {
		vcpus[i] = vcpu_create(vm, i);
		vcpu_set_long(vcpus[i], payload, i);
	}
}

static void machine_destroy(void)
{
	unsigned int i;

	for (i = 0; i < N_VCPUS; i++) {
		vcpu_destroy(vcpus[i]);
		vcpus[i] = NULL;
	}
	vm_destroy(vm);
}

/* ---- Processes that are killed ---- */

static void busy_payload(uint64_t id)
{
	volatile uint64_t *p = (uint64_t *)(GUEST_FREE + id * MIB(1));
	uint64_t i;

	for (i = 0;; i++) {
		p[i * 512 % 0x10000] = i;
		if (i % 64 == 0)
			inl(0x510);
	}
}

static void *run_forever(void *vcpu)
{
	for (;;)
		vcpu_run(vcpu);
	return NULL;
}

static void killed_child(void)
{
	pthread_t thread;
	unsigned int i;

	machine_create(N_VCPUS, busy_payload);
	for (i = 0; i < N_VCPUS; i++)
		pthread_create(&thread, NULL, run_forever, vcpus[i]);
	for (;;)
		pause();
}

static void kills(void)
{
	int i, status;
	pid_t pid;

	for (i = 0; i < KILLS; i++) {
		pid = fork();
		if (!pid)
			killed_child();
		usleep(5000 + i * 1117 % 40000);
		kill(pid, SIGKILL);
		if (waitpid(pid, &status, 0) != pid)
			CHECK(false, "waitpid: %s", strerror(errno));
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child %d: status %#x", i,
		      status);
	}
}

/* All descriptors go in all orders while another holds the mapping. */
static void closes(void)
{
	int i;

	for (i = 0; i < 60; i++) {
		machine_create(2, busy_payload);
		CHECK_EQ(vcpu_run_on(vcpus[0]), 0);
		if (i & 1)
			close(vm->fd);
		if (i & 2)
			close(vcpus[0]->fd);
		if (i & 4)
			CHECK_EQ(vcpu_run_on(vcpus[1]), 0);
		if (i & 1)
			vm->fd = -1;
		if (i & 2)
			vcpus[0]->fd = -1;
		machine_destroy();
	}
}

/* ---- What was freed ---- */

#define MANY_VCPUS	400
#define KFENCE		"/sys/module/kfence/parameters/sample_interval"

/* The kernel's detector of memory that is used after it was freed: an object a millisecond. */
static bool kfence_set(const char *ms)
{
	int fd = open(KFENCE, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, ms, strlen(ms)) > 0;

	close(fd);
	return done;
}

/* Whether it found anything since the log was last read. */
static bool kfence_found(int log)
{
	bool found = false;
	char line[2048];
	ssize_t n;

	while ((n = read(log, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		line[n > 0 ? n : 0] = '\0';
		found |= strstr(line, "BUG: KFENCE") != NULL;
	}
	return found;
}

/*
 * A VM goes while its owner lives, with pages mapped into the guest: to take these away is to make
 * requests to the vCPUs, which must be there still.
 */
static void requests_at_the_end(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned int i, n;

	if (log < 0 || !kfence_set("1"))
		SKIP("the kernel has no KFENCE");
	lseek(log, 0, SEEK_END);
	for (n = 0; n < 4 && !tap_failed(); n++) {
		machine_create(1, busy_payload);
		for (i = 1; i < MANY_VCPUS; i++)
			close(ioctl(vm->fd, KVM_CREATE_VCPU, i));
		CHECK_EQ(vcpu_run_on(vcpus[0]), 0);
		machine_destroy();
		CHECK(!kfence_found(log), "freed memory was used");
	}
	kfence_set("0");
	close(log);
}

/* ---- Work whose result is known ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	return x * 0x9e3779b97f4a7c15 + 1;
}

static void work_payload(uint64_t seed)
{
	uint64_t i, x = seed + 1;

	for (i = 1; i <= 3000000; i++) {
		x = mix(x);
		if (i % 100000 == 0)
			outl(0x510, i);
	}
	guest_sync2(1, x);
	guest_done();
}

static uint64_t work_result(uint64_t seed)
{
	uint64_t i, x = seed + 1;

	for (i = 1; i <= 3000000; i++)
		x = mix(x);
	return x;
}

static void work_judge(struct vcpu *vcpu, uint64_t seed)
{
	struct report report;

	do {
		report = vcpu_wait(vcpu);
	} while (report.kind == REPORT_EXIT && vcpu->run->exit_reason == KVM_EXIT_IO &&
		 vcpu->run->io.port == 0x510);
	if (report.kind != REPORT_SYNC)
		vcpu_explain(vcpu, &report, "the work's result");
	else
		CHECK_EQ(report.value2, work_result(seed));
}

struct machine {
	struct vm *vm;
	struct vcpu *vcpu;
	pthread_t thread;
	uint64_t seed;
};

static void *machine_thread(void *arg)
{
	struct machine *m = arg;

	work_judge(m->vcpu, m->seed);
	return NULL;
}

static void two_machines(void)
{
	struct machine m[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		m[i].seed = 100 + i;
		m[i].vm = vm_create(GUEST_RAM, false);
		m[i].vcpu = vcpu_create(m[i].vm, 0);
		vcpu_set_long(m[i].vcpu, work_payload, m[i].seed);
	}
	for (i = 0; i < 2; i++)
		pthread_create(&m[i].thread, NULL, machine_thread, &m[i]);
	for (i = 0; i < 2; i++) {
		pthread_join(m[i].thread, NULL);
		vcpu_destroy(m[i].vcpu);
		vm_destroy(m[i].vm);
	}
}

static volatile unsigned int storms;

static void storm_handler(int sig)
{
	(void)sig;
	storms++;
}

/* A signal each millisecond: no work is lost to any. */
static void signal_storm(void)
{
	struct sigaction act = { .sa_handler = storm_handler };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec when = {
		.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000,
	};
	timer_t timer;

	sigaction(SIGUSR1, &act, NULL);
	machine_create(1, work_payload);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &when, NULL);
	work_judge(vcpus[0], 0);
	timer_delete(timer);
	CHECK(storms > 5, "only %u signals came", storms);
	machine_destroy();
}

/* ---- Memory that changes under running vCPUs ---- */

/* Counts in words of its own, one a page; each must hold what was put there. */
static void count_payload(uint64_t id)
{
	volatile uint64_t *base = (uint64_t *)SLOT_GPA;
	uint64_t round, page;

	for (round = 0; !quit; round++) {
		for (page = 0; page < PAGES; page++) {
			if (base[page * 512 + id] != round) {
				guest_fail("count", page, base[page * 512 + id], round);
				guest_done();
			}
			base[page * 512 + id] = round + 1;
		}
	}
	guest_done();
}

static uint8_t *count_start(void)
{
	uint8_t *host =
		mmap(NULL, SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int i;

	machine_create(N_VCPUS, count_payload);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	for (i = 0; i < N_VCPUS; i++)
		vcpu_spawn(vcpus[i]);
	return host;
}

static void count_end(uint8_t *host)
{
	uint64_t total = 0;
	unsigned int i;

	*GUEST_VAR(vm, quit) = 1;
	for (i = 0; i < N_VCPUS; i++) {
		vcpu_join(vcpus[i]);
		total += ((volatile uint64_t *)host)[i];
	}
	tap_note("%llu rounds", (unsigned long long)total);
	CHECK(total > 0, "the guest did nothing");
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void forks(void)
{
	uint8_t *host = count_start();
	uint64_t end = clock_ns() + SECONDS_NS;
	int n = 0, status;
	pid_t pid;

	while (clock_ns() < end) {
		pid = fork();
		if (!pid) {
			host[0x10000] ^= 1;
			_exit(0);
		}
		waitpid(pid, &status, 0);
		n++;
	}
	tap_note("%d forks", n);
	count_end(host);
}

static void protections(void)
{
	uint8_t *host = count_start();
	uint64_t end = clock_ns() + SECONDS_NS;
	int n = 0;

	/* Back to writable at once: a vCPU that runs into it waits for the lock or gets EFAULT. */
	while (clock_ns() < end) {
		madvise(host, SLOT_SIZE, MADV_COLD);
		madvise(host, SLOT_SIZE, n & 1 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		madvise(host, SLOT_SIZE, 25 /* MADV_COLLAPSE */);
		mremap(host, SLOT_SIZE, SLOT_SIZE, 0);
		n++;
	}
	tap_note("%d rounds of advice", n);
	count_end(host);
}

static void neighbours(void)
{
	uint8_t *host = count_start();
	uint64_t end = clock_ns() + SECONDS_NS;
	int n = 0;

	/* Other slots come and go; those that the guest counts in are not touched by it. */
	while (clock_ns() < end && !tap_failed()) {
		CHECK_CALL(vm_slot(vm, 2, SLOT_GPA + SLOT_SIZE, SLOT_SIZE, vm->ram, 0));
		CHECK_CALL(
			vm_slot(vm, 3, SLOT_GPA - SLOT_SIZE, SLOT_SIZE, vm->ram, KVM_MEM_READONLY));
		CHECK_CALL(vm_slot(vm, 2, SLOT_GPA + 2 * SLOT_SIZE, SLOT_SIZE, vm->ram, 0));
		CHECK_CALL(vm_slot(vm, 2, 0, 0, NULL, 0));
		CHECK_CALL(vm_slot(vm, 3, 0, 0, NULL, 0));
		n++;
	}
	tap_note("%d rounds of slots", n);
	count_end(host);
}

/* Reads either the slot or, when that is gone, what the host answers. */
static void vanish_payload(uint64_t id)
{
	volatile uint64_t *base = (uint64_t *)SLOT_GPA;
	uint64_t value;

	while (!quit) {
		value = base[id * 512];
		if (value != 0x1234 && value != MMIO_ANSWER)
			guest_fail("neither memory nor MMIO", id, value, 0x1234);
	}
	guest_done();
}

static void *vanish_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct report report;
	uint64_t answer = MMIO_ANSWER;

	for (;;) {
		report = vcpu_wait(vcpu);
		if (report.kind != REPORT_EXIT || vcpu->run->exit_reason != KVM_EXIT_MMIO)
			break;
		memcpy(vcpu->run->mmio.data, &answer, 8);
	}
	if (report.kind != REPORT_DONE)
		vcpu_explain(vcpu, &report, "the payload's end");
	return NULL;
}

static void vanishing_slot(void)
{
	uint8_t *host =
		mmap(NULL, SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t end = clock_ns() + SECONDS_NS;
	pthread_t threads[N_VCPUS];
	unsigned int i, n = 0;

	for (i = 0; i < N_VCPUS; i++)
		((uint64_t *)host)[i * 512] = 0x1234;
	machine_create(N_VCPUS, vanish_payload);
	for (i = 0; i < N_VCPUS; i++)
		pthread_create(&threads[i], NULL, vanish_thread, vcpus[i]);
	while (clock_ns() < end) {
		CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
		usleep(500);
		CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
		n++;
	}
	*GUEST_VAR(vm, quit) = 1;
	for (i = 0; i < N_VCPUS; i++)
		pthread_join(threads[i], NULL);
	tap_note("%u times", n);
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

/*
 * Two threads take the same memory away from the guest at once. Either may find that there is
 * nothing left to take, and give the pages back to the host: the guest must not reach them by then,
 * though it was the other that took them. What the host has next in these pages stays as it is.
 */
#define TAKEN_WORD	0x6b6e6974
#define TAKEN_PAGES	4

static volatile bool taking;

static void taken_payload(uint64_t id)
{
	volatile uint64_t *base = (uint64_t *)SLOT_GPA;
	uint64_t i;

	while (!quit)
		for (i = 0; i < TAKEN_PAGES; i++)
			base[i * 512 + id] = TAKEN_WORD;
	guest_done();
}

static void *take(void *host)
{
	volatile uint64_t *p;
	unsigned int i;

	while (taking) {
		madvise(host, TAKEN_PAGES * PAGE_SIZE, MADV_DONTNEED);
		p = mmap(NULL, TAKEN_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		sched_yield();
		for (i = 0; i < TAKEN_PAGES * 512; i++)
			if (p[i] == TAKEN_WORD) {
				CHECK(false, "the guest wrote to the host's page %u", i / 512);
				taking = false;
				break;
			}
		munmap((void *)p, TAKEN_PAGES * PAGE_SIZE);
	}
	return NULL;
}

static void both_take_it_away(void)
{
	uint8_t *host = mmap(NULL, SLOT_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t threads[2];
	unsigned int i;

	madvise(host, SLOT_SIZE, MADV_NOHUGEPAGE);
	vcpu_deadline_ms = 15000;
	machine_create(2, taken_payload);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	for (i = 0; i < 2; i++)
		vcpu_spawn(vcpus[i]);
	taking = true;
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, take, host);
	usleep(SECONDS_NS / 1000);
	taking = false;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	*GUEST_VAR(vm, quit) = 1;
	for (i = 0; i < 2; i++)
		vcpu_join(vcpus[i]);
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

/* Atomic increments of one word by all vCPUs: none is lost, whatever happens to the page. */
static volatile uint64_t shared;

static void atomic_payload(uint64_t id)
{
	uint64_t i;

	(void)id;
	for (i = 0; i < 300000; i++)
		__atomic_add_fetch(&shared, 1, __ATOMIC_SEQ_CST);
	guest_done();
}

static void atomics(void)
{
	unsigned int i;

	machine_create(N_VCPUS, atomic_payload);
	for (i = 0; i < N_VCPUS; i++)
		vcpu_spawn(vcpus[i]);
	for (i = 0; i < 100; i++) {
		madvise(vm->ram, vm->ram_size, MADV_COLD);
		usleep(1000);
	}
	for (i = 0; i < N_VCPUS; i++)
		vcpu_join(vcpus[i]);
	CHECK_EQ(*GUEST_VAR(vm, shared), N_VCPUS * 300000);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "killed_in_mid_run", kills },
	{ "closes", closes },
	{ "requests_at_the_end", requests_at_the_end },
	{ "two_machines", two_machines },
	{ "signal_storm", signal_storm },
	{ "forks", forks },
	{ "advice", protections },
	{ "slots_beside", neighbours },
	{ "vanishing_slot", vanishing_slot },
	{ "both_take_it_away", both_take_it_away },
	{ "atomics", atomics },
};

TAP_MAIN(cases)
