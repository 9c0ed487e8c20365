/* What a tree looks like from inside, and changes to it that a seed decides.
 *
 * tree            prints every name below / that is the image's business, with all that a layer must keep
 * churn SEED N    does N changes
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct names {
    char **list;
    int count;
};

static int by_bytes(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* Sorted; of the root without what an instance mounts, and without the programs that the test needs. */
static struct names entries(const char *path)
{
    static const char *const kept[] = {"proc", "sys", "dev", "run", "tmp", "bin", "sbin", NULL};
    struct names names = {NULL, 0};
    DIR *directory = opendir(path);
    if (!directory) {
        fprintf(stderr, "opendir %s: %s\n", path, strerror(errno));
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        int skip = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
        /* These two are written by every start that does not find its user in them. */
        skip |= !strcmp(path, "/etc") && (!strcmp(entry->d_name, "passwd") || !strcmp(entry->d_name, "group"));
        for (int at = 0; !strcmp(path, "/") && kept[at]; at++)
            skip |= !strcmp(entry->d_name, kept[at]);
        if (skip)
            continue;
        names.list = realloc(names.list, (names.count + 1) * sizeof *names.list);
        names.list[names.count++] = strdup(entry->d_name);
    }
    closedir(directory);
    qsort(names.list, names.count, sizeof *names.list, by_bytes);
    return names;
}

static void join(char *place, const char *directory, const char *name)
{
    snprintf(place, PATH_MAX, "%s/%s", strcmp(directory, "/") ? directory : "", name);
}

static void escaped(const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        unsigned char byte = bytes[at];
        printf(byte > ' ' && byte < 127 && byte != '\\' ? "%c" : "\\x%02x", byte);
    }
}

static uint64_t mixed(uint64_t hash, const void *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++)
        hash = (hash ^ ((const unsigned char *)bytes)[at]) * 1099511628211u;
    return hash;
}

static uint64_t content(const char *path)
{
    static char buffer[1 << 16];
    uint64_t hash = 14695981039346656037u;
    int file = open(path, O_RDONLY);
    if (file < 0)
        return errno;
    for (ssize_t got; (got = read(file, buffer, sizeof buffer)) > 0;)
        hash = mixed(hash, buffer, got);
    close(file);
    return hash;
}

static void attributes(const char *path)
{
    char list[4096], value[4096];
    ssize_t length = llistxattr(path, list, sizeof list);
    struct names names = {NULL, 0};
    for (char *name = list; length > 0 && name < list + length; name += strlen(name) + 1) {
        /* The mark of a remembered owner, which is printed as the owner. */
        if (!strcmp(name, "user.fim.owner") || !strncmp(name, "security.selinux", 16))
            continue;
        names.list = realloc(names.list, (names.count + 1) * sizeof *names.list);
        names.list[names.count++] = name;
    }
    qsort(names.list, names.count, sizeof *names.list, by_bytes);
    for (int at = 0; at < names.count; at++) {
        ssize_t got = lgetxattr(path, names.list[at], value, sizeof value);
        printf(" %s=", names.list[at]);
        if (got < 0)
            printf("%s", strerrorname_np(errno));
        else
            escaped(value, got);
    }
    free(names.list);
}

static struct {
    dev_t device;
    ino_t inode;
    char *path;
} links[100000];
static int link_count;

/* Other names of the same file show the first one. */
static void group(const char *path, const struct stat *found)
{
    printf(" links=%ju", (uintmax_t)found->st_nlink);
    if (found->st_nlink < 2)
        return;
    for (int at = 0; at < link_count; at++)
        if (links[at].device == found->st_dev && links[at].inode == found->st_ino) {
            printf(" as=");
            escaped(links[at].path, strlen(links[at].path));
            return;
        }
    links[link_count].device = found->st_dev;
    links[link_count].inode = found->st_ino;
    links[link_count++].path = strdup(path);
}

