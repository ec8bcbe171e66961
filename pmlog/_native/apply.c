/*
 * Checkpoints: from the log into the image, off the commit path.
 *
 * Order of stores, and what a crash between two of them leaves:
 *
 *   1  control.lsn_image := target         readers know that the image is about to move
 *   2  ranges of durable records -> image  partly applied: recovery applies them again, they are
 *      sums of the touched pages           after-images, so twice is the same as once
 *   3  flush, drain
 *   4  mark (lsn_checkpoint := target)     torn: the other slot still holds the old mark, and the
 *      flush, drain                        log behind it is not reused before step 5
 *   5  lsn_checkpoint is published         the ring may be used again up to here
 *
 * Only durable records are applied (invariant 2), each is verified again on the way (the log may
 * have rotted since it was written).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "internal.h"

#define RELEASE_CHUNK_PAGES 16384u

/* ---- page checksums ---- */

uint32_t pml_page_sum(const void *page) {
    /* Relative to a page of zeros, so that a page that was never written needs no entry. */
    static _Atomic uint32_t zero_sum;
    uint32_t zero = atomic_load_explicit(&zero_sum, memory_order_relaxed);
    if (PML_UNLIKELY(!zero)) {
        static const char zeros[PML_PAGE];
        zero = pml_crc32c(0, zeros, PML_PAGE);
        atomic_store_explicit(&zero_sum, zero, memory_order_relaxed);
    }
    return pml_crc32c(0, page, PML_PAGE) ^ zero;
}

static uint32_t *sum_of(struct pml_pool *pool, uint64_t page) {
    return (uint32_t *)(void *)(pool->sums.base + PML_SUMS_OFFSET) + page;
}

/* A page is verified when it is first looked at, and again after its private copy was given back.
 * A reader's unstamped page is in no record between its mark and its place in the log, so a running
 * checkpoint up to that place leaves it alone; one that goes further shows in lsn_image. */
int pml_verify_page(struct pml_pool *pool, uint64_t page) {
    uint32_t expected = __atomic_load_n(sum_of(pool, page), __ATOMIC_RELAXED);
    uint32_t found = pml_page_sum(pool->image + page * PML_PAGE);
    if (PML_LIKELY(found == expected) || PML_BROKEN(SUM_UNCHECKED)) return PML_OK;
    if (pool->read_only && !pml_follow_stable(pool)) return PML_E_AGAIN;
    return pml_fail_corrupt("image", 0, page * PML_PAGE, expected, found,
                            "a page of the image does not match its checksum");
}

int pml_verify_pages(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    uint64_t last = size ? (offset + size - 1) / PML_PAGE : 0;
    for (uint64_t page = offset / PML_PAGE; size && page <= last; page++) {
        if (pool->stamps[page]) continue;
        int st = pool->flags & PML_OPEN_NO_VERIFY ? PML_OK : pml_verify_page(pool, page);
        if (st != PML_OK) return st;
        pool->stamps[page] = 1;
    }
    return PML_OK;
}

/* ---- marks ---- */

static uint32_t mark_sum(const struct pml_image_header *header, const struct pml_mark *mark) {
    struct pml_mark copy = *mark;
    copy.checksum = 0;
    return pml_crc32c(pml_crc32c(0, header->pool_id, sizeof header->pool_id), &copy, sizeof copy);
}

bool pml_mark_valid(const struct pml_image_header *header, const struct pml_mark *mark) {
    return mark->magic == PML_MAGIC_MARK &&
           (mark->checksum == mark_sum(header, mark) || PML_BROKEN(MARK_SUM_UNCHECKED)) &&
           mark->lsn_checkpoint >= PML_LSN_FIRST && mark->image_bytes >= PML_BODY_OFFSET &&
           mark->image_bytes <= PML_MAX_IMAGE;
}

