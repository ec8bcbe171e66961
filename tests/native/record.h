/*
 * A recording medium.
 *
 * This header compiles persist.c once more, under another name for pml_persist_init, so that the
 * test's own pml_persist_init, which hands out recording op tables, takes its place in the engine:
 * every pool that this program opens is seen from its first store on, recovery included.
 *
 * The recording ops store at once, as the page cache would, and write down every store (file,
 * offset, bytes), flush and drain.  Offsets are those of the files; an address in the second mapping
 * of the ring is folded back.
 *
 * A canary of the medium (canary.h) is a fault of the engine's order of stores, made by writing down
 * something else than what was done.
 */
#ifndef PML_TEST_RECORD_H
#define PML_TEST_RECORD_H

#include "memory.h"
#include "model.h"

#define pml_persist_init pml_persist_init_of_the_engine
#include "persist.c"
#undef pml_persist_init

enum event_kind { EVENT_STORE, EVENT_FLUSH, EVENT_DRAIN, EVENT_GROWN };

struct event {
    uint8_t kind;
    uint8_t file;         /* EVENT_DRAIN: FILE_LOG, or FILE_IMAGE for image and sums */
    uint32_t control;     /* index of the control words as they were at this moment */
    uint64_t offset, length;
    uint64_t image_bytes; /* size of the image's file at this moment */
    size_t data;          /* offset in the tape's bytes */
};

struct tape {
    struct event *events;
    size_t count, capacity;
    char *bytes;
    size_t byte_count, byte_capacity;
    struct pml_control *controls;
    size_t control_count, control_capacity;
};

struct extent {
    uint32_t file;
    uint64_t offset, length;
};

static struct {
    struct tape *tape;          /* what is written down; NULL: nothing */
    struct history *history;    /* of the same run */
    struct extent *dirty;       /* where the pools of this process have stored */
    size_t dirty_count, dirty_capacity;
    void (*at_open)(struct pml_pool *pool); /* called when the files are there, before any store */
    enum pml_canary canary;
    bool hold_drains;           /* of the log: the next one does for this one too (group commit) */
    uint64_t log_drains, log_flushes, image_stores;
} recorder;

/* ---- the tape ---- */

#define TAPE_ROOM(array, capacity, needed)                                                         \
    do {                                                                                           \
        if ((needed) > (capacity)) {                                                               \
            (capacity) = 2 * (needed) + 64;                                                        \
            (array) = realloc((array), (capacity) * sizeof *(array));                              \
            CHECK(array);                                                                          \
        }                                                                                          \
    } while (0)

static inline void tape_free(struct tape *t) {
    free(t->events);
    free(t->bytes);
    free(t->controls);
    memset(t, 0, sizeof *t);
}

static inline void tape_control(struct tape *t, const struct pml_pool *pool) {
    if (!pool->control) return;
    if (t->control_count &&
        !memcmp(&t->controls[t->control_count - 1], pool->control, sizeof *pool->control))
        return;
    TAPE_ROOM(t->controls, t->control_capacity, t->control_count + 1);
    t->controls[t->control_count++] = *pool->control;
}

static inline struct event *tape_add(struct tape *t, const struct pml_pool *pool, int kind,
                                     uint32_t file, uint64_t offset, uint64_t length) {
    TAPE_ROOM(t->events, t->capacity, t->count + 1);
    tape_control(t, pool);
    struct event *e = &t->events[t->count++];
    uint64_t before = t->count > 1 ? t->events[t->count - 2].image_bytes : 0;
    *e = (struct event){.kind = (uint8_t)kind,
                        .file = (uint8_t)file,
                        .control = t->control_count ? (uint32_t)t->control_count - 1 : 0,
                        .offset = offset,
                        .length = length,
                        .image_bytes = pml_max64(before, pool->file_bytes),
                        .data = t->byte_count};
    return e;
}

static inline void tape_store(struct tape *t, const struct pml_pool *pool, uint32_t file,
                              uint64_t offset, const void *bytes, size_t size) {
    if (!size) return;
    tape_add(t, pool, EVENT_STORE, file, offset, size);
    TAPE_ROOM(t->bytes, t->byte_capacity, t->byte_count + size);
    memcpy(t->bytes + t->byte_count, bytes, size);
    t->byte_count += size;
}

/* ---- the ops ---- */

static inline struct pml_pool *pool_of(struct pml_persist *p, bool log) {
    size_t at = log ? offsetof(struct pml_pool, log) : offsetof(struct pml_pool, store);
    return (struct pml_pool *)(void *)((char *)p - at);
}

static inline void where_in_log(const struct pml_pool *pool, const void *at, uint64_t *offset) {
    *offset = PML_RING_OFFSET + (uint64_t)((const char *)at - pool->ring) % pool->ring_bytes;
}