static void show(const char *path)
{
    struct stat found;
    if (lstat(path, &found)) {
        fprintf(stderr, "lstat %s: %s\n", path, strerror(errno));
        exit(1);
    }
    escaped(path, strlen(path));
    printf(" %06o %u:%u", found.st_mode, found.st_uid, found.st_gid);
    printf(" time=%jd.%09ld", (intmax_t)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
    if (!S_ISDIR(found.st_mode)) {
        printf(" size=%jd", (intmax_t)found.st_size);
        group(path, &found);
    }
    if (S_ISREG(found.st_mode))
        printf(" content=%016jx", (uintmax_t)content(path));
    if (S_ISLNK(found.st_mode)) {
        char target[PATH_MAX];
        ssize_t length = readlink(path, target, sizeof target);
        printf(" to=");
        escaped(target, length < 0 ? 0 : length);
    }
    if (S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode))
        printf(" device=%u:%u", major(found.st_rdev), minor(found.st_rdev));
    attributes(path);
    putchar('\n');
    if (!S_ISDIR(found.st_mode))
        return;
    struct names names = entries(path);
    for (int at = 0; at < names.count; at++) {
        char child[PATH_MAX];
        join(child, path, names.list[at]);
        show(child);
    }
}

static uint64_t state;

static unsigned chance(unsigned below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % below;
}

/* A random existing path; a directory when one is asked for. */
static void pick(char *path, int directory)
{
    struct stat found;
    strcpy(path, "/");
    for (;;) {
        struct names names = entries(path);
        if (!names.count)
            return;
        char child[PATH_MAX];
        join(child, path, names.list[chance(names.count)]);
        int is_directory = !lstat(child, &found) && S_ISDIR(found.st_mode);
        if (directory && !is_directory) {
            if (!chance(3) && strcmp(path, "/"))
                return;
            int any = 0;
            for (int at = 0; at < names.count; at++) {
                char other[PATH_MAX];
                join(other, path, names.list[at]);
                any |= !lstat(other, &found) && S_ISDIR(found.st_mode);
            }
            if (!any)
                return;
            continue;
        }
        strcpy(path, child);
        if (!is_directory || !chance(4))
            return;
    }
}

/* A new name in a random directory, sometimes an odd one. */
static void fresh(char *path)
{
    static const char *const odd[] = {"new\nline", "\xff\xfe", "b\\ack", "sp ace", "-dash", ".hidden", "..."};
    char directory[PATH_MAX], name[64];
    pick(directory, 1);
    snprintf(name, sizeof name, "%s%u", chance(4) ? "n" : odd[chance(7)], chance(60));
    join(path, directory, name);
}

static void fill(const char *path, size_t length, int flags)
{
    int file = open(path, O_WRONLY | O_CREAT | O_NONBLOCK | flags, 0600 + chance(0200));
    if (file < 0)
        return;
    int noise = chance(2);
    for (size_t done = 0; done < length;) {
        char buffer[4096];
        size_t step = length - done < sizeof buffer ? length - done : sizeof buffer;
        for (size_t at = 0; at < step; at++)
            buffer[at] = noise ? chance(256) : 'a' + (done / 4096) % 26;
        if (write(file, buffer, step) != (ssize_t)step)
            break;
        done += step;
    }
    close(file);
}

static void erase(const char *path)
{
    struct stat found;
    if (!lstat(path, &found) && S_ISDIR(found.st_mode)) {
        struct names names = entries(path);
        for (int at = 0; at < names.count; at++) {
            char child[PATH_MAX];
            join(child, path, names.list[at]);
            erase(child);
        }
        rmdir(path);
    } else
        unlink(path);
}

