/*
 * Transactions: note a range, change the working image in place, commit one redo record.
 *
 * Redo, no steal: the working image is a private mapping, so uncommitted bytes reach neither image
 * nor log whatever happens.  The undo list is volatile and serves abort, savepoints and operations
 * that fail half-way; recovery never needs it.
 *
 * The pool's lock is held from begin to end.  It belongs to the transaction: commit and abort may
 * come from another thread (an abandoned generator's collector).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

/* ---- guards ---- */

int pml_alive(struct pml_pool *pool) {
    if (PML_UNLIKELY(pool->fork_generation !=
                     atomic_load_explicit(&pml_fork_generation, memory_order_relaxed)))
        return pml_fail(PML_E_FORKED, "the pool was opened before fork, by the parent process");
    if (PML_UNLIKELY(pool->closed)) return pml_fail(PML_E_CLOSED, "the pool is closed");
    int poison = atomic_load_explicit(&pool->poison, memory_order_relaxed);
    if (PML_UNLIKELY(poison) && !PML_BROKEN(POISON_FORGOTTEN))
        return pml_fail(poison, "an earlier failure (%s) has poisoned this handle: reopen the pool",
                        pml_status_name(poison));
    return PML_OK;
}

/* Invariant 10: the first failure sticks, and every later call answers it. */
int pml_poison(struct pml_pool *pool, int status) {
    int none = 0;
    atomic_compare_exchange_strong(&pool->poison, &none, status);
    return status;
}

/* ---- arrays that grow ---- */

static int grow_array(void **array, size_t *capacity, size_t needed, size_t unit) {
    if (PML_LIKELY(needed <= *capacity)) return PML_OK;
    size_t wanted = *capacity ? *capacity : 64;
    while (wanted < needed) wanted *= 2;
    void *bigger = realloc(*array, wanted * unit);
    if (!bigger)
        return pml_fail(PML_E_MEMORY, "no memory for %zu entries of a transaction", wanted);
    *array = bigger;
    *capacity = wanted;
    return PML_OK;
}

#define GROW(array, capacity, needed)                                                              \
    grow_array((void **)&(array), &(capacity), (needed), sizeof *(array))

int pml_tx_init(struct pml_pool *pool) {
    pool->stage = malloc(PML_STAGE_BYTES);
    if (!pool->stage) return pml_fail(PML_E_MEMORY, "no memory");
    pool->tx.generation = pool->tx.undo_generation = 1;
    return PML_OK;
}

void pml_tx_destroy(struct pml_pool *pool) {
    free(pool->tx.notes);
    free(pool->tx.undo);
    free(pool->tx.arena);
    free(pool->tx.frees);
    free(pool->tx.savepoints);
    free(pool->stage);
    memset(&pool->tx, 0, sizeof pool->tx);
    pool->stage = NULL;
}

/* ---- noting ranges ---- */

static int stamp_pages(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    uint64_t first = offset / PML_PAGE, last = (offset + size - 1) / PML_PAGE;
    uint64_t stamp = pool->lsn_tail | 1;
    if (PML_LIKELY(first == last && pool->stamps[first])) {
        pool->stamps[first] = stamp;
        return PML_OK;
    }
    int st = pml_verify_pages(pool, offset, size);
    if (st != PML_OK) return st;
    for (uint64_t page = first; page <= last; page++) pool->stamps[page] = stamp;
    return PML_OK;
}

/* Pages that are overwritten whole need no look at what they held. */
static int stamp_fresh_pages(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    uint64_t first = offset / PML_PAGE, last = (offset + size - 1) / PML_PAGE;
    int st = stamp_pages(pool, offset, 1);
    if (st == PML_OK && last > first) st = stamp_pages(pool, offset + size - 1, 1);
    for (uint64_t page = first + 1; page < last; page++) pool->stamps[page] = pool->lsn_tail | 1;
    return st;
}

static int keep_old(struct pml_pool *pool, uint64_t offset, uint64_t length, bool fresh) {
    struct pml_tx *tx = &pool->tx;
    int st = GROW(tx->undo, tx->undo_capacity, tx->undo_count + 1);
    if (st == PML_OK && !fresh) st = GROW(tx->arena, tx->arena_capacity, tx->arena_size + length);
    if (st != PML_OK) return st;
    struct pml_undo *undo = &tx->undo[tx->undo_count++];
    undo->offset = offset;
    undo->length = length;
    undo->at = fresh ? PML_FRESH : tx->arena_size;
    if (!fresh) {
        memcpy(tx->arena + tx->arena_size, pool->image + offset, length);
        tx->arena_size += length;
    }
    return PML_OK;
}