static inline uint32_t where_in_store(const struct pml_pool *pool, const void *at,
                                      uint64_t *offset) {
    const char *p = at;
    if (p >= pool->shared.base && p < pool->shared.base + pool->shared.mapped) {
        *offset = (uint64_t)(p - pool->shared.base);
        return FILE_IMAGE;
    }
    CHECK(p >= pool->sums.base && p < pool->sums.base + pool->sums.mapped);
    *offset = (uint64_t)(p - pool->sums.base);
    return FILE_SUMS;
}

static inline bool is_mark(uint32_t file, uint64_t offset) {
    return file == FILE_IMAGE && offset >= PML_MARK_OFFSET && offset < PML_BODY_OFFSET;
}

static inline void dirtied(uint32_t file, uint64_t offset, uint64_t length) {
    TAPE_ROOM(recorder.dirty, recorder.dirty_capacity, recorder.dirty_count + 1);
    recorder.dirty[recorder.dirty_count++] = (struct extent){file, offset, length};
}

static void log_copy(struct pml_persist *p, void *dst, const void *src, size_t size) {
    struct pml_pool *pool = pool_of(p, true);
    uint64_t offset, end = PML_RING_OFFSET + pool->ring_bytes;
    memcpy(dst, src, size);
    where_in_log(pool, dst, &offset);
    uint64_t first = pml_min64(size, end - offset);
    dirtied(FILE_LOG, offset, first);
    if (size > first) dirtied(FILE_LOG, PML_RING_OFFSET, size - first);
    struct tape *t = recorder.tape;
    if (!t) return;
    if (recorder.canary == PML_CANARY_EARLY_LOG_FLUSH && size == sizeof(struct pml_record))
        tape_add(t, pool, EVENT_FLUSH, FILE_LOG, PML_RING_OFFSET, pool->ring_bytes);
    size_t at = t->byte_count;
    tape_store(t, pool, FILE_LOG, offset, src, first);
    if (size > first)
        tape_store(t, pool, FILE_LOG, PML_RING_OFFSET, (const char *)src + first, size - first);
    if (recorder.canary == PML_CANARY_FLIP_LOG_BIT && t->count % 7 == 0) t->bytes[at + size / 2] ^= 4;
}

static void log_set(struct pml_persist *p, void *dst, int byte, size_t size) {
    (void)p, (void)dst, (void)byte, (void)size;
    CHECK(!"the log is never set");
}

static void log_flush(struct pml_persist *p, const void *at, size_t size) {
    struct pml_pool *pool = pool_of(p, true);
    struct tape *t = recorder.tape;
    count(&p->flushes);
    if (!t) return;
    uint64_t offset, end = PML_RING_OFFSET + pool->ring_bytes, length = size;
    where_in_log(pool, at, &offset);
    recorder.log_flushes++;
    if (recorder.canary == PML_CANARY_DROP_LOG_FLUSH && recorder.log_flushes % 3 == 0) return;
    if (recorder.canary == PML_CANARY_EARLY_LOG_FLUSH) return;
    if (recorder.canary == PML_CANARY_SHORT_LOG_FLUSH) length = PML_LINE;
    uint64_t first = pml_min64(length, end - offset);
    tape_add(t, pool, EVENT_FLUSH, FILE_LOG, offset, first);
    if (length > first) tape_add(t, pool, EVENT_FLUSH, FILE_LOG, PML_RING_OFFSET, length - first);
}

static int log_drain(struct pml_persist *p) {
    struct pml_pool *pool = pool_of(p, true);
    count(&p->drains);
    if (!recorder.tape || recorder.hold_drains) return 0;
    recorder.log_drains++;
    if (recorder.canary == PML_CANARY_SKIP_LOG_DRAIN && recorder.log_drains % 3 == 0) return 0;
    if (recorder.canary == PML_CANARY_LATE_LOG_DRAIN && recorder.log_drains % 2 == 0) return 0;
    tape_add(recorder.tape, pool, EVENT_DRAIN, FILE_LOG, 0, 0);
    return 0;
}

/* PML_CANARY_CHECKPOINT_BEFORE_LOG: the image's stores are written down before the last record's drain. */
static inline void move_before_log_drain(struct tape *t) {
    size_t last = t->count - 1, at = last;
    while (at > 0 && !(t->events[at - 1].kind == EVENT_DRAIN && t->events[at - 1].file == FILE_LOG))
        at--;
    if (!at) return;
    struct event moved = t->events[last];
    memmove(&t->events[at], &t->events[at - 1], (last - (at - 1)) * sizeof moved);
    t->events[at - 1] = moved;
    for (size_t i = 0; i < recorder.history->count; i++)
        if (recorder.history->commits[i].returned >= at &&
            recorder.history->commits[i].returned != SIZE_MAX)
            recorder.history->commits[i].returned++;
}

