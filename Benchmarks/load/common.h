// What the load generators share: settings from the command line, time, latencies, and the talk with the rig.
#ifndef APUS_BENCH_COMMON_H
#define APUS_BENCH_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

// How long nothing may come back before a run is given up.
#define STALL_NANOSECONDS (10 * 1000000000LL)

typedef struct {
    uint16_t port;       // of the proxy on 127.0.0.1
    int ports;           // consecutive ports, over which the connections are spread
    int connections;
    int active;          // HTTP/1: of them, how many have a request under way at a time; 0 is all
    int streams;         // HTTP/2 streams at a time on each connection
    int messages;        // of one gRPC call; 0 asks with GET
    int renew;           // HTTP/1: a new connection for each request
    double seconds;
    uint64_t requests;   // at saturation: ends after so many, if the seconds have not; 0 is without limit
    double rate;         // requests a second, evenly spaced; 0 is one after the other on each connection or stream
    const char *path;
    const char *fields;  // HTTP/1: further field lines, each with its CRLF
    const char *mode;    // TCP: bulk or connect
} settings;

// KEY=VALUE arguments; ends the process with the reason where one is wrong.
settings read_settings(int count, char **arguments);

int64_t now_nanoseconds(void);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

// A connected socket, blocking and without Nagle's delay.
int connect_loopback(uint16_t port);
void make_nonblocking(int descriptor);

// Waits until `deadline` at most, to the nanosecond.
int wait_until(int epoll, struct epoll_event *events, int capacity, int64_t deadline);

// Everything is connected and warm: tells the rig and waits for its word.
void wait_for_go(void);

// What one run has come to.
typedef struct {
    uint64_t completed;         // inside the period
    uint64_t total;             // with those that were under way at its end
    uint64_t bytes;             // of payload received
    uint64_t errors;
    char first_error[200];
    int64_t *latencies;         // of requests at a fixed rate, from the intended time of sending
    size_t latency_count;
    size_t latency_capacity;
    uint64_t late;              // requests that found every connection busy at their time
} outcome;

void note_error(outcome *result, const char *format, ...) __attribute__((format(printf, 2, 3)));
void note_latency(outcome *result, int64_t nanoseconds);
// Prints the result as one line of JSON and waits until the rig has looked at the proxies' memory.
void report(outcome *result, double seconds);

int run_http1(const settings *given);
int run_http2(const settings *given);
int run_tcp(const settings *given);

#endif
