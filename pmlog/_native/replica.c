/*
 * A replica: a pool whose log another pool writes.
 *
 * It has the same format, so a reader follows it, a shipper serves it and a writer may be opened on
 * it, which is promotion.  Three things differ from a writer: records come from outside, byte for
 * byte, and are verified before they count; no transaction may begin; the session does not rise.
 *
 * Order of stores for what arrives, and what a crash between two of them leaves:
 *
 *   1  bytes -> ring, behind the tail      part of a record: its checksum fails, it is not there yet
 *   2  flush, drain                        whole records that are valid: they are there
 *   3  lsn_durable is published            only now may the caller acknowledge
 *
 * A baseline copies blocks of the primary's image, of different moments.  They are consistent only
 * once the log is applied up to the LSN at which the last of them was read.  Order of stores, and
 * what a crash after each of them leaves:
 *
 *   1  a file of the caller's says incomplete      the pool as it was; it is rebuilt all the same
 *   2  both marks are wiped, drain                 a pool that nobody can open or read: no mark
 *   3  blocks -> image                             the same
 *   4  drain; headers in the ring are wiped,       the same; nothing of the old log is left, so
 *      drain                                       that none of it continues the chain
 *   5  log from the baseline's mark on             the same
 *   6  that is applied, drain; marks, drain        a pool that is whole
 *   7  the caller removes its file
 */
#include <errno.h>

#include "internal.h"

static int must_be_replica(struct pml_pool *pool) {
    int st = pml_alive(pool);
    if (st == PML_OK && !(pool->flags & PML_OPEN_REPLICA))
        return pml_fail(PML_E_ARGUMENT, "the pool is not open as a replica");
    return st;
}

static int take(struct pml_pool *pool) {
    int st = must_be_replica(pool);
    if (st != PML_OK) return st;
    if (!pml_lock_take(&pool->lock, PML_WAIT_SLICE_MS))
        return pml_fail(PML_E_BUSY, "another thread appends to this replica");
    st = must_be_replica(pool);
    if (st != PML_OK) pml_lock_give(&pool->lock);
    return st;
}

/* Where the chain stands after the whole and valid records in [tail, end).  A record that is whole
 * and not valid is refused; one that is not whole yet waits. */
static int follow_bytes(struct pml_pool *pool, uint64_t end, struct pml_chain *chain,
                        uint64_t *image_bytes) {
    while (end - chain->lsn >= sizeof(struct pml_record)) {
        const struct pml_record *record =
            (const struct pml_record *)(const void *)(pool->ring + chain->lsn % pool->ring_bytes);
        if (record->magic != PML_MAGIC_RECORD || record->lsn != chain->lsn ||
            record->length < PML_LINE || record->length % PML_LINE ||
            record->length > pool->record_max)
            return pml_fail_corrupt("log", chain->lsn, 0, chain->lsn, record->lsn,
                                    "what arrived for LSN %llu is not a record",
                                    (unsigned long long)chain->lsn);
        if (record->length > end - chain->lsn) return PML_OK;
        if (pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, chain, &record) >= 0 &&
            !PML_BROKEN(REPLICA_BELIEVES))
            return pml_fail_corrupt("log", chain->lsn, 0, chain->checksum, record->checksum_prev,
                                    "the record at LSN %llu does not continue this replica's log",
                                    (unsigned long long)chain->lsn);
        if (pml_record_ranges_valid(record, *image_bytes, image_bytes) != PML_OK)
            return pml_fail_corrupt("log", chain->lsn, 0, *image_bytes, 0,
                                    "a range of the record at LSN %llu is outside the image",
                                    (unsigned long long)chain->lsn);
        if (*image_bytes > pool->max_bytes)
            return pml_fail(PML_E_POOL_FULL,
                            "the primary has grown beyond this replica's max_size");
        pml_chain_advance(chain, record);
    }
    return PML_OK;
}

