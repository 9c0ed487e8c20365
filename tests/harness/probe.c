/* A hostile guest: each verb tries what a sandbox must refuse and prints `NAME=ERRNO`, or `NAME=ok`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void tell(const char *name, long result)
{
    printf("%s=%s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

static void native(void)
{
    char byte = 'x';
    tell("tiocsti", syscall(SYS_ioctl, 0, 0x5412, &byte));
    tell("tioclinux", syscall(SYS_ioctl, 0, 0x541C, &byte));
    tell("tiocsti-with-high-bits", syscall(SYS_ioctl, 0, 0xffffffff00005412UL, &byte));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    tell("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -3));
    tell("request_key", syscall(SYS_request_key, "user", "k", NULL, 0));
    tell("bpf", syscall(SYS_bpf, 0, NULL, 0));
    tell("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    tell("userfaultfd", syscall(SYS_userfaultfd, 1));
    tell("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    tell("init_module", syscall(SYS_init_module, NULL, 0, ""));
    tell("finit_module", syscall(SYS_finit_module, -1, "", 0));
    tell("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
    tell("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, NULL, 0));
    tell("syslog", syscall(SYS_syslog, 10, NULL, 0));
    tell("clone3", syscall(SYS_clone3, NULL, 0));
    tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    tell("alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    tell("x32", syscall(0x40000000 + SYS_getpid));
}

#ifdef __x86_64__
static long call32(long number, long one, long two, long three)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static void i386(void)
{
    tell("getpid", call32(20, 0, 0, 0));
    tell("tiocsti", call32(54, 0, 0x5412, 0));
    tell("keyctl", call32(288, 0, -3, 0));
    tell("add_key", call32(286, 0, 0, 0));
    tell("bpf", call32(357, 0, 0, 0));
    tell("perf_event_open", call32(336, 0, 0, -1));
    tell("userfaultfd", call32(374, 1, 0, 0));
    tell("kexec_load", call32(283, 0, 0, 0));
    tell("init_module", call32(128, 0, 0, 0));
    tell("io_uring_setup", call32(425, 1, 0, 0));
    tell("clone3", call32(435, 0, 0, 0));
    tell("vsock", call32(359, AF_VSOCK, SOCK_STREAM, 0));

}
#endif

#ifdef __x86_64__
/* What lies below 4 GiB, where i386 calls look. */
static char low_path[256];
static unsigned low_ids[24], low_groups[2];

/* Gives a file an owner, shows it, and becomes that user, all by calls of i386. */
static void owners32(const char *path, int uid, int gid)
{
    strncpy(low_path, path, sizeof low_path - 1);
    tell("chown32", call32(212, (long)low_path, uid, gid));
    tell("stat64", call32(195, (long)low_path, (long)low_ids, 0));
    printf("owner=%u:%u\n", low_ids[6], low_ids[7]);
    tell("chown16", call32(182, (long)low_path, 7, 0xffff));
    tell("lstat64", call32(196, (long)low_path, (long)low_ids, 0));
    printf("owner=%u:%u\n", low_ids[6], low_ids[7]);
    low_groups[0] = gid;
    tell("setgroups32", call32(206, 1, (long)low_groups, 0));
    tell("setresgid32", call32(210, gid, gid, gid));
    tell("setuid32", call32(213, uid, 0, 0));
    printf("ids=%ld:%ld:%ld\n", call32(199, 0, 0, 0), call32(24, 0, 0, 0), call32(202, 0, 0, 0));
    tell("setuid16", call32(23, 0, 0, 0));
}
#endif

/* What a supervisor that answers calls must not choke on; the file has a remembered owner. */
static void owner_faults(const char *path)
{
    void *bad = (void *)8;
    struct stat st;
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    tell("stat-path", syscall(SYS_newfstatat, AT_FDCWD, bad, &st, 0));
    tell("stat-buffer", syscall(SYS_newfstatat, AT_FDCWD, path, bad, 0));
    tell("stat-flags", syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0x400000));
    tell("statx-buffer", syscall(SYS_statx, AT_FDCWD, path, 0, STATX_BASIC_STATS, bad));
    tell("stat-long", syscall(SYS_newfstatat, AT_FDCWD, longest, &st, 0));
    tell("stat-empty", syscall(SYS_newfstatat, AT_FDCWD, "", &st, 0));
    tell("fstat", syscall(SYS_fstat, 4000, &st));
    tell("chown-path", chown(bad, 1, 1));
    tell("chown-flags", syscall(SYS_fchownat, AT_FDCWD, path, 1, 1, 0x400000));
    tell("chown-long", chown(longest, 1, 1));
    tell("fchown", fchown(-1, 1, 1));
    tell("chown-through-file", chown("/etc/release/x", 1, 1));
    tell("chown-nothing", chown(path, -1, -1));
    tell("setuid", syscall(SYS_setuid, -1));
    tell("setgroups-pointer", syscall(SYS_setgroups, 3, bad));
    tell("setgroups-count", syscall(SYS_setgroups, 70000, bad));
    tell("setgroups-negative", syscall(SYS_setgroups, -1, bad));
    gid_t groups[] = {5, 6};
    tell("setgroups", syscall(SYS_setgroups, 2, groups));
    tell("getgroups-short", syscall(SYS_getgroups, 1, groups));
    tell("getgroups-pointer", syscall(SYS_getgroups, 2, bad));
    tell("getresuid", syscall(SYS_getresuid, bad, bad, bad));
    tell("setresuid", syscall(SYS_setresuid, 5, 5, 5));
    tell("mkdir-path", mkdir(bad, 0755));
    tell("open-path", open(bad, O_CREAT | O_WRONLY, 0644));
    tell("mkdir-dots", mkdir("/tmp/..", 0755));
    tell("mkdir-nowhere", mkdir("/nowhere/x", 0755));
    tell("symlink-text", symlink(bad, "/tmp/link"));
    tell("open-exclusive", open(path, O_CREAT | O_EXCL | O_WRONLY, 0644));
}

