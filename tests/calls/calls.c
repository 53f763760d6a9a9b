// Carries out sequences of system calls and writes down how each ended: `calls SCRIPT LOG`.
//
// A line of the script is `@ DIRECTORY`, where a sequence begins (the directory is made, and is the working directory), or a
// call with its arguments. `fork`, `as`, `share`, `thread` and the kinds of `exec` begin a block that another process or
// thread carries out while this one waits; `end` ends it. What came of each call goes to the log, a line a call: the number
// of its line in the sequence, and `ok`, `E` with the error's number, or what was seen. After a sequence comes a listing of its
// directory. Nothing in the log depends on the time, on process or inode numbers. tests/calls.py writes such scripts.
//
// `calls --enter DIRECTORY PROGRAM [ARGUMENT...]` runs a program as a container has it: the directory is its root, with /proc
// and a small /dev, and root has Docker's default capabilities. It is what the results are compared with.
//
// The calls are made without the C library's wrappers, which differ in what they do for all threads.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ARGUMENTS 8
#define MOST_LINES 4096
#define FIRST_SLOT 10
#define LONG_AGO 1000000000
#define IS(name) (strcmp(op, name) == 0)
#define CALL(name, ...) syscall(SYS_##name, ##__VA_ARGS__)
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif

enum { SCRIPT = 100, LOG = 101 };

// ---- the log

static char said[1 << 16];
static size_t length;

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(said + length, sizeof said - length, format, arguments);
    va_end(arguments);
    if (more < 0) abort();
    length += more;
    if (length >= sizeof said) length = sizeof said - 1;
}

static void say_bytes(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) say(at[i] > ' ' && at[i] < 127 && at[i] != '\\' ? "%c" : "\\%02x", at[i]);
}

static void flush(void) {
    if (length && write(LOG, said, length) != (ssize_t)length) abort();
    length = 0;
}

static int done(long value) {
    if (value < 0) say("E%d", errno);
    else say("ok");
    return value >= 0;
}

static void number(long value) {
    if (value < 0) say("E%d", errno);
    else say("%ld", value);
}

static void say_time(long long seconds) {
    if (seconds < LONG_AGO) say(" t%lld", seconds);
    else say(" now");
}

// Of what has a number instead of a name only the kind.
static void say_target(const char *text, size_t size) {
    if (size > 7 && memcmp(text, "socket:", 7) == 0) size = 7;
    if (size && strspn(text, "0123456789") >= size) say(" N");
    else say(" "), say_bytes(text, size);
}

static dev_t tree_device(void) {
    struct stat is;
    if (fstat(LOG, &is) < 0) abort();
    return is.st_dev;
}

// Of what is not the tree's only what is no matter of the machine.
static void say_stat(const struct stat *is) {
    say("%o %u:%u", is->st_mode, is->st_uid, is->st_gid);
    if (S_ISCHR(is->st_mode) || S_ISBLK(is->st_mode)) say(" d%u:%u", major(is->st_rdev), minor(is->st_rdev));
    if (is->st_dev != tree_device()) return;
    say(" n%u", (unsigned)is->st_nlink);
    if (!S_ISDIR(is->st_mode)) say(" z%lld", (long long)is->st_size);
    say_time(is->st_mtime);
}

static void say_groups(void) {
    gid_t groups[64];
    long count = CALL(getgroups, 64, groups);
    if (count < 0) done(count);
    for (long at = 0; at < count; at++) say("%s%u", at ? "," : "", groups[at]);
}

static void say_ids(void) {
    unsigned r, e, s;
    if (CALL(getresuid, &r, &e, &s) < 0) abort();
    say("u%d,%d,%d,%ld", r, e, s, (long)CALL(setfsuid, -1));
    if (CALL(getresgid, &r, &e, &s) < 0) abort();
    say(" g%d,%d,%d,%ld", r, e, s, (long)CALL(setfsgid, -1));
    say(" (%ld %ld %ld %ld) G", (long)CALL(getuid), (long)CALL(geteuid), (long)CALL(getgid), (long)CALL(getegid));
    say_groups();
    long mask = CALL(umask, 0);
    CALL(umask, mask);
    say(" m%lo", mask);
}

static void say_capabilities(void) {
    unsigned head[2] = {0x20080522, 0}, sets[6] = {0};
    if (!done(CALL(capget, head, sets))) return;
    say(" e%x p%x i%x", sets[0], sets[1], sets[2]);
}

// ---- arguments

static const char *path_of(const char *word) { return strcmp(word, "%") == 0 ? "" : word; }
static int slot_of(const char *word) { return *word == '-' ? AT_FDCWD : FIRST_SLOT + atoi(word); }
static long number_of(const char *word) { return strtol(word, NULL, 0); }

