/*
 * Recovery: what was found decides what to do.
 *
 * pml_recover_decide is the whole decision, a pure function of five findings; docs/recovery.md holds
 * the same table with the reasons, and a test walks every combination of inputs.
 *
 * The log that counts is the longest valid chain from the newest mark (invariant 5).  Where it ends
 * below an LSN that is known to have been durable, no crash explains that: the pool is corrupt and
 * nothing is changed.  Known durable is what the mark of a clean close says, what the control words
 * say if they were written under this boot of the kernel, and what later records say.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define RECOVERY_LOOK_NS 1000000 /* how often a reader looks whether a writer's recovery is over */
#define RECOVERY_LOOKS 50u       /* looks between two questions whether that writer still lives */

int pml_recover_decide(int marks, int clean, int records, int end, int below_durable) {
    if (PML_BROKEN(HOLE_ACCEPTED)) below_durable = 0;
    if (marks == PML_MARKS_NONE) return PML_DECIDE_CORRUPT_MARKS; /* R1 */
    if (end == PML_END_LATER_LAP) return PML_DECIDE_CORRUPT_LOG;  /* R2: the newer mark is gone */
    if (below_durable) return PML_DECIDE_CORRUPT_LOG; /* R3: a hole in the durable log */
    if (clean && records && marks == PML_MARKS_BOTH)
        return PML_DECIDE_CORRUPT_LOG;     /* R4: written behind a clean end */
    if (records) return PML_DECIDE_REPLAY; /* R5 */
    return PML_DECIDE_CLEAN;               /* R6 */
}

static struct pml_chain chain_of(const struct pml_mark *mark) {
    return (struct pml_chain){mark->lsn_checkpoint, mark->txn, mark->session, mark->epoch,
                              mark->chain};
}

/* Control may be stale, but is never ahead: its words are stored after what they vouch for. */
static uint64_t known_durable(struct pml_pool *pool, const struct pml_chain *end) {
    uint64_t durable = 0;
    if (pool->live) {
        durable = __atomic_load_n(&pool->control->lsn_durable, __ATOMIC_ACQUIRE);
        if (PML_BROKEN(CONTROL_IGNORED)) return 0;
        if (pool->control->epoch != end->epoch) durable = 0;
    }
    return durable;
}

/* What later records say of a hole.  A replica's log is its primary's, byte for byte: what it says
 * to be durable was so there, while here several records may wait for one drain, and a power cut
 * take the first of them.  Its mark says that it is one before the first such record arrives. */
static uint64_t hint_of(const struct pml_pool *pool, const struct pml_chain *chain) {
    if (pool->mark.flags & PML_MARK_REPLICA) return 0;
    return pml_log_hint(pool->ring, pool->ring_bytes, pool->salt, chain);
}

static int image_size_ok(struct pml_pool *pool, const struct pml_mark *mark) {
    struct stat st;
    if (fstat(pool->image_fd, &st) != 0)
        return pml_fail_errno(PML_E_MEDIUM, 0, "cannot stat the image");
    uint64_t have = (uint64_t)st.st_size - pool->image_offset;
    if ((uint64_t)st.st_size < pool->image_offset || have < mark->image_bytes)
        return pml_fail_corrupt("image", 0, (uint64_t)st.st_size, mark->image_bytes, have,
                                "image is truncated");
    if (mark->image_bytes > pool->max_bytes)
        return pml_fail(PML_E_POOL_FULL, "the pool has %llu bytes, max_size is %llu",
                        (unsigned long long)mark->image_bytes, (unsigned long long)pool->max_bytes);
    if (fstat(pool->sums_fd, &st) != 0) return pml_fail_errno(PML_E_MEDIUM, 0, "cannot stat sums");
    uint64_t sums = pool->sums_offset + PML_SUMS_OFFSET + mark->image_bytes / PML_PAGE * 4;
    if ((uint64_t)st.st_size < sums)
        return pml_fail_corrupt("sums", 0, (uint64_t)st.st_size, sums, (uint64_t)st.st_size,
                                "sums is truncated");
    /* A page-aligned start is all that growth needs; a longer file is a growth that did not commit. */
    pool->file_bytes = mark->image_bytes;
    if (pool->read_only || pool->has_pmemobj) return PML_OK;
    int done = pml_reserve_holes(pool->image_fd, 0, mark->image_bytes, "image");
    if (done == PML_OK) done = pml_reserve_holes(pool->sums_fd, 0, sums, "sums");
    if (done == PML_OK)
        done = pml_reserve_holes(pool->log_fd, 0, PML_RING_OFFSET + pool->ring_bytes, "log");
    return done;
}

