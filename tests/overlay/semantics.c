/*
 * Checks of what programs rely on in a writable root, run inside an instance in a directory of the image:
 *
 *   semantics DIRECTORY [--strict]
 *
 * DIRECTORY comes from a layer and has: file ("lower\n"), twin1 and twin2 (hard links, "twin\n"), sub/inner/leaf,
 * sub/other, gone, replaced/old, link (symlink to file), big (1 MiB of 'b'), nameless/written and nameless/replaced (with
 * their names as contents), nameless/one and nameless/two (hard links, "twin\n"), sparse (4 MiB of holes, "data" at 1 MiB). With --strict, also what the kernel's
 * overlay does not do. Prints one line for each check that fails, and "all N" at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif

static int checks, failures;

#define CHECK(condition) \
	do { \
		checks++; \
		errno = 0; \
		if (!(condition)) { \
			failures++; \
			printf("line %d: %s (%s)\n", __LINE__, #condition, strerror(errno)); \
		} \
	} while (0)
/* A call that must fail with this error. */
#define FAILS(call, error) \
	do { \
		checks++; \
		errno = 0; \
		if ((call) != -1 || errno != (error)) { \
			failures++; \
			printf("line %d: %s: %s, not %s\n", __LINE__, #call, strerror(errno), #error); \
		} \
	} while (0)

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return -1;
	ssize_t count = write(fd, text, strlen(text));
	return close(fd) == 0 && count == (ssize_t)strlen(text) ? 0 : -1;
}

static int holds(const char *path, const char *text)
{
	char buffer[256] = {0};
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	ssize_t count = read(fd, buffer, sizeof buffer - 1);
	close(fd);
	return count == (ssize_t)strlen(text) && strcmp(buffer, text) == 0;
}

static int exists(const char *path)
{
	struct stat stat;
	return lstat(path, &stat) == 0;
}

static ino_t inode(const char *path)
{
	struct stat stat;
	return lstat(path, &stat) == 0 ? stat.st_ino : 0;
}

static nlink_t links(const char *path)
{
	struct stat stat;
	return lstat(path, &stat) == 0 ? stat.st_nlink : 0;
}

static int count(const char *path)
{
	DIR *directory = opendir(path);
	int found = 0;
	if (!directory)
		return -1;
	while (readdir(directory))
		found++;
	closedir(directory);
	return found - 2;
}

