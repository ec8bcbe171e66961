/*
 * The log ring: appending one record a transaction, and following the chain of valid ones.
 *
 * A record is valid when its checksum, seeded with its predecessor's, covers it; when its LSN is
 * its place; and when epoch, session and transaction number continue the predecessor's.  So it does
 * not matter in which order a record's bytes reach the medium, and one drain is enough.
 *
 * Crash while a record is appended, case by case:
 *   nothing written       the ring holds an older lap there: its LSN is not its place (STALE)
 *   part written          the checksum fails (TORN)
 *   all written, drained  valid: committed
 *   all written, not drained, power cut: either of the above; the caller was not answered yet
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/* ---- following ---- */

/* The pool's secret goes into every checksum: bytes of a value that look like a record, wherever
 * they come to stand in the ring, do not pass for one. */
uint32_t pml_log_salt(const struct pml_image_header *header) {
    return pml_crc32c(0, header->hash_seed, sizeof header->hash_seed);
}

uint32_t pml_record_sum(const struct pml_record *record, uint64_t length, uint32_t salt) {
    return pml_crc32c(record->checksum_prev ^ salt,
                      (const char *)record + offsetof(struct pml_record, lsn),
                      length - offsetof(struct pml_record, lsn));
}

static bool length_plausible(uint64_t length, uint64_t ring_bytes) {
    return length >= PML_LINE && length % PML_LINE == 0 && length <= ring_bytes;
}

/* Loaded once: in a live ring a second look may find another length than the one that was judged. */
static uint64_t length_of(const struct pml_record *record) {
    return __atomic_load_n(&record->length, __ATOMIC_RELAXED);
}

static bool continues(const struct pml_chain *chain, uint32_t epoch, uint64_t session) {
    if (PML_BROKEN(RECORD_EPOCH_UNCHECKED) && epoch < chain->epoch) return true;
    if (PML_BROKEN(RECORD_SESSION_UNCHECKED) && epoch == chain->epoch) return true;
    return epoch > chain->epoch || (epoch == chain->epoch && session >= chain->session);
}

int pml_log_judge(const struct pml_record *record, uint64_t ring_bytes, uint32_t salt,
                  const struct pml_chain *chain) {
    if (record->magic != PML_MAGIC_RECORD) return PML_END_NOTHING;
    uint64_t length = length_of(record);
    if (record->lsn != chain->lsn && !PML_BROKEN(RECORD_LSN_UNCHECKED)) {
        /* Bytes of some value may look like a header: a later lap is believed when it checks out. */
        bool later = record->lsn > chain->lsn &&
                     record->lsn % ring_bytes == chain->lsn % ring_bytes &&
                     length_plausible(length, ring_bytes) &&
                     pml_record_sum(record, length, salt) == record->checksum;
        return later ? PML_END_LATER_LAP : PML_END_STALE;
    }
    if (!length_plausible(length, ring_bytes) ||
        (pml_record_sum(record, length, salt) != record->checksum &&
         !PML_BROKEN(RECORD_SUM_UNCHECKED)))
        return PML_END_TORN;
    if ((record->checksum_prev != chain->checksum && !PML_BROKEN(RECORD_PREV_UNCHECKED)) ||
        (record->txn != chain->txn + 1 && !PML_BROKEN(RECORD_TXN_UNCHECKED)) ||
        !continues(chain, record->epoch, record->session))
        return PML_END_STALE;
    return -1;
}

int pml_log_peek(const char *ring, uint64_t ring_bytes, uint32_t salt,
                 const struct pml_chain *chain, const struct pml_record **out) {
    *out = (const struct pml_record *)(const void *)(ring + chain->lsn % ring_bytes);
    return pml_log_judge(*out, ring_bytes, salt, chain);
}

int pml_log_copy(const char *ring, uint64_t ring_bytes, uint32_t salt,
                 const struct pml_chain *chain, struct pml_copy *copy, size_t at, int *end) {
    const struct pml_record *from =
        (const struct pml_record *)(const void *)(ring + chain->lsn % ring_bytes);
    struct pml_record header;
    memcpy(&header, from, sizeof header);
    uint64_t length = header.length = length_of(from);
    if (header.magic != PML_MAGIC_RECORD || !length_plausible(length, ring_bytes)) {
        *end = pml_log_judge(&header, ring_bytes, salt, chain); /* looks at the header only */
        return PML_OK;
    }
    if (at + length > copy->capacity) {
        char *bigger = realloc(copy->data, at + length);
        if (!bigger) return pml_fail(PML_E_MEMORY, "no memory for a record");
        copy->data = bigger;
        copy->capacity = at + length;
    }
    memcpy(copy->data + at, from, length);
    struct pml_record *record = (struct pml_record *)(void *)(copy->data + at);
    record->length = length; /* no more is there, whatever the ring says by now */
    *end = pml_log_judge(record, ring_bytes, salt, chain);
    return PML_OK;
}

