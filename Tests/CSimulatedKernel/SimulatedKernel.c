#define _GNU_SOURCE
#include "CSimulatedKernel.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TABLE = 1024, EVENTS = 256 };

typedef struct {
    uint8_t *bytes;
    size_t start, count, arrived;
    int end_queued, reset_queued, end_arrived, reset_arrived;
} way_t;

typedef struct {
    int is_used, is_told, is_established, is_refused, is_peer_closed, is_write_ended, capacity_reached;
    int descriptor, error;
    uint32_t address;
    uint16_t port;
    size_t capacity;
    way_t in, out;
    /// What its socket was closed with.
    int end;
} connection_t;

typedef enum { FREE, SOCKET, LISTENER, CONNECTED, EPOLL, WAKEUP } kind_t;

typedef struct {
    kind_t kind;
    int connection;
    uint16_t port;
    uint64_t count;
    int backlog[APUS_SIM_CONNECTIONS], backlog_count, lingers_with_reset;
    // In the epoll.
    int is_watched, is_edge, is_triggered;
    uint32_t interest;
    uint64_t token;
} slot_t;

static struct {
    slot_t slots[TABLE];
    connection_t connections[APUS_SIM_CONNECTIONS];
    int connection_count, next_told;
    uint16_t next_port;
    int64_t now, deadline;
    uint64_t random;
    /// The thread under test: waiting in epoll_wait, and let go again.
    int is_parked, may_run, epoll;
} kernel;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static __thread int is_inside;

// The C library's own. Looked up before main, because a process that was forked may not do so.

#define FOR_EACH_CALL(DO) \
    DO(accept4) DO(bind) DO(clock_gettime) DO(close) DO(connect) DO(epoll_create1) \
    DO(epoll_ctl) DO(epoll_wait) DO(eventfd) DO(getsockname) DO(getsockopt) DO(listen) \
    DO(pthread_create) DO(read) DO(recv) DO(send) DO(sendmsg) DO(setsockopt) \
    DO(shutdown) DO(socket) DO(syscall) DO(write)

#define DECLARE(name) static void *real_##name;
FOR_EACH_CALL(DECLARE)
#define LOOK_UP(name) real_##name = dlsym(RTLD_NEXT, #name);
__attribute__((constructor)) static void look_up(void) { FOR_EACH_CALL(LOOK_UP) }

static void *looked_up(void **pointer) {
    if (*pointer == NULL) look_up();
    return *pointer;
}

#define REAL(name) ((__typeof__(&name))looked_up(&real_##name))

static uint64_t next_random(void) {
    kernel.random = kernel.random * 6364136223846793005u + 1442695040888963407u;
    return kernel.random >> 33;
}

// MARK: Slots

static slot_t *slot_of(int descriptor) {
    if (!is_inside || descriptor < APUS_SIM_FIRST || descriptor >= APUS_SIM_FIRST + TABLE) return NULL;
    slot_t *slot = &kernel.slots[descriptor - APUS_SIM_FIRST];
    return slot->kind == FREE ? NULL : slot;
}

static int make_slot(kind_t kind) {
    for (int index = 0; index < TABLE; index++) {
        if (kernel.slots[index].kind != FREE) continue;
        memset(&kernel.slots[index], 0, sizeof kernel.slots[index]);
        kernel.slots[index].kind = kind;
        kernel.slots[index].connection = -1;
        return APUS_SIM_FIRST + index;
    }
    errno = EMFILE;
    return -1;
}

static connection_t *connection_of(const slot_t *slot) {
    return slot->kind == CONNECTED && slot->connection >= 0 ? &kernel.connections[slot->connection] : NULL;
}

static size_t room(const connection_t *connection, const way_t *way) {
    return way->count < connection->capacity ? connection->capacity - way->count : 0;
}

static void append(way_t *way, const void *bytes, size_t count) {
    uint8_t *larger = malloc(way->count + count + 1);
    if (way->count > 0) memcpy(larger, way->bytes + way->start, way->count);
    if (count > 0) memcpy(larger + way->count, bytes, count);
    free(way->bytes);
    way->bytes = larger;
    way->start = 0;
    way->count += count;
}

static size_t take(way_t *way, void *bytes, size_t count) {
    memcpy(bytes, way->bytes + way->start, count);
    way->start += count;
    way->count -= count;
    return count;
}