static void into_slot(long file, const char *slot, int flags) {
    if (file < 0) {
        done(file);
        return;
    }
    say("%ld", file);
    int to = slot_of(slot);
    if (file != to) {
        if (CALL(dup3, file, to, flags & O_CLOEXEC) < 0) say(" E%d", errno);
        CALL(close, file);
    }
}

static struct timespec time_of(const char *word) {
    if (strcmp(word, "now") == 0) return (struct timespec){0, UTIME_NOW};
    if (strcmp(word, "omit") == 0) return (struct timespec){0, UTIME_OMIT};
    return (struct timespec){number_of(word), 7};
}

static size_t groups_of(const char *word, gid_t *groups) {
    size_t count = 0;
    while (word && *word && *word != '-') {
        groups[count++] = strtoul(word, NULL, 10);
        word = strchr(word, ',');
        if (word) word++;
    }
    return count;
}

static socklen_t address(const char *path, struct sockaddr_un *to) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    size_t size = strlen(path);
    if (size >= sizeof to->sun_path) size = sizeof to->sun_path - 1;
    memcpy(to->sun_path, path, size);
    return offsetof(struct sockaddr_un, sun_path) + size + 1;
}

static void say_address(const struct sockaddr_un *from, socklen_t size) {
    size_t family = offsetof(struct sockaddr_un, sun_path);
    say(" a%u:", (unsigned)size);
    if (size > family) say_bytes(from->sun_path, size - family < sizeof from->sun_path ? size - family : sizeof from->sun_path);
}

// A file capability: cap_net_bind_service, permitted and effective.
#define CAPABILITY "security.capability"
static const unsigned capability[5] = {0x02000001, 1 << 10, 0, 0, 0};

// `struct statx`, for C libraries without it.
struct extended {
    unsigned mask, block;
    unsigned long long attributes;
    unsigned links, uid, gid;
    unsigned short mode, unused;
    unsigned long long inode, size, blocks, attributes_mask, atime[2], btime[2], ctime[2];
    long long mtime, nanoseconds;
    unsigned device[4];
    char rest[256];
};

// ---- calls with more to them

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(int directory) {
    char buffer[32768], *entries[512];
    size_t count = 0;
    long size = CALL(lseek, directory, 0, SEEK_SET);
    if (size < 0 || (size = CALL(getdents64, directory, buffer, sizeof buffer)) < 0) {
        done(size);
        return;
    }
    for (long at = 0; at < size && count < 512;) {
        char *entry = buffer + at;
        unsigned short step;
        memcpy(&step, entry + 16, sizeof step);
        entry[17] = "?pc?d?b?-?l?s?w?"[entry[18] & 15]; // the last byte of the length, which is no more needed
        entry[18] = entry[17];
        entries[count++] = entry + 19;
        at += step;
    }
    qsort(entries, count, sizeof *entries, by_name);
    say("ok");
    struct stat is;
    if (fstat(directory, &is) < 0 || is.st_dev != tree_device()) return; // processes come and go
    for (size_t at = 0; at < count; at++) say(" %c%s", entries[at][-1], entries[at]);
}

// The open descriptors but the one that looks.
static void descriptors(void) {
    DIR *listing = opendir("/proc/self/fd");
    if (!listing) {
        done(-1);
        return;
    }
    int is_open[128] = {0};
    for (struct dirent *entry; (entry = readdir(listing));) {
        int file = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && file != dirfd(listing) && file < 128) is_open[file] = 1;
    }
    closedir(listing);
    say("ok");
    for (int file = 0; file < 128; file++)
        if (is_open[file]) say(" %d", file);
}

static void pass(int file, const char *slot) {
    int ends[2];
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
        done(-1);
        return;
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &file, sizeof file);
    if (CALL(sendmsg, ends[0], &message, 0) < 0) {
        done(-1);
    } else {
        memset(control, 0, sizeof control);
        message.msg_controllen = sizeof control;
        long got = CALL(recvmsg, ends[1], &message, 0);
        head = CMSG_FIRSTHDR(&message);
        if (got < 0 || !head) {
            done(-1);
        } else {
            memcpy(&file, CMSG_DATA(head), sizeof file);
            into_slot(file, slot, 0);
        }
    }
    CALL(close, ends[0]), CALL(close, ends[1]);
}

static void same(const char *one, const char *other) {
    struct stat a, b;
    if (stat(path_of(one), &a) < 0 || stat(path_of(other), &b) < 0) done(-1);
    else say("%d %d", a.st_dev == b.st_dev, a.st_ino == b.st_ino);
}

