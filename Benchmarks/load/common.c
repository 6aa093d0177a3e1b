#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

settings read_settings(int count, char **arguments) {
    settings given = {.ports = 1, .connections = 1, .streams = 1, .seconds = 1, .path = "/", .fields = "", .mode = ""};
    for (int index = 0; index < count; index++) {
        char *value = strchr(arguments[index], '=');
        if (!value) fail("%s: KEY=VALUE is expected", arguments[index]);
        *value++ = 0;
        const char *key = arguments[index];
        if (!strcmp(key, "port")) given.port = (uint16_t)atoi(value);
        else if (!strcmp(key, "ports")) given.ports = atoi(value);
        else if (!strcmp(key, "connections")) given.connections = atoi(value);
        else if (!strcmp(key, "active")) given.active = atoi(value);
        else if (!strcmp(key, "streams")) given.streams = atoi(value);
        else if (!strcmp(key, "messages")) given.messages = atoi(value);
        else if (!strcmp(key, "renew")) given.renew = atoi(value);
        else if (!strcmp(key, "requests")) given.requests = strtoull(value, NULL, 10);
        else if (!strcmp(key, "seconds")) given.seconds = atof(value);
        else if (!strcmp(key, "rate")) given.rate = atof(value);
        else if (!strcmp(key, "path")) given.path = value;
        else if (!strcmp(key, "fields")) given.fields = value;
        else if (!strcmp(key, "mode")) given.mode = value;
        else fail("%s: there is no such setting", key);
    }
    if (!given.port || given.ports < 1 || given.connections < 1 || given.streams < 1 || given.seconds <= 0)
        fail("port, ports, connections, streams and seconds must be above zero");
    struct rlimit limit = {.rlim_cur = 65536, .rlim_max = 65536};
    if (setrlimit(RLIMIT_NOFILE, &limit) && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGPIPE, SIG_IGN);
    // The kernel may otherwise add 50 µs to every wait.
    prctl(PR_SET_TIMERSLACK, 1);
    return given;
}

int64_t now_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int connect_loopback(uint16_t port) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail("no socket: %s", strerror(errno));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address))
        fail("no connection to port %u: %s", port, strerror(errno));
    int yes = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return descriptor;
}

void make_nonblocking(int descriptor) { fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK); }

int wait_until(int epoll, struct epoll_event *events, int capacity, int64_t deadline) {
    int64_t left = deadline - now_nanoseconds();
    if (left < 0) left = 0;
    struct timespec time = {.tv_sec = left / 1000000000LL, .tv_nsec = left % 1000000000LL};
    int count = epoll_pwait2(epoll, events, capacity, &time, NULL);
    if (count < 0 && errno != EINTR) fail("waiting failed: %s", strerror(errno));
    return count < 0 ? 0 : count;
}

static void wait_for_line(void) {
    char byte;
    for (;;) {
        ssize_t count = read(STDIN_FILENO, &byte, 1);
        if (count == 0) exit(0);
        if (count == 1 && byte == '\n') return;
    }
}

void wait_for_go(void) {
    puts("ready");
    fflush(stdout);
    wait_for_line();
}

void note_error(outcome *result, const char *format, ...) {
    if (result->errors++) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->first_error, sizeof result->first_error, format, arguments);
    va_end(arguments);
}

void note_latency(outcome *result, int64_t nanoseconds) {
    if (result->latency_count == result->latency_capacity) {
        result->latency_capacity = result->latency_capacity ? result->latency_capacity * 2 : 4096;
        result->latencies = realloc(result->latencies, result->latency_capacity * sizeof *result->latencies);
        if (!result->latencies) fail("no memory for latencies");
    }
    result->latencies[result->latency_count++] = nanoseconds;
}

static int compare(const void *one, const void *other) {
    int64_t left = *(const int64_t *)one, right = *(const int64_t *)other;
    return (left > right) - (left < right);
}

static double quantile(const outcome *result, double share) {
    if (!result->latency_count) return 0;
    size_t index = (size_t)(share * (double)(result->latency_count - 1) + 0.5);
    return (double)result->latencies[index] / 1000;
}

void report(outcome *result, double seconds) {
    qsort(result->latencies, result->latency_count, sizeof *result->latencies, compare);
    for (char *c = result->first_error; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20) *c = '\'';
    printf("{\"completed\": %llu, \"total\": %llu, \"bytes\": %llu, \"errors\": %llu, \"firstError\": \"%s\", "
           "\"seconds\": %.6f, \"latencies\": %zu, \"late\": %llu, "
           "\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"worst\": %.1f}\n",
           (unsigned long long)result->completed, (unsigned long long)result->total, (unsigned long long)result->bytes,
           (unsigned long long)result->errors, result->first_error, seconds, result->latency_count,
           (unsigned long long)result->late, quantile(result, 0.5), quantile(result, 0.9), quantile(result, 0.99),
           quantile(result, 1));
    fflush(stdout);
    wait_for_line();
}
