/*
 * The log as another process reads it: a read-only mapping of the ring, the writer's shared words,
 * and slots that keep the ring from being reused.
 *
 * A reader sees records only up to lsn_durable, which the writer stores after the drain.  What it
 * reads without a slot may be overwritten while it looks: records are verified, and the caller
 * verifies what it copied (the checksum is in the record).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define POLL_MS 10u /* where control may not be written, nobody would wake us */

struct pml_tail {
    struct pml_pool pool; /* only its files and mappings are in use */
    struct pml_chain chain;
    bool writable;
};

int pml_tail_close(struct pml_tail *tail) {
    if (!tail) return PML_OK;
    pml_medium_close(&tail->pool, false);
    free(tail);
    return PML_OK;
}

/* Readers that may write into control are woken and may hold slots; others look now and then. */
static void make_writable(struct pml_tail *tail) {
    struct pml_pool *pool = &tail->pool;
    int fd = openat(pool->dir_fd, "control", O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    uint64_t bytes = pml_round_up(sizeof(struct pml_control), PML_PAGE);
    void *at =
        pool->control ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (at == MAP_FAILED) {
        close(fd);
        return;
    }
    munmap(pool->control, bytes);
    close(pool->control_fd);
    pool->control = at;
    pool->control_fd = fd;
    tail->writable = true;
}

int pml_tail_open(const char *path, struct pml_tail **out) {
    *out = NULL;
    struct pml_tail *tail = calloc(1, sizeof *tail);
    if (!tail) return pml_fail(PML_E_MEMORY, "no memory");
    struct pml_pool *pool = &tail->pool;
    pool->dir_fd = pool->lock_fd = pool->image_fd = -1;
    pool->log_fd = pool->sums_fd = pool->control_fd = -1;
    pool->read_only = true;
    pool->max_bytes = 65536; /* the image is not looked at, but for its marks */
    struct pml_options options = {.flags = PML_OPEN_READ_ONLY, .medium = PML_MEDIUM_FILE};
    int st = pml_medium_open(pool, path, &options);
    if (st == PML_OK && pool->control) make_writable(tail);
    if (st == PML_OK) st = pml_tail_seek(tail, 0);
    if (st != PML_OK) {
        struct pml_detail kept = *pml_error();
        pml_tail_close(tail);
        *pml_detail_new(st) = kept;
        return st;
    }
    *out = tail;
    return PML_OK;
}

/* Under a writer of this boot its word counts; otherwise the chain itself, as in recovery. */
static uint64_t end_of_log(struct pml_tail *tail) {
    struct pml_pool *pool = &tail->pool;
    if (PML_UNLIKELY(!pool->live) && pml_writer_came(pool) && !tail->writable) make_writable(tail);
    if (pool->live) return __atomic_load_n(&pool->control->lsn_durable, __ATOMIC_ACQUIRE);
    return UINT64_MAX;
}

static int seek_mark(struct pml_tail *tail) {
    struct pml_pool *pool = &tail->pool;
    struct pml_mark mark;
    int count;
    int st = pml_read_marks(pool, &mark, &count);
    if (st == PML_OK)
        tail->chain =
            (struct pml_chain){mark.lsn_checkpoint, mark.txn, mark.session, mark.epoch, mark.chain};
    return st;
}

int pml_tail_seek(struct pml_tail *tail, uint64_t lsn) {
    struct pml_pool *pool = &tail->pool;
    int st = seek_mark(tail);
    if (st != PML_OK || !lsn || lsn == tail->chain.lsn) return st;
    /* A sound record says itself what it continues. */
    const struct pml_record *record =
        (const struct pml_record *)(const void *)(pool->ring + lsn % pool->ring_bytes);
    struct pml_chain before = {lsn, record->txn - 1, record->session, record->epoch,
                               record->checksum_prev};
    if (lsn < end_of_log(tail) &&
        pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, &before, &record) < 0) {
        tail->chain = before;
        return PML_OK;
    }
    while (tail->chain.lsn < lsn &&
           pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, &tail->chain, &record) < 0)
        pml_chain_advance(&tail->chain, record);
    if (tail->chain.lsn == lsn) return PML_OK;
    pml_detail_new(PML_E_GAP)->lsn = lsn;
    return pml_fail(PML_E_GAP, "no record begins at LSN %llu, or the ring has lost it",
                    (unsigned long long)lsn);
}