static void attribute(const char *op, const char *how, const char *where, const char *name, const char *value, int flags) {
    char found[4096];
    const void *bytes = value;
    size_t size = strlen(value);
    const char *path = path_of(where);
    int file = slot_of(where);
    if (strcmp(value, "cap") == 0) bytes = capability, size = sizeof capability;
    if (IS("setxattr")) {
        done(*how == 'f' ? CALL(fsetxattr, file, name, bytes, size, flags)
             : *how == 'l' ? CALL(lsetxattr, path, name, bytes, size, flags) : CALL(setxattr, path, name, bytes, size, flags));
    } else if (IS("removexattr")) {
        done(*how == 'f' ? CALL(fremovexattr, file, name)
             : *how == 'l' ? CALL(lremovexattr, path, name) : CALL(removexattr, path, name));
    } else if (IS("getxattr")) {
        long count = *how == 'f' ? CALL(fgetxattr, file, name, found, sizeof found)
                   : *how == 'l' ? CALL(lgetxattr, path, name, found, sizeof found)
                                 : CALL(getxattr, path, name, found, sizeof found);
        if (!done(count)) return;
        say(" "), say_bytes(found, count);
    } else {
        long count = *how == 'f' ? CALL(flistxattr, file, found, sizeof found)
                   : *how == 'l' ? CALL(llistxattr, path, found, sizeof found) : CALL(listxattr, path, found, sizeof found);
        if (!done(count)) return;
        char *names[64];
        size_t some = 0;
        for (char *at = found; at < found + count && some < 64; at += strlen(at) + 1) names[some++] = at;
        qsort(names, some, sizeof *names, by_name);
        for (size_t at = 0; at < some; at++) say(" %s", names[at]);
    }
}

static void use_socket(const char *op, const char *a, const char *b, const char *c) {
    struct sockaddr_un peer = {0};
    socklen_t size = sizeof peer;
    int file = slot_of(a);
    if (IS("socket")) {
        int type = *b == 's' ? SOCK_STREAM : *b == 'd' ? SOCK_DGRAM : SOCK_SEQPACKET;
        into_slot(CALL(socket, AF_UNIX, type | SOCK_NONBLOCK, 0), a, 0);
    } else if (IS("bind")) {
        size = address(path_of(b), &peer);
        done(CALL(bind, file, &peer, size));
    } else if (IS("connect")) {
        size = address(path_of(b), &peer);
        done(CALL(connect, file, &peer, size));
    } else if (IS("listen")) {
        done(CALL(listen, file, 5));
    } else if (IS("accept")) {
        into_slot(CALL(accept4, file, NULL, NULL, SOCK_NONBLOCK), b, 0);
    } else if (IS("sockname") || IS("peername")) {
        long value = IS("sockname") ? CALL(getsockname, file, &peer, &size) : CALL(getpeername, file, &peer, &size);
        if (done(value)) say_address(&peer, size);
    } else if (IS("peercred")) {
        struct ucred who = {0};
        size = sizeof who;
        if (done(CALL(getsockopt, file, SOL_SOCKET, SO_PEERCRED, &who, &size))) say(" %d %d", (int)who.uid, (int)who.gid);
    } else if (IS("sendto")) {
        size = address(path_of(b), &peer);
        done(CALL(sendto, file, c, strlen(c), MSG_NOSIGNAL, &peer, size));
    } else {
        char text[256];
        long count = CALL(recvfrom, file, text, sizeof text, MSG_DONTWAIT, &peer, &size);
        if (!done(count)) return;
        say(" "), say_bytes(text, count), say_address(&peer, size);
    }
}

static void read_file(int file, size_t size, off_t offset) {
    char text[256];
    if (size > sizeof text) size = sizeof text;
    long count = offset < 0 ? CALL(read, file, text, size) : CALL(pread64, file, text, size, offset);
    if (!done(count)) return;
    say(" "), say_bytes(text, count);
}

static void set_ids(const char *op, const char *a, const char *b, const char *c) {
    long x = number_of(a), y = number_of(b), z = number_of(c);
    gid_t groups[64];
    if (IS("setuid")) done(CALL(setuid, x));
    else if (IS("setgid")) done(CALL(setgid, x));
    else if (IS("setreuid")) done(CALL(setreuid, x, y));
    else if (IS("setregid")) done(CALL(setregid, x, y));
    else if (IS("setresuid")) done(CALL(setresuid, x, y, z));
    else if (IS("setresgid")) done(CALL(setresgid, x, y, z));
    else if (IS("setfsuid")) number(CALL(setfsuid, x));
    else if (IS("setfsgid")) number(CALL(setfsgid, x));
    else {
        size_t count = groups_of(a, groups);
        done(CALL(setgroups, count, groups));
    }
}

static void copy_program(const char *to, mode_t mode) {
    char part[1 << 16];
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), made = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    for (ssize_t count; from >= 0 && made >= 0 && (count = read(from, part, sizeof part)) > 0;)
        if (write(made, part, count) != count) abort();
    done(from < 0 || made < 0 ? -1 : fchmod(made, mode));
    if (from >= 0) close(from);
    if (made >= 0) close(made);
}

