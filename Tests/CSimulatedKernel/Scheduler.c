#include "Kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

void apus_sim_begin(uint64_t seed, int64_t now) {
    pthread_mutex_lock(&sim_lock);
    for (int index = 0; index < sim_kernel.connection_count; index++) {
        free(sim_kernel.connections[index].in.bytes);
        free(sim_kernel.connections[index].out.bytes);
    }
    memset(&sim_kernel, 0, sizeof sim_kernel);
    sim_kernel.random = seed;
    sim_kernel.now = now;
    sim_kernel.next_port = 40000;
    pthread_mutex_unlock(&sim_lock);
}

void apus_sim_enter(void) { sim_is_inside = 1; }
void apus_sim_leave(void) { sim_is_inside = 0; }
int64_t apus_sim_now(void) { return sim_kernel.now; }

#define LOCKED(type, expression) \
    type result; \
    WITH_LOCK(result = (expression)); \
    return result

void apus_sim_advance(int64_t now) { WITH_LOCK(if (now > sim_kernel.now) sim_kernel.now = now); }
int apus_sim_is_parked(void) { LOCKED(int, sim_kernel.is_parked); }
int apus_sim_is_due(void) { LOCKED(int, sim_is_due()); }
int64_t apus_sim_deadline(void) { LOCKED(int64_t, sim_kernel.is_parked ? sim_kernel.deadline : INT64_MAX); }

static int has_ended(void) { return sim_kernel.slots[sim_kernel.epoll >= APUS_SIM_FIRST ? sim_kernel.epoll - APUS_SIM_FIRST : 0].kind == FREE; }

