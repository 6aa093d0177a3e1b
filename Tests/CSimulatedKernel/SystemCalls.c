#include "Kernel.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

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

static slot_t *slot_of(int descriptor) {
    if (!sim_is_inside || descriptor < APUS_SIM_FIRST || descriptor >= APUS_SIM_FIRST + TABLE) return NULL;
    slot_t *slot = &sim_kernel.slots[descriptor - APUS_SIM_FIRST];
    return slot->kind == FREE ? NULL : slot;
}

int epoll_create1(int flags) {
    if (!sim_is_inside) return REAL(epoll_create1)(flags);
    WITH_LOCK(sim_kernel.epoll = sim_make_slot(EPOLL));
    return sim_kernel.epoll;
}

int eventfd(unsigned int count, int flags) {
    if (!sim_is_inside) return ((int (*)(unsigned int, int))looked_up(&real_eventfd))(count, flags);
    int descriptor;
    WITH_LOCK(descriptor = sim_make_slot(WAKEUP));
    return descriptor;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    slot_t *slot = slot_of(descriptor);
    // A loop is woken from threads that have not entered, too.
    if (slot == NULL && descriptor >= APUS_SIM_FIRST && descriptor < APUS_SIM_FIRST + TABLE && count == sizeof(uint64_t)
        && sim_kernel.slots[descriptor - APUS_SIM_FIRST].kind == WAKEUP)
        slot = &sim_kernel.slots[descriptor - APUS_SIM_FIRST];
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
    pthread_mutex_lock(&sim_lock);
    if (operation == EPOLL_CTL_ADD) {
        slot->is_watched = 1;
        slot->is_edge = (event->events & EPOLLET) != 0;
        slot->is_triggered = sim_readiness(slot) != 0;
    }
    slot->interest = event->events & ~(uint32_t)EPOLLET;
    slot->token = event->data.u64;
    pthread_mutex_unlock(&sim_lock);
    return 0;
}

int epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout) {
    if (slot_of(epoll) == NULL) return REAL(epoll_wait)(epoll, events, capacity, timeout);
    pthread_mutex_lock(&sim_lock);
    sim_kernel.deadline = timeout < 0 ? INT64_MAX : sim_kernel.now + (int64_t)timeout * 1000000;
    sim_kernel.is_parked = 1;
    sim_kernel.may_run = 0;
    pthread_cond_broadcast(&sim_changed);
    while (!sim_kernel.may_run) pthread_cond_wait(&sim_changed, &sim_lock);
    sim_kernel.is_parked = 0;
    int count = 0;
    for (int index = 0; index < TABLE && count < capacity; index++) {
        slot_t *slot = &sim_kernel.slots[index];
        uint32_t mask = sim_event_of(slot);
        if (mask == 0) continue;
        slot->is_triggered = 0;
        events[count].events = mask;
        events[count].data.u64 = slot->token;
        count++;
    }
    for (int index = count - 1; index > 0; index--) {
        int other = (int)(sim_next_random() % (uint64_t)(index + 1));
        struct epoll_event held = events[index];
        events[index] = events[other];
        events[other] = held;
    }
    pthread_mutex_unlock(&sim_lock);
    return count;
}

int socket(int family, int type, int protocol) {
    if (!sim_is_inside) return REAL(socket)(family, type, protocol);
    int descriptor;
    WITH_LOCK(descriptor = sim_make_slot(SOCKET));
    return descriptor;
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(bind)(descriptor, address, length);
    slot->port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (slot->port == 0) WITH_LOCK(slot->port = sim_kernel.next_port++);
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
    pthread_mutex_lock(&sim_lock);
    int accepted = -1;
    if (slot->backlog_count == 0) {
        errno = EAGAIN;
    } else if ((accepted = sim_make_slot(CONNECTED)) >= 0) {
        int connection = slot->backlog[0];
        memmove(slot->backlog, slot->backlog + 1, (size_t)--slot->backlog_count * sizeof(int));
        sim_kernel.slots[accepted - APUS_SIM_FIRST].connection = connection;
        sim_kernel.slots[accepted - APUS_SIM_FIRST].port = slot->port;
        sim_kernel.connections[connection].descriptor = accepted;
        fill(address, length, 0x7f000001, (uint16_t)(20000 + connection));
    }
    pthread_mutex_unlock(&sim_lock);
    return accepted;
}

