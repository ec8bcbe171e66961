/*
 * What holds writers up, and what must not: slots, the backlog's bound, a stop, and a ring that
 * changes under its reader.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "harness.h"

#define RING (256 * KIB)
#define REGION (200 * KIB)
#define BLOCK 20000u

struct opened {
    struct pml_pool *pool;
    struct pml_container *region;
    const char *path;
};

static struct opened open_pool(const char *name) {
    struct opened o = {.path = scratch_path(name)};
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    CHECK_OK(pml_open(o.path, &options, &o.pool));
    CHECK_OK(pml_container_open(o.pool, "r", 1, PML_TYPE_REGION, REGION, NULL, 0, &o.region));
    return o;
}

static void let_go(struct opened *o, bool clean) {
    pml_container_free(o->region);
    CHECK_OK(clean ? pml_close(o->pool) : pml_abandon(o->pool));
    pml_free(o->pool);
    check_closed_pool(o->path);
}

static uint64_t tail_of(struct pml_pool *pool) {
    struct pml_position position;
    CHECK_OK(pml_position(pool, &position));
    return position.lsn;
}

/* ---- a ring that changes under its reader ---- */

static struct pml_record *live; /* its length flips all the time */
static _Atomic bool flipping;

static void *flip_length(void *unused) {
    (void)unused;
    while (atomic_load_explicit(&flipping, memory_order_relaxed)) {
        __atomic_store_n(&live->length, 1ull << 40, __ATOMIC_RELAXED);
        __atomic_store_n(&live->length, 256, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* A length that changes between two looks at it leads nobody beyond the ring's mapping, which ends
 * at a page that nobody may touch. */
static void a_flipped_length_is_judged_once(void) {
    char *map =
        mmap(NULL, 2 * RING + PML_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED && !mprotect(map + 2 * RING, PML_PAGE, PROT_NONE));
    const struct pml_chain chain = {RING + 4096, 9, 3, 1, 0x55u};
    live = (struct pml_record *)(void *)(map + chain.lsn % RING);
    pthread_t thread;
    struct pml_copy copy = {0};
    for (int kind = 0; kind < 4; kind++) {
        *live = (struct pml_record){.magic = PML_MAGIC_RECORD,
                                    .lsn = chain.lsn + (kind == 1   ? RING
                                                        : kind == 2 ? 64
                                                                    : 0),
                                    .length = 256,
                                    .txn = 10,
                                    .session = 3,
                                    .epoch = 1,
                                    .checksum_prev = chain.checksum};
        if (kind == 2) live->lsn = chain.lsn + RING; /* for the hint: a later one */
        atomic_store(&flipping, true);
        CHECK(!pthread_create(&thread, NULL, flip_length, NULL));
        for (uint64_t n = test_rounds(2000000); n; n--) {
            const struct pml_record *out;
            int end;
            if (kind == 2) {
                struct pml_chain before = chain;
                before.lsn = chain.lsn - 64; /* the walk of the hint meets it */
                if (n % 1000 == 0) pml_log_hint(map, RING, 7, &before);
            } else if (kind == 3) {
                CHECK_OK(pml_log_copy(map, RING, 7, &chain, &copy, n % 2 * 256, &end));
                CHECK(end == PML_END_TORN);
            } else {
                end = pml_log_peek(map, RING, 7, &chain, &out);
                CHECK(end == (kind ? PML_END_STALE : PML_END_TORN));
            }
        }
        atomic_store(&flipping, false);
        CHECK(!pthread_join(thread, NULL));
    }
    free(copy.data);
    munmap(map, 2 * RING + PML_PAGE);
}

struct lapper {
    struct opened o;
    _Atomic bool stop;
    _Atomic uint64_t written;
};

/* Record after record, each filled by its number, with no regard for readers. */
static void *lap(void *argument) {
    struct lapper *l = argument;
    static char block[BLOCK];
    for (uint64_t n = 1; !atomic_load(&l->stop); n++) {
        uint64_t size = 64 + n * 7919 % (BLOCK - 64);
        random_fill(n, block, size);
        memcpy(block, &n, sizeof n);
        CHECK_OK(pml_bytes_write(l->o.region, 0, block, size));
        atomic_store(&l->written, n);
    }
    return NULL;
}

/* A slot that is not required keeps nobody: the ring laps over it, and what is handed out is the
 * record that was written, whole, or the news that the place is lost. */
static void only_verified_bytes_are_handed_out(void) {
    static char expected[BLOCK];
    struct lapper l = {.o = open_pool("lapped")};
    struct pml_tail *tail;
    CHECK_OK(pml_checkpoint(l.o.pool));
    CHECK_OK(pml_tail_open(l.o.path, &tail));
    CHECK(pml_slot_claim(tail, "slow", 0) >= 0);
    pthread_t thread;
    struct random random = {test_seed};
    CHECK(!pthread_create(&thread, NULL, lap, &l));
    uint64_t runs = 0, gaps = 0, records = 0;
    double start = test_now_s();
    while ((runs < test_rounds(3000) || gaps < 3) && test_now_s() - start < 60) {
        const char *data;
        uint64_t size;
        int st = pml_tail_run(tail, 1 + random_below(&random, 100000), &data, &size);
        if (st == PML_E_MISSING) continue;
        if (st != PML_OK) {
            CHECK(st == PML_E_GAP);
            gaps++;
            CHECK_OK(pml_tail_seek(tail, 0));
            continue;
        }
        runs++;
        /* Meanwhile the ring may be lapped as often as it likes. */
        if (runs % 50 == 0) {
            uint64_t before = atomic_load(&l.written);
            while (atomic_load(&l.written) < before + 40) sched_yield();
        }
        for (uint64_t at = 0; at < size;) {
            const struct pml_record *record = (const struct pml_record *)(const void *)(data + at);
            const struct pml_range *range = (const struct pml_range *)(const void *)(record + 1);
            uint64_t bytes = PML_RANGE_LENGTH(range->length), n;
            CHECK(record->length <= size - at && bytes < record->length);
            memcpy(&n, range + 1, sizeof n);
            random_fill(n, expected, bytes);
            memcpy(expected, &n, sizeof n);
            CHECK(!memcmp(range + 1, expected, bytes));
            at += record->length;
            records++;
        }
    }
    atomic_store(&l.stop, true);
    CHECK(!pthread_join(thread, NULL));
    CHECK(gaps >= 3 && records);
    printf("  %llu records in %llu runs, %llu times the place was lost, %llu were written\n",
           (unsigned long long)records, (unsigned long long)runs, (unsigned long long)gaps,
           (unsigned long long)l.written);
    CHECK_OK(pml_tail_close(tail));
    let_go(&l.o, true);
}

/* A required slot still stops the ring, whatever slots beside it do. */
static void a_required_slot_pins_beside_others(void) {
    static char block[BLOCK];
    struct opened o = open_pool("both");
    struct pml_tail *tail, *other;
    CHECK_OK(pml_checkpoint(o.pool));
    CHECK_OK(pml_tail_open(o.path, &other));
    CHECK(pml_slot_claim(other, "lost", 0) >= 0);
    for (int n = 0; n < 5; n++) CHECK_OK(pml_bytes_write(o.region, 0, block, BLOCK));
    CHECK_OK(pml_checkpoint(o.pool));
    CHECK_OK(pml_tail_open(o.path, &tail));
    int slot = pml_slot_claim(tail, "kept", PML_SLOT_REQUIRED);
    CHECK(slot >= 0);
    uint64_t kept = pml_tail_control(tail)->slots[slot].lsn_acked;
    int st = PML_OK;
    for (int n = 0; st == PML_OK && n < 100; n++) st = pml_bytes_write(o.region, 0, block, BLOCK);
    CHECK(st == PML_E_LOG_FULL && tail_of(o.pool) <= kept + RING);
    struct pml_tail_record record;
    CHECK_OK(pml_tail_next(tail, &record));
    CHECK(record.record->lsn == kept);
    CHECK_IS(pml_tail_next(other, &record), PML_E_GAP);
    CHECK_OK(pml_slot_ack(tail, slot, tail_of(o.pool)));
    CHECK_OK(pml_bytes_write(o.region, 0, block, BLOCK));
    CHECK_OK(pml_tail_close(other));
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

/* ---- the backlog's bound ---- */

static void publish(struct pml_tail *tail, uint64_t lsn_limit, uint64_t delay_ns) {
    const uint64_t none[3] = {0, 0, 0};
    const struct pml_bound bound = {
        .delay_ns = delay_ns, .lsn_limit = lsn_limit, .backlog_limit_bytes = 4096};
    CHECK_OK(pml_tail_publish(tail, none, &bound));
}

static _Atomic uint64_t refused;

static void *write_until_refused(void *argument) {
    struct opened *o = argument;
    int st = PML_OK;
    for (int n = 0; st == PML_OK && n < 1000000; n++) st = pml_bytes_write(o->region, 0, "x", 1);
    CHECK_IS(st, PML_E_BEHIND);
    atomic_fetch_add(&refused, 1);
    return NULL;
}

/* However many threads write, one record reaches beyond the limit at most; nothing changes then,
 * and a later limit lets them on. */
static void credit_is_never_overdrawn(void) {
    struct opened o = open_pool("credit");
    struct pml_tail *tail;
    pthread_t threads[4];
    CHECK_OK(pml_tail_open(o.path, &tail));
    CHECK_OK(pml_bytes_write(o.region, 0, "x", 1));
    uint64_t first = tail_of(o.pool);
    CHECK_OK(pml_bytes_write(o.region, 0, "x", 1));
    uint64_t length = tail_of(o.pool) - first, limit = first;
    for (uint64_t round = 1; round <= 3; round++) {
        limit += 50 * length + round;
        publish(tail, limit, 0);
        for (int i = 0; i < 4; i++)
            CHECK(!pthread_create(&threads[i], NULL, write_until_refused, &o));
        for (int i = 0; i < 4; i++) CHECK(!pthread_join(threads[i], NULL));
        CHECK(atomic_load(&refused) == 4 * round);
        uint64_t end = tail_of(o.pool);
        CHECK(end >= limit && end < limit + length);
        uint64_t id;
        CHECK_IS(pml_tx_begin(o.pool, &id), PML_E_BEHIND);
        CHECK(tail_of(o.pool) == end);
        publish(tail, limit, 0); /* a shipper that lives */
    }
    publish(tail, 0, 0);
    CHECK_OK(pml_bytes_write(o.region, 0, "y", 1));
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

/* Dropped containers are freed in records of their own: those respect the limit too. */
static void garbage_respects_the_limit(void) {
    struct opened o = open_pool("garbage");
    struct pml_tail *tail;
    struct pml_container *dict;
    CHECK_OK(pml_tail_open(o.path, &tail));
    CHECK_OK(pml_container_open(o.pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &dict));
    for (uint32_t n = 0; n < 500; n++)
        CHECK_OK(pml_dict_set(dict, (const char *)&n, word_of(4, PML_KIND_BYTES), "v",
                              word_of(1, PML_KIND_BYTES)));
    CHECK_OK(pml_container_drop(o.pool, "d", 1));
    uint64_t limit = tail_of(o.pool) + 1, end = 0;
    publish(tail, limit, 0);
    for (int n = 0; n < 5; n++) {
        CHECK_IS(pml_bytes_write(o.region, 0, "x", 1), PML_E_BEHIND);
        CHECK(!end || end == tail_of(o.pool)); /* one piece, then nothing */
        end = tail_of(o.pool);
        publish(tail, limit, 0);
    }
    publish(tail, 0, 0);
    for (int n = 0; n < 500; n++) CHECK_OK(pml_bytes_write(o.region, 0, "x", 1));
    check_pool(o.pool);
    pml_container_free(dict);
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

/* Nobody takes back the last word of a shipper that was killed: it ages, and writers go on. */
static void a_dead_shippers_word_does_not_count(void) {
    struct opened o = open_pool("dead");
    struct pml_tail *tail;
    CHECK_OK(pml_tail_open(o.path, &tail));
    publish(tail, tail_of(o.pool), UINT64_MAX);
    CHECK_IS(pml_bytes_write(o.region, 0, "x", 1), PML_E_BEHIND);
    struct pml_info info;
    CHECK_OK(pml_info(o.pool, &info));
    CHECK(info.lsn_limit == tail_of(o.pool) && info.backlog_limit_bytes == 4096);
    o.pool->control->shipper_beat_ns = pml_monotonic_ns() - PML_SHIPPER_SILENCE_MS * 1000000ull;
    double start = test_now_s();
    for (int n = 0; n < 100; n++) CHECK_OK(pml_bytes_write(o.region, 0, "x", 1));
    CHECK(test_now_s() - start < 4); /* each would have waited for 50 ms */
    CHECK_OK(pml_info(o.pool, &info));
    CHECK(!info.lsn_limit && !info.backlog_limit_bytes && !info.delay_ns);
    /* A writer that comes back under the same shipper finds the bound where it was. */
    publish(tail, tail_of(o.pool), 0);
    let_go(&o, false);
    o = open_pool("dead"); /* the region is there: nothing is written */
    CHECK_IS(pml_bytes_write(o.region, 0, "x", 1), PML_E_BEHIND);
    publish(tail, 0, 0);
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

struct blocked {
    struct opened o;
    int status;
    _Atomic bool begun;
};

static void *write_blocked(void *argument) {
    struct blocked *b = argument;
    atomic_store(&b->begun, true);
    do {
        b->status = pml_bytes_write(b->o.region, 0, "x", 1);
    } while (b->status == PML_E_BEHIND);
    return NULL;
}

/* A stop is told to those who wait for credit at once, and by its own name. */
static void a_stop_wakes_who_waits_for_credit(void) {
    static const struct {
        uint32_t frozen;
        int status;
    } stops[] = {{PML_FROZEN_POWER, PML_E_FROZEN}, {PML_FROZEN_FENCED, PML_E_FENCED}};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        struct blocked b = {.o = open_pool("woken")};
        struct pml_tail *tail;
        pthread_t thread;
        CHECK_OK(pml_tail_open(b.o.path, &tail));
        uint64_t end = tail_of(b.o.pool);
        publish(tail, end, 0);
        CHECK(!pthread_create(&thread, NULL, write_blocked, &b));
        while (!atomic_load(&b.begun)) sched_yield();
        CHECK_OK(pml_tail_freeze(tail, stops[i].frozen, 2));
        CHECK(!pthread_join(thread, NULL));
        CHECK_IS(b.status, stops[i].status);
        CHECK(tail_of(b.o.pool) == end);
        CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_NO, 0));
        publish(tail, 0, 0);
        CHECK_OK(pml_tail_close(tail));
        let_go(&b.o, true);
        remove_tree(b.o.path);
    }
}

/* ---- a stop outlives the writer ---- */

static int open_again(const char *path, uint32_t flags) {
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, flags);
    struct pml_pool *pool;
    int st = pml_open(path, &options, &pool);
    if (st != PML_OK) return st;
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    return PML_OK;
}

/* A frozen or fenced pool is refused to every writer of this boot, whatever language it is written
 * in, and nothing of it changes; a replica's open is none of a writer. */
static void a_stop_outlives_the_writer(void) {
    struct opened o = open_pool("stopped");
    struct pml_tail *tail;
    struct pml_position before, after;
    CHECK_OK(pml_tail_open(o.path, &tail));
    CHECK_OK(pml_bytes_write(o.region, 0, "x", 1));
    CHECK_OK(pml_position(o.pool, &before));
    CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_POWER, 0));
    let_go(&o, false);
    const char *path = scratch_path("stopped");
    for (int n = 0; n < 2; n++) CHECK_IS(open_again(path, 0), PML_E_FROZEN);
    CHECK_OK(open_again(path, PML_OPEN_REPLICA));
    CHECK_IS(open_again(path, 0), PML_E_FROZEN);
    CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_FENCED, 2));
    CHECK_IS(open_again(path, 0), PML_E_FENCED);
    CHECK_OK(open_again(path, PML_OPEN_REPLICA));
    /* Epoch 2 exists elsewhere: no second one may be made here. */
    CHECK_IS(open_again(path, PML_OPEN_PROMOTE), PML_E_FENCED);
    CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_NO, 0));
    o = open_pool("stopped");
    CHECK_OK(pml_position(o.pool, &after));
    CHECK(before.lsn == after.lsn && before.chain == after.chain && before.epoch == after.epoch);
    CHECK_OK(pml_bytes_write(o.region, 0, "y", 1));
    let_go(&o, true);
    CHECK_OK(pml_tail_close(tail));
}

