/*
 * Files, address space and room on the file system: everything about where bytes live but how they
 * are stored, which is persist.c.
 *
 * A pool is a directory:
 *
 *   lock      held by the writer (open file description lock), names its pid
 *   log       header and ring; the ring is mapped twice in a row, so that no record wraps
 *   image     header, marks, body        (medium file)
 *   sums      checksums of image pages   (medium file)
 *   image.pmemobj  sums and image        (medium pmemobj)
 *   control   words that processes share; rebuilt at every open for writing
 *
 * Creation ends with the image's name (medium file: a rename) or its header's magic (pmemobj):
 * until then the directory is an unfinished creation and the next one starts over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define FILE_MODE 0666

/* ---- address space ---- */

int pml_map_reserve(struct pml_map *map, uint64_t bytes) {
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot reserve %llu bytes of address space",
                              (unsigned long long)bytes);
    map->base = at;
    map->reserved = bytes;
    map->mapped = 0;
    return PML_OK;
}

/* On direct access a flushed line is durable only if its block's allocation is: MAP_SYNC. */
static int shared_flags(bool sync) {
#if defined(MAP_SYNC) && defined(MAP_SHARED_VALIDATE)
    if (sync) return MAP_SHARED_VALIDATE | MAP_SYNC;
#else
    (void)sync;
#endif
    return MAP_SHARED;
}

static bool on_direct_access(const struct pml_pool *pool) {
    return !pool->read_only &&
           (pool->domain_detected == PML_DOMAIN_ADR || pool->domain_detected == PML_DOMAIN_EADR);
}

int pml_map_extend(struct pml_map *map, uint64_t bytes, int fd, uint64_t offset, bool shared,
                   bool writable) {
    if (bytes <= map->mapped) return PML_OK;
    if (bytes > map->reserved)
        return pml_fail(PML_E_POOL_FULL, "max_size is reached: %llu bytes are reserved",
                        (unsigned long long)map->reserved);
    /* A private mapping is written by us alone, whether or not the file may be. */
    int protection = PROT_READ | (writable || !shared ? PROT_WRITE : 0);
    int flags = MAP_FIXED | (shared ? shared_flags(map->sync) : MAP_PRIVATE | MAP_NORESERVE);
    void *at = mmap(map->base + map->mapped, bytes - map->mapped, protection, flags, fd,
                    (off_t)(offset + map->mapped));
    if (at == MAP_FAILED)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot map %llu bytes",
                              (unsigned long long)bytes);
    map->mapped = bytes;
    return PML_OK;
}

int pml_map_anonymous(struct pml_map *map, uint64_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot reserve %llu bytes of address space",
                              (unsigned long long)bytes);
    map->base = at;
    map->reserved = map->mapped = bytes;
    return PML_OK;
}

void pml_map_release(struct pml_map *map) {
    if (map->base && map->reserved) munmap(map->base, map->reserved);
    memset(map, 0, sizeof *map);
}

/* ---- room on the file system ---- */

