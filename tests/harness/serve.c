/* A server that answers with what it is sent: `serve tcp|tcp6|udp|udp6|reset PORT`. It prints `ready` when it listens.
 * `reset` accepts and breaks every connection. `serve who PORT` tells each client the server's FIM_INSTANCE_NAME. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
    fprintf(stderr, "serve: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listener(int six, int type, int port)
{
    struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(six ? AF_INET6 : AF_INET, type, 0), on = 1;
    if (type == SOCK_STREAM)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, six ? (void *)&in6 : (void *)&in4, six ? sizeof in6 : sizeof in4) < 0)
        fail("bind");
    if (type == SOCK_STREAM && listen(fd, 1024) < 0)
        fail("listen");
    return fd;
}

static void serve_one(int fd, const char *mode)
{
    char bytes[65536];
    const char *name = getenv("FIM_INSTANCE_NAME");
    struct linger linger = { 1, 0 };
    if (!strcmp(mode, "who")) {
        dprintf(fd, "%s\n", name ? name : "");
        exit(0);
    }
    if (!strcmp(mode, "reset")) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        exit(0);
    }
    for (ssize_t len; (len = read(fd, bytes, sizeof bytes)) > 0;)
        for (ssize_t at = 0, put; at < len; at += put)
            if ((put = write(fd, bytes + at, len - at)) < 0)
                exit(0);
    exit(0);
}

int main(int argc, char **argv)
{
    static char bytes[65536];
    if (argc != 3)
        return 2;
    int udp = !strncmp(argv[1], "udp", 3), six = argv[1][strlen(argv[1]) - 1] == '6';
    int fd = listener(six, udp ? SOCK_DGRAM : SOCK_STREAM, atoi(argv[2]));
    signal(SIGCHLD, SIG_IGN);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        if (udp) {
            struct sockaddr_storage from;
            socklen_t size = sizeof from;
            ssize_t len = recvfrom(fd, bytes, sizeof bytes, 0, (void *)&from, &size);
            if (len >= 0)
                sendto(fd, bytes, len, 0, (void *)&from, size);
            continue;
        }
        int client = accept(fd, NULL, NULL);
        if (client >= 0 && fork() == 0)
            serve_one(client, argv[1]);
        close(client);
    }
}
