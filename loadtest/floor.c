/* The floor of a proxy on io_uring: what Linux alone asks for a request, with nothing of ours.
 *
 * One thread, one ring, level rounds over the backends, kept connections on both sides. For each
 * request it does the operations of the ring that Ringway does: it polls the client, sends the
 * request, receives the answer (posted before the request is sent), sends the answer. It checks
 * nothing, adds no field, has no timeout and logs nothing, so no proxy can cost less in this way.
 * Longer answers go piece by piece; of those above SPLICE bytes the rest goes by splice(2).
 *
 *     floor HOST PORT BACKEND-HOST BACKEND-PORT...          ends by SIGTERM
 *
 * What is tried is a word that is defined when it is compiled (`loadtest/run --floor WORD`):
 *
 *     POLL_FIRST   a receive waits first: it knows that nothing is there
 *     RECEIVE      clients that are awaited are received from, not polled
 *     MULTISHOT    one receive of a backend is for all its answers; buffers come from a ring
 *     FIXED        all descriptors are registered with the ring
 *     NO_ARRAY     the ring of submissions has no array of indices
 *     COOP         completions need an entry into the kernel, but no wait (COOP_TASKRUN)
 *     SEND_NOW     both sends are system calls
 *     QUICKACK     acknowledgements are not delayed; LATE_ACK: they are delayed as long as can be
 *     EAGER_POLL   the next request is polled for before the answer has been sent
 *     SKIP         a request that was sent whole has no completion
 *     ANSWERS      of what is ready in a turn, answers go on first; REQUESTS: requests do
 *     REGISTERED   answers are received into memory that the ring knows, and sent from there
 *     FEW_TURNS    a turn begins with eight completions, or 50 us after the first
 *     THIN, NOTSENT, INCOMING_CPU, BUSY_POLL    options of all sockets (`no_delay`)
 *     NAPI         the ring polls the device before it sleeps
 *     CUBIC, RENO  congestion control, instead of the machine's
 *     SMALL        rings of 256 and 1,024 entries
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef MULTISHOT
enum { SPLICE = 1 << 30 };
#else
enum { SPLICE = 128 << 10 };
#endif
#ifdef SMALL
enum { ENTRIES = 256 };
#else
enum { ENTRIES = 4096 };
#endif
enum { ROOMS = 4096, ROOM = 68 << 10, BACKENDS_MAX = 8 };

/* The ring. */

static struct {
    int fd;
    unsigned *sq_head, *sq_tail, *sq_mask, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned tail, owed; /* our tail of the submissions, and how many the kernel has not seen */
} ring;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *or_fail(void *memory, const char *what) {
    if (memory == MAP_FAILED || memory == NULL) fail(what);
    return memory;
}

static void ring_begin(void) {
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE
#ifdef COOP
            | IORING_SETUP_COOP_TASKRUN
#else
            | IORING_SETUP_DEFER_TASKRUN
#endif
#ifdef NO_ARRAY
            | (1u << 16) /* IORING_SETUP_NO_SQARRAY */
#endif
            ,
        .cq_entries = 4 * ENTRIES,
    };
    ring.fd = syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (ring.fd < 0) fail("io_uring_setup");
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    char *rings = or_fail(mmap(0, sq > cq ? sq : cq, prot, flags, ring.fd, IORING_OFF_SQ_RING), "mmap");
    ring.sqes = or_fail(mmap(0, p.sq_entries * sizeof(struct io_uring_sqe), prot, flags, ring.fd,
                             IORING_OFF_SQES), "mmap");
    ring.sq_head = (unsigned *)(rings + p.sq_off.head);
    ring.sq_tail = (unsigned *)(rings + p.sq_off.tail);
    ring.sq_mask = (unsigned *)(rings + p.sq_off.ring_mask);
    ring.cq_head = (unsigned *)(rings + p.cq_off.head);
    ring.cq_tail = (unsigned *)(rings + p.cq_off.tail);
    ring.cq_mask = (unsigned *)(rings + p.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
#ifndef NO_ARRAY
    unsigned *array = (unsigned *)(rings + p.sq_off.array);
    for (unsigned at = 0; at < p.sq_entries; at++) array[at] = at;
#endif
#ifdef NAPI
    struct { uint32_t us; uint8_t prefers, others[11]; } napi = {.us = 50, .prefers = 1};
    if (syscall(SYS_io_uring_register, ring.fd, 27 /* IORING_REGISTER_NAPI */, &napi, 1) < 0)
        fail("io_uring_register napi");
#endif
#ifdef FIXED
    struct io_uring_rsrc_register files = {.nr = 2 * 4096, .flags = IORING_RSRC_REGISTER_SPARSE};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES2, &files, sizeof files) < 0)
        fail("io_uring_register files");