/* A promotion begins a log of its own: what had stopped the old one does not stop it. */
static void a_promotion_frees(void) {
    struct opened o = open_pool("promoted");
    struct pml_tail *tail;
    CHECK_OK(pml_tail_open(o.path, &tail));
    CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_POWER, 0));
    let_go(&o, false);
    CHECK_OK(open_again(o.path, PML_OPEN_PROMOTE));
    o = open_pool("promoted");
    CHECK_OK(pml_bytes_write(o.region, 0, "y", 1));
    /* Fenced by an epoch that its log has reached itself. */
    CHECK_OK(pml_tail_freeze(tail, PML_FROZEN_FENCED, 2));
    CHECK_IS(pml_bytes_write(o.region, 0, "z", 1), PML_E_FENCED);
    let_go(&o, false);
    o = open_pool("promoted");
    CHECK_OK(pml_bytes_write(o.region, 0, "z", 1));
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

int main(void) {
    test_start("test_bound");
    a_flipped_length_is_judged_once();
    only_verified_bytes_are_handed_out();
    a_required_slot_pins_beside_others();
    credit_is_never_overdrawn();
    garbage_respects_the_limit();
    a_dead_shippers_word_does_not_count();
    a_stop_wakes_who_waits_for_credit();
    a_stop_outlives_the_writer();
    a_promotion_frees();
    return 0;
}
