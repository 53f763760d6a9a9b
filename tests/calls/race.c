// Threads and processes that exchange names, descriptors and directories while others use them: `race SECONDS SEED [ATTACKS]`.
//
// It works in /r, of which it makes everything itself. What is compared with another kernel elsewhere (calls.c) cannot be compared here;
// what has to hold is:
//
// - Nobody waits for ever: each thread goes on within 30 seconds.
// - Nothing outside is reached. Every directory that was opened is one that was made here, every file that was opened for
//   reading begins with `in-tree`, and nothing here is called `canary`, as files outside are, above the root.
// - Another user than root gets at nothing of root's, whatever name root exchanges with whatever other, and what either
//   makes belongs to whom made it.
//
// What is wrong goes to standard output and to /race-log, a line each; the last line is `N operations, N wrong`.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define FIRST_SLOT 20
#define SLOTS 8
#define WORKERS 10
#define DIRECTORIES 8
#define LINKS 6
#define PATIENCE 30
#define MOST_KNOWN (1 << 16)
#define USER 1000
#define KINDS 1024
#ifndef RENAME_EXCHANGE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

// In a copy of this program that has its set-user-ID bit another word stands here.
static volatile char mark[] = "MARK:plain";

struct shared {
    volatile int ready, stops;
    volatile unsigned long calls[WORKERS];
    const char *volatile doing[WORKERS];
    pthread_mutex_t lock;
    volatile ino_t known[MOST_KNOWN];
    volatile int wrong, told, kinds[KINDS];
    char text[64][512];
};

static struct shared *shared;
static dev_t tree, proc;
static int sockets[3][2]; // datagrams with descriptors, for each process
static int keeps_links;   // fs.protected_hardlinks

struct worker {
    int number, process;
    unsigned long state;
};

static unsigned draw(struct worker *self, unsigned below) {
    self->state = self->state * 6364136223846793005UL + 1442695040888963407UL;
    return (unsigned)(self->state >> 33) % below;
}

// Of each kind the first ones are told.
#define wrong(...) wrong_at(__LINE__, __VA_ARGS__)

static void wrong_at(int line, const char *format, ...) {
    va_list arguments;
    __sync_fetch_and_add(&shared->wrong, 1);
    if (__sync_fetch_and_add(&shared->kinds[line % KINDS], 1) >= 5) return;
    int at = __sync_fetch_and_add(&shared->told, 1);
    va_start(arguments, format);
    if (at < 64) vsnprintf(shared->text[at], sizeof shared->text[at], format, arguments);
    va_end(arguments);
}

// ---- what was made here

static int knows(ino_t inode) {
    for (size_t at = inode % MOST_KNOWN; shared->known[at]; at = (at + 1) % MOST_KNOWN)
        if (shared->known[at] == inode) return 1;
    return 0;
}

static void learn(int directory) {
    struct stat is;
    if (fstat(directory, &is) < 0 || knows(is.st_ino)) return;
    size_t at = is.st_ino % MOST_KNOWN;
    while (shared->known[at]) at = (at + 1) % MOST_KNOWN;
    shared->known[at] = is.st_ino;
}

static void lock(void) { pthread_mutex_lock(&shared->lock); }
static void unlock(void) { pthread_mutex_unlock(&shared->lock); }

static void check_directory(const struct stat *is, const char *path) {
    if (is->st_dev == proc || (is->st_dev == tree && knows(is->st_ino))) return;
    lock(); // whoever makes one holds this until it is known
    int is_known = is->st_dev == tree && knows(is->st_ino);
    unlock();
    if (!is_known) wrong("a directory of elsewhere (device %lx, inode %lu) by `%s`", (long)is->st_dev, (long)is->st_ino, path);
}