static int rename2(const char *from, const char *to, unsigned flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

static void copy_up(void)
{
	struct stat before, after;
	/* Somebody who had it open before it was changed sees the change, and the number stays. */
	int old = open("file", O_RDONLY);
	CHECK(old >= 0 && fstat(old, &before) == 0 && before.st_size == 6);
	int fd = open("file", O_WRONLY | O_APPEND);
	CHECK(fd >= 0 && write(fd, "more\n", 5) == 5 && close(fd) == 0);
	CHECK(holds("file", "lower\nmore\n"));
	CHECK(stat("file", &after) == 0 && after.st_mode == before.st_mode && after.st_uid == before.st_uid);
	close(old);
	CHECK(chmod("sub/other", 0600) == 0 && stat("sub/other", &after) == 0 && (after.st_mode & 07777) == 0600);
	CHECK(holds("sub/other", "other\n"));
	struct timespec times[2] = {{1000, 123456789}, {2000, 987654321}};
	CHECK(utimensat(AT_FDCWD, "sub/other", times, 0) == 0 && stat("sub/other", &after) == 0);
	CHECK(after.st_mtim.tv_sec == 2000 && after.st_mtim.tv_nsec == 987654321 && after.st_atim.tv_sec == 1000);
	/* Whoever changes a program takes away what lets it run as its owner. */
	CHECK(chmod("sub/other", 06755) == 0 && stat("sub/other", &after) == 0 && (after.st_mode & 07777) == 06755);
	fd = open("sub/other", O_WRONLY | O_APPEND);
	CHECK(write(fd, "x", 1) == 1 && close(fd) == 0 && stat("sub/other", &after) == 0);
	CHECK((after.st_mode & 07777) == 0755);
	CHECK(chmod("sub/other", 04711) == 0 && truncate("sub/other", 3) == 0 && stat("sub/other", &after) == 0);
	CHECK((after.st_mode & 07777) == 0711);
	CHECK(chmod("sub/other", 04711) == 0 && put("sub/other", "other\n") == 0 && stat("sub/other", &after) == 0);
	CHECK((after.st_mode & 07777) == 0711);
	CHECK(truncate("big", 4096) == 0 && stat("big", &after) == 0 && after.st_size == 4096);
	CHECK(truncate("big", 8192) == 0 && stat("big", &after) == 0 && after.st_size == 8192);
	char page[8192];
	fd = open("big", O_RDONLY);
	CHECK(read(fd, page, 8192) == 8192 && page[4095] == 'b' && page[4096] == 0);
	close(fd);
	CHECK(utimensat(AT_FDCWD, "link", times, AT_SYMLINK_NOFOLLOW) == 0 && lstat("link", &after) == 0);
	CHECK(S_ISLNK(after.st_mode) && after.st_mtim.tv_sec == 2000 && holds("link", "lower\nmore\n"));
}

static void names(void)
{
	CHECK(unlink("gone") == 0 && !exists("gone"));
	FAILS(unlink("gone"), ENOENT);
	FAILS(open("gone", O_RDONLY), ENOENT);
	CHECK(put("gone", "new\n") == 0 && holds("gone", "new\n"));
	CHECK(unlink("gone") == 0 && !exists("gone"));
	CHECK(mkdir("gone", 0750) == 0 && count("gone") == 0 && rmdir("gone") == 0 && !exists("gone"));
	CHECK(symlink("nowhere", "gone") == 0 && unlink("gone") == 0);
	CHECK(mkfifo("gone", 0600) == 0 && unlink("gone") == 0);
	FAILS(rmdir("replaced"), ENOTEMPTY);
	FAILS(rmdir("file"), ENOTDIR);
	FAILS(unlink("replaced"), EISDIR);
	FAILS(mkdir("replaced", 0755), EEXIST);
	FAILS(open("replaced", O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
	CHECK(unlink("replaced/old") == 0 && rmdir("replaced") == 0 && !exists("replaced"));
	CHECK(mkdir("replaced", 0755) == 0 && count("replaced") == 0);
	CHECK(put("replaced/new", "x") == 0 && count("replaced") == 1 && !exists("replaced/old"));
	FAILS(mknod("device", S_IFCHR | 0600, 0), EPERM);
	CHECK(put(".wh.file", "a name like any other\n") == 0 && holds("file", "lower\nmore\n"));
	CHECK(holds(".wh.file", "a name like any other\n") && unlink(".wh.file") == 0 && !exists(".wh.file"));
	CHECK(put(".wh..wh..opq", "x") == 0 && exists("sub/inner/leaf") && unlink(".wh..wh..opq") == 0);
	char name[NAME_MAX + 2];
	memset(name, 'n', sizeof name);
	name[NAME_MAX + 1] = 0;
	FAILS(open(name, O_CREAT | O_WRONLY, 0600), ENAMETOOLONG);
	struct statvfs statvfs_;
	CHECK(statvfs(".", &statvfs_) == 0 && statvfs_.f_namemax >= 200 && statvfs_.f_blocks > 0);
	if (statvfs_.f_namemax < NAME_MAX)
		name[statvfs_.f_namemax] = 0;
	name[NAME_MAX] = 0;
	CHECK(put(name, "x") == 0 && unlink(name) == 0);
}

static void renames(void)
{
	CHECK(put("a", "a") == 0 && put("b", "b") == 0);
	FAILS(rename2("a", "b", RENAME_NOREPLACE), EEXIST);
	CHECK(rename2("a", "b", RENAME_EXCHANGE) == 0 && holds("a", "b") && holds("b", "a"));
	CHECK(rename("a", "b") == 0 && !exists("a") && holds("b", "b"));
	/* A file of a layer, moved away, and something else in its place. */
	CHECK(rename("file", "moved") == 0 && !exists("file") && holds("moved", "lower\nmore\n"));
	CHECK(rename("b", "file") == 0 && holds("file", "b") && !exists("b"));
	CHECK(rename2("file", "moved", RENAME_EXCHANGE) == 0 && holds("file", "lower\nmore\n") && holds("moved", "b"));
	CHECK(unlink("moved") == 0);
	CHECK(mkdir("d", 0755) == 0 && mkdir("e", 0755) == 0 && put("e/x", "x") == 0);
	FAILS(rename("d", "e"), ENOTEMPTY);
	FAILS(rename("file", "d"), EISDIR);
	FAILS(rename("d", "file"), ENOTDIR);
	CHECK(rename("e", "d") == 0 && holds("d/x", "x") && !exists("e"));
	CHECK(mkdir("d/into", 0755) == 0);
	FAILS(rename("d", "d/into/itself"), EINVAL);
	CHECK(rename2("d", "replaced", RENAME_EXCHANGE) == 0 && exists("d/new") && exists("replaced/x"));
	CHECK(rename2("d", "replaced", RENAME_EXCHANGE) == 0 && exists("replaced/new") && exists("d/x"));
	/* The way applications save: a temporary file over one of a layer. */
	int fd = open("save.tmp", O_CREAT | O_EXCL | O_WRONLY, 0644);
	CHECK(fd >= 0 && write(fd, "saved", 5) == 5 && fsync(fd) == 0 && close(fd) == 0);
	CHECK(rename("save.tmp", "sub/other") == 0 && holds("sub/other", "saved"));
	fd = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(fsync(fd) == 0 && close(fd) == 0);
}

static void whole_directories(int strict)
{
	if (!strict) {
		FAILS(rename("sub", "sub2"), EXDEV);
		return;
	}
	ino_t before = inode("sub");
	int fd = open("sub/inner/leaf", O_RDONLY);
	CHECK(rename("sub", "sub2") == 0 && !exists("sub") && inode("sub2") == before);
	CHECK(holds("sub2/inner/leaf", "leaf\n") && holds("sub2/other", "saved") && count("sub2") == 2);
	char text[8] = {0};
	CHECK(read(fd, text, 8) == 5 && strcmp(text, "leaf\n") == 0);
	close(fd);
	CHECK(mkdir("sub", 0755) == 0 && count("sub") == 0 && rmdir("sub") == 0);
	CHECK(unlink("sub2/inner/leaf") == 0 && count("sub2/inner") == 0 && rmdir("sub2/inner") == 0);
	CHECK(rename("sub2", "sub") == 0 && count("sub") == 1);
}

static void hard_links(int strict)
{
	CHECK(link("file", "second") == 0 && links("file") == 2);
	CHECK(put("second", "both") == 0 && holds("file", "both"));
	CHECK(unlink("file") == 0 && holds("second", "both") && links("second") == 1);
	CHECK(link("second", "file") == 0 && unlink("second") == 0);
	FAILS(link("file", "file"), EEXIST);
	if (strict) {
		CHECK(link("file", "second") == 0 && inode("file") == inode("second") && unlink("second") == 0);
		CHECK(links("twin1") == 2 && inode("twin1") == inode("twin2"));
		CHECK(put("twin1", "changed") == 0 && holds("twin2", "changed"));
		CHECK(links("twin2") == 2 && inode("twin1") == inode("twin2"));
		CHECK(unlink("twin1") == 0 && holds("twin2", "changed") && links("twin2") == 1);
	}
}

static void open_files(void)
{
	struct stat stat;
	int fd = open("scratch", O_CREAT | O_RDWR, 0600);
	CHECK(fd >= 0 && unlink("scratch") == 0 && !exists("scratch"));
	CHECK(write(fd, "still", 5) == 5 && fstat(fd, &stat) == 0 && stat.st_size == 5 && stat.st_nlink == 0);
	CHECK(ftruncate(fd, 2) == 0 && fchmod(fd, 0640) == 0 && fstat(fd, &stat) == 0);
	CHECK(stat.st_size == 2 && (stat.st_mode & 07777) == 0640);
	/* The name, and perhaps the inode number, of what is still open. */
	CHECK(put("scratch", "another") == 0 && holds("scratch", "another"));
	char text[8] = {0};
	CHECK(pread(fd, text, 8, 0) == 2 && strcmp(text, "st") == 0 && close(fd) == 0);
	CHECK(unlink("scratch") == 0);
	CHECK(mkdir("left", 0755) == 0 && chdir("left") == 0 && rmdir("../left") == 0);
	FAILS(open("x", O_CREAT | O_WRONLY, 0600), ENOENT);
	CHECK(fchdir(open("/proc/self/root", O_PATH)) == 0);
}

/* What is open stays what it is, whatever becomes of its names; `reader` and the others come from a layer. */
static void open_and_nameless(int strict)
{
	struct stat stat;
	char text[16] = {0};
	int fd = open("nameless/written", O_RDWR), reader = open("nameless/written", O_RDONLY);
	CHECK(fd >= 0 && unlink("nameless/written") == 0 && !exists("nameless/written"));
	CHECK(pwrite(fd, "WR", 2, 0) == 2 && fsync(fd) == 0 && fchmod(fd, 0640) == 0);
	CHECK(pread(fd, text, 16, 0) == 8 && strcmp(text, "WRitten\n") == 0);
	CHECK(fstat(fd, &stat) == 0 && stat.st_size == 8 && (stat.st_mode & 07777) == 0640);
	CHECK(!strict || (stat.st_nlink == 0 && pread(reader, text, 2, 0) == 2 && text[0] == 'W'));
	CHECK(close(fd) == 0 && close(reader) == 0 && !exists("nameless/written"));
	/* Another file takes the name; truncating and mapping go on with the first. */
	fd = open("nameless/replaced", O_RDWR);
	CHECK(fd >= 0 && put("nameless/new", "new\n") == 0 && rename("nameless/new", "nameless/replaced") == 0);
	CHECK(ftruncate(fd, 4) == 0 && holds("nameless/replaced", "new\n"));
	char *bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(bytes != MAP_FAILED && close(fd) == 0 && memcmp(bytes, "repl", 5) == 0);
	memcpy(bytes, "REPL", 4);
	CHECK(msync(bytes, 4096, MS_SYNC) == 0 && bytes[0] == 'R' && munmap(bytes, 4096) == 0);
	CHECK(holds("nameless/replaced", "new\n"));
	/* Of what was made here the same holds. */
	fd = open("nameless/made", O_CREAT | O_EXCL | O_RDWR, 0444);
	CHECK(fd >= 0 && write(fd, "made", 4) == 4 && close(fd) == 0);
	fd = open("nameless/made", O_RDONLY);
	CHECK(put("nameless/new", "newer") == 0 && rename("nameless/new", "nameless/made") == 0);
	CHECK(read(fd, text, 16) == 4 && memcmp(text, "made", 4) == 0 && fchmod(fd, 0600) == 0 && close(fd) == 0);
	CHECK(holds("nameless/made", "newer"));
	/* One name goes, and the file is changed by who has it open: seen by the other. */
	fd = open("nameless/one", O_RDWR);
	CHECK(fd >= 0 && unlink("nameless/one") == 0);
	CHECK(pwrite(fd, "T", 1, 0) == 1 && close(fd) == 0);
	CHECK(!strict || (holds("nameless/two", "Twin\n") && links("nameless/two") == 1));
	/* More files than are kept open below. */
	static int all[1000];
	int kept = 0;
	CHECK(mkdir("nameless/many", 0755) == 0);
	for (int number = 0; number < 1000; number++) {
		char name[32] = {0};
		snprintf(name, sizeof name, "nameless/many/%d", number);
		all[number] = open(name, O_CREAT | O_RDWR, 0600);
		kept += write(all[number], name, 20) == 20;
	}
	CHECK(kept == 1000);
	kept = 0;
	for (int number = 1; number < 1000; number += 2) {
		char name[32];
		snprintf(name, sizeof name, "nameless/many/%d", number);
		unlink(name);
	}
	for (int number = 0; number < 1000; number++) {
		char name[32] = {0}, found[32] = {0};
		snprintf(name, sizeof name, "nameless/many/%d", number);
		kept += pwrite(all[number], "N", 1, 0) == 1 && (number % 50 > 1 || fsync(all[number]) == 0)
			&& pread(all[number], found, 20, 0) == 20 && found[0] == 'N' && strcmp(found + 1, name + 1) == 0;
		close(all[number]);
	}
	CHECK(kept == 1000 && count("nameless/many") == 500);
}

static void maps(void)
{
	int fd = open("map", O_CREAT | O_RDWR, 0600);
	CHECK(fd >= 0 && fallocate(fd, 0, 0, 65536) == 0);
	char *bytes = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(bytes != MAP_FAILED);
	memcpy(bytes + 40000, "mapped", 6);
	char text[8] = {0};
	CHECK(pread(fd, text, 6, 40000) == 6 && strcmp(text, "mapped") == 0);
	CHECK(pwrite(fd, "written", 7, 100) == 7 && memcmp(bytes + 100, "written", 7) == 0);
	CHECK(msync(bytes, 65536, MS_SYNC) == 0 && munmap(bytes, 65536) == 0);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 36864, 8192) == 0);
	CHECK(pread(fd, text, 6, 40000) == 6 && text[0] == 0);
	int other = open("copy", O_CREAT | O_RDWR, 0600);
	off_t from = 100, to = 10;
	CHECK(copy_file_range(fd, &from, other, &to, 7, 0) == 7 && pread(other, text, 7, 10) == 7);
	CHECK(memcmp(text, "written", 7) == 0);
	close(other);
	CHECK(close(fd) == 0 && unlink("map") == 0 && unlink("copy") == 0);
}

/* `sparse` comes from a layer: 4 MiB of holes with "data" at 1 MiB. */
static void holes(int strict)
{
	enum { MIB = 1 << 20 };
	struct stat stat;
	char text[8] = {0};
	int fd = open("sparse", O_RDONLY);
	CHECK(fd >= 0 && fstat(fd, &stat) == 0 && stat.st_size == 4 * MIB && stat.st_blocks * 512 <= MIB);
	CHECK(lseek(fd, 0, SEEK_DATA) == MIB && lseek(fd, 10, SEEK_HOLE) == 10);
	CHECK(lseek(fd, MIB + 2, SEEK_DATA) == MIB + 2);
	off_t end = lseek(fd, MIB, SEEK_HOLE);
	CHECK(end > MIB && end <= MIB + 131072);
	FAILS(lseek(fd, end, SEEK_DATA), ENXIO);
	CHECK(lseek(fd, 4 * MIB - 1, SEEK_HOLE) == 4 * MIB - 1);
	FAILS(lseek(fd, 4 * MIB, SEEK_HOLE), ENXIO);
	CHECK(close(fd) == 0);
	/* What was written and not yet written back is data, and the rest comes up with its holes. */
	fd = open("sparse", O_RDWR);
	CHECK(pwrite(fd, "more", 4, 3 * MIB) == 4 && lseek(fd, 0, SEEK_DATA) == MIB && lseek(fd, 2 * MIB, SEEK_DATA) == 3 * MIB);
	CHECK(pread(fd, text, 8, 3 * MIB) == 8 && strcmp(text, "more") == 0 && pread(fd, text, 4, MIB) == 4);
	CHECK(memcmp(text, "data", 4) == 0 && fsync(fd) == 0 && fstat(fd, &stat) == 0);
	/* The kernel's overlay copies 1 MiB at a time. */
	CHECK(stat.st_blocks * 512 <= (strict ? 1 : 2) * MIB && close(fd) == 0);
	/* So is what was written behind the end, or through a mapping. */
	fd = open("holes", O_CREAT | O_RDWR, 0600);
	CHECK(fd >= 0 && ftruncate(fd, MIB) == 0 && lseek(fd, 0, SEEK_HOLE) == 0);
	FAILS(lseek(fd, 0, SEEK_DATA), ENXIO);
	CHECK(pwrite(fd, "x", 1, 3 * MIB) == 1 && lseek(fd, 0, SEEK_DATA) == 3 * MIB);
	CHECK(lseek(fd, 3 * MIB, SEEK_HOLE) == 3 * MIB + 1 && lseek(fd, 0, SEEK_END) == 3 * MIB + 1);
	char *bytes = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(bytes != MAP_FAILED);
	bytes[512 * 1024] = 'm';
	CHECK(lseek(fd, 0, SEEK_DATA) == 512 * 1024 && bytes[512 * 1024] == 'm' && bytes[0] == 0);
	bytes[0] = 'n';
	CHECK(munmap(bytes, MIB) == 0 && lseek(fd, 0, SEEK_DATA) == 0 && lseek(fd, 0, SEEK_HOLE) == 4096);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 && lseek(fd, 0, SEEK_DATA) == 512 * 1024);
	CHECK(pread(fd, text, 1, 0) == 1 && text[0] == 0 && close(fd) == 0 && unlink("holes") == 0);
	/* Many at once, while others write. */
	int children = 0;
	for (int number = 0; number < 8; number++)
		if (fork() == 0) {
			char name[32];
			snprintf(name, sizeof name, "holes%d", number);
			int own = open(name, O_CREAT | O_RDWR, 0600), good = own >= 0;
			for (off_t round = 1; round <= 40; round++)
				good &= pwrite(own, "x", 1, round * MIB) == 1 && lseek(own, (round - 1) * MIB + 4096, SEEK_DATA) == round * MIB;
			_exit(good && unlink(name) == 0 ? 0 : 1);
		}
	for (int number = 0, status; number < 8; number++)
		children += wait(&status) > 0 && status == 0;
	CHECK(children == 8);
}

