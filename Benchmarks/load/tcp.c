// Bytes without a protocol: as many as come in the time (mode=bulk), or connections that carry one byte each way (mode=connect).
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    int descriptor;
    uint16_t port;
} client;

static const settings *given;
static outcome result;
static int epoll;
static int64_t period_end;

static void bulk(client *clients) {
    for (int index = 0; index < given->connections; index++) {
        clients[index].descriptor = connect_loopback((uint16_t)(given->port + index % given->ports));
        // One byte each way first, so that the whole path stands.
        char byte = 'e';
        if (send(clients[index].descriptor, &byte, 1, 0) != 1 || recv(clients[index].descriptor, &byte, 1, 0) != 1)
            fail("connection %d did not come to stand", index);
        make_nonblocking(clients[index].descriptor);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[index]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, clients[index].descriptor, &event);
    }
    wait_for_go();
    int64_t start = now_nanoseconds();
    period_end = start + (int64_t)(given->seconds * 1e9);
    for (int index = 0; index < given->connections; index++) {
        if (send(clients[index].descriptor, "b", 1, MSG_NOSIGNAL) != 1) note_error(&result, "%s", strerror(errno));
    }
    int64_t last = start;
    while (now_nanoseconds() < period_end) {
        struct epoll_event events[64];
        int count = wait_until(epoll, events, 64, period_end);
        for (int index = 0; index < count; index++) {
            client *one = events[index].data.ptr;
            ssize_t bytes = recv(one->descriptor, NULL, 1 << 20, MSG_TRUNC);
            if (bytes > 0) {
                result.bytes += (uint64_t)bytes;
                last = now_nanoseconds();
            } else if (bytes == 0 || errno != EAGAIN) {
                note_error(&result, "a connection ended: %s", bytes == 0 ? "end" : strerror(errno));
                epoll_ctl(epoll, EPOLL_CTL_DEL, one->descriptor, NULL);
            }
        }
        if (now_nanoseconds() > last + STALL_NANOSECONDS / 5) {
            note_error(&result, "nothing came for two seconds");
            break;
        }
    }
    // So that what is measured afterwards is not the rest of this.
    for (int index = 0; index < given->connections; index++) close(clients[index].descriptor);
    result.total = result.completed = (uint64_t)given->connections;
}

static void begin(client *one) {
    one->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (one->descriptor < 0) fail("no socket: %s", strerror(errno));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(one->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(one->descriptor, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("no connection to port %u: %s", one->port, strerror(errno));
    int yes = 1;
    setsockopt(one->descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_ADD, one->descriptor, &event);
}

static void connect_and_close(client *clients, double seconds, int recording) {
    int64_t start = now_nanoseconds(), last = start;
    period_end = start + (int64_t)(seconds * 1e9);
    int open = given->connections;
    for (int index = 0; index < given->connections; index++) {
        clients[index].port = (uint16_t)(given->port + index % given->ports);
        begin(&clients[index]);
    }
    while (open > 0) {
        struct epoll_event events[64];
        int count = wait_until(epoll, events, 64, last + STALL_NANOSECONDS);
        int64_t now = now_nanoseconds();
        if (count > 0) last = now;
        else if (now >= last + STALL_NANOSECONDS) {
            note_error(&result, "%d connections never carried their byte", open);
            return;
        }
        for (int index = 0; index < count; index++) {
            client *one = events[index].data.ptr;
            if (events[index].events & EPOLLOUT && !(events[index].events & (EPOLLERR | EPOLLHUP))) {
                if (send(one->descriptor, "e", 1, MSG_NOSIGNAL) != 1) note_error(&result, "%s", strerror(errno));
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
                epoll_ctl(epoll, EPOLL_CTL_MOD, one->descriptor, &event);
                continue;
            }
            char byte;
            ssize_t bytes = recv(one->descriptor, &byte, 1, 0);
            if (bytes < 0 && errno == EAGAIN) continue;
            if (bytes != 1) note_error(&result, "a connection without its byte: %s", bytes ? strerror(errno) : "end");
            else if (recording) {
                result.total++;
                result.bytes++;
                if (now <= period_end) result.completed++;
            }
            close(one->descriptor);
            if (now < period_end) begin(one);
            else open--;
        }
    }
}

int run_tcp(const settings *chosen) {
    given = chosen;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    client *clients = calloc((size_t)given->connections, sizeof *clients);
    if (!clients) fail("no memory for %d connections", given->connections);
    if (!strcmp(given->mode, "bulk")) {
        bulk(clients);
    } else if (!strcmp(given->mode, "connect")) {
        connect_and_close(clients, 0.1, 0);
        wait_for_go();
        connect_and_close(clients, given->seconds, 1);
    } else {
        fail("mode=%s: expected bulk or connect", given->mode);
    }
    report(&result, given->seconds);
    return 0;
}
