// What got through `emulate` once, or stopped it: `attacks NAME`, with status 0 when it held.
//
// `prepare` makes what the others need, in a step before theirs; `victim` is for a stage beside them. What went wrong goes to
// standard output, in lines that begin with WRONG.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define USER 1000
// linux/filter.h and linux/seccomp.h, which musl's compiler does not find: a filter looks at the number of a call first.
struct statement {
  unsigned short code;
  unsigned char yes, no;
  unsigned int value;
};
struct statements {
  unsigned short count;
  struct statement *all;
};
enum { LOAD = 0x20, WHEN_EQUAL = 0x15, ANSWER = 0x06, ANSWER_DONE = 0x50000, REFUSE = 0x50000 | EPERM, ALLOW = 0x7fff0000, FILTER = 2 };

static const char marker[] = "a text that only root may read";
static int wrongs;

#define wrong(...) (wrongs++, printf("WRONG "), printf(__VA_ARGS__), puts(""), fflush(stdout))

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void become_user(void) {
  if (setgid(USER) || setuid(USER)) exit(9);
}

static void put(const char *path, const void *content, size_t length, mode_t mode) {
  int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  if (file < 0 || write(file, content, length) != (ssize_t)length || fchmod(file, mode) || close(file)) {
    perror(path);
    exit(9);
  }
}

static void prepare(void) {
  static char program[8 << 20];
  int file = open("/attacks", O_RDONLY);
  ssize_t length = read(file, program, sizeof program - sizeof marker);
  memcpy(program + length, marker, sizeof marker);
  put("/unreadable", program, length + sizeof marker, 0711);
  put("/set-id", program, length, 04755);
  mkdir("/hidden", 0711);
  mkdir("/open", 0777);
  chmod("/open", 0777);
  mkdir("/roots", 0755);
  put("/roots/file", "", 0, 0644);
  if (truncate("/roots/file", 256 << 20) || chown("/roots/file", USER, USER) || link("/roots/file", "/roots/other")) exit(9);
}

// A filter of its own refuses what ends a failed execve, or says that it is done: the program and its loader would stay open.
static void keep_what_execve_opens(const char *path, int as_user, unsigned int about_close) {
  if (as_user) become_user();
  struct statement all[] = {
      {LOAD, 0, 0, 0},          {WHEN_EQUAL, 0, 1, SYS_execveat}, {ANSWER, 0, 0, REFUSE}, {WHEN_EQUAL, 0, 1, SYS_close},
      {ANSWER, 0, 0, about_close}, {ANSWER, 0, 0, ALLOW},
  };
  struct statements filter = {sizeof all / sizeof *all, all};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, FILTER, &filter)) exit(9);
  char *arguments[] = {(char *)path, 0};
  execve(path, arguments, 0);
  static char content[8 << 20];
  for (int number = 3; number < 40; number++) {
    ssize_t length = pread(number, content, sizeof content, 0);
    if (length > 0 && length < 512 && !fchmod(number, 0)) wrong("the loader of all steps has another mode");
    if (as_user && length > 0 && memmem(content, length, marker, sizeof marker)) wrong("a program was read that may not be");
  }
  exit(wrongs != 0);
}

static int directory;
static volatile long looks, binds;

static void *look(void *_) {
  struct stat found;
  for (;;) {
    if (!fstat(directory, &found)) looks++;
  }
  return _;
}

static void *bind_again(void *_) {
  struct sockaddr_un address = {AF_UNIX, "/open/socket"};
  for (;;) {
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!bind(made, (void *)&address, sizeof address)) binds++;
    close(made);
    unlink("/open/socket");
  }
  return _;
}

// Who looks at what a descriptor stands for, while others make files: nobody waits for ever.
static void look_while_files_are_made(void) {
  become_user();
  directory = open("/hidden", O_PATH | O_DIRECTORY);
  pthread_t threads[2];
  pthread_create(&threads[0], 0, look, 0);
  pthread_create(&threads[1], 0, bind_again, 0);
  for (int second = 0; second < 4; second++) {
    long looks_before = looks, binds_before = binds;
    sleep(1);
    if (looks == looks_before || binds == binds_before) wrong("a call waits for ever");
  }
  exit(wrongs != 0);
}

// A file of several names becomes the name's own before it is changed: only if the name still is that file's.
static void change_what_was_replaced(void) {
  put("/roots/new", marker, sizeof marker, 0600);
  pid_t user = fork();
  if (!user) {
    become_user();
    truncate("/roots/file", 5);
    _exit(0);
  }
  usleep(20000);
  if (rename("/roots/new", "/roots/file")) wrong("rename: %s", strerror(errno));
  waitpid(user, 0, 0);
  struct stat found;
  if (stat("/roots/file", &found) || found.st_uid != 0 || found.st_size != sizeof marker) wrong("a user replaced root's file");
  exit(wrongs != 0);
}

static int count(void) {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) ? -1 : CPU_COUNT(&allowed);
}

static int processors;
static pid_t opener;

