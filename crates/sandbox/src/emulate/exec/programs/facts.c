// Says what it finds at its start, and starts itself again in the ways in which programs do.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int constructed;
static char large[64 << 20];
static int initialised[3000] = {[2999] = 41};
static __thread int local = 5;
static __thread char local_zero[5000];

__attribute__((constructor)) static void construct(void) { constructed = 1; }
__attribute__((destructor)) static void destruct(void) { printf("destructed\n"); }

static void facts(int argc, char **argv) {
    char name[17] = {0};
    unsigned long sum = 0, count = 0;
    for (char **e = environ; *e; e++) count += strlen(*e);
    for (size_t i = 0; i < sizeof large; i += 512) sum += large[i];
    for (size_t i = 0; i < sizeof local_zero; i++) sum += local_zero[i];
    large[sizeof large - 1] = 1;
    prctl(PR_GET_NAME, name);
    printf("argc %d, environment %lu bytes, name %s\n", argc, count, name);
    for (int i = 0; i < argc && i < 20; i++) printf("  %.60s\n", argv[i]);
    printf("zeroes %lu, data %d, local %d, constructed %d\n", sum, initialised[2999], local, constructed);
    for (int i = 0; i < 60; i++) {
        unsigned long value = getauxval(i);
        // What is chosen at random, and HWCAP and the like, which have to be there.
        int shown = i == AT_PAGESZ || i == AT_PHENT || i == AT_PHNUM || i == AT_FLAGS || (i >= AT_UID && i <= AT_EGID) ||
                    i == AT_CLKTCK || i == AT_SECURE || i == AT_HWCAP || i == AT_HWCAP2 || i == AT_MINSIGSTKSZ;
        if (value || shown) printf("auxiliary %d: %#lx\n", i, shown ? value : 1);
    }
    printf("path %s, platform %s\n", (char *)getauxval(AT_EXECFN), (char *)getauxval(AT_PLATFORM));
    unsigned char *random = (unsigned char *)getauxval(AT_RANDOM), zero[16] = {0};
    printf("random %d\n", memcmp(random, zero, 16) != 0);
    // Program headers: a PT_LOAD is among them, and the entry is what the header of the file says.
    uint32_t *header = (uint32_t *)getauxval(AT_PHDR);
    for (unsigned long i = 0, size = getauxval(AT_PHENT); i < getauxval(AT_PHNUM); i++)
        printf("header %#x\n", *(uint32_t *)((char *)header + i * size));
    printf("stack aligned %d\n", (int)((uintptr_t)(argv - 1) % 16));
    for (int i = 0; i < 100; i++)
        if (fcntl(i, F_GETFD) >= 0) printf("descriptor %d flags %d\n", i, fcntl(i, F_GETFD));
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, 0, &blocked);
    for (int i = 1; i < 65; i++)
        if (sigismember(&blocked, i) == 1) printf("blocked %d\n", i);
    char *end = sbrk(0);
    printf("heap grows %d\n", sbrk(1 << 30) == end && (memset(end, 1, 1 << 20), sbrk(0)) == end + (1 << 30));
    void *many[100];
    for (int i = 0; i < 100; i++) memset(many[i] = malloc(1 << (i % 20)), 1, 1 << (i % 20));
    for (int i = 0; i < 100; i++) free(many[i]);
    char line[5000];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]")) printf("stack %.4s\n", strchr(line, ' ') + 1);
    if (maps) fclose(maps);
    double sine = strtod("0.5", 0) * 3;
    printf("%.3f\n", sine);
}

static char *self;

static char *letters(size_t count) {
    char *text = malloc(count + 1);
    memset(text, 'x', count);
    text[count] = 0;
    return text;
}

static void *in_thread(void *how) {
    char *argv[] = {self, "facts", "from a thread", 0};
    if (how) execve(self, argv, environ);
    else for (;;) pause();
    return 0;
}

static char *volatile flipped;
static void *flip(void *none) {
    for (;;) {
        for (int i = 0; i < 1000; i++) *flipped = 0;
        for (int i = 0; i < 1000; i++) *flipped = '/';
    }
    return none;
}

static void ended(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    printf("ended with %x\n", status);
}