static int keep_new(struct pml_pool *pool, uint64_t offset, uint64_t length, uint32_t kind) {
    struct pml_tx *tx = &pool->tx;
    uint64_t cost = sizeof(struct pml_range) + (kind == PML_RANGE_DATA ? (length + 7) & ~7ull : 0);
    if (PML_UNLIKELY(tx->record_bytes + cost > pool->record_max))
        return pml_fail(PML_E_TOO_LARGE,
                        "the transaction would take more than the %llu bytes that log_size allows",
                        (unsigned long long)pool->record_max);
    if (tx->note_count && kind == PML_RANGE_DATA) {
        struct pml_note *last = &tx->notes[tx->note_count - 1];
        if (PML_RANGE_KIND(last->length) == PML_RANGE_DATA &&
            last->offset + PML_RANGE_LENGTH(last->length) == offset) {
            last->length += length;
            tx->record_bytes += cost;
            return PML_OK;
        }
    }
    int st = GROW(tx->notes, tx->note_capacity, tx->note_count + 1);
    if (st != PML_OK) return st;
    if (PML_BROKEN(NOTE_LOST) && tx->note_count == 5) return PML_OK;
    if (PML_BROKEN(ZERO_NOTE_LOST) && kind == PML_RANGE_ZERO) return PML_OK;
    if (PML_BROKEN(GROW_NOTE_LOST) && kind == PML_RANGE_GROW) return PML_OK;
    tx->notes[tx->note_count++] = (struct pml_note){offset, length | (uint64_t)kind << 56};
    tx->record_bytes += cost;
    return PML_OK;
}

int pml_note_undo_only(struct pml_pool *pool, uint64_t offset, uint64_t length) {
    return keep_old(pool, offset, length, false);
}

/* The cache finds a range that this transaction has noted already: it needs no second place in the
 * record, and its old bytes need keeping again only behind a new savepoint. */
static inline struct pml_seen *seen_slot(struct pml_tx *tx, uint64_t offset) {
    return &tx->seen[(offset >> 3) % PML_SEEN];
}

int pml_note(struct pml_pool *pool, uint64_t offset, uint64_t length) {
    struct pml_tx *tx = &pool->tx;
    if (!length) return PML_OK;
    if (PML_UNLIKELY(!pml_in_body(pool, offset, length)))
        return pml_fail_corrupt("image", 0, offset, length, pool->image_bytes,
                                "a change outside the image was asked for");
    int st = stamp_pages(pool, offset, length);
    if (st != PML_OK) return st;
    struct pml_seen *seen = seen_slot(tx, offset);
    bool known =
        seen->generation == tx->generation && seen->offset == offset && seen->length >= length;
    if (!known || seen->undo_generation != tx->undo_generation) {
        st = keep_old(pool, offset, length, false);
        if (st != PML_OK) return st;
    }
    if (!known) {
        st = keep_new(pool, offset, length, PML_RANGE_DATA);
        if (st != PML_OK) {
            /* The bytes are unchanged yet, so the undo entry that is left does no harm. */
            return st;
        }
        seen->offset = offset;
        seen->length = length;
        seen->generation = tx->generation;
    }
    if (seen->length == length) seen->undo_generation = tx->undo_generation;
    return PML_OK;
}

int pml_note_fresh(struct pml_pool *pool, uint64_t offset, uint64_t length) {
    if (!length) return PML_OK;
    int st = stamp_fresh_pages(pool, offset, length);
    if (st == PML_OK) st = keep_old(pool, offset, length, true);
    return st == PML_OK ? keep_new(pool, offset, length, PML_RANGE_DATA) : st;
}

int pml_note_zero(struct pml_pool *pool, uint64_t offset, uint64_t length) {
    int st = keep_old(pool, offset, length, true);
    if (st == PML_OK) st = keep_new(pool, offset, length, PML_RANGE_ZERO);
    if (st != PML_OK) return st;
    st = stamp_fresh_pages(pool, offset, length);
    if (st == PML_OK) memset(pool->image + offset, 0, length);
    return st;
}

int pml_note_grow(struct pml_pool *pool, uint64_t bytes) {
    return keep_new(pool, bytes, 0, PML_RANGE_GROW);
}