#endif
}

/* Submits what is owed; waits for a completion if `wait`. */
static void ring_enter(int wait) {
    __atomic_store_n(ring.sq_tail, ring.tail, __ATOMIC_RELEASE);
#ifdef FEW_TURNS
    uint64_t most[2] = {1, 0}; /* seconds: without that, 50 us without any are an error */
    struct { uint64_t mask; uint32_t size, least_us; uint64_t most; } least =
        {.least_us = 50, .most = (uintptr_t)most};
    int done = syscall(SYS_io_uring_enter, ring.fd, ring.owed, wait ? 8 : 0,
                       IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &least, sizeof least);
#else
    int done = syscall(SYS_io_uring_enter, ring.fd, ring.owed, wait, IORING_ENTER_GETEVENTS, 0, 0);
#endif
    if (done >= 0) ring.owed -= done;
    else if (errno != EINTR && errno != EAGAIN && errno != EBUSY && errno != ETIME) fail("io_uring_enter");
}

static struct io_uring_sqe *ring_next(int op, int fd, void *what) {
    while (ring.tail - __atomic_load_n(ring.sq_head, __ATOMIC_ACQUIRE) > *ring.sq_mask) ring_enter(0);
    struct io_uring_sqe *sqe = &ring.sqes[ring.tail++ & *ring.sq_mask];
    ring.owed++;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = op;
    sqe->fd = fd;
#ifdef FIXED
    sqe->flags = IOSQE_FIXED_FILE; /* a descriptor's number is its place in the table */
#endif
    sqe->user_data = (uintptr_t)what;
    return sqe;
}

/* A descriptor from now on, until it is closed. */
static void known(int fd) {
#ifdef FIXED
    struct io_uring_rsrc_update2 one = {.offset = fd, .data = (uintptr_t)&fd, .nr = 1};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES_UPDATE2, &one, sizeof one) < 0)
        fail("io_uring_register update");
#else
    (void)fd;
#endif
}

static void forgotten(int fd) {
#ifdef FIXED
    int none = -1;
    struct io_uring_rsrc_update2 one = {.offset = fd, .data = (uintptr_t)&none, .nr = 1};
    syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES_UPDATE2, &one, sizeof one);
#endif
    close(fd);
}

#ifdef MULTISHOT
enum { BUFFERS = 4096, BUFFER = 16 << 10 };
static struct io_uring_buf_ring *buffers;
static char *buffers_at;
static unsigned short buffers_tail;

static void buffer_give(unsigned id) {
    struct io_uring_buf *one = &buffers->bufs[buffers_tail++ & (BUFFERS - 1)];
    one->addr = (uintptr_t)(buffers_at + (size_t)id * BUFFER);
    one->len = BUFFER;
    one->bid = id;
    __atomic_store_n(&buffers->tail, buffers_tail, __ATOMIC_RELEASE);
}

static void buffers_begin(void) {
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    buffers = or_fail(mmap(0, BUFFERS * sizeof(struct io_uring_buf), prot, flags, -1, 0), "mmap");
    buffers_at = or_fail(mmap(0, (size_t)BUFFERS * BUFFER, prot, flags, -1, 0), "mmap");
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)buffers, .ring_entries = BUFFERS};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0)
        fail("io_uring_register buffers");
    for (unsigned id = 0; id < BUFFERS; id++) buffer_give(id);
}
#endif

/* The two kinds of connections. What completes says by its lowest bits what it was. */

enum { POLLED, RECEIVED, SENT, SPLICED };

struct backend {
    int fd;
    unsigned server;
    struct client *client; /* whose answer it gets; none: it is idle */
    struct backend *next;  /* of those that are idle */
    int armed;             /* a multishot receive */
    unsigned got, given;   /* its pieces of the answer: how many, and how many have been sent */
    struct { unsigned short buffer; int len; } pieces[128];
    char room[ROOM];
};

struct client {
    int fd;
    struct backend *backend;
    char *room;              /* the request, while there is one */
    unsigned len, closes;
    uint64_t left;           /* bytes of the answer that have not been received */
    int has_head, awaited, pipe[2];
    unsigned piped;          /* bytes in the pipe */
    struct client *next;
};

static unsigned short servers[BACKENDS_MAX];
static unsigned servers_len, turn;
static in_addr_t servers_host;
static struct backend *idle[BACKENDS_MAX];
static struct client *clients;          /* unused */
static char *rooms[ROOMS];            /* unused */
static unsigned rooms_len;
static int listener;

