#ifndef APUS_SPAWN_H
#define APUS_SPAWN_H
#include <stddef.h>
#include <stdint.h>

// The spawner: a small process of one thread that makes the containers of `apus up`.
//
// A container cannot be made safely from a process with many threads: between clone(2) and execve(2) only
// async-signal-safe calls are allowed, a parent-death signal belongs to the thread that made the child, and every child
// would keep copies of the parent's pages. So `apus` starts its own executable once more; a constructor in spawn.c sees
// the marker in the environment and serves requests on a socket instead of entering main.
//
// A request is one byte and up to APUS_SPAWN_FDS descriptors. The first is a memory file with the specification:
// records of one tag byte, four length bytes (little endian) and a payload, whose strings end with NUL each.

enum { APUS_SPAWN_FDS = 6 };

// The kinds of request, and what their descriptors are after the specification (0):
// container: 1 control, 2 standard input, 3 output, 4 error, 5 network namespace
// exec:      1 control, 2 standard input, 3 output, 4 error, 5 process descriptor of the container to join
// namespace: 1 control
enum { APUS_SPAWN_CONTAINER = 'C', APUS_SPAWN_EXEC = 'X', APUS_SPAWN_NAMESPACE = 'N' };

// What arrives on the control socket. `started`: value is the process id inside the container. `failed`: value is the
// errno, text the step. `exited`: value is the status of waitpid(2).
enum { APUS_CHILD_STARTED = 1, APUS_CHILD_FAILED = 2, APUS_CHILD_EXITED = 3 };

struct apus_child_event {
    int32_t kind;
    int32_t value;
    char text[248];
};

// Starts the spawner from `executable`; returns its socket or a negative errno.
int apus_spawner_start(const char *executable, int32_t *pid);
// Asks for one process; returns 0 with its id and process descriptor, or a negative errno. Not for two threads at once.
int apus_spawner_request(int socket, uint8_t kind, const int *descriptors, int count, int32_t *pid, int *process);
// An anonymous file with these bytes, at its start; a negative errno on failure.
int apus_memory_file(const void *bytes, size_t length);
// A connected pair of close-on-exec sequenced-packet sockets; 0 or a negative errno.
int apus_control_pair(int pair[2]);
// A close-on-exec pipe, [0] to read; 0 or a negative errno.
int apus_spawn_pipe(int pair[2]);
// A pseudo-terminal: [0] is the near end, [1] the terminal; 0 or a negative errno.
int apus_terminal(int pair[2]);
// The next event: 1, 0 at the end of the stream, or a negative errno (-EAGAIN when there is none).
int apus_control_receive(int control, struct apus_child_event *event);
// Asks the container's init to signal its process; SIGKILL ends everything in the container. 0 or a negative errno.
int apus_control_signal(int control, int32_t signal);
// A process descriptor of a running process; a negative errno on failure.
int apus_process_open(int32_t pid);
// Kills by process descriptor, so never a stranger that got the same id; 0 or a negative errno.
int apus_process_kill(int process, int signal);
// mount(2), and umount2(2) with MNT_DETACH: 0 or a negative errno.
int apus_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
int apus_unmount(const char *target);
// Whether a path is a directory, links followed: 1, 0, or a negative errno.
int apus_is_directory(const char *path);
// The inode of what a path leads to, 0 when it leads nowhere.
uint64_t apus_inode(const char *path);
// Ends the watching of a descriptor before it is closed: a copy in a child may keep the file, and with it the event, alive.
int apus_watch_remove(int epoll, int descriptor);
// Takes the exclusive lock of an open file without waiting: 0, or -EWOULDBLOCK when another process has it.
int apus_lock_file(int descriptor);
#endif
