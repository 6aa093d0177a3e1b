// backend http1|http2|tcp PORT…: what stands behind the proxies where a Debian server would be slower than they are, or is not there.
//
// http1 answers every head with 100 bytes, as if no request had a body.
// http2 answers a GET with 100 bytes, and every message of a gRPC call (37 bytes with its framing) with one of its size, then
// trailers. It reads frames but never a header block, because nothing in it depends on one.
// tcp answers the byte `e` with itself, and `b` with bytes until the connection ends.
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 37, BODY_BYTES = 100, INPUT_CAPACITY = 262144, STREAMS = 4096 };

typedef struct {
    uint32_t id;
    uint32_t partial;     // bytes of a message that has not come wholly
    int has_head;
} call;

typedef struct {
    int descriptor;
    int is_listener, is_bulk, has_preface;
    nghttp2_hd_deflater *deflater;
    size_t input_count;
    uint8_t *input;
    uint8_t *output;         // whole frames
    size_t output_count, output_capacity, output_sent;
    size_t windowed;         // up to where the frames may leave
    int64_t window;          // the connection's, for sending
    int64_t stream_window;   // a new stream's
    uint64_t unacknowledged;
    call *calls;             // by stream, for those under way
} peer;

static int epoll, speaks_http1, speaks_http2;
static uint8_t body[BODY_BYTES], message[MESSAGE_BYTES];

static void put(peer *one, const void *bytes, size_t count) {
    if (one->output_count + count > one->output_capacity) {
        one->output_capacity = (one->output_count + count) * 2 + 4096;
        one->output = realloc(one->output, one->output_capacity);
        if (!one->output) fail("no memory for output");
    }
    memcpy(one->output + one->output_count, bytes, count);
    one->output_count += count;
}

static void put_frame(peer *one, int type, int flags, uint32_t id, const void *payload, size_t count) {
    uint8_t head[9] = {(uint8_t)(count >> 16), (uint8_t)(count >> 8), (uint8_t)count, (uint8_t)type, (uint8_t)flags,
                       (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    put(one, head, sizeof head);
    put(one, payload, count);
}

static uint32_t number(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void drop(peer *one) {
    close(one->descriptor);
    if (one->deflater) nghttp2_hd_deflate_del(one->deflater);
    free(one->input);
    free(one->output);
    free(one->calls);
    free(one);
}

// Sends what the peer's window allows, frames in order; false when the connection is gone.
static int flush(peer *one) {
    while (one->windowed < one->output_count) {
        const uint8_t *frame = one->output + one->windowed;
        int64_t length = frame[0] << 16 | frame[1] << 8 | frame[2];
        if (frame[3] == 0) {
            if (length > one->window) break;
            one->window -= length;
        }
        one->windowed += 9 + (size_t)length;
    }
    while (one->output_sent < one->windowed) {
        ssize_t count = send(one->descriptor, one->output + one->output_sent, one->windowed - one->output_sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = one};
            epoll_ctl(epoll, EPOLL_CTL_MOD, one->descriptor, &event);
            return 1;
        }
        if (count < 0) return 0;
        one->output_sent += (size_t)count;
    }
    memmove(one->output, one->output + one->output_sent, one->output_count - one->output_sent);
    one->output_count -= one->output_sent;
    one->windowed -= one->output_sent;
    one->output_sent = 0;
    return 1;
}

static void put_fields(peer *one, int flags, uint32_t id, const char *const *fields, size_t count) {
    nghttp2_nv pairs[4];
    for (size_t index = 0; index < count; index++) {
        pairs[index] = (nghttp2_nv){(uint8_t *)fields[index * 2], (uint8_t *)fields[index * 2 + 1], strlen(fields[index * 2]),
                                    strlen(fields[index * 2 + 1]), NGHTTP2_NV_FLAG_NONE};
    }
    uint8_t block[256];
    ssize_t length = nghttp2_hd_deflate_hd(one->deflater, block, sizeof block, pairs, count);
    if (length < 0) fail("the answer's fields do not fit");
    put_frame(one, 1, 4 | flags, id, block, (size_t)length);
}

static void put_head(peer *one, uint32_t id) {
    static const char *const fields[] = {":status", "200", "content-type", "application/grpc"};
    put_fields(one, 0, id, fields, 2);
}

static void answer_get(peer *one, uint32_t id) {
    static const char *const fields[] = {":status", "200", "content-type", "text/plain", "content-length", "100"};
    put_fields(one, 0, id, fields, 3);
    put_frame(one, 0, 1, id, body, sizeof body);
}

static void answer_data(peer *one, uint32_t id, size_t count, int is_last) {
    static const char *const trailers[] = {"grpc-status", "0"};
    call *under_way = &one->calls[id / 2 % STREAMS];
    if (under_way->id != id) *under_way = (call){.id = id};
    under_way->partial += (uint32_t)count;
    while (under_way->partial >= MESSAGE_BYTES) {
        under_way->partial -= MESSAGE_BYTES;
        if (!under_way->has_head) put_head(one, id);
        under_way->has_head = 1;
        put_frame(one, 0, 0, id, message, sizeof message);
    }
    if (!is_last) return;
    if (!under_way->has_head) put_head(one, id);
    put_fields(one, 1, id, trailers, 1);
    under_way->id = 0;
}

static void read_settings_frame(peer *one, const uint8_t *bytes, size_t count) {
    for (size_t at = 0; at + 6 <= count; at += 6) {
        uint32_t value = number(bytes + at + 2);
        if (bytes[at + 1] == 1) nghttp2_hd_deflate_change_table_size(one->deflater, value < 4096 ? value : 4096);
        // What one stream is sent never exceeds the default window, so that only a smaller one would matter.
        if (bytes[at + 1] == 4 && value < 65535) fail("a peer's streams take %u bytes at a time: 65535 are expected", value);
    }
    put_frame(one, 4, 1, 0, "", 0);
}

static int read_http2(peer *one) {
    size_t at = 0;
    if (!one->has_preface) {
        if (one->input_count < 24) return 1;
        one->has_preface = 1;
        at = 24;
    }
    while (one->input_count - at >= 9) {
        const uint8_t *head = one->input + at, *payload = head + 9;
        size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2], count = length;
        if (length > INPUT_CAPACITY / 2) return 0;
        if (one->input_count - at < 9 + length) break;
        int type = head[3], flags = head[4];
        uint32_t id = number(head + 5) & 0x7fffffff;
        if (type == 0) {
            if (flags & 8) count = length > payload[0] ? length - 1 - payload[0] : 0;
            one->unacknowledged += length;
            answer_data(one, id, count, flags & 1);
            if (one->unacknowledged > 1 << 20) {
                uint32_t update = htonl((uint32_t)one->unacknowledged);
                put_frame(one, 8, 0, 0, &update, 4);
                one->unacknowledged = 0;
            }
        } else if (type == 1 && flags & 1) {
            answer_get(one, id);
        } else if (type == 4 && !(flags & 1)) {
            read_settings_frame(one, payload, length);
        } else if (type == 6 && !(flags & 1)) {
            put_frame(one, 6, 1, 0, payload, length);
        } else if (type == 8 && id == 0 && length == 4) {
            one->window += number(payload) & 0x7fffffff;
        }
        at += 9 + length;
    }
    memmove(one->input, one->input + at, one->input_count - at);
    one->input_count -= at;
    return flush(one);
}

static int read_http1(peer *one) {
    static char answer[256];
    static int length;
    if (!length) {
        length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
                          "Content-Length: %d\r\n\r\n%.*s", BODY_BYTES, BODY_BYTES, (const char *)body);
    }
    uint8_t *end;
    size_t at = 0;
    while ((end = memmem(one->input + at, one->input_count - at, "\r\n\r\n", 4))) {
        at = (size_t)(end - one->input) + 4;
        if (send(one->descriptor, answer, (size_t)length, MSG_NOSIGNAL) != length) return 0;
    }
    memmove(one->input, one->input + at, one->input_count - at);
    one->input_count -= at;
    return one->input_count < INPUT_CAPACITY;
}