int pml_store64(struct pml_pool *pool, uint64_t offset, uint64_t value) {
    int st = pml_note(pool, offset, sizeof value);
    if (st == PML_OK) memcpy(pool->image + offset, &value, sizeof value);
    return st;
}

/* A block is free for others only once the transaction has committed: a block that is freed and
 * taken again in one transaction would be overwritten without undo. */
int pml_tx_defer_free(struct pml_pool *pool, uint64_t payload) {
    struct pml_tx *tx = &pool->tx;
    if (PML_BROKEN(FREE_BEFORE_COMMIT)) return pml_free_now(pool, payload);
    if (PML_UNLIKELY(tx->record_bytes + pml_free_cost() > pool->record_max))
        return pml_fail(PML_E_TOO_LARGE, "the transaction frees more than log_size allows");
    int st = GROW(tx->frees, tx->free_capacity, tx->free_count + 1);
    if (st != PML_OK) return st;
    tx->frees[tx->free_count++] = payload;
    tx->record_bytes += pml_free_cost();
    return PML_OK;
}

/* ---- going back ---- */

static struct pml_point here(const struct pml_tx *tx) {
    return (struct pml_point){
        .notes = tx->note_count,
        .undo = tx->undo_count,
        .frees = tx->free_count,
        .record_bytes = tx->record_bytes,
        .last_length = tx->note_count ? tx->notes[tx->note_count - 1].length : 0,
    };
}

static void go_back(struct pml_pool *pool, const struct pml_point *point) {
    struct pml_tx *tx = &pool->tx;
    bool changed = tx->undo_count > point->undo;
    while (tx->undo_count > point->undo) {
        const struct pml_undo *undo = &tx->undo[--tx->undo_count];
        if (PML_BROKEN(UNDO_SKIPS_FIRST) && tx->undo_count == point->undo) break;
        if (undo->at == PML_FRESH) {
            /* Free space again, and beyond zero_from it has to read as zeros. */
            memset(pool->image + undo->offset, 0, undo->length);
        } else {
            memcpy(pool->image + undo->offset, tx->arena + undo->at, undo->length);
            tx->arena_size = undo->at;
        }
    }
    if (tx->note_count > point->notes) tx->note_count = point->notes;
    /* A later range may have been joined to the last one, and may lie beyond the heap's old end. */
    if (tx->note_count) tx->notes[tx->note_count - 1].length = point->last_length;
    if (!PML_BROKEN(ROLLBACK_KEEPS_FREES)) tx->free_count = point->frees;
    tx->record_bytes = point->record_bytes;
    if (!PML_BROKEN(ROLLBACK_KEEPS_SEEN)) tx->generation++;
    tx->undo_generation++;
    pool->image_bytes = pml_heap(pool)->end;
    if (!changed) return;
    pool->rollbacks++;
    pool->catalog_generation++;
    for (struct pml_container *c = pool->containers; c; c = c->next)
        if (c->changed_in == tx->id) c->changes++;
}

/* ---- begin and end ---- */

static void open_tx(struct pml_pool *pool, bool explicit_) {
    struct pml_tx *tx = &pool->tx;
    tx->id = ++pool->tx_next;
    tx->explicit_ = explicit_;
    tx->note_count = tx->undo_count = tx->free_count = tx->arena_size = tx->savepoint_count = 0;
    tx->record_bytes = sizeof(struct pml_record) + PML_LINE; /* header, and padding at the end */
    tx->generation++;
    tx->undo_generation++;
    atomic_store_explicit(&pool->owner, pml_thread_id(), memory_order_relaxed);
}

static void end_tx(struct pml_pool *pool) {
    pool->tx.id = 0;
    atomic_store_explicit(&pool->owner, 0, memory_order_relaxed);
    pml_lock_give(&pool->lock);
}

static int take(struct pml_pool *pool) {
    if (PML_UNLIKELY(!pml_lock_take(&pool->lock, PML_WAIT_SLICE_MS)))
        return pml_fail(PML_E_BUSY, "another thread's transaction is open");
    int st = pml_alive(pool);
    if (PML_UNLIKELY(st != PML_OK)) pml_lock_give(&pool->lock);
    return st;
}

/* ---- the backlog's bound ---- */

/* Sleeps shorter than this take as long: what is owed adds up until it is worth one. */
#define DELAY_STEP_NS 250000
#define CREDIT_LOOKS 8u /* words of the shipper's that a call without credit waits for at most */