/* Whether another process gets the lock at once: 0, or the error. */
static int other_gets(const char *path, struct flock *lock)
{
	int status = -1;
	pid_t child = fork();
	if (child == 0) {
		int own = open(path, O_RDWR);
		_exit((lock ? fcntl(own, F_SETLK, lock) : flock(own, LOCK_EX | LOCK_NB)) == 0 ? 0 : errno);
	}
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void locks(void)
{
	int fd = open("file", O_RDWR);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512};
	CHECK(fcntl(fd, F_SETLK, &lock) == 0);
	CHECK(other_gets("file", &lock) == EAGAIN && other_gets("file", NULL) == 0);
	lock.l_start = 0;
	CHECK(other_gets("file", &lock) == 0 && flock(fd, LOCK_EX) == 0);
	CHECK(other_gets("file", &lock) == 0 && other_gets("file", NULL) == EWOULDBLOCK);
	CHECK(flock(fd, LOCK_UN) == 0 && other_gets("file", NULL) == 0);
	/* A lock is one of the file, not of its name. */
	CHECK(flock(fd, LOCK_SH) == 0 && rename("file", "locked") == 0 && other_gets("locked", NULL) == EWOULDBLOCK);
	CHECK(rename("locked", "file") == 0 && close(fd) == 0 && other_gets("file", NULL) == 0);
}

