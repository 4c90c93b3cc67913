/* Preloaded into a Ringway that is counted: its core takes one turn whenever it is told to.
 *
 * The core's wait for completions becomes: submit, and return if anything has completed, as the
 * kernel would. If nothing has, say so on the gate (a Unix socket, its path in RINGWAY_GATE) and
 * wait for a word there: `g` looks again, `m` calls `ringway_mark`, where the counts are written
 * out, `t` lets 20 ms pass. So what a turn finds is what was sent before it, on any machine. The
 * core's clock stands still but for that: how long counting takes leaves no trace in what is
 * counted, and no timer ends by itself.
 *
 * Until the word `l` the core waits as it would, but in ppoll: valgrind 3.19 keeps its lock over an
 * io_uring_enter that blocks, and the other threads stand still.
 *
 * All of this runs in this object, by system calls of its own, so that it can be left out of the
 * counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define CLOCKS 16
#define STEP_NS 20000000

static void *core;         /* the thread of the core, known since it waited first */
static int gate = -1;      /* connected by then */
static int stands_still;   /* whether the core takes turns, and its clock stands */
static struct timespec stopped[CLOCKS];
static char is_stopped[CLOCKS];

static long raw(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void *this_thread(void) {
    void *thread;
    __asm__("mov %%fs:0, %0" : "=r"(thread));
    return thread;
}

static void fail(void) { raw(SYS_exit_group, 120, 0, 0, 0, 0, 0); }

__attribute__((noinline)) void ringway_mark(void) { __asm__ volatile("" ::: "memory"); }

/* Whether this thread is the core; the first `ringway-NUMBER` that waits on a ring is. */
static int is_core(void) {
    if (core)
        return core == this_thread();
    char name[16] = {0};
    raw(SYS_prctl, PR_GET_NAME, (long)name, 0, 0, 0, 0);
    if (memcmp(name, "ringway-", 8) != 0 || name[8] < '0' || name[8] > '9')
        return 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("RINGWAY_GATE");
    if (!path || strlen(path) >= sizeof address.sun_path)
        fail();
    memcpy(address.sun_path, path, strlen(path));
    gate = raw(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (gate < 0 || raw(SYS_connect, gate, (long)&address, sizeof address, 0, 0, 0) < 0)
        fail();
    core = this_thread();
    return 1;
}

static char word(void) {
    char got = 0;
    long count;
    do
        count = raw(SYS_read, gate, (long)&got, 1, 0, 0, 0);
    while (count == -EINTR);
    if (count != 1)
        fail();
    return got;
}

static void let_time_pass(void) {
    for (int clock = 0; clock < CLOCKS; clock++) {
        stopped[clock].tv_nsec += STEP_NS;
        if (stopped[clock].tv_nsec >= 1000000000) {
            stopped[clock].tv_nsec -= 1000000000;
            stopped[clock].tv_sec++;
        }
    }
}

/* Nothing has completed: says so, and waits until it is to be looked again; whether time passed. */
static int stand(void) {
    raw(SYS_write, gate, (long)"i", 1, 0, 0, 0);
    for (;;) {
        char got = word();
        if (got == 'g')
            return 0;
        if (got == 't') {
            let_time_pass();
            return 1;
        }
        if (got == 'm')
            ringway_mark();
        raw(SYS_write, gate, (long)"i", 1, 0, 0, 0);
    }
}

/* Submits, and takes what has completed by now without waiting: all of it, where the kernel alone
 * would do with the first twenty (since 6.13) and the length of a turn depended on its version. */
static long take_all(int ring, long submit) {
    struct timespec none = {0, 0};
    struct io_uring_getevents_arg no_time = {.ts = (uint64_t)(uintptr_t)&none};
    long taken = raw(SYS_io_uring_enter, ring, submit, 1 << 20,
                     IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (long)&no_time, sizeof no_time);
    return taken == -ETIME ? 0 : taken;
}

static int is_ready(int ring) {
    struct pollfd one = {.fd = ring, .events = POLLIN};
    struct timespec none = {0, 0};
    return raw(SYS_ppoll, (long)&one, 1, (long)&none, 0, 0, 0) == 1;
}

/* io_uring_enter that would wait for completions, of any thread. */
static long wait_for_one(int ring, unsigned submit, unsigned flags, long argument) {
    struct timespec *time = NULL;
    int turns = is_core();
    if (flags & IORING_ENTER_EXT_ARG)
        time = (struct timespec *)((struct io_uring_getevents_arg *)argument)->ts;
    long taken = take_all(ring, submit);
    if (taken < 0)
        return taken;
    while (!is_ready(ring)) {
        if (turns && stands_still) {
            if (stand() && time)
                return taken ? taken : -ETIME;
        } else {
            struct pollfd both[] = {{ring, POLLIN, 0}, {gate, POLLIN, 0}};
            long count = raw(SYS_ppoll, (long)both, 1 + turns, (long)time, 0, 0, 0);
            if (count == 0)
                return taken ? taken : -ETIME;
            if (count < 0)
                return taken ? taken : count;
            if (turns && both[1].revents)
                stands_still = word() == 'l';
        }
        take_all(ring, 0);
    }
    return taken;
}

long syscall(long number, ...) {
    va_list words;
    va_start(words, number);
    long a = va_arg(words, long), b = va_arg(words, long), c = va_arg(words, long);
    long d = va_arg(words, long), e = va_arg(words, long), f = va_arg(words, long);
    va_end(words);
    int waits = number == SYS_io_uring_enter && c > 0 && (d & IORING_ENTER_GETEVENTS);
    long result = waits ? wait_for_one(a, b, d, e) : raw(number, a, b, c, d, e, f);
    if (result < 0 && result > -4096) {
        errno = -result;
        return -1;
    }
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int stands = stands_still && clock >= 0 && clock < CLOCKS && core == this_thread();
    if (stands && is_stopped[clock]) {
        *time = stopped[clock];
        return 0;
    }
    long result = raw(SYS_clock_gettime, clock, (long)time, 0, 0, 0, 0);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    if (stands) {
        stopped[clock] = *time;
        is_stopped[clock] = 1;
    }
    return 0;
}
