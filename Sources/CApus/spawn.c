#define _GNU_SOURCE
#include "apus_spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static const char marker[] = "APUS_SPAWNER";
enum { spawner_socket = 3, maximum_strings = 4096 };

// MARK: The client's side

int apus_memory_file(const void *bytes, size_t length) {
    int file = memfd_create("apus-spawn", MFD_CLOEXEC);
    if (file < 0) return -errno;
    size_t done = 0;
    while (done < length) {
        ssize_t count = pwrite(file, (const char *)bytes + done, length - done, (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            int error = count < 0 ? errno : EIO;
            close(file);
            return -error;
        }
        done += (size_t)count;
    }
    return file;
}

int apus_control_pair(int pair[2]) {
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
}

int apus_spawn_pipe(int pair[2]) { return pipe2(pair, O_CLOEXEC) < 0 ? -errno : 0; }

int apus_terminal(int pair[2]) {
    char name[128];
    pair[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (pair[0] < 0) return -errno;
    if (grantpt(pair[0]) == 0 && unlockpt(pair[0]) == 0 && ptsname_r(pair[0], name, sizeof name) == 0) {
        pair[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (pair[1] >= 0) return 0;
    }
    int error = errno;
    close(pair[0]);
    return -error;
}

int apus_control_receive(int control, struct apus_child_event *event) {
    memset(event, 0, sizeof *event);
    for (;;) {
        ssize_t count = recv(control, event, sizeof *event, MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno == ECONNRESET ? 0 : -errno;
        event->text[sizeof event->text - 1] = 0;
        return count == (ssize_t)sizeof *event ? 1 : 0;
    }
}

int apus_control_signal(int control, int32_t number) {
    return send(control, &number, sizeof number, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int apus_process_open(int32_t pid) {
    long process = syscall(SYS_pidfd_open, pid, 0);
    return process < 0 ? -errno : (int)process;
}

int apus_process_kill(int process, int number) {
    return syscall(SYS_pidfd_send_signal, process, number, NULL, 0) < 0 ? -errno : 0;
}

int apus_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    return mount(source, target, type, flags, data) < 0 ? -errno : 0;
}

int apus_unmount(const char *target) { return umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0; }

int apus_is_directory(const char *path) {
    struct stat status;
    return stat(path, &status) < 0 ? -errno : S_ISDIR(status.st_mode);
}

uint64_t apus_inode(const char *path) {
    struct stat status;
    return stat(path, &status) < 0 ? 0 : (uint64_t)status.st_ino;
}

int apus_watch_remove(int epoll, int descriptor) {
    return epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, NULL) < 0 ? -errno : 0;
}

int apus_lock_file(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB) < 0 ? -errno : 0; }

int apus_spawner_start(const char *executable, int32_t *pid) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    // A descriptor that already is number 3 would keep its close-on-exec mark through dup2.
    int peer = fcntl(pair[1], F_DUPFD_CLOEXEC, 10);
    close(pair[1]);
    if (peer < 0) {
        close(pair[0]);
        return -errno;
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, peer, spawner_socket);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char *arguments[] = {"apus-spawner", NULL};
    char entry[] = "APUS_SPAWNER=3";
    char *environment[] = {entry, NULL};
    pid_t child = 0;
    int error = posix_spawn(&child, executable, &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(peer);
    if (error != 0) {
        close(pair[0]);
        return -error;
    }
    *pid = child;
    return pair[0];
}

static int send_with_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, int count) {
    struct iovec vector = {(void *)bytes, length};
    char space[CMSG_SPACE(sizeof(int) * APUS_SPAWN_FDS)];
    memset(space, 0, sizeof space);
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = space;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * (size_t)count);
    }
    for (;;) {
        if (sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return 0;
        if (errno != EINTR) return -errno;
    }
}

// Returns the number of bytes; at most APUS_SPAWN_FDS descriptors are taken, the kernel closes the rest.
static ssize_t receive_with_descriptors(int socket, void *bytes, size_t length, int *descriptors, int *count) {
    struct iovec vector = {bytes, length};
    char space[CMSG_SPACE(sizeof(int) * APUS_SPAWN_FDS)];
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    *count = 0;
    ssize_t result;
    do result = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (result < 0 && errno == EINTR);
    if (result < 0) return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        int number = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(header), sizeof(int) * (size_t)number);
        *count = number;
    }
    return result;
}