/* What the own overlay refuses, and says so: programs then do without. */
static void beyond(int strict)
{
	/* Of an ACL, version 2: its owner, a user, its group, a mask and others. */
	const uint32_t acl[] = {2, 0x60001, -1, 0x60002, getuid(), 0x40004, -1, 0x60010, -1, 0x40020, -1};
	char text[8] = {0}, path[64];
	FAILS(rename2("file", "file2", RENAME_WHITEOUT), EINVAL);
	if (strict) {
		FAILS(open(".", O_TMPFILE | O_RDWR, 0600), EOPNOTSUPP);
		FAILS(setxattr("file", "system.posix_acl_access", acl, sizeof acl, 0), EOPNOTSUPP);
		FAILS(setxattr("sub", "system.posix_acl_default", acl, sizeof acl, 0), EOPNOTSUPP);
		FAILS(getxattr("file", "system.posix_acl_access", text, 0), EOPNOTSUPP);
		return;
	}
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	/* The overlays of kernels before 6.3 do not have it either. */
	if (fd >= 0 || errno != EOPNOTSUPP) {
		CHECK(fd >= 0 && write(fd, "tmp", 3) == 3 && pread(fd, text, 8, 0) == 3);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		CHECK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0 && holds("named", "tmp"));
		CHECK(close(fd) == 0 && unlink("named") == 0);
	}
}