int pml_read_marks(struct pml_pool *pool, struct pml_mark *mark, int *count) {
    char page[PML_MARK_STRIDE + sizeof(struct pml_mark)];
    ssize_t n =
        pread(pool->image_fd, page, sizeof page, (off_t)(pool->image_offset + PML_MARK_OFFSET));
    char image[PML_MARK_OFFSET + sizeof page] = {0};
    if (n > 0) memcpy(image + PML_MARK_OFFSET, page, (size_t)n);
    if (pml_marks_read(image, &pool->header, mark, count) != PML_OK)
        return pml_fail_corrupt("image", 0, PML_MARK_OFFSET, 0, 0,
                                "neither of the two checkpoint marks is valid");
    return PML_OK;
}

/* Walks the chain without changing anything. */
struct walked {
    uint64_t records;
    uint64_t image_bytes; /* as the last of them leaves it */
    uint64_t senseless;   /* LSN of a record with ranges outside the image; 0: none */
};

/* A writer has the ring for himself; beside a reader one may begin at any moment. */
static int look(struct pml_pool *pool, const struct pml_chain *chain, const struct pml_record **out,
                int *end) {
    if (!pool->read_only) {
        *end = pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, chain, out);
        return PML_OK;
    }
    int st = pml_log_copy(pool->ring, pool->ring_bytes, pool->salt, chain, &pool->copy, 0, end);
    *out = (const struct pml_record *)(const void *)pool->copy.data;
    return st;
}

/* A replica stores a record before it can tell that the image has to grow for it, and acknowledges
 * it behind both.  Where its power failed in between, a reader takes the log to end before that
 * record: it cannot make the room, which the next writer does. */
static bool room_for(struct pml_pool *pool, const struct pml_record *record, uint64_t image_bytes) {
    uint64_t after;
    struct stat st;
    if (!pool->read_only || !(pool->mark.flags & PML_MARK_REPLICA) ||
        pml_record_ranges_valid(record, image_bytes, &after) != PML_OK || after <= image_bytes)
        return true;
    return fstat(pool->image_fd, &st) != 0 || (uint64_t)st.st_size >= pool->image_offset + after;
}

/* PML_OK and where the chain ends, PML_END_*; or PML_E_MEMORY. */
static int walk(struct pml_pool *pool, struct pml_chain *chain, struct walked *w, int *end) {
    const struct pml_record *record;
    uint64_t limit = chain->lsn + pool->ring_bytes;
    for (;;) {
        int st = look(pool, chain, &record, end);
        if (st != PML_OK || *end >= 0) return st;
        if (record->lsn + record->length > limit) {
            *end = PML_END_LATER_LAP; /* it has lapped itself */
            return PML_OK;
        }
        if (!room_for(pool, record, w->image_bytes)) {
            *end = PML_END_NOTHING;
            return PML_OK;
        }
        if (pml_record_ranges_valid(record, w->image_bytes, &w->image_bytes) != PML_OK)
            w->senseless = record->lsn;
        pml_chain_advance(chain, record);
        w->records++;
        if (PML_BROKEN(RECOVERY_STOPS_EARLY) && w->records == 2) *end = PML_END_NOTHING;
        if (PML_BROKEN(RECOVERY_STOPS_EARLY) && w->records == 2) return PML_OK;
    }
}

/* Who was stopped under this boot stays so over an open: the word is a shipper's, and only it or a
 * promotion takes it back.  A log that has reached the epoch which took over is its own again. */