/* A transaction waits where it holds nothing, before it begins.  The word of a shipper that is gone
 * does not count: nobody would take it back. */
static void pause_for_receivers(struct pml_pool *pool, uint64_t delay_ns) {
    if (pml_is_prompt || !pml_shipper_lives(pool->control)) return;
    delay_ns = pml_min64(delay_ns, PML_WAIT_SLICE_MS * 1000000ull);
    uint64_t owed = atomic_fetch_add(&pool->delay_owed_ns, delay_ns) + delay_ns;
    if (owed < DELAY_STEP_NS) return;
    atomic_store(&pool->delay_owed_ns, 0);
    owed = pml_min64(owed, PML_WAIT_SLICE_MS * 1000000ull);
    struct timespec pause = {0, (long)owed};
    nanosleep(&pause, NULL);
}

/* Credit: the log may grow as long as it ends below lsn_limit.  Looked at under the pool's lock, so
 * that no more than one record reaches beyond, however late the shipper looks. */
static inline bool has_credit(struct pml_pool *pool) {
    uint64_t limit = __atomic_load_n(&pool->control->lsn_limit, __ATOMIC_RELAXED);
    return PML_LIKELY(pool->lsn_tail <= limit - 1) /* 0: no limit */
           || !pml_shipper_lives(pool->control);
}

static int behind(struct pml_pool *pool, uint64_t lsn_tail) {
    const struct pml_control *control = pool->control;
    uint64_t limit = __atomic_load_n(&control->lsn_limit, __ATOMIC_RELAXED);
    uint64_t bytes = __atomic_load_n(&control->backlog_limit_bytes, __ATOMIC_RELAXED);
    uint64_t lacking = lsn_tail + bytes - limit;
    return pml_fail(PML_E_BEHIND, "receivers lack %llu bytes of the log, the bound is %llu bytes",
                    (unsigned long long)(lacking > lsn_tail ? lsn_tail : lacking),
                    (unsigned long long)bytes);
}

static inline bool mine(struct pml_pool *pool) {
    return atomic_load_explicit(&pool->owner, memory_order_relaxed) == pml_thread_id();
}

static void undo_all(struct pml_pool *pool) {
    struct pml_point start = {0};
    go_back(pool, &start);
}

/* Freezing needs to know the last LSN: a commit that has passed its look at `frozen` raises
 * `committing` first.  No fence here: who freezes calls membarrier, which orders this store and that
 * load on every processor.  In domain page several commits wait for one sync, so they are counted. */