static uint32_t readiness(const slot_t *slot) {
    if (slot->kind == WAKEUP) return slot->count > 0 ? EPOLLIN : 0;
    if (slot->kind == LISTENER) return slot->backlog_count > 0 ? EPOLLIN : 0;
    const connection_t *connection = connection_of(slot);
    if (connection == NULL) return EPOLLOUT | EPOLLHUP;
    uint32_t mask = 0;
    if (connection->is_refused) return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    if (!connection->is_established) return 0;
    const way_t *in = &connection->in;
    if (in->arrived > 0 || in->end_arrived || in->reset_arrived) mask |= EPOLLIN;
    if (in->end_arrived) mask |= EPOLLRDHUP;
    if (in->reset_arrived) mask |= EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLOUT;
    if (in->end_arrived && connection->is_write_ended) mask |= EPOLLHUP;
    if (room(connection, &connection->out) > 0) mask |= EPOLLOUT;
    return mask;
}

/// Something about the connection has changed: an edge.
static void trigger(int connection) {
    int descriptor = kernel.connections[connection].descriptor;
    if (descriptor >= 0) kernel.slots[descriptor - APUS_SIM_FIRST].is_triggered = 1;
}

static uint32_t event_of(const slot_t *slot) {
    if (slot->kind == FREE || !slot->is_watched || (slot->is_edge && !slot->is_triggered)) return 0;
    return readiness(slot) & (slot->interest | EPOLLERR | EPOLLHUP);
}

static int has_event(void) {
    for (int index = 0; index < TABLE; index++) {
        if (event_of(&kernel.slots[index]) != 0) return 1;
    }
    return 0;
}

static int is_due(void) { return kernel.is_parked && (has_event() || kernel.now >= kernel.deadline); }

// MARK: The system calls

#define WITH_LOCK(body)            \
    do {                           \
        pthread_mutex_lock(&lock); \
        body;                      \
        pthread_mutex_unlock(&lock); \
    } while (0)

int epoll_create1(int flags) {
    if (!is_inside) return REAL(epoll_create1)(flags);
    WITH_LOCK(kernel.epoll = make_slot(EPOLL));
    return kernel.epoll;
}

int eventfd(unsigned int count, int flags) {
    if (!is_inside) return ((int (*)(unsigned int, int))looked_up(&real_eventfd))(count, flags);
    int descriptor;
    WITH_LOCK(descriptor = make_slot(WAKEUP));
    return descriptor;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    slot_t *slot = slot_of(descriptor);
    // A loop is woken from threads that have not entered, too.
    if (slot == NULL && descriptor >= APUS_SIM_FIRST && descriptor < APUS_SIM_FIRST + TABLE && count == sizeof(uint64_t)
        && kernel.slots[descriptor - APUS_SIM_FIRST].kind == WAKEUP)
        slot = &kernel.slots[descriptor - APUS_SIM_FIRST];
    if (slot == NULL || slot->kind != WAKEUP) return REAL(write)(descriptor, bytes, count);
    WITH_LOCK(slot->count += 1);
    return (ssize_t)count;
}

ssize_t read(int descriptor, void *bytes, size_t count) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL || slot->kind != WAKEUP) return REAL(read)(descriptor, bytes, count);
    WITH_LOCK(memcpy(bytes, &slot->count, sizeof slot->count); slot->count = 0);
    return sizeof(uint64_t);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    slot_t *slot = slot_of(descriptor);
    if (slot_of(epoll) == NULL || slot == NULL) return REAL(epoll_ctl)(epoll, operation, descriptor, event);
    pthread_mutex_lock(&lock);
    if (operation == EPOLL_CTL_ADD) {
        slot->is_watched = 1;
        slot->is_edge = (event->events & EPOLLET) != 0;
        slot->is_triggered = readiness(slot) != 0;
    }
    slot->interest = event->events & ~(uint32_t)EPOLLET;
    slot->token = event->data.u64;
    pthread_mutex_unlock(&lock);
    return 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout) {
    if (slot_of(epoll) == NULL) return REAL(epoll_wait)(epoll, events, capacity, timeout);
    pthread_mutex_lock(&lock);
    kernel.deadline = timeout < 0 ? INT64_MAX : kernel.now + (int64_t)timeout * 1000000;
    kernel.is_parked = 1;
    kernel.may_run = 0;
    pthread_cond_broadcast(&changed);
    while (!kernel.may_run) pthread_cond_wait(&changed, &lock);
    kernel.is_parked = 0;
    int count = 0;
    for (int index = 0; index < TABLE && count < capacity; index++) {
        slot_t *slot = &kernel.slots[index];
        uint32_t mask = event_of(slot);
        if (mask == 0) continue;
        slot->is_triggered = 0;
        events[count].events = mask;
        events[count].data.u64 = slot->token;
        count++;
    }
    for (int index = count - 1; index > 0; index--) {
        int other = (int)(next_random() % (uint64_t)(index + 1));
        struct epoll_event held = events[index];
        events[index] = events[other];
        events[other] = held;
    }
    pthread_mutex_unlock(&lock);
    return count;
}