int pml_marks_read(const char *image, const struct pml_image_header *header, struct pml_mark *best,
                   int *valid_count) {
    *valid_count = 0;
    for (int slot = 0; slot < 2; slot++) {
        struct pml_mark mark;
        memcpy(&mark, image + PML_MARK_OFFSET + slot * PML_MARK_STRIDE, sizeof mark);
        if (!pml_mark_valid(header, &mark)) continue;
        bool newer = mark.sequence > best->sequence;
        if (!*valid_count || newer != PML_BROKEN(OLDER_MARK_RULES)) *best = mark;
        ++*valid_count;
    }
    return *valid_count ? PML_OK : PML_E_CORRUPT;
}

/* Invariant 7: everything the mark vouches for is durable before its first byte is stored. */
int pml_mark_write(struct pml_pool *pool, const struct pml_mark *wanted) {
    struct pml_mark mark = *wanted;
    mark.magic = PML_MAGIC_MARK;
    mark.sequence = pool->mark.sequence + 1;
    mark.checksum = mark_sum(&pool->header, &mark);
    uint64_t number = PML_BROKEN(MARK_SAME_SLOT) ? 0 : mark.sequence & 1;
    char *slot = pool->shared.base + PML_MARK_OFFSET + number * PML_MARK_STRIDE;
    int error;
    __atomic_store_n(&pool->control->marking, 1, __ATOMIC_SEQ_CST);
    if (pool->has_pmemobj) {
        error = pml_pmemobj_store_tx(&pool->pmemobj, slot, &mark, sizeof mark);
    } else {
        pml_put(&pool->store, slot, &mark, sizeof mark);
        pool->store.ops->flush(&pool->store, slot, sizeof mark);
        error = pool->store.ops->drain(&pool->store);
    }
    if (error) return pml_poison(pool, pml_fail_io(error, "cannot write a checkpoint mark"));
    __atomic_store_n(&pool->control->marking, 0, __ATOMIC_SEQ_CST);
    pool->mark = mark;
    return PML_OK;
}

/* ---- applying ---- */

struct applied { /* what one checkpoint has touched */
    uint64_t first_page, last_page;
    bool any;
    bool verify; /* the image is as the last mark left it: pages must match their sums */
};

/* Before a page's first change: it will get a new checksum, which must not cover up that the rest
 * of it has rotted. */
static int mark_dirty(struct pml_pool *pool, struct applied *a, uint64_t offset, uint64_t length) {
    uint64_t first = offset / PML_PAGE, last = (offset + length - 1) / PML_PAGE;
    for (uint64_t page = first; page <= last; page++) {
        uint64_t bit = 1ull << (page % 64);
        if (pool->dirty[page / 64] & bit) continue;
        pool->dirty[page / 64] |= bit;
        bool whole = page * PML_PAGE >= offset && (page + 1) * PML_PAGE <= offset + length;
        if (!a->verify || whole) continue;
        uint32_t expected = *sum_of(pool, page);
        uint32_t found = pml_page_sum(pool->shared.base + page * PML_PAGE);
        if (expected != found)
            return pml_fail_corrupt("image", 0, page * PML_PAGE, expected, found,
                                    "a page of the image does not match its checksum");
    }
    a->first_page = a->any ? pml_min64(a->first_page, first) : first;
    a->last_page = a->any ? pml_max64(a->last_page, last) : last;
    a->any = true;
    return PML_OK;
}

static int apply_record(struct pml_pool *pool, const struct pml_record *record, struct applied *a,
                        uint64_t *image_bytes) {
    uint64_t after;
    if (pml_record_ranges_valid(record, *image_bytes, &after) != PML_OK)
        return pml_fail_corrupt("log", record->lsn, 0, 0, 0,
                                "a range of the record is outside the image");
    if (after > *image_bytes) {
        int st = pml_medium_grow(pool, after);
        if (st != PML_OK) return st;
        if (!PML_BROKEN(APPLY_SKIPS_GROWTH)) *image_bytes = after;
    }
    const char *at = (const char *)(record + 1);
    for (uint32_t i = 0; i < record->range_count; i++) {
        const struct pml_range *range = (const struct pml_range *)(const void *)at;
        uint64_t length = PML_RANGE_LENGTH(range->length);
        at += sizeof *range;
        uint32_t kind = PML_RANGE_KIND(range->length);
        if (kind == PML_RANGE_GROW || !length) continue;
        int st = mark_dirty(pool, a, range->offset, length);
        if (st != PML_OK) return st;
        char *to = pool->shared.base + range->offset;
        if (kind == PML_RANGE_DATA) {
            if (!PML_BROKEN(APPLY_SKIPS_LAST) || i + 1 < record->range_count)
                pml_put(&pool->store, to, at, length);
            at += (length + 7) & ~7ull;
        } else if (!PML_BROKEN(APPLY_SKIPS_ZEROS)) {
            pool->store.ops->set(&pool->store, to, 0, length);
        }
    }
    return PML_OK;
}