static bool is_fenced(struct pml_pool *pool, const struct pml_chain *end) {
    if (!pool->live || pool->control->frozen != PML_FROZEN_FENCED) return false;
    /* A promotion has to go beyond it: the epoch that took over has a history of its own. */
    return pool->promote_epoch ? pool->control->fenced_epoch >= pool->promote_epoch
                               : pool->control->fenced_epoch > end->epoch;
}

static int may_open(struct pml_pool *pool, const struct pml_chain *end) {
    if (pool->flags & PML_OPEN_REPLICA) return PML_OK; /* it commits nothing of its own */
    if (is_fenced(pool, end))
        return pml_fail(PML_E_FENCED, "epoch %u has taken over: this pool is no longer the primary",
                        pool->control->fenced_epoch);
    if (pool->live && pool->control->frozen == PML_FROZEN_POWER &&
        !(pool->flags & PML_OPEN_PROMOTE))
        return pml_fail(PML_E_FROZEN,
                        "a power loss was announced, and the log was handed over to receivers");
    return PML_OK;
}

static void control_begin(struct pml_pool *pool, const struct pml_chain *end) {
    struct pml_control *control = pool->control;
    /* Slots outlive the writer: a consumer's pin holds until he gives it up. */
    if (control->magic != PML_MAGIC_CONTROL || memcmp(control->pool_id, pool->header.pool_id, 16))
        memset(control->slots, 0, sizeof control->slots);
    __atomic_store_n(&control->session, 0, __ATOMIC_SEQ_CST); /* readers look again */
    control->magic = PML_MAGIC_CONTROL;
    control->version = PML_FORMAT_VERSION;
    control->writer_pid = (uint32_t)getpid();
    memcpy(control->pool_id, pool->header.pool_id, 16);
    memcpy(control->boot_id, pool->boot_id, sizeof control->boot_id);
    control->epoch = end->epoch;
    if (!pool->live) { /* a shipper's words of another boot: its clock says nothing here */
        control->shipper_beat_ns = 0;
        control->delay_ns = control->lsn_limit = control->backlog_limit_bytes = 0;
        control->frozen = control->fenced_epoch = 0;
    } else if (control->frozen == PML_FROZEN_FENCED && !is_fenced(pool, end)) {
        control->frozen = control->fenced_epoch = 0;
    }
    control->committing = 0;
    control->lsn_closed = 0;
    memset(control->lsn_level, 0, sizeof control->lsn_level);
    control->txn_durable = end->txn;
    __atomic_store_n(&control->lsn_checkpoint, pool->mark.lsn_checkpoint, __ATOMIC_RELEASE);
    __atomic_store_n(&control->lsn_durable, end->lsn, __ATOMIC_RELEASE);
    __atomic_store_n(&control->lsn_image, end->lsn, __ATOMIC_RELEASE);
    pool->live = true;
}

/* Only the headers are believed.  The mark is taken for its sequence number, so that the baseline's
 * marks are newer; where both are gone it is a new pool's.  Nothing is stored here. */
static int recover_nothing(struct pml_pool *pool) {
    int marks;
    struct stat st;
    if (pml_read_marks(pool, &pool->mark, &marks) != PML_OK)
        pool->mark = (struct pml_mark){.lsn_checkpoint = PML_LSN_FIRST, .epoch = 1, .sequence = 1};
    if (fstat(pool->image_fd, &st) != 0)
        return pml_fail_errno(PML_E_MEDIUM, 0, "cannot stat the image");
    /* The files may be too short: they are reserved from their beginning on. */
    pool->file_bytes = 0;
    uint64_t have = pml_round_up((uint64_t)st.st_size - pool->image_offset, 65536);
    pool->mark.image_bytes = pml_max64(pml_min64(have, pool->max_bytes), PML_MIN_IMAGE);
    int done = pml_medium_grow(pool, pool->mark.image_bytes);
    if (done != PML_OK) return done;
    struct pml_chain chain = chain_of(&pool->mark);
    pool->lsn_tail = pool->lsn_received = pool->lsn_appended = chain.lsn;
    pool->txn = pool->txn_appended = chain.txn;
    pool->chain = chain.checksum;
    pool->session = chain.session;
    pool->epoch = chain.epoch;
    pool->image_bytes = pool->mark.image_bytes;
    pool->record_max = pool->ring_bytes / 2;
    atomic_store(&pool->lsn_checkpoint, chain.lsn);
    atomic_store(&pool->lsn_durable, chain.lsn);
    uint64_t session_before = pool->live ? pool->control->session : 0;
    control_begin(pool, &chain);
    pool->control_session =
        pml_max64(session_before,
                  pml_max64(pool->control_session, pool->session << PML_SESSION_SHIFT)) +
        1;
    pool->rebuilding = true;
    return PML_OK;
}

