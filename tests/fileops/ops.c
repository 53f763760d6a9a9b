// Carries out the file operations of one step and writes down how each ended: `ops FILE`.
//
// A line of the file is `@ DIRECTORY`, where a sequence of operations begins, or an operation and its arguments, all in
// the terms of a system call. What came of it (0, an error's number, what was seen) is appended to `log` in the directory.
// A directory that an overlay cannot rename (EXDEV) is copied and removed, as mv(1) does, so that the result is the same
// on any file system. tests/fileops.py writes such files.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ARGUMENTS 6
#define IS(name) (strcmp(op, name) == 0)

static char said[1 << 16];
static size_t length;

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(said + length, sizeof said - length, format, arguments);
    va_end(arguments);
    length += more;
    if (more < 0 || length >= sizeof said) abort();
}

static int result(long value) { return value < 0 ? errno : 0; }

// Devices that a step makes are dead in some places and answer in others: none is opened.
static int open_file(const char *path, int flags, mode_t mode) {
    struct stat is;
    if (!(flags & O_PATH) && stat(path, &is) == 0 && S_ISCHR(is.st_mode)) {
        errno = ENXIO;
        return -1;
    }
    return open(path, flags, mode);
}

// What happens to an open file, and how that ends.
static int with(int file, int (*act)(int, const char *), const char *text) {
    if (file < 0) return errno;
    int status = act ? act(file, text) : 0;
    close(file);
    return status;
}

static int put(int file, const char *text) { return result(write(file, text, strlen(text))); }

static int same_again(int file, const char *text) {
    struct stat is;
    char content[4096];
    (void)text;
    if (fstat(file, &is) < 0 || !S_ISREG(is.st_mode)) return result(-1);
    ssize_t count = pread(file, content, sizeof content, 0);
    if (count < 0 || pwrite(file, content, count, 0) < 0) return errno;
    struct timespec times[2] = {is.st_atim, is.st_mtim};
    if (fchmod(file, is.st_mode & 07777) < 0) return errno;
    return result(futimens(file, times));
}

// Other content of the same size and time.
static int sneak(int file, const char *text) {
    struct stat is;
    char content[4096];
    (void)text;
    if (fstat(file, &is) < 0) return errno;
    ssize_t count = pread(file, content, sizeof content, 0);
    if (count < 0) return errno;
    for (ssize_t at = 0; at < count; at++) content[at] ^= 1;
    struct timespec times[2] = {is.st_atim, is.st_mtim};
    if (pwrite(file, content, count, 0) < 0) return errno;
    return result(futimens(file, times));
}

static int change_open(int file, const char *text) {
    (void)text;
    if (fchown(file, 77, 88) < 0 || fchmod(file, 04711) < 0) return errno;
    return put(file, "open");
}

static int each(const char *directory, int (*act)(const char *, const char *), const char *other) {
    DIR *listing = opendir(directory);
    if (!listing) return errno;
    char(*names)[256] = NULL;
    size_t count = 0;
    int status = 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        names = realloc(names, (count + 1) * sizeof *names);
        if (!names) abort();
        strcpy(names[count++], entry->d_name);
    }
    closedir(listing);
    qsort(names, count, sizeof *names, (int (*)(const void *, const void *))strcmp);
    for (size_t at = 0; at < count && !status; at++) {
        char path[PATH_MAX], to[PATH_MAX] = "";
        snprintf(path, sizeof path, "%s/%s", directory, names[at]);
        if (other) snprintf(to, sizeof to, "%s/%s", other, names[at]);
        status = act(path, to);
    }
    free(names);
    return status;
}

static int remove_all(const char *path, const char *unused) {
    struct stat is;
    (void)unused;
    if (lstat(path, &is) < 0) return errno;
    if (!S_ISDIR(is.st_mode)) return result(unlink(path));
    int status = each(path, remove_all, NULL);
    return status ? status : result(rmdir(path));
}

static int say_name(const char *path, const char *unused) {
    struct stat is;
    (void)unused;
    say(" %s%s", strrchr(path, '/') + 1, lstat(path, &is) == 0 && S_ISDIR(is.st_mode) ? "/" : "");
    return 0;
}

static void copy_attributes(const char *from, const char *to) {
    char names[4096], value[4096];
    ssize_t count = llistxattr(from, names, sizeof names);
    for (char *name = names; count > 0 && name < names + count; name += strlen(name) + 1) {
        ssize_t size = lgetxattr(from, name, value, sizeof value);
        if (strncmp(name, "user.", 5) == 0 && size >= 0) lsetxattr(to, name, value, size, 0);
    }
}