// A file that was opened by this path just now.
static void check(struct worker *self, int file, const char *path, int flags) {
    struct stat is;
    char text[64] = "";
    if (fstat(file, &is) < 0) return;
    if (strstr(path, "canary") && is.st_dev != proc && !S_ISDIR(is.st_mode)) wrong("`%s` was opened", path);
    if (S_ISDIR(is.st_mode)) check_directory(&is, path);
    if (!S_ISREG(is.st_mode) || is.st_dev == proc || (flags & (O_ACCMODE | O_PATH)) == O_WRONLY) return;
    ssize_t count = pread(file, text, sizeof text - 1, 0);
    if (count <= 0) return;
    // What is cut off and made longer again begins with nothing.
    if (text[0] && strncmp(text, "in-tree", 7) != 0 && strncmp(text, "\177ELF", 4) != 0) wrong("`%s` gave what is not of the tree: %.20s", path, text);
    if (self->process == 2 && strstr(text, "secret")) wrong("`%s` gave a user what is root's", path);
}

// ---- single calls

static int slot(struct worker *self) { return FIRST_SLOT + draw(self, SLOTS); }

static void into_slot(struct worker *self, int file) {
    if (file < 0) return;
    dup2(file, slot(self));
    close(file);
}

static void component(struct worker *self, char *path) {
    switch (draw(self, 12)) {
    case 0: case 1: case 2: case 3: sprintf(path, "d%u", draw(self, DIRECTORIES)); break;
    case 4: case 5: sprintf(path, "l%u", draw(self, LINKS)); break;
    case 6: case 7: case 8: strcpy(path, ".."); break;
    case 9: strcpy(path, "."); break;
    case 10: sprintf(path, "n%u", draw(self, 4)); break;
    default: sprintf(path, "f%u", draw(self, 4));
    }
}

static const char *some_path(struct worker *self, char *path) {
    unsigned number = FIRST_SLOT + draw(self, SLOTS);
    switch (draw(self, 10)) {
    case 0: strcpy(path, "/r/"); break;
    case 1: case 2: sprintf(path, "/proc/self/fd/%u/", number); break;
    case 3: sprintf(path, "/proc/thread-self/fd/%u/", number); break;
    case 4: sprintf(path, "/dev/fd/%u/", number); break;
    case 5: strcpy(path, "/proc/self/cwd/"); break;
    case 6: strcpy(path, draw(self, 2) ? "/proc/self/root/r/" : "/proc/self/root/../"); break;
    default: *path = 0;
    }
    for (unsigned count = 1 + draw(self, 6); count; count--) {
        component(self, path + strlen(path));
        strcat(path, "/");
    }
    switch (draw(self, 8)) {
    case 0: case 1: case 2: strcat(path, "canary"); break;
    case 3: strcat(path, "../../../../../../canary"); break;
    case 4: strcat(path, "../../../../../.."); break;
    case 5: component(self, path + strlen(path)); break;
    case 6: strcat(path, ".in"); break;
    default: if (draw(self, 2)) path[strlen(path) - 1] = 0;
    }
    // With O_PATH and O_NOFOLLOW a descriptor of the link itself.
    if (draw(self, 25) == 0) sprintf(path, "/proc/self/fd/%u", number);
    if (draw(self, 50) == 0) strcpy(path, draw(self, 2) ? "/proc/self/cwd" : "/proc/self/root");
    return path;
}

static int base(struct worker *self) { return draw(self, 3) ? slot(self) : AT_FDCWD; }

