/* Measures connections: `network serve PORT` answers, `network fetch PORT BYTES` prints megabytes a second that it is
 * sent, `network ask PORT TIMES` microseconds that one byte and its answer take, `network connect PORT TIMES` those of a
 * connection with one byte and its answer. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char block[256 * 1024];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int open_socket(uint32_t address, int port, int serves) {
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address) };
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (serves ? bind(fd, (void *)&in, sizeof in) || listen(fd, 128) : connect(fd, (void *)&in, sizeof in))
        fail(serves ? "serve" : "connect");
    return fd;
}

/* The first eight bytes say how much the client wants; without any, each byte comes back. */
static void answer(int fd) {
    uint64_t left;
    if (recv(fd, &left, sizeof left, MSG_WAITALL) != sizeof left)
        return;
    while (left > 0) {
        ssize_t len = write(fd, block, left < sizeof block ? left : sizeof block);
        if (len <= 0)
            return;
        left -= len;
    }
    for (char byte; read(fd, &byte, 1) == 1;)
        if (write(fd, &byte, 1) != 1)
            return;
}

static int begin(int port, uint64_t wanted) {
    int fd = open_socket(INADDR_LOOPBACK, port, 0);
    if (write(fd, &wanted, sizeof wanted) != sizeof wanted)
        fail("write");
    return fd;
}

static void ask(int fd) {
    char byte = 'x';
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
        fail("ask");
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        int fd = open_socket(INADDR_ANY, atoi(argv[2]), 1), on = 1;
        signal(SIGCHLD, SIG_IGN);
        puts("ready");
        fflush(stdout);
        for (int client; (client = accept(fd, NULL, NULL)) >= 0; close(client))
            if (fork() == 0) {
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                return answer(client), 0;
            }
        fail("accept");
    }
    if (argc != 4)
        return 2;
    int port = atoi(argv[2]);
    uint64_t number = strtoull(argv[3], NULL, 10);
    double start = now();
    if (strcmp(argv[1], "fetch") == 0) {
        int fd = begin(port, number);
        for (uint64_t left = number; left > 0;) {
            ssize_t len = read(fd, block, sizeof block);
            if (len <= 0)
                fail("fetch");
            left -= len;
        }
        printf("%f\n", number / (now() - start) / 1e6);
    } else if (strcmp(argv[1], "ask") == 0) {
        int fd = begin(port, 0);
        ask(fd);
        start = now();
        for (uint64_t at = 0; at < number; at++)
            ask(fd);
        printf("%f\n", (now() - start) / number * 1e6);
    } else if (strcmp(argv[1], "connect") == 0) {
        for (uint64_t at = 0; at < number; at++) {
            int fd = begin(port, 0);
            ask(fd);
            close(fd);
        }
        printf("%f\n", (now() - start) / number * 1e6);
    } else {
        return 2;
    }
    return 0;
}
