// What a 32-bit program may do to files, with 32-bit system calls.
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(what) \
    if (!(what)) { perror(#what); exit(1); }

int main(int count, char **arguments) {
    struct stat looks;
    char text[64];
    MUST(sizeof(void *) == 4);
    if (count > 1) return 7;
    unlink("/tmp/by-small");
    int file = open("/tmp/by-small", O_CREAT | O_EXCL | O_WRONLY, 0600);
    MUST(file >= 0 && write(file, "x", 1) == 1 && close(file) == 0);
    MUST(chown("/tmp/by-small", 12, 34) == 0 && chmod("/tmp/by-small", 0640) == 0);
    MUST(stat("/tmp/by-small", &looks) == 0 && looks.st_uid == 12 && looks.st_gid == 34 && (looks.st_mode & 07777) == 0640);
    MUST(mkdir("/tmp/small", 0755) == 0 && chdir("/tmp/small") == 0 && getcwd(text, sizeof text) && rmdir("/tmp/small") == 0);
    MUST(chdir("/") == 0 && access("/etc/passwd", R_OK) == 0 && getuid() == 0);
    MUST(readlink("/proc/self/exe", text, sizeof text) > 0);
    pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "small", "again", NULL);
        _exit(1);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    return 0;
}