static int await_park(void) {
    struct timespec until;
    sim_real_clock(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    while (!sim_kernel.is_parked && !has_ended()) {
        struct timespec step;
        sim_real_clock(CLOCK_REALTIME, &step);
        if (step.tv_sec >= until.tv_sec) return 0;
        // The end of a thread is told by nobody.
        step.tv_nsec += 2000000;
        if (step.tv_nsec >= 1000000000) {
            step.tv_nsec -= 1000000000;
            step.tv_sec += 1;
        }
        pthread_cond_timedwait(&sim_changed, &sim_lock, &step);
    }
    return 1;
}

int apus_sim_await_park(void) { LOCKED(int, await_park()); }

int apus_sim_run(void) {
    pthread_mutex_lock(&sim_lock);
    sim_kernel.may_run = 1;
    sim_kernel.is_parked = 0;
    pthread_cond_broadcast(&sim_changed);
    int result = await_park();
    pthread_mutex_unlock(&sim_lock);
    return result;
}

int apus_sim_descriptors(void) {
    int count = 0;
    WITH_LOCK(for (int index = 0; index < TABLE; index++) count += sim_kernel.slots[index].kind != FREE);
    return count;
}

static int dial(uint16_t port) {
    for (int index = 0; index < TABLE; index++) {
        slot_t *slot = &sim_kernel.slots[index];
        if (slot->kind != LISTENER || slot->port != port || slot->backlog_count == APUS_SIM_CONNECTIONS) continue;
        int connection = sim_make_connection(0x7f000001, port);
        if (connection < 0) return -1;
        sim_kernel.connections[connection].is_told = 1;
        sim_kernel.connections[connection].is_established = 1;
        slot->backlog[slot->backlog_count++] = connection;
        return connection;
    }
    return -1;
}

int apus_sim_dial(uint16_t port) { LOCKED(int, dial(port)); }

static int next_connect(uint32_t *address, uint16_t *port) {
    while (sim_kernel.next_told < sim_kernel.connection_count) {
        connection_t *connection = &sim_kernel.connections[sim_kernel.next_told++];
        if (connection->is_told) continue;
        connection->is_told = 1;
        *address = connection->address;
        *port = connection->port;
        return sim_kernel.next_told - 1;
    }
    return -1;
}

int apus_sim_next_connect(uint32_t *address, uint16_t *port) { LOCKED(int, next_connect(address, port)); }

void apus_sim_accept(int number) {
    WITH_LOCK(if (sim_kernel.connections[number].descriptor >= 0) {
        sim_kernel.connections[number].is_established = 1;
        sim_trigger(number);
    });
}

void apus_sim_refuse(int number) {
    WITH_LOCK({
        sim_kernel.connections[number].is_refused = 1;
        sim_kernel.connections[number].error = ECONNREFUSED;
        sim_trigger(number);
    });
}

void apus_sim_set_capacity(int number, size_t bytes) { WITH_LOCK(sim_kernel.connections[number].capacity = bytes); }

static size_t put(connection_t *connection, const void *bytes, size_t count) {
    if (connection->descriptor < 0 && connection->end != 0) return count;
    if (connection->in.end_queued || connection->in.reset_queued) return 0;
    size_t space = sim_room(connection, &connection->in);
    size_t taken = count < space ? count : space;
    if (taken > 0) sim_append(&connection->in, bytes, taken);
    return taken;
}

size_t apus_sim_write(int number, const void *bytes, size_t count) {
    LOCKED(size_t, put(&sim_kernel.connections[number], bytes, count));
}

void apus_sim_finish(int number) { WITH_LOCK(sim_kernel.connections[number].in.end_queued = 1); }
void apus_sim_reset(int number) { WITH_LOCK(sim_kernel.connections[number].in.reset_queued = 1); }

void apus_sim_close(int number) {
    connection_t *connection = &sim_kernel.connections[number];
    // Closing over unread bytes resets, as a kernel does.
    WITH_LOCK({
        connection->is_peer_closed = 1;
        if (connection->out.count > 0) connection->in.reset_queued = 1; else connection->in.end_queued = 1;
        connection->out.count = 0;
    });
}

static size_t in_flight(const connection_t *connection) {
    if (connection->descriptor < 0 || !connection->is_established) return 0;
    const way_t *in = &connection->in;
    if (in->reset_arrived) return 0;
    return in->count - in->arrived + (in->reset_queued || (in->end_queued && !in->end_arrived) ? 1 : 0);
}

size_t apus_sim_in_flight(int number) { LOCKED(size_t, in_flight(&sim_kernel.connections[number])); }

void apus_sim_deliver(int number, size_t count) {
    connection_t *connection = &sim_kernel.connections[number];
    pthread_mutex_lock(&sim_lock);
    way_t *in = &connection->in;
    size_t bytes = in->count - in->arrived;
    size_t moved = count < bytes ? count : bytes;
    in->arrived += moved;
    if (in->arrived == in->count && count > moved) {
        if (in->reset_queued) {
            in->reset_arrived = 1;
            connection->error = ECONNRESET;
        } else if (in->end_queued) {
            in->end_arrived = 1;
        }
    }
    sim_trigger(number);
    pthread_mutex_unlock(&sim_lock);
}

static size_t get(int number, void *bytes, size_t capacity) {
    way_t *out = &sim_kernel.connections[number].out;
    size_t taken = capacity < out->count ? capacity : out->count;
    if (taken == 0) return 0;
    int was_full = sim_room(&sim_kernel.connections[number], out) == 0;
    sim_take(out, bytes, taken);
    if (was_full) sim_trigger(number);
    return taken;
}

size_t apus_sim_read(int number, void *bytes, size_t capacity) { LOCKED(size_t, get(number, bytes, capacity)); }
size_t apus_sim_readable(int number) { LOCKED(size_t, sim_kernel.connections[number].out.count); }

static int end_of(const connection_t *connection) {
    if (connection->out.count > 0) return APUS_SIM_OPEN;
    if (connection->end != 0) return connection->end;
    return connection->out.end_queued ? APUS_SIM_FINISHED : APUS_SIM_OPEN;
}

int apus_sim_end(int number) { LOCKED(int, end_of(&sim_kernel.connections[number])); }
int apus_sim_is_used(int number) {
    LOCKED(int, sim_kernel.connections[number].descriptor >= 0 && !sim_kernel.connections[number].is_write_ended);
}

int apus_sim_is_gone(int number) {
    LOCKED(int, sim_kernel.connections[number].descriptor < 0 && sim_kernel.connections[number].end != 0);
}