int socket(int family, int type, int protocol) {
    if (!is_inside) return REAL(socket)(family, type, protocol);
    int descriptor;
    WITH_LOCK(descriptor = make_slot(SOCKET));
    return descriptor;
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(bind)(descriptor, address, length);
    slot->port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (slot->port == 0) WITH_LOCK(slot->port = kernel.next_port++);
    return 0;
}

int listen(int descriptor, int backlog) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(listen)(descriptor, backlog);
    slot->kind = LISTENER;
    return 0;
}

static void fill(struct sockaddr *address, socklen_t *length, uint32_t host, uint16_t port) {
    struct sockaddr_in whole = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
    socklen_t count = *length < sizeof whole ? *length : sizeof whole;
    memcpy(address, &whole, count);
    *length = sizeof whole;
}

int accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(accept4)(descriptor, address, length, flags);
    pthread_mutex_lock(&lock);
    int accepted = -1;
    if (slot->backlog_count == 0) {
        errno = EAGAIN;
    } else if ((accepted = make_slot(CONNECTED)) >= 0) {
        int connection = slot->backlog[0];
        memmove(slot->backlog, slot->backlog + 1, (size_t)--slot->backlog_count * sizeof(int));
        kernel.slots[accepted - APUS_SIM_FIRST].connection = connection;
        kernel.slots[accepted - APUS_SIM_FIRST].port = slot->port;
        kernel.connections[connection].descriptor = accepted;
        fill(address, length, 0x7f000001, (uint16_t)(20000 + connection));
    }
    pthread_mutex_unlock(&lock);
    return accepted;
}

static int make_connection(uint32_t address, uint16_t port) {
    if (kernel.connection_count == APUS_SIM_CONNECTIONS) return -1;
    connection_t *connection = &kernel.connections[kernel.connection_count];
    memset(connection, 0, sizeof *connection);
    connection->is_used = 1;
    connection->descriptor = -1;
    connection->capacity = 65536;
    connection->address = address;
    connection->port = port;
    return kernel.connection_count++;
}

int connect(int descriptor, const struct sockaddr *address, socklen_t length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(connect)(descriptor, address, length);
    const struct sockaddr_in *to = (const struct sockaddr_in *)address;
    pthread_mutex_lock(&lock);
    int connection = make_connection(ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
    if (connection < 0) {
        errno = ENETUNREACH;
    } else {
        slot->kind = CONNECTED;
        slot->connection = connection;
        kernel.connections[connection].descriptor = descriptor;
        errno = EINPROGRESS;
    }
    pthread_mutex_unlock(&lock);
    return -1;
}

static ssize_t receive(connection_t *connection, void *bytes, size_t count, int flags) {
    way_t *in = &connection->in;
    if (connection->is_refused && connection->error != 0) {
        errno = connection->error;
        connection->error = 0;
        return -1;
    }
    if (in->arrived > 0) {
        size_t taken = count < in->arrived ? count : in->arrived;
        if (flags & MSG_PEEK) {
            memcpy(bytes, in->bytes + in->start, taken);
        } else {
            take(in, bytes, taken);
            in->arrived -= taken;
        }
        return (ssize_t)taken;
    }
    if (in->reset_arrived) {
        if (connection->error == 0) return 0;
        errno = connection->error;
        if (!(flags & MSG_PEEK)) connection->error = 0;
        return -1;
    }
    if (in->end_arrived) return 0;
    errno = EAGAIN;
    return -1;
}

ssize_t recv(int descriptor, void *bytes, size_t count, int flags) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(recv)(descriptor, bytes, count, flags);
    connection_t *connection = connection_of(slot);
    if (connection == NULL) {
        errno = ENOTCONN;
        return -1;
    }
    ssize_t result;
    WITH_LOCK(result = receive(connection, bytes, count, flags));
    return result;
}