static int append(struct pml_pool *pool, uint64_t lsn, const char *data, size_t size) {
    if (lsn != pool->lsn_received && !PML_BROKEN(REPLICA_TAKES_GAPS))
        return pml_fail(PML_E_GAP, "bytes from LSN %llu, but the next one needed is %llu",
                        (unsigned long long)lsn, (unsigned long long)pool->lsn_received);
    int st = pml_log_space(pool, lsn + size - pool->lsn_tail);
    if (st != PML_OK) return st;
    char *to = pool->ring + lsn % pool->ring_bytes;
    pml_put(&pool->log, to, data, size);
    pool->log.ops->flush(&pool->log, to, size);
    struct pml_chain chain = {pool->lsn_tail, pool->txn, pool->session, pool->epoch, pool->chain};
    uint64_t image_bytes = pool->image_bytes;
    st = follow_bytes(pool, lsn + size, &chain, &image_bytes);
    /* As at the primary the room comes before the record that needs it: a reader finds the growth in
     * the log, long before a checkpoint has applied it. */
    if (st == PML_OK && image_bytes > pool->image_bytes && !PML_BROKEN(REPLICA_GROWS_LATE))
        st = pml_medium_grow(pool, image_bytes);
    if (st != PML_OK) {
        pool->lsn_received = pool->lsn_tail; /* what was refused is asked for again */
        return st;
    }
    pool->lsn_received = lsn + size;
    if (chain.lsn == pool->lsn_tail) return PML_OK;
    if (PML_BROKEN(REPLICA_PUBLISHES_EARLY)) pml_log_publish(pool, chain.lsn, chain.txn);
    int error = pool->log.ops->drain(&pool->log);
    if (error) return pml_poison(pool, pml_fail_errno(PML_E_MEDIUM, error, "cannot drain the log"));
    pool->commits += chain.txn - pool->txn;
    pool->lsn_tail = chain.lsn;
    pool->txn = chain.txn;
    pool->session = chain.session;
    pool->epoch = chain.epoch;
    pool->chain = chain.checksum;
    pool->image_bytes = image_bytes;
    pool->control->epoch = chain.epoch;
    pthread_mutex_lock(&pool->sync_mutex);
    pool->lsn_appended = chain.lsn;
    pool->txn_appended = chain.txn;
    pthread_mutex_unlock(&pool->sync_mutex);
    pml_log_publish(pool, chain.lsn, chain.txn);
    pml_checkpoint_nudge(pool, chain.lsn);
    return PML_OK;
}

int pml_replica_append(struct pml_pool *pool, uint64_t lsn, const char *data, size_t size,
                       struct pml_position *durable) {
    if (!size || size > pool->ring_bytes / 2)
        return pml_fail(PML_E_ARGUMENT, "from 1 to %llu bytes at a time",
                        (unsigned long long)(pool->ring_bytes / 2));
    int st = take(pool);
    if (st != PML_OK) return st;
    st = append(pool, lsn, data, size);
    *durable = (struct pml_position){pool->lsn_tail, pool->epoch, pool->chain, pool->txn};
    pml_lock_give(&pool->lock);
    return st;
}

/* A stream that broke inside a record begins again at the record. */
int pml_replica_restart(struct pml_pool *pool) {
    int st = take(pool);
    if (st != PML_OK) return st;
    pool->lsn_received = pool->lsn_tail;
    pml_lock_give(&pool->lock);
    return PML_OK;
}

/* ---- baseline ---- */

int pml_replica_begin(struct pml_pool *pool) {
    int st = take(pool);
    if (st != PML_OK) return st;
    pthread_mutex_lock(&pool->checkpoint_mutex); /* a checkpoint that is under way ends first */
    pool->rebuilding = true;
    pool->lsn_received = pool->lsn_tail;
    __atomic_store_n(&pool->control->session, 0, __ATOMIC_SEQ_CST); /* readers look away */
    char *marks = pool->shared.base + PML_MARK_OFFSET;
    if (!PML_BROKEN(BASELINE_MARKS_KEPT))
        pool->store.ops->set(&pool->store, marks, 0, 2 * PML_MARK_STRIDE);
    pool->store.ops->flush(&pool->store, marks, 2 * PML_MARK_STRIDE);
    int error = pool->store.ops->drain(&pool->store);
    if (error) st = pml_poison(pool, pml_fail_io(error, "cannot wipe the checkpoint marks"));
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    pml_lock_give(&pool->lock);
    return st;
}

static int must_rebuild(struct pml_pool *pool) {
    return pool->rebuilding ? PML_OK : pml_fail(PML_E_ARGUMENT, "no baseline has begun");
}

int pml_replica_block(struct pml_pool *pool, uint64_t offset, const char *data, size_t size) {
    int st = take(pool);
    if (st != PML_OK) return st;
    st = must_rebuild(pool);
    if (st == PML_OK && (offset < PML_BODY_OFFSET || offset % PML_PAGE || size % PML_PAGE ||
                         !size || size > PML_MAX_IMAGE || offset > PML_MAX_IMAGE))
        st = pml_fail(PML_E_ARGUMENT, "a block is whole pages of the image's body");
    if (st == PML_OK)
        st = pml_medium_grow(pool,
                             pml_max64(pool->mark.image_bytes, pml_round_up(offset + size, 65536)));
    if (st == PML_OK && !PML_BROKEN(BLOCK_LOST)) pml_store_pages(pool, offset, data, size);
    pml_lock_give(&pool->lock);
    return st;
}