int apus_spawner_request(int socket, uint8_t kind, const int *descriptors, int count, int32_t *pid, int *process) {
    if (count > APUS_SPAWN_FDS) return -EINVAL;
    int error = send_with_descriptors(socket, &kind, 1, descriptors, count);
    if (error < 0) return error;
    int32_t answer = -EPIPE;
    int received[APUS_SPAWN_FDS], number = 0;
    ssize_t length = receive_with_descriptors(socket, &answer, sizeof answer, received, &number);
    *process = number > 0 ? received[0] : -1;
    if (length != (ssize_t)sizeof answer) return length < 0 ? (int)length : -EPIPE;
    if (answer < 0) return answer;
    *pid = answer;
    return 0;
}

// MARK: The specification

struct specification {
    const unsigned char *bytes;
    size_t length, position;
};

struct record {
    unsigned char tag;
    int count;
    char *strings[maximum_strings + 1];
};

// Takes the next record apart; 0 at the end or when the record is cut short. The payload is written by ourselves and
// mapped privately, so its strings are used in place.
static int next_record(struct specification *from, struct record *record) {
    if (from->length - from->position < 5) return 0;
    const unsigned char *head = from->bytes + from->position;
    size_t size = (size_t)head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16 | (size_t)head[4] << 24;
    if (size > from->length - from->position - 5) return 0;
    char *text = (char *)(head + 5), *end = text + size;
    record->tag = head[0];
    record->count = 0;
    while (text < end && record->count < maximum_strings) {
        size_t length = strnlen(text, (size_t)(end - text));
        if (text + length == end) return 0;
        record->strings[record->count++] = text;
        text += length + 1;
    }
    record->strings[record->count] = NULL;
    from->position += 5 + size;
    return 1;
}

static int map_specification(int file, struct specification *into) {
    struct stat status;
    if (fstat(file, &status) < 0) return -errno;
    into->length = (size_t)status.st_size;
    into->position = 0;
    void *address = mmap(NULL, into->length ? into->length : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) return -errno;
    into->bytes = address;
    return 0;
}

// MARK: In the new process

static int control_socket = -1;

static void tell(int32_t kind, int32_t value, const char *text) {
    struct apus_child_event event = {.kind = kind, .value = value};
    if (text) snprintf(event.text, sizeof event.text, "%s", text);
    send(control_socket, &event, sizeof event, MSG_NOSIGNAL);
}

static void fail(const char *step, const char *detail, int error) __attribute__((noreturn));
static void fail(const char *step, const char *detail, int error) {
    char text[240];
    snprintf(text, sizeof text, "%s%s%s", step, detail && *detail ? " " : "", detail ? detail : "");
    tell(APUS_CHILD_FAILED, error, text);
    _exit(127);
}

static unsigned long number(const char *text) { return strtoul(text, NULL, 10); }

static int make_directories(const char *path, mode_t mode) {
    char copy[4096];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) return -ENAMETOOLONG;
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        if (mkdir(copy, 0755) < 0 && errno != EEXIST) return -errno;
        *at = '/';
    }
    if (mkdir(copy, mode) < 0 && errno != EEXIST) return -errno;
    return 0;
}

