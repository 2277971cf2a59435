/* Stands before libc (LD_PRELOAD) and counts, traces, kills at or breaks the calls that change
 * files below one folder. tests/support/faults.py arms it with ctypes; unarmed it passes all calls on.
 *
 * A boundary is one call that changes what is below the folder: see enum kind. A call that libc or
 * the kernel makes on its own (stdio, mmap, copy_file_range) is not seen; tests replay the trace
 * to show that there is none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#undef open64
#undef openat64

enum kind { CREATE, WRITE, TRUNCATE, ALLOCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, LINK, CLOSE, MARK };
enum mode { WATCH, KILL_BEFORE, KILL_AFTER, KILL_TORN, FAIL, FAIL_ON, SHORT, DROP, FLIP };

struct record {
    int32_t kind, flags;
    int64_t offset, length;
    int32_t path_length, other_length;
};

static struct {
    char root[PATH_MAX];
    unsigned kinds;
    long number, count;
    int mode, error, trace;
} state = {.trace = -1};
static char seen[1 << 16];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void faults_arm(const char *root, unsigned kinds, long number, int mode, int error, int trace)
{
    snprintf(state.root, sizeof state.root, "%s", root);
    state.kinds = kinds;
    state.number = number;
    state.mode = mode;
    state.error = error;
    state.trace = trace;
    state.count = 0;
}

/* The kinds of the boundaries so far, a letter each: 'a' is the first of enum kind. */
const char *faults_seen(void) { return seen; }

static void die(void)
{
    for (;;)
        syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
}

static void put(const void *data, size_t length)
{
    while (length) {
        ssize_t done = syscall(SYS_write, state.trace, data, length);
        if (done <= 0)
            die();
        data = (const char *)data + done;
        length -= (size_t)done;
    }
}

static void trace(int kind, int flags, const char *path, const char *other, int64_t offset,
                  const void *data, size_t length)
{
    struct record record = {kind, flags, offset, (int64_t)length, (int32_t)strlen(path),
                            (int32_t)strlen(other)};
    put(&record, sizeof record);
    put(path, strlen(path));
    put(other, strlen(other));
    if (data)
        put(data, length);
}

void faults_mark(const char *text)
{
    pthread_mutex_lock(&mutex);
    if (state.trace >= 0)
        trace(MARK, 0, text, "", 0, NULL, 0);
    pthread_mutex_unlock(&mutex);
}

static int is_below(const char *path)
{
    size_t length = strlen(state.root);
    return length && !strncmp(path, state.root, length) &&
           (path[length] == '/' || path[length] == '\0');
}

static void name_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
}

static void name_at(int folder, const char *name, char *path)
{
    path[0] = '\0';
    if (!name || (name[0] != '/' && folder == AT_FDCWD && !getcwd(path, PATH_MAX)))
        return;
    if (name[0] != '/' && folder != AT_FDCWD)
        name_of(folder, path);
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "%s%s", name[0] == '/' ? "" : "/", name);
}

/* Say what is to happen at a call: WATCH (nothing) or the mode; -1 is a call that is no boundary. */
static int enter(int kind, const char *path)
{
    if (!state.root[0] || !is_below(path))
        return -1;
    pthread_mutex_lock(&mutex);
    int hit = 0;
    if (state.kinds >> kind & 1) {
        long place = state.count++;
        if (place < (long)sizeof seen - 1)
            seen[place] = (char)('a' + kind);
        hit = place == state.number || (state.mode == FAIL_ON && place > state.number);
    }
    pthread_mutex_unlock(&mutex);
    if (hit && state.mode == KILL_BEFORE)
        die();
    return hit && state.number >= 0 ? state.mode : WATCH;
}

static void leave(int action, int done, int kind, int flags, const char *path, const char *other,
                  int64_t offset, const void *data, size_t length)
{
    if (action < 0)
        return;
    int error = errno;
    if (done && state.trace >= 0) {
        pthread_mutex_lock(&mutex);
        trace(kind, flags, path, other, offset, data, length);
        pthread_mutex_unlock(&mutex);
    }
    if (action == KILL_AFTER || action == KILL_TORN)
        die();
    errno = error;
}

#define IS_FAILURE(action) ((action) == FAIL || (action) == FAIL_ON)
#define FAIL_IF(action, failure) \
    if (IS_FAILURE(action)) { \
        errno = state.error; \
        return failure; \
    }

static ssize_t write_with(int action, int descriptor, const void *data, size_t length, off_t offset)
{
    /* offset < 0: at the descriptor's own place */
    char flipped[1 << 16];
    if (action == DROP)
        return offset < 0 ? (lseek(descriptor, (off_t)length, SEEK_CUR), (ssize_t)length)
                          : (ssize_t)length;
    if ((action == SHORT || action == KILL_TORN) && length > 1)
        length /= 2;
    if (action == FLIP && length && length <= sizeof flipped) {
        memcpy(flipped, data, length);
        flipped[length / 2] ^= 1;
        data = flipped;
    }
    return offset < 0 ? syscall(SYS_write, descriptor, data, length)
                      : syscall(SYS_pwrite64, descriptor, data, length, offset);
}