// The calls of before there were directories to begin at, where the machine has them.
static int act_old(const char *op, const char *a, const char *b, const char *c) {
    struct stat is;
    (void)op, (void)a, (void)b, (void)c, (void)is;
#ifdef SYS_open
    const char *path = path_of(a);
    if (IS("old-open")) {
        long file = CALL(open, path, number_of(b) & ~O_PATH, 0644);
        done(file);
        if (file >= 0) CALL(close, file);
    } else if (IS("old-creat")) {
        long file = CALL(creat, path, number_of(b));
        done(file);
        if (file >= 0) CALL(close, file);
    } else if (IS("old-stat") || IS("old-lstat")) {
        long value = IS("old-stat") ? CALL(stat, path, &is) : CALL(lstat, path, &is);
        value < 0 ? (void)done(value) : say_stat(&is);
    } else if (IS("old-access")) done(CALL(access, path, number_of(b)));
    else if (IS("old-mkdir")) done(CALL(mkdir, path, number_of(b)));
    else if (IS("old-rmdir")) done(CALL(rmdir, path));
    else if (IS("old-unlink")) done(CALL(unlink, path));
    else if (IS("old-rename")) done(CALL(rename, path, path_of(b)));
    else if (IS("old-link")) done(CALL(link, path, path_of(b)));
    else if (IS("old-symlink")) done(CALL(symlink, path, path_of(b)));
    else if (IS("old-chmod")) done(CALL(chmod, path, number_of(b)));
    else if (IS("old-chown")) done(CALL(chown, path, number_of(b), number_of(c)));
    else if (IS("old-lchown")) done(CALL(lchown, path, number_of(b), number_of(c)));
    else if (IS("old-utimes")) {
        struct timeval times[2] = {{number_of(b), 0}, {number_of(c), 0}};
        done(CALL(utimes, path, times));
    } else return 0;
    return 1;
#else
    return 0;
#endif
}

// What a process is, as /proc has it.
static void say_status(void) {
    char text[8192], *line = text;
    int file = CALL(openat, AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) CALL(close, file);
    if (!done(size)) return;
    text[size] = 0;
    for (char *next; (next = strchr(line, '\n')); line = next + 1) {
        *next = 0;
        if (strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0 || strncmp(line, "Groups:", 7) == 0 ||
            strncmp(line, "Umask:", 6) == 0) {
            say(" "), say_bytes(line, strlen(line));
        }
    }
}

