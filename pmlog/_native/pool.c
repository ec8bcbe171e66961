/*
 * A pool's life: open (create or recover), close, let go.
 *
 * The working image stays mapped from open until pml_free, also after close, because views of it
 * may still be in use.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"
#include "view.h"

static int check_options(const struct pml_options *o) {
    if (o->size < PML_MIN_IMAGE || o->size > PML_MAX_IMAGE)
        return pml_fail(PML_E_ARGUMENT, "size must be from %llu to %llu bytes", PML_MIN_IMAGE,
                        PML_MAX_IMAGE);
    if (o->log_size < PML_MIN_RING || o->log_size > PML_MAX_RING)
        return pml_fail(PML_E_ARGUMENT, "log_size must be from %llu to %llu bytes", PML_MIN_RING,
                        PML_MAX_RING);
    if (o->max_size < o->size || o->max_size > PML_MAX_IMAGE)
        return pml_fail(PML_E_ARGUMENT, "max_size must be from size to %llu bytes", PML_MAX_IMAGE);
    if (o->domain > PML_DOMAIN_PAGE) return pml_fail(PML_E_ARGUMENT, "there is no such domain");
    if (o->medium != PML_MEDIUM_FILE && o->medium != PML_MEDIUM_PMEMOBJ)
        return pml_fail(PML_E_ARGUMENT, "there is no such medium");
    return PML_OK;
}

static struct pml_pool *make(const struct pml_options *options) {
    struct pml_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->dir_fd = pool->lock_fd = pool->image_fd = -1;
    pool->log_fd = pool->sums_fd = pool->control_fd = -1;
    pool->flags = options->flags;
    pool->promote_epoch = options->epoch;
    pool->read_only = (options->flags & PML_OPEN_READ_ONLY) != 0;
    pool->max_bytes = pml_round_up(options->max_size, 65536);
    pool->fork_generation = atomic_load(&pml_fork_generation);
    pthread_mutex_init(&pool->checkpoint_mutex, NULL);
    pthread_mutex_init(&pool->sync_mutex, NULL);
    pthread_cond_init(&pool->sync_done, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->checkpoint_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return pool;
}

/* The heap and the catalog of names come with the first transaction of a new pool. */
static int format(struct pml_pool *pool) {
    struct pml_op op;
    int st = pml_op_begin(pool, &op);
    if (st != PML_OK) return st;
    st = pml_heap_format(pool);
    if (st == PML_OK) st = pml_catalog_format(pool);
    return pml_op_end(&op, st);
}

static int check_heap(struct pml_pool *pool) {
    int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
    if (st != PML_OK) return st;
    const struct pml_heap *heap = pml_heap(pool);
    if (heap->magic != PML_MAGIC_HEAP)
        return pml_fail_corrupt("image", 0, PML_HEAP_AT, PML_MAGIC_HEAP, heap->magic,
                                "the heap's header is damaged");
    if (heap->end > pool->image_bytes || heap->top > heap->end || heap->top < PML_HEAP_FIRST ||
        heap->zero_from < heap->top)
        return pml_fail_corrupt("image", 0, PML_HEAP_AT, pool->image_bytes, heap->end,
                                "the heap's header contradicts itself");
    pool->image_bytes = heap->end;
    return PML_OK;
}

static int start_writer(struct pml_pool *pool) {
    int st = pml_tx_init(pool);
    if (st == PML_OK) st = pml_recover(pool);
    if (pool->flags & PML_OPEN_REPLICA) {
        if (st == PML_OK && !(pool->flags & PML_OPEN_REBUILD)) st = pml_checkpointer_start(pool);
        return st;
    }
    /* The epoch's first record: what follows it can never continue another history. */
    if (st == PML_OK && (pool->flags & PML_OPEN_PROMOTE))
        st = pml_log_append(pool, NULL, 0, PML_RECORD_EPOCH);
    if (st == PML_OK && (pool->flags & PML_OPEN_PROMOTE)) st = pml_log_sync(pool, pool->lsn_tail);
    /* Only now: until that record is durable the log is still the one that was handed over. */
    if (st == PML_OK && (pool->flags & PML_OPEN_PROMOTE))
        __atomic_store_n(&pool->control->frozen, PML_FROZEN_NO, __ATOMIC_SEQ_CST);
    /* No transaction at all: creation went no further than the files. */
    if (st == PML_OK && pool->txn == 0) st = format(pool);
    if (st == PML_OK) st = check_heap(pool);
    if (st == PML_OK) st = pml_catalog_attach(pool);
    if (st == PML_OK) st = pml_checkpointer_start(pool);
    return st;
}

static int start_reader(struct pml_pool *pool) {
    int st = pml_follow_start(pool);
    if (st == PML_OK && pool->followed.txn == 0)
        return pml_fail(PML_E_NOT_FOUND, "the pool is being created just now");
    for (uint32_t attempt = 0; st == PML_OK && attempt < PML_READ_ATTEMPTS; attempt++) {
        bool locked;
        st = pml_view_begin(pool, &locked);
        if (st != PML_OK) return st;
        st = pml_view_end(pool, locked, check_heap(pool));
        if (st != PML_E_AGAIN) break;
        st = PML_OK;
    }
    return st == PML_OK ? pml_catalog_attach(pool) : st;
}

