/*
 * A recording op table: every store, flush and drain of a pool, in order, for tests of users
 * (pmlog.testing) who want to see what a power cut would leave of their own program.
 *
 * The table stands in front of the one that the domain chose and passes every call on, so a pool
 * that is not recorded pays nothing for it.  A recorded pool has no background thread: the same
 * program leaves the same tape.
 *
 * A tape may also make faults: the n-th drain of a file fails, from the n-th growth on there is no
 * room.
 *
 * Invariants:
 *   1  an event is on the tape before the store, flush or drain behind it is begun, so that a prefix
 *      of the tape is what had happened at some moment
 *   2  a drain that failed is not on the tape: it made nothing durable
 *   3  the tape outlives the pools that are recorded on it; the caller sees to that
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct pml_tape {
    pthread_mutex_t mutex; /* a commit and a sync may record at once */
    struct pml_tape_event *events;
    size_t count, capacity;
    char *bytes;
    size_t byte_count, byte_capacity;
    uint64_t file_bytes; /* of the image: greatest so far */
    bool records;
    bool incomplete;         /* memory ran out */
    uint64_t drains_left[2]; /* until one fails: log, image; 0: none does */
    uint64_t growths_left;
    int os_errno;
};

static _Thread_local struct pml_tape *current;

int pml_tape_new(int records, struct pml_tape **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return pml_fail(PML_E_MEMORY, "no memory for a tape");
    pthread_mutex_init(&(*out)->mutex, NULL);
    (*out)->records = records != 0;
    return PML_OK;
}

void pml_tape_free(struct pml_tape *tape) {
    if (!tape) return;
    if (current == tape) current = NULL;
    pthread_mutex_destroy(&tape->mutex);
    free(tape->events);
    free(tape->bytes);
    free(tape);
}

void pml_tape_use(struct pml_tape *tape) { current = tape; }

void pml_tape_fail(struct pml_tape *tape, uint32_t file, uint64_t number, int os_errno) {
    pthread_mutex_lock(&tape->mutex);
    tape->drains_left[file == PML_TAPE_LOG ? 0 : 1] = number;
    tape->os_errno = os_errno;
    pthread_mutex_unlock(&tape->mutex);
}

void pml_tape_no_room(struct pml_tape *tape, uint64_t number) {
    pthread_mutex_lock(&tape->mutex);
    tape->growths_left = number;
    pthread_mutex_unlock(&tape->mutex);
}

int64_t pml_tape_count(struct pml_tape *tape) {
    pthread_mutex_lock(&tape->mutex);
    int64_t count = tape->incomplete ? PML_E_MEMORY : (int64_t)tape->count;
    pthread_mutex_unlock(&tape->mutex);
    return count;
}

const struct pml_tape_event *pml_tape_event(struct pml_tape *tape, uint64_t number) {
    return &tape->events[number];
}

const char *pml_tape_bytes(struct pml_tape *tape, uint64_t at) { return tape->bytes + at; }

/* ---- recording ---- */

