/* tide: answers over HTTP whether the tide comes in or goes out. The example that zuwai builds.
 *
 *     tide serve       answer on the port that the file $TIDE_CONFIG names
 *     tide check       ask a running tide whether it is well (for HEALTHCHECK)
 *     tide whoami      say who and where this process is, and whether it can read its settings
 *     tide --version
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HALF_TIDE 22357 /* seconds from high to low water: half of 12 h 25 min 14 s */

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static int port(void) {
    const char *path = getenv("TIDE_CONFIG");
    FILE *file = fopen(path ? path : "/etc/tide.conf", "r");
    char line[128];
    int number = -1;
    if (!file) return -1;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "port %d", &number) == 1) break;
    fclose(file);
    return number;
}

static struct sockaddr_in address(in_addr_t host) {
    struct sockaddr_in out = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port())};
    out.sin_addr.s_addr = htonl(host);
    return out;
}

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int serve(void) {
    struct sockaddr_in here = address(INADDR_ANY);
    struct sigaction action = {.sa_handler = stop}; /* no SA_RESTART: accept returns */
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (listener < 0) return fail("socket");
    sigaction(SIGINT, &action, NULL);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 16)) return fail("listen");
    while (!stopped) {
        char request[1024], answer[128];
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        if (read(client, request, sizeof request) > 0) {
            const char *way = (time(NULL) / HALF_TIDE) % 2 ? "in" : "out";
            int size = snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n%s\n", way);
            if (write(client, answer, (size_t)size) != size) perror("write");
        }
        close(client);
    }
    return 0;
}

static int check(void) {
    struct sockaddr_in there = address(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    char answer[128] = "";
    if (server < 0 || connect(server, (struct sockaddr *)&there, sizeof there)) return fail("connect");
    if (write(server, request, sizeof request - 1) < 0 || read(server, answer, sizeof answer - 1) < 0) return fail("ask");
    return strncmp(answer, "HTTP/1.0 200", 12) != 0;
}

static int whoami(void) {
    char directory[PATH_MAX];
    if (!getcwd(directory, sizeof directory)) return fail("getcwd");
    printf("tide %s uid=%d gid=%d directory=%s port=%d\n", VERSION, (int)getuid(), (int)getgid(), directory, port());
    return port() < 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "serve")) return serve();
    if (!strcmp(verb, "check")) return check();
    if (!strcmp(verb, "whoami")) return whoami();
    if (!strcmp(verb, "--version")) return printf("tide %s\n", VERSION) < 0;
    fprintf(stderr, "usage: tide serve|check|whoami|--version\n");
    return 2;
}