static void destroy(struct pml_pool *pool) {
    pthread_cond_destroy(&pool->checkpoint_wake);
    pthread_cond_destroy(&pool->sync_done);
    pthread_mutex_destroy(&pool->sync_mutex);
    pthread_mutex_destroy(&pool->checkpoint_mutex);
    pml_tx_destroy(pool);
    free(pool->copy.data);
    free(pool);
}

int pml_open(const char *path, const struct pml_options *options, struct pml_pool **out) {
    *out = NULL;
    struct pml_options o = *options;
    int st = check_options(&o);
    if (st != PML_OK) return st;
    o.size = pml_round_up(o.size, 65536);
    o.log_size = pml_round_up(o.log_size, PML_RING_UNIT);
    struct pml_pool *pool = make(&o);
    if (!pool) return pml_fail(PML_E_MEMORY, "no memory for a pool");
    st = pml_medium_open(pool, path, &o);
    if (st == PML_OK) st = pool->read_only ? start_reader(pool) : start_writer(pool);
    if (st != PML_OK) {
        struct pml_detail kept = *pml_error();
        free(pool->catalog);
        pml_forget_no_longer(pool);
        pml_medium_close(pool, false);
        destroy(pool);
        *pml_detail_new(st) = kept;
        return st;
    }
    *out = pool;
    return PML_OK;
}

/* With both mutexes held nobody checkpoints or syncs, and who comes after finds the pool closed. */
static void let_go(struct pml_pool *pool) {
    pthread_mutex_lock(&pool->checkpoint_mutex);
    pthread_mutex_lock(&pool->sync_mutex);
    pool->closed = true;
    while (pool->syncing) pthread_cond_wait(&pool->sync_done, &pool->sync_mutex);
    pml_forget_no_longer(pool);
    if (!pool->read_only && pool->control) pool->control->writer_pid = 0;
    pml_medium_close(pool, true);
    pthread_cond_broadcast(&pool->sync_done);
    pthread_mutex_unlock(&pool->sync_mutex);
    pthread_mutex_unlock(&pool->checkpoint_mutex);
}

static int begin_close(struct pml_pool *pool) {
    if (pool->fork_generation != atomic_load(&pml_fork_generation))
        return pml_fail(PML_E_FORKED, "the pool was opened before fork, by the parent process");
    if (pool->closed) return pml_fail(PML_E_CLOSED, "the pool is closed already");
    if (pml_tx_owned(pool)) pml_tx_abort(pool, pool->tx.id);
    if (!pml_lock_take(&pool->lock, PML_WAIT_SLICE_MS))
        return pml_fail(PML_E_BUSY, "another thread's transaction is open");
    if (!pool->closed) return PML_OK;
    pml_lock_give(&pool->lock); /* another thread was first */
    return pml_fail(PML_E_CLOSED, "the pool is closed already");
}

/* Checkpoint, then the mark that the log ends here: the next open replays nothing. */
int pml_close(struct pml_pool *pool) {
    int st = begin_close(pool);
    if (st == PML_E_CLOSED) return PML_OK;
    if (st != PML_OK) return st;
    pml_checkpointer_stop(pool);
    /* A replica in the middle of a rebuild stays as it is: its old mark vouches for nothing. */
    bool settled = !pool->rebuilding;
    if (!pool->read_only && settled && !atomic_load(&pool->poison)) {
        st = pml_log_sync(pool, pool->lsn_tail);
        pthread_mutex_lock(&pool->checkpoint_mutex);
        if (st == PML_OK) st = pml_checkpoint_locked(pool, atomic_load(&pool->lsn_durable), true);
        pool->ended = true; /* no other thread's checkpoint may replace the clean mark */
        pthread_mutex_unlock(&pool->checkpoint_mutex);
        if (st == PML_OK) pool->control->lsn_closed = pool->lsn_tail;
    }
    let_go(pool);
    pml_lock_give(&pool->lock);
    return st;
}

int pml_abandon(struct pml_pool *pool) {
    int st = begin_close(pool);
    if (st != PML_OK) return st;
    pml_checkpointer_stop(pool);
    let_go(pool);
    pml_lock_give(&pool->lock);
    return PML_OK;
}

/* Does not ask for the lock: a transaction that its thread left open ends with the handle. */
void pml_free(struct pml_pool *pool) {
    if (!pool) return;
    bool child = pool->fork_generation != atomic_load(&pml_fork_generation);
    if (!child && !pool->closed) {
        pml_checkpointer_stop(pool);
        let_go(pool);
    }
    pml_medium_unmap(pool);
    for (struct pml_container *c = pool->containers; c; c = c->next) c->pool = NULL;
    free(pool->catalog);
    /* In a forked child the thread's mutexes may be held for ever: their memory is left alone. */
    if (!child) destroy(pool);
}