/* Records of another history, or of this one, could continue the chain at the new mark, or pass for
 * proof that the log goes on: none is left. */
static int wipe_ring(struct pml_pool *pool) {
    for (uint64_t at = 0; at < pool->ring_bytes; at += PML_LINE) {
        const struct pml_record *record =
            (const struct pml_record *)(const void *)(pool->ring + at);
        if (record->magic != PML_MAGIC_RECORD) continue;
        pool->log.ops->set(&pool->log, pool->ring + at, 0, PML_LINE);
        pool->log.ops->flush(&pool->log, pool->ring + at, PML_LINE);
    }
    int error = pool->log.ops->drain(&pool->log);
    return error ? pml_poison(pool, pml_fail_io(error, "cannot wipe the log")) : PML_OK;
}

static void begin_at(struct pml_pool *pool, const struct pml_mark *mark) {
    uint64_t sequence = pool->mark.sequence;
    pool->mark = *mark;
    pool->mark.sequence = sequence;
    pool->mark.flags = pool->mark.reserved = 0;
    pool->lsn_tail = pool->lsn_received = mark->lsn_checkpoint;
    pool->txn = mark->txn;
    pool->session = mark->session;
    pool->epoch = mark->epoch;
    pool->chain = mark->chain;
    pool->image_bytes = mark->image_bytes;
    pool->image_settled = false;
    pool->ring_limit = 0;
    atomic_store(&pool->lsn_checkpoint, mark->lsn_checkpoint);
    pool->control->epoch = mark->epoch;
    __atomic_store_n(&pool->control->lsn_checkpoint, mark->lsn_checkpoint, __ATOMIC_RELEASE);
    __atomic_store_n(&pool->control->lsn_image, mark->lsn_checkpoint, __ATOMIC_RELEASE);
    pthread_mutex_lock(&pool->sync_mutex);
    pool->lsn_appended = mark->lsn_checkpoint;
    pool->txn_appended = mark->txn;
    pthread_mutex_unlock(&pool->sync_mutex);
    pml_log_publish(pool, mark->lsn_checkpoint, mark->txn);
}

int pml_replica_baseline(struct pml_pool *pool, const struct pml_mark *start) {
    int st = take(pool);
    if (st != PML_OK) return st;
    st = must_rebuild(pool);
    if (st == PML_OK &&
        (start->lsn_checkpoint < PML_LSN_FIRST || start->image_bytes % 65536 ||
         start->image_bytes < PML_MIN_IMAGE || start->image_bytes > pool->max_bytes))
        st = pml_fail(PML_E_ARGUMENT, "the baseline's position makes no sense");
    if (st == PML_OK) st = pml_medium_grow(pool, start->image_bytes);
    pthread_mutex_lock(&pool->checkpoint_mutex);
    int error = st == PML_OK ? pool->store.ops->drain(&pool->store) : 0;
    if (error) st = pml_poison(pool, pml_fail_io(error, "cannot make the image durable"));
    if (st == PML_OK) st = wipe_ring(pool);
    if (st == PML_OK) begin_at(pool, start);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    pml_lock_give(&pool->lock);
    return st;
}

int pml_replica_whole(struct pml_pool *pool) {
    int st = take(pool);
    if (st != PML_OK) return st;
    st = must_rebuild(pool);
    if (st != PML_OK) {
        pml_lock_give(&pool->lock);
        return st;
    }
    pthread_mutex_lock(&pool->checkpoint_mutex);
    pool->rebuilding = false;
    st = pml_checkpoint_locked(pool, pool->lsn_tail, false);
    /* Both slots: one alone is taken for damage. */
    struct pml_mark mark = pool->mark;
    int slots = PML_BROKEN(BASELINE_ONE_MARK) ? 0 : 2;
    for (int slot = 0; st == PML_OK && slot < slots; slot++) st = pml_mark_write(pool, &mark);
    if (st == PML_OK)
        __atomic_store_n(&pool->control->session, ++pool->control_session, __ATOMIC_SEQ_CST);
    pthread_cond_signal(&pool->checkpoint_wake);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
    if (st == PML_OK && !pool->thread_runs) st = pml_checkpointer_start(pool);
    pml_lock_give(&pool->lock);
    return st;
}