/* Changes a path while it is being read: between a file of its own and a way to what is not its own. */
static char moving[64];

static void *move_path(void *stop)
{
    while (!*(volatile int *)stop) {
        strcpy(moving, "/proc/1/cwd/victim");
        strcpy(moving, "/dev/stdin");
        strcpy(moving, "/f");
    }
    return NULL;
}

static void race_owners(void)
{
    volatile int stop = 0;
    pthread_t thread;
    struct stat st;
    strcpy(moving, "/f");
    pthread_create(&thread, NULL, move_path, (void *)&stop);
    for (int i = 0; i < 3000; i++) {
        chown(moving, 1 + i % 7, 5);
        stat(moving, &st);
    }
    stop = 1;
    pthread_join(thread, NULL);
    tell("race", 0);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    /* Root without capabilities may not map itself (user_namespaces(7)); it has every capability even so. */
    if (fd < 0 || (write(fd, text, strlen(text)) < 0 && errno != EPERM)) {
        perror(path);
        exit(2);
    }
    close(fd);
}

/* Root of a new user namespace with a mount namespace of its own: every capability that can be had in here. */
static void become_root(void)
{
    char map[32];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
        perror("unshare");
        exit(2);
    }
    put("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", uid);
    put("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "0 %u 1", gid);
    put("/proc/self/gid_map", map);
}

static void attack_mount(const char *path)
{
    mkdir("/tmp/place", 0755);
    printf("%s ", path);
    tell("umount", umount2(path, MNT_DETACH));
    printf("%s ", path);
    tell("move", mount(path, "/tmp/place", NULL, MS_MOVE, NULL));
    printf("%s ", path);
    tell("remount", mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL));
}

/* A bind without MS_REC would show what lies under the mounts below the path. */
static void bind_alone(const char *path)
{
    mkdir("/tmp/place", 0755);
    printf("%s ", path);
    tell("bind", mount(path, "/tmp/place", NULL, MS_BIND, NULL));
    int tree = syscall(SYS_open_tree, AT_FDCWD, path, 1 /* OPEN_TREE_CLONE */);
    printf("%s ", path);
    tell("open_tree", tree);
}

static void examine(int pid)
{
    char word[8];
    struct iovec here = {word, sizeof word}, there = {(void *)0x400000, sizeof word};
    tell("ptrace", ptrace(PTRACE_SEIZE, pid, 0, 0));
    tell("process_vm_readv", process_vm_readv(pid, &here, 1, &there, 1, 0));
    int fd = syscall(SYS_pidfd_open, pid, 0);
    tell("pidfd_getfd", syscall(SYS_pidfd_getfd, fd, 0, 0));
    tell("setns", setns(fd, CLONE_NEWNS));
}

static void connect_abstract(const char *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(to.sun_path + 1, name, len);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    tell("connect", connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + len));
}

static void connect_path(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    tell("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof to));
}

/* Answers one client of a socket in the file system. */
static int serve_path(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strncpy(at.sun_path, path, sizeof at.sun_path - 1);
    char word[80] = "";
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(path);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 1))
        return perror(path), 1;
    printf("ready\n");
    fflush(stdout);
    int client = accept(fd, 0, 0);
    if (client < 0 || read(client, word, sizeof word - 1) < 0)
        return perror(path), 1;
    dprintf(client, "heard %s", word);
    return 0;
}

/* Says a word to such a server and prints the answer. */
static int talk_path(const char *path, const char *word)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    char answer[100] = "";
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&to, sizeof to) || write(fd, word, strlen(word)) < 0 ||
        read(fd, answer, sizeof answer - 1) < 0)
        return perror(path), 1;
    printf("%s\n", answer);
    return 0;
}

static int connect_loopback(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to);
}

static void talk_to_myself(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (void *)&at, len) || listen(fd, 1) || getsockname(fd, (void *)&at, &len)) {
        tell("listen", -1);
        return;
    }
    tell("connect", connect_loopback(ntohs(at.sin_port)));
}

static void descriptors(void)
{
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    printf("\n");
}