int pml_recover(struct pml_pool *pool) {
    int marks = 0;
    if (pool->flags & PML_OPEN_REBUILD) return recover_nothing(pool);
    int st = pml_read_marks(pool, &pool->mark, &marks);
    if (st != PML_OK) return st;
    st = image_size_ok(pool, &pool->mark);
    if (st == PML_OK) st = pml_medium_grow(pool, pool->mark.image_bytes);
    if (st != PML_OK) return st;

    struct pml_chain chain = chain_of(&pool->mark);
    struct walked found = {.image_bytes = pool->mark.image_bytes};
    int end;
    st = walk(pool, &chain, &found, &end);
    if (st != PML_OK) return st;
    uint64_t records = found.records, durable = known_durable(pool, &chain);
    if (found.senseless)
        return pml_fail_corrupt("log", found.senseless, 0, 0, 0,
                                "a range of the record at LSN %llu is outside the image",
                                (unsigned long long)found.senseless);
    if (found.image_bytes > pool->max_bytes)
        return pml_fail(PML_E_POOL_FULL, "the pool has %llu bytes, max_size is %llu",
                        (unsigned long long)found.image_bytes, (unsigned long long)pool->max_bytes);
    /* Behind a clean end nothing is looked for, unless the newer mark may be the one that is gone. */
    if (!(pool->mark.flags & PML_MARK_CLEAN) || records || durable > chain.lsn ||
        marks != PML_MARKS_BOTH)
        durable = pml_max64(durable, hint_of(pool, &chain));
    int decision = pml_recover_decide(marks, (pool->mark.flags & PML_MARK_CLEAN) != 0, records != 0,
                                      end, chain.lsn < durable);
    if (decision == PML_DECIDE_CORRUPT_LOG)
        return pml_fail_corrupt("log", chain.lsn, PML_RING_OFFSET + chain.lsn % pool->ring_bytes,
                                durable, chain.lsn,
                                "the log breaks at LSN %llu, below what is known to be durable",
                                (unsigned long long)chain.lsn);
    st = may_open(pool, &chain); /* nothing has changed yet */
    if (st != PML_OK) return st;
    pool->recovered_records = records;
    pool->lsn_tail = chain.lsn;
    pool->chain = chain.checksum;
    pool->txn = chain.txn;
    pool->epoch = chain.epoch;
    /* A replica's log is its primary's, sessions included; a promotion begins the next epoch. */
    bool replica = (pool->flags & PML_OPEN_REPLICA) != 0;
    pool->session = pml_max64(chain.session, pool->mark.session) +
                    (replica || PML_BROKEN(SESSION_KEPT) ? 0 : 1);
    if (pool->flags & PML_OPEN_PROMOTE)
        pool->epoch =
            pool->promote_epoch ? pml_max32(pool->promote_epoch, pool->epoch) : pool->epoch + 1;
    pool->lsn_received = chain.lsn;
    pool->record_max = pool->ring_bytes / 2;
    atomic_store(&pool->lsn_checkpoint, pool->mark.lsn_checkpoint);
    atomic_store(&pool->lsn_durable, chain.lsn);
    pool->lsn_appended = chain.lsn;
    pool->txn_appended = chain.txn;

    /* What a killed process left may be in caches only.  It counts as committed from now on, so it
     * becomes durable before any of it reaches the image; the marks too, since one of them will be
     * overwritten. */
    uint64_t first = pool->mark.lsn_checkpoint;
    for (uint64_t lsn = first; lsn < chain.lsn; lsn += PML_PAGE) {
        /* After a failed sync the kernel may call a page clean that never reached the disk. */
        char *at = pool->ring + lsn % pool->ring_bytes;
        char same = *at;
        pml_put(&pool->log, at, &same, 1);
    }
    pool->log.ops->flush(&pool->log, pool->ring + first % pool->ring_bytes, chain.lsn - first);
    pool->store.ops->flush(&pool->store, pool->shared.base + PML_MARK_OFFSET, 2 * PML_MARK_STRIDE);
    int error = PML_BROKEN(FOUND_NOT_DRAINED) ? 0 : pool->log.ops->drain(&pool->log);
    if (!error) error = pool->store.ops->drain(&pool->store);
    if (error) return pml_fail_io(error, "cannot make what was found durable");
    /* If no checkpoint was cut short, every page has to match its checksum before it changes. */
    pool->image_settled =
        pool->live &&
        __atomic_load_n(&pool->control->lsn_image, __ATOMIC_ACQUIRE) == pool->mark.lsn_checkpoint;
    uint64_t session_before = pool->live ? pool->control->session : 0;
    control_begin(pool, &chain);
    pool->control->epoch = pool->epoch;
    /* The mark of the new session is durable before its first record: a session's number is never
     * used twice with records in the log. */
    pthread_mutex_lock(&pool->checkpoint_mutex);
    st = pml_checkpoint_locked(pool, chain.lsn, false);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    pool->image_bytes = pool->mark.image_bytes;
    /* Never a number that a reader may have seen: a replica's opens have no sessions of their own. */
    pool->control_session = pml_max64(session_before, pool->session << PML_SESSION_SHIFT) + 1;
    __atomic_store_n(&pool->control->session, pool->control_session, __ATOMIC_SEQ_CST);
    return st;
}

