#include "Kernel.h"

#include <errno.h>
#include <stdlib.h>

kernel_t sim_kernel;
pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t sim_changed = PTHREAD_COND_INITIALIZER;
__thread int sim_is_inside;

uint64_t sim_next_random(void) {
    sim_kernel.random = sim_kernel.random * 6364136223846793005u + 1442695040888963407u;
    return sim_kernel.random >> 33;
}

int sim_make_slot(kind_t kind) {
    for (int index = 0; index < TABLE; index++) {
        if (sim_kernel.slots[index].kind != FREE) continue;
        memset(&sim_kernel.slots[index], 0, sizeof sim_kernel.slots[index]);
        sim_kernel.slots[index].kind = kind;
        sim_kernel.slots[index].connection = -1;
        return APUS_SIM_FIRST + index;
    }
    errno = EMFILE;
    return -1;
}

connection_t *sim_connection_of(const slot_t *slot) {
    return slot->kind == CONNECTED && slot->connection >= 0 ? &sim_kernel.connections[slot->connection] : NULL;
}

size_t sim_room(const connection_t *connection, const way_t *way) {
    return way->count < connection->capacity ? connection->capacity - way->count : 0;
}

void sim_append(way_t *way, const void *bytes, size_t count) {
    uint8_t *larger = malloc(way->count + count + 1);
    if (way->count > 0) memcpy(larger, way->bytes + way->start, way->count);
    if (count > 0) memcpy(larger + way->count, bytes, count);
    free(way->bytes);
    way->bytes = larger;
    way->start = 0;
    way->count += count;
}

size_t sim_take(way_t *way, void *bytes, size_t count) {
    memcpy(bytes, way->bytes + way->start, count);
    way->start += count;
    way->count -= count;
    return count;
}

uint32_t sim_readiness(const slot_t *slot) {
    if (slot->kind == WAKEUP) return slot->count > 0 ? EPOLLIN : 0;
    if (slot->kind == LISTENER) return slot->backlog_count > 0 ? EPOLLIN : 0;
    const connection_t *connection = sim_connection_of(slot);
    if (connection == NULL) return EPOLLOUT | EPOLLHUP;
    uint32_t mask = 0;
    if (connection->is_refused) return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    if (!connection->is_established) return 0;
    const way_t *in = &connection->in;
    if (in->arrived > 0 || in->end_arrived || in->reset_arrived) mask |= EPOLLIN;
    if (in->end_arrived) mask |= EPOLLRDHUP;
    if (in->reset_arrived) mask |= EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLOUT;
    if (in->end_arrived && connection->is_write_ended) mask |= EPOLLHUP;
    if (sim_room(connection, &connection->out) > 0) mask |= EPOLLOUT;
    return mask;
}

/// Something about the connection has changed: an edge.
void sim_trigger(int connection) {
    int descriptor = sim_kernel.connections[connection].descriptor;
    if (descriptor >= 0) sim_kernel.slots[descriptor - APUS_SIM_FIRST].is_triggered = 1;
}

uint32_t sim_event_of(const slot_t *slot) {
    if (slot->kind == FREE || !slot->is_watched || (slot->is_edge && !slot->is_triggered)) return 0;
    return sim_readiness(slot) & (slot->interest | EPOLLERR | EPOLLHUP);
}

int sim_has_event(void) {
    for (int index = 0; index < TABLE; index++) {
        if (sim_event_of(&sim_kernel.slots[index]) != 0) return 1;
    }
    return 0;
}

int sim_is_due(void) { return sim_kernel.is_parked && (sim_has_event() || sim_kernel.now >= sim_kernel.deadline); }

int sim_make_connection(uint32_t address, uint16_t port) {
    if (sim_kernel.connection_count == APUS_SIM_CONNECTIONS) return -1;
    connection_t *connection = &sim_kernel.connections[sim_kernel.connection_count];
    memset(connection, 0, sizeof *connection);
    connection->is_used = 1;
    connection->descriptor = -1;
    connection->capacity = 65536;
    connection->address = address;
    connection->port = port;
    return sim_kernel.connection_count++;
}