#ifdef REGISTERED
enum { REGISTERED_MAX = 1024 };
static struct backend *spare[REGISTERED_MAX];
static unsigned spare_len;

static void registered_begin(void) {
    size_t one = (sizeof(struct backend) + 4095) & ~4095ul, all = one * REGISTERED_MAX;
    char *at = or_fail(mmap(0, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    struct iovec vec = {at, all};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &vec, 1) < 0)
        fail("io_uring_register memory");
    while (spare_len < REGISTERED_MAX) spare[spare_len] = (void *)(at + one * spare_len), spare_len++;
}

static struct backend *backend_new(void) {
    if (!spare_len) fail("memory is out");
    return spare[--spare_len];
}

static void backend_free(struct backend *backend) { spare[spare_len++] = backend; }
#else
static struct backend *backend_new(void) {
    return or_fail(aligned_alloc(64, (sizeof(struct backend) + 63) & ~63ul), "malloc");
}

static void backend_free(struct backend *backend) { free(backend); }
#endif

static void *as(void *what, unsigned kind) { return (char *)what + kind; }

static void post_poll(int fd, void *what) {
    ring_next(IORING_OP_POLL_ADD, fd, what)->poll32_events = POLLIN;
}

static void post_receive(struct backend *backend) {
#ifdef MULTISHOT
    if (backend->armed) return;
    backend->armed = 1;
    struct io_uring_sqe *sqe = ring_next(IORING_OP_RECV, backend->fd, as(backend, RECEIVED));
    sqe->ioprio = IORING_RECV_MULTISHOT | IORING_RECVSEND_POLL_FIRST;
    sqe->flags |= IOSQE_BUFFER_SELECT;
#else
#ifdef REGISTERED
    struct io_uring_sqe *sqe = ring_next(IORING_OP_READ_FIXED, backend->fd, as(backend, RECEIVED));
#else
    struct io_uring_sqe *sqe = ring_next(IORING_OP_RECV, backend->fd, as(backend, RECEIVED));
#endif
    sqe->addr = (uintptr_t)backend->room;
    sqe->len = 64 << 10;
#ifdef POLL_FIRST
    sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
#endif
#endif
}

static void complete(uint64_t what, int result, unsigned flags);

static void post_send(int fd, const char *bytes, unsigned len, void *what) {
#ifdef SEND_NOW
    int sent = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (int)len) return complete((uintptr_t)what, sent, 0);
#endif
#ifdef REGISTERED
    if (((uintptr_t)what & 7) == SENT) {
        struct io_uring_sqe *sqe = ring_next(IORING_OP_WRITE_FIXED, fd, what);
        sqe->addr = (uintptr_t)bytes;
        sqe->len = len;
        return;
    }
#endif
    struct io_uring_sqe *sqe = ring_next(IORING_OP_SEND, fd, what);
    sqe->addr = (uintptr_t)bytes;
    sqe->len = len;
    sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
#ifdef SKIP
    if (((uintptr_t)what & 7) == POLLED + 4) sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
#endif
}

static void no_delay(int fd) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
#ifdef THIN
    setsockopt(fd, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, &(int){1}, sizeof(int));
    setsockopt(fd, IPPROTO_TCP, TCP_THIN_DUPACK, &(int){1}, sizeof(int));
#endif
#ifdef NOTSENT
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){16384}, sizeof(int));
#endif
#ifdef INCOMING_CPU
    setsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &(int){0}, sizeof(int));
#endif
#ifdef BUSY_POLL
    setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &(int){50}, sizeof(int));
    setsockopt(fd, SOL_SOCKET, 69 /* SO_PREFER_BUSY_POLL */, &(int){1}, sizeof(int));
#endif
#ifdef CUBIC
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
#endif
#ifdef RENO
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
#endif
#ifdef REGISTERED
    fcntl(fd, F_SETFL, 0); /* a read that would wait then waits */
#endif
#ifdef QUICKACK
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
#endif
#ifdef LATE_ACK
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){0}, sizeof(int));
#endif
    known(fd);
}

static struct backend *backend_for(unsigned server) {
    struct backend *backend = idle[server];
    if (backend) {
        idle[server] = backend->next;
        return backend;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(servers[server]),
                             .sin_addr.s_addr = servers_host};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    no_delay(fd);
#ifndef REGISTERED
    fcntl(fd, F_SETFL, O_NONBLOCK);
#endif
    backend = backend_new();
    memset(backend, 0, offsetof(struct backend, room));
    backend->fd = fd, backend->server = server;
    post_receive(backend);
    return backend;
}