static void *execute_alone(void *_) {
  usleep(rand() % 500);
  char many[16];
  snprintf(many, sizeof many, "%d", processors);
  char *arguments[] = {"/attacks", "counted", many, 0};
  execv("/attacks", arguments);
  return _;
}

static void *open_always(void *_) {
  opener = gettid();
  for (;;) close(open("/attacks", O_RDONLY));
  return _;
}

// The builder may keep a thread on one processor while it waits: nobody sees that, and nothing inherits it.
static void processors_stay(void) {
  processors = count();
  for (int run = 0; run < 300; run++) {
    pid_t child = fork();
    if (!child) {
      srand(run);
      pthread_t thread;
      pthread_create(&thread, 0, execute_alone, 0);
      open_always(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status) wrong("a new program has other processors: status %x", status);
  }
  pthread_t thread;
  pthread_create(&thread, 0, open_always, 0);
  while (!opener) sched_yield();
  cpu_set_t allowed;
  for (int again = 0; again < 20000; again++) {
    if (!sched_getaffinity(opener, sizeof allowed, &allowed) && CPU_COUNT(&allowed) != processors) {
      wrong("a thread was seen on %d processors", CPU_COUNT(&allowed));
      break;
    }
  }
  exit(wrongs != 0);
}

// A directory that was moved out of the part of a cache in which it is a working directory.
static void move_out(void) {
  alarm(20);
  if (chdir("/part") || mkdir("sub", 0755) || chdir("sub") || mkdir("one", 0755)) exit(9);
  if (rename("/cache/part/sub", "/cache/sub")) exit(9);
  // However it ends, it ends.
  rename("one", "two");
  exit(0);
}

static void victim(void) {
  for (double end = now() + 7; now() < end;) {
    pid_t child = fork();
    if (!child) {
      char *arguments[] = {"/attacks", "nothing", 0};
      execv("/attacks", arguments);
      _exit(8);
    }
    int status;
    waitpid(child, &status, 0);
    if (status) {
      wrong("a program was not started: status %x", status);
      break;
    }
  }
  exit(wrongs != 0);
}

// A process outside that the builder takes for one of the step's: somebody else sees to that, and the first wall is no more. Numbers
// of such processes, as many as there are to be, turn up in /proc. Their environment, memory and descriptors must not be read.
static void strangers(int expected) {
  static const char *const files[] = {"environ", "mem", "maps", "auxv", "pagemap", "syscall", "stack", "io", "fd/0"};
  puts("READY");
  fflush(stdout);
  int found = 0;
  for (double end = now() + 30; now() < end && found < expected; usleep(20000)) {
    found = 0;
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
      int process = atoi(entry->d_name);
      if (process && process != getpid()) found++;
    }
    if (processes) closedir(processes);
  }
  if (found < expected) wrong("%d strangers of %d were taken for the step's", found, expected);
  DIR *processes = opendir("/proc");
  for (struct dirent *entry; processes && (entry = readdir(processes));) {
    int process = atoi(entry->d_name);
    if (!process || process == getpid()) continue;
    for (unsigned at = 0; at < sizeof files / sizeof *files; at++) {
      char path[64], content[4096] = "";
      snprintf(path, sizeof path, "/proc/%d/%s", process, files[at]);
      int file = open(path, O_RDONLY);
      // Some are opened by anybody, and read by few. An open directory is no file.
      ssize_t length = file < 0 ? -1 : pread(file, content, sizeof content, 0);
      if (length > 0) wrong("%s was read: %.60s", path, content);
      if (file >= 0) close(file);
    }
    // The program is at this address, where it is one that does not choose.
    char byte;
    struct iovec own = {&byte, 1}, its = {(void *)0x400000, 1};
    if (process_vm_readv(process, &own, 1, &its, 1, 0) >= 0 || errno == EFAULT) wrong("memory of %d was read", process);
  }
  if (processes) closedir(processes);
  exit(wrongs != 0);
}

// May end by SIGKILL where the builder has seen what it is about.
static void attack(const char *name, void (*work)(void), int may_be_killed) {
  pid_t child = fork();
  if (!child) {
    wrongs = 0;
    work();
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  if (status && !(may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) wrong("%s: status %x", name, status);
}

static void keep_loader(void) { keep_what_execve_opens("/attacks", 0, REFUSE); }
static void keep_program(void) { keep_what_execve_opens("/unreadable", 1, REFUSE); }
static void keep_program_quietly(void) { keep_what_execve_opens("/unreadable", 1, ANSWER_DONE); }
static void keep_program_as_closed(void) { keep_what_execve_opens("/unreadable", 1, ANSWER_DONE | EBADF); }

// What a program with other ids than its caller's must not keep of how the caller was run.
static void keep_personality(void) {
  become_user();
  enum { SAME_ADDRESSES = 0x40000, PAGE_ZERO = 0x100000 };
  // Container profiles refuse it.
  personality(SAME_ADDRESSES | PAGE_ZERO);
  if (prctl(PR_SET_PDEATHSIG, SIGUSR1)) exit(9);
  char *arguments[] = {"/set-id", "reset", 0};
  execv("/set-id", arguments);
  exit(9);
}

static int is_reset(void) {
  int signal = -1;
  if (geteuid() != 0) wrong("the set-user-ID program has user %d", geteuid());
  if (personality(0xffffffff)) wrong("a set-user-ID program has the personality %x", personality(0xffffffff));
  if (prctl(PR_GET_PDEATHSIG, &signal) || signal) wrong("a set-user-ID program gets signal %d", signal);
  return wrongs != 0;
}

// Root that has given its rights away for good does not get them back by a program.
static void rights_come_back(void) {
  struct { unsigned version; int process; } header = {0x20080522, 0};
  unsigned none[6] = {0};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &header, none)) exit(9);
  char *arguments[] = {"/attacks", "no-rights", 0};
  execv("/attacks", arguments);
  exit(9);
}

