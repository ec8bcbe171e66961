/*
 * The log as another process reads it: a read-only mapping of the ring, the writer's shared words,
 * and slots that keep the ring from being reused.
 *
 * A reader sees records only up to lsn_durable, which the writer stores after the drain.  The ring
 * may be overwritten while it looks, unless a required slot keeps it: so a record is copied first,
 * then the copy is verified, and only copies are handed out.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define QUIESCE_STEP_NS 50000
#define QUIESCE_STEPS 40000u /* two seconds */
#define MEMBARRIER_MISSING_NS 10000000
#define POLL_MS 10u /* where control may not be written, nobody would wake us */

struct pml_tail {
    struct pml_pool pool; /* only its files and mappings are in use */
    struct pml_chain chain;
    struct pml_copy copy; /* what was handed out last */
    bool writable;
};

int pml_tail_close(struct pml_tail *tail) {
    if (!tail) return PML_OK;
    pml_medium_close(&tail->pool, false);
    free(tail->pool.copy.data);
    free(tail->copy.data);
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
    if (PML_BROKEN(TAIL_BEYOND_DURABLE)) return UINT64_MAX;
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

static const char *ring_at(const struct pml_tail *tail) {
    return tail->pool.ring + tail->chain.lsn % tail->pool.ring_bytes;
}

/* The record at a place of the chain, behind `at` bytes of the copy. */
static int copy_at(struct pml_tail *tail, const struct pml_chain *chain, size_t at,
                   const struct pml_record **out, int *end) {
    const struct pml_pool *pool = &tail->pool;
    int st = pml_log_copy(pool->ring, pool->ring_bytes, pool->salt, chain, &tail->copy, at, end);
    if (st == PML_OK && *end < 0) *out = (const struct pml_record *)(void *)(tail->copy.data + at);
    return st;
}

int pml_tail_seek(struct pml_tail *tail, uint64_t lsn) {
    struct pml_pool *pool = &tail->pool;
    int st = seek_mark(tail), end;
    if (st != PML_OK || !lsn || lsn == tail->chain.lsn) return st;
    /* A sound record says itself what it continues. */
    struct pml_record header;
    const struct pml_record *record;
    memcpy(&header, pool->ring + lsn % pool->ring_bytes, sizeof header);
    struct pml_chain before = {lsn, header.txn - 1, header.session, header.epoch,
                               header.checksum_prev};
    if (lsn < end_of_log(tail)) {
        st = copy_at(tail, &before, 0, &record, &end);
        if (st != PML_OK) return st;
        if (end < 0) {
            tail->chain = before;
            return PML_OK;
        }
    }
    while (tail->chain.lsn < lsn) {
        st = copy_at(tail, &tail->chain, 0, &record, &end);
        if (st != PML_OK) return st;
        if (end >= 0) break;
        pml_chain_advance(&tail->chain, record);
    }
    if (tail->chain.lsn == lsn) return PML_OK;
    pml_detail_new(PML_E_GAP)->lsn = lsn;
    return pml_fail(PML_E_GAP, "no record begins at LSN %llu, or the ring has lost it",
                    (unsigned long long)lsn);
}

/* Copies the next record behind `at` bytes of the copy, and goes behind it. */
static int next_at(struct pml_tail *tail, size_t at, const struct pml_record **out) {
    struct pml_pool *pool = &tail->pool;
    uint64_t last = end_of_log(tail);
    int end;
    if (tail->chain.lsn >= last) return PML_E_MISSING;
    int st = copy_at(tail, &tail->chain, at, out, &end);
    if (st != PML_OK) return st;
    if (end >= 0) {
        if (!pool->live) return PML_E_MISSING;
        atomic_thread_fence(memory_order_acquire);
        if (__atomic_load_n(&pool->control->lsn_checkpoint, __ATOMIC_ACQUIRE) > tail->chain.lsn)
            return pml_fail(PML_E_GAP, "the ring no longer holds LSN %llu",
                            (unsigned long long)tail->chain.lsn);
        return pml_fail_corrupt(
            "log", tail->chain.lsn, PML_RING_OFFSET + tail->chain.lsn % pool->ring_bytes, last,
            tail->chain.lsn, "the log breaks at LSN %llu", (unsigned long long)tail->chain.lsn);
    }
    pml_chain_advance(&tail->chain, *out);
    return PML_OK;
}

int pml_tail_next(struct pml_tail *tail, struct pml_tail_record *out) {
    int st = next_at(tail, 0, &out->record);
    if (st == PML_OK) out->lsn_next = tail->chain.lsn;
    return st;
}

int pml_tail_run(struct pml_tail *tail, uint64_t max, const char **data, uint64_t *size) {
    const struct pml_record *record;
    *size = 0;
    while (*size < max) {
        /* Only a hint how long the next one is: it spares copying what does not fit. */
        uint64_t length = 0;
        if (*size) memcpy(&length, ring_at(tail) + offsetof(struct pml_record, length), 8);
        if (length && *size + length > max) break;
        int st = next_at(tail, *size, &record);
        if (st != PML_OK && !*size) return st;
        if (st != PML_OK) break; /* said again by the next call */
        *size += record->length;
    }
    *data = tail->copy.data;
    return PML_OK;
}

/* The sleeper samples wake, then looks for records, then raises waiters, and only then sleeps; the
 * writer stores the end, then changes wake, then looks at waiters.  Whichever comes first, either
 * the sleeper sees the end or the kernel sees that wake has changed. */
int pml_tail_wait_beyond(struct pml_tail *tail, uint64_t lsn, uint64_t timeout_ms) {
    struct pml_control *control = tail->pool.control;
    if (!control) {
        struct timespec pause = {0, POLL_MS * 1000000};
        nanosleep(&pause, NULL);
        return PML_E_TIMEOUT;
    }
    uint32_t seen = __atomic_load_n(&control->wake, __ATOMIC_SEQ_CST);
    if (lsn < __atomic_load_n(&control->lsn_durable, __ATOMIC_SEQ_CST)) return PML_OK;
    if (tail->writable)
        __atomic_store_n(&control->waiters, 1, __ATOMIC_SEQ_CST);
    else
        timeout_ms = pml_min64(timeout_ms, POLL_MS);
    pml_futex_wait((const _Atomic uint32_t *)&control->wake, seen, timeout_ms);
    return lsn < __atomic_load_n(&control->lsn_durable, __ATOMIC_SEQ_CST) ? PML_OK : PML_E_TIMEOUT;
}

int pml_tail_wait(struct pml_tail *tail, uint64_t timeout_ms) {
    end_of_log(tail); /* has a writer come? */
    return pml_tail_wait_beyond(tail, tail->chain.lsn, timeout_ms);
}

int pml_tail_mark(struct pml_tail *tail, struct pml_mark *out) {
    int count;
    return pml_read_marks(&tail->pool, out, &count);
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

int pml_tail_identity(struct pml_tail *tail, struct pml_identity *out) {
    const struct pml_image_header *header = &tail->pool.header;
    *out = (struct pml_identity){.created_ns = header->created_ns,
                                 .ring_bytes = header->ring_bytes,
                                 .hash_seed = {header->hash_seed[0], header->hash_seed[1]}};
    memcpy(out->pool_id, header->pool_id, sizeof out->pool_id);
    return PML_OK;
}

/* ---- what a shipper tells the writer ---- */

static int may_tell(struct pml_tail *tail) {
    return tail->writable ? PML_OK : pml_fail(PML_E_READ_ONLY, "control may not be written");
}

static void wake_writers(struct pml_control *control) {
    __atomic_fetch_add(&control->level_wake, 1, __ATOMIC_SEQ_CST);
    pml_futex_wake((_Atomic uint32_t *)&control->level_wake);
}

/* Levels never fall while this writer's session lasts: what was said stays true. */
int pml_tail_publish(struct pml_tail *tail, const uint64_t lsn_level[3],
                     const struct pml_bound *bound) {
    int st = may_tell(tail);
    if (st != PML_OK) return st;
    struct pml_control *control = tail->pool.control;
    for (int i = 0; i < 3; i++)
        if (lsn_level[i] > control->lsn_level[i])
            __atomic_store_n(&control->lsn_level[i], lsn_level[i], __ATOMIC_SEQ_CST);
    __atomic_store_n(&control->delay_ns, bound->delay_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&control->backlog_limit_bytes, bound->backlog_limit_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&control->lsn_limit, bound->lsn_limit, __ATOMIC_SEQ_CST);
    __atomic_store_n(&control->shipper_beat_ns, pml_monotonic_ns(), __ATOMIC_RELAXED);
    wake_writers(control);
    return PML_OK;
}

uint64_t pml_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t shipper_age_ns(const struct pml_control *control) {
    uint64_t beat_ns = __atomic_load_n(&control->shipper_beat_ns, __ATOMIC_RELAXED);
    uint64_t now_ns = pml_monotonic_ns();
    /* A beat of an earlier boot may lie in the future. */
    return beat_ns && beat_ns <= now_ns ? now_ns - beat_ns : UINT64_MAX;
}

bool pml_shipper_lives(const struct pml_control *control) {
    return shipper_age_ns(control) < PML_SHIPPER_SILENCE_MS * 1000000ull;
}

int pml_shipper_age(struct pml_pool *pool, uint64_t *age_ns) {
    int st = pml_alive(pool);
    if (st != PML_OK) return st;
    *age_ns = pool->control ? shipper_age_ns(pool->control) : UINT64_MAX;
    return PML_OK;
}

/* After this no commit gets past its look at `frozen`, and those that had are over: lsn_durable is
 * the last LSN.  A writer that was killed in its commit has lost its lock. */
static int quiesce(struct pml_tail *tail) {
    struct timespec pause = {0, QUIESCE_STEP_NS};
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) {
        struct timespec settle = {
            0, MEMBARRIER_MISSING_NS}; /* far longer than any store buffer holds */
        nanosleep(&settle, NULL);
    }
    for (uint32_t step = 0; step < QUIESCE_STEPS; step++) {
        if (!__atomic_load_n(&tail->pool.control->committing, __ATOMIC_ACQUIRE)) return PML_OK;
        if (step % 64 == 63 && pml_lock_is_free(&tail->pool)) return PML_OK;
        nanosleep(&pause, NULL);
    }
    return pml_fail(PML_E_TIMEOUT, "a commit has not ended since the pool was frozen");
}

int pml_tail_freeze(struct pml_tail *tail, uint32_t frozen, uint32_t fenced_epoch) {
    int st = may_tell(tail);
    if (st != PML_OK) return st;
    if (frozen > PML_FROZEN_FENCED) return pml_fail(PML_E_ARGUMENT, "there is no such state");
    struct pml_control *control = tail->pool.control;
    __atomic_store_n(&control->fenced_epoch, fenced_epoch, __ATOMIC_SEQ_CST);
    __atomic_store_n(&control->frozen, frozen, __ATOMIC_SEQ_CST);
    wake_writers(control);
    return frozen ? quiesce(tail) : PML_OK;
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
    if (!PML_BROKEN(ACK_UNCHECKED) && (lsn < s->lsn_acked || lsn > end_of_log(tail)))
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