static ssize_t transmit(connection_t *connection, const void *bytes, size_t count) {
    if (connection->is_write_ended || (connection->in.reset_arrived && connection->error == 0)) {
        errno = EPIPE;
        return -1;
    }
    if (connection->in.reset_arrived || connection->is_refused) {
        errno = connection->error != 0 ? connection->error : EPIPE;
        connection->error = 0;
        return -1;
    }
    size_t space = connection->is_established ? room(connection, &connection->out) : 0;
    size_t taken = count < space ? count : space;
    if (taken == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (connection->is_peer_closed) {
        connection->in.reset_queued = 1;
    } else {
        append(&connection->out, bytes, taken);
    }
    return (ssize_t)taken;
}

ssize_t send(int descriptor, const void *bytes, size_t count, int flags) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(send)(descriptor, bytes, count, flags);
    connection_t *connection = connection_of(slot);
    if (connection == NULL) {
        errno = EPIPE;
        return -1;
    }
    ssize_t result;
    WITH_LOCK(result = transmit(connection, bytes, count));
    return result;
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    if (slot_of(descriptor) == NULL) return REAL(sendmsg)(descriptor, message, flags);
    ssize_t total = 0;
    for (size_t index = 0; index < message->msg_iovlen; index++) {
        const struct iovec *piece = &message->msg_iov[index];
        if (piece->iov_len == 0) continue;
        ssize_t sent = send(descriptor, piece->iov_base, piece->iov_len, flags);
        if (sent < 0) return total > 0 ? total : sent;
        total += sent;
        if ((size_t)sent < piece->iov_len) break;
    }
    return total;
}

int shutdown(int descriptor, int how) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(shutdown)(descriptor, how);
    connection_t *connection = connection_of(slot);
    if (connection == NULL || !connection->is_established || connection->in.reset_arrived) {
        errno = ENOTCONN;
        return -1;
    }
    pthread_mutex_lock(&lock);
    connection->is_write_ended = 1;
    connection->out.end_queued = 1;
    trigger(slot->connection);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void close_slot(slot_t *slot) {
    connection_t *connection = connection_of(slot);
    if (connection != NULL) {
        int is_reset = slot->lingers_with_reset || connection->in.arrived > 0 || connection->in.reset_arrived;
        connection->end = is_reset ? APUS_SIM_RESET : APUS_SIM_FINISHED;
        if (is_reset) connection->out.count = 0;
        connection->descriptor = -1;
        connection->is_write_ended = 1;
        connection->in.count = connection->in.arrived = 0;
    }
    for (int index = 0; slot->kind == LISTENER && index < slot->backlog_count; index++) {
        kernel.connections[slot->backlog[index]].end = APUS_SIM_RESET;
    }
    slot->kind = FREE;
}

int close(int descriptor) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL && descriptor >= APUS_SIM_FIRST && descriptor < APUS_SIM_FIRST + TABLE
        && kernel.slots[descriptor - APUS_SIM_FIRST].kind != FREE)
        slot = &kernel.slots[descriptor - APUS_SIM_FIRST];
    if (slot == NULL) return REAL(close)(descriptor);
    WITH_LOCK(close_slot(slot));
    return 0;
}

int setsockopt(int descriptor, int level, int name, const void *value, socklen_t length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(setsockopt)(descriptor, level, name, value, length);
    if (level == SOL_SOCKET && name == SO_LINGER) slot->lingers_with_reset = 1;
    return 0;
}

int getsockopt(int descriptor, int level, int name, void *value, socklen_t *length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(getsockopt)(descriptor, level, name, value, length);
    if (level != SOL_SOCKET || name != SO_ERROR) {
        errno = ENOPROTOOPT;
        return -1;
    }
    connection_t *connection = connection_of(slot);
    *(int *)value = connection == NULL ? 0 : connection->error;
    if (connection != NULL) connection->error = 0;
    return 0;
}

int getsockname(int descriptor, struct sockaddr *address, socklen_t *length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(getsockname)(descriptor, address, length);
    fill(address, length, 0x7f000001, slot->port);
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!is_inside || clock != CLOCK_MONOTONIC) return REAL(clock_gettime)(clock, time);
    time->tv_sec = kernel.now / 1000000000;
    time->tv_nsec = kernel.now % 1000000000;
    return 0;
}