static void act(char **word) {
    const char *op = word[0], *a = word[1], *b = word[2], *c = word[3], *d = word[4], *e = word[5];
    struct stat is;
    char text[8192];
    if (IS("open")) {
        long file = CALL(openat, slot_of(a), path_of(b), number_of(c), number_of(d));
        int flags = file < 0 ? 0 : fcntl(file, F_GETFL), own = errno;
        errno = own;
        into_slot(file, e, number_of(c));
        if (file >= 0) say(" %o", flags);
        if (file >= 0 && number_of(c) & O_PATH) { // may it be read?
            snprintf(text, sizeof text, "/proc/self/fd/%d", slot_of(e));
            long again = CALL(openat, AT_FDCWD, text, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
            if (again < 0) say(" E%d", errno);
            else CALL(close, again);
        }
    } else if (IS("close")) done(CALL(close, slot_of(a)));
    else if (IS("dup")) into_slot(CALL(dup, slot_of(a)), b, 0);
    else if (IS("dup2")) done(CALL(dup3, slot_of(a), slot_of(b), number_of(c)));
    else if (IS("getfl")) number(CALL(fcntl, slot_of(a), F_GETFL));
    else if (IS("setfl")) done(CALL(fcntl, slot_of(a), F_SETFL, number_of(b)));
    else if (IS("getfd")) number(CALL(fcntl, slot_of(a), F_GETFD));
    else if (IS("setfd")) done(CALL(fcntl, slot_of(a), F_SETFD, number_of(b)));
    else if (IS("pass")) pass(slot_of(a), b);
    else if (IS("fds")) descriptors();
    else if (IS("read")) read_file(slot_of(a), number_of(b), -1);
    else if (IS("pread")) read_file(slot_of(a), number_of(b), number_of(c));
    else if (IS("write")) number(CALL(write, slot_of(a), b, strlen(b)));
    else if (IS("pwrite")) number(CALL(pwrite64, slot_of(a), b, strlen(b), number_of(c)));
    else if (IS("lseek")) number(CALL(lseek, slot_of(a), number_of(b), number_of(c)));
    else if (IS("ftruncate")) done(CALL(ftruncate, slot_of(a), number_of(b)));
    else if (IS("fallocate")) done(CALL(fallocate, slot_of(a), number_of(b), number_of(c), number_of(d)));
    else if (IS("fsync")) done(CALL(fsync, slot_of(a)));
    else if (IS("stat") || IS("fstat")) {
        long value = IS("fstat") ? CALL(fstat, slot_of(a), &is)
                                 : CALL(newfstatat, slot_of(a), path_of(b), &is, number_of(c));
        value < 0 ? (void)done(value) : say_stat(&is);
    } else if (IS("statx")) {
        struct extended x = {0};
        long value = CALL(statx, slot_of(a), path_of(b), number_of(c), number_of(d), &x);
        is = (struct stat){.st_mode = x.mode, .st_uid = x.uid, .st_gid = x.gid, .st_nlink = x.links, .st_size = x.size};
        is.st_rdev = makedev(x.device[0], x.device[1]), is.st_dev = makedev(x.device[2], x.device[3]);
        is.st_mtime = x.mtime;
        value < 0 ? (void)done(value) : say_stat(&is);
    } else if (IS("statfs") || IS("fstatfs")) {
        struct statfs fs;
        long value = IS("statfs") ? CALL(statfs, path_of(a), &fs) : CALL(fstatfs, slot_of(a), &fs);
        value < 0 ? (void)done(value) : say("%lx", (unsigned long)fs.f_type);
    } else if (IS("access")) {
        done(CALL(faccessat2, slot_of(a), path_of(b), number_of(c), number_of(d)));
    } else if (IS("oldaccess")) {
        done(CALL(faccessat, slot_of(a), path_of(b), number_of(c)));
    } else if (IS("readlink")) {
        long count = CALL(readlinkat, slot_of(a), path_of(b), text, sizeof text);
        if (done(count)) say_target(text, count);
    } else if (IS("fdlink")) {
        snprintf(text, sizeof text, "/proc/self/fd/%d", slot_of(a));
        long count = CALL(readlinkat, AT_FDCWD, text, text + 100, 4000);
        if (done(count)) say_target(text + 100, count);
    } else if (IS("getcwd")) {
        long count = CALL(getcwd, text, sizeof text);
        if (done(count)) say(" "), say_bytes(text, count - 1);
    } else if (IS("ls")) {
        long file = CALL(openat, slot_of(a), path_of(b), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (file < 0) done(file);
        else list(file), CALL(close, file);
    } else if (IS("list")) list(slot_of(a));
    else if (IS("chdir")) done(CALL(chdir, path_of(a)));
    else if (IS("fchdir")) done(CALL(fchdir, slot_of(a)));
    else if (IS("chroot")) done(CALL(chroot, path_of(a)));
    else if (IS("mkdir")) done(CALL(mkdirat, slot_of(a), path_of(b), number_of(c)));
    else if (IS("mknod")) done(CALL(mknodat, slot_of(a), path_of(b), number_of(c), makedev(number_of(d), number_of(e))));
    else if (IS("symlink")) done(CALL(symlinkat, path_of(a), slot_of(b), path_of(c)));
    else if (IS("link")) done(CALL(linkat, slot_of(a), path_of(b), slot_of(c), path_of(d), number_of(e)));
    else if (IS("unlink")) done(CALL(unlinkat, slot_of(a), path_of(b), number_of(c)));
    else if (IS("rename")) done(CALL(renameat2, slot_of(a), path_of(b), slot_of(c), path_of(d), number_of(e)));
    else if (IS("chmod")) {
        done(number_of(d) ? CALL(fchmodat2, slot_of(a), path_of(b), number_of(c), number_of(d))
                          : CALL(fchmodat, slot_of(a), path_of(b), number_of(c)));
    } else if (IS("fchmod")) done(CALL(fchmod, slot_of(a), number_of(b)));
    else if (IS("chown")) done(CALL(fchownat, slot_of(a), path_of(b), number_of(c), number_of(d), number_of(e)));
    else if (IS("fchown")) done(CALL(fchown, slot_of(a), number_of(b), number_of(c)));
    else if (IS("utimens") || IS("futimens")) {
        struct timespec times[2] = {time_of(c), time_of(d)};
        done(IS("utimens") ? CALL(utimensat, slot_of(a), path_of(b), times, number_of(e))
                           : CALL(utimensat, slot_of(a), NULL, times, 0));
    } else if (IS("truncate")) done(CALL(truncate, path_of(a), number_of(b)));
    else if (IS("setxattr") || IS("getxattr") || IS("listxattr") || IS("removexattr")) {
        attribute(op, a, b, c, d, number_of(e));
    } else if (IS("same")) same(a, b);
    else if (IS("umask")) number(CALL(umask, number_of(a)));
    else if (IS("ids")) say_ids();
    else if (IS("status")) say_status();
    else if (IS("caps")) say_capabilities();
    else if (IS("dumpable")) number(CALL(prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
    else if (IS("keepcaps")) done(CALL(prctl, PR_SET_KEEPCAPS, number_of(a), 0, 0, 0));
    else if (strncmp(op, "set", 3) == 0) set_ids(op, a, b, c);
    else if (IS("unshare")) done(CALL(unshare, number_of(a)));
    else if (IS("kill")) done(CALL(kill, *a == 'p' ? getppid() : getpid(), number_of(b)));
    else if (IS("program")) copy_program(path_of(a), number_of(b));
    else if (IS("script")) { // a file that begins with `#!`
        int file = open(path_of(a), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600);
        int count = snprintf(text, sizeof text, "#!%s%s%s\n", b, *c == '%' ? "" : " ", path_of(c));
        if (file < 0) done(file);
        else {
            number(write(file, text, count));
            fchmod(file, number_of(d));
            close(file);
        }
    } else if (strncmp(op, "socket", 6) == 0 || IS("bind") || IS("connect") || IS("listen") || IS("accept") ||
               IS("sockname") || IS("peername") || IS("peercred") || IS("sendto") || IS("recvfrom")) {
        use_socket(op, a, b, c);
    } else if (!act_old(op, a, b, c)) {
        say("no such call");
    }
}

// ---- sequences

static char *script, *lines[MOST_LINES];
static size_t script_size, sequence_start;
static int line_count;

static int is_block(const char *line) {
    static const char *const openers[] = {"fork", "as", "share", "thread", "exec", "vexec", "execat"};
    size_t size = strcspn(line, " ");
    for (size_t at = 0; at < sizeof openers / sizeof *openers; at++)
        if (strlen(openers[at]) == size && strncmp(line, openers[at], size) == 0) return 1;
    return 0;
}

static int end_of_block(int at) {
    for (int depth = 1; ++at < line_count;) {
        if (is_block(lines[at])) depth++;
        else if (strcmp(lines[at], "end") == 0 && --depth == 0) return at;
    }
    return line_count;
}

static void run(int from, int to);

struct part { int from, to; };

static void *run_thread(void *argument) {
    struct part *part = argument;
    run(part->from, part->to);
    return NULL;
}

static void start_program(int at, char **word) {
    char here[64], *arguments[] = {"x", "y", NULL}, *variables[] = {here, NULL};
    snprintf(here, sizeof here, "CALLS=%zu:%d", sequence_start, at);
    int is_at = strcmp(word[0], "execat") == 0;
    if (strcmp(word[0], "vexec") != 0) {
        if (is_at) CALL(execveat, slot_of(word[1]), path_of(word[2]), arguments, variables, number_of(word[3]));
        else CALL(execve, path_of(word[1]), arguments, variables);
        say("%d E%d\n", at, errno);
        flush();
        _exit(0);
    }
    CALL(execve, path_of(word[1]), arguments, variables);
}

static void wait_for(int at, long child) {
    int status = 0;
    if (child < 0) {
        say("%d no process: E%d\n", at, errno);
    } else {
        while (waitpid(child, &status, __WALL) < 0 && errno == EINTR) {}
        if (status) say("%d ended with status %x\n", at, status);
    }
    flush();
}

static void block(int at, int end, char **word) {
    const char *op = word[0];
    if (IS("thread")) {
        pthread_t thread;
        struct part part = {at + 1, end};
        if (pthread_create(&thread, NULL, run_thread, &part) || pthread_join(thread, NULL)) say("%d no thread\n", at);
        return;
    }
    if (IS("vexec")) {
        volatile int failed = 0;
        pid_t child = vfork();
        if (child == 0) {
            start_program(at, word);
            failed = errno;
            _exit(0);
        }
        if (failed) say("%d E%d\n", at, failed);
        wait_for(at, child);
        return;
    }
    long child = IS("share") ? syscall(SYS_clone, number_of(word[1]) | SIGCHLD, 0, 0, 0, 0) : fork();
    if (child == 0) {
        if (IS("exec") || IS("execat")) start_program(at, word);
        if (IS("as")) {
            gid_t groups[64];
            size_t count = groups_of(word[3], groups);
            unsigned uid = number_of(word[1]), gid = number_of(word[2]);
            long bad = CALL(setgroups, count, groups) | CALL(setresgid, gid, gid, gid) | CALL(setresuid, uid, uid, uid);
            say("%d %s\n", at, bad ? "not that user" : "ok");
            flush();
        }
        run(at + 1, end);
        _exit(0);
    }
    wait_for(at, child);
}

static void run(int from, int to) {
    for (int at = from; at < to; at++) {
        char copy[4096], *word[ARGUMENTS], *rest = copy;
        snprintf(copy, sizeof copy, "%s", lines[at]);
        for (int count = 0; count < ARGUMENTS; count++) {
            word[count] = rest ? strsep(&rest, " ") : NULL;
            if (!word[count]) word[count] = "";
        }
        if (is_block(lines[at])) {
            int end = end_of_block(at);
            block(at, end, word);
            at = end;
        } else if (strcmp(word[0], "end") != 0) {
            say("%d ", at);
            act(word);
            say("\n");
            flush();
        }
    }
}

// Finds the lines of the sequence that begins there; gives the place after it.
static size_t parse(size_t start) {
    static char text[1 << 18];
    size_t end = start;
    line_count = 0;
    sequence_start = start;
    while (end < script_size && script[end] != '@') {
        while (end < script_size && script[end++] != '\n') {}
    }
    if (end - start >= sizeof text) abort();
    memcpy(text, script + start, end - start);
    text[end - start] = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && (rest || *line);) {
        if (line_count == MOST_LINES) abort();
        lines[line_count++] = line;
    }
    return end;
}

static void map_script(void) {
    struct stat is;
    if (fstat(SCRIPT, &is) < 0) abort();
    script_size = is.st_size;
    script = mmap(NULL, script_size, PROT_READ, MAP_PRIVATE, SCRIPT, 0);
    if (script == MAP_FAILED) abort();
}

// ---- what is left

static void say_content(int directory, const char *name, off_t size) {
    char text[4096];
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    unsigned long sum = 5381;
    if (file < 0) {
        say(" E%d", errno);
        return;
    }
    for (ssize_t count; (count = read(file, text, sizeof text)) > 0;) {
        if (size < 200) say(" "), say_bytes(text, count);
        else for (ssize_t at = 0; at < count; at++) sum = sum * 33 + (unsigned char)text[at];
    }
    if (size >= 200) say(" sum %lx", sum);
    close(file);
}

static void say_attributes(int directory, const char *name) {
    char path[64 + NAME_MAX], names[1024], value[1024], *found[16];
    if (directory == AT_FDCWD) snprintf(path, sizeof path, "%s", name);
    else snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
    ssize_t size = llistxattr(path, names, sizeof names);
    size_t count = 0;
    for (char *at = names; size > 0 && at < names + size && count < 16; at += strlen(at) + 1) found[count++] = at;
    qsort(found, count, sizeof *found, by_name);
    for (size_t at = 0; at < count; at++) {
        ssize_t bytes = lgetxattr(path, found[at], value, sizeof value);
        say(" %s=", found[at]);
        if (bytes < 0) say("E%d", errno);
        else say_bytes(value, bytes);
    }
}

static void walk(int parent, const char *name, char *path, size_t at) {
    struct stat is;
    char target[PATH_MAX];
    if (fstatat(parent, name, &is, AT_SYMLINK_NOFOLLOW) < 0) {
        say("= %s E%d\n", path, errno);
        return;
    }
    say("= %s ", path);
    say_stat(&is);
    if (S_ISLNK(is.st_mode)) {
        ssize_t size = readlinkat(parent, name, target, sizeof target);
        say(" "), say_bytes(target, size < 0 ? 0 : size);
    } else if (S_ISREG(is.st_mode)) {
        say_content(parent, name, is.st_size);
    }
    say_attributes(parent, name);
    say("\n");
    flush();
    if (!S_ISDIR(is.st_mode)) return;
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *listing = directory < 0 ? NULL : fdopendir(directory);
    if (!listing) {
        say("= %s E%d\n", path, errno);
        return;
    }
    char *names[1024];
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(listing)) && count < 1024;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) names[count++] = strdup(entry->d_name);
    qsort(names, count, sizeof *names, by_name);
    for (size_t one = 0; one < count; one++) {
        size_t size = strlen(names[one]);
        if (at + size + 2 < PATH_MAX) {
            path[at] = '/';
            memcpy(path + at + 1, names[one], size + 1);
            walk(directory, names[one], path, at + 1 + size);
            path[at] = 0;
        }
        free(names[one]);
    }
    closedir(listing);
}

static void remove_all(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0) return;
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *listing = directory < 0 ? NULL : fdopendir(directory);
    if (listing) {
        for (struct dirent *entry; (entry = readdir(listing));)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) remove_all(directory, entry->d_name);
        closedir(listing);
    }
    unlinkat(parent, name, AT_REMOVEDIR);
}