int pml_tail_next(struct pml_tail *tail, struct pml_tail_record *out) {
    struct pml_pool *pool = &tail->pool;
    const struct pml_record *record;
    uint64_t end = end_of_log(tail);
    if (tail->chain.lsn >= end) return PML_E_MISSING;
    int found = pml_log_peek(pool->ring, pool->ring_bytes, pool->salt, &tail->chain, &record);
    if (found >= 0) {
        if (!pool->live) return PML_E_MISSING;
        atomic_thread_fence(memory_order_acquire);
        if (__atomic_load_n(&pool->control->lsn_checkpoint, __ATOMIC_ACQUIRE) > tail->chain.lsn)
            return pml_fail(PML_E_GAP, "the ring no longer holds LSN %llu",
                            (unsigned long long)tail->chain.lsn);
        return pml_fail_corrupt(
            "log", tail->chain.lsn, PML_RING_OFFSET + tail->chain.lsn % pool->ring_bytes, end,
            tail->chain.lsn, "the log breaks at LSN %llu", (unsigned long long)tail->chain.lsn);
    }
    struct pml_record header = *record; /* the ring may be lapped while we look */
    if (header.lsn != tail->chain.lsn || header.length > pool->ring_bytes)
        return pml_fail(PML_E_GAP, "the ring no longer holds LSN %llu",
                        (unsigned long long)tail->chain.lsn);
    pml_chain_advance(&tail->chain, &header);
    out->record = record;
    out->lsn_next = tail->chain.lsn;
    return PML_OK;
}

/* The sleeper samples wake, then looks for records, then raises waiters, and only then sleeps; the
 * writer stores the end, then changes wake, then looks at waiters.  Whichever comes first, either
 * the sleeper sees the end or the kernel sees that wake has changed. */
int pml_tail_wait(struct pml_tail *tail, uint64_t timeout_ms) {
    end_of_log(tail); /* has a writer come? */
    struct pml_control *control = tail->pool.control;
    if (!control) {
        struct timespec pause = {0, POLL_MS * 1000000};
        nanosleep(&pause, NULL);
        return PML_E_TIMEOUT;
    }
    uint32_t seen = __atomic_load_n(&control->wake, __ATOMIC_SEQ_CST);
    if (tail->chain.lsn < __atomic_load_n(&control->lsn_durable, __ATOMIC_SEQ_CST)) return PML_OK;
    if (tail->writable)
        __atomic_store_n(&control->waiters, 1, __ATOMIC_SEQ_CST);
    else
        timeout_ms = pml_min64(timeout_ms, POLL_MS);
    pml_futex_wait((const _Atomic uint32_t *)&control->wake, seen, timeout_ms);
    return tail->chain.lsn < __atomic_load_n(&control->lsn_durable, __ATOMIC_SEQ_CST)
               ? PML_OK
               : PML_E_TIMEOUT;
}

int pml_tail_position(struct pml_tail *tail, struct pml_position *out) {
    *out = (struct pml_position){tail->chain.lsn, tail->chain.epoch, tail->chain.checksum,
                                 tail->chain.txn};
    return PML_OK;
}

uint32_t pml_tail_record_sum(struct pml_tail *tail, const char *record, size_t size) {
    if (size < sizeof(struct pml_record)) return 0;
    return pml_record_sum((const struct pml_record *)(const void *)record, size, tail->pool.salt);
}

const struct pml_control *pml_tail_control(struct pml_tail *tail) { return tail->pool.control; }

int pml_tail_header(struct pml_tail *tail, uint8_t pool_id[16], uint64_t *ring_bytes) {
    memcpy(pool_id, tail->pool.header.pool_id, 16);
    *ring_bytes = tail->pool.ring_bytes;
    return PML_OK;
}

/* ---- slots ---- */