/* Calls for each run of dirty pages, and clears their bits. */
static void each_dirty_run(struct pml_pool *pool, const struct applied *a,
                           void (*act)(struct pml_pool *, uint64_t first, uint64_t count)) {
    if (!a->any) return;
    uint64_t page = a->first_page;
    while (page <= a->last_page) {
        uint64_t word = pool->dirty[page / 64] >> (page % 64);
        if (!word) {
            page = (page / 64 + 1) * 64;
            continue;
        }
        page += (uint64_t)__builtin_ctzll(word);
        uint64_t first = page;
        while (page <= a->last_page && (pool->dirty[page / 64] >> (page % 64) & 1)) {
            pool->dirty[page / 64] &= ~(1ull << (page % 64));
            page++;
        }
        act(pool, first, page - first);
    }
}

static void seal_pages(struct pml_pool *pool, uint64_t first, uint64_t count) {
    for (uint64_t page = first; page < first + count; page++) {
        uint32_t sum = pml_page_sum(pool->shared.base + page * PML_PAGE);
        if (!PML_BROKEN(SUM_NOT_UPDATED) || page + 1 < first + count)
            pml_put(&pool->store, sum_of(pool, page), &sum, sizeof sum);
    }
    pool->store.ops->flush(&pool->store, sum_of(pool, first), count * sizeof(uint32_t));
    pool->store.ops->flush(&pool->store, pool->shared.base + first * PML_PAGE, count * PML_PAGE);
}

/* A block of a baseline: whole pages and their checksums; the caller drains. */
void pml_store_pages(struct pml_pool *pool, uint64_t offset, const char *data, size_t size) {
    pml_put(&pool->store, pool->shared.base + offset, data, size);
    seal_pages(pool, offset / PML_PAGE, size / PML_PAGE);
}

int pml_checkpoint_locked(struct pml_pool *pool, uint64_t target, bool clean) {
    struct pml_chain chain = {pool->mark.lsn_checkpoint, pool->mark.txn, pool->mark.session,
                              pool->mark.epoch, pool->mark.chain};
    uint32_t flags = clean || PML_BROKEN(CLEAN_LEFT_ON) ? PML_MARK_CLEAN : 0;
    if (pool->flags & PML_OPEN_REPLICA && !PML_BROKEN(REPLICA_HINTS_BELIEVED))
        flags |= PML_MARK_REPLICA;
    if (PML_BROKEN(CHECKPOINT_BEYOND_DURABLE)) target = pool->lsn_tail;
    if (pool->rebuilding) return PML_OK; /* no mark may vouch for the image yet */
    if (target <= chain.lsn && flags == pool->mark.flags && pool->mark.session == pool->session)
        return PML_OK;
    if (!PML_BROKEN(IMAGE_WORD_FORGOTTEN))
        __atomic_store_n(&pool->control->lsn_image, pml_max64(target, chain.lsn), __ATOMIC_RELEASE);
    atomic_thread_fence(memory_order_seq_cst);

    struct applied applied = {.verify = pool->image_settled};
    uint64_t image_bytes = pool->mark.image_bytes;
    while (chain.lsn < target) {
        const struct pml_record *record;
        int end = pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, &chain, &record);
        if (end >= 0)
            return pml_poison(
                pool,
                pml_fail_corrupt("log", chain.lsn, chain.lsn % pool->ring_bytes, target, chain.lsn,
                                 "a durable record has changed since it was written"));
        int st = apply_record(pool, record, &applied, &image_bytes);
        if (st != PML_OK) return pml_poison(pool, st);
        pml_chain_advance(&chain, record);
    }
    if (PML_BROKEN(CHECKPOINT_PUBLISHED_EARLY)) {
        __atomic_store_n(&pool->control->lsn_checkpoint, chain.lsn, __ATOMIC_RELEASE);
        atomic_store(&pool->lsn_checkpoint, chain.lsn);
    }
    each_dirty_run(pool, &applied, seal_pages);
    int error = PML_BROKEN(IMAGE_NOT_DRAINED) ? 0 : pool->store.ops->drain(&pool->store);
    if (error) return pml_poison(pool, pml_fail_io(error, "cannot make the image durable"));
    struct pml_mark mark = {.lsn_checkpoint = chain.lsn,
                            .txn = chain.txn,
                            .image_bytes = image_bytes,
                            .session = pool->session,
                            .epoch = pool->epoch,
                            .chain = chain.checksum,
                            .flags = flags};
    if (PML_BROKEN(MARK_TXN_WRONG)) mark.txn++;
    int st = pml_mark_write(pool, &mark);
    if (st != PML_OK) return st;
    pool->image_settled = true;
    pool->checkpoints++;
    __atomic_store_n(&pool->control->lsn_checkpoint, chain.lsn, __ATOMIC_RELEASE);
    atomic_store(&pool->lsn_checkpoint, chain.lsn);
    return PML_OK;
}