static inline void enter_commit(struct pml_pool *pool) {
    if (pool->domain == PML_DOMAIN_PAGE)
        __atomic_fetch_add(&pool->control->committing, 1, __ATOMIC_SEQ_CST);
    else
        __atomic_store_n(&pool->control->committing, 1, __ATOMIC_RELAXED);
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void leave_commit(struct pml_pool *pool) {
    if (pool->domain == PML_DOMAIN_PAGE)
        __atomic_fetch_sub(&pool->control->committing, 1, __ATOMIC_SEQ_CST);
    else
        __atomic_store_n(&pool->control->committing, 0, __ATOMIC_RELEASE);
}

static inline int may_commit(struct pml_pool *pool) {
    uint32_t frozen = __atomic_load_n(&pool->control->frozen, __ATOMIC_ACQUIRE);
    if (PML_LIKELY(!frozen) || PML_BROKEN(FREEZE_IGNORED)) return PML_OK;
    if (frozen == PML_FROZEN_FENCED)
        return pml_fail(PML_E_FENCED, "epoch %u has taken over: this pool is no longer the primary",
                        pool->control->fenced_epoch);
    return pml_fail(PML_E_FROZEN, "the pool is frozen: power is failing");
}

/* Frees what was put off, then the one record. */
static int append_tx(struct pml_pool *pool, bool *enters) {
    struct pml_tx *tx = &pool->tx;
    int st = PML_OK;
    for (size_t i = 0; st == PML_OK && i < tx->free_count; i++) {
        tx->record_bytes -=
            pml_free_cost(); /* what was set aside for it; now comes what it takes */
        st = pml_free_now(pool, tx->frees[i]);
    }
    *enters = st == PML_OK && tx->note_count;
    if (PML_LIKELY(*enters)) {
        enter_commit(pool);
        st = may_commit(pool);
        if (PML_LIKELY(st == PML_OK))
            st = pml_log_append(pool, tx->notes, tx->note_count, PML_RECORD_TRANSACTION);
    }
    return st;
}

static int commit_tx(struct pml_pool *pool) {
    bool enters;
    int st = append_tx(pool, &enters);
    if (PML_UNLIKELY(st != PML_OK) && !PML_BROKEN(FAILED_COMMIT_KEPT)) undo_all(pool);
    uint64_t lsn = pool->lsn_tail;
    bool syncs = pool->domain == PML_DOMAIN_PAGE;
    if (enters && !syncs) leave_commit(pool);
    end_tx(pool);
    if (st == PML_OK && syncs && !PML_BROKEN(COMMIT_NOT_SYNCED)) st = pml_log_sync(pool, lsn);
    if (enters && syncs) leave_commit(pool);
    return st;
}

/* Before a transaction, dropped containers are freed in small transactions of their own, in step
 * with what has been allocated since: nobody waits long, and the pool does not grow meanwhile. */
static int reclaim(struct pml_pool *pool) {
    uint64_t pieces = 4 * (pool->allocations - pool->allocations_reclaimed) + 4;
    pool->allocations_reclaimed = pool->allocations;
    int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
    uint64_t fit = pml_max64(pool->record_max / (4 * pml_free_cost()), 4);
    while (st == PML_OK && pieces && pml_heap(pool)->garbage && has_credit(pool)) {
        uint32_t some = (uint32_t)pml_min64(pml_min64(pieces, fit), PML_GARBAGE_STEP);
        pieces -= some;
        open_tx(pool, false);
        st = pml_garbage_step(pool, some);
        bool enters = false;
        if (st == PML_OK) st = append_tx(pool, &enters);
        if (enters) leave_commit(pool); /* in domain page the caller's commit syncs this too */
        if (st != PML_OK) undo_all(pool);
        pool->tx.id = 0;
        atomic_store_explicit(&pool->owner, 0, memory_order_relaxed);
    }
    /* No room for it now is no failure of the caller's transaction. */
    return st == PML_E_LOG_FULL || st == PML_E_TOO_LARGE || st == PML_E_FROZEN ? PML_OK : st;
}

/* The lock was taken without credit.  Gives it back and waits for a word of the shipper's, for a
 * slice: a stopped writer looks at its signals.  PML_OK: look again. */
static int wait_for_credit(struct pml_pool *pool) {
    struct pml_control *control = pool->control;
    uint64_t lsn_tail = pool->lsn_tail;
    uint32_t seen = __atomic_load_n(&control->level_wake, __ATOMIC_SEQ_CST);
    bool changed = has_credit(pool); /* before `seen` was sampled: then nobody would wake us */
    pml_lock_give(&pool->lock);
    int st = may_commit(pool); /* frozen or fenced: what it waits for will not come */
    if (changed || st != PML_OK) return st;
    if (pml_is_prompt) return behind(pool, lsn_tail);
    if (pml_futex_wait((const _Atomic uint32_t *)&control->level_wake, seen, PML_WAIT_SLICE_MS) ==
        0)
        return may_commit(pool);
    st = may_commit(pool);
    return st == PML_OK ? behind(pool, lsn_tail) : st;
}

/* The lock, and credit. */
static int take_with_credit(struct pml_pool *pool) {
    for (uint32_t attempt = 0;; attempt++) {
        int st = take(pool);
        if (PML_LIKELY(st != PML_OK || has_credit(pool))) return st;
        uint64_t lsn_tail = pool->lsn_tail;
        st = wait_for_credit(pool);
        if (st != PML_OK) return st;
        if (attempt == CREDIT_LOOKS) return behind(pool, lsn_tail); /* has the caller signals? */
    }
}

/* The lock, and the pool fit for a transaction. */
static int take_for_writing(struct pml_pool *pool) {
    uint64_t delay_ns = __atomic_load_n(&pool->control->delay_ns, __ATOMIC_RELAXED);
    if (PML_UNLIKELY(delay_ns)) pause_for_receivers(pool, delay_ns);
    int st = take_with_credit(pool);
    if (PML_LIKELY(st != PML_OK || !pml_heap(pool)->garbage)) return st;
    st = reclaim(pool);
    if (st == PML_OK && !has_credit(pool)) { /* the last piece has used it up */
        uint64_t lsn_tail = pool->lsn_tail;
        st = wait_for_credit(pool);
        return st == PML_OK ? behind(pool, lsn_tail) : st;
    }
    if (st != PML_OK) pml_lock_give(&pool->lock);
    return st;
}

static inline int may_write(struct pml_pool *pool) {
    if (PML_UNLIKELY(pool->read_only))
        return pml_fail(PML_E_READ_ONLY, "the pool is open for reading only");
    if (PML_UNLIKELY(pool->flags & PML_OPEN_REPLICA))
        return pml_fail(PML_E_READ_ONLY, "the pool is a replica: its log comes from its primary");
    return PML_OK;
}

/* Callers that hold what others may need (an interpreter's lock) ask first.  Between the answer and
 * the call another thread may take the pool's lock: hence pml_is_prompt.  What is left to wait for is
 * a checkpoint, where a record takes more of the ring than was asked for: the checkpointer needs
 * nothing of theirs. */
int pml_prompt_begin(struct pml_pool *pool, uint64_t bytes) {
    if (pool->domain == PML_DOMAIN_PAGE || pool->read_only || pool->closed ||
        pool->fork_generation != atomic_load_explicit(&pml_fork_generation, memory_order_relaxed))
        return 0;
    if (!mine(pool) && (atomic_load_explicit(&pool->lock.state, memory_order_relaxed) ||
                        __atomic_load_n(&pool->control->delay_ns, __ATOMIC_RELAXED)))
        return 0;
    if (bytes > PML_PROMPT_BYTES || __atomic_load_n(&pool->lsn_tail, __ATOMIC_RELAXED) +
                                            pool->tx.record_bytes + 2 * PML_PROMPT_BYTES >
                                        __atomic_load_n(&pool->ring_limit, __ATOMIC_RELAXED))
        return 0;
    pml_is_prompt = true;
    return 1;
}

void pml_prompt_end(void) { pml_is_prompt = false; }

int pml_tx_begin(struct pml_pool *pool, uint64_t *id) {
    int st = pml_alive(pool);
    if (st != PML_OK) return st;
    st = may_write(pool);
    if (st != PML_OK) return st;
    if (mine(pool))
        return pml_fail(PML_E_INVARIANT, "this thread has a transaction open: take a savepoint");
    st = take_for_writing(pool);
    if (st != PML_OK) return st;
    open_tx(pool, true);
    *id = pool->tx.id;
    return PML_OK;
}

/* Ends may come from any thread, so they are told apart by the transaction's number. */
static int find_tx(struct pml_pool *pool, uint64_t id) {
    if (PML_UNLIKELY(pool->fork_generation !=
                     atomic_load_explicit(&pml_fork_generation, memory_order_relaxed)))
        return pml_fail(PML_E_FORKED,
                        "the transaction was begun before fork, by the parent process");
    if (PML_UNLIKELY(!id || pool->tx.id != id || !pool->tx.explicit_))
        return pml_fail(PML_E_NO_TRANSACTION, "the transaction has ended");
    return PML_OK;
}

int pml_tx_commit(struct pml_pool *pool, uint64_t id) {
    int st = find_tx(pool, id);
    if (st != PML_OK) return st;
    st = pml_alive(pool);
    if (st != PML_OK) {
        undo_all(pool);
        end_tx(pool);
        return st;
    }
    return commit_tx(pool);
}

int pml_tx_abort(struct pml_pool *pool, uint64_t id) {
    int st = find_tx(pool, id);
    if (st != PML_OK) return st;
    undo_all(pool);
    end_tx(pool);
    return PML_OK;
}

int64_t pml_tx_savepoint(struct pml_pool *pool, uint64_t id) {
    int st = find_tx(pool, id);
    if (st != PML_OK) return st;
    struct pml_tx *tx = &pool->tx;
    st = GROW(tx->savepoints, tx->savepoint_capacity, tx->savepoint_count + 1);
    if (st != PML_OK) return st;
    tx->savepoints[tx->savepoint_count] = here(tx);
    if (!PML_BROKEN(SAVEPOINT_KEEPS_SEEN)) tx->undo_generation++;
    return (int64_t)tx->savepoint_count++;
}

/* The savepoint stays, so that one may go back to it again; later ones are gone. */
int pml_tx_rollback(struct pml_pool *pool, uint64_t id, int64_t savepoint) {
    int st = find_tx(pool, id);
    if (st != PML_OK) return st;
    struct pml_tx *tx = &pool->tx;
    if (savepoint < 0 || (uint64_t)savepoint >= tx->savepoint_count)
        return pml_fail(PML_E_ARGUMENT, "there is no savepoint %lld", (long long)savepoint);
    tx->savepoint_count = (size_t)savepoint + 1;
    go_back(pool, &tx->savepoints[savepoint]);
    return PML_OK;
}

int pml_tx_owned(struct pml_pool *pool) { return pool->tx.id != 0 && mine(pool); }

uint64_t pml_tx_rollbacks(struct pml_pool *pool) { return pool->rollbacks; }

int pml_sync(struct pml_pool *pool) {
    int st = pml_alive(pool);
    if (st != PML_OK || pool->read_only) return st;
    if (mine(pool)) return pml_log_sync(pool, pool->lsn_tail);
    st = take(pool);
    if (st != PML_OK) return st;
    uint64_t lsn = pool->lsn_tail;
    pml_lock_give(&pool->lock);
    return pml_log_sync(pool, lsn);
}

/* Levels are the shipper's word, in control: what K receivers have said. */
int pml_wait_level(struct pml_pool *pool, uint32_t level, uint64_t lsn, uint64_t timeout_ms) {
    int st = pml_alive(pool);
    if (st != PML_OK) return st;
    if (level > 2) return pml_fail(PML_E_ARGUMENT, "there is no such level");
    if (!pool->control) return PML_E_TIMEOUT;
    struct pml_control *control = pool->control;
    uint32_t seen = __atomic_load_n(&control->level_wake, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&control->lsn_level[level], __ATOMIC_SEQ_CST) >= lsn) return PML_OK;
    pml_futex_wait((const _Atomic uint32_t *)&control->level_wake, seen,
                   pml_min64(timeout_ms, PML_WAIT_SLICE_MS));
    return __atomic_load_n(&control->lsn_level[level], __ATOMIC_SEQ_CST) >= lsn ? PML_OK
                                                                                : PML_E_TIMEOUT;
}

