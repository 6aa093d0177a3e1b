#ifndef CAPUS_H
#define CAPUS_H

// What Swift's Glibc module cannot import. Each function is one system call, its result and errno as the kernel gave them,
// unless its comment says more. System headers that belong to the Glibc module are included by the sources, not here:
// otherwise their types would seem to be this module's.

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

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

int apus_epoll_create(void);
int apus_epoll_add(int epoll, int descriptor, uint32_t events, int edge_triggered, uint64_t token);
int apus_epoll_modify(int epoll, int descriptor, uint32_t events, uint64_t token);

static inline int apus_epoll_wait(int epoll, struct epoll_event *events, int capacity, int timeout_milliseconds) {
    return epoll_wait(epoll, events, capacity, timeout_milliseconds);
}

static inline uint32_t apus_event_mask(const struct epoll_event *events, long index) { return events[index].events; }
static inline uint64_t apus_event_token(const struct epoll_event *events, long index) { return events[index].data.u64; }

// Waking a loop from another thread.

int apus_wakeup_create(void);
void apus_wakeup_signal(int descriptor);
void apus_wakeup_clear(int descriptor);

// Sockets: non-blocking, closed on exec, silent about a broken pipe.

int apus_socket_stream(int family);
/// `peer` has room for a sockaddr_storage.
int apus_accept(int listener, void *peer);
long apus_receive(int descriptor, void *bytes, size_t count);
long apus_send(int descriptor, const void *bytes, size_t count);
/// Both pieces in one system call and, where they fit, in one segment.
long apus_send_two(int descriptor, const void *first, size_t first_count, const void *second, size_t second_count);
/// The address that a redirected connection was made to (netfilter's SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST).
/// `address` has room for a sockaddr_storage.
int apus_original_destination(int descriptor, int is_ipv6, void *address);
/// With a linger time of zero close() sends an RST instead of a FIN.
void apus_reset_on_close(int descriptor);
/// How many bytes TCP has sent, and how many of them the peer's kernel has acknowledged.
int apus_transmission(int descriptor, uint64_t *transmitted, uint64_t *acknowledged);
/// Whether the peer has finished and all it sent has been read.
int apus_has_ended(int descriptor);

// Moving bytes between descriptors inside the kernel.

/// A non-blocking pipe; a capacity above the user's limit leaves the default.
int apus_pipe(int descriptors[2], int capacity);
long apus_splice(int from, int to, size_t count);

/// For the calling thread: splice(2) has no flag against the signal as send(2) has.
void apus_block_sigpipe(void);

/// Cut to the fifteen bytes that the kernel keeps.
void apus_set_thread_name(const char *name);

/// CLOCK_REALTIME in nanoseconds. Here because Swift sees `timespec` through several modules and its members through none.
int64_t apus_realtime_nanoseconds(void);

#endif