static int write_zeros(int fd, uint64_t offset, uint64_t size) {
    static const char zeros[65536];
    while (size) {
        ssize_t n = pwrite(fd, zeros, pml_min64(size, sizeof zeros), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENOSPC;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

/* Without this, the first store to a page of a full tmpfs would end the process by SIGBUS. */
int pml_reserve_space(int fd, uint64_t offset, uint64_t size, const char *file) {
    int error;
    do {
        error = fallocate(fd, 0, (off_t)offset, (off_t)size) ? errno : 0;
    } while (error == EINTR);
    if (error == EOPNOTSUPP) {
        struct stat st;
        if (fstat(fd, &st) != 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot stat %s", file);
        uint64_t from = pml_max64(offset, (uint64_t)st.st_size);
        error = from < offset + size ? write_zeros(fd, from, offset + size - from) : 0;
    }
    if (error)
        return pml_fail_errno(PML_E_MEDIUM, error, "cannot reserve %llu bytes for %s",
                              (unsigned long long)size, file);
    return PML_OK;
}

/* A sparse copy of a pool has lost the room that was reserved for it. */
int pml_reserve_holes(int fd, uint64_t offset, uint64_t size, const char *file) {
    struct stat st;
    if (fstat(fd, &st) != 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot stat %s", file);
    if ((uint64_t)st.st_blocks * 512 >= offset + size) return PML_OK;
    return pml_reserve_space(fd, offset, size, file);
}

static uint64_t sums_bytes(uint64_t image_bytes) {
    return pml_round_up(PML_SUMS_OFFSET + image_bytes / PML_PAGE * sizeof(uint32_t), 65536);
}

/* A look behind the end of a file that is shorter than the log says would end the process. */
static int must_hold(int fd, uint64_t bytes, const char *file) {
    struct stat st;
    if (fstat(fd, &st) != 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot stat %s", file);
    if ((uint64_t)st.st_size >= bytes) return PML_OK;
    return pml_fail_corrupt(file, 0, (uint64_t)st.st_size, bytes, (uint64_t)st.st_size,
                            "%s is truncated", file);
}

static int extend_maps(struct pml_pool *pool, uint64_t bytes) {
    bool writable = !pool->read_only;
    int st =
        pml_map_extend(&pool->work, bytes, pool->image_fd, pool->image_offset, false, writable);
    if (st == PML_OK && !pool->has_pmemobj) {
        st = pml_map_extend(&pool->sums, sums_bytes(bytes), pool->sums_fd, pool->sums_offset, true,
                            writable);
        if (st == PML_OK && writable)
            st = pml_map_extend(&pool->shared, bytes, pool->image_fd, 0, true, true);
    }
    return st;
}

/* The files' new size is durable before the record that needs it: a reader of a pool that nobody has
 * recovered yet cannot make room, and would find that the image is shorter than the log says.  On
 * direct access nothing else makes it durable at all. */
static bool growth_is_synced(const struct pml_pool *pool) {
    if (PML_BROKEN(GROWTH_NOT_SYNCED)) return false;
    return pool->domain == PML_DOMAIN_PAGE || on_direct_access(pool);
}

/* Room first (the only step that fails for good reasons), then the mappings.  Nothing points at the
 * new bytes until the transaction that grows the heap commits; a crash in between leaves a file
 * that is longer than it need be. */
int pml_medium_grow(struct pml_pool *pool, uint64_t bytes) {
    if (bytes > pool->max_bytes)
        return pml_fail(PML_E_POOL_FULL, "max_size of %llu bytes is reached",
                        (unsigned long long)pool->max_bytes);
    int st = PML_OK;
    if (bytes > pool->file_bytes && !pool->read_only) {
        st = pml_tape_room(pool);
        if (st != PML_OK) return st;
        uint64_t sums_old = sums_bytes(pool->file_bytes), sums_new = sums_bytes(bytes);
        uint64_t sums_at = pool->has_pmemobj ? pool->pmemobj.sums_offset : 0;
        if (sums_new > sums_old)
            st = pml_reserve_space(pool->sums_fd, sums_at + sums_old, sums_new - sums_old, "sums");
        if (st == PML_OK)
            st = pml_reserve_space(pool->image_fd, pool->image_offset + pool->file_bytes,
                                   bytes - pool->file_bytes, "image");
        if (st != PML_OK) return st;
        if (growth_is_synced(pool) && (fsync(pool->image_fd) != 0 || fsync(pool->sums_fd) != 0))
            return pml_fail_io(errno, "cannot make the image's new size durable");
        pool->file_bytes = bytes;
        if (growth_is_synced(pool)) pml_tape_grown(pool);
    }
    if (pool->read_only) {
        st = must_hold(pool->image_fd, pool->image_offset + bytes, "image");
        if (st == PML_OK)
            st = must_hold(pool->sums_fd, pool->sums_offset + sums_bytes(bytes), "sums");
        if (st != PML_OK) return st;
    }
    return extend_maps(pool, bytes);
}

/* ---- small files ---- */

int pml_full_write(int fd, const void *data, size_t size) {
    const char *p = data;
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENOSPC;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

void pml_boot_id(uint8_t out[16]) {
    char text[64] = {0};
    memset(out, 0, 16);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    size_t digits = 0;
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        int c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0) continue;
        out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | v);
        digits++;
    }
}

/* ---- the writer's lock ---- */

/* Open file description locks belong to the handle: a second handle of the same process is refused
 * too, and closing some other descriptor of the file does not let go of it.  A forked child shares
 * the handle, so the fork handler closes it there. */
int pml_medium_lock(struct pml_pool *pool) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (PML_BROKEN(LOCK_NOT_TAKEN)) lock.l_type = F_UNLCK;
    if (fcntl(pool->lock_fd, F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return pml_fail_errno(PML_E_MEDIUM, errno, "cannot lock the pool");
        char text[32] = {0};
        ssize_t n = pread(pool->lock_fd, text, sizeof text - 1, 0);
        struct pml_detail *d = pml_detail_new(PML_E_LOCKED);
        d->pid = n > 0 ? atoll(text) : 0;
        snprintf(d->text, sizeof d->text, "open for writing by process %lld", (long long)d->pid);
        return PML_E_LOCKED;
    }
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(pool->lock_fd, 0) != 0 || pwrite(pool->lock_fd, text, (size_t)n, 0) != n)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot write the pid into lock");
    return PML_OK;
}

bool pml_lock_is_free(struct pml_pool *pool) {
    int fd = openat(pool->dir_fd, "lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return true;
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return !held;
}

int pml_lock_holder(const char *path, int64_t *pid) {
    char name[4096];
    *pid = 0;
    snprintf(name, sizeof name, "%s/lock", path);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return PML_OK;
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int st = PML_OK;
    if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) {
        char text[32] = {0};
        if (pread(fd, text, sizeof text - 1, 0) > 0) *pid = atoll(text);
        st = PML_E_LOCKED;
    }
    close(fd);
    return st;
}

int pml_probe_domain(const char *directory, uint32_t *domain) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return pml_fail_errno(PML_E_NOT_FOUND, errno, "cannot open %s", directory);
    *domain = pml_domain_detect(fd);
    close(fd);
    return PML_OK;
}

/* ---- headers ---- */

/* All headers keep their checksum at the same place, and it covers the rest. */
#define CHECKSUM_AT 12u
static_assert(offsetof(struct pml_image_header, checksum) == CHECKSUM_AT, "image");
static_assert(offsetof(struct pml_log_header, checksum) == CHECKSUM_AT, "log");
static_assert(offsetof(struct pml_sums_header, checksum) == CHECKSUM_AT, "sums");

static uint32_t header_sum(const void *header, size_t size) {
    static const char zeros[sizeof(uint32_t)];
    const char *bytes = header;
    size_t rest = CHECKSUM_AT + sizeof zeros;
    uint32_t sum = pml_crc32c(0, bytes, CHECKSUM_AT);
    sum = pml_crc32c(sum, zeros, sizeof zeros);
    return pml_crc32c(sum, bytes + rest, size - rest);
}

static int check_header(const char *file, uint64_t magic, uint64_t magic_wanted, uint32_t version,
                        uint32_t checksum, uint32_t checksum_wanted) {
    if (magic != magic_wanted) {
        pml_fail_corrupt(file, 0, 0, magic_wanted, magic, "%s does not begin with its magic", file);
        return PML_E_CORRUPT;
    }
    /* A later version may keep its checksum elsewhere, so its number comes first. */
    if (version > PML_FORMAT_VERSION)
        return pml_fail(PML_E_FORMAT, "%s has format version %u, this library reads %u", file,
                        version, PML_FORMAT_VERSION);
    if (checksum != checksum_wanted)
        return pml_fail_corrupt(file, 0, 0, checksum_wanted, checksum,
                                "the header of %s is damaged", file);
    if (version != PML_FORMAT_VERSION)
        return pml_fail(PML_E_FORMAT, "%s has format version %u, this library reads %u", file,
                        version, PML_FORMAT_VERSION);
    return PML_OK;
}

static int read_at(int fd, void *out, size_t size, uint64_t offset, const char *file) {
    ssize_t n;
    do {
        n = pread(fd, out, size, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot read %s", file);
    if ((size_t)n < size)
        return pml_fail_corrupt(file, 0, offset, size, (uint64_t)n, "%s is truncated", file);
    return PML_OK;
}

static int open_at(struct pml_pool *pool, const char *name, bool create, int *fd) {
    int flags = O_CLOEXEC | (pool->read_only ? O_RDONLY : O_RDWR);
    if (create) flags |= O_CREAT | O_TRUNC;
    *fd = openat(pool->dir_fd, name, flags, FILE_MODE);
    if (*fd < 0) {
        if (errno == ENOENT) {
            pml_fail_corrupt(name, 0, 0, 0, 0, "%s is missing", name);
            return PML_E_CORRUPT;
        }
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot open %s", name);
    }
    return PML_OK;
}

static int read_headers(struct pml_pool *pool) {
    struct pml_log_header log;
    struct pml_sums_header sums;
    int st = read_at(pool->log_fd, &log, sizeof log, 0, "log");
    if (st == PML_OK)
        st = check_header("log", log.magic, PML_MAGIC_LOG, log.version, log.checksum,
                          header_sum(&log, sizeof log));
    if (st != PML_OK) return st;
    pool->image_offset = log.image_offset;
    pool->sums_offset = log.sums_offset;
    st = read_at(pool->image_fd, &pool->header, sizeof pool->header, pool->image_offset, "image");
    if (st == PML_OK)
        st = check_header("image", pool->header.magic, PML_MAGIC_IMAGE, pool->header.version,
                          pool->header.checksum, header_sum(&pool->header, sizeof pool->header));
    if (st == PML_OK) st = read_at(pool->sums_fd, &sums, sizeof sums, pool->sums_offset, "sums");
    if (st == PML_OK)
        st = check_header("sums", sums.magic, PML_MAGIC_SUMS, sums.version, sums.checksum,
                          header_sum(&sums, sizeof sums));
    if (st != PML_OK) return st;
    if (memcmp(log.pool_id, pool->header.pool_id, 16) || memcmp(sums.pool_id, log.pool_id, 16))
        return pml_fail_corrupt("log", 0, offsetof(struct pml_log_header, pool_id), 0, 0,
                                "image, log and sums are of different pools");
    if (log.ring_bytes != pool->header.ring_bytes || log.ring_bytes % PML_RING_UNIT ||
        log.ring_bytes < PML_MIN_RING || log.ring_bytes > PML_MAX_RING ||
        log.medium != pool->header.medium)
        return pml_fail_corrupt("log", 0, offsetof(struct pml_log_header, ring_bytes),
                                pool->header.ring_bytes, log.ring_bytes,
                                "image and log disagree about the ring");
    pool->ring_bytes = log.ring_bytes;
    pool->salt = pml_log_salt(&pool->header);
    struct stat st_log, st_image;
    if (fstat(pool->log_fd, &st_log) != 0 || fstat(pool->image_fd, &st_image) != 0)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot stat the pool's files");
    if ((uint64_t)st_log.st_size < PML_RING_OFFSET + pool->ring_bytes)
        return pml_fail_corrupt("log", 0, (uint64_t)st_log.st_size,
                                PML_RING_OFFSET + pool->ring_bytes, (uint64_t)st_log.st_size,
                                "log is truncated");
    return PML_OK;
}

/* ---- opening ---- */

static int map_ring(struct pml_pool *pool) {
    int protection = PROT_READ | (pool->read_only ? 0 : PROT_WRITE);
    char *at = mmap(NULL, 2 * pool->ring_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot map the log");
    for (int lap = 0; lap < 2; lap++) {
        void *half =
            mmap(at + (uint64_t)lap * pool->ring_bytes, pool->ring_bytes, protection,
                 shared_flags(on_direct_access(pool)) | MAP_FIXED, pool->log_fd, PML_RING_OFFSET);
        if (half == MAP_FAILED) {
            int error = errno;
            munmap(at, 2 * pool->ring_bytes);
            return pml_fail_errno(PML_E_MEDIUM, error, "cannot map the log");
        }
    }
    pool->ring = at;
    return PML_OK;
}

int pml_control_open(struct pml_pool *pool) {
    pml_boot_id(pool->boot_id);
    int flags = O_CLOEXEC | (pool->read_only ? O_RDONLY : O_RDWR | O_CREAT);
    pool->control_fd = openat(pool->dir_fd, "control", flags, FILE_MODE);
    if (pool->control_fd < 0) {
        if (pool->read_only) return PML_OK; /* nobody has written since a restore: follow the log */
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot open control");
    }
    uint64_t bytes = pml_round_up(sizeof(struct pml_control), PML_PAGE);
    struct stat st;
    if (fstat(pool->control_fd, &st) != 0)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot stat control");
    if (!pool->read_only) {
        int done = pml_reserve_space(pool->control_fd, 0, bytes, "control");
        if (done != PML_OK) return done;
    } else if ((uint64_t)st.st_size < bytes) {
        return PML_OK;
    }
    void *at = mmap(NULL, bytes, PROT_READ | (pool->read_only ? 0 : PROT_WRITE), MAP_SHARED,
                    pool->control_fd, 0);
    if (at == MAP_FAILED) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot map control");
    pool->control = at;
    pool->live = pool->control->magic == PML_MAGIC_CONTROL &&
                 pool->control->version == PML_FORMAT_VERSION &&
                 !memcmp(pool->control->boot_id, pool->boot_id, 16) &&
                 !memcmp(pool->control->pool_id, pool->header.pool_id, 16);
    return PML_OK;
}

static void choose_domain(struct pml_pool *pool, uint32_t asked) {
    pool->domain_detected = pml_domain_detect(pool->log_fd);
    pool->domain = asked == PML_DOMAIN_AUTO ? pool->domain_detected : asked;
    pml_persist_init(&pool->log, pool->domain, pool->log_fd, -1);
    if (pool->has_pmemobj)
        pml_persist_init_pmemobj(&pool->store, &pool->pmemobj);
    else
        pml_persist_init(&pool->store, pool->domain, pool->image_fd, pool->sums_fd);
    pml_tape_attach(pool);
}

static int reserve_maps(struct pml_pool *pool) {
    uint64_t pages = pool->max_bytes / PML_PAGE;
    int st = pml_map_reserve(&pool->work, pool->max_bytes);
    if (st == PML_OK) st = pml_map_anonymous(&pool->stamp_map, pages * sizeof(uint64_t));
    if (st == PML_OK) st = pml_map_anonymous(&pool->dirty_map, pml_round_up(pages, 64) / 8);
    if (pool->has_pmemobj) { /* libpmemobj has mapped both */
        pool->shared.base = (char *)pool->pmemobj.pool + pool->pmemobj.image_offset;
        pool->sums.base = (char *)pool->pmemobj.pool + pool->pmemobj.sums_offset;
    } else {
        if (st == PML_OK && !pool->read_only) st = pml_map_reserve(&pool->shared, pool->max_bytes);
        if (st == PML_OK) st = pml_map_reserve(&pool->sums, sums_bytes(pool->max_bytes));
        pool->shared.sync = pool->sums.sync = on_direct_access(pool);
    }
    if (st == PML_OK) {
        pool->image = pool->work.base;
        pool->stamps = (uint64_t *)(void *)pool->stamp_map.base;
        pool->dirty = (uint64_t *)(void *)pool->dirty_map.base;
    }
    return st;
}

static void forget_creation(struct pml_pool *pool) {
    static const char *const made[] = {"log", "sums", "image.new", "control"};
    struct pml_detail kept = *pml_error();
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        if (!pool->has_pmemobj || strcmp(made[i], "image.new")) unlinkat(pool->dir_fd, made[i], 0);
    *pml_detail_new(kept.status) = kept;
}

/* A file with a name of ours is ours when it begins with our magic, or with nothing yet. */
static int refuse_foreign_file(struct pml_pool *pool, const char *name, uint64_t magic) {
    uint64_t found = 0;
    int fd = openat(pool->dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return PML_OK;
    ssize_t n = pread(fd, &found, sizeof found, 0);
    close(fd);
    if (n <= 0 || found == magic || found == 0) return PML_OK;
    return pml_fail(PML_E_FORMAT, "the directory is not a pool: its file \"%s\" is not ours", name);
}

/* A directory that holds anything but an unfinished creation of ours is somebody else's. */
static int refuse_strangers(struct pml_pool *pool) {
    int fd = openat(pool->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    if (!listing) {
        if (fd >= 0) close(fd);
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot list the directory");
    }
    static const char *const ours[] = {".",
                                       "..",
                                       "lock",
                                       "log",
                                       "sums",
                                       "image.new",
                                       "control",
                                       "image.pmemobj",
                                       "image.pmemobj.new"};
    int st = PML_OK;
    for (struct dirent *entry; st == PML_OK && (entry = readdir(listing));) {
        bool known = false;
        for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
            known = known || !strcmp(entry->d_name, ours[i]);
        if (!known)
            st = pml_fail(PML_E_FORMAT, "the directory is not a pool: it holds \"%.100s\"",
                          entry->d_name);
    }
    closedir(listing);
    if (st == PML_OK) st = refuse_foreign_file(pool, "log", PML_MAGIC_LOG);
    if (st == PML_OK) st = refuse_foreign_file(pool, "sums", PML_MAGIC_SUMS);
    if (st == PML_OK) st = refuse_foreign_file(pool, "image.new", PML_MAGIC_IMAGE);
    return st;
}

static int write_header(int fd, const void *header, size_t size, uint64_t offset,
                        const char *file) {
    if (pwrite(fd, header, size, (off_t)offset) != (ssize_t)size)
        return pml_fail_errno(PML_E_MEDIUM, errno ? errno : ENOSPC, "cannot write %s", file);
    return PML_OK;
}

static int sync_file(int fd, const char *file) {
    if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS)
        return pml_fail_errno(PML_E_MEDIUM, errno, "cannot sync %s", file);
    return PML_OK;
}

static int create_log(struct pml_pool *pool, const struct pml_image_header *header) {
    struct pml_log_header log = {.magic = PML_MAGIC_LOG,
                                 .version = PML_FORMAT_VERSION,
                                 .ring_bytes = header->ring_bytes,
                                 .image_offset = pool->image_offset,
                                 .sums_offset = pool->has_pmemobj ? pool->pmemobj.sums_offset : 0,
                                 .medium = header->medium};
    memcpy(log.pool_id, header->pool_id, 16);
    log.checksum = header_sum(&log, sizeof log);
    int st = open_at(pool, "log", true, &pool->log_fd);
    if (st == PML_OK)
        st = pml_reserve_space(pool->log_fd, 0, PML_RING_OFFSET + header->ring_bytes, "log");
    if (st == PML_OK) st = write_header(pool->log_fd, &log, sizeof log, 0, "log");
    return st == PML_OK ? sync_file(pool->log_fd, "log") : st;
}

static int create_sums(struct pml_pool *pool, const struct pml_image_header *header) {
    struct pml_sums_header sums = {.magic = PML_MAGIC_SUMS, .version = PML_FORMAT_VERSION};
    memcpy(sums.pool_id, header->pool_id, 16);
    sums.checksum = header_sum(&sums, sizeof sums);
    uint64_t at = pool->has_pmemobj ? pool->pmemobj.sums_offset : 0;
    int st = pool->has_pmemobj ? PML_OK : open_at(pool, "sums", true, &pool->sums_fd);
    if (st == PML_OK)
        st = pml_reserve_space(pool->sums_fd, at, sums_bytes(pool->file_bytes), "sums");
    if (st == PML_OK) st = write_header(pool->sums_fd, &sums, sizeof sums, at, "sums");
    return st == PML_OK ? sync_file(pool->sums_fd, "sums") : st;
}

static int create_files(struct pml_pool *pool, const struct pml_options *options) {
    struct pml_image_header header = {.magic = PML_MAGIC_IMAGE,
                                      .version = PML_FORMAT_VERSION,
                                      .ring_bytes = options->log_size,
                                      .medium = options->medium};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    header.created_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    if (getrandom(header.pool_id, sizeof header.pool_id, 0) != sizeof header.pool_id ||
        getrandom(header.hash_seed, sizeof header.hash_seed, 0) != sizeof header.hash_seed)
        return pml_fail_errno(PML_E_MEDIUM, errno, "no random bytes");
    if (options->identity) { /* a replica is the same pool elsewhere */
        memcpy(header.pool_id, options->identity->pool_id, sizeof header.pool_id);
        memcpy(header.hash_seed, options->identity->hash_seed, sizeof header.hash_seed);
        header.created_ns = options->identity->created_ns;
        header.ring_bytes = options->identity->ring_bytes;
    }
    header.checksum = header_sum(&header, sizeof header);
    pool->file_bytes = options->size;
    /* The first mark: an empty, clean log.  Recovery of a pool without any record is no special
     * case. */
    struct pml_mark mark = {.magic = PML_MAGIC_MARK,
                            .sequence = 1,
                            .lsn_checkpoint = PML_LSN_FIRST,
                            .image_bytes = options->size,
                            .epoch = 1,
                            .flags = PML_MARK_CLEAN};
    mark.chain = pml_crc32c(0, header.pool_id, sizeof header.pool_id);
    mark.checksum = pml_crc32c(mark.chain, &mark, sizeof mark);

    const char *name = pool->has_pmemobj ? "image.pmemobj" : "image.new";
    int st = open_at(pool, name, !pool->has_pmemobj, &pool->image_fd);
    if (st != PML_OK) return st;
    if (pool->has_pmemobj) {
        pool->sums_fd = openat(pool->dir_fd, name, O_RDWR | O_CLOEXEC);
        if (pool->sums_fd < 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot open %s", name);
    }
    st = create_log(pool, &header);
    if (st == PML_OK) st = create_sums(pool, &header);
    if (st == PML_OK)
        st = pml_reserve_space(pool->image_fd, pool->image_offset, options->size, "image");
    if (st == PML_OK)
        st = write_header(pool->image_fd, &mark, sizeof mark,
                          pool->image_offset + PML_MARK_OFFSET + PML_MARK_STRIDE, "image");
    if (st == PML_OK) st = sync_file(pool->image_fd, "image");
    /* Last, after all else is durable: the header's magic (pmemobj), the name (file). */
    if (st == PML_OK)
        st = write_header(pool->image_fd, &header, sizeof header, pool->image_offset, "image");
    if (st == PML_OK) st = sync_file(pool->image_fd, "image");
    if (st == PML_OK)
        st = sync_file(pool->dir_fd, "the directory"); /* log and sums have their names */
    if (st == PML_OK && !pool->has_pmemobj &&
        renameat(pool->dir_fd, "image.new", pool->dir_fd, "image") != 0)
        st = pml_fail_errno(PML_E_MEDIUM, errno, "cannot name the image");
    if (st == PML_OK) st = sync_file(pool->dir_fd, "the directory");
    return st;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* No record was ever written: then a pool without its last creation step is an unfinished one. */
static bool log_is_pristine(struct pml_pool *pool) {
    static const char zeros[PML_LINE];
    char first[PML_LINE];
    int fd = openat(pool->dir_fd, "log", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return true;
    ssize_t n = pread(fd, first, sizeof first, PML_RING_OFFSET + PML_LSN_FIRST);
    close(fd);
    return n < (ssize_t)sizeof first || !memcmp(first, zeros, sizeof first);
}

static bool created(struct pml_pool *pool) {
    if (faccessat(pool->dir_fd, "image", F_OK, 0) == 0) return true;
    if (pool->has_pmemobj) {
        uint64_t magic;
        memcpy(&magic, (const char *)pool->pmemobj.pool + pool->pmemobj.image_offset, sizeof magic);
        if (magic != 0) return true;
    } else if (faccessat(pool->dir_fd, "image.pmemobj", F_OK, 0) == 0) {
        return true;
    }
    return !log_is_pristine(pool);
}

static int open_directory(struct pml_pool *pool, const char *path, bool create) {
    pool->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (pool->dir_fd < 0 && errno == ENOENT && create) {
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            return pml_fail_errno(PML_E_NOT_FOUND, errno, "cannot make the directory");
        pool->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int parent = pool->dir_fd >= 0 ? openat(pool->dir_fd, "..", O_RDONLY | O_CLOEXEC) : -1;
        if (parent >= 0) {
            fsync(parent); /* best effort: we may not be allowed to read it */
            close(parent);
        }
    }
    if (pool->dir_fd >= 0) return PML_OK;
    if (errno == ENOTDIR)
        return pml_fail(PML_E_FORMAT, "the path is a file; a pool is a directory");
    if (errno == ENOENT) return pml_fail(PML_E_NOT_FOUND, "there is no such directory");
    return pml_fail_errno(PML_E_MEDIUM, errno, "cannot open the directory");
}

int pml_medium_open(struct pml_pool *pool, const char *path, const struct pml_options *options) {
    bool create = (options->flags & PML_OPEN_CREATE) && !pool->read_only;
    if (options->medium == PML_MEDIUM_PMEMOBJ && !pool->read_only) {
        if (!options->pmemobj)
            return pml_fail(PML_E_ARGUMENT, "medium pmemobj needs the binding's functions");
        pool->pmemobj = *options->pmemobj;
        pool->has_pmemobj = true;
        pool->image_offset = pool->pmemobj.image_offset;
        pool->max_bytes = pml_min64(pool->max_bytes, pool->pmemobj.image_bytes_max) / 65536 * 65536;
    }
    int st = open_directory(pool, path, create);
    if (st != PML_OK) return st;
    bool exists = created(pool);
    if (!exists) {
        if (pool->read_only || !create) {
            st = refuse_strangers(pool);
            return st != PML_OK ? st : pml_fail(PML_E_NOT_FOUND, "the directory holds no pool");
        }
        st = refuse_strangers(pool);
        if (st != PML_OK) return st;
    }
    if (exists && faccessat(pool->dir_fd, "log", F_OK, 0) != 0 && !pool->has_pmemobj) {
        st =
            refuse_foreign_file(pool, "image", PML_MAGIC_IMAGE); /* before anything is made there */
        if (st != PML_OK) return st;
    }
    if (!pool->read_only) {
        pool->lock_fd = openat(pool->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
        if (pool->lock_fd < 0) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot open lock");
        pml_forget_after_fork(pool); /* from now on a forked child lets go of the lock */
        st = pml_medium_lock(pool);
        if (st != PML_OK) return st;
        exists = created(pool); /* it may have been made while we waited for the lock */
    }
    if (!exists) {
        st = create_files(pool, options);
        if (st != PML_OK) forget_creation(pool); /* a full disk gets its room back */
        if (st != PML_OK) return st;
        close_fd(&pool->log_fd);
        close_fd(&pool->image_fd);
        close_fd(&pool->sums_fd);
    }
    bool pmemobj = pool->has_pmemobj;
    if (pool->read_only)
        pmemobj = faccessat(pool->dir_fd, "image.pmemobj", F_OK, 0) == 0;
    else if (!pmemobj && faccessat(pool->dir_fd, "image.pmemobj", F_OK, 0) == 0)
        return pml_fail(PML_E_ARGUMENT, "the pool's medium is pmemobj");
    else if (pmemobj && faccessat(pool->dir_fd, "image", F_OK, 0) == 0)
        return pml_fail(PML_E_ARGUMENT, "the pool's medium is file");
    st = open_at(pool, "log", false, &pool->log_fd);
    if (st == PML_OK)
        st = open_at(pool, pmemobj ? "image.pmemobj" : "image", false, &pool->image_fd);
    if (st == PML_OK) st = open_at(pool, pmemobj ? "image.pmemobj" : "sums", false, &pool->sums_fd);
    if (st == PML_OK) st = read_headers(pool);
    if (st != PML_OK) return st;
    if (pool->has_pmemobj && pool->image_offset != pool->pmemobj.image_offset)
        return pml_fail_corrupt("log", 0, offsetof(struct pml_log_header, image_offset),
                                pool->pmemobj.image_offset, pool->image_offset,
                                "log and image.pmemobj disagree about where the image is");
    choose_domain(pool, options->domain);
    st = reserve_maps(pool);
    if (st == PML_OK) st = map_ring(pool);
    if (st == PML_OK) st = pml_control_open(pool);
    return st;
}

/* What may be looked at until the handle is freed: views, and figures asked for beside a close. */
void pml_medium_unmap(struct pml_pool *pool) {
    pml_map_release(&pool->work);
    pml_map_release(&pool->stamp_map);
    pml_map_release(&pool->dirty_map);
    pool->stamps = pool->dirty = NULL;
    pool->image = NULL;
    if (pool->control) munmap(pool->control, pml_round_up(sizeof(struct pml_control), PML_PAGE));
    pool->control = NULL;
}

void pml_medium_close(struct pml_pool *pool, bool keep_work) {
    if (pool->ring) munmap(pool->ring, 2 * pool->ring_bytes);
    pool->ring = NULL;
    if (pool->has_pmemobj) {
        pool->shared.base = pool->sums.base = NULL;
    } else {
        pml_map_release(&pool->shared);
        pml_map_release(&pool->sums);
    }
    if (!keep_work) pml_medium_unmap(pool);
    close_fd(&pool->image_fd);
    close_fd(&pool->log_fd);
    close_fd(&pool->sums_fd);
    close_fd(&pool->control_fd);
    close_fd(&pool->lock_fd); /* last: lets the next writer in */
    close_fd(&pool->dir_fd);
}