static inline void store_recorded(struct pml_pool *pool, uint32_t file, uint64_t offset,
                                  const void *bytes, size_t size, bool zeros) {
    struct tape *t = recorder.tape;
    bool mark = is_mark(file, offset);
    if (file == FILE_IMAGE && !mark) recorder.image_stores++;
    switch (recorder.canary) {
    case PML_CANARY_DROP_MARK_STORE:
        if (mark) return;
        break;
    case PML_CANARY_DROP_SUMS_STORE:
        if (file == FILE_SUMS) return;
        break;
    case PML_CANARY_DROP_IMAGE_STORE:
        if (file == FILE_IMAGE && !mark && recorder.image_stores % 5 == 0) return;
        break;
    case PML_CANARY_DROP_ZERO_STORE:
        if (zeros) return;
        break;
    default:
        break;
    }
    tape_store(t, pool, file, offset, bytes, size);
    if (recorder.canary == PML_CANARY_CHECKPOINT_BEFORE_LOG && file == FILE_IMAGE && !mark)
        move_before_log_drain(t);
    if (recorder.canary == PML_CANARY_MARK_BEFORE_IMAGE && mark) {
        /* Stored, flushed and drained first; then come the stores that it vouches for. */
        struct event moved = t->events[t->count - 1], flush = moved, drain = moved;
        flush.kind = EVENT_FLUSH;
        drain.kind = EVENT_DRAIN;
        size_t at = t->count - 1;
        while (at > 0 && t->events[at - 1].kind != EVENT_DRAIN) at--;
        TAPE_ROOM(t->events, t->capacity, t->count + 2);
        memmove(&t->events[at + 3], &t->events[at], (t->count - 1 - at) * sizeof moved);
        t->events[at] = moved;
        t->events[at + 1] = flush;
        t->events[at + 2] = drain;
        t->count += 2;
    }
}

static void store_copy(struct pml_persist *p, void *dst, const void *src, size_t size) {
    struct pml_pool *pool = pool_of(p, false);
    uint64_t offset;
    memcpy(dst, src, size);
    uint32_t file = where_in_store(pool, dst, &offset);
    dirtied(file, offset, size);
    if (recorder.tape) store_recorded(pool, file, offset, src, size, false);
}

static void store_set(struct pml_persist *p, void *dst, int byte, size_t size) {
    struct pml_pool *pool = pool_of(p, false);
    uint64_t offset;
    memset(dst, byte, size);
    uint32_t file = where_in_store(pool, dst, &offset);
    dirtied(file, offset, size);
    if (recorder.tape) store_recorded(pool, file, offset, dst, size, true);
}

static void store_flush(struct pml_persist *p, const void *at, size_t size) {
    struct pml_pool *pool = pool_of(p, false);
    uint64_t offset;
    count(&p->flushes);
    if (!recorder.tape) return;
    uint32_t file = where_in_store(pool, at, &offset);
    bool mark = is_mark(file, offset);
    if (recorder.canary == PML_CANARY_DROP_MARK_FLUSH && mark) return;
    if (recorder.canary == PML_CANARY_DROP_IMAGE_FLUSH && file == FILE_IMAGE && !mark) return;
    if (recorder.canary == PML_CANARY_DROP_SUMS_FLUSH && file == FILE_SUMS) return;
    tape_add(recorder.tape, pool, EVENT_FLUSH, file, offset, size);
}

static int store_drain(struct pml_persist *p) {
    struct pml_pool *pool = pool_of(p, false);
    struct tape *t = recorder.tape;
    count(&p->drains);
    if (!t) return 0;
    /* A drain is the mark's when the last store is one. */
    size_t last = t->count;
    while (last > 0 && t->events[last - 1].kind != EVENT_STORE) last--;
    bool mark = last > 0 && is_mark(t->events[last - 1].file, t->events[last - 1].offset);
    if (recorder.canary == PML_CANARY_SKIP_IMAGE_DRAIN && !mark) return 0;
    if (recorder.canary == PML_CANARY_SKIP_MARK_DRAIN && mark) return 0;
    if (recorder.canary == PML_CANARY_MARK_BEFORE_IMAGE && !mark) return 0; /* the mark's drain does for both */
    tape_add(t, pool, EVENT_DRAIN, FILE_IMAGE, 0, 0);
    return 0;
}

static const struct pml_ops recording_log = {log_copy, log_set, log_flush, log_drain};
static const struct pml_ops recording_store = {store_copy, store_set, store_flush, store_drain};

/* A sync of the image's new size, but of none of its bytes. */
static inline void record_growth(struct pml_pool *pool, bool synced) {
    if (recorder.tape && synced) tape_add(recorder.tape, pool, EVENT_GROWN, FILE_IMAGE, 0, 0);
}

/* In place of the engine's: called once for the log, then once for the image, at every open. */
void pml_persist_init(struct pml_persist *p, uint32_t domain, int fd0, int fd1) {
    pml_persist_init_of_the_engine(p, domain, fd0, fd1);
    bool log = fd1 < 0;
    p->ops = log ? &recording_log : &recording_store;
    if (!log && recorder.at_open) recorder.at_open(pool_of(p, false));
}

#endif