void pml_chain_advance(struct pml_chain *chain, const struct pml_record *record) {
    chain->lsn = record->lsn + record->length;
    chain->txn = record->txn;
    chain->session = record->session;
    chain->epoch = record->epoch;
    chain->checksum = record->checksum;
}

/* Every record says what was durable when it was appended.  A sound record behind the break, of
 * the same or a later session, thus proves that the break is no crash's.  Records that an earlier
 * session left there prove nothing: the recovery that began this session has accepted their loss. */
uint64_t pml_log_hint(const char *ring, uint64_t ring_bytes, uint32_t salt,
                      const struct pml_chain *chain) {
    uint64_t hint = 0;
    if (PML_BROKEN(HINT_IGNORED)) return hint;
    for (uint64_t lsn = chain->lsn; lsn < chain->lsn + ring_bytes;) {
        const struct pml_record *record =
            (const struct pml_record *)(const void *)(ring + lsn % ring_bytes);
        uint64_t length = length_of(record);
        bool sound = record->magic == PML_MAGIC_RECORD && record->lsn > chain->lsn &&
                     record->lsn % ring_bytes == lsn % ring_bytes &&
                     length_plausible(length, ring_bytes) &&
                     continues(chain, record->epoch, record->session) &&
                     pml_record_sum(record, length, salt) == record->checksum;
        if (sound) hint = pml_max64(hint, record->lsn_durable);
        lsn += sound ? length : PML_LINE;
    }
    return hint;
}

/* The checksum holds, so that wrong ranges are our bug or an attacker's work: never applied. */
int pml_record_ranges_valid(const struct pml_record *record, uint64_t image_bytes,
                            uint64_t *image_bytes_after) {
    const char *at = (const char *)(record + 1);
    const char *end = (const char *)record + record->length;
    for (uint32_t i = 0; i < record->range_count; i++) {
        if ((size_t)(end - at) < sizeof(struct pml_range)) return PML_E_CORRUPT;
        const struct pml_range *range = (const struct pml_range *)(const void *)at;
        uint64_t length = PML_RANGE_LENGTH(range->length);
        uint32_t kind = PML_RANGE_KIND(range->length);
        at += sizeof *range;
        if (kind == PML_RANGE_GROW) {
            if (length || range->offset > PML_MAX_IMAGE || range->offset % 65536)
                return PML_E_CORRUPT;
            image_bytes = pml_max64(image_bytes, range->offset);
            continue;
        }
        if (kind != PML_RANGE_DATA && kind != PML_RANGE_ZERO) return PML_E_CORRUPT;
        if (range->offset < PML_BODY_OFFSET || length > image_bytes ||
            range->offset > image_bytes - length)
            return PML_E_CORRUPT;
        if (kind == PML_RANGE_DATA) {
            if ((uint64_t)(end - at) < length) return PML_E_CORRUPT;
            at += pml_min64((length + 7) & ~7ull, (uint64_t)(end - at));
        }
    }
    *image_bytes_after = image_bytes;
    return PML_OK;
}

/* ---- appending ---- */

uint64_t pml_log_reclaim(struct pml_pool *pool, bool required_only) {
    uint64_t reclaim = atomic_load(&pool->lsn_checkpoint);
    if (PML_BROKEN(SLOTS_IGNORED)) return reclaim;
    for (int i = 0; i < PML_SLOTS; i++) {
        const struct pml_slot *slot = &pool->control->slots[i];
        if (!slot->name[0]) continue;
        if (required_only && !(slot->flags & PML_SLOT_REQUIRED)) continue;
        uint64_t acked = __atomic_load_n(&slot->lsn_acked, __ATOMIC_ACQUIRE);
        /* What the ring has lost already cannot be pinned any more (a slot from before a crash). */
        if (acked + pool->ring_bytes >= pool->lsn_tail) reclaim = pml_min64(reclaim, acked);
    }
    return reclaim;
}

static bool fits(struct pml_pool *pool, uint64_t bytes, bool required_only) {
    pool->ring_limit = pml_log_reclaim(pool, required_only) + pool->ring_bytes;
    return pool->lsn_tail + bytes <= pool->ring_limit;
}