static volatile int signals;
static void handler(int number) { signals++; }

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOFBF, 1 << 20);
    const char *what = argc > 1 ? argv[1] : "facts";
    char *again[] = {argc ? argv[0] : "", "facts", "again", 0};
    self = argc ? argv[0] : "";
    pthread_t thread;
    pid_t child;
    if (!strcmp(what, "facts")) {
        facts(argc, argv);
    } else if (!strcmp(what, "thread")) {
        for (int i = 0; i < 5; i++) pthread_create(&thread, 0, in_thread, 0);
        pthread_create(&thread, 0, in_thread, "exec");
        for (;;) pause();
    } else if (!strcmp(what, "leader")) {
        for (int i = 0; i < 5; i++) pthread_create(&thread, 0, in_thread, 0);
        execve(self, again, environ);
    } else if (!strcmp(what, "race")) {
        for (int i = 0; i < 8; i++) pthread_create(&thread, 0, in_thread, "exec");
        execve(self, (char *[]){self, "facts", "from a thread", 0}, environ);
    } else if (!strcmp(what, "spawn")) {
        for (int i = 0; i < 3; i++) {
            printf("%d\n", posix_spawn(&child, self, 0, 0, again, environ));
            fflush(stdout);
            ended(child);
        }
        printf("%d\n", posix_spawn(&child, "/nowhere", 0, 0, again, environ));
    } else if (!strcmp(what, "vfork")) {
        fflush(stdout);
        if (!(child = vfork())) {
            execve(self, again, environ);
            _exit(9);
        }
        ended(child);
    } else if (!strcmp(what, "empty")) {
        execve(self, (char *[]){0}, environ);
    } else if (!strcmp(what, "nothing")) {
        char **volatile none = 0;
        execve(self, none, none);
    } else if (!strcmp(what, "many")) {
        char *all[30001];
        for (int i = 0; i < 30000; i++) all[i] = "argument";
        all[0] = self, all[1] = "facts", all[30000] = 0;
        execve(self, all, environ);
    } else if (!strcmp(what, "long")) {
        char *one = letters((128 << 10) - 1);
        execve(self, (char *[]){self, "facts", one, 0}, environ);
    } else if (!strcmp(what, "fail")) {
        // Too long by one, and not one descriptor, signal or register changed for it.
        char *one = letters(128 << 10);
        struct sigaction action = {.sa_handler = handler};
        sigaction(SIGUSR1, &action, 0);
        for (int i = 0; i < 20; i++) {
            int done = execve(self, (char *[]){self, one, 0}, environ);
            if (done != -1 || errno != E2BIG) printf("%d %d\n", done, errno);
        }
        int done = execve(self, (char *[]){(char *)1, 0}, environ);
        printf("%d %d\n", done, errno);
        raise(SIGUSR1);
        printf("signals %d\n", signals);
        facts(argc, argv);
    } else if (!strcmp(what, "signals")) {
        // A mask and pending signals go over execve; handlers do not run in the middle of one.
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigaddset(&set, SIGWINCH);
        sigprocmask(SIG_BLOCK, &set, 0);
        raise(SIGUSR2);
        execve(self, (char *[]){self, "pending", 0}, environ);
    } else if (!strcmp(what, "pending")) {
        sigset_t pending;
        sigpending(&pending);
        printf("pending %d\n", sigismember(&pending, SIGUSR2));
        facts(argc, argv);
    } else if (!strcmp(what, "storm")) {
        // Signals all the while; one child after the other has to come to its end. Without SA_RESTART a signal that
        // comes before the builder has heard of the call would end it.
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
        sigaction(SIGUSR1, &action, 0);
        sigaction(SIGUSR2, &action, 0);
        for (int i = 0; i < 20; i++) {
            int free = dup(0);
            close(free);
            if (!(child = fork())) {
                char *one = letters(128 << 10);
                for (int k = 0; k < 5; k++)
                    if (execve(self, (char *[]){self, one, 0}, environ) != -1 || errno != E2BIG) _exit(98);
                if (dup(0) != free) _exit(97);
                close(free);
                signal(SIGUSR1, SIG_IGN);
                signal(SIGUSR2, SIG_IGN);
                execve(self, (char *[]){self, "seven", 0}, environ);
                _exit(99);
            }
            int status = 0;
            for (int k = 0; waitpid(child, &status, WNOHANG) == 0; k++) kill(child, k % 2 ? SIGUSR1 : SIGUSR2);
            if (status != 7 << 8) printf("status %x\n", status);
        }
    } else if (!strcmp(what, "seven")) {
        _exit(7);
    } else if (!strcmp(what, "limit")) {
        // Too few descriptors are left, and all of them are there afterwards.
        int last = 0, first = dup(1);
        for (int i = first; i >= 0; i = dup(1)) last = i;
        for (int left = 0; left < 2; left++) {
            int done = execve(self, again, environ);
            int error = errno, found = 0;
            for (int i = first; i <= last; i++) found += fcntl(i, F_GETFD) >= 0;
            printf("%d %d, %d\n", done, error, last - first + 1 - found);
            close(last - left);
        }
    } else if (!strcmp(what, "shell")) {
        // A program of the machine's own architecture, which executes this one again.
        execve("/bin/sh", (char *[]){"sh", "-c", "echo $0; exec \"$0\" facts shell", self, 0}, environ);
    } else if (!strcmp(what, "flip")) {
        // What was an empty text when the builder looked is a path a moment later.
        static char path[5000];
        snprintf(path, sizeof path, "%s", self);
        flipped = path + strlen(path);
        strcpy(flipped + 1, "bin/echo");
        pthread_create(&thread, 0, flip, 0);
        for (;;) execve(path, (char *[]){self, "facts", 0}, environ);
    } else if (!strcmp(what, "stop")) {
        fflush(stdout);
        if (!(child = fork())) {
            raise(SIGSTOP);
            execve(self, again, environ);
            _exit(9);
        }
        int status = 0;
        waitpid(child, &status, WUNTRACED);
        printf("stopped %x\n", status);
        fflush(stdout);
        kill(child, SIGCONT);
        ended(child);
    }
    return 3;
}
