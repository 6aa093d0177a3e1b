// Requests of HTTP/2 and calls of gRPC (unary, or messages that are answered one by one), with every answer's status, trailers
// and length checked. Framing by hand, header compression by libnghttp2.
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9,
    END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 32,
    MESSAGE_BYTES = 37,           // five of gRPC's framing, 32 of content
    BUFFER_CAPACITY = 1 << 20,
    WINDOW = 1 << 20,             // what one stream may be sent before it is read
    CONNECTION_WINDOW = 1 << 30,
};

typedef struct {
    uint32_t id;        // 0 is free
    int64_t intended;
    int sent, answered; // messages
    uint64_t received;  // bytes of payload
    int64_t window;     // what may still be sent
    int status, grpc_status;
    int waiting;        // for a window, with a message that should have been sent
} stream;

typedef struct {
    int descriptor;
    int dead;
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    uint32_t next_id;
    int open;
    int64_t window;           // the connection's, for sending
    int64_t initial_window;   // a new stream's
    uint64_t unacknowledged;  // bytes received since the last update
    int has_settings;
    uint32_t block_stream;    // whose header block goes on in a CONTINUATION
    int block_ends_stream;
    size_t input_count, output_count;
    uint8_t *input, *output;
    stream *streams;
} client;

static const settings *given;
static outcome result;
static int epoll;
static client *clients;
static int64_t period_end = INT64_MAX;
static int recording, stopping, outstanding, next_client;
static uint8_t message[MESSAGE_BYTES];

static void put(client *one, const void *bytes, size_t count) {
    if (one->output_count + count > BUFFER_CAPACITY) fail("more output than %d bytes on one connection", BUFFER_CAPACITY);
    memcpy(one->output + one->output_count, bytes, count);
    one->output_count += count;
}