/// The runtime asks for random numbers by number of the call: those of the simulation are the seed's.
long syscall(long number, ...) {
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (int index = 0; index < 6; index++) arguments[index] = va_arg(list, long);
    va_end(list);
    if (is_inside && number == SYS_getrandom && arguments[0] != 0) {
        pthread_mutex_lock(&lock);
        for (long index = 0; index < arguments[1]; index++) ((uint8_t *)arguments[0])[index] = (uint8_t)next_random();
        pthread_mutex_unlock(&lock);
        return arguments[1];
    }
    return REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

typedef struct {
    void *(*body)(void *);
    void *argument;
} start_t;

static void *run_inside(void *argument) {
    start_t start = *(start_t *)argument;
    free(argument);
    is_inside = 1;
    return start.body(start.argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    if (!is_inside) return REAL(pthread_create)(thread, attributes, body, argument);
    start_t *start = malloc(sizeof *start);
    start->body = body;
    start->argument = argument;
    return REAL(pthread_create)(thread, attributes, run_inside, start);
}

// MARK: The scheduler's side

void apus_sim_begin(uint64_t seed, int64_t now) {
    pthread_mutex_lock(&lock);
    for (int index = 0; index < kernel.connection_count; index++) {
        free(kernel.connections[index].in.bytes);
        free(kernel.connections[index].out.bytes);
    }
    memset(&kernel, 0, sizeof kernel);
    kernel.random = seed;
    kernel.now = now;
    kernel.next_port = 40000;
    pthread_mutex_unlock(&lock);
}

void apus_sim_enter(void) { is_inside = 1; }
void apus_sim_leave(void) { is_inside = 0; }
int64_t apus_sim_now(void) { return kernel.now; }

#define LOCKED(type, expression) \
    type result; \
    WITH_LOCK(result = (expression)); \
    return result

void apus_sim_advance(int64_t now) { WITH_LOCK(if (now > kernel.now) kernel.now = now); }
int apus_sim_is_parked(void) { LOCKED(int, kernel.is_parked); }
int apus_sim_is_due(void) { LOCKED(int, is_due()); }
int64_t apus_sim_deadline(void) { LOCKED(int64_t, kernel.is_parked ? kernel.deadline : INT64_MAX); }

static int has_ended(void) { return kernel.slots[kernel.epoll >= APUS_SIM_FIRST ? kernel.epoll - APUS_SIM_FIRST : 0].kind == FREE; }

static int await_park(void) {
    struct timespec until;
    REAL(clock_gettime)(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    while (!kernel.is_parked && !has_ended()) {
        struct timespec step;
        REAL(clock_gettime)(CLOCK_REALTIME, &step);
        if (step.tv_sec >= until.tv_sec) return 0;
        // The end of a thread is told by nobody.
        step.tv_nsec += 2000000;
        if (step.tv_nsec >= 1000000000) {
            step.tv_nsec -= 1000000000;
            step.tv_sec += 1;
        }
        pthread_cond_timedwait(&changed, &lock, &step);
    }
    return 1;
}

int apus_sim_await_park(void) { LOCKED(int, await_park()); }

int apus_sim_run(void) {
    pthread_mutex_lock(&lock);
    kernel.may_run = 1;
    kernel.is_parked = 0;
    pthread_cond_broadcast(&changed);
    int result = await_park();
    pthread_mutex_unlock(&lock);
    return result;
}

int apus_sim_descriptors(void) {
    int count = 0;
    WITH_LOCK(for (int index = 0; index < TABLE; index++) count += kernel.slots[index].kind != FREE);
    return count;
}

static int dial(uint16_t port) {
    for (int index = 0; index < TABLE; index++) {
        slot_t *slot = &kernel.slots[index];
        if (slot->kind != LISTENER || slot->port != port || slot->backlog_count == APUS_SIM_CONNECTIONS) continue;
        int connection = make_connection(0x7f000001, port);
        if (connection < 0) return -1;
        kernel.connections[connection].is_told = 1;
        kernel.connections[connection].is_established = 1;
        slot->backlog[slot->backlog_count++] = connection;
        return connection;
    }
    return -1;
}

int apus_sim_dial(uint16_t port) { LOCKED(int, dial(port)); }

static int next_connect(uint32_t *address, uint16_t *port) {
    while (kernel.next_told < kernel.connection_count) {
        connection_t *connection = &kernel.connections[kernel.next_told++];
        if (connection->is_told) continue;
        connection->is_told = 1;
        *address = connection->address;
        *port = connection->port;
        return kernel.next_told - 1;
    }
    return -1;
}

int apus_sim_next_connect(uint32_t *address, uint16_t *port) { LOCKED(int, next_connect(address, port)); }

void apus_sim_accept(int number) {
    WITH_LOCK(if (kernel.connections[number].descriptor >= 0) {
        kernel.connections[number].is_established = 1;
        trigger(number);
    });
}

void apus_sim_refuse(int number) {
    WITH_LOCK({
        kernel.connections[number].is_refused = 1;
        kernel.connections[number].error = ECONNREFUSED;
        trigger(number);
    });
}

void apus_sim_set_capacity(int number, size_t bytes) { WITH_LOCK(kernel.connections[number].capacity = bytes); }

static size_t put(connection_t *connection, const void *bytes, size_t count) {
    if (connection->descriptor < 0 && connection->end != 0) return count;
    if (connection->in.end_queued || connection->in.reset_queued) return 0;
    size_t space = room(connection, &connection->in);
    size_t taken = count < space ? count : space;
    if (taken > 0) append(&connection->in, bytes, taken);
    return taken;
}

size_t apus_sim_write(int number, const void *bytes, size_t count) {
    LOCKED(size_t, put(&kernel.connections[number], bytes, count));
}

void apus_sim_finish(int number) { WITH_LOCK(kernel.connections[number].in.end_queued = 1); }
void apus_sim_reset(int number) { WITH_LOCK(kernel.connections[number].in.reset_queued = 1); }

void apus_sim_close(int number) {
    connection_t *connection = &kernel.connections[number];
    // Closing over unread bytes resets, as a kernel does.
    WITH_LOCK({
        connection->is_peer_closed = 1;
        if (connection->out.count > 0) connection->in.reset_queued = 1; else connection->in.end_queued = 1;
        connection->out.count = 0;
    });
}

static size_t in_flight(const connection_t *connection) {
    if (connection->descriptor < 0 || !connection->is_established) return 0;
    const way_t *in = &connection->in;
    if (in->reset_arrived) return 0;
    return in->count - in->arrived + (in->reset_queued || (in->end_queued && !in->end_arrived) ? 1 : 0);
}

size_t apus_sim_in_flight(int number) { LOCKED(size_t, in_flight(&kernel.connections[number])); }

void apus_sim_deliver(int number, size_t count) {
    connection_t *connection = &kernel.connections[number];
    pthread_mutex_lock(&lock);
    way_t *in = &connection->in;
    size_t bytes = in->count - in->arrived;
    size_t moved = count < bytes ? count : bytes;
    in->arrived += moved;
    if (in->arrived == in->count && count > moved) {
        if (in->reset_queued) {
            in->reset_arrived = 1;
            connection->error = ECONNRESET;
        } else if (in->end_queued) {
            in->end_arrived = 1;
        }
    }
    trigger(number);
    pthread_mutex_unlock(&lock);
}

static size_t get(int number, void *bytes, size_t capacity) {
    way_t *out = &kernel.connections[number].out;
    size_t taken = capacity < out->count ? capacity : out->count;
    if (taken == 0) return 0;
    int was_full = room(&kernel.connections[number], out) == 0;
    take(out, bytes, taken);
    if (was_full) trigger(number);
    return taken;
}

size_t apus_sim_read(int number, void *bytes, size_t capacity) { LOCKED(size_t, get(number, bytes, capacity)); }
size_t apus_sim_readable(int number) { LOCKED(size_t, kernel.connections[number].out.count); }

static int end_of(const connection_t *connection) {
    if (connection->out.count > 0) return APUS_SIM_OPEN;
    if (connection->end != 0) return connection->end;
    return connection->out.end_queued ? APUS_SIM_FINISHED : APUS_SIM_OPEN;
}

int apus_sim_end(int number) { LOCKED(int, end_of(&kernel.connections[number])); }
int apus_sim_is_used(int number) {
    LOCKED(int, kernel.connections[number].descriptor >= 0 && !kernel.connections[number].is_write_ended);
}

int apus_sim_is_gone(int number) {
    LOCKED(int, kernel.connections[number].descriptor < 0 && kernel.connections[number].end != 0);
}