static void client_end(struct client *client) {
    forgotten(client->fd);
    if (client->pipe[1]) close(client->pipe[0]), close(client->pipe[1]);
    if (client->room) rooms[rooms_len++] = client->room;
    client->next = clients;
    clients = client;
}

/* The client has left in its answer: what is left of that is no use to another. */
static void abandon(struct client *client) {
    struct backend *backend = client->backend;
    backend->client = NULL;
    if (backend->armed) {
        shutdown(backend->fd, SHUT_RDWR); /* its receive ends, and it with that */
    } else {
        forgotten(backend->fd);
        backend_free(backend);
    }
    client_end(client);
}

/* Awaits the next request, or more of it. */
static void await_request(struct client *client);

/* The answer has been sent. */
static void answered(struct client *client) {
    struct backend *backend = client->backend;
    client->backend = NULL;
    backend->client = NULL;
    backend->next = idle[backend->server];
    idle[backend->server] = backend;
#ifndef RECEIVE
    rooms[rooms_len++] = client->room;
    client->room = NULL;
#endif
    client->len = client->has_head = 0;
    if (client->closes) client_end(client);
    else if (!client->awaited) await_request(client);
}

/* Takes a line out of the head, so that a backend keeps its connection. */
static int drop(struct client *client, const char *line) {
    char *at = memmem(client->room, client->len, line, strlen(line));
    if (!at) return 0;
    char *end = at + strlen(line);
    memmove(at, end, client->room + client->len - end);
    client->len -= end - at;
    return 1;
}

static void await_request(struct client *client) {
    client->awaited = 1;
#ifdef RECEIVE
    if (!client->room)
        client->room = rooms_len ? rooms[--rooms_len] : or_fail(malloc(ROOM), "malloc");
    struct io_uring_sqe *sqe = ring_next(IORING_OP_RECV, client->fd, as(client, POLLED));
    sqe->addr = (uintptr_t)(client->room + client->len);
    sqe->len = (64 << 10) - client->len;
    sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
#else
    post_poll(client->fd, as(client, POLLED));
#endif
}

static void client_ready(struct client *client, ssize_t got) {
    client->awaited = 0;
#ifndef RECEIVE
    if (!client->room)
        client->room = rooms_len ? rooms[--rooms_len] : or_fail(malloc(ROOM), "malloc");
    got = recv(client->fd, client->room + client->len, (64 << 10) - client->len, MSG_DONTWAIT);
    if (got < 0) got = -errno;
#endif
    if (got <= 0 && got != -EAGAIN) return client_end(client);
    if (got > 0) client->len += got;
    if (client->len < 4 || !memmem(client->room, client->len, "\r\n\r\n", 4))
        return await_request(client);
    client->closes = drop(client, "Connection: close\r\n");
    struct backend *backend = backend_for(turn++ % servers_len);
    backend->client = client;
    client->backend = backend;
    post_send(backend->fd, client->room, client->len, as(client, POLLED + 4));
}

/* Moves what has come by splice(2), as far as it goes now. */
static void splice_on(struct client *client) {
    struct backend *backend = client->backend;
    unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    if (!client->pipe[1]) {
        if (pipe2(client->pipe, O_NONBLOCK | O_CLOEXEC)) fail("pipe2");
        fcntl(client->pipe[1], F_SETPIPE_SZ, 1 << 20);
    }
    for (;;) {
        ssize_t in = client->left == 0 ? 0
            : splice(backend->fd, 0, client->pipe[1], 0, client->left, flags);
        if (in > 0) client->left -= in, client->piped += in;
        if (!client->piped) {
            if (client->left == 0) {
                post_receive(backend);
                return answered(client);
            }
            return post_poll(backend->fd, as(client, SPLICED));
        }
        ssize_t out = splice(client->pipe[0], 0, client->fd, 0, client->piped,
                             flags | (client->left ? SPLICE_F_MORE : 0));
        if (out > 0) client->piped -= out;
        else if (out < 0 && errno == EAGAIN) {
            ring_next(IORING_OP_POLL_ADD, client->fd, as(client, SPLICED))->poll32_events = POLLOUT;
            return;
        } else return abandon(client);
    }
}