static int make_file(const char *path, int replace) {
    char copy[4096];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) return -ENAMETOOLONG;
    char *slash = strrchr(copy, '/');
    if (slash && slash != copy) {
        *slash = 0;
        int error = make_directories(copy, 0755);
        if (error < 0) return error;
    }
    struct stat status;
    if (!replace && stat(path, &status) == 0) return 0;
    if (replace && lstat(path, &status) == 0 && !S_ISREG(status.st_mode) && unlink(path) < 0) return -errno;
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return -errno;
    close(file);
    return 0;
}

static int write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return -errno;
    ssize_t count = write(file, text, strlen(text));
    int error = count < 0 ? -errno : 0;
    close(file);
    return error;
}

// An overlay of a host directory, so that the container sees the files and writes elsewhere; where the file system
// cannot be a lower layer, the directory itself, read-only.
static int mount_overlay(char **s) {
    char data[12288];
    int length = snprintf(data, sizeof data, "lowerdir=%s,upperdir=%s,workdir=%s", s[0], s[1], s[2]);
    if (length > 0 && length < 4096 && mount("overlay", s[3], "overlay", 0, data) == 0) return 0;
    int error = errno;
    if (strcmp(s[0], "/") == 0) return -error;
    if (mount(s[0], s[3], NULL, MS_BIND, NULL) < 0) return -errno;
    return mount(NULL, s[3], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0 ? -errno : 0;
}

// One step of making the container's view of the machine. Upper-case tags may fail without consequence.
static void perform(struct record *record) {
    char **s = record->strings;
    int error = 0;
    const char *step = "?", *detail = record->count > 0 ? s[0] : "";
    int needs = record->tag == 'm' || record->tag == 'M' ? 5 : record->tag == 'o' ? 4 : record->tag == 'c' ? 4
        : record->tag == 'd' || record->tag == 'l' || record->tag == 'p' || record->tag == 's' ? 2 : 1;
    if (record->count < needs) fail("record", "too short", EINVAL);
    switch (record->tag) {
    case 'm':
    case 'M':
        step = "mount", detail = s[1];
        if (mount(*s[0] ? s[0] : NULL, s[1], *s[2] ? s[2] : NULL, number(s[4]), *s[3] ? s[3] : NULL) < 0) error = -errno;
        if (record->tag == 'M') error = 0;
        break;
    case 'o':
        step = "mount overlay", detail = s[3];
        error = mount_overlay(s);
        break;
    case 'd':
        step = "create directory";
        error = make_directories(s[0], (mode_t)strtoul(s[1], NULL, 8));
        break;
    case 'f':
    case 'F':
        step = "create file";
        error = make_file(s[0], record->tag == 'F');
        break;
    case 'l':
        step = "link", detail = s[1];
        if (symlink(s[0], s[1]) < 0 && errno != EEXIST) error = -errno;
        break;
    case 'c':
        step = "chown";
        if (chown(s[0], (uid_t)number(s[2]), (gid_t)number(s[3])) < 0) error = -errno;
        else if (chmod(s[0], (mode_t)strtoul(s[1], NULL, 8)) < 0) error = -errno;
        break;
    case 'p':
        step = "pivot_root";
        if (syscall(SYS_pivot_root, s[0], s[1]) < 0 || chdir("/") < 0) error = -errno;
        break;
    case 'u':
        step = "unmount";
        if (umount2(s[0], MNT_DETACH) < 0) error = -errno;
        rmdir(s[0]);
        break;
    case 's':
        step = "write";
        write_text(s[0], s[1]);
        break;
    case 'h':
        step = "sethostname";
        if (sethostname(s[0], strlen(s[0])) < 0) error = -errno;
        break;
    }
    if (error < 0) fail(step, detail, -error);
}

struct process {
    char **arguments, **environment;
    const char *directory;
    uid_t user;
    gid_t group;
    gid_t groups[64];
    int group_count;
    uint64_t capabilities;
    int no_new_privileges;
    int has_terminal;
};

static char **copy_strings(struct record *record) {
    char **copy = calloc((size_t)record->count + 1, sizeof(char *));
    if (!copy) fail("allocate", "", ENOMEM);
    memcpy(copy, record->strings, sizeof(char *) * (size_t)record->count);
    return copy;
}

// Performs the steps in their order and collects what the process shall be.
static void follow(struct specification *specification, struct process *process) {
    static struct record record;
    while (next_record(specification, &record)) {
        switch (record.tag) {
        case 'a': process->arguments = copy_strings(&record); break;
        case 'e': process->environment = copy_strings(&record); break;
        case 'w': process->directory = record.count > 0 ? record.strings[0] : "/"; break;
        case 'U':
            if (record.count < 2) fail("record", "user", EINVAL);
            process->user = (uid_t)number(record.strings[0]);
            process->group = (gid_t)number(record.strings[1]);
            for (int index = 2; index < record.count && process->group_count < 64; index++)
                process->groups[process->group_count++] = (gid_t)number(record.strings[index]);
            break;
        case 'C':
            if (record.count > 0) process->capabilities = strtoull(record.strings[0], NULL, 10);
            break;
        case 'n': process->no_new_privileges = 1; break;
        case 't': process->has_terminal = 1; break;
        default: perform(&record);
        }
    }
    if (specification->position != specification->length) fail("record", "cut short", EINVAL);
}

static void limit_capabilities(uint64_t kept) {
    for (int index = 0; index < 64; index++) {
        if (kept >> index & 1) continue;
        if (prctl(PR_CAPBSET_DROP, index, 0, 0, 0) < 0 && errno == EINVAL) break;
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static int set_capabilities(uint64_t kept) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}}, now[2] = {{0}};
    if (syscall(SYS_capget, &header, now) < 0) return -errno;
    for (int half = 0; half < 2; half++) {
        uint32_t part = (uint32_t)(kept >> (32 * half)) & now[half].permitted;
        data[half].effective = data[half].permitted = part;
    }
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static int execute(struct process *process) {
    const char *name = process->arguments[0];
    if (strchr(name, '/')) {
        execve(name, process->arguments, process->environment);
        return errno;
    }
    const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (char **entry = process->environment; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0) path = *entry + 5;
    int error = ENOENT;
    while (*path) {
        size_t length = strcspn(path, ":");
        char candidate[4096];
        if (length > 0 && snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, path, name) < (int)sizeof candidate) {
            execve(candidate, process->arguments, process->environment);
            if (errno != ENOENT && errno != ENOTDIR) error = errno;
        }
        path += length;
        if (*path == ':') path++;
    }
    return error;
}

