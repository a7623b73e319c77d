// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What the tests of probes in user space probe: functions that count their calls, so that the counts of probes can be compared.
 *
 *   victim calls N        calls work() N times, and says how often it was executed and what it returned
 *   victim threads N      the same in two threads
 *   victim forks N        the same, and then in a child and a grandchild
 *   victim library N      calls drand48() of the C library N times
 *   victim signals N      as calls, interrupted by a timer all the time
 *   victim double         calls real() once with 1.5, after it has slept
 *   victim spin           calls work() until it gets SIGTERM
 *   victim nested N       calls itself N deep
 *   victim environment N  looks N times for the environment variable VICTIM_OPTION
 *   victim waits N        waits for a line on its standard input, and then looks N times
 *   victim library-spin   calls drand48() until it gets SIGTERM
 *   victim dumped N       calls work() N times beside a thread that reads and gets signals, and one that sleeps: says what has failed
 *   victim traced N       as calls, in a child that this process traces
 *   victim half-traced N  as dumped, in a child one of whose threads this process traces: not the one that calls
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROBED __attribute__((noinline, noclone, used))

_Atomic unsigned long executed;
volatile long last;
static _Atomic unsigned long alarms;
static volatile sig_atomic_t ended;
volatile long limit = 100;

/* Begins with an instruction that refers to memory by its distance; the tests know how long each is. Three times a, and b. */
long work(long a, long b);
asm(".pushsection .text\n"
    ".globl work\n"
    ".type work, @function\n"
    "work:\n"
    "	movq %rdi, last(%rip)\n"		/* 7 bytes */
    "	leaq (%rdi, %rdi, 2), %rax\n"		/* 4 */
    "	addq %rsi, %rax\n"			/* 3 */
    "	lock incq executed(%rip)\n"		/* the kernel's uprobes take no lock prefix */
    "	ret\n"
    ".size work, . - work\n"
    ".popsection");

/* Begins with a push, which the kernel emulates. */
PROBED long pushes(long a)
{
	asm volatile("" : : : "rbx", "r12", "memory");
	executed++;
	return a + limit;
}

/* Returns how deep it was, the innermost first. */
PROBED long nested(long more)
{
	long deep = 1;

	asm volatile("nop");
	if (more > 1)
		deep += nested(more - 1);
	executed++;
	return deep;
}

PROBED double real(double a)
{
	/* No lock prefix first. */
	asm volatile("nop");
	executed++;
	return a * 2;
}

/* Never executed: the kernel's uprobes do not take it. */
asm(".pushsection .text\n"
    ".globl untakable\n"
    ".type untakable, @function\n"
    "untakable: int $0x80\n"
    "ret\n"
    ".size untakable, . - untakable\n"
    ".popsection");

static void on_term(int number)
{
	ended = 1;
}

static void on_alarm(int number)
{
	alarms++;
}

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static long call(long count)
{
	long sum = 0;

	for (long i = 0; i < count; i++)
		sum += work(i, 1);
	return sum;
}

static void *thread(void *count)
{
	on_cpu(1);
	return (void *)call((long)count);
}

static void say(const char *who, long sum)
{
	printf("%s executed %lu sum %ld\n", who, executed, sum);
	fflush(stdout);
}

/* What a core dump must have, at the address of a symbol; written, so that no file has it. */
char marker[32];

static int ends[2];
/* What is waited for when the threads are there. */
static int go = -1;
static _Atomic unsigned long failures, received;

static void on_queued(int number)
{
	received++;
}

/* Whatever interrupts it, it reads what was written, and gets every signal that was sent to it. */
static void *reader(void *sum)
{
	unsigned char byte;

	for (;;) {
		if (read(ends[0], &byte, 1) != 1)
			failures++;
		else if (!byte)
			return NULL;
		else
			*(long *)sum += byte;
	}
}

static void *sleeper(void *unused)
{
	const struct timespec a_while = { 0, 3000000 };

	while (!ended) {
		if (nanosleep(&a_while, NULL))
			failures++;
	}
	return NULL;
}

/* work(), with something in registers that a core dump must have. */
static long marked_work(long a, long b)
{
	register long r12 asm("r12") = 0x1212121212121212;
	long sum;

	asm volatile("movq %%r12, %%xmm6\n"
		     "	movq %%rsp, %%rbx\n"
		     "	andq $-16, %%rsp\n"
		     "	subq $128, %%rsp\n"
		     "	call work\n"
		     "	movq %%rbx, %%rsp\n"
		     : "=a" (sum), "+D" (a), "+S" (b), "+r" (r12) : : "rbx", "xmm6", "memory", "cc");
	return sum;
}

