/*
 * Pools in memory: the medium of the crash tests.
 *
 * This header compiles medium.c once more, under other names for the functions that open, grow and
 * close, so that a path of the form "memory:N" is a pool in three memfds that stay mapped from one
 * open to the next.  An open then costs no mmap, no directory and no boot id, which is most of what
 * it costs on files; what the engine sees is the same: a shared mapping of the image, a private one
 * over the same pages (MADV_DONTNEED drops its copies), the ring mapped twice in a row, and control,
 * which may be absent.  Any other path goes to the files.
 *
 * A pool in memory has one writer and one reader at a time, in one process: call memory_make behind
 * a fork, never before.
 */
#ifndef PML_TEST_MEMORY_H
#define PML_TEST_MEMORY_H

#include "harness.h" /* declares the engine's names as they are */

#define pml_medium_open pml_medium_open_of_files
#define pml_medium_grow pml_medium_grow_of_files
#define pml_medium_unmap pml_medium_unmap_of_files
#define pml_medium_close pml_medium_close_of_files
#define pml_control_open pml_control_open_of_files
#define pml_reserve_holes pml_reserve_holes_of_files
#define pml_lock_is_free pml_lock_is_free_of_files
#include "medium.c"
#undef pml_medium_open
#undef pml_medium_grow
#undef pml_medium_unmap
#undef pml_medium_close
#undef pml_control_open
#undef pml_reserve_holes
#undef pml_lock_is_free

#define MEMORY_RING (64 * KIB)
#define MEMORY_IMAGE (128 * KIB) /* at first */
#define MEMORY_ROOM MIB          /* max_size */
#define MEMORY_SUMS (64 * KIB)
#define MEMORIES 4

enum { FILE_LOG, FILE_IMAGE, FILE_SUMS, FILES };

static const uint64_t file_room[FILES] = {PML_RING_OFFSET + MEMORY_RING, MEMORY_ROOM, MEMORY_SUMS};

struct seat {             /* of one open handle */
    struct pml_pool *pool; /* NULL: free */
    char *work;           /* private mapping of the image */
    uint64_t stamps[MEMORY_ROOM / PML_PAGE];
    uint64_t dirty[MEMORY_ROOM / PML_PAGE / 64];
};

struct memory {
    int fd[FILES];
    char *map[FILES];
    uint64_t size[FILES];
    char *ring;           /* twice in a row */
    struct pml_control *control;
    bool has_control;
    struct seat writer, reader;
    char path[16];
};

static struct memory *memories[MEMORIES];
static void (*memory_grown)(struct pml_pool *pool, bool synced); /* the image's file has */

static inline struct pml_options crash_pool(uint32_t domain, uint32_t flags) {
    struct pml_options options = small_pool(domain, flags);
    options.size = MEMORY_IMAGE;
    options.max_size = MEMORY_ROOM;
    options.log_size = MEMORY_RING;
    return options;
}

static inline struct memory *memory_make(int number) {
    struct memory *m = calloc(1, sizeof *m);
    CHECK(m && !memories[number]);
    for (int f = 0; f < FILES; f++) {
        m->fd[f] = memfd_create("pool", MFD_CLOEXEC);
        CHECK(m->fd[f] >= 0);
        m->map[f] = mmap(NULL, file_room[f], PROT_READ | PROT_WRITE, MAP_SHARED, m->fd[f], 0);
        CHECK(m->map[f] != MAP_FAILED);
    }
    struct seat *const seats[2] = {&m->writer, &m->reader};
    for (int i = 0; i < 2; i++) {
        seats[i]->work =
            mmap(NULL, MEMORY_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE, m->fd[FILE_IMAGE], 0);
        CHECK(seats[i]->work != MAP_FAILED);
    }
    m->ring = mmap(NULL, 2 * MEMORY_RING, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m->ring != MAP_FAILED);
    for (uint64_t lap = 0; lap < 2; lap++)
        CHECK(mmap(m->ring + lap * MEMORY_RING, MEMORY_RING, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_FIXED, m->fd[FILE_LOG], PML_RING_OFFSET) != MAP_FAILED);
    m->control = aligned_alloc(PML_PAGE, PML_PAGE);
    CHECK(m->control);
    snprintf(m->path, sizeof m->path, "memory:%d", number);
    return memories[number] = m;
}

static inline void memory_free(int number) {
    struct memory *m = memories[number];
    for (int f = 0; f < FILES; f++) {
        munmap(m->map[f], file_room[f]);
        close(m->fd[f]);
    }
    munmap(m->writer.work, MEMORY_ROOM);
    munmap(m->reader.work, MEMORY_ROOM);
    munmap(m->ring, 2 * MEMORY_RING);
    free(m->control);
    free(m);
    memories[number] = NULL;
}

static inline void memory_resize(struct memory *m, int file, uint64_t size) {
    if (m->size[file] == size) return;
    CHECK(ftruncate(m->fd[file], (off_t)size) == 0);
    m->size[file] = size;
}

/* NULL: there is no control file, as after a power cut. */
static inline void memory_control(struct memory *m, const struct pml_control *control) {
    m->has_control = control != NULL;
    if (control) memcpy(m->control, control, sizeof *control);
}

static inline struct memory *memory_of(const struct pml_pool *pool, struct seat **seat) {
    for (int i = 0; i < MEMORIES; i++) {
        struct memory *m = memories[i];
        if (!m || (m->writer.pool != pool && m->reader.pool != pool)) continue;
        *seat = m->writer.pool == pool ? &m->writer : &m->reader;
        return m;
    }
    return NULL;
}