struct failure {
    int32_t error;
    char step[64];
};

// Becomes the container's own process. What goes wrong is told through `report`, which closes when execve succeeds.
static void become(struct process *process, int report, const int *standard) __attribute__((noreturn));
static void become(struct process *process, int report, const int *standard) {
    struct failure failure = {0};
    sigset_t none;
    const char *step = "set up";
    for (int signal_number = 1; signal_number < NSIG; signal_number++) signal(signal_number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    umask(022);
    do {
        step = "redirect";
        if (dup2(standard[0], 0) < 0 || dup2(standard[1], 1) < 0 || dup2(standard[2], 2) < 0) break;
        step = "take the terminal";
        if (process->has_terminal && ioctl(0, TIOCSCTTY, 0) < 0) break;
        step = "set groups";
        if (setgroups((size_t)process->group_count, process->groups) < 0) break;
        limit_capabilities(process->capabilities);
        step = "set user";
        if (setresgid(process->group, process->group, process->group) < 0) break;
        if (setresuid(process->user, process->user, process->user) < 0) break;
        step = "set capabilities";
        if (set_capabilities(process->capabilities) < 0) break;
        step = "set no_new_privs";
        if (process->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) break;
        step = "change directory";
        if (chdir(process->directory) < 0) break;
        // Everything but the report was opened close-on-exec; this is for what a host library may have left open.
        syscall(SYS_close_range, 3, report - 1, 0);
        syscall(SYS_close_range, report + 1, ~0U, 0);
        step = "execute";
        errno = execute(process);
    } while (0);
    failure.error = errno;
    snprintf(failure.step, sizeof failure.step, "%s", step);
    ssize_t ignored = write(report, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

// Forks the container's process, or fails; returns its id as seen here.
static pid_t launch(struct process *process, const int *standard) {
    int report[2];
    if (!process->arguments || !process->arguments[0]) fail("execute", "no command", EINVAL);
    if (pipe2(report, O_CLOEXEC) < 0) fail("pipe", "", errno);
    // Away from 0, 1 and 2, and above the descriptors that are closed before it.
    int high = fcntl(report[1], F_DUPFD_CLOEXEC, 64);
    if (high < 0) fail("pipe", "", errno);
    close(report[1]);
    pid_t child = fork();
    if (child < 0) fail("fork", "", errno);
    if (child == 0) become(process, high, standard);
    close(high);
    struct failure failure;
    ssize_t count;
    do count = read(report[0], &failure, sizeof failure);
    while (count < 0 && errno == EINTR);
    close(report[0]);
    if (count == (ssize_t)sizeof failure) {
        char detail[160];
        failure.step[sizeof failure.step - 1] = 0;
        snprintf(detail, sizeof detail, "%.150s",
            strcmp(failure.step, "execute") == 0 ? process->arguments[0]
                : strcmp(failure.step, "change directory") == 0 ? process->directory : "");
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
        fail(failure.step, detail, failure.error);
    }
    return child;
}

// Waits for the process, reaps orphans, passes signals on, and ends with it or with whoever holds the control socket.
static void supervise(pid_t child, int is_init) __attribute__((noreturn));
static void supervise(pid_t child, int is_init) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    int children = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children < 0) fail("signalfd", "", errno);
    for (;;) {
        int status;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
            if (ended != child) continue;
            if (is_init) kill(-1, SIGKILL);
            tell(APUS_CHILD_EXITED, status, NULL);
            _exit(0);
        }
        if (ended < 0 && errno == ECHILD) _exit(0);
        struct pollfd waits[2] = {{children, POLLIN, 0}, {control_socket, POLLIN, 0}};
        if (poll(waits, 2, -1) < 0) continue;
        if (waits[0].revents) {
            struct signalfd_siginfo information;
            while (read(children, &information, sizeof information) > 0) {}
        }
        if (waits[1].revents) {
            int32_t number = SIGKILL;
            ssize_t count = recv(control_socket, &number, sizeof number, MSG_DONTWAIT);
            if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (count != (ssize_t)sizeof number) number = SIGKILL;
            if (number == SIGKILL && is_init) {
                kill(-1, SIGKILL);
            } else {
                kill(child, number);
            }
            if (count <= 0) {
                // Nobody is left to tell; as a container's init, leaving ends whatever is still in it.
                _exit(0);
            }
        }
    }
}

