// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Throws random ioctls and random guests at the node.
 *
 * A seed is the work of one process: it makes a world of machines, memory and descriptors
 * (fuzz/world.c) and lets three threads loose on it, each of which takes a number of random steps
 * (fuzz/steps.c). This process starts such workers, some at a time, with one seed after the other,
 * and watches them: one that does not come to its end is a finding, and so is one that dies.
 *
 * What becomes of the host is not this program's to judge: node_fuzz.sh is for that.
 *
 * It must not run as root: what it is to show is what an ordinary user with access to the node
 * could do.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "fuzz/fuzz.h"

#define EXIT_FOUND	1
#define EXIT_USAGE	2
#define KILL_SECONDS	30	/* for SIGKILL to do its work */

struct options {
	uint64_t seed;
	uint64_t seeds;			/* how many; 0 for as many as there is time for */
	unsigned int steps;		/* of each thread */
	unsigned int seconds;		/* 0: one seed */
	unsigned int jobs;
	unsigned int patience;		/* seconds for one seed */
	bool table;
	const char *node;
};

struct job {
	pid_t pid;
	uint64_t seed;
	uint64_t started;
	bool killed;
};

struct shared *shared;

static struct options options = {
	.seed = 1, .steps = 120, .jobs = 2, .patience = 90, .node = "/dev/moat",
};

static struct job jobs[MAX_JOBS];

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* ---- The worker ---- */

static struct world world;