/* ---- a reader beside the writer ---- */

bool pml_follow_stable(struct pml_pool *pool) {
    if (!pool->live) return true;
    atomic_thread_fence(memory_order_acquire);
    const struct pml_control *control = pool->control;
    return __atomic_load_n(&control->lsn_image, __ATOMIC_ACQUIRE) <= pool->followed.lsn &&
           __atomic_load_n(&control->session, __ATOMIC_ACQUIRE) == pool->session_seen;
}

/* Stamps a page that gets a private copy.  Verified first where that can be: beside a checkpoint
 * that goes beyond our place, or after a power cut, its rest is taken as it stands. */
static int own_page(struct pml_pool *pool, uint64_t page, uint64_t lsn) {
    if (!pool->stamps[page] && pool->live) {
        int st = pml_verify_page(pool, page);
        if (st != PML_OK && st != PML_E_AGAIN) return st;
    }
    pool->stamps[page] = lsn | 1;
    return PML_OK;
}

static int apply_private(struct pml_pool *pool, const struct pml_record *record) {
    const char *at = (const char *)(record + 1);
    for (uint32_t i = 0; i < record->range_count; i++) {
        const struct pml_range *range = (const struct pml_range *)(const void *)at;
        uint64_t length = PML_RANGE_LENGTH(range->length);
        uint32_t kind = PML_RANGE_KIND(range->length);
        at += sizeof *range;
        if (kind == PML_RANGE_GROW || !length) continue;
        for (uint64_t page = range->offset / PML_PAGE;
             page <= (range->offset + length - 1) / PML_PAGE; page++) {
            int st = own_page(pool, page, record->lsn);
            if (st != PML_OK) return st;
        }
        if (kind == PML_RANGE_DATA) {
            memcpy(pool->image + range->offset, at, length);
            at += (length + 7) & ~7ull;
        } else {
            memset(pool->image + range->offset, 0, length);
        }
    }
    return PML_OK;
}

/* From the image as it is now: what the working image held is dropped. */
static int follow_again(struct pml_pool *pool, int *marks) {
    struct pml_mark mark;
    int st = pml_read_marks(pool, &mark, marks);
    if (st == PML_OK) st = image_size_ok(pool, &mark);
    if (st == PML_OK) st = pml_medium_grow(pool, mark.image_bytes);
    if (st != PML_OK) return st;
    if (pool->work.mapped) madvise(pool->image, pool->work.mapped, MADV_DONTNEED);
    madvise(pool->stamp_map.base, pool->work.mapped / PML_PAGE * sizeof(uint64_t), MADV_DONTNEED);
    pool->mark = mark;
    pool->followed = chain_of(&mark);
    pool->image_bytes = mark.image_bytes;
    pool->session_seen =
        pool->live ? __atomic_load_n(&pool->control->session, __ATOMIC_ACQUIRE) : mark.session;
    return PML_OK;
}