/* Invariant 3: space below an LSN is used again only when the image has it, and so does every
 * consumer that is required.  Other consumers are passed over last, when nothing else gives room:
 * they lose their place, and find out because the checkpoint is beyond it, which is stored before
 * the first byte there changes. */
int pml_log_space(struct pml_pool *pool, uint64_t bytes) {
    if (PML_LIKELY(pool->lsn_tail + bytes <= pool->ring_limit) || fits(pool, bytes, false))
        return PML_OK;
    int st = pml_log_sync(pool, pool->lsn_tail);
    if (st == PML_OK) {
        pthread_mutex_lock(&pool->checkpoint_mutex);
        st = pml_checkpoint_locked(pool, atomic_load(&pool->lsn_durable), false);
        pthread_mutex_unlock(&pool->checkpoint_mutex);
    }
    if (st != PML_OK) return st;
    if (fits(pool, bytes, false) || fits(pool, bytes, true)) return PML_OK;
    return pml_fail(
        PML_E_LOG_FULL,
        "a required consumer holds the log back: it has acknowledged LSN %llu, the log ends at "
        "%llu and holds %llu bytes",
        (unsigned long long)pml_log_reclaim(pool, true), (unsigned long long)pool->lsn_tail,
        (unsigned long long)pool->ring_bytes);
}

void pml_log_publish(struct pml_pool *pool, uint64_t lsn, uint64_t txn) {
    struct pml_control *control = pool->control;
    atomic_store_explicit(&pool->lsn_durable, lsn, memory_order_release);
    __atomic_store_n(&control->txn_durable, txn, __ATOMIC_RELAXED);
    __atomic_store_n(&control->lsn_durable, lsn, __ATOMIC_RELEASE);
    /* A full barrier between the new end and the look at the sleepers: a reader that goes to sleep
     * without having seen the end has raised `waiters` before the kernel compares `wake`.  Clearing
     * the word here rather than there means that a reader killed in its sleep costs one call. */
    __atomic_fetch_add(&control->wake, 1, __ATOMIC_SEQ_CST);
    if (PML_UNLIKELY(__atomic_load_n(&control->waiters, __ATOMIC_SEQ_CST))) {
        __atomic_store_n(&control->waiters, 0, __ATOMIC_SEQ_CST);
        /* Again: somebody may have sampled the first change, found nothing and raised the word that
         * was just cleared; he must not fall asleep. */
        __atomic_fetch_add(&control->wake, 1, __ATOMIC_SEQ_CST);
        pml_futex_wake((_Atomic uint32_t *)&control->wake);
    }
}

struct stage { /* gathers small pieces on their way into the ring */
    struct pml_pool *pool;
    char *at;    /* next byte in the ring */
    size_t held; /* bytes gathered in pool->stage */
    uint32_t sum;
};

static void stage_flush(struct stage *s) {
    if (!s->held) return;
    s->sum = pml_crc32c(s->sum, s->pool->stage, s->held);
    pml_put(&s->pool->log, s->at, s->pool->stage, s->held);
    s->at += s->held;
    s->held = 0;
}

static inline void stage_put(struct stage *s, const void *data, size_t size) {
    if (PML_LIKELY(size <= PML_STAGE_BYTES - s->held)) {
        memcpy(s->pool->stage + s->held, data, size);
        s->held += size;
        return;
    }
    stage_flush(s);
    if (size <= PML_STAGE_BYTES) {
        memcpy(s->pool->stage, data, size);
        s->held = size;
        return;
    }
    s->sum = pml_crc32c(s->sum, data, size);
    pml_put(&s->pool->log, s->at, data, size);
    s->at += size;
}

static uint64_t record_length(const struct pml_note *notes, size_t count) {
    uint64_t length = sizeof(struct pml_record);
    for (size_t i = 0; i < count; i++) {
        length += sizeof(struct pml_range);
        if (PML_RANGE_KIND(notes[i].length) == PML_RANGE_DATA)
            length += (PML_RANGE_LENGTH(notes[i].length) + 7) & ~7ull;
    }
    return pml_round_up(length, PML_LINE);
}

/* The ring keeps nothing of the record until here: a failure before the first copy changes nothing.
 * After it only the drain can fail, and then the handle is poisoned. */