// As `cp -a`, to a name that is free.
static int copy(const char *from, const char *to) {
    struct stat is;
    char content[1 << 14];
    int status = 0;
    if (lstat(from, &is) < 0) return errno;
    if (S_ISDIR(is.st_mode)) {
        if (mkdir(to, 0700) < 0) return errno;
        status = each(from, copy, to);
    } else if (S_ISLNK(is.st_mode)) {
        ssize_t count = readlink(from, content, sizeof content - 1);
        if (count < 0) return errno;
        content[count] = 0;
        if (symlink(content, to) < 0) return errno;
    } else if (S_ISREG(is.st_mode)) {
        int source = open(from, O_RDONLY), made = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
        for (ssize_t count; source >= 0 && made >= 0 && (count = read(source, content, sizeof content)) != 0;)
            if (count < 0 || write(made, content, count) < 0) return errno;
        if (source < 0 || made < 0) status = errno;
        close(source), close(made);
    } else if (mknod(to, is.st_mode & (S_IFMT | 0700), is.st_rdev) < 0) {
        return errno;
    }
    if (status) return status;
    if (lchown(to, is.st_uid, is.st_gid) < 0) return errno;
    if (!S_ISLNK(is.st_mode) && chmod(to, is.st_mode & 07777) < 0) return errno;
    copy_attributes(from, to);
    struct timespec times[2] = {is.st_atim, is.st_mtim};
    return result(utimensat(AT_FDCWD, to, times, AT_SYMLINK_NOFOLLOW));
}

static void without_slashes(const char *path, char *plain) {
    strcpy(plain, path);
    for (size_t end = strlen(plain); end > 1 && plain[end - 1] == '/';) plain[--end] = 0;
}

static int rename_as(const char *from, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    if (syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags) == 0) return 0;
    if (errno != EXDEV) return errno;
    without_slashes(from, source), without_slashes(to, target);
    if (flags == RENAME_EXCHANGE) {
        int status = rename_as(source, "exchanged", 0);
        if (!status) status = rename_as(target, source, 0);
        return status ? status : rename_as("exchanged", target, 0);
    }
    if (rmdir(target) < 0 && errno != ENOENT) return errno;
    int status = copy(source, target);
    return status ? status : remove_all(source, NULL);
}

// As `cp -a`, to a name that is free and not inside of what is copied.
static int copy_new(const char *from, const char *to) {
    char source[PATH_MAX], above[PATH_MAX], target[PATH_MAX];
    struct stat is;
    if (lstat(from, &is) < 0) return errno;
    if (lstat(to, &is) == 0) return EEXIST;
    without_slashes(to, above);
    char *slash = strrchr(above, '/');
    strcpy(slash ? slash + 1 : above, ".");
    if (!realpath(from, source) || !realpath(above, target)) return errno;
    size_t size = strlen(source);
    if (strncmp(source, target, size) == 0 && (target[size] == 0 || target[size] == '/')) return EINVAL;
    return copy(from, to);
}

static int make_all(const char *path) {
    char part[PATH_MAX];
    strcpy(part, path);
    for (char *slash = part; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST) return errno;
        *slash = '/';
    }
    return mkdir(part, 0755) < 0 && errno != EEXIST ? errno : 0;
}

static void look(const char *path, int flags) {
    struct stat is;
    if (fstatat(AT_FDCWD, path, &is, flags) < 0) {
        say("%d", errno);
        return;
    }
    // What a directory's size and number of links are is the file system's own matter.
    say("%o %u:%u", is.st_mode, is.st_uid, is.st_gid);
    if (S_ISREG(is.st_mode)) say(" %lld", (long long)is.st_size);
}

// In a directory that is open while its name changes.
static int make_below_moved(const char *from, const char *to, const char *name) {
    int directory = open(from, O_RDONLY | O_DIRECTORY);
    if (directory < 0) return errno;
    int moved = result(rename(from, to));
    if (moved == EXDEV) { // the directory stays where it is
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", to, name);
        moved = rename_as(from, to, 0);
        if (!moved) moved = result(mkdir(path, 0750));
    } else if (!moved) {
        moved = result(mkdirat(directory, name, 0750));
    }
    close(directory);
    return moved;
}

static int unnamed(const char *directory, const char *to) {
    char path[64];
    int file = open(directory, O_TMPFILE | O_RDWR, 0640);
    if (file < 0) return errno;
    int status = put(file, "unnamed");
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (!status) status = result(linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW));
    close(file);
    return status;
}

// Removes or moves the name of a file that stays open, and writes to it then.
static int write_after(const char *path, const char *to) {
    int file = open_file(path, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0);
    if (file < 0) return errno;
    int status = *to == '-' ? result(unlink(path)) : rename_as(path, to, 0);
    if (!status) status = change_open(file, NULL);
    close(file);
    return status;
}

static void replace(const char *path, const char *text) {
    int status = with(open("new", O_WRONLY | O_CREAT | O_TRUNC, 0644), put, text);
    if (!status) status = result(rename("new", path));
    say("%d", status);
    unlink("new");
}