static int lock_slots(struct pml_tail *tail, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    while (fcntl(tail->pool.control_fd, F_OFD_SETLKW, &lock) != 0)
        if (errno != EINTR) return pml_fail_errno(PML_E_MEDIUM, errno, "cannot lock the slots");
    return PML_OK;
}

static int check_slot(struct pml_tail *tail, int slot) {
    if (!tail->writable) return pml_fail(PML_E_READ_ONLY, "control may not be written");
    if (slot < 0 || slot >= PML_SLOTS || !tail->pool.control->slots[slot].name[0])
        return pml_fail(PML_E_ARGUMENT, "there is no slot %d", slot);
    return PML_OK;
}

/* A slot of that name is taken up again where it stands: that is what makes it survive its holder.
 * A new one begins at the reader's position; its name, which makes it count, is stored last. */
int pml_slot_claim(struct pml_tail *tail, const char *name, uint32_t flags) {
    size_t bytes = strlen(name);
    if (!bytes || bytes >= PML_SLOT_NAME)
        return pml_fail(PML_E_ARGUMENT, "a slot's name has from 1 to %d bytes", PML_SLOT_NAME - 1);
    if (!tail->writable) return pml_fail(PML_E_READ_ONLY, "control may not be written");
    int st = lock_slots(tail, F_WRLCK);
    if (st != PML_OK) return st;
    struct pml_control *control = tail->pool.control;
    struct pml_slot *slots = control->slots;
    int at = -1;
    for (int i = PML_SLOTS - 1; i >= 0; i--)
        if (!slots[i].name[0]) at = i;
    for (int i = 0; i < PML_SLOTS; i++)
        if (!strncmp(slots[i].name, name, PML_SLOT_NAME)) at = i;
    if (at < 0) {
        st = pml_fail(PML_E_ARGUMENT, "all %d slots are taken", PML_SLOTS);
    } else if (slots[at].name[0]) {
        slots[at].pid = (uint32_t)getpid();
        slots[at].flags = flags;
    } else {
        memset(&slots[at], 0, sizeof slots[at]);
        slots[at].lsn_acked = slots[at].lsn_received = tail->chain.lsn;
        slots[at].flags = flags;
        slots[at].pid = (uint32_t)getpid();
        memcpy(slots[at].name + 1, name + 1, bytes - 1);
        __atomic_store_n(&slots[at].name[0], name[0], __ATOMIC_SEQ_CST);
        /* Below lsn_checkpoint the writer may have been allowed already to reuse the ring. */
        if (slots[at].lsn_acked < __atomic_load_n(&control->lsn_checkpoint, __ATOMIC_SEQ_CST)) {
            __atomic_store_n(&slots[at].name[0], 0, __ATOMIC_SEQ_CST);
            st = pml_fail(PML_E_GAP, "LSN %llu is below the checkpoint: the ring may lose it",
                          (unsigned long long)tail->chain.lsn);
        }
        msync(control, pml_round_up(sizeof *control, PML_PAGE), MS_SYNC);
    }
    lock_slots(tail, F_UNLCK);
    return st == PML_OK ? at : st;
}

int pml_slot_ack(struct pml_tail *tail, int slot, uint64_t lsn) {
    int st = check_slot(tail, slot);
    if (st != PML_OK) return st;
    struct pml_slot *s = &tail->pool.control->slots[slot];
    if (lsn < s->lsn_acked || lsn > end_of_log(tail))
        return pml_fail(PML_E_ARGUMENT, "an acknowledgement of LSN %llu after %llu",
                        (unsigned long long)lsn, (unsigned long long)s->lsn_acked);
    __atomic_store_n(&s->lsn_acked, lsn, __ATOMIC_RELEASE);
    return PML_OK;
}

int pml_slot_release(struct pml_tail *tail, int slot) {
    int st = check_slot(tail, slot);
    if (st == PML_OK) st = lock_slots(tail, F_WRLCK);
    if (st != PML_OK) return st;
    struct pml_slot *s = &tail->pool.control->slots[slot];
    __atomic_store_n(&s->name[0], 0,
                     __ATOMIC_SEQ_CST); /* first: a slot without a name pins nothing */
    memset(s, 0, sizeof *s);
    lock_slots(tail, F_UNLCK);
    return PML_OK;
}