/* A program that draws on the terminal and waits for a key by poll(2) alone; nothing of it may stop it. */
static int wait_for_key(void)
{
    struct termios before, raw;
    int terminal = open("/dev/tty", O_RDWR);
    char key = '-';
    signal(SIGTTOU, SIG_IGN);
    if (terminal < 0 || tcgetattr(terminal, &before)) {
        perror("/dev/tty");
        return 1;
    }
    raw = before;
    cfmakeraw(&raw);
    tcsetattr(terminal, TCSANOW, &raw);
    dprintf(terminal, "ready\r\n");
    struct pollfd keys = {.fd = terminal, .events = POLLIN};
    if (poll(&keys, 1, 30000) == 1)
        (void)!read(terminal, &key, 1);
    dprintf(terminal, "key %c\r\n", key);
    tcsetattr(terminal, TCSADRAIN, &before);
    return key == '-';
}

/* A program that asks for a line and waits for it by poll(2) before it reads. */
static int wait_for_line(void)
{
    char line[80] = "";
    int terminal = open("/dev/tty", O_RDWR);
    dprintf(terminal, "ready\n");
    struct pollfd lines = {.fd = terminal, .events = POLLIN};
    if (poll(&lines, 1, 30000) == 1)
        (void)!read(terminal, line, sizeof line - 1);
    dprintf(terminal, "line %s", line);
    return !line[0];
}

/* Makes a message queue that is there until standard input ends. */
static void hold_queue(const char *name)
{
    struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 16 };
    char byte;
    tell("mq_open", mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes));
    while (read(0, &byte, 1) > 0)
        ;
    mq_unlink(name);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "calls"))
        native();
#ifdef __x86_64__
    else if (!strcmp(verb, "calls32"))
        i386();
    else if (!strcmp(verb, "owners32"))
        owners32(argv[2], atoi(argv[3]), atoi(argv[4]));
#endif
    else if (!strcmp(verb, "owner-faults"))
        owner_faults(argv[2]);
    else if (!strcmp(verb, "race-owners"))
        race_owners();
    else if (!strcmp(verb, "mounts") || !strcmp(verb, "mounts-in-namespace")) {
        if (verb[6])
            become_root();
        for (int i = 2; i < argc; i++)
            attack_mount(argv[i]);
    } else if (!strcmp(verb, "under") || !strcmp(verb, "under-in-namespace")) {
        if (verb[5])
            become_root();
        for (int i = 2; i < argc; i++)
            bind_alone(argv[i]);
    } else if (!strcmp(verb, "examine"))
        examine(atoi(argv[2]));
    else if (!strcmp(verb, "abstract"))
        connect_abstract(argv[2]);
    else if (!strcmp(verb, "unix"))
        connect_path(argv[2]);
    else if (!strcmp(verb, "serve"))
        return serve_path(argv[2]);
    else if (!strcmp(verb, "talk"))
        return talk_path(argv[2], argv[3]);
    else if (!strcmp(verb, "tcp"))
        tell("connect", connect_loopback(atoi(argv[2])));
    else if (!strcmp(verb, "loopback"))
        talk_to_myself();
    else if (!strcmp(verb, "shm-make"))
        tell("shmget", shmget(atoi(argv[2]), 4096, IPC_CREAT | 0600));
    else if (!strcmp(verb, "shm-find"))
        tell("shmget", shmget(atoi(argv[2]), 4096, 0));
    else if (!strcmp(verb, "mq-hold"))
        hold_queue(argv[2]);
    else if (!strcmp(verb, "mq-find"))
        tell("mq_open", mq_open(argv[2], O_RDWR));
    else if (!strcmp(verb, "descriptors"))
        descriptors();
    else if (!strcmp(verb, "count")) {
        /* Number of arguments and their bytes, for command lines too long to print. */
        long bytes = 0;
        for (int i = 2; i < argc; i++)
            bytes += strlen(argv[i]);
        printf("%d %ld\n", argc - 2, bytes);
    } else if (!strcmp(verb, "signals")) {
        /* Says the number of every signal that comes; SIGTERM ends it with 9. */
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        printf("ready\n");
        for (int signal = 0; signal != SIGTERM;) {
            fflush(stdout);
            sigwait(&all, &signal);
            printf("got %d.\n", signal);
        }
        return 9;
    } else if (!strcmp(verb, "keys")) {
        return wait_for_key();
    } else if (!strcmp(verb, "line")) {
        return wait_for_line();
    } else if (!strcmp(verb, "raise")) {
        raise(atoi(argv[2]));
    } else if (!strcmp(verb, "ignored")) {
        for (int signal = 1; signal < 32; signal++) {
            struct sigaction action;
            if (!sigaction(signal, NULL, &action) && action.sa_handler == SIG_IGN)
                printf("%d ", signal);
        }
        printf("\n");
    } else if (!strcmp(verb, "closed-streams")) {
        /* Answers with its exit code, as its streams may be closed. */
        int bits = 0;
        for (int fd = 0; fd < 3; fd++)
            bits |= (fcntl(fd, F_GETFD) < 0) << fd;
        return bits;
    } else {
        fprintf(stderr, "probe: no verb %s\n", verb);
        return 2;
    }
    return 0;
}
