// Makes system calls of i386, in a program of either architecture, and says which of them have another result than they
// should for root in a file system of its own. All that they point to has an address of 32 bits.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "cc"
#ifdef __x86_64__
                     , "r8", "r9", "r10", "r11"
#endif
    );
    return (int32_t)result;
}

#define AT(pointer) ((long)(pointer))
static int wrong;
static void is(const char *what, long long got, long long wanted) {
    if (got == wanted) return;
    printf("%s: got %lld, wanted %lld\n", what, got, wanted);
    wrong++;
}

static char file[] = "/tmp/file", other[] = "/tmp/other", link_[] = "/tmp/link", directory[] = "/tmp/directory";
static char root[] = "/", cut[] = "file", none[] = "", shell[] = "/bin/sh", option[] = "-c";
static char script[] = "readlink /proc/self/exe > /tmp/other; exit 7";
static unsigned char buffer[4096];
static uint32_t words[64];
static uint16_t *const halves = (uint16_t *)words;
static int64_t *const longs = (int64_t *)words;
static uint32_t arguments[4];

static uint32_t at(int offset) { uint32_t word; memcpy(&word, buffer + offset, 4); return word; }
static uint16_t half(int offset) { uint16_t word; memcpy(&word, buffer + offset, 2); return word; }

static void files(void) {
    long number = call(5, AT(file), O_CREAT | O_RDWR | O_EXCL, 0640, 0, 0);
    is("open", number >= 0, 1);
    is("write", call(4, number, AT(script), 5, 0, 0), 5);
    is("close", call(6, number, 0, 0, 0, 0), 0);
    is("open again", call(295, AT_FDCWD, AT(file), O_CREAT | O_EXCL, 0, 0), -EEXIST);
    is("chown", call(182, AT(file), 5, 0xffff, 0, 0), 0);
    is("chown32", call(212, AT(file), -1, 70000, 0, 0), 0);
    is("stat64", call(195, AT(file), AT(buffer), 0, 0, 0), 0);
    is("stat64 mode", at(16), 0100640);
    is("stat64 owner", at(24) == 5 && at(28) == 70000, 1);
    is("stat64 size", at(44), 5);
    is("stat64 inode", at(12), at(88));
    is("stat", call(106, AT(file), AT(buffer), 0, 0, 0), 0);
    is("stat mode", half(8), 0100640);
    is("stat owner", half(12) == 5 && half(14) == 65534, 1);
    is("stat size", at(20), 5);
    is("truncate", call(92, AT(file), 7, 0, 0, 0), 0);
    is("truncate below 0", call(92, AT(file), -1, 0, 0, 0), -EINVAL);
    is("truncate64", call(193, AT(file), 1, 1, 0, 0), 0);
    is("stat of a large one", call(106, AT(file), AT(buffer), 0, 0, 0), -EOVERFLOW);
    is("lstat64 of a large one", call(196, AT(file), AT(buffer), 0, 0, 0), 0);
    is("its size", at(44) == 1 && at(48) == 1, 1);
    memcpy(words, (uint32_t[]){1000, 1, 2000, 2}, 16);
    is("utimensat", call(320, AT_FDCWD, AT(file), AT(words), 0, 0), 0);
    is("fstatat64", call(300, AT_FDCWD, AT(file), AT(buffer), AT_SYMLINK_NOFOLLOW, 0), 0);
    is("its times", at(64) == 1000 && at(68) == 1 && at(72) == 2000 && at(76) == 2, 1);
    memcpy(longs, (int64_t[]){3000, 3, 4000, 4}, 32);
    is("utimensat with 64 bits", call(412, AT_FDCWD, AT(file), AT(longs), 0, 0), 0);
    is("fstatat64", call(300, AT_FDCWD, AT(file), AT(buffer), 0, 0), 0);
    is("its times", at(64) == 3000 && at(68) == 3 && at(72) == 4000 && at(76) == 4, 1);
    is("symlink", call(83, AT(cut), AT(link_), 0, 0, 0), 0);
    is("readlink", call(85, AT(link_), AT(buffer), 100, 0, 0), 4);
    is("rename", call(38, AT(link_), AT(other), 0, 0, 0), 0);
    is("lchown", call(16, AT(other), 6, 7, 0, 0), 0);
    is("lstat", call(107, AT(other), AT(buffer), 0, 0, 0), 0);
    is("its owner", half(12) == 6 && half(14) == 7, 1);
    is("unlink", call(10, AT(other), 0, 0, 0, 0), 0);
    is("mkdir", call(39, AT(directory), 0750, 0, 0, 0), 0);
    is("rmdir", call(40, AT(directory), 0, 0, 0, 0), 0);
    is("chdir", call(12, AT(root), 0, 0, 0, 0), 0);
    is("getcwd", call(183, AT(buffer), 100, 0, 0, 0), 2);
    is("statfs64", call(268, AT(root), 84, AT(buffer), 0, 0), 0);
    is("its names", at(56), 255);
    is("statfs64 of another size", call(268, AT(root), 80, AT(buffer), 0, 0), -EINVAL);
    is("uselib", call(86, AT(shell), 0, 0, 0, 0), -ENOSYS);
    is("an empty path", call(195, AT(none), AT(buffer), 0, 0, 0), -ENOENT);
    is("a bad address", call(195, 8, AT(buffer), 0, 0, 0), -EFAULT);
}