// What a sequence has left beside its directory is listed as well, and goes: the next one is to begin with nothing.
static void tidy_up(const char *directory) {
    static const char *const stays[] = {".", "..", "proc", "dev", "sys", "etc", "tmp", "calls", "script", "log"};
    char *names[1024], path[PATH_MAX];
    size_t count = 0;
    DIR *listing = opendir("/");
    if (!listing) abort();
    for (struct dirent *entry; (entry = readdir(listing)) && count < 1024;) {
        int is_ours = strcmp(entry->d_name, directory) == 0 || *entry->d_name == 's';
        for (size_t at = 0; at < sizeof stays / sizeof *stays; at++) is_ours |= strcmp(entry->d_name, stays[at]) == 0;
        if (!is_ours) names[count++] = strdup(entry->d_name);
    }
    closedir(listing);
    qsort(names, count, sizeof *names, by_name);
    for (size_t at = 0; at < count; at++) {
        snprintf(path, sizeof path, "%s", names[at]);
        walk(AT_FDCWD, names[at], path, strlen(path));
        remove_all(AT_FDCWD, names[at]);
        free(names[at]);
    }
    if (chmod("/", 0755) || chown("/", 0, 0)) abort();
    removexattr("/", "user.a"), removexattr("/", "user.b"), removexattr("/", CAPABILITY);
}