int pml_checkpoint(struct pml_pool *pool) {
    int st = pml_alive(pool);
    if (st != PML_OK) return st;
    if (pool->read_only) return pml_fail(PML_E_READ_ONLY, "the pool is open for reading only");
    st = pml_sync(pool);
    if (st != PML_OK) return st;
    pthread_mutex_lock(&pool->checkpoint_mutex);
    st = pool->closed || pool->ended
             ? pml_fail(PML_E_CLOSED, "the pool is closed")
             : pml_checkpoint_locked(pool, atomic_load(&pool->lsn_durable), false);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    return st;
}

/* ---- giving memory back ---- */

/* Private copies whose last change the image has may be dropped: the next look reads the image.
 * With the lock held no transaction is open, so a page's stamp is of a committed record. */
uint64_t pml_release_run(struct pml_pool *pool, uint64_t from, uint64_t end, uint64_t limit) {
    uint64_t released = 0, unit = 16; /* 64 KiB: a multiple of every kernel page size in use */
    for (uint64_t page = from; page < end;) {
        uint64_t first = page;
        for (; page < end; page += unit) {
            bool drop = false, keep = false;
            for (uint64_t i = page; i < page + unit; i++) {
                keep = keep || pool->stamps[i] >= limit;
                drop = drop || pool->stamps[i] > 1;
            }
            if (keep || !drop) break;
        }
        if (page > first) {
            /* The stamps go first: a page is looked at only under the lock that we hold. */
            memset(&pool->stamps[first], 0, (page - first) * sizeof(uint64_t));
            madvise(pool->image + first * PML_PAGE, (page - first) * PML_PAGE, MADV_DONTNEED);
            released += page - first;
        }
        page += unit;
    }
    pool->pages_released += released;
    return released;
}

static uint64_t release_before(struct pml_pool *pool, uint64_t limit) {
    uint64_t released = 0, pages = pool->work.mapped / PML_PAGE;
    for (uint64_t chunk = 0; chunk < pages; chunk += RELEASE_CHUNK_PAGES) {
        if (!pml_lock_try(&pool->lock)) return released;
        if (!pool->closed)
            released +=
                pml_release_run(pool, chunk, pml_min64(chunk + RELEASE_CHUNK_PAGES, pages), limit);
        pml_lock_give(&pool->lock);
    }
    return released;
}

int pml_release_pages(struct pml_pool *pool, uint64_t *released) {
    int st = pml_alive(pool);
    if (st != PML_OK) return st;
    *released = pool->read_only ? 0 : release_before(pool, atomic_load(&pool->lsn_checkpoint));
    return PML_OK;
}