static ssize_t do_write(int descriptor, const void *data, size_t length, off_t offset)
{
    char path[PATH_MAX];
    if (!state.root[0])
        return write_with(WATCH, descriptor, data, length, offset);
    name_of(descriptor, path);
    int action = enter(WRITE, path);
    FAIL_IF(action, -1)
    off_t place = offset >= 0 || action < 0 ? offset : lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = write_with(action, descriptor, data, length, offset);
    leave(action, done >= 0, WRITE, 0, path, "", place, data, done >= 0 ? (size_t)done : 0);
    return done;
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    return do_write(descriptor, data, length, -1);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset)
{
    return do_write(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off_t offset)
{
    return do_write(descriptor, data, length, offset);
}

static int sync_with(long call, int descriptor)
{
    char path[PATH_MAX];
    name_of(descriptor, path);
    int action = enter(SYNC, path);
    FAIL_IF(action, -1)
    int done = (int)syscall(call, descriptor);
    leave(action, !done, SYNC, 0, path, "", 0, NULL, 0);
    return done;
}

int fsync(int descriptor) { return sync_with(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return sync_with(SYS_fdatasync, descriptor); }

int ftruncate(int descriptor, off_t length)
{
    char path[PATH_MAX];
    name_of(descriptor, path);
    int action = enter(TRUNCATE, path);
    FAIL_IF(action, -1)
    int done = (int)syscall(SYS_ftruncate, descriptor, length);
    leave(action, !done, TRUNCATE, 0, path, "", length, NULL, 0);
    return done;
}

int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

static int allocate(int descriptor, off_t offset, off_t length)
{
    char path[PATH_MAX];
    name_of(descriptor, path);
    int action = enter(ALLOCATE, path);
    if (IS_FAILURE(action))
        return state.error;
    int done = syscall(SYS_fallocate, descriptor, 0, offset, length) ? errno : 0;
    leave(action, !done, ALLOCATE, 0, path, "", offset + length, NULL, 0);
    return done;
}

int posix_fallocate(int descriptor, off_t offset, off_t length)
{
    return allocate(descriptor, offset, length);
}

int posix_fallocate64(int descriptor, off_t offset, off_t length)
{
    return allocate(descriptor, offset, length);
}

static int open_at(int folder, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    int action = -1;
    if (state.root[0] && flags & (O_CREAT | O_TRUNC)) {
        name_at(folder, name, path);
        action = enter(CREATE, path);
    }
    FAIL_IF(action, -1)
    int done = (int)syscall(SYS_openat, folder, name, flags, mode);
    leave(action, done >= 0, CREATE, flags & O_TRUNC ? 1 : 0, path, "", 0, NULL, 0);
    return done;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, name, flags, mode);
}

int openat(int folder, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(folder, name, flags, mode);
}

int openat64(int folder, const char *name, int flags, ...)
{
    MODE_OF(flags)
    return open_at(folder, name, flags, mode);
}

int creat(const char *name, mode_t mode)
{
    return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int descriptor)
{
    char path[PATH_MAX] = "";
    struct stat status;
    /* Only of what was written to: of nothing else can a close be refused. */
    if (state.root[0] && state.kinds >> CLOSE & 1 && fcntl(descriptor, F_GETFL) & O_ACCMODE &&
        !fstat(descriptor, &status) && status.st_size)
        name_of(descriptor, path);
    int action = enter(CLOSE, path);
    int done = (int)syscall(SYS_close, descriptor);
    FAIL_IF(action, -1)
    leave(action, 0, CLOSE, 0, path, "", 0, NULL, 0);
    return done;
}

static int rename_at(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags)
{
    char old[PATH_MAX], new[PATH_MAX];
    name_at(from_folder, from, old);
    name_at(to_folder, to, new);
    int action = enter(RENAME, is_below(old) ? old : new);
    FAIL_IF(action, -1)
    int done = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    leave(action, !done, RENAME, 0, old, new, 0, NULL, 0);
    return done;
}

int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return rename_at(from_folder, from, to_folder, to, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    return rename_at(from_folder, from, to_folder, to, flags);
}

static int name_call(int kind, int folder, const char *name, long argument)
{
    char path[PATH_MAX];
    name_at(folder, name, path);
    int action = enter(kind, path);
    FAIL_IF(action, -1)
    int done = kind == MKDIR ? (int)syscall(SYS_mkdirat, folder, name, argument)
                             : (int)syscall(SYS_unlinkat, folder, name, argument);
    leave(action, !done, kind, 0, path, "", 0, NULL, 0);
    return done;
}

int unlink(const char *name) { return name_call(UNLINK, AT_FDCWD, name, 0); }
int rmdir(const char *name) { return name_call(RMDIR, AT_FDCWD, name, AT_REMOVEDIR); }
int mkdir(const char *name, mode_t mode) { return name_call(MKDIR, AT_FDCWD, name, mode); }

int unlinkat(int folder, const char *name, int flags)
{
    return name_call(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, name, flags);
}

int mkdirat(int folder, const char *name, mode_t mode)
{
    return name_call(MKDIR, folder, name, mode);
}

int remove(const char *name)
{
    struct stat status;
    int is_folder = !lstat(name, &status) && S_ISDIR(status.st_mode);
    return is_folder ? rmdir(name) : unlink(name);
}

int link(const char *from, const char *to)
{
    char old[PATH_MAX], new[PATH_MAX];
    name_at(AT_FDCWD, from, old);
    name_at(AT_FDCWD, to, new);
    int action = enter(LINK, new);
    FAIL_IF(action, -1)
    int done = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    leave(action, !done, LINK, 0, old, new, 0, NULL, 0);
    return done;
}