/* ---- what the engine calls ---- */

static int memory_open(struct memory *m, struct pml_pool *pool, const struct pml_options *options) {
    struct seat *seat = pool->read_only ? &m->reader : &m->writer;
    if (seat->pool) return pml_fail(PML_E_LOCKED, "the pool in memory is open");
    seat->pool = pool;
    pool->log_fd = m->fd[FILE_LOG];
    pool->image_fd = m->fd[FILE_IMAGE];
    pool->sums_fd = m->fd[FILE_SUMS];
    memset(seat->stamps, 0, sizeof seat->stamps);
    memset(seat->dirty, 0, sizeof seat->dirty);
    pool->work = (struct pml_map){.base = seat->work, .reserved = MEMORY_ROOM};
    pool->sums = (struct pml_map){.base = m->map[FILE_SUMS], .reserved = MEMORY_SUMS};
    if (!pool->read_only)
        pool->shared = (struct pml_map){.base = m->map[FILE_IMAGE], .reserved = MEMORY_ROOM};
    pool->image = seat->work;
    pool->stamps = seat->stamps;
    pool->dirty = seat->dirty;
    pool->stamp_map.base = (char *)seat->stamps;
    pool->ring = m->ring;
    int st = read_headers(pool);
    if (st != PML_OK) return st;
    choose_domain(pool, options->domain);
    pool->domain_detected = pool->domain; /* as if the file system were such a one */
    return pml_control_open(pool);
}

int pml_medium_open(struct pml_pool *pool, const char *path, const struct pml_options *options) {
    if (strncmp(path, "memory:", 7)) return pml_medium_open_of_files(pool, path, options);
    struct memory *m = memories[path[7] - '0'];
    CHECK(m);
    return memory_open(m, pool, options);
}

int pml_control_open(struct pml_pool *pool) {
    static uint8_t boot_id[16];
    static bool known;
    struct seat *seat;
    struct memory *m = memory_of(pool, &seat);
    if (!m) return pml_control_open_of_files(pool);
    if (!known) pml_boot_id(boot_id);
    known = true;
    memcpy(pool->boot_id, boot_id, sizeof boot_id);
    if (!m->has_control) {
        if (pool->read_only) return PML_OK;
        memset(m->control, 0, PML_PAGE);
        m->has_control = true;
    }
    pool->control = m->control;
    pool->live = pool->control->magic == PML_MAGIC_CONTROL &&
                 pool->control->version == PML_FORMAT_VERSION &&
                 !memcmp(pool->control->boot_id, pool->boot_id, 16) &&
                 !memcmp(pool->control->pool_id, pool->header.pool_id, 16);
    return PML_OK;
}

int pml_medium_grow(struct pml_pool *pool, uint64_t bytes) {
    struct seat *seat;
    struct memory *m = memory_of(pool, &seat);
    if (!m) return pml_medium_grow_of_files(pool, bytes);
    if (bytes > pool->max_bytes) return pml_fail(PML_E_POOL_FULL, "max_size is reached");
    if (!pool->read_only && bytes > pool->file_bytes) {
        if (bytes > m->size[FILE_IMAGE]) memory_resize(m, FILE_IMAGE, bytes);
        pool->file_bytes = bytes;
        if (memory_grown) memory_grown(pool, growth_is_synced(pool));
    }
    if (bytes > m->size[FILE_IMAGE])
        return pml_fail_corrupt("image", 0, m->size[FILE_IMAGE], bytes, m->size[FILE_IMAGE],
                                "image is truncated");
    pool->work.mapped = pml_max64(pool->work.mapped, bytes);
    pool->sums.mapped = MEMORY_SUMS;
    if (!pool->read_only) pool->shared.mapped = pool->work.mapped;
    return PML_OK;
}

int pml_reserve_holes(int fd, uint64_t offset, uint64_t size, const char *file) {
    for (int i = 0; i < MEMORIES; i++)
        for (int f = 0; memories[i] && f < FILES; f++)
            if (fd == memories[i]->fd[f]) return PML_OK;
    return pml_reserve_holes_of_files(fd, offset, size, file);
}

bool pml_lock_is_free(struct pml_pool *pool) {
    struct seat *seat;
    struct memory *m = memory_of(pool, &seat);
    return m ? !m->writer.pool : pml_lock_is_free_of_files(pool);
}

void pml_medium_unmap(struct pml_pool *pool) {
    struct seat *seat;
    if (!memory_of(pool, &seat)) {
        pml_medium_unmap_of_files(pool);
        return;
    }
    if (pool->work.mapped) CHECK(madvise(seat->work, pool->work.mapped, MADV_DONTNEED) == 0);
    pool->image = NULL;
    pool->stamps = pool->dirty = NULL;
    pool->control = NULL;
    seat->pool = NULL;
}

void pml_medium_close(struct pml_pool *pool, bool keep_work) {
    struct seat *seat;
    if (!memory_of(pool, &seat)) {
        pml_medium_close_of_files(pool, keep_work);
        return;
    }
    pool->ring = NULL;
    pool->image_fd = pool->log_fd = pool->sums_fd = -1;
    pool->shared.base = pool->sums.base = NULL;
    if (!keep_work) pml_medium_unmap(pool);
}

#endif
