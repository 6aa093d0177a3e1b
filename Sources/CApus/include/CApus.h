#ifndef CAPUS_H
#define CAPUS_H

// What Swift's Glibc module cannot import. Functions are inline and thin: one system call each, its result and errno
// as the kernel gave them.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#include "apus_spawn.h"

// Epoll. The token is returned with every event of the descriptor.

enum {
    APUS_EVENT_READ = EPOLLIN,
    APUS_EVENT_WRITE = EPOLLOUT,
    APUS_EVENT_PEER_FINISHED = EPOLLRDHUP,
    APUS_EVENT_HANG_UP = EPOLLHUP,
    APUS_EVENT_ERROR = EPOLLERR,
};

static inline int apus_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

static inline int apus_epoll_add(int epoll, int descriptor, uint32_t events, int edge_triggered, uint64_t token) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events | (edge_triggered ? (uint32_t)EPOLLET : 0);
    event.data.u64 = token;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

static inline int apus_epoll_modify(int epoll, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = token;
    return epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event);
}

static inline int apus_epoll_remove(int epoll, int descriptor) {
    return epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, NULL);
}

static inline int apus_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_milliseconds) {
    return epoll_wait(epoll, events, capacity, timeout_milliseconds);
}

static inline uint32_t apus_event_mask(const struct epoll_event *events, long index) { return events[index].events; }
static inline uint64_t apus_event_token(const struct epoll_event *events, long index) { return events[index].data.u64; }

// Waking a loop from another thread.

static inline int apus_wakeup_create(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline void apus_wakeup_signal(int descriptor) {
    uint64_t one = 1;
    ssize_t ignored = write(descriptor, &one, sizeof one);
    (void)ignored;
}

static inline void apus_wakeup_clear(int descriptor) {
    uint64_t count;
    ssize_t ignored = read(descriptor, &count, sizeof count);
    (void)ignored;
}

// Sockets.

static inline int apus_socket_stream(int family) {
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static inline int apus_accept(int listener, struct sockaddr_storage *peer) {
    socklen_t length = sizeof *peer;
    return accept4(listener, (struct sockaddr *)peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static inline long apus_receive(int descriptor, void *bytes, size_t count) {
    return recv(descriptor, bytes, count, MSG_DONTWAIT);
}

static inline long apus_send(int descriptor, const void *bytes, size_t count) {
    return send(descriptor, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// Both pieces in one system call and, where they fit, in one segment.
static inline long apus_send_two(
    int descriptor, const void *first, size_t first_count, const void *second, size_t second_count) {
    struct iovec pieces[2] = {{(void *)first, first_count}, {(void *)second, second_count}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    return sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// The address a redirected connection was made to (netfilter's SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, both 80).
static inline int apus_original_destination(int descriptor, int is_ipv6, struct sockaddr_storage *address) {
    socklen_t length = is_ipv6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    return getsockopt(descriptor, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, 80, address, &length);
}

/// A FIN instead of nothing, or an RST instead of a FIN: with a linger time of zero close() resets the connection.
static inline void apus_reset_on_close(int descriptor) {
    struct linger linger = {1, 0};
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

// Moving bytes between descriptors inside the kernel.

static inline int apus_pipe(int descriptors[2], int capacity) {
    if (pipe2(descriptors, O_NONBLOCK | O_CLOEXEC) != 0) return -1;
    // A smaller pipe than asked for (the user's limit) still works.
    fcntl(descriptors[1], F_SETPIPE_SZ, capacity);
    return 0;
}

static inline long apus_splice(int from, int to, size_t count) {
    return splice(from, NULL, to, NULL, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

static inline void apus_set_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }

#endif