static void act(char **word) {
    const char *op = word[0], *a = word[1], *b = word[2], *c = word[3];
    long number = strtol(b, NULL, 0);
    char text[PATH_MAX];
    if (IS("mkdir")) say("%d", result(mkdir(a, number)));
    else if (IS("mkdirs")) say("%d", make_all(a));
    else if (IS("rmdir")) say("%d", result(rmdir(a)));
    else if (IS("unlink")) say("%d", result(unlink(a)));
    else if (IS("remove")) say("%d", remove_all(a, NULL));
    else if (IS("empty")) say("%d", each(a, remove_all, NULL));
    else if (IS("rename")) say("%d", rename_as(a, b, 0));
    else if (IS("rename-new")) say("%d", rename_as(a, b, RENAME_NOREPLACE));
    else if (IS("exchange")) say("%d", rename_as(a, b, RENAME_EXCHANGE));
    else if (IS("link")) say("%d", result(link(a, b)));
    else if (IS("link-follow")) say("%d", result(linkat(AT_FDCWD, a, AT_FDCWD, b, AT_SYMLINK_FOLLOW)));
    else if (IS("symlink")) say("%d", result(symlink(a, b)));
    else if (IS("copy")) say("%d", copy_new(a, b));
    else if (IS("write")) say("%d", with(open_file(a, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0644), put, b));
    else if (IS("new")) say("%d", with(open_file(a, O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK, 0666), put, b));
    else if (IS("append")) say("%d", with(open_file(a, O_WRONLY | O_APPEND | O_NONBLOCK, 0), put, b));
    else if (IS("write-nofollow")) say("%d", with(open_file(a, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600), put, b));
    else if (IS("open-directory")) say("%d", with(open_file(a, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0), NULL, NULL));
    else if (IS("create-directory")) say("%d", with(open_file(a, O_RDONLY | O_CREAT | O_DIRECTORY | O_NONBLOCK, 0600), NULL, NULL));
    else if (IS("open-path")) say("%d", with(open_file(a, O_PATH | O_NOFOLLOW, 0), NULL, NULL));
    else if (IS("open-write")) say("%d", with(open_file(a, O_RDWR | O_NONBLOCK, 0), NULL, NULL));
    else if (IS("again")) say("%d", with(open_file(a, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0), same_again, NULL));
    else if (IS("sneak")) say("%d", with(open_file(a, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0), sneak, NULL));
    else if (IS("write-after")) say("%d", write_after(a, b));
    else if (IS("replace")) replace(a, b);
    else if (IS("unnamed")) say("%d", unnamed(a, b));
    else if (IS("truncate")) say("%d", result(truncate(a, number)));
    else if (IS("chmod")) say("%d", result(chmod(a, number)));
    else if (IS("chown")) say("%d", result(chown(a, number, strtol(c, NULL, 0))));
    else if (IS("lchown")) say("%d", result(lchown(a, number, strtol(c, NULL, 0))));
    else if (IS("times") || IS("link-times")) {
        struct timespec times[2] = {{number, 0}, {number, 5}};
        say("%d", result(utimensat(AT_FDCWD, a, times, IS("times") ? 0 : AT_SYMLINK_NOFOLLOW)));
    } else if (IS("fifo")) say("%d", result(mknod(a, S_IFIFO | 0640, 0)));
    else if (IS("socket")) say("%d", result(mknod(a, S_IFSOCK | 0640, 0)));
    else if (IS("file-node")) say("%d", result(mknod(a, S_IFREG | 0640, 0)));
    else if (IS("device")) say("%d", result(mknod(a, S_IFCHR | 0640, makedev(number, strtol(c, NULL, 0)))));
    else if (IS("set-attribute")) say("%d", result(lsetxattr(a, "user.test", b, strlen(b), 0)));
    else if (IS("remove-attribute")) say("%d", result(lremovexattr(a, "user.test")));
    else if (IS("move-open")) say("%d", make_below_moved(a, b, c));
    else if (IS("stat")) look(a, 0);
    else if (IS("lstat")) look(a, AT_SYMLINK_NOFOLLOW);
    else if (IS("access")) say("%d", result(access(a, number)));
    else if (IS("list")) say("%d", each(a, say_name, NULL));
    else if (IS("chdir")) {
        int back = open(".", O_PATH | O_DIRECTORY), status = result(chdir(a));
        say("%d %d", status, status ? 0 : result(mkdir(b, 0700)));
        if (fchdir(back) < 0) abort();
        close(back);
    } else if (IS("readlink")) {
        ssize_t count = readlink(a, text, sizeof text);
        count < 0 ? say("%d", errno) : say("%.*s", (int)count, text);
    } else abort();
}

int main(int count, char **arguments) {
    FILE *file = count == 2 ? fopen(arguments[1], "re") : NULL;
    if (!file) return 2;
    char line[PATH_MAX];
    int log = -1;
    umask(022);
    alarm(60);
    while (fgets(line, sizeof line, file)) {
        char *word[ARGUMENTS] = {"", "", "", "", "", ""}, *rest = line;
        for (int at = 0; at < ARGUMENTS && (word[at] = strsep(&rest, " \n")) && rest; at++) {}
        for (int at = 0; at < ARGUMENTS; at++)
            if (!word[at]) word[at] = "";
        if (strcmp(word[0], "@") == 0) {
            if (log >= 0 && (write(log, said, length) < 0 || close(log) < 0)) return 3;
            length = 0;
            if (chdir("/") < 0 || chdir(word[1]) < 0) return 4;
            log = open("log", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
            if (log < 0) return 5;
            continue;
        }
        say("%s ", word[0]);
        act(word);
        say("\n");
    }
    return log < 0 || write(log, said, length) < 0 ? 6 : 0;
}