static bool actor_init(struct actor *a, unsigned int number)
{
	a->world = &world;
	a->number = number;
	a->rng.state = world.seed * 0x9e3779b97f4a7c15 + number * 0xd1b54a32d192ed03;
	a->buffer = mmap(NULL, BUFFER_SIZE + PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return a->buffer != MAP_FAILED && !munmap(a->buffer + BUFFER_SIZE, PAGE) &&
	       mmap(a->buffer + BUFFER_SIZE, PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static void *actor_run(void *arg)
{
	struct actor *a = arg;
	unsigned int i;

	run_limit_create();
	for (i = 0; i < options.steps; i++)
		step_random(a);
	world.progress->doing[a->number] = "done";
	return NULL;
}

static void limits_set(void)
{
	static const struct {
		int what;
		rlim_t limit;
	} limits[] = {
		{ RLIMIT_CORE, 0 }, { RLIMIT_NOFILE, 400 }, { RLIMIT_NPROC, 120 },
		{ RLIMIT_MEMLOCK, 8 << 20 }, { RLIMIT_FSIZE, 64 << 20 },
	};
	unsigned int i;

	signal(SIGXFSZ, SIG_IGN);
	for (i = 0; i < ARRAY_SIZE(limits); i++)
		setrlimit(limits[i].what, &(struct rlimit){ limits[i].limit, limits[i].limit });
}

/* What a worker gets no further with says nothing of the node: no memory, no descriptors. */
static void worker_run(struct job *job, struct progress *progress)
{
	static struct actor actors[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	struct actor *first = &actors[0];
	unsigned int i, started;

	setpgid(0, 0);
	limits_set();
	world.seed = job->seed;
	world.progress = progress;
	for (i = 0; i < MAX_THREADS; i++)
		if (!actor_init(&actors[i], i))
			_exit(0);
	if (!world_create(&world, options.node)) {
		printf("# seed %llu: no world: %s\n", (unsigned long long)job->seed,
		       strerror(errno));
		fflush(stdout);
		_exit(0);
	}
	world.scribbles = rng_one_in(&first->rng, 2);
	code_tables(&first->rng, world.ram);
	for (i = 0; i < 2; i++)
		world_adopt_vm(first, call_number(world.node, KVM_CREATE_VM, 0));
	for (started = 0; started < MAX_THREADS; started++)
		if (pthread_create(&threads[started], NULL, actor_run, &actors[started]))
			break;
	for (i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/* ---- The watch ---- */

static void job_start(unsigned int n, uint64_t seed)
{
	struct job *job = &jobs[n];
	unsigned int i;

	*job = (struct job){ .seed = seed, .started = now_ms() };
	shared->progress[n] = (struct progress){ .seed = seed };
	for (i = 0; i < MAX_THREADS; i++)
		shared->progress[n].doing[i] = "start";
	printf("# seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	job->pid = fork();
	if (!job->pid)
		worker_run(job, &shared->progress[n]);
	if (job->pid < 0) {
		job->pid = 0;
		usleep(100000);
	}
}

static void job_describe(unsigned int n)
{
	const struct progress *p = &shared->progress[n];

	printf("# seed %llu, after %llu steps, its threads at: %s; %s; %s\n",
	       (unsigned long long)p->seed, (unsigned long long)p->steps, p->doing[0], p->doing[1],
	       p->doing[2]);
}

static void job_ended(unsigned int n, int status)
{
	struct job *job = &jobs[n];
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	/* Children that linger hold descriptors. */
	kill(-job->pid, SIGKILL);
	job->pid = 0;
	if (!sig || job->killed)
		return;
	/* The memory controller, when it has to choose, kills. */
	printf("# %s seed %llu: the worker died of signal %d (%s)\n",
	       sig == SIGKILL ? "NOTE" : "FINDING", (unsigned long long)job->seed, sig,
	       strsignal(sig));
	if (sig != SIGKILL)
		count(&shared->findings);
	job_describe(n);
	fflush(stdout);
}

/* True where nothing can be done any more. */
static bool job_watch(unsigned int n)
{
	struct job *job = &jobs[n];
	uint64_t age = now_ms() - job->started, limit = options.patience * 1000ull;

	if (age > limit && !job->killed) {
		printf("# FINDING seed %llu: hangs\n", (unsigned long long)job->seed);
		job_describe(n);
		fflush(stdout);
		count(&shared->findings);
		kill(-job->pid, SIGKILL);
		job->killed = true;
	}
	if (age > limit + KILL_SECONDS * 1000ull) {
		printf("# FINDING seed %llu: SIGKILL does not end it\n",
		       (unsigned long long)job->seed);
		fflush(stdout);
		return true;
	}
	return false;
}

/* Reaps what has ended and looks at the rest; false where a worker cannot even be killed. */
static bool jobs_watch(unsigned int *ret_free)
{
	unsigned int n;
	int status;

	for (n = 0; n < options.jobs; n++) {
		if (jobs[n].pid && waitpid(jobs[n].pid, &status, WNOHANG) == jobs[n].pid)
			job_ended(n, status);
		if (!jobs[n].pid)
			*ret_free = n;
		else if (job_watch(n))
			return false;
	}
	return true;
}

static bool jobs_are_done(void)
{
	unsigned int n;

	for (n = 0; n < options.jobs; n++)
		if (jobs[n].pid)
			return false;
	return true;
}

/* ---- What came of it ---- */

static void table_print(void)
{
	static const char *const outcomes[NR_OUTCOMES] = {
		"ok", "EINVAL", "EFAULT", "ENOTTY", "EEXIST", "E2BIG", "EBADF", "EIO", "EINTR",
		"other",
	};
	unsigned int i, k;

	printf("# %-30s", "call");
	for (k = 0; k < NR_OUTCOMES; k++)
		printf("%8s", outcomes[k]);
	printf("\n");
	for (i = 0; i < calls_count(); i++) {
		printf("# %-30s", call_name(i));
		for (k = 0; k < NR_OUTCOMES; k++)
			printf("%8llu", (unsigned long long)shared->outcomes[i][k]);
		printf("\n");
	}
	for (i = 0; i < MAX_EXITS; i++)
		if (shared->exits[i])
			printf("# exit %u%s: %llu\n", i, i == MAX_EXITS - 1 ? " and above" : "",
			       (unsigned long long)shared->exits[i]);
}

static void summary_print(uint64_t seeds, uint64_t ms)
{
	unsigned int i, known = 0, succeeded = 0;

	for (i = 0; i < calls_count(); i++) {
		uint64_t *o = shared->outcomes[i], all = 0;
		unsigned int k;

		for (k = 0; k < NR_OUTCOMES; k++)
			all += k == DID_ENOTTY || k == DID_EBADF ? 0 : o[k];
		known += all > 0;
		succeeded += o[DID_OK] > 0;
	}
	printf("# %llu seeds, %llu steps, %llu s; %u of %u ioctls are known, %u succeeded; ",
	       (unsigned long long)seeds, (unsigned long long)shared->steps,
	       (unsigned long long)ms / 1000, known, calls_count(), succeeded);
	printf("%llu good guests; %llu findings\n", (unsigned long long)shared->good_guests,
	       (unsigned long long)shared->findings);
	fflush(stdout);
}

/* ---- Main ---- */

static void usage(void)
{
	fprintf(stderr,
		"usage: node_fuzz [--seed N] [--seeds N | --seconds S] [--steps N] [--jobs N]\n"
		"                 [--patience S] [--table] [--node PATH]\n"
		"One seed, or as many as asked for or as there is time for, from --seed on.\n");
	exit(EXIT_USAGE);
}

static void options_parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", 1, NULL, 's' }, { "seeds", 1, NULL, 'n' }, { "seconds", 1, NULL, 't' },
		{ "steps", 1, NULL, 'c' }, { "jobs", 1, NULL, 'j' }, { "patience", 1, NULL, 'p' },
		{ "table", 0, NULL, 'l' }, { "node", 1, NULL, 'd' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			options.seeds = strtoull(optarg, NULL, 0);
			break;
		case 't':
			options.seconds = atoi(optarg);
			break;
		case 'c':
			options.steps = atoi(optarg);
			break;
		case 'j':
			options.jobs = atoi(optarg);
			break;
		case 'p':
			options.patience = atoi(optarg);
			break;
		case 'l':
			options.table = true;
			break;
		case 'd':
			options.node = optarg;
			break;
		default:
			usage();
		}
	}
	if (optind < argc || !options.jobs || options.jobs > MAX_JOBS)
		usage();
	if (!options.seconds && !options.seeds)
		options.seeds = 1;
}

static uint64_t seeds_run(uint64_t start)
{
	uint64_t end = start + options.seconds * 1000ull, done = 0;
	unsigned int n;

	for (;;) {
		bool more = options.seeds ? done < options.seeds : now_ms() < end;

		n = MAX_JOBS;
		if (!jobs_watch(&n))
			break;
		if (n < MAX_JOBS && more)
			job_start(n, options.seed + done++);
		else if (n < MAX_JOBS && jobs_are_done())
			break;
		else
			usleep(5000);
	}
	return done;
}

int main(int argc, char **argv)
{
	const char *node = getenv("MOAT_DEVICE");
	uint64_t start = now_ms(), seeds;

	if (node && *node)
		options.node = node;
	options_parse(argc, argv);
	if (!geteuid() || access(options.node, R_OK | W_OK)) {
		fprintf(stderr, "node_fuzz: %s\n", !geteuid() ? "not as root" : strerror(errno));
		return EXIT_USAGE;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		return EXIT_USAGE;
	seeds = seeds_run(start);
	if (options.table)
		table_print();
	summary_print(seeds, now_ms() - start);
	return shared->findings ? EXIT_FOUND : 0;
}
