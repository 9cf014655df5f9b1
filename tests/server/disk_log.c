/* Loaded into a process in front of the C library (LD_PRELOAD): notes in a file, in their order, what the process writes to files
   whose names begin with DISK_LOG_FILES, when it syncs them, and what it sends. The test makes of it the disk as it would be had
   the power failed: `test_syncs.py`.

   A record: kind (1 byte), file (8), offset (8), length (8), then the data. All numbers are little-endian.
   Kinds: o(pened: the data is the name) w(ritten) t(runcated: the offset is the length) s(ync is over) a(nswer).
   A file is told by its inode.

   A write is noted after it was done and a sync after it is over, but an answer before it leaves. One lock keeps the order; it is not
   held during a sync, so what others write meanwhile may be noted before the end of the sync: a sync that began is noted, too
   (kind b), and only what was written before that counts as synced. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;

#define REAL(name, type, ...)                       \
  static type (*real)(__VA_ARGS__);                 \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t plain_write(int fd, const void *data, size_t size) {
  REAL("write", ssize_t, int, const void *, size_t);
  return real(fd, data, size);
}

static int log_file(void) {
  if (out < 0) {
    const char *name = getenv("DISK_LOG");
    out = name ? open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  }
  return out;
}

static void note(char kind, uint64_t file, uint64_t offset, const void *data, size_t size) {
  char head[25] = {kind};
  uint64_t length = size;
  memcpy(head + 1, &file, 8);
  memcpy(head + 9, &offset, 8);
  memcpy(head + 17, &length, 8);
  pthread_mutex_lock(&lock);
  if (log_file() >= 0) {
    plain_write(out, head, sizeof head);
    if (size) plain_write(out, data, size);
  }
  pthread_mutex_unlock(&lock);
}

/* The inode of a file that is watched, 0 for others. */
static uint64_t watched(int fd) {
  const char *begin = getenv("DISK_LOG_FILES");
  char link[64], name[PATH_MAX];
  struct stat about;
  if (!begin || fstat(fd, &about) || !S_ISREG(about.st_mode)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, name, sizeof name - 1);
  if (size < 0) return 0;
  name[size] = 0;
  if (strncmp(name, begin, strlen(begin))) return 0;
  note('o', about.st_ino, 0, name, size);
  return about.st_ino;
}

static int is_socket(int fd) {
  struct stat about;
  return !fstat(fd, &about) && S_ISSOCK(about.st_mode);
}

static void answer(const struct iovec *parts, int count) {
  char text[65536];
  size_t size = 0;
  for (int i = 0; i < count && size < sizeof text; i++) {
    size_t more = parts[i].iov_len < sizeof text - size ? parts[i].iov_len : sizeof text - size;
    memcpy(text + size, parts[i].iov_base, more);
    size += more;
  }
  note('a', 0, 0, text, size);
}

ssize_t write(int fd, const void *data, size_t size) {
  int saved = errno;
  if (is_socket(fd)) answer(&(struct iovec){(void *)data, size}, 1);
  errno = saved;
  ssize_t done = plain_write(fd, data, size);
  saved = errno;
  uint64_t file = done > 0 ? watched(fd) : 0;
  if (file) note('w', file, lseek(fd, 0, SEEK_CUR) - done, data, done);
  errno = saved;
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL("writev", ssize_t, int, const struct iovec *, int);
  if (is_socket(fd)) answer(parts, count);
  return real(fd, parts, count);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  REAL("send", ssize_t, int, const void *, size_t, int);
  answer(&(struct iovec){(void *)data, size}, 1);
  return real(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  REAL("sendmsg", ssize_t, int, const struct msghdr *, int);
  answer(message->msg_iov, message->msg_iovlen);
  return real(fd, message, flags);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
  ssize_t done = real(fd, data, size, offset);
  int saved = errno;
  uint64_t file = done > 0 ? watched(fd) : 0;
  if (file) note('w', file, offset, data, done);
  errno = saved;
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
  REAL("ftruncate64", int, int, off64_t);
  int done = real(fd, size);
  int saved = errno;
  uint64_t file = done ? 0 : watched(fd);
  if (file) note('t', file, size, NULL, 0);
  errno = saved;
  return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*real)(int)) {
  uint64_t file = watched(fd);
  if (file) note('b', file, 0, NULL, 0);
  int done = real(fd);
  int saved = errno;
  if (file && !done) note('s', file, 0, NULL, 0);
  errno = saved;
  return done;
}

int fsync(int fd) {
  REAL("fsync", int, int);
  return synced(fd, real);
}

int fdatasync(int fd) {
  REAL("fdatasync", int, int);
  return synced(fd, real);
}