static void attributes(void)
{
	char value[64];
	CHECK(setxattr("file", "user.mine", "value", 5, XATTR_CREATE) == 0);
	FAILS(setxattr("file", "user.mine", "value", 5, XATTR_CREATE), EEXIST);
	FAILS(setxattr("file", "user.other", "value", 5, XATTR_REPLACE), ENODATA);
	CHECK(getxattr("file", "user.mine", value, 64) == 5 && memcmp(value, "value", 5) == 0);
	FAILS(getxattr("file", "user.mine", value, 2), ERANGE);
	CHECK(listxattr("file", value, 64) >= 10);
	CHECK(removexattr("file", "user.mine") == 0);
	FAILS(getxattr("file", "user.mine", value, 64), ENODATA);
	CHECK(setxattr("sub", "user.dir", "d", 1, 0) == 0 && getxattr("sub", "user.dir", value, 64) == 1);
	CHECK(listxattr("replaced", value, 64) == 0);
}

static void many(void)
{
	char name[32];
	CHECK(mkdir("many", 0755) == 0 && chdir("many") == 0);
	for (int number = 0; number < 2000; number++) {
		snprintf(name, sizeof name, "file%04d", number);
		if (put(name, name) != 0)
			break;
	}
	CHECK(count(".") == 2000);
	/* Removing while reading: none is told twice, and each that stays is told. */
	DIR *directory = opendir(".");
	struct dirent *entry;
	int seen = 0, told[2000] = {0}, twice = 0;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		int number = atoi(entry->d_name + 4);
		if (number < 2000 && told[number]++)
			twice++;
		if (++seen % 2 == 0)
			unlink(entry->d_name);
		if (seen == 500) {
			long place = telldir(directory);
			readdir(directory);
			seekdir(directory, place);
		}
	}
	int missed = 0;
	for (int number = 0; number < 2000; number++) {
		snprintf(name, sizeof name, "file%04d", number);
		missed += exists(name) && !told[number];
	}
	CHECK(twice == 0 && missed == 0 && count(".") == 1000);
	rewinddir(directory);
	put("late", "x");
	int late = 0;
	rewinddir(directory);
	while ((entry = readdir(directory)))
		late += strcmp(entry->d_name, "late") == 0;
	CHECK(late == 1);
	closedir(directory);
	directory = opendir(".");
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			unlink(entry->d_name);
	closedir(directory);
	CHECK(count(".") == 0 && chdir("..") == 0 && rmdir("many") == 0);
}