static void backend_received(struct backend *backend, int got, unsigned flags) {
    struct client *client = backend->client;
    char *room = backend->room;
#ifdef MULTISHOT
    int is_first = backend->got == backend->given;
    if (flags & IORING_CQE_F_BUFFER) {
        unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
        room = buffers_at + (size_t)buffer * BUFFER;
        if (client) {
            backend->pieces[backend->got % 128].buffer = buffer;
            backend->pieces[backend->got++ % 128].len = got;
        } else buffer_give(buffer);
    }
    if (!(flags & IORING_CQE_F_MORE)) backend->armed = 0;
    if (backend->armed && !client) return;
    if (client && got == -ENOBUFS) return post_receive(backend);
#else
    (void)flags;
#endif
    if (!client || got <= 0) {
        if (client) fail("a backend has ended in an answer");
        for (struct backend **it = &idle[backend->server]; *it; it = &(*it)->next)
            if (*it == backend) {
                *it = backend->next;
                break;
            }
        forgotten(backend->fd);
        backend_free(backend);
        return;
    }
    if (!client->has_head) {
        char *end = memmem(room, got, "\r\n\r\n", 4);
        char *length = memmem(room, got, "Content-Length: ", 16);
        if (!end || !length) fail("an answer that is not nginx's");
        client->left = end + 4 - room + strtoull(length + 16, NULL, 10);
        client->has_head = 1;
        char *kept = client->closes ? memmem(room, got, "Connection: keep-alive", 22) : 0;
        if (kept) memcpy(kept, "Connection: close     ", 22);
    }
    client->left -= got;
#ifdef EAGER_POLL
    if (client->left == 0 && !client->closes) await_request(client);
#endif
#ifdef MULTISHOT
    if (!is_first) return;
#endif
    post_send(client->fd, room, got, as(client, SENT));
}

static void client_sent(struct client *client, int sent) {
#ifdef MULTISHOT
    struct backend *from = client->backend;
    buffer_give(from->pieces[from->given++ % 128].buffer);
#endif
    if (sent <= 0) return abandon(client);
#ifdef MULTISHOT
    if (from->given != from->got) {
        unsigned next = from->given % 128;
        char *room = buffers_at + (size_t)from->pieces[next].buffer * BUFFER;
        return post_send(client->fd, room, from->pieces[next].len, as(client, SENT));
    }
#endif
    if (client->left >= SPLICE) return splice_on(client);
    post_receive(client->backend);
    if (client->left == 0) answered(client);
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) break;
        no_delay(fd);
        struct client *client = clients;
        if (client) clients = client->next;
        else client = or_fail(aligned_alloc(64, (sizeof *client + 63) & ~63ul), "malloc");
        *client = (struct client){.fd = fd};
        await_request(client);
    }
    post_poll(listener, NULL);
}

static void complete(uint64_t what, int result, unsigned flags) {
    if (!what) return accept_all();
    void *it = (void *)(uintptr_t)(what & ~7ull);
    switch (what & 7) {
    case POLLED: return client_ready(it, result);
    case RECEIVED: return backend_received(it, result, flags);
    case SENT: return client_sent(it, result);
    case SPLICED: return splice_on(it);
    default: /* the request has been sent */ return;
    }
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 4 + BACKENDS_MAX) {
        fputs("floor HOST PORT BACKEND-HOST BACKEND-PORT...\n", stderr);
        return 2;
    }
    servers_host = inet_addr(argv[3]);
    for (int at = 4; at < argc; at++) servers[servers_len++] = atoi(argv[at]);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])),
                             .sin_addr.s_addr = inet_addr(argv[1])};
    if (bind(listener, (struct sockaddr *)&at, sizeof at)) fail("bind");
    if (listen(listener, 4096)) fail("listen");
    signal(SIGPIPE, SIG_IGN);
    ring_begin();
    known(listener);
#ifdef MULTISHOT
    buffers_begin();
#endif
#ifdef REGISTERED
    registered_begin();
#endif
    post_poll(listener, NULL);
    for (;;) {
        ring_enter(1);
#if defined ANSWERS || defined REQUESTS
        /* Completions of one kind first: what it hands to the kernel goes in that order. */
        static struct io_uring_cqe all[4 * ENTRIES];
        unsigned len = 0, at = *ring.cq_head;
        for (; at != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE); at++)
            all[len++] = ring.cqes[at & *ring.cq_mask];
        __atomic_store_n(ring.cq_head, at, __ATOMIC_RELEASE);
        for (int now = 1; now >= 0; now--)
            for (unsigned it = 0; it < len; it++)
#ifdef ANSWERS
                if (((all[it].user_data & 7) == RECEIVED) == now)
#else
                if (((all[it].user_data & 7) == POLLED) == now)
#endif
                    complete(all[it].user_data, all[it].res, all[it].flags);
        continue;
#endif
        unsigned head = *ring.cq_head;
        for (; head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE); head++) {
            struct io_uring_cqe cqe = ring.cqes[head & *ring.cq_mask];
            __atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
            complete(cqe.user_data, cqe.res, cqe.flags);
        }
    }
}