/* ---- the background thread ---- */

static void wait_ms(struct pml_pool *pool, uint32_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&pool->checkpoint_wake, &pool->checkpoint_mutex, &until);
}

/* Four states: asleep (all is in the image: the next commit wakes us), busy (look again soon),
 * quiet (bring the image up to date), quiet for longer (give clean pages back). */
static void *checkpointer(void *argument) {
    struct pml_pool *pool = argument;
    uint64_t tail_before = 0;
    bool released = true;
    pthread_mutex_lock(&pool->checkpoint_mutex);
    while (!pool->stop && !atomic_load(&pool->poison)) {
        uint64_t tail = atomic_load(&pool->lsn_durable), mark = pool->mark.lsn_checkpoint;
        if (pool->rebuilding) { /* its end wakes us */
            pthread_cond_wait(&pool->checkpoint_wake, &pool->checkpoint_mutex);
            continue;
        }
        if (pool->checkpoint_asked || (tail > mark && tail == tail_before)) {
            pool->checkpoint_asked = false;
            atomic_store(&pool->checkpoint_at, UINT64_MAX); /* no commit needs to wake us now */
            if (pml_checkpoint_locked(pool, tail, false) != PML_OK) break;
            atomic_store(&pool->checkpoint_at, tail + pool->ring_bytes / 4);
            released = false;
            uint64_t cold = 2 * pool->ring_bytes;
            if (tail > cold) {
                pthread_mutex_unlock(&pool->checkpoint_mutex);
                release_before(pool, tail - cold);
                pthread_mutex_lock(&pool->checkpoint_mutex);
            }
            continue;
        }
        if (tail > mark) {
            tail_before = tail;
            wait_ms(pool, PML_CHECKPOINT_IDLE_MS);
        } else if (!released) {
            wait_ms(pool, PML_RELEASE_IDLE_MS);
            if (!pool->stop && atomic_load(&pool->lsn_durable) == tail) {
                pthread_mutex_unlock(&pool->checkpoint_mutex);
                release_before(pool, tail);
                pthread_mutex_lock(&pool->checkpoint_mutex);
                released = true;
            }
        } else {
            atomic_store(&pool->checkpoint_at, tail);
            if (atomic_load(&pool->lsn_durable) == tail && !pool->stop)
                pthread_cond_wait(&pool->checkpoint_wake, &pool->checkpoint_mutex);
        }
    }
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    return NULL;
}

/* Wakes the thread when the log has grown enough, or when it slept because there was nothing to do. */
void pml_checkpoint_nudge(struct pml_pool *pool, uint64_t durable) {
    if (PML_LIKELY(durable <= atomic_load(&pool->checkpoint_at))) return;
    uint64_t checkpoint = atomic_load(&pool->lsn_checkpoint), step = pool->ring_bytes / 4;
    pthread_mutex_lock(&pool->checkpoint_mutex);
    bool far = durable > checkpoint + step;
    pool->checkpoint_asked = pool->checkpoint_asked || far;
    atomic_store(&pool->checkpoint_at, far ? UINT64_MAX : checkpoint + step);
    pthread_cond_signal(&pool->checkpoint_wake);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
}

int pml_checkpointer_start(struct pml_pool *pool) {
    atomic_store(&pool->checkpoint_at,
                 pool->flags & PML_OPEN_NO_THREAD ? UINT64_MAX : atomic_load(&pool->lsn_durable));
    if (pool->flags & PML_OPEN_NO_THREAD) return PML_OK;
    int error = pthread_create(&pool->thread, NULL, checkpointer, pool);
    if (error) return pml_fail_errno(PML_E_MEDIUM, error, "cannot start the checkpoint thread");
    pool->thread_runs = true;
    return PML_OK;
}

void pml_checkpointer_stop(struct pml_pool *pool) {
    if (!pool->thread_runs) return;
    pthread_mutex_lock(&pool->checkpoint_mutex);
    pool->stop = true;
    pthread_cond_signal(&pool->checkpoint_wake);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    pthread_join(pool->thread, NULL);
    pool->thread_runs = false;
}