char *pml_base(struct pml_pool *pool) { return pool->image; }

int pml_position(struct pml_pool *pool, struct pml_position *out) {
    bool locked;
    int st = pml_view_begin(pool, &locked);
    if (st != PML_OK) return st;
    if (pool->read_only)
        *out = (struct pml_position){pool->followed.lsn, pool->followed.epoch,
                                     pool->followed.checksum, pool->followed.txn};
    else
        *out = (struct pml_position){pool->lsn_tail, pool->epoch, pool->chain, pool->txn};
    if (locked) pml_lock_give(&pool->lock);
    return PML_OK;
}

static uint64_t counted(_Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Figures are of one moment where they belong together; asking waits for no transaction. */
int pml_info(struct pml_pool *pool, struct pml_info *out) {
    memset(out, 0, sizeof *out);
    if (pool->fork_generation != atomic_load(&pml_fork_generation))
        return pml_fail(PML_E_FORKED, "the pool was opened before fork, by the parent process");
    if (pool->closed) return pml_fail(PML_E_CLOSED, "the pool is closed");
    memcpy(out->pool_id, pool->header.pool_id, 16);
    out->created_ns = pool->header.created_ns;
    out->version = pool->header.version;
    out->medium = pool->header.medium;
    out->domain = pool->domain;
    out->domain_detected = pool->domain_detected;
    out->read_only = pool->read_only;
    out->poisoned = atomic_load(&pool->poison);
    out->max_bytes = pool->max_bytes;
    out->ring_bytes = pool->ring_bytes;
    out->tx_record_max = pool->ring_bytes / 2;
    bool locked = false;
    if (pool->read_only) {
        int st = pml_view_begin(pool, &locked);
        if (st != PML_OK) return st;
        out->epoch = pool->followed.epoch;
        out->session = pool->followed.session;
        out->lsn_durable = out->lsn_committed = pool->followed.lsn;
        out->txn = pool->followed.txn;
        out->lsn_checkpoint = pool->mark.lsn_checkpoint;
        if (pool->live) {
            out->frozen = pool->control->frozen;
            out->lsn_checkpoint = __atomic_load_n(&pool->control->lsn_checkpoint, __ATOMIC_ACQUIRE);
        }
        out->ring_used_bytes =
            out->lsn_committed - pml_min64(out->lsn_checkpoint, out->lsn_committed);
    } else {
        pthread_mutex_lock(&pool->checkpoint_mutex); /* against a close; waits for no transaction */
        out->epoch = pool->epoch;
        out->session = pool->session;
        out->frozen = pool->control->frozen;
        out->lsn_durable = atomic_load(&pool->lsn_durable);
        out->lsn_committed = pool->lsn_tail;
        out->txn = pool->txn;
        out->lsn_checkpoint = atomic_load(&pool->lsn_checkpoint);
        uint64_t reclaim = pml_log_reclaim(pool, false);
        out->ring_used_bytes = pool->lsn_tail - pml_min64(reclaim, pool->lsn_tail);
        pthread_mutex_unlock(&pool->checkpoint_mutex);
    }
    if (pool->control && pml_shipper_lives(pool->control)) {
        out->delay_ns = __atomic_load_n(&pool->control->delay_ns, __ATOMIC_RELAXED);
        out->lsn_limit = __atomic_load_n(&pool->control->lsn_limit, __ATOMIC_RELAXED);
        out->backlog_limit_bytes =
            __atomic_load_n(&pool->control->backlog_limit_bytes, __ATOMIC_RELAXED);
    }
    const struct pml_heap *heap = pml_heap(pool);
    out->image_bytes = pool->flags & PML_OPEN_REPLICA ? pool->image_bytes : heap->end;
    out->heap_used_bytes = heap->used_bytes;
    out->heap_used_blocks = heap->used_blocks;
    out->heap_top = heap->top;
    out->commits = pool->commits;
    out->drains = counted(&pool->log.drains);
    out->drains_image = counted(&pool->store.drains);
    out->flushes = counted(&pool->log.flushes);
    out->checkpoints = pool->checkpoints;
    out->pages_released = pool->pages_released;
    out->recovered_records = pool->recovered_records;
    out->refreshes = pool->refreshes;
    if (locked) pml_lock_give(&pool->lock);
    return PML_OK;
}

int pml_refresh(struct pml_pool *pool) {
    bool locked;
    int st = pml_view_begin(pool, &locked);
    if (st == PML_OK && locked) pml_lock_give(&pool->lock);
    return st;
}

static int64_t verify_body(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    if (!pml_in_body(pool, offset, size))
        return pml_fail(PML_E_ARGUMENT, "the range is outside the image");
    return pml_verify_pages(pool, offset, size);
}

int pml_verify(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    PML_VIEW_INT(pool->catalog, verify_body(pool, offset, size));
}