/* ---- one operation: inside the thread's transaction, or a transaction of its own ---- */

int pml_op_begin(struct pml_pool *pool, struct pml_op *op) {
    int st = pml_alive(pool);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    st = may_write(pool);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    op->pool = pool;
    op->automatic = !mine(pool);
    if (op->automatic) {
        st = take_for_writing(pool);
        if (PML_UNLIKELY(st != PML_OK)) return st;
        open_tx(pool, false);
    } else {
        if (!PML_BROKEN(SAVEPOINT_KEEPS_SEEN)) pool->tx.undo_generation++;
        op->point = here(&pool->tx);
    }
    return PML_OK;
}

int pml_op_end(struct pml_op *op, int status) {
    struct pml_pool *pool = op->pool;
    if (PML_LIKELY(op->automatic)) {
        if (PML_LIKELY(status == PML_OK)) return commit_tx(pool);
        undo_all(pool);
        end_tx(pool);
    } else if (PML_UNLIKELY(status != PML_OK)) {
        go_back(pool, &op->point);
    }
    return status;
}

/* ---- one look ---- */

int pml_view_begin(struct pml_pool *pool, bool *locked) {
    int st = pml_alive(pool);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    *locked = !mine(pool);
    if (!*locked) return PML_OK;
    st = take(pool);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    if (pool->read_only) {
        st = pml_follow(pool);
        if (st != PML_OK) pml_lock_give(&pool->lock);
    }
    return st;
}

/* A reader beside a writer looks first and asks afterwards whether the image moved under it; then
 * whatever it found, an error too, means nothing. */
int pml_view_end(struct pml_pool *pool, bool locked, int status) {
    if (pool->read_only && (!pml_follow_stable(pool) || pml_writer_came(pool)))
        status = PML_E_AGAIN;
    if (locked) pml_lock_give(&pool->lock);
    return status;
}

int pml_read_begin(struct pml_pool *pool) {
    if (!pool->read_only) return pml_alive(pool);
    bool locked;
    int st = pml_view_begin(pool, &locked);
    if (st == PML_OK && locked) atomic_store(&pool->owner, pml_thread_id());
    return st;
}

int pml_read_end(struct pml_pool *pool) {
    if (!pool->read_only) return PML_OK;
    bool locked = pool->tx.id == 0 && mine(pool);
    if (locked) atomic_store(&pool->owner, 0);
    return pml_view_end(pool, locked, PML_OK);
}