// A server of root's asks who has connected, when the builder has forgotten: not root.
static void forgotten_peer(void) {
  struct sockaddr_un roots = {AF_UNIX, "/open/roots"}, users = {AF_UNIX, "/open/users"};
  int server = socket(AF_UNIX, SOCK_STREAM, 0), ready[2], pair[2];
  if (bind(server, (void *)&roots, sizeof roots) || listen(server, 8) || chmod(roots.sun_path, 0666) || pipe(ready)) exit(9);
  pid_t user = fork();
  if (!user) {
    become_user();
    int early = socket(AF_UNIX, SOCK_STREAM, 0), own = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(early, (void *)&roots, sizeof roots) || bind(own, (void *)&users, sizeof users) || listen(own, 8)) _exit(9);
    for (int count = 0; count < 5000; count++) {
      int one = socket(AF_UNIX, SOCK_STREAM, 0);
      if (connect(one, (void *)&users, sizeof users)) _exit(9);
      close(accept(own, 0, 0));
      close(one);
    }
    if (write(ready[1], "x", 1) != 1) _exit(9);
    pause();
  }
  char byte;
  close(ready[1]);
  if (read(ready[0], &byte, 1) != 1) exit(9);
  struct ucred peer;
  socklen_t length = sizeof peer;
  int connection = accept(server, 0, 0);
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) || peer.uid == 0) wrong("a user was taken for %d", peer.uid);
  length = sizeof peer;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &length) || peer.uid != 0)
    wrong("who made a socketpair was taken for %d", peer.uid);
  kill(user, SIGKILL);
  waitpid(user, 0, 0);
  exit(wrongs != 0);
}

// On a full disk what a user makes, and whose owner cannot be noted, is not there: it would be root's.
static void full_disk(void) {
  mkdir("/open", 0777);
  chmod("/open", 0777);
  become_user();
  static char zeros[65536];
  int file = open("/open/fill", O_CREAT | O_WRONLY, 0600), failures = 0;
  while (write(file, zeros, sizeof zeros) > 0);
  while (write(file, zeros, 100) > 0);
  for (int count = 0; count < 3000 && failures < 12; count++) {
    char path[64];
    snprintf(path, sizeof path, "/open/made-%d", count);
    int made;
    switch (count % 4) {
      case 0: made = symlink("/etc/evil", path); break;
      case 1: made = mkdir(path, 0777); break;
      case 2: made = mknod(path, S_IFREG | 0666, 0); break;
      default: made = open(path, O_CREAT | O_RDWR, 0666);
    }
    struct stat found;
    if (made < 0 && !lstat(path, &found)) wrong("%s failed and is there, user %d", path, found.st_uid);
    failures += made < 0;
  }
  if (!failures) wrong("the disk was not full");
  printf("REFUSED %d\n", failures);
  fflush(stdout);
  exit(wrongs != 0);
}

int main(int count_, char **arguments) {
  const char *name = count_ > 1 ? arguments[1] : "";
  if (!strcmp(name, "nothing")) return 0;
  if (!strcmp(name, "reset")) return is_reset();
  if (!strcmp(name, "no-rights")) return setuid(5) == 0;
  if (!strcmp(name, "full-disk")) full_disk();
  if (!strcmp(name, "counted")) return count() != atoi(arguments[2]);
  if (!strcmp(name, "prepare")) prepare();
  if (!strcmp(name, "victim")) victim();
  if (!strcmp(name, "part")) return mkdir("/cache/part", 0755) && errno != EEXIST;
  if (!strcmp(name, "move-out")) move_out();
  if (!strcmp(name, "strangers")) strangers(atoi(arguments[2]));
  if (!strcmp(name, "all")) {
    attack("keep the loader", keep_loader, 1);
    attack("keep a program", keep_program, 1);
    attack("keep a program quietly", keep_program_quietly, 1);
    attack("keep a program as closed", keep_program_as_closed, 1);
    attack("keep a personality", keep_personality, 0);
    attack("rights that come back", rights_come_back, 0);
    attack("look while files are made", look_while_files_are_made, 0);
    attack("change what was replaced", change_what_was_replaced, 0);
    attack("processors", processors_stay, 0);
    attack("a peer that was forgotten", forgotten_peer, 0);
  }
  return wrongs != 0;
}