static void prepare_child(int control) {
    control_socket = control;
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

static void run_container(const int *descriptors) __attribute__((noreturn));
static void run_container(const int *descriptors) {
    struct specification specification;
    struct process process = {.directory = "/"};
    prepare_child(descriptors[1]);
    prctl(PR_SET_NAME, "apus-init", 0, 0, 0);
    int error = map_specification(descriptors[0], &specification);
    if (error < 0) fail("map", "", -error);
    if (setns(descriptors[5], CLONE_NEWNET) < 0) fail("enter the network namespace", "", errno);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("mount", "/", errno);
    follow(&specification, &process);
    pid_t child = launch(&process, descriptors + 2);
    // The far ends of the pipes must close with the process, not with this init.
    for (int index = 2; index < 6; index++) close(descriptors[index]);
    tell(APUS_CHILD_STARTED, child, NULL);
    supervise(child, 1);
}

static void run_exec(const int *descriptors) __attribute__((noreturn));
static void run_exec(const int *descriptors) {
    struct specification specification;
    struct process process = {.directory = "/"};
    prepare_child(descriptors[1]);
    int error = map_specification(descriptors[0], &specification);
    if (error < 0) fail("map", "", -error);
    if (setns(descriptors[5], CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) < 0)
        fail("enter the container", "", errno);
    follow(&specification, &process);
    pid_t child = launch(&process, descriptors + 2);
    for (int index = 2; index < 6; index++) close(descriptors[index]);
    tell(APUS_CHILD_STARTED, child, NULL);
    supervise(child, 0);
}

// Makes a network namespace with loopback up and keeps it under a name: the file is the first record's string ('b').
static void run_namespace(const int *descriptors) __attribute__((noreturn));
static void run_namespace(const int *descriptors) {
    struct specification specification;
    static struct record record;
    prepare_child(descriptors[1]);
    int error = map_specification(descriptors[0], &specification);
    if (error < 0) fail("map", "", -error);
    if (unshare(CLONE_NEWNET) < 0) fail("unshare", "network namespace", errno);
    int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};
    if (socket_ < 0 || ioctl(socket_, SIOCGIFFLAGS, &request) < 0) fail("loopback", "", errno);
    request.ifr_flags |= IFF_UP;
    if (ioctl(socket_, SIOCSIFFLAGS, &request) < 0) fail("loopback", "", errno);
    while (next_record(&specification, &record)) {
        if (record.tag == 'b' && record.count > 0) {
            int file = open(record.strings[0], O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
            if (file < 0) fail("create", record.strings[0], errno);
            close(file);
            if (mount("/proc/self/ns/net", record.strings[0], NULL, MS_BIND, NULL) < 0) {
                int reason = errno;
                unlink(record.strings[0]);
                fail("mount", record.strings[0], reason);
            }
        } else {
            perform(&record);
        }
    }
    tell(APUS_CHILD_EXITED, 0, NULL);
    _exit(0);
}

// MARK: The spawner's loop

static void serve(int socket) {
    for (;;) {
        uint8_t kind = 0;
        int descriptors[APUS_SPAWN_FDS], count = 0, process = -1;
        ssize_t length = receive_with_descriptors(socket, &kind, 1, descriptors, &count);
        if (length <= 0) return;
        int needed = kind == APUS_SPAWN_NAMESPACE ? 2 : APUS_SPAWN_FDS;
        int32_t answer = -EINVAL;
        if (count == needed) {
            unsigned long flags = SIGCHLD | CLONE_PIDFD;
            if (kind == APUS_SPAWN_CONTAINER) flags |= CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;
            long child = syscall(SYS_clone, flags, NULL, &process, NULL, NULL);
            if (child == 0) {
                close(socket);
                if (kind == APUS_SPAWN_CONTAINER) run_container(descriptors);
                if (kind == APUS_SPAWN_EXEC) run_exec(descriptors);
                run_namespace(descriptors);
            }
            answer = child < 0 ? -errno : (int32_t)child;
        }
        for (int index = 0; index < count; index++) close(descriptors[index]);
        int error = send_with_descriptors(socket, &answer, sizeof answer, &process, process >= 0 ? 1 : 0);
        if (process >= 0) close(process);
        if (error < 0) return;
    }
}

__attribute__((constructor)) static void serve_when_marked(void) {
    if (!getenv(marker)) return;
    unsetenv(marker);
    // Its own session: a Ctrl-C at the terminal is for the platform, which then ends the containers in order.
    setsid();
    prctl(PR_SET_NAME, "apus-spawner", 0, 0, 0);
    syscall(SYS_close_range, spawner_socket + 1, ~0U, 0);
    fcntl(spawner_socket, F_SETFD, FD_CLOEXEC);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    serve(spawner_socket);
    _exit(0);
}