static void put_frame(client *one, int type, int flags, uint32_t id, const void *payload, size_t count) {
    uint8_t head[9] = {(uint8_t)(count >> 16), (uint8_t)(count >> 8), (uint8_t)count, (uint8_t)type, (uint8_t)flags,
                       (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    put(one, head, sizeof head);
    put(one, payload, count);
}

static uint32_t number(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void put_window_update(client *one, uint32_t id, uint32_t count) {
    uint8_t bytes[4] = {(uint8_t)(count >> 24), (uint8_t)(count >> 16), (uint8_t)(count >> 8), (uint8_t)count};
    put_frame(one, WINDOW_UPDATE, 0, id, bytes, 4);
}

static void flush(client *one) {
    size_t sent = 0;
    while (sent < one->output_count && !one->dead) {
        ssize_t count = send(one->descriptor, one->output + sent, one->output_count - sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) break;  // The rest goes with the next answer that comes.
        if (count < 0) {
            note_error(&result, "sending failed: %s", strerror(errno));
            one->dead = 1;
            return;
        }
        sent += (size_t)count;
    }
    memmove(one->output, one->output + sent, one->output_count - sent);
    one->output_count -= sent;
}

// MARK: Requests

static nghttp2_nv pair(const char *name, const char *value) {
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static void put_head(client *one, uint32_t id) {
    nghttp2_nv call[] = {pair(":method", "POST"), pair(":scheme", "http"), pair(":path", "/bench.Echo/Call"),
                         pair(":authority", "bench.test"), pair("te", "trailers"), pair("content-type", "application/grpc"),
                         pair("user-agent", "apus-bench"), pair("grpc-accept-encoding", "identity, deflate, gzip")};
    nghttp2_nv get[] = {pair(":method", "GET"), pair(":scheme", "http"), pair(":path", given->path),
                        pair(":authority", "bench.test"), pair("user-agent", "apus-bench"), pair("accept", "*/*")};
    uint8_t block[1024];
    ssize_t count = given->messages
        ? nghttp2_hd_deflate_hd(one->deflater, block, sizeof block, call, sizeof call / sizeof *call)
        : nghttp2_hd_deflate_hd(one->deflater, block, sizeof block, get, sizeof get / sizeof *get);
    if (count < 0) fail("the request's fields do not fit");
    put_frame(one, HEADERS, END_HEADERS | (given->messages ? 0 : END_STREAM), id, block, (size_t)count);
}

static void put_message(client *one, stream *call) {
    if (one->window < MESSAGE_BYTES || call->window < MESSAGE_BYTES) {
        call->waiting = 1;
        return;
    }
    call->waiting = 0;
    one->window -= MESSAGE_BYTES;
    call->window -= MESSAGE_BYTES;
    call->sent++;
    put_frame(one, DATA, call->sent == given->messages ? END_STREAM : 0, call->id, message, MESSAGE_BYTES);
}

static void begin(client *one, stream *call, int64_t intended) {
    *call = (stream){.id = one->next_id, .intended = intended, .window = one->initial_window, .grpc_status = -1};
    one->next_id += 2;
    one->open++;
    outstanding++;
    put_head(one, call->id);
    if (given->messages) put_message(one, call);
}

static void count_answer(int64_t now, int64_t intended) {
    if (!recording) return;
    result.total++;
    if (result.total == given->requests) stopping = 1;
    if (now <= period_end) result.completed++;
    if (given->rate > 0) note_latency(&result, now - intended);
}

static void end(client *one, stream *call, const char *error) {
    int64_t now = now_nanoseconds();
    if (error) note_error(&result, "%s", error);
    else if (call->status != 200) note_error(&result, "status %d", call->status);
    else if (given->messages && call->grpc_status != 0) note_error(&result, "grpc-status %d", call->grpc_status);
    else if (given->messages && call->received != (uint64_t)given->messages * MESSAGE_BYTES)
        note_error(&result, "%llu bytes in a call's answer", (unsigned long long)call->received);
    else if (given->messages <= 1) count_answer(now, call->intended);
    call->id = 0;
    one->open--;
    outstanding--;
    if (recording && given->rate == 0 && !stopping && !one->dead) begin(one, call, now);
}

static stream *find(client *one, uint32_t id) {
    for (int index = 0; index < given->streams; index++)
        if (one->streams[index].id == id) return &one->streams[index];
    return NULL;
}

static void lose(client *one, const char *why) {
    if (one->dead) return;
    one->dead = 1;
    note_error(&result, "%s", why);
    for (int index = 0; index < given->streams; index++)
        if (one->streams[index].id) end(one, &one->streams[index], why);
    epoll_ctl(epoll, EPOLL_CTL_DEL, one->descriptor, NULL);
}

// MARK: Answers

static void received_block(client *one, uint32_t id, const uint8_t *block, size_t count, int is_last, int ends_stream) {
    stream *call = find(one, id);
    while (1) {
        nghttp2_nv field;
        int flags = 0;
        ssize_t taken = nghttp2_hd_inflate_hd2(one->inflater, &field, &flags, block, count, is_last);
        if (taken < 0) return lose(one, "a header block that cannot be read");
        block += taken;
        count -= (size_t)taken;
        if (flags & NGHTTP2_HD_INFLATE_EMIT && call) {
            if (field.namelen == 7 && !memcmp(field.name, ":status", 7)) call->status = atoi((char *)field.value);
            if (field.namelen == 11 && !memcmp(field.name, "grpc-status", 11)) call->grpc_status = atoi((char *)field.value);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) break;
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && count == 0) break;
    }
    if (!is_last) return;
    nghttp2_hd_inflate_end_headers(one->inflater);
    if (ends_stream && call) end(one, call, NULL);
}

static void received_data(client *one, uint32_t id, size_t frame_bytes, size_t count, int ends_stream) {
    one->unacknowledged += frame_bytes;
    if (one->unacknowledged > CONNECTION_WINDOW / 2) {
        put_window_update(one, 0, (uint32_t)one->unacknowledged);
        one->unacknowledged = 0;
    }
    stream *call = find(one, id);
    if (!call) return;
    call->received += count;
    if (recording) result.bytes += count;
    if (given->messages > 1) {
        while (call->received >= (uint64_t)(call->answered + 1) * MESSAGE_BYTES) {
            call->answered++;
            count_answer(now_nanoseconds(), call->intended);
            if (call->answered == call->sent && call->sent < given->messages) {
                call->intended = now_nanoseconds();
                put_message(one, call);
            }
        }
    }
    if (ends_stream) end(one, call, given->messages ? "a call without trailers" : NULL);
}

static void use_windows(client *one) {
    for (int index = 0; index < given->streams; index++)
        if (one->streams[index].id && one->streams[index].waiting) put_message(one, &one->streams[index]);
}

static void received_settings(client *one, const uint8_t *bytes, size_t count) {
    for (size_t at = 0; at + 6 <= count; at += 6) {
        uint32_t value = number(bytes + at + 2);
        int name = bytes[at] << 8 | bytes[at + 1];
        if (name == 1) nghttp2_hd_deflate_change_table_size(one->deflater, value < 4096 ? value : 4096);
        if (name == 3 && value < (uint32_t)given->streams) fail("the peer allows %u streams at a time", value);
        if (name == 4) {
            for (int index = 0; index < given->streams; index++)
                one->streams[index].window += (int64_t)value - one->initial_window;
            one->initial_window = value;
        }
    }
    one->has_settings = 1;
    put_frame(one, SETTINGS, ACK, 0, "", 0);
    use_windows(one);
}

static void received_frame(client *one, int type, int flags, uint32_t id, const uint8_t *payload, size_t count) {
    size_t frame_bytes = count;
    if ((type == DATA || type == HEADERS) && flags & PADDED) {
        if (count < 1 || payload[0] >= count) return lose(one, "bad padding");
        count -= 1 + (size_t)payload[0];
        payload++;
    }
    if (type == HEADERS && flags & PRIORITY) {
        if (count < 5) return lose(one, "a short HEADERS");
        payload += 5;
        count -= 5;
    }
    switch (type) {
    case DATA: received_data(one, id, frame_bytes, count, flags & END_STREAM); break;
    case HEADERS:
        one->block_stream = id;
        one->block_ends_stream = flags & END_STREAM;
        received_block(one, id, payload, count, flags & END_HEADERS, flags & END_STREAM);
        break;
    case CONTINUATION:
        received_block(one, one->block_stream, payload, count, flags & END_HEADERS, one->block_ends_stream);
        break;
    case RST_STREAM: {
        stream *call = find(one, id);
        if (call) end(one, call, "a stream was reset");
        break;
    }
    case SETTINGS:
        if (!(flags & ACK)) received_settings(one, payload, count);
        break;
    case PING:
        if (!(flags & ACK) && count == 8) put_frame(one, PING, ACK, 0, payload, 8);
        break;
    case GOAWAY: lose(one, "the peer said GOAWAY"); break;
    case WINDOW_UPDATE:
        if (count != 4) return lose(one, "a short WINDOW_UPDATE");
        if (id == 0) one->window += number(payload) & 0x7fffffff;
        else {
            stream *call = find(one, id);
            if (call) call->window += number(payload) & 0x7fffffff;
        }
        use_windows(one);
        break;
    default: break;
    }
}

static void receive(client *one) {
    while (!one->dead) {
        ssize_t count = recv(one->descriptor, one->input + one->input_count, BUFFER_CAPACITY - one->input_count, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (count <= 0) return lose(one, "a connection ended");
        one->input_count += (size_t)count;
        size_t at = 0;
        while (one->input_count - at >= 9 && !one->dead) {
            const uint8_t *head = one->input + at;
            size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
            if (length > BUFFER_CAPACITY / 2) return lose(one, "a frame of more than was allowed");
            if (one->input_count - at < 9 + length) break;
            received_frame(one, head[3], head[4], number(head + 5) & 0x7fffffff, head + 9, length);
            at += 9 + length;
        }
        memmove(one->input, one->input + at, one->input_count - at);
        one->input_count -= at;
        if (one->input_count == 0 && (size_t)count < BUFFER_CAPACITY) break;
    }
    flush(one);
}

static int turn(int64_t deadline) {
    struct epoll_event events[256];
    int count = wait_until(epoll, events, 256, deadline);
    for (int index = 0; index < count; index++) receive(events[index].data.ptr);
    return count;
}

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

// MARK: The run

static void open_client(client *one, uint16_t port) {
    one->input = malloc(BUFFER_CAPACITY);
    one->output = malloc(BUFFER_CAPACITY);
    one->streams = calloc((size_t)given->streams, sizeof *one->streams);
    if (!one->input || !one->output || !one->streams) fail("no memory for a connection");
    nghttp2_hd_deflate_new(&one->deflater, 4096);
    nghttp2_hd_inflate_new(&one->inflater);
    one->next_id = 1;
    one->window = one->initial_window = 65535;
    one->descriptor = connect_loopback(port);
    make_nonblocking(one->descriptor);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_ADD, one->descriptor, &event);
    put(one, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    uint8_t wanted[12] = {0, 2, 0, 0, 0, 0, 0, 4, 0, (uint8_t)(WINDOW >> 16), (uint8_t)(WINDOW >> 8), (uint8_t)WINDOW};
    put_frame(one, SETTINGS, 0, 0, wanted, sizeof wanted);
    put_window_update(one, 0, CONNECTION_WINDOW - 65535);
    flush(one);
    int64_t deadline = now_nanoseconds() + STALL_NANOSECONDS;
    while (!one->has_settings && !one->dead) {
        turn(deadline);
        if (now_nanoseconds() > deadline) fail("port %u sends no SETTINGS", port);
    }
}

static client *client_with_room(void) {
    for (int step = 0; step < given->connections; step++) {
        client *one = &clients[next_client];
        next_client = (next_client + 1) % given->connections;
        if (!one->dead && one->open < given->streams) return one;
    }
    return NULL;
}

static void run_in_turn(int64_t start) {
    period_end = start + (int64_t)(given->seconds * 1e9);
    for (int index = 0; index < given->connections; index++) {
        for (int place = 0; place < given->streams; place++) begin(&clients[index], &clients[index].streams[place], start);
        flush(&clients[index]);
    }
    int64_t last = start;
    while (now_nanoseconds() < period_end && outstanding > 0 && !stopping) {
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
        client *one = next <= now ? client_with_room() : NULL;
        if (one) {
            if (now - next > (int64_t)interval) result.late++;
            begin(one, find(one, 0), next);
            flush(one);
            sent++;
            continue;
        }
        if (turn(next <= now ? now + 1000000 : next) > 0) last = now_nanoseconds();
        else if (outstanding > 0 && now_nanoseconds() > last + STALL_NANOSECONDS) break;
    }
    settle();
}

int run_http2(const settings *chosen) {
    given = chosen;
    memset(message, 'x', sizeof message);
    memcpy(message, "\0\0\0\0\x20", 5);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)given->connections, sizeof *clients);
    if (!clients) fail("no memory for %d connections", given->connections);
    for (int index = 0; index < given->connections; index++) {
        open_client(&clients[index], (uint16_t)(given->port + index % given->ports));
        begin(&clients[index], &clients[index].streams[0], 0);
        flush(&clients[index]);
        settle();
    }
    wait_for_go();
    recording = 1;
    int64_t start = now_nanoseconds() + 1000;
    if (given->rate > 0) run_spaced(start);
    else run_in_turn(start);
    report(&result, given->seconds);
    return 0;
}
