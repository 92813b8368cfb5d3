// Makes one call of the C library fail: LD_PRELOAD it, then arm it through ctypes.
//
//     faults_arm("/folder", kind, error, nth)   the nth call (from 1) of a kind on a path in the folder fails; 0: every one
//     faults_count(kind)                        how many calls of this kind have come since
//
// Only what lies in the folder counts, so that imports and libraries are left alone. Relative paths count as in it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum Kind { OPEN, READ, WRITE, SYNC, RENAME, MKDIR, UNLINK, LOCK, CHMOD, LINK, KINDS };

static char folder[4096];
static int armed = -1, error_number, nth_call;
static long counts[KINDS];

void faults_arm(const char* path, int kind, int error, int nth) {
    snprintf(folder, sizeof folder, "%s", path);
    memset(counts, 0, sizeof counts);
    error_number = error;
    nth_call = nth;
    armed = kind;
}

long faults_count(int kind) { return counts[kind]; }

static int is_inside(const char* path) {
    size_t length = strlen(folder);
    return length > 0 && (path[0] != '/' || (strncmp(path, folder, length) == 0 && (path[length] == '/' || !path[length])));
}

static int hits(enum Kind kind, const char* path) {
    if (!path || !is_inside(path)) return 0;
    long count = __sync_add_and_fetch(&counts[kind], 1);
    if (armed != (int)kind || (nth_call != 0 && count != nth_call)) return 0;
    errno = error_number;
    return 1;
}

static int hits_descriptor(enum Kind kind, int descriptor) {
    char link[64], path[4096];
    if (folder[0] == 0) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return path[0] == '/' && hits(kind, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list arguments; \
        va_start(arguments, last); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char* path, int flags, ...) {
    MODE(flags)
    return hits(OPEN, path) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
    MODE(flags)
    return hits(OPEN, path) ? -1 : REAL(open64)(path, flags, mode);
}
int openat(int at, const char* path, int flags, ...) {
    MODE(flags)
    int fails = path[0] == '/' || at == AT_FDCWD ? hits(OPEN, path) : hits_descriptor(OPEN, at);
    return fails ? -1 : REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char* path, int flags, ...) {
    MODE(flags)
    int fails = path[0] == '/' || at == AT_FDCWD ? hits(OPEN, path) : hits_descriptor(OPEN, at);
    return fails ? -1 : REAL(openat64)(at, path, flags, mode);
}
ssize_t read(int fd, void* data, size_t size) { return hits_descriptor(READ, fd) ? -1 : REAL(read)(fd, data, size); }
ssize_t write(int fd, const void* data, size_t size) {
    return hits_descriptor(WRITE, fd) ? -1 : REAL(write)(fd, data, size);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
    return hits_descriptor(WRITE, fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { return hits_descriptor(SYNC, fd) ? -1 : REAL(fsync)(fd); }
int rename(const char* from, const char* to) { return hits(RENAME, from) ? -1 : REAL(rename)(from, to); }
int renameat2(int at, const char* from, int to_at, const char* to, unsigned flags) {
    return hits(RENAME, from) ? -1 : REAL(renameat2)(at, from, to_at, to, flags);
}
int mkdir(const char* path, mode_t mode) { return hits(MKDIR, path) ? -1 : REAL(mkdir)(path, mode); }
int unlink(const char* path) { return hits(UNLINK, path) ? -1 : REAL(unlink)(path); }
int rmdir(const char* path) { return hits(UNLINK, path) ? -1 : REAL(rmdir)(path); }
int unlinkat(int at, const char* path, int flags) {
    int fails = at == AT_FDCWD ? hits(UNLINK, path) : hits_descriptor(UNLINK, at);
    return fails ? -1 : REAL(unlinkat)(at, path, flags);
}
int flock(int fd, int operation) {
    return hits_descriptor(LOCK, fd) ? -1 : REAL(flock)(fd, operation);
}
int chmod(const char* path, mode_t mode) { return hits(CHMOD, path) ? -1 : REAL(chmod)(path, mode); }
int fchmod(int fd, mode_t mode) { return hits_descriptor(CHMOD, fd) ? -1 : REAL(fchmod)(fd, mode); }
int link(const char* from, const char* to) { return hits(LINK, from) ? -1 : REAL(link)(from, to); }
int symlink(const char* from, const char* to) { return hits(LINK, to) ? -1 : REAL(symlink)(from, to); }