static void change(void)
{
    char path[PATH_MAX], other[PATH_MAX];
    struct stat found;
    switch (chance(20)) {
    case 0:
    case 1:
    case 2:
        fresh(path);
        fill(path, chance(4) ? chance(3000) : chance(400000), O_TRUNC | O_NOFOLLOW);
        break;
    case 3:
        pick(path, 0);
        if (!lstat(path, &found) && S_ISREG(found.st_mode))
            fill(path, chance(5000), O_APPEND);
        break;
    case 4:
        pick(path, 0);
        if (!lstat(path, &found) && !S_ISDIR(found.st_mode))
            unlink(path);
        break;
    case 5: /* A directory made anew. */
        pick(path, 1);
        if (strcmp(path, "/")) {
            erase(path);
            mkdir(path, 0700 + chance(0100));
            join(other, path, "only");
            fill(other, chance(100), 0);
        }
        break;
    case 6:
        pick(path, 1);
        if (strchr(path + 1, '/'))
            erase(path);
        break;
    case 7:
        fresh(path);
        mkdir(path, 0755);
        break;
    case 8:
        fresh(path);
        if (symlink(chance(2) ? "../somewhere" : "\xff\n", path))
            break;
        if (chance(2) && lchown(path, chance(60000), chance(60000)))
            perror("lchown");
        break;
    case 9:
        /* A new file: the kernel shows two names of one that a layer has as two files until they are in a layer again. */
        fresh(path);
        if (!lstat(path, &found))
            break;
        fill(path, chance(3000), 0);
        fresh(other);
        if (link(path, other) && errno != EEXIST)
            perror("link");
        break;
    case 10:
        fresh(path);
        mkfifo(path, 0600);
        break;
    case 11:
        pick(path, 0);
        if (!lstat(path, &found) && !S_ISLNK(found.st_mode) && strcmp(path, "/"))
            chmod(path, chance(3) ? chance(07777) : 0);
        break;
    case 12:
    case 13:
        pick(path, 0);
        if (strcmp(path, "/") && lchown(path, chance(60000), chance(60000)) && errno != EPERM && errno != EINVAL)
            perror("lchown");
        break;
    case 14: {
        struct timespec times[2] = {{chance(2000000000), chance(999999999)}, {chance(2000000000), chance(999999999)}};
        pick(path, 0);
        if (strcmp(path, "/"))
            utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
        break;
    }
    case 15:
        pick(path, 0);
        if (!lstat(path, &found) && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)) && strcmp(path, "/"))
            lsetxattr(path, chance(2) ? "user.note" : "user.overlay.opaque", "v\0\n", chance(4), 0);
        break;
    case 16: {
        struct vfs_cap_data capability = {VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, {{1u << 10, 0}, {0, 0}}};
        pick(path, 0);
        if (!lstat(path, &found) && S_ISREG(found.st_mode))
            lsetxattr(path, "security.capability", &capability, sizeof capability, 0);
        break;
    }
    case 17:
        fresh(path);
        fill(path, 10, 0);
        if (!truncate(path, 1 << 20))
            fill(path, 10, O_APPEND);
        break;
    case 18:
        pick(path, 0);
        fresh(other);
        if (!lstat(path, &found) && !S_ISDIR(found.st_mode))
            rename(path, other);
        break;
    default: /* Only an emulated root can. */
        fresh(path);
        if (!mknod(path, chance(2) ? S_IFCHR | 0600 : S_IFBLK | 0640, makedev(chance(300), chance(70000))) && chance(2))
            if (chown(path, chance(1000), 6))
                perror("chown");
        break;
    }
}

int main(int count, char **words)
{
    if (count == 2 && !strcmp(words[1], "tree")) {
        struct names names = entries("/");
        for (int at = 0; at < names.count; at++) {
            char child[PATH_MAX];
            join(child, "/", names.list[at]);
            show(child);
        }
        return 0;
    }
    if (count == 4 && !strcmp(words[1], "churn")) {
        state = strtoull(words[2], NULL, 10) * 7919 + 17;
        for (int left = atoi(words[3]); left > 0; left--)
            change();
        return 0;
    }
    return 2;
}