static bool make_room(void **array, size_t *capacity, size_t needed, size_t unit) {
    if (needed <= *capacity) return true;
    size_t wanted = 2 * needed + 64;
    void *bigger = realloc(*array, wanted * unit);
    if (!bigger) return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

static void add(struct pml_tape *tape, const struct pml_pool *pool, uint32_t kind, uint32_t file,
                uint64_t offset, const void *bytes, uint64_t length) {
    if (!tape->records || tape->incomplete) return;
    size_t size = kind == PML_TAPE_STORE ? length : 0;
    if (!make_room((void **)&tape->events, &tape->capacity, tape->count + 1,
                   sizeof *tape->events) ||
        !make_room((void **)&tape->bytes, &tape->byte_capacity, tape->byte_count + size, 1)) {
        tape->incomplete = true;
        return;
    }
    tape->file_bytes = pml_max64(tape->file_bytes, pool->file_bytes);
    tape->events[tape->count++] = (struct pml_tape_event){.kind = kind,
                                                          .file = file,
                                                          .offset = offset,
                                                          .length = length,
                                                          .image_bytes = tape->file_bytes,
                                                          .at = tape->byte_count};
    if (size) memcpy(tape->bytes + tape->byte_count, bytes, size);
    tape->byte_count += size;
}

/* In the file, not in the mapping: the ring is mapped twice in a row, so a range may be two. */
static void add_range(struct pml_persist *p, uint32_t kind, const void *at, const void *bytes,
                      uint64_t length) {
    const struct pml_pool *pool = p->pool;
    struct pml_tape *tape = p->tape;
    const char *place = at;
    if (!length) return;
    pthread_mutex_lock(&tape->mutex);
    if (p == &pool->log) {
        uint64_t offset = (uint64_t)(place - pool->ring) % pool->ring_bytes;
        uint64_t first = pml_min64(length, pool->ring_bytes - offset);
        add(tape, pool, kind, PML_TAPE_LOG, PML_RING_OFFSET + offset, bytes, first);
        if (length > first)
            add(tape, pool, kind, PML_TAPE_LOG, PML_RING_OFFSET,
                bytes ? (const char *)bytes + first : NULL, length - first);
    } else if (place >= pool->shared.base && place < pool->shared.base + pool->shared.mapped) {
        add(tape, pool, kind, PML_TAPE_IMAGE, (uint64_t)(place - pool->shared.base), bytes, length);
    } else {
        add(tape, pool, kind, PML_TAPE_SUMS, (uint64_t)(place - pool->sums.base), bytes, length);
    }
    pthread_mutex_unlock(&tape->mutex);
}

static void tape_copy(struct pml_persist *p, void *dst, const void *src, size_t size) {
    add_range(p, PML_TAPE_STORE, dst, src, size);
    p->below->copy(p, dst, src, size);
}

static void tape_set(struct pml_persist *p, void *dst, int byte, size_t size) {
    p->below->set(p, dst, byte, size);
    add_range(p, PML_TAPE_STORE, dst, dst, size);
}

static void tape_flush(struct pml_persist *p, const void *at, size_t size) {
    add_range(p, PML_TAPE_FLUSH, at, NULL, size);
    p->below->flush(p, at, size);
}

static bool falls_due(uint64_t *left) { return *left && --*left == 0; }

static int tape_drain(struct pml_persist *p) {
    struct pml_tape *tape = p->tape;
    bool log = p == &p->pool->log;
    pthread_mutex_lock(&tape->mutex);
    int error = falls_due(&tape->drains_left[!log]) ? tape->os_errno : 0;
    pthread_mutex_unlock(&tape->mutex);
    if (!error) error = p->below->drain(p);
    if (error) return error;
    pthread_mutex_lock(&tape->mutex);
    add(tape, p->pool, PML_TAPE_DRAIN, log ? PML_TAPE_LOG : PML_TAPE_IMAGE, 0, NULL, 0);
    pthread_mutex_unlock(&tape->mutex);
    return 0;
}

static const struct pml_ops tape_ops = {tape_copy, tape_set, tape_flush, tape_drain};

void pml_tape_attach(struct pml_pool *pool) {
    if (PML_LIKELY(!current) || pool->read_only || pool->has_pmemobj) return;
    struct pml_persist *const both[2] = {&pool->log, &pool->store};
    for (int i = 0; i < 2; i++) {
        both[i]->tape = current;
        both[i]->pool = pool;
        both[i]->below = both[i]->ops;
        both[i]->ops = &tape_ops;
    }
    pool->flags |= PML_OPEN_NO_THREAD;
}

/* Before the image's file grows: may it? */
int pml_tape_room(struct pml_pool *pool) {
    struct pml_tape *tape = pool->store.tape;
    if (PML_LIKELY(!tape)) return PML_OK;
    pthread_mutex_lock(&tape->mutex);
    bool full = tape->growths_left == 1; /* and stays so: the engine asks again for less */
    if (tape->growths_left > 1) tape->growths_left--;
    pthread_mutex_unlock(&tape->mutex);
    return full ? pml_fail_errno(PML_E_MEDIUM, ENOSPC, "cannot reserve room for image") : PML_OK;
}

/* Behind it, where the new size has been synced. */
void pml_tape_grown(struct pml_pool *pool) {
    struct pml_tape *tape = pool->store.tape;
    if (PML_LIKELY(!tape)) return;
    pthread_mutex_lock(&tape->mutex);
    add(tape, pool, PML_TAPE_GROWN, PML_TAPE_IMAGE, 0, NULL, 0);
    pthread_mutex_unlock(&tape->mutex);
}
