#ifndef KERNEL_H
#define KERNEL_H

// The simulation's state, and what the system calls and the scheduler share. Whoever touches it holds the lock.

#define _GNU_SOURCE
#include "CSimulatedKernel.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>

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

typedef struct {
    slot_t slots[TABLE];
    connection_t connections[APUS_SIM_CONNECTIONS];
    int connection_count, next_told;
    uint16_t next_port;
    int64_t now, deadline;
    uint64_t random;
    /// The thread under test: waiting in epoll_wait, and let go again.
    int is_parked, may_run, epoll;
} kernel_t;

extern kernel_t sim_kernel;
extern pthread_mutex_t sim_lock;
extern pthread_cond_t sim_changed;
/// Whether the thread has entered the simulation.
extern __thread int sim_is_inside;

#define WITH_LOCK(body)            \
    do {                           \
        pthread_mutex_lock(&sim_lock); \
        body;                      \
        pthread_mutex_unlock(&sim_lock); \
    } while (0)

uint64_t sim_next_random(void);
int sim_make_slot(kind_t kind);
connection_t *sim_connection_of(const slot_t *slot);
int sim_make_connection(uint32_t address, uint16_t port);
/// Bytes that still fit.
size_t sim_room(const connection_t *connection, const way_t *way);
void sim_append(way_t *way, const void *bytes, size_t count);
size_t sim_take(way_t *way, void *bytes, size_t count);
/// What epoll would say of it now.
uint32_t sim_readiness(const slot_t *slot);
/// Something about the connection has changed: an edge.
void sim_trigger(int connection);
uint32_t sim_event_of(const slot_t *slot);
int sim_is_due(void);
/// The C library's clock_gettime.
int sim_real_clock(clockid_t clock, struct timespec *time);

#endif
