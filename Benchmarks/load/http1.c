// Requests of HTTP/1.1 over kept connections: one after the other on each, or evenly spaced over all of them.
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_CAPACITY = 4096, BATCH = 64, DISCARD_BYTES = 16384 };

typedef struct {
    int descriptor;
    uint16_t port;
    int busy;
    int64_t intended;    // when the request under way should have been sent
    int in_body;
    uint64_t remaining;  // of the body
    size_t head_count;
    char head[HEAD_CAPACITY];
} client;

static const settings *given;
static outcome result;
static int epoll;
static client *clients;
static client **idle;
static int idle_count, idle_first;
static char request[16384];
static size_t request_length;
static int64_t period_end = INT64_MAX;
static int recording, stopping;
static int outstanding;

static void watch(client *one) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, one->descriptor, &event)) fail("epoll: %s", strerror(errno));
}

static void open_client(client *one) {
    one->descriptor = connect_loopback(one->port);
    make_nonblocking(one->descriptor);
    one->head_count = 0;
    one->in_body = 0;
    watch(one);
}

static void rest(client *one) {
    idle[(idle_first + idle_count++) % given->connections] = one;
}

static void send_request(client *one, int64_t intended) {
    one->busy = 1;
    one->intended = intended;
    outstanding++;
    // A request is far smaller than a socket's buffer.
    if (send(one->descriptor, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        note_error(&result, "a request could not be sent: %s", strerror(errno));
}

static client *wake(void) {
    client *one = idle[idle_first];
    idle_first = (idle_first + 1) % given->connections;
    idle_count--;
    return one;
}

// What was under way has ended: the connection that has rested longest goes on.
static void next_in_turn(client *one, int64_t now) {
    rest(one);
    if (recording && given->rate == 0 && !stopping) send_request(wake(), now);
}

static void finished(client *one, int64_t now) {
    one->busy = 0;
    outstanding--;
    if (recording) {
        result.total++;
        if (result.total == given->requests) stopping = 1;
        if (now <= period_end) result.completed++;
        if (given->rate > 0) note_latency(&result, now - one->intended);
    }
    if (given->renew) {
        close(one->descriptor);
        open_client(one);
    }
    next_in_turn(one, now);
}

// A connection that is of no more use: its request is an error, and another takes its place.
static void replace(client *one, const char *why) {
    note_error(&result, "%s", why);
    close(one->descriptor);
    open_client(one);
    if (!one->busy) return;
    one->busy = 0;
    outstanding--;
    next_in_turn(one, now_nanoseconds());
}

// The body's length by the head, or -1.
static int64_t body_length(const char *head, size_t length) {
    if (length < 12 || memcmp(head, "HTTP/1.1 200", 12)) return -1;
    for (const char *line = memchr(head, '\n', length); line; line = memchr(line, '\n', length - (size_t)(line - head))) {
        line++;
        if ((size_t)(head + length - line) > 16 && !strncasecmp(line, "content-length:", 15)) return atoll(line + 15);
    }
    return -1;
}

static void receive(client *one) {
    static char buffer[262144];
    for (;;) {
        ssize_t count;
        if (one->in_body && one->remaining > DISCARD_BYTES) {
            // The kernel drops what would only be copied.
            size_t wanted = one->remaining < (1 << 20) ? one->remaining : (1 << 20);
            count = recv(one->descriptor, NULL, wanted, MSG_TRUNC);
        } else {
            count = recv(one->descriptor, buffer, sizeof buffer, 0);
        }
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count <= 0) {
            replace(one, one->busy ? "a connection ended during a request" : "a kept connection ended");
            return;
        }
        size_t left = (size_t)count;
        if (!one->in_body) {
            size_t taken = left < HEAD_CAPACITY - one->head_count ? left : HEAD_CAPACITY - one->head_count;
            memcpy(one->head + one->head_count, buffer, taken);
            char *end = memmem(one->head, one->head_count + taken, "\r\n\r\n", 4);
            if (!end) {
                one->head_count += taken;
                if (one->head_count == HEAD_CAPACITY) {
                    replace(one, "a response without an end of its head");
                    return;
                }
                continue;
            }
            size_t length = (size_t)(end - one->head) + 4;
            int64_t body = body_length(one->head, length);
            if (body < 0) {
                char why[160];
                snprintf(why, sizeof why, "not a 200 with a length: %.*s", (int)(length < 120 ? length : 120), one->head);
                replace(one, why);
                return;
            }
            left -= length - one->head_count;
            one->head_count = 0;
            one->in_body = 1;
            one->remaining = (uint64_t)body;
        }
        if (left > one->remaining) {
            replace(one, "bytes behind a response");
            return;
        }
        one->remaining -= left;
        if (recording) result.bytes += left;
        if (one->remaining == 0) {
            one->in_body = 0;
            finished(one, now_nanoseconds());
            return;
        }
    }
}

static int turn(int64_t deadline) {
    struct epoll_event events[256];
    int count = wait_until(epoll, events, 256, deadline);
    for (int index = 0; index < count; index++) receive(events[index].data.ptr);
    return count;
}

// Waits until nothing is under way; what does not come back is an error.
static void settle(void) {
    int64_t last = now_nanoseconds();
    while (outstanding > 0) {
        if (turn(last + STALL_NANOSECONDS) > 0) last = now_nanoseconds();
        else if (now_nanoseconds() >= last + STALL_NANOSECONDS) {
            note_error(&result, "%d requests were never answered", outstanding);
            return;
        }
    }
}

static void run_in_turn(int64_t start) {
    period_end = start + (int64_t)(given->seconds * 1e9);
    int64_t last = start;
    int active = given->active > 0 && given->active < given->connections ? given->active : given->connections;
    while (outstanding < active) send_request(wake(), start);
    while (now_nanoseconds() < period_end && !stopping) {
        if (turn(period_end) > 0) last = now_nanoseconds();
        else if (now_nanoseconds() > last + STALL_NANOSECONDS) break;
    }
    stopping = 1;
    settle();
}

static void run_spaced(int64_t start) {
    double interval = 1e9 / given->rate;
    uint64_t count = (uint64_t)(given->seconds * given->rate), sent = 0;
    period_end = start + (int64_t)(given->seconds * 1e9);
    int64_t last = start;
    while (sent < count) {
        int64_t next = start + (int64_t)(interval * (double)sent), now = now_nanoseconds();
        if (next <= now && idle_count > 0) {
            if (now - next > (int64_t)interval) result.late++;
            send_request(wake(), next);
            sent++;
            continue;
        }
        if (turn(next <= now ? now + 1000000 : next) > 0) last = now_nanoseconds();
        else if (outstanding > 0 && now_nanoseconds() > last + STALL_NANOSECONDS) break;
    }
    settle();
}

int run_http1(const settings *chosen) {
    given = chosen;
    request_length = (size_t)snprintf(
        request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: apus-bench\r\nAccept: */*\r\n%s\r\n", given->path,
        given->fields);
    if (request_length >= sizeof request) fail("the request is too long");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)given->connections, sizeof *clients);
    idle = calloc((size_t)given->connections, sizeof *idle);
    if (!clients || !idle) fail("no memory for %d connections", given->connections);
    // In groups, so that no listener's queue overflows: what is measured is how they are served, not how they come.
    for (int index = 0; index < given->connections; index++) {
        clients[index].port = (uint16_t)(given->port + index % given->ports);
        open_client(&clients[index]);
        send_request(&clients[index], 0);
        if (index % BATCH == BATCH - 1 || index == given->connections - 1) settle();
    }
    wait_for_go();
    recording = 1;
    int64_t start = now_nanoseconds() + 1000;
    if (given->rate > 0) run_spaced(start);
    else run_in_turn(start);
    report(&result, given->seconds);
    return 0;
}