static void ids(void) {
    memcpy(halves, (uint16_t[]){3, 4}, 4);
    is("setgroups", call(81, 2, AT(halves), 0, 0, 0), 0);
    is("getgroups", call(80, 32, AT(buffer), 0, 0, 0), 2);
    is("the groups", half(0) == 3 && half(2) == 4, 1);
    is("getgroups32", call(205, 32, AT(buffer), 0, 0, 0), 2);
    is("the same", at(0) == 3 && at(4) == 4, 1);
    is("setresgid", call(170, 0xffff, 9, 0xffff, 0, 0), 0);
    is("getresgid", call(171, AT(buffer), AT(buffer + 2), AT(buffer + 4), 0, 0), 0);
    is("the group", half(0) == 0 && half(2) == 9 && half(4) == 0, 1);
    is("setresuid32", call(208, 70000, 70001, -1, 0, 0), 0);
    is("getuid", call(24, 0, 0, 0, 0, 0), 65534);
    is("geteuid32", call(201, 0, 0, 0, 0, 0), 70001);
    is("setuid32", call(213, 5, 0, 0, 0, 0), -EPERM);
    is("setresuid32 back", call(208, 0, 0, -1, 0, 0), 0);
}

static void sockets(void) {
    memcpy(arguments, (uint32_t[]){1, 1, 0}, 12);
    long number = call(102, 1, AT(arguments), 0, 0, 0);
    is("socket", number >= 0, 1);
    memcpy(buffer, "\1\0/tmp/socket", 14);
    memcpy(arguments, (uint32_t[]){number, (uintptr_t)buffer, 14}, 12);
    is("connect", call(102, 3, AT(arguments), 0, 0, 0), -ENOENT);
    is("bind", call(102, 2, AT(arguments), 0, 0, 0), 0);
    words[0] = 100;
    memcpy(arguments, (uint32_t[]){number, (uintptr_t)(buffer + 100), (uintptr_t)words}, 12);
    is("getsockname", call(102, 6, AT(arguments), 0, 0, 0), 0);
    is("the name", strcmp((char *)buffer + 102, "/tmp/socket"), 0);
    is("an unknown one", call(102, 99, AT(arguments), 0, 0, 0), -EINVAL);
    is("close", call(6, number, 0, 0, 0, 0), 0);
}

static void programs(void) {
    static uint32_t list[4];
    memcpy(list, (uint32_t[]){(uintptr_t)shell, (uintptr_t)option, (uintptr_t)script, 0}, 16);
    is("no such program", call(11, AT(directory), AT(list), 0, 0, 0), -ENOENT);
    is("no program", call(11, AT(file), AT(list), 0, 0, 0), -EACCES);
    fflush(stdout);
    int status = 0;
    pid_t child = fork();
    if (!child) {
        call(11, AT(shell), AT(list), 0, 0, 0);
        _exit(99);
    }
    waitpid(child, &status, 0);
    is("a shell", status, 7 << 8);
}

int main(int count, char *all[]) {
    (void)all;
    // Whether the kernel knows of such calls.
    if (count > 1) return call(20, 0, 0, 0, 0, 0) != getpid();
    umask(0);
    files();
    ids();
    sockets();
    programs();
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
