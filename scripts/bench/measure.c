/* Measures inside one process, so that no shell or interpreter is in the figures. Linked statically, to run in any image.
 *
 *   measure spawn COMMAND... [++ COMMAND...]   runs the commands one after the other; prints the milliseconds of them all
 *   measure tree DIRECTORY READERS PASSES      reads every file below; prints bytes, then the seconds of each pass
 *   measure list DIRECTORY PASSES              lstat(2) of everything below; prints entries, then the seconds of each pass
 *   measure random FILE COUNT                  reads 4 KiB at random places; prints the reads of each second
 *   measure source BYTES                       writes so many bytes to stdout
 *   measure sink                               reads stdin to its end; prints bytes and seconds
 *   measure hold                               says that it runs, then waits for the end of stdin
 *   measure nothing                            ends at once
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void fail(const char *object) {
    fprintf(stderr, "measure: %s: %s\n", object, strerror(errno));
    exit(1);
}

static int spawn(char **words) {
    double start = now();
    while (*words) {
        char **end = words;
        while (*end && strcmp(*end, "++") != 0)
            end++;
        char **next = *end ? end + 1 : end;
        *end = NULL;
        pid_t child;
        int status, error = posix_spawnp(&child, words[0], NULL, NULL, words, environ);
        if (error != 0) {
            errno = error;
            fail(words[0]);
        }
        if (waitpid(child, &status, 0) < 0)
            fail(words[0]);
        if (status != 0) {
            fprintf(stderr, "measure: %s: status %d\n", words[0], status);
            return 1;
        }
        words = next;
    }
    printf("%.4f\n", (now() - start) * 1e3);
    return 0;
}

/* A walk of one file system, in the order of its directories. */
static char **files;
static size_t count, room;
static size_t entries;

static void walk(const char *path, dev_t device, int keep) {
    DIR *directory = opendir(path);
    if (!directory) {
        if (errno == EACCES)
            return;
        fail(path);
    }
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *name;
        if (asprintf(&name, "%s/%s", path, entry->d_name) < 0)
            fail(path);
        struct stat stat;
        if (lstat(name, &stat) != 0)
            fail(name);
        entries++;
        /* An overlay shows files with another device than directories, so that only those tell a mount. */
        if (S_ISDIR(stat.st_mode) && stat.st_dev == device)
            walk(name, device, keep);
        if (keep && S_ISREG(stat.st_mode)) {
            if (count == room) {
                room = room ? 2 * room : 1024;
                files = realloc(files, room * sizeof *files);
                if (!files)
                    fail(path);
            }
            files[count++] = name;
        } else {
            free(name);
        }
    }
    closedir(directory);
}

static void walk_from(const char *path, int keep) {
    struct stat stat;
    if (lstat(path, &stat) != 0)
        fail(path);
    walk(strcmp(path, "/") == 0 ? "/." : path, stat.st_dev, keep);
}

static size_t taken;

static void *reader(void *total) {
    static const size_t size = 128 * 1024;
    char *buffer = malloc(size);
    for (;;) {
        size_t index = __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED);
        if (index >= count)
            break;
        int file = open(files[index], O_RDONLY);
        if (file < 0) {
            if (errno == EACCES)
                continue;
            fail(files[index]);
        }
        ssize_t got;
        while ((got = read(file, buffer, size)) > 0)
            *(uint64_t *)total += (uint64_t)got;
        if (got < 0)
            fail(files[index]);
        close(file);
    }
    free(buffer);
    return NULL;
}

static void tree(const char *path, int readers, int passes) {
    for (int pass = 0; pass < passes; pass++) {
        pthread_t threads[readers];
        uint64_t totals[readers][16]; /* a cache line apart */
        uint64_t bytes = 0;
        double start = now();
        taken = count = 0;
        walk_from(path, 1);
        for (int i = 0; i < readers; i++) {
            totals[i][0] = 0;
            if (pthread_create(&threads[i], NULL, reader, totals[i]) != 0)
                fail("thread");
        }
        for (int i = 0; i < readers; i++) {
            pthread_join(threads[i], NULL);
            bytes += totals[i][0];
        }
        double seconds = now() - start;
        if (pass == 0)
            printf("%llu", (unsigned long long)bytes);
        printf(" %.6f", seconds);
    }
    printf("\n");
}

static void list(const char *path, int passes) {
    for (int pass = 0; pass < passes; pass++) {
        double start = now();
        entries = 0;
        walk_from(path, 0);
        double seconds = now() - start;
        if (pass == 0)
            printf("%zu", entries);
        printf(" %.6f", seconds);
    }
    printf("\n");
}

static void random_reads(const char *path, int times) {
    uint64_t state = 88172645463325252ULL;
    char buffer[4096];
    int file = open(path, O_RDONLY);
    struct stat stat;
    if (file < 0 || fstat(file, &stat) != 0 || posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM) != 0)
        fail(path);
    double start = now();
    for (int i = 0; i < times; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        off_t offset = (off_t)(state % (uint64_t)(stat.st_size / 4096)) * 4096;
        if (pread(file, buffer, sizeof buffer, offset) != sizeof buffer)
            fail(path);
    }
    printf("%.0f\n", times / (now() - start));
}

static char block[128 * 1024];

static void source(uint64_t left) {
    memset(block, 'x', sizeof block);
    while (left > 0) {
        ssize_t put = write(1, block, left < sizeof block ? left : sizeof block);
        if (put < 0)
            fail("stdout");
        left -= (uint64_t)put;
    }
}

static void sink(void) {
    double start = now();
    uint64_t bytes = 0;
    ssize_t got;
    while ((got = read(0, block, sizeof block)) > 0)
        bytes += (uint64_t)got;
    if (got < 0)
        fail("stdin");
    printf("%llu %.6f\n", (unsigned long long)bytes, now() - start);
}

/* What a change of the settings does to the file. */
static int slot(const char *path) {
    static char bytes[4096];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, bytes, sizeof bytes, 0) != sizeof bytes || fsync(fd) != 0)
        fail(path);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "nothing") == 0)
        return 0;
    if (argc == 2 && strcmp(argv[1], "hold") == 0) {
        char byte;
        printf("running\n");
        fflush(stdout);
        return read(0, &byte, 1) < 0;
    }
    if (argc > 2 && strcmp(argv[1], "spawn") == 0)
        return spawn(argv + 2);
    if (argc == 5 && strcmp(argv[1], "tree") == 0)
        return tree(argv[2], atoi(argv[3]), atoi(argv[4])), 0;
    if (argc == 4 && strcmp(argv[1], "list") == 0)
        return list(argv[2], atoi(argv[3])), 0;
    if (argc == 4 && strcmp(argv[1], "random") == 0)
        return random_reads(argv[2], atoi(argv[3])), 0;
    if (argc == 3 && strcmp(argv[1], "source") == 0)
        return source(strtoull(argv[2], NULL, 10)), 0;
    if (argc == 3 && strcmp(argv[1], "slot") == 0)
        return slot(argv[2]);
    if (argc == 2 && strcmp(argv[1], "sink") == 0)
        return sink(), 0;
    fprintf(stderr, "measure: wrong arguments; its source says which there are\n");
    return 2;
}