static void open_some(struct worker *self) {
    static const int kinds[] = {O_RDONLY, O_RDONLY, O_RDONLY | O_DIRECTORY, O_RDONLY | O_DIRECTORY, O_PATH, O_PATH | O_NOFOLLOW, O_RDWR, O_WRONLY | O_APPEND};
    char path[512];
    int flags = kinds[draw(self, 8)];
    int file = openat(base(self), some_path(self, path), flags | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return;
    check(self, file, path, flags);
    into_slot(self, file);
}

static void look_at(struct worker *self) {
    char path[512], text[PATH_MAX];
    struct stat is;
    if (fstatat(base(self), some_path(self, path), &is, draw(self, 2) ? AT_SYMLINK_NOFOLLOW : 0) == 0) {
        if (strstr(path, "canary") && is.st_dev != proc && !S_ISDIR(is.st_mode))
            wrong("`%s` was seen: %o, device %lx, inode %lu", path, is.st_mode, (long)is.st_dev, (long)is.st_ino);
        if (S_ISDIR(is.st_mode)) check_directory(&is, path);
    }
    ssize_t count = syscall(SYS_getcwd, text, sizeof text);
    if (count > 0 && (strstr(text, "zuwai") || strstr(text, "work"))) wrong("the working directory is called `%s`", text);
    sprintf(path, "/proc/self/fd/%d", slot(self));
    count = readlink(path, text, sizeof text - 1);
    if (count > 0) {
        text[count] = 0;
        if (strstr(text, "zuwai") || strstr(text, "work")) wrong("a descriptor is called `%s`", text);
    }
}

// Would change what is outside.
static void change(struct worker *self) {
    char path[512], other[512];
    some_path(self, path), some_path(self, other);
    if (!strstr(path, "canary")) return; // what is in the tree is changed by `exchange`
    int at = base(self);
    switch (draw(self, 12)) {
    case 0: unlinkat(at, path, 0); break;
    case 1: fchmodat(at, path, 0600, 0); break;
    case 2: fchownat(at, path, 7, 7, 0); break;
    case 3: truncate(path, 0); break;
    case 4: renameat(at, path, base(self), other); break;
    case 5: linkat(at, path, base(self), other, 0); break;
    case 6: utimensat(at, path, NULL, 0); break;
    case 7: setxattr(path, "user.race", "x", 1, 0); break;
    case 8: strcat(path, "-made"), mkdirat(at, path, 0755), unlinkat(at, path, AT_REMOVEDIR); break;
    case 9: strcat(path, "-made"), symlinkat("race", at, path), unlinkat(at, path, 0); break;
    case 10: strcat(path, "-made"), mknodat(at, path, S_IFIFO | 0644, 0), unlinkat(at, path, 0); break;
    default: {
        int file = openat(at, path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC);
        if (file >= 0) wrong("`%s` was opened to write", path), close(file);
    }
    }
}

static void exchange_descriptors(struct worker *self) {
    switch (draw(self, 6)) {
    case 0: case 1: case 2: dup2(slot(self), slot(self)); break;
    case 3: close(slot(self)); break;
    default: {
        char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
        int file = slot(self);
        struct iovec data = {&byte, 1};
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        if (draw(self, 2)) {
            struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(head), &file, sizeof file);
            sendmsg(sockets[draw(self, 3)][0], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else if (recvmsg(sockets[self->process][1], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0) {
            struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            if (!head) return;
            memcpy(&file, CMSG_DATA(head), sizeof file);
            into_slot(self, file);
        }
    }
    }
}

static void move_about(struct worker *self) {
    char path[512];
    if (draw(self, 3) == 0) fchdir(slot(self));
    else if (chdir(some_path(self, path)) == 0) {
        struct stat is;
        if (stat(".", &is) == 0) check_directory(&is, path);
    }
}

static int root; // of /r

// Directories change places with links and with each other, and go up and down.
static void exchange_names(struct worker *self) {
    char one[64], other[64];
    switch (draw(self, 6)) {
    case 0: sprintf(one, "d%u", draw(self, DIRECTORIES)), sprintf(other, "l%u", draw(self, LINKS)); break;
    case 1: sprintf(one, "d%u", draw(self, DIRECTORIES)), sprintf(other, "d%u", draw(self, DIRECTORIES)); break;
    case 2: sprintf(one, "d%u/d%u", draw(self, DIRECTORIES), draw(self, DIRECTORIES)), sprintf(other, "d%u", draw(self, DIRECTORIES)); break;
    case 3: sprintf(one, "d%u/l%u", draw(self, DIRECTORIES), draw(self, LINKS)), sprintf(other, "d%u", draw(self, DIRECTORIES)); break;
    case 4: sprintf(one, "d%u/f%u", draw(self, DIRECTORIES), draw(self, 4)), sprintf(other, "f%u", draw(self, 4)); break;
    default: sprintf(one, "d%u/d%u", draw(self, DIRECTORIES), draw(self, DIRECTORIES)),
             sprintf(other, "d%u/d%u/d%u", draw(self, DIRECTORIES), draw(self, DIRECTORIES), draw(self, DIRECTORIES));
    }
    syscall(SYS_renameat2, root, one, root, other, draw(self, 3) ? RENAME_EXCHANGE : RENAME_NOREPLACE);
}

static void new_directory(struct worker *self) {
    char name[64];
    sprintf(name, "d%u", draw(self, DIRECTORIES));
    int parent = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (parent < 0) return;
    sprintf(name, "n%u", draw(self, 4));
    if (draw(self, 2)) {
        unlinkat(parent, name, AT_REMOVEDIR);
    } else {
        lock();
        if (mkdirat(parent, name, 0777) == 0) {
            int made = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (made >= 0) learn(made), close(made);
        }
        unlock();
    }
    close(parent);
}

static void new_link(struct worker *self) {
    static const char *const targets[] = {"../../../../../../canary", "/canary", "../d1", "d2/d3", "/r/d4", "..", "/proc/self/fd/21/..",
                                          "/proc/self/fd/22", "l1", "/proc/self/cwd/..", "d0/../../canary", "/proc/self/root/.."};
    char name[64];
    sprintf(name, "d%u/l%u", draw(self, DIRECTORIES), draw(self, LINKS));
    unlinkat(root, name, 0);
    symlinkat(targets[draw(self, sizeof targets / sizeof *targets)], root, name);
}

// ---- two users. In /r/x root's file and the user's change places, in /r/w both make what they like.

static int secret;
static unsigned attacks = -1; // a bit for each kind that is tried, to find out which one it is

static void guard(const char *when) {
    struct stat is;
    char text[64] = "";
    if (fstat(secret, &is) < 0) return;
    if ((is.st_mode & 07777) != 0600 || is.st_uid || is.st_gid) wrong("%s: root's file is %o %u:%u", when, is.st_mode, is.st_uid, is.st_gid);
    pread(secret, text, sizeof text - 1, 0);
    if (strcmp(text, "in-tree secret") != 0) wrong("%s: root's file has `%s`", when, text);
    if (fgetxattr(secret, "user.race", text, sizeof text) >= 0) wrong("%s: root's file has an attribute", when);
    if (keeps_links && is.st_nlink > 1) wrong("%s: root's file has another name", when);
    if (is.st_mtime == 5000) wrong("%s: root's file has a time", when);
}

static void make_some(struct worker *self, int is_user) {
    char name[64];
    sprintf(name, "w/%c%u", "abc"[draw(self, 3)], draw(self, 3));
    struct stat is;
    unsigned own = is_user ? USER : 0;
    int file;
    switch (draw(self, 8)) {
    case 0: case 1:
        file = openat(root, name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, is_user ? 0640 : 0600);
        if (file < 0) break;
        if (fstat(file, &is) == 0 && is.st_uid != own) wrong("a new file is %u's instead of %u's", is.st_uid, own);
        if (write(file, is_user ? "in-tree user" : "in-tree secret", is_user ? 12 : 14) < 0) wrong("a new file cannot be written");
        close(file);
        break;
    case 2: mkdirat(root, name, is_user ? 0750 : 0700); break;
    case 3: symlinkat(is_user ? "user" : "secret", root, name); break;
    case 4: mknodat(root, name, S_IFIFO | (is_user ? 0640 : 0600), 0); break;
    case 5: {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        sprintf(address.sun_path, "/r/%s", name);
        file = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bind(file, (struct sockaddr *)&address, sizeof address);
        close(file);
        break;
    }
    default: unlinkat(root, name, draw(self, 3) ? 0 : AT_REMOVEDIR);
    }
}

static void exchange_owned(struct worker *self) {
    char one[64], other[64];
    if (draw(self, 2)) {
        syscall(SYS_renameat2, root, "x/own", root, "x/secret", RENAME_EXCHANGE);
    } else {
        sprintf(one, "w/%c%u", "abc"[draw(self, 3)], draw(self, 3));
        sprintf(other, "w/%c%u", "abc"[draw(self, 3)], draw(self, 3));
        syscall(SYS_renameat2, root, one, root, other, draw(self, 4) ? RENAME_EXCHANGE : 0);
    }
}

static void attack_owned(struct worker *self) {
    const char *name = draw(self, 2) ? "x/own" : "x/secret";
    char path[64], text[64] = "";
    sprintf(path, "/r/%s", name);
    struct timespec times[2] = {{5000, 0}, {5000, 0}};
    int file, what = draw(self, 12);
    if (!(attacks >> what & 1)) return;
    switch (what) {
    case 0: case 1: case 2:
        file = openat(root, name, draw(self, 2) ? O_RDONLY | O_CLOEXEC : O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
        if (file < 0) break;
        pread(file, text, sizeof text - 1, 0);
        if (strstr(text, "secret")) wrong("a user read root's file by `%s`", name);
        close(file);
        break;
    case 3:
        file = openat(root, name, O_WRONLY | O_TRUNC | O_CLOEXEC);
        if (file < 0) break;
        if (pwrite(file, "in-tree own", 11, 0) < 0) wrong("a user cannot write to a file that is open");
        close(file);
        break;
    case 4: fchmodat(root, name, 0644, 0); break;
    case 5: fchownat(root, name, -1, USER, 0); break;
    case 6: truncate(path, 11); break;
    case 7: setxattr(path, "user.race", "x", 1, 0); break;
    case 8: linkat(root, name, root, "w/c0", 0), unlinkat(root, "w/c0", 0); break;
    case 9: utimensat(root, name, times, 0); break;
    case 10:
        file = openat(root, name, O_PATH | O_CLOEXEC);
        if (file < 0) break;
        if (draw(self, 2)) sprintf(path, "/proc/self/fd/%d", file);
        if (pread(file, text, sizeof text - 1, 0) > 0 && strstr(text, "secret")) wrong("a user read root's file through O_PATH");
        int again = open(path, O_RDONLY | O_CLOEXEC);
        if (again >= 0 && pread(again, text, sizeof text - 1, 0) > 0 && strstr(text, "secret")) wrong("a user read root's file by O_PATH");
        if (again >= 0) close(again);
        chmod(path, 0644);
        close(file);
        break;
    default: into_slot(self, openat(root, name, O_RDONLY | O_CLOEXEC));
    }
}

// A program with a set-user-ID bit, and one without that says so when it is root all the same.
static void start_some(struct worker *self) {
    char *arguments[] = {"race", "--who", NULL}, *variables[] = {NULL};
    int file = openat(root, draw(self, 2) ? "p/plain" : "p/setid", O_RDONLY);
    if (file < 0) return;
    int number = slot(self);
    dup2(file, number);
    close(file);
    pid_t child = vfork();
    if (child == 0) {
        syscall(SYS_execveat, draw(self, 2) ? number : slot(self), "", arguments, variables, AT_EMPTY_PATH);
        _exit(0);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) wrong("a program without a set-user-ID bit was root");
}

// ---- threads and processes

static void *work(void *argument) {
    struct worker *self = argument;
    while (!shared->stops) {
        unsigned what = draw(self, 100);
        const char *doing = "";
        const char *volatile *now = &shared->doing[self->number];
#define DO(name, call) (*now = doing = name, call)
        if (what < 30) DO("open", open_some(self));
        else if (what < 42) DO("stat", look_at(self));
        else if (what < 52) DO("change", change(self));
        else if (what < 66) DO("descriptors", exchange_descriptors(self));
        else if (what < 71) DO("chdir", move_about(self));
        else if (self->process == 2) {
            if (what < 92) DO("another's file", attack_owned(self));
            else if (what < 98) DO("new files", make_some(self, 1));
            else DO("exec", start_some(self));
        } else {
            if (what < 82) DO("rename", exchange_names(self));
            else if (what < 85) DO("mkdir", new_directory(self));
            else if (what < 88) DO("symlink", new_link(self));
            else if (what < 96) DO("rename of files", exchange_owned(self));
            else if (what < 99) DO("new files", make_some(self, 0));
            else DO("the guard", guard("meanwhile"));
        }
        (void)doing;
        shared->calls[self->number]++;
    }
    return NULL;
}

static void be_process(int process, int first, int threads, unsigned long seed) {
    pthread_t thread[WORKERS];
    struct worker workers[WORKERS];
    if (process == 1) {
        // What is moved out of this directory meanwhile has its parents outside of this root.
        if ((chroot("/r/d0") < 0 || chdir("/") < 0) && errno != EPERM) wrong("chroot: %s", strerror(errno));
        // A container's seccomp profile can refuse it.
    } else if (process == 2) {
        if (setgroups(0, NULL) || setresgid(USER, USER, USER) || setresuid(USER, USER, USER)) wrong("users: %s", strerror(errno));
    }
    __sync_fetch_and_add(&shared->ready, 1);
    while (shared->ready < 3) usleep(1000);
    for (int at = 0; at < threads; at++) {
        workers[at] = (struct worker){first + at, process, seed * 1000003 + first + at};
        if (pthread_create(&thread[at], NULL, work, &workers[at])) _exit(2);
    }
    for (int at = 0; at < threads; at++) pthread_join(thread[at], NULL);
    _exit(0);
}

// ---- before and after

static void put(int directory, const char *name, const char *text, mode_t mode, unsigned owner) {
    int file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 || write(file, text, strlen(text)) < 0 || fchown(file, owner, owner) || fchmod(file, mode)) wrong("making %s", name);
    close(file);
}

static int make_directory(int parent, const char *name, mode_t mode, int depth) {
    char inner[32];
    if (mkdirat(parent, name, 0755)) wrong("making %s: %s", name, strerror(errno));
    int made = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fchmod(made, mode)) wrong("mode of %s", name);
    learn(made);
    put(made, ".in", "in-tree marker", 0644, 0);
    for (int at = 0; depth && at < DIRECTORIES / 2; at++) {
        sprintf(inner, "d%d", at + (depth & 1) * (DIRECTORIES / 2));
        close(make_directory(made, inner, 0777, depth - 1));
        sprintf(inner, "f%d", at);
        put(made, inner, "in-tree file", 0666, 0);
    }
    return made;
}

static void copy_program(const char *to, const char *word, mode_t mode, unsigned owner) {
    static char content[1 << 22];
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), made = openat(root, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    ssize_t size = read(file, content, sizeof content);
    char *place = size > 0 ? memmem(content, size, (char *)mark, sizeof mark) : NULL;
    if (!place) {
        wrong("making %s", to);
    } else {
        memcpy(place + 5, word, 5);
        if (write(made, content, size) != size || fchown(made, owner, owner) || fchmod(made, mode)) wrong("making %s", to);
    }
    close(file), close(made);
}

static void prepare(void) {
    char name[32];
    struct stat is;
    if (mkdir("/r", 0777)) wrong("making /r: %s", strerror(errno));
    root = open("/r", O_RDONLY | O_DIRECTORY);
    int above = open("/", O_RDONLY | O_DIRECTORY);
    fchmod(root, 0777);
    fstat(root, &is), tree = is.st_dev;
    stat("/proc/self", &is), proc = is.st_dev;
    learn(root), learn(above);
    close(above);
    for (int at = 0; at < DIRECTORIES; at++) {
        sprintf(name, "d%d", at);
        close(make_directory(root, name, 0777, 2));
    }
    for (int at = 0; at < LINKS; at++) {
        sprintf(name, "l%d", at);
        symlinkat(at & 1 ? "../../../../../canary" : "d1/d5", root, name);
    }
    for (int at = 0; at < 4; at++) {
        sprintf(name, "f%d", at);
        put(root, name, "in-tree file", 0666, 0);
    }
    put(root, ".in", "in-tree marker", 0644, 0);
    close(make_directory(root, "x", 0755, 0));
    close(make_directory(root, "w", 0777, 0));
    close(make_directory(root, "p", 0755, 0));
    put(root, "x/secret", "in-tree secret", 0600, 0);
    put(root, "x/own", "in-tree own", 0644, USER);
    secret = openat(root, "x/secret", O_RDONLY | O_CLOEXEC);
    copy_program("p/plain", "plain", 0755, 0);
    copy_program("p/setid", "setid", 04755, 0);
    char digit = 0;
    int setting = open("/proc/sys/fs/protected_hardlinks", O_RDONLY | O_CLOEXEC);
    keeps_links = setting >= 0 && read(setting, &digit, 1) == 1 && digit == '1';
    close(setting);
}

// In /r/w the kind, the mode and the owner of what is left have to be one user's.
static void look_through(void) {
    DIR *listing = fdopendir(openat(root, "w", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        struct stat is;
        char text[64] = "";
        if (entry->d_name[0] == '.' || fstatat(dirfd(listing), entry->d_name, &is, AT_SYMLINK_NOFOLLOW)) continue;
        unsigned mode = is.st_mode & 07777;
        int is_users = is.st_uid == USER && is.st_gid == USER, is_roots = !is.st_uid && !is.st_gid;
        if (S_ISLNK(is.st_mode)) {
            readlinkat(dirfd(listing), entry->d_name, text, sizeof text - 1);
            is_users &= strcmp(text, "user") == 0, is_roots &= strcmp(text, "secret") == 0;
        } else if (S_ISREG(is.st_mode)) {
            int file = openat(dirfd(listing), entry->d_name, O_RDONLY | O_CLOEXEC);
            read(file, text, sizeof text - 1);
            close(file);
            // A link that the user made to its own file.
            if (is_users && strcmp(text, "in-tree own") == 0) continue;
            is_users &= mode == 0640 && strcmp(text, "in-tree user") == 0;
            is_roots &= mode == 0600 && strcmp(text, "in-tree secret") == 0;
        } else if (S_ISDIR(is.st_mode)) {
            is_users &= mode == 0750, is_roots &= mode == 0700;
        } else if (S_ISFIFO(is.st_mode)) {
            is_users &= mode == 0640, is_roots &= mode == 0600;
        }
        if (!is_users && !is_roots) wrong("left over: w/%s is %o %u:%u `%s`", entry->d_name, is.st_mode, is.st_uid, is.st_gid, text);
    }
    if (listing) closedir(listing);
}

static void watch(int seconds) {
    unsigned long before[WORKERS] = {0};
    int still[WORKERS] = {0};
    for (int second = 0; second < seconds && !shared->stops; second++) {
        sleep(1);
        for (int at = 0; at < WORKERS; at++) {
            unsigned long now = shared->calls[at];
            still[at] = now == before[at] ? still[at] + 1 : 0;
            before[at] = now;
            if (still[at] == PATIENCE) {
                wrong("thread %d waits in `%s` for %d seconds", at, shared->doing[at], PATIENCE);
                shared->stops = 1;
            }
        }
    }
    shared->stops = 1;
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "--who") == 0) return mark[5] == 'p' && geteuid() == 0 ? 77 : 0;
    if (count < 3) return 2;
    if (count > 3) attacks = strtoul(arguments[3], NULL, 0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->lock, &kind);
    signal(SIGPIPE, SIG_IGN);
    umask(0);
    prepare();
    for (int at = 0; at < 3; at++)
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets[at])) return 2;
    chdir("/r");
    unsigned long seed = strtoul(arguments[2], NULL, 10);
    static const int threads[3] = {4, 3, 3};
    pid_t processes[3];
    for (int at = 0, first = 0; at < 3; first += threads[at++]) {
        processes[at] = fork();
        if (processes[at] == 0) be_process(at, first, threads[at], seed);
    }
    watch(atoi(arguments[1]));
    for (int at = 0; at < 3; at++) {
        int waited = 0, status = 0;
        while (waitpid(processes[at], &status, WNOHANG) == 0 && waited++ < PATIENCE) sleep(1);
        if (waited > PATIENCE) kill(processes[at], SIGKILL), wrong("process %d does not end", at);
        else if (status) wrong("process %d ended with status %x", at, status);
    }
    guard("at the end");
    look_through();
    unsigned long calls = 0;
    for (int at = 0; at < WORKERS; at++) calls += shared->calls[at];
    FILE *log = fopen("/race-log", "w");
    for (FILE *to = log; to; to = to == log ? stdout : NULL) {
        for (int at = 0; at < shared->told && at < 64; at++) fprintf(to, "WRONG %s\n", shared->text[at]);
        fprintf(to, "%lu operations, %d wrong\n", calls, shared->wrong);
        fflush(to);
    }
    return shared->wrong != 0;
}