static void dumped(long count)
{
	struct sigaction action = { .sa_handler = on_queued, .sa_flags = SA_RESTART };
	pthread_t reads, sleeps;
	long sum = 0, read_sum = 0;
	unsigned char byte = 0;

	strcpy(marker, "the memory of the victim");
	sigaction(SIGRTMIN, &action, NULL);
	if (pipe(ends))
		exit(1);
	pthread_create(&reads, NULL, reader, &read_sum);
	pthread_create(&sleeps, NULL, sleeper, NULL);
	if (go >= 0 && read(go, &byte, 1) != 1)
		exit(1);
	for (long i = 0; i < count; i++) {
		sum += marked_work(i, 1);
		while (pthread_sigqueue(reads, SIGRTMIN, (union sigval) { 0 }))
			sched_yield();
		byte = i % 255 + 1;
		if (write(ends[1], &byte, 1) != 1)
			failures++;
	}
	while (received < (unsigned long)count)
		sched_yield();
	byte = 0;
	if (write(ends[1], &byte, 1) != 1)
		failures++;
	ended = 1;
	pthread_join(reads, NULL);
	pthread_join(sleeps, NULL);
	printf("read %ld signals %lu failures %lu ", read_sum, received, failures);
	say("dumped", sum);
	exit(0);
}

/* A tracer that changes nothing. */
static void traced(void)
{
	pid_t child = fork();
	int status;

	if (!child) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		return;
	}
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, child, 0, WSTOPSIG(status) == SIGSTOP || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
	exit(0);
}

/* The last of the threads of a process that has three. */
static pid_t third_thread(pid_t process)
{
	struct dirent *entry;
	char path[64];
	pid_t last = 0;
	int count;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", process);
	do {
		count = 0;
		folder = opendir(path);
		while ((entry = readdir(folder))) {
			if (atoi(entry->d_name) > 0) {
				last = atoi(entry->d_name);
				count++;
			}
		}
		closedir(folder);
	} while (count < 3);
	return last;
}

static void half_traced(long count)
{
	pid_t child, thread;
	int start[2], status;

	if (pipe(start))
		exit(1);
	go = start[0];
	child = fork();
	if (!child)
		dumped(count);
	if (ptrace(PTRACE_SEIZE, third_thread(child), 0, 0) || write(start[1], "", 1) != 1)
		exit(1);
	while ((thread = waitpid(-1, &status, __WALL)) > 0) {
		if (WIFSTOPPED(status))
			ptrace(PTRACE_CONT, thread, 0, status >> 16 ? 0 : WSTOPSIG(status));
	}
	exit(0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long count = argc > 2 ? atol(argv[2]) : 0;
	long sum = 0;

	signal(SIGTERM, on_term);
	/* Where only parents may trace. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	if (!strcmp(what, "calls")) {
		sum = call(count);
	} else if (!strcmp(what, "pushes")) {
		for (long i = 0; i < count; i++)
			sum += pushes(i);
	} else if (!strcmp(what, "threads")) {
		pthread_t other;
		void *result;

		on_cpu(0);
		pthread_create(&other, NULL, thread, (void *)count);
		sum = call(count);
		pthread_join(other, &result);
		sum += (long)result;
	} else if (!strcmp(what, "forks")) {
		call(count);
		for (int generation = 0; generation < 2; generation++) {
			if (fork()) {
				wait(NULL);
				break;
			}
			executed = 0;
			call(count);
		}
	} else if (!strcmp(what, "library")) {
		for (long i = 0; i < count; i++)
			sum += drand48() < 2;
		executed = count;
	} else if (!strcmp(what, "nested")) {
		sum = nested(count);
	} else if (!strcmp(what, "environment") || !strcmp(what, "waits")) {
		if (!strcmp(what, "waits"))
			getchar();
		for (long i = 0; i < count; i++)
			sum += !getenv("VICTIM_OPTION");
		executed = count;
	} else if (!strcmp(what, "signals")) {
		struct itimerval every = { { 0, 1000 }, { 0, 1000 } };

		signal(SIGALRM, on_alarm);
		setitimer(ITIMER_REAL, &every, NULL);
		for (long i = 0; i < count; i++)
			sum += work(i, 1) + pushes(i);
		fprintf(stderr, "%lu alarms\n", alarms);
	} else if (!strcmp(what, "double")) {
		usleep(1000);
		sum = real(1.5);
	} else if (!strcmp(what, "dumped")) {
		dumped(count);
	} else if (!strcmp(what, "half-traced")) {
		half_traced(count);
	} else if (!strcmp(what, "traced")) {
		traced();
		sum = call(count);
	} else if (!strcmp(what, "spin")) {
		while (!ended)
			sum += work(1, 1);
	} else if (!strcmp(what, "library-spin")) {
		while (!ended) {
			drand48();
			executed++;
		}
	} else {
		return 2;
	}
	say(what, sum);
	return 0;
}