/* PML_OK; a negative status; or FOLLOW_BROKEN. */
#define FOLLOW_BROKEN 1
static int copy_record(struct pml_pool *pool, const struct pml_record **out) {
    int end;
    int st = look(pool, &pool->followed, out, &end);
    return st != PML_OK || end < 0 ? st : FOLLOW_BROKEN;
}

static int follow_to(struct pml_pool *pool, uint64_t target) {
    while (pool->followed.lsn < target) {
        const struct pml_record *record = NULL;
        uint64_t after;
        int st = copy_record(pool, &record);
        if (st != PML_OK) return st;
        if (pml_record_ranges_valid(record, pool->image_bytes, &after) != PML_OK)
            return pml_fail_corrupt("log", record->lsn, 0, 0, 0,
                                    "a range of the record at LSN %llu is outside the image",
                                    (unsigned long long)record->lsn);
        if (after > pool->image_bytes) {
            st = pml_medium_grow(pool, after);
            if (st != PML_OK) return st;
            pool->image_bytes = after;
        }
        st = apply_private(pool, record);
        if (st != PML_OK) return st;
        pml_chain_advance(&pool->followed, record);
    }
    return PML_OK;
}

/* No writer has been here under this boot: follow the chain as far as it goes, as recovery would. */
static int follow_dead(struct pml_pool *pool) {
    if (pool->followed.lsn) return PML_OK;
    int marks;
    int st = follow_again(pool, &marks);
    if (st != PML_OK) return st;
    struct pml_chain chain = pool->followed;
    struct walked found = {.image_bytes = pool->image_bytes};
    int end;
    st = walk(pool, &chain, &found, &end);
    if (st != PML_OK) return st;
    uint64_t records = found.records;
    bool clean = (pool->mark.flags & PML_MARK_CLEAN) != 0;
    uint64_t durable = clean && !records && marks == PML_MARKS_BOTH ? 0 : hint_of(pool, &chain);
    if (pml_recover_decide(marks, clean, records != 0, end, chain.lsn < durable) >=
        PML_DECIDE_CORRUPT_MARKS)
        return pml_writer_came(pool)
                   ? PML_E_AGAIN
                   : pml_fail_corrupt(
                         "log", chain.lsn, PML_RING_OFFSET + chain.lsn % pool->ring_bytes, durable,
                         chain.lsn, "the log breaks at LSN %llu", (unsigned long long)chain.lsn);
    st = follow_to(pool, chain.lsn);
    pool->catalog_generation++;
    if (st == PML_OK || st < 0) return st;
    return pml_writer_came(pool) ? PML_E_AGAIN
                                 : pml_fail(PML_E_CORRUPT, "the log changed while it was read");
}

bool pml_writer_came(struct pml_pool *pool) {
    if (pool->live) return false;
    if (!pool->control) {
        if (pml_control_open(pool) != PML_OK || !pool->control) return false;
    } else if (pool->control->magic == PML_MAGIC_CONTROL) {
        pool->live = !memcmp(pool->control->boot_id, pool->boot_id, sizeof pool->boot_id) &&
                     !memcmp(pool->control->pool_id, pool->header.pool_id, 16);
    }
    /* Session 0 and a free lock: it died while it recovered, and nobody will finish that. */
    if (pool->live && !__atomic_load_n(&pool->control->session, __ATOMIC_ACQUIRE) &&
        pml_lock_is_free(pool))
        pool->live = false;
    if (pool->live) pool->followed.lsn = 0;
    return pool->live;
}

/* A private copy whose every record the image has by now is not needed any more; looked for once in
 * a while, since it walks over all pages. */
static void give_back(struct pml_pool *pool, uint64_t checkpoint) {
    if (PML_LIKELY(checkpoint < pool->lsn_released + pool->ring_bytes / 4)) return;
    pml_release_run(pool, 0, pool->work.mapped / PML_PAGE, checkpoint);
    pool->lsn_released = checkpoint;
}

