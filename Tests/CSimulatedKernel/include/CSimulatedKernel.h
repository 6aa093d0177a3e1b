#ifndef CSIMULATED_KERNEL_H
#define CSIMULATED_KERNEL_H

// A kernel of sockets, epoll and the monotonic clock in memory, for the threads that ask for it.
//
// This file's system calls take the place of the C library's in the program it is linked into. On a thread that has not entered the
// simulation they are the real ones. Threads that an entered thread starts have entered, too. The code under test is the real one,
// unchanged: its sockets are numbers from APUS_SIM_FIRST on, and its clock stands still unless apus_sim_advance moves it.
//
// One thread, the scheduler, plays everybody else. The thread under test runs while the scheduler waits, and the other way round, so that
// the same calls of the scheduler have the same effect every time. All apus_sim_ functions are the scheduler's.

#include <stddef.h>
#include <stdint.h>

enum { APUS_SIM_FIRST = 6000, APUS_SIM_CONNECTIONS = 512 };

/// Empties the kernel and sets its clock; `seed` decides the order of events that arrive together.
void apus_sim_begin(uint64_t seed, int64_t now_nanoseconds);
/// The calling thread takes part until it leaves: its system calls are the simulation's.
void apus_sim_enter(void);
void apus_sim_leave(void);

int64_t apus_sim_now(void);
void apus_sim_advance(int64_t now_nanoseconds);

/// Whether the thread under test waits in epoll_wait and has nothing to do.
int apus_sim_is_parked(void);
/// Waits until it does, or has ended; 0 when it has not within ten seconds of real time.
int apus_sim_await_park(void);
/// Whether it would be woken now: by an event or because its time is up.
int apus_sim_is_due(void);
/// When its time is up; INT64_MAX when it waits for events alone.
int64_t apus_sim_deadline(void);
/// Lets it run until it waits again or has ended; 0 when it does neither within ten seconds of real time.
int apus_sim_run(void);

/// Descriptors that are open: sockets, and the epoll and its wake-up.
int apus_sim_descriptors(void);

// Connections, by number. Numbers are not used twice.

/// Connects to a port that is listened on. -1 when nobody listens.
int apus_sim_dial(uint16_t port);
/// The next connection that the thread under test makes and that was not told yet: its number, and where to. -1 without one.
int apus_sim_next_connect(uint32_t *address, uint16_t *port);
void apus_sim_accept(int connection);
void apus_sim_refuse(int connection);
/// Bytes that the other side may have unread and unsent, each way.
void apus_sim_set_capacity(int connection, size_t bytes);

/// Puts bytes on their way; how many had room.
size_t apus_sim_write(int connection, const void *bytes, size_t count);
void apus_sim_finish(int connection);
void apus_sim_reset(int connection);
/// Closes both ways: what comes later is answered with a reset.
void apus_sim_close(int connection);
/// What is on its way towards the thread under test: bytes, and 1 more for an end.
size_t apus_sim_in_flight(int connection);
/// Lets so many of them arrive.
void apus_sim_deliver(int connection, size_t count);

/// Takes bytes that the thread under test has sent.
size_t apus_sim_read(int connection, void *bytes, size_t capacity);
size_t apus_sim_readable(int connection);
enum { APUS_SIM_OPEN, APUS_SIM_FINISHED, APUS_SIM_RESET };
/// What the thread under test has done with its side, when all it sent was taken.
int apus_sim_end(int connection);
/// Whether the thread under test still has its socket of it, and has not finished its side.
int apus_sim_is_used(int connection);
/// Whether the thread under test has closed its socket of it.
int apus_sim_is_gone(int connection);

#endif