int connect(int descriptor, const struct sockaddr *address, socklen_t length) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(connect)(descriptor, address, length);
    const struct sockaddr_in *to = (const struct sockaddr_in *)address;
    pthread_mutex_lock(&sim_lock);
    int connection = sim_make_connection(ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
    if (connection < 0) {
        errno = ENETUNREACH;
    } else {
        slot->kind = CONNECTED;
        slot->connection = connection;
        sim_kernel.connections[connection].descriptor = descriptor;
        errno = EINPROGRESS;
    }
    pthread_mutex_unlock(&sim_lock);
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
            sim_take(in, bytes, taken);
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
    connection_t *connection = sim_connection_of(slot);
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
    size_t space = connection->is_established ? sim_room(connection, &connection->out) : 0;
    size_t taken = count < space ? count : space;
    if (taken == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (connection->is_peer_closed) {
        connection->in.reset_queued = 1;
    } else {
        sim_append(&connection->out, bytes, taken);
    }
    return (ssize_t)taken;
}

ssize_t send(int descriptor, const void *bytes, size_t count, int flags) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL) return REAL(send)(descriptor, bytes, count, flags);
    connection_t *connection = sim_connection_of(slot);
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
    connection_t *connection = sim_connection_of(slot);
    if (connection == NULL || !connection->is_established || connection->in.reset_arrived) {
        errno = ENOTCONN;
        return -1;
    }
    pthread_mutex_lock(&sim_lock);
    connection->is_write_ended = 1;
    connection->out.end_queued = 1;
    sim_trigger(slot->connection);
    pthread_mutex_unlock(&sim_lock);
    return 0;
}

static void close_slot(slot_t *slot) {
    connection_t *connection = sim_connection_of(slot);
    if (connection != NULL) {
        int is_reset = slot->lingers_with_reset || connection->in.arrived > 0 || connection->in.reset_arrived;
        connection->end = is_reset ? APUS_SIM_RESET : APUS_SIM_FINISHED;
        if (is_reset) connection->out.count = 0;
        connection->descriptor = -1;
        connection->is_write_ended = 1;
        connection->in.count = connection->in.arrived = 0;
    }
    for (int index = 0; slot->kind == LISTENER && index < slot->backlog_count; index++) {
        sim_kernel.connections[slot->backlog[index]].end = APUS_SIM_RESET;
    }
    slot->kind = FREE;
}

int close(int descriptor) {
    slot_t *slot = slot_of(descriptor);
    if (slot == NULL && descriptor >= APUS_SIM_FIRST && descriptor < APUS_SIM_FIRST + TABLE
        && sim_kernel.slots[descriptor - APUS_SIM_FIRST].kind != FREE)
        slot = &sim_kernel.slots[descriptor - APUS_SIM_FIRST];
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
    connection_t *connection = sim_connection_of(slot);
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
    if (!sim_is_inside || clock != CLOCK_MONOTONIC) return REAL(clock_gettime)(clock, time);
    time->tv_sec = sim_kernel.now / 1000000000;
    time->tv_nsec = sim_kernel.now % 1000000000;
    return 0;
}

/// The runtime asks for random numbers by number of the call: those of the simulation are the seed's.
long syscall(long number, ...) {
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (int index = 0; index < 6; index++) arguments[index] = va_arg(list, long);
    va_end(list);
    if (sim_is_inside && number == SYS_getrandom && arguments[0] != 0) {
        pthread_mutex_lock(&sim_lock);
        for (long index = 0; index < arguments[1]; index++) ((uint8_t *)arguments[0])[index] = (uint8_t)sim_next_random();
        pthread_mutex_unlock(&sim_lock);
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
    sim_is_inside = 1;
    return start.body(start.argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    if (!sim_is_inside) return REAL(pthread_create)(thread, attributes, body, argument);
    start_t *start = malloc(sizeof *start);
    start->body = body;
    start->argument = argument;
    return REAL(pthread_create)(thread, attributes, run_inside, start);
}

int sim_real_clock(clockid_t clock, struct timespec *time) { return REAL(clock_gettime)(clock, time); }