int pml_log_append(struct pml_pool *pool, const struct pml_note *notes, size_t count,
                   uint32_t kind) {
    static const char zeros[PML_LINE];
    uint64_t length = record_length(notes, count);
    if (PML_UNLIKELY(length > pool->record_max))
        return pml_fail(PML_E_TOO_LARGE,
                        "the transaction takes %llu bytes of log, %llu are allowed",
                        (unsigned long long)length, (unsigned long long)pool->record_max);
    int st = pml_log_space(pool, length);
    if (PML_UNLIKELY(st != PML_OK)) return st;

    char *start = pool->ring + pool->lsn_tail % pool->ring_bytes;
    bool drained = pool->domain != PML_DOMAIN_PAGE;
    struct pml_record header = {
        .magic = PML_MAGIC_RECORD,
        .lsn = pool->lsn_tail,
        .length = length,
        .txn = pool->txn + 1,
        .lsn_durable = drained ? pool->lsn_tail
                               : atomic_load_explicit(&pool->lsn_durable, memory_order_relaxed),
        .session = pool->session,
        .epoch = pool->epoch,
        .checksum_prev = pool->chain,
        .range_count = (uint32_t)count,
        .kind = kind,
    };
    struct stage s = {.pool = pool, .at = start + sizeof header, .sum = pool->chain ^ pool->salt};
    s.sum = pml_crc32c(s.sum, &header.lsn, sizeof header - offsetof(struct pml_record, lsn));
    uint64_t written = sizeof header;
    for (size_t i = 0; i < count; i++) {
        struct pml_range range = {notes[i].offset, notes[i].length};
        stage_put(&s, &range, sizeof range);
        written += sizeof range;
        if (PML_RANGE_KIND(range.length) != PML_RANGE_DATA) continue;
        uint64_t size = PML_RANGE_LENGTH(range.length), padding = -size & 7;
        stage_put(&s, pool->image + range.offset, size);
        stage_put(&s, zeros, padding);
        written += size + padding;
    }
    stage_put(&s, zeros, length - written);
    stage_flush(&s);
    header.checksum = s.sum;
    pml_put(&pool->log, start, &header, sizeof header);
    pool->log.ops->flush(&pool->log, start, length);
    if (PML_BROKEN(PUBLISH_BEFORE_DRAIN))
        pml_log_publish(pool, pool->lsn_tail + length, pool->txn + 1);
    if (drained) {
        int error = pool->log.ops->drain(&pool->log);
        if (PML_UNLIKELY(error))
            return pml_poison(pool, pml_fail_io(error, "cannot drain the log"));
    }
    if (!PML_BROKEN(CHAIN_NOT_ADVANCED)) pool->chain = header.checksum;
    pool->txn++;
    pool->commits++;
    if (drained) {
        pool->lsn_tail += length;
        pml_log_publish(pool, pool->lsn_tail, pool->txn);
    } else {
        pthread_mutex_lock(&pool->sync_mutex);
        pool->lsn_tail += length;
        pool->lsn_appended = pool->lsn_tail;
        pool->txn_appended = pool->txn;
        pthread_mutex_unlock(&pool->sync_mutex);
    }
    if (drained) pml_checkpoint_nudge(pool, pool->lsn_tail);
    return PML_OK;
}

/* Group commit: whoever comes first syncs for all that is appended by then; the others wait for it
 * and find their record covered, or become the next leader.  (In the other domains every append is
 * durable already.) */
int pml_log_sync(struct pml_pool *pool, uint64_t lsn) {
    if (pool->domain != PML_DOMAIN_PAGE || atomic_load(&pool->lsn_durable) >= lsn) return PML_OK;
    int st = PML_OK;
    pthread_mutex_lock(&pool->sync_mutex);
    while (st == PML_OK && atomic_load(&pool->lsn_durable) < lsn) {
        int poison = atomic_load(&pool->poison);
        if (pool->closed) {
            st = pml_fail(PML_E_CLOSED, "the pool was let go before this commit was synced");
        } else if (poison) {
            st = pml_fail(poison, "the sync that was to cover this commit failed");
        } else if (pool->syncing) {
            pthread_cond_wait(&pool->sync_done, &pool->sync_mutex);
        } else {
            pool->syncing = true;
            uint64_t target = pool->lsn_appended, txn = pool->txn_appended;
            pthread_mutex_unlock(&pool->sync_mutex);
            if (PML_BROKEN(SYNC_AFTER_PUBLISH)) pml_log_publish(pool, target, txn);
            int error = pool->log.ops->drain(&pool->log);
            if (error) st = pml_poison(pool, pml_fail_io(error, "cannot sync the log"));
            pthread_mutex_lock(&pool->sync_mutex);
            if (!error) pml_log_publish(pool, target, txn);
            pool->syncing = false;
            pthread_cond_broadcast(&pool->sync_done);
        }
    }
    pthread_mutex_unlock(&pool->sync_mutex);
    if (st == PML_OK) pml_checkpoint_nudge(pool, lsn);
    return st;
}