static int read_tcp(peer *one) {
    uint8_t byte = one->input[one->input_count - 1];
    one->input_count = 0;
    if (byte == 'e') return send(one->descriptor, "e", 1, MSG_NOSIGNAL) == 1;
    if (byte != 'b') return 0;
    one->is_bulk = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_MOD, one->descriptor, &event);
    return 1;
}

static int write_more(peer *one) {
    static uint8_t bytes[262144];
    if (one->is_bulk) return send(one->descriptor, bytes, sizeof bytes, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_MOD, one->descriptor, &event);
    return speaks_http2 ? flush(one) : 1;
}

static void accept_peer(int listener) {
    int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0) return;
    int yes = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    peer *one = calloc(1, sizeof *one);
    if (!one) fail("no memory for a connection");
    one->descriptor = descriptor;
    one->input = malloc(INPUT_CAPACITY);
    if (!one->input) fail("no memory for a connection");
    one->window = one->stream_window = 65535;
    if (speaks_http2) {
        one->calls = calloc(STREAMS, sizeof *one->calls);
        nghttp2_hd_deflate_new(&one->deflater, 4096);
        put_frame(one, 4, 0, 0, "\0\3\0\0\x10\0", 6);
        put_frame(one, 8, 0, 0, "\x3f\0\0\0", 4);
        flush(one);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

static int serve(peer *one, uint32_t events) {
    if (events & EPOLLOUT && !write_more(one)) return 0;
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return 1;
    size_t room = INPUT_CAPACITY - one->input_count;
    ssize_t count = recv(one->descriptor, one->input + one->input_count, room, 0);
    if (count < 0 && errno == EAGAIN) return 1;
    if (count <= 0) return 0;
    one->input_count += (size_t)count;
    return speaks_http2 ? read_http2(one) : speaks_http1 ? read_http1(one) : read_tcp(one);
}

static void listen_on(uint16_t port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("port %u cannot be listened on: %s", port, strerror(errno));
    peer *one = calloc(1, sizeof *one);
    if (!one) fail("no memory for a listener");
    one->descriptor = listener;
    one->is_listener = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
}

int main(int count, char **arguments) {
    if (count < 3) fail("usage: backend http1|http2|tcp PORT…");
    speaks_http1 = !strcmp(arguments[1], "http1");
    speaks_http2 = !strcmp(arguments[1], "http2");
    memset(body, 'x', sizeof body);
    memset(message, 'y', sizeof message);
    memcpy(message, "\0\0\0\0\x20", 5);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int index = 2; index < count; index++) listen_on((uint16_t)atoi(arguments[index]));
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            peer *one = events[index].data.ptr;
            if (one->is_listener) accept_peer(one->descriptor);
            else if (!serve(one, events[index].events)) drop(one);
        }
    }
}