static pid_t current;

static void too_long(int signal) {
    (void)signal;
    kill(-current, SIGKILL);
}

static void run_sequence(const char *directory) {
    int status;
    say("@ %s\n", directory);
    flush();
    // Made beforehand, in the image, it would be older than the step.
    if (mkdir(directory, 0755) < 0) abort();
    current = fork();
    if (current == 0) {
        setpgid(0, 0);
        if (chdir(directory) < 0) abort();
        run(0, line_count);
        _exit(0);
    }
    setpgid(current, current);
    alarm(30);
    while (waitpid(current, &status, 0) < 0 && errno == EINTR) {}
    alarm(0);
    if (status) say("- the sequence ended with status %x\n", status);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", directory);
    walk(AT_FDCWD, directory, path, strlen(path));
    tidy_up(directory);
    flush();
}

static int run_all(const char *from, const char *to) {
    int file = open(from, O_RDONLY), log = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    if (file < 0 || log < 0 || dup2(file, SCRIPT) < 0 || dup2(log, LOG) < 0) return 2;
    close(file), close(log);
    map_script();
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = too_long};
    sigaction(SIGALRM, &action, NULL);
    for (size_t at = 0; at < script_size;) {
        char directory[64];
        if (sscanf(script + at, "@ %63s", directory) != 1) return 3;
        while (script[at++] != '\n') {}
        at = parse(at);
        run_sequence(directory);
    }
    return 0;
}