int pml_follow(struct pml_pool *pool) {
    if (!pool->live && !pml_writer_came(pool)) {
        int dead = follow_dead(pool);
        if (dead != PML_E_AGAIN) return dead;
    }
    struct pml_control *control = pool->control;
    struct timespec pause = {0, RECOVERY_LOOK_NS};
    uint32_t waited = 0;
    for (uint32_t attempt = 0; attempt < PML_READ_ATTEMPTS; attempt++) {
        uint64_t session = __atomic_load_n(&control->session, __ATOMIC_ACQUIRE);
        uint64_t checkpoint = __atomic_load_n(&control->lsn_checkpoint, __ATOMIC_ACQUIRE);
        uint64_t image = __atomic_load_n(&control->lsn_image, __ATOMIC_ACQUIRE);
        uint64_t durable = __atomic_load_n(&control->lsn_durable, __ATOMIC_ACQUIRE);
        if (PML_LIKELY(pool->followed.lsn == durable && session == pool->session_seen && session &&
                       image <= durable)) {
            give_back(pool, checkpoint);
            return PML_OK;
        }
        if (!session) { /* a writer is recovering the pool just now, or died at it */
            nanosleep(&pause, NULL);
            if (++waited % RECOVERY_LOOKS == 0) {
                if (pml_lock_is_free(pool)) {
                    pool->live = false;
                    pool->followed.lsn = 0;
                    return follow_dead(pool);
                }
                return pml_fail(PML_E_BUSY, "a writer is recovering the pool");
            }
            attempt = 0;
            continue;
        }
        /* Each is stored after what it follows from, and read before it: no writer leaves this. */
        bool sound = image <= durable && checkpoint <= durable && pool->followed.lsn <= durable;
        if (!sound && __atomic_load_n(&control->session, __ATOMIC_ACQUIRE) == session &&
            session == pool->session_seen)
            return pml_fail_corrupt("control", 0, offsetof(struct pml_control, lsn_durable), image,
                                    durable, "its words contradict each other or the log");
        pool->refreshes++;
        /* Far behind, the image is the shorter way. */
        if (!pool->followed.lsn || session != pool->session_seen ||
            checkpoint > pool->followed.lsn + pool->ring_bytes / 4) {
            int marks;
            int st = follow_again(pool, &marks);
            if (st != PML_OK) return st;
            pool->catalog_generation++;
            if (pool->session_seen != session) continue;
            if (pool->mark.lsn_checkpoint < checkpoint) /* a mark is durable before it is told */
                return pml_fail_corrupt("image", 0, PML_MARK_OFFSET, checkpoint,
                                        pool->mark.lsn_checkpoint,
                                        "its checkpoint marks are older than what control says");
        }
        int st = follow_to(pool, durable);
        pool->catalog_generation++;
        if (st == PML_OK) continue; /* is there more by now? */
        if (st < 0) return st;
        atomic_thread_fence(memory_order_acquire);
        uint64_t now = __atomic_load_n(&control->lsn_checkpoint, __ATOMIC_ACQUIRE);
        if (now <= pool->followed.lsn && /* above it the ring is never reused */
            __atomic_load_n(&control->session, __ATOMIC_ACQUIRE) == session)
            return pml_fail_corrupt("log", pool->followed.lsn,
                                    PML_RING_OFFSET + pool->followed.lsn % pool->ring_bytes,
                                    durable, pool->followed.lsn, "the log breaks at LSN %llu",
                                    (unsigned long long)pool->followed.lsn);
        pool->followed.lsn = 0; /* overtaken */
    }
    return pml_fail(PML_E_BUSY, "the writer overtook this reader %u times in a row",
                    PML_READ_ATTEMPTS);
}

int pml_follow_start(struct pml_pool *pool) {
    struct pml_mark mark;
    int marks;
    int st = pml_read_marks(pool, &mark, &marks);
    if (st == PML_OK) st = image_size_ok(pool, &mark);
    return st == PML_OK ? pml_follow(pool) : st;
}