static void *writer(void *argument)
{
	char name[32];
	long own = (long)argument;
	for (int round = 0; round < 300; round++) {
		snprintf(name, sizeof name, "thread%ld-%d", own, round);
		put(name, "x");
		rename(name, own % 2 ? "odd" : "even");
		exists("odd");
		count("sub");
	}
	return NULL;
}

static void threads(void)
{
	pthread_t all[4];
	for (long own = 0; own < 4; own++)
		pthread_create(&all[own], NULL, writer, (void *)own);
	for (int own = 0; own < 4; own++)
		pthread_join(all[own], NULL);
	CHECK(holds("odd", "x") && holds("even", "x") && unlink("odd") == 0 && unlink("even") == 0);
}

int main(int argc, char **argv)
{
	int strict = argc > 2 && strcmp(argv[2], "--strict") == 0;
	if (argc < 2 || chdir(argv[1]) != 0) {
		perror("semantics");
		return 2;
	}
	struct rlimit descriptors = {4096, 4096};
	setrlimit(RLIMIT_NOFILE, &descriptors);
	copy_up();
	open_and_nameless(strict);
	names();
	renames();
	hard_links(strict);
	maps();
	holes(strict);
	locks();
	attributes();
	beyond(strict);
	many();
	threads();
	whole_directories(strict);
	open_files();
	printf("%s %d\n", failures ? "of" : "all", checks);
	return failures != 0;
}