// In the program that a sequence has started.
static int go_on(const char *here, int count, char **arguments) {
    size_t start;
    int at;
    if (sscanf(here, "%zu:%d", &start, &at) != 2) return 2;
    map_script();
    parse(start);
    say("%d started", at);
    for (int one = 0; one < count; one++) say(" "), say_bytes(arguments[one], strlen(arguments[one]));
    const char *name = (const char *)getauxval(AT_EXECFN);
    say(" as "), say_bytes(name, strlen(name));
    say(" secure%lu (%lu %lu %lu %lu) ", getauxval(AT_SECURE), getauxval(AT_UID), getauxval(AT_EUID), getauxval(AT_GID),
        getauxval(AT_EGID));
    say_ids();
    say("\n");
    flush();
    run(at + 1, end_of_block(at));
    return 0;
}

// ---- the container

static void must(long value, const char *what) {
    if (value >= 0) return;
    perror(what);
    exit(125);
}

static void make_device(const char *name, unsigned minor) {
    char path[64];
    snprintf(path, sizeof path, "dev/%s", name);
    must(mknod(path, S_IFCHR | 0666, makedev(1, minor)), path);
}

static int enter(const char *root, char **program) {
    // Docker's default capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
    // net_raw, sys_chroot, mknod, audit_write, setfcap.
    const unsigned long long kept = 0xa80425fb;
    must(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare");
    pid_t child = fork();
    must(child, "fork");
    if (child) {
        int status;
        must(waitpid(child, &status, 0), "waitpid");
        return WIFEXITED(status) ? WEXITSTATUS(status) : 124;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
    must(mount(root, root, NULL, MS_BIND, NULL), "bind of the root");
    must(chdir(root), root);
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
    umask(0);
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755"), "dev");
    make_device("null", 3), make_device("zero", 5), make_device("full", 7);
    must(symlink("/proc/self/fd", "dev/fd"), "dev/fd");
    umask(022);
    // What these are like is there for all sequences.
    must(mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL), "read-only dev");
    must(mount(NULL, "proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "read-only proc");
    // chroot(2) alone can be left again by a step with that right, into this machine.
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "/");
    for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++)
        if (!(kept >> one & 1)) must(prctl(PR_CAPBSET_DROP, one), "bounding set");
    unsigned head[2] = {0x20080522, 0}, sets[6] = {kept, kept, 0, 0, 0, 0};
    must(syscall(SYS_capset, head, sets), "capset");
    // As every builder has it: root's own group is among the others, too.
    gid_t group = 0;
    must(syscall(SYS_setgroups, 1, &group), "setgroups");
    char *variables[] = {"PATH=/", NULL};
    execve(program[0], program, variables);
    must(-1, program[0]);
    return 125;
}

int main(int count, char **arguments) {
    const char *here = getenv("CALLS");
    if (here) return go_on(here, count, arguments);
    if (count > 3 && strcmp(arguments[1], "--enter") == 0) return enter(arguments[2], arguments + 3);
    return count == 3 ? run_all(arguments[1], arguments[2]) : 2;
}
