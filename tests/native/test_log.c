/* The log ring: what counts as a record, laps, drains, pins, and what is done when it fails. */
#include <errno.h>
#include <fcntl.h>

#include "harness.h"

#define RING (256 * KIB)
#define SALT 0x5a17u

/* ---- records made by hand ---- */

static char *hand_ring;

static struct pml_record *forge(uint64_t lsn, const struct pml_chain *before, uint64_t length,
                                uint64_t lsn_durable) {
    struct pml_record *r = (struct pml_record *)(void *)(hand_ring + lsn % RING);
    random_fill(lsn, r + 1, length - sizeof *r);
    *r = (struct pml_record){.magic = PML_MAGIC_RECORD,
                             .lsn = lsn,
                             .length = length,
                             .txn = before->txn + 1,
                             .lsn_durable = lsn_durable,
                             .session = before->session,
                             .epoch = before->epoch,
                             .checksum_prev = before->checksum,
                             .range_count = 0,
                             .kind = PML_RECORD_TRANSACTION};
    return r;
}

static void seal(struct pml_record *r) {
    /* Not by the engine's own function: seeded by the predecessor and by the pool. */
    r->checksum =
        pml_crc32c(r->checksum_prev ^ SALT, &r->lsn, r->length - offsetof(struct pml_record, lsn));
}

static int peek(const struct pml_chain *chain) {
    const struct pml_record *out;
    return pml_log_peek(hand_ring, RING, SALT, chain, &out);
}

/* Each end of the chain is told apart, and only a record that continues it is valid. */
static void peek_tells_the_ends_apart(void) {
    const struct pml_chain chain = {3 * RING + 4096, 17, 5, 2, 0xabcdef01u};
    struct pml_record *r;
    memset(hand_ring, 0, 2 * RING);
    CHECK(peek(&chain) == PML_END_NOTHING);
#define TRY(change, expected)                                                                      \
    do {                                                                                           \
        r = forge(chain.lsn, &chain, 256, 0);                                                      \
        change;                                                                                    \
        seal(r);                                                                                   \
        CHECK(peek(&chain) == (expected));                                                         \
    } while (0)
    TRY((void)0, -1);
    TRY(r->session++, -1);
    TRY(r->session--, PML_END_STALE);
    TRY((r->epoch++, r->session = 1), -1);
    TRY((r->epoch--, r->session = 99), PML_END_STALE);
    TRY(r->txn++, PML_END_STALE);
    TRY(r->txn--, PML_END_STALE);
    TRY(r->checksum_prev ^= 1, PML_END_STALE);
    TRY(r->lsn -= RING, PML_END_STALE);
    TRY(r->lsn += RING, PML_END_LATER_LAP);
    TRY(r->lsn += 64, PML_END_STALE);
    TRY(r->length = 64, -1);
#undef TRY
    static const uint64_t lengths[] = {0, 32, 63, 65, RING + 64, 1ull << 60, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        r = forge(chain.lsn, &chain, 256, 0);
        seal(r);
        r->length = lengths[i];
        CHECK(peek(&chain) == PML_END_TORN);
        r->lsn += RING;
        CHECK(peek(&chain) == PML_END_STALE);
    }
}

/* A record with any one bit of header, data or padding flipped does not continue the chain. */
static void every_flipped_bit_ends_the_chain(void) {
    const struct pml_chain chain = {RING - 128, 1, 1, 1, 7}; /* it lies across the ring's end */
    struct pml_record *r = forge(chain.lsn, &chain, 320, 4096);
    seal(r);
    CHECK(peek(&chain) == -1);
    for (uint64_t bit = 0; bit < 320 * 8; bit++) {
        char *byte = (char *)r + bit / 8;
        *byte = (char)(*byte ^ (1 << bit % 8));
        CHECK(peek(&chain) >= 0);
        *byte = (char)(*byte ^ (1 << bit % 8));
    }
    CHECK(peek(&chain) == -1);
}

/* Bytes that make a sound record under another pool's secret are none here. */
static void a_record_needs_the_pools_secret(void) {
    const struct pml_chain chain = {RING + 4096, 9, 3, 1, 0x55u};
    memset(hand_ring, 0, 2 * RING);
    struct pml_record *r = forge(chain.lsn, &chain, 256, 0);
    r->checksum = pml_record_sum(r, r->length, SALT ^ 1);
    CHECK(peek(&chain) == PML_END_TORN);
    struct pml_record *behind = forge(chain.lsn + 640, &chain, 128, chain.lsn + 192);
    behind->checksum = pml_record_sum(behind, behind->length, SALT ^ 1);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == 0);
}

/* The hint is the greatest durable LSN of sound records behind the break, of this history only. */
static void hint_believes_sound_records_only(void) {
    const struct pml_chain chain = {RING + 4096, 9, 3, 1, 0x55u};
    struct pml_chain other = chain;
    memset(hand_ring, 0, 2 * RING);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == 0);
    struct pml_record *r = forge(chain.lsn + 640, &other, 128, chain.lsn + 192);
    seal(r);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == chain.lsn + 192);
    struct pml_record *later = forge(chain.lsn + 64 * 100, &other, 128, chain.lsn + 64 * 90);
    seal(later);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == chain.lsn + 64 * 90);
    later->lsn_durable ^= 64; /* not sealed: unsound */
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == chain.lsn + 192);
    r->session = 2; /* of an earlier session: its loss was accepted */
    seal(r);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == 0);
    r->session = 3;
    r->lsn -= RING; /* of an earlier lap */
    seal(r);
    CHECK(pml_log_hint(hand_ring, RING, SALT, &chain) == 0);
}

/* ---- pools ---- */

struct opened {
    struct pml_pool *pool;
    struct pml_container *region;
    const char *path;
};

#define REGION (200 * KIB)

static struct opened open_pool(const char *name, uint32_t domain) {
    struct opened o = {.path = scratch_path(name)};
    struct pml_options options = small_pool(domain, PML_OPEN_CREATE);
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

static struct pml_info info_of(struct pml_pool *pool) {
    struct pml_info info;
    CHECK_OK(pml_info(pool, &info));
    return info;
}

/* Records of all sizes up to the limit, lap after lap, come back; above it nothing changes. */
static void records_of_all_sizes_lap_the_ring(void) {
    static char shadow[REGION], buffer[REGION];
    struct random random = {test_seed};
    struct opened o = open_pool("laps", PML_DOMAIN_ADR);
    uint64_t limit = info_of(o.pool).tx_record_max;
    /* header, one range, and what is held back for padding */
    uint64_t longest = limit - sizeof(struct pml_record) - PML_LINE - sizeof(struct pml_range);
    memset(shadow, 0, sizeof shadow);
    for (uint64_t n = 0, rounds = test_rounds(1200); n < rounds; n++) {
        uint64_t size = n % 3 == 0   ? 1 + n * longest / rounds
                        : n % 3 == 1 ? longest - random_below(&random, 200)
                                     : 1 + random_below(&random, 300);
        uint64_t at = random_below(&random, REGION - size);
        random_fill(random_word(&random), shadow + at, size);
        CHECK_OK(pml_bytes_write(o.region, at, shadow + at, size));
        if (n % 41 == 40) {
            let_go(&o, n % 2);
            o = open_pool("laps", PML_DOMAIN_ADR);
            CHECK_OK(pml_bytes_read(o.region, 0, buffer, REGION));
            CHECK(!memcmp(shadow, buffer, REGION));
        }
    }
    CHECK(info_of(o.pool).lsn_committed > 8 * RING || test_rounds(1200) < 1200);
    CHECK_OK(pml_bytes_write(o.region, 0, shadow, longest));
    struct pml_position before, after;
    CHECK_OK(pml_position(o.pool, &before));
    memset(buffer, 1, sizeof buffer);
    CHECK_IS(pml_bytes_write(o.region, 0, buffer, longest + 1), PML_E_TOO_LARGE);
    CHECK_OK(pml_position(o.pool, &after));
    CHECK(before.lsn == after.lsn && before.chain == after.chain);
    CHECK_OK(pml_bytes_read(o.region, 0, buffer, REGION));
    CHECK(!memcmp(shadow, buffer, REGION));
    let_go(&o, true);
}

/* A commit costs one drain, whatever it changes, in every domain. */
static void one_drain_per_commit(void) {
    static const uint64_t sizes[] = {1, 2, 3, 7, 20, 99, 300, 1000};
    for (uint32_t domain = PML_DOMAIN_EMULATED; domain <= PML_DOMAIN_PAGE; domain++) {
        struct opened o = open_pool("drains", domain);
        CHECK_OK(pml_checkpoint(o.pool));
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct pml_info before = info_of(o.pool);
            uint64_t id;
            CHECK_OK(pml_tx_begin(o.pool, &id));
            for (uint64_t n = 0; n < sizes[i]; n++)
                CHECK_OK(pml_bytes_write(o.region, n * 128, (const char *)&i, sizeof i));
            CHECK(info_of(o.pool).drains == before.drains);
            CHECK_OK(pml_tx_commit(o.pool, id));
            struct pml_info after = info_of(o.pool);
            CHECK(after.drains == before.drains + 1 && after.drains_image == before.drains_image);
            CHECK(after.commits == before.commits + 1);
        }
        struct pml_info before = info_of(o.pool);
        uint64_t id;
        CHECK_OK(pml_tx_begin(o.pool, &id)); /* no change: no record, no drain */
        CHECK_OK(pml_tx_commit(o.pool, id));
        CHECK(info_of(o.pool).drains == before.drains);
        let_go(&o, true);
        remove_tree(o.path);
    }
}

/* Invariant 3: what a slot pins is not overwritten; LogFull changes nothing; an ack lets go on. */
static void a_slot_pins_the_ring(void) {
    static char block[20000], seen[REGION], again[REGION];
    struct opened o = open_pool("slots", PML_DOMAIN_EMULATED);
    struct pml_tail *tail;
    CHECK_OK(pml_checkpoint(o.pool));
    CHECK_OK(pml_tail_open(o.path, &tail));
    int slot = pml_slot_claim(tail, "consumer", PML_SLOT_REQUIRED);
    CHECK(slot >= 0);
    uint64_t records = 0, pinned = pml_tail_control(tail)->slots[slot].lsn_acked;
    int st;
    for (;; records++) {
        random_fill(records, block, sizeof block);
        CHECK_OK(pml_bytes_read(o.region, 0, seen, REGION));
        st = pml_bytes_write(o.region, records % 10 * sizeof block, block, sizeof block);
        if (st != PML_OK) break;
        CHECK(records < 100);
    }
    CHECK(st == PML_E_LOG_FULL && records > 8);
    CHECK_OK(pml_bytes_read(o.region, 0, again, REGION));
    CHECK(!memcmp(seen, again, REGION));
    CHECK_IS(pml_bytes_write(o.region, 0, block, sizeof block), PML_E_LOG_FULL);
    struct pml_tail_record record;
    struct pml_position position;
    for (uint64_t n = 0; n < records; n++) { /* all of them are there, in order */
        CHECK_OK(pml_tail_next(tail, &record));
        CHECK(n || record.record->lsn == pinned);
        random_fill(n, block, sizeof block);
        CHECK(!memcmp((const char *)(record.record + 1) + sizeof(struct pml_range), block,
                      sizeof block));
    }
    CHECK_IS(pml_tail_next(tail, &record), PML_E_MISSING);
    CHECK_OK(pml_tail_position(tail, &position));
    CHECK_IS(pml_slot_ack(tail, slot, position.lsn + 64), PML_E_ARGUMENT);
    CHECK_OK(pml_slot_ack(tail, slot, position.lsn));
    CHECK_IS(pml_slot_ack(tail, slot, pinned), PML_E_ARGUMENT);
    CHECK_OK(pml_bytes_write(o.region, 0, block, sizeof block));
    /* The pin outlives writer and holder. */
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, false);
    o = open_pool("slots", PML_DOMAIN_EMULATED);
    for (st = PML_OK, records = 0; st == PML_OK && records < 100; records++)
        st = pml_bytes_write(o.region, 0, block, sizeof block);
    CHECK(st == PML_E_LOG_FULL);
    CHECK_OK(pml_tail_open(o.path, &tail));
    CHECK(pml_slot_claim(tail, "consumer", 0) == slot);
    CHECK(pml_tail_control(tail)->slots[slot].lsn_acked == position.lsn);
    CHECK_OK(pml_slot_release(tail, slot));
    CHECK_OK(pml_bytes_write(o.region, 0, block, sizeof block));
    CHECK_OK(pml_tail_close(tail));
    let_go(&o, true);
}

/* Frozen: a commit is refused and changes nothing, reads go on, and unfreezing lets commits on. */
static void frozen_refuses_commits(void) {
    struct opened o = open_pool("frozen", PML_DOMAIN_EMULATED);
    char byte = 0;
    CHECK_OK(pml_bytes_write(o.region, 5, "a", 1));
    uint64_t id, lsn = o.pool->lsn_tail;
    CHECK_OK(pml_tx_begin(o.pool, &id));
    CHECK_OK(pml_bytes_write(o.region, 5, "b", 1));
    o.pool->control->frozen = 1;
    CHECK_IS(pml_tx_commit(o.pool, id), PML_E_FROZEN);
    CHECK_IS(pml_tx_commit(o.pool, id), PML_E_NO_TRANSACTION);
    CHECK_IS(pml_bytes_write(o.region, 5, "c", 1), PML_E_FROZEN);
    CHECK_OK(pml_bytes_read(o.region, 5, &byte, 1));
    CHECK(byte == 'a' && o.pool->lsn_tail == lsn);
    o.pool->control->frozen = 0;
    CHECK_OK(pml_bytes_write(o.region, 5, "d", 1));
    let_go(&o, true);
}

static int no_drain(struct pml_persist *p) {
    (void)p;
    return EIO;
}

/* Invariant 10: after a failed drain every call answers so, the process lives, reopening helps. */
static void a_failed_drain_poisons(void) {
    for (uint32_t domain = PML_DOMAIN_EMULATED; domain <= PML_DOMAIN_PAGE; domain++)
        for (int image = 0; image < 2; image++) {
            struct opened o = open_pool("poison", domain);
            struct pml_container *c;
            struct pml_info info;
            char byte = 0;
            uint64_t id;
            CHECK_OK(pml_bytes_write(o.region, 5, "a", 1));
            struct pml_persist *p = image ? &o.pool->store : &o.pool->log;
            struct pml_ops broken = *p->ops;
            broken.drain = no_drain;
            p->ops = &broken;
            CHECK_IS(image ? pml_checkpoint(o.pool) : pml_bytes_write(o.region, 5, "b", 1),
                     PML_E_MEDIUM);
            CHECK(pml_error()->os_errno == EIO);
            CHECK_IS(pml_bytes_write(o.region, 5, "c", 1), PML_E_MEDIUM);
            CHECK_IS(pml_bytes_read(o.region, 5, &byte, 1), PML_E_MEDIUM);
            CHECK_IS(pml_tx_begin(o.pool, &id), PML_E_MEDIUM);
            CHECK_IS(pml_checkpoint(o.pool), PML_E_MEDIUM);
            CHECK_IS(pml_sync(o.pool), PML_E_MEDIUM);
            CHECK_IS(pml_container_open(o.pool, "x", 1, PML_TYPE_DICT, 0, NULL, 0, &c),
                     PML_E_MEDIUM);
            CHECK_OK(pml_info(o.pool, &info));
            CHECK(info.poisoned == PML_E_MEDIUM);
            let_go(&o, true);
            o = open_pool("poison", domain);
            CHECK_OK(pml_bytes_read(o.region, 5, &byte, 1));
            CHECK(byte == 'a' || (!image && byte == 'b'));
            CHECK_OK(pml_bytes_write(o.region, 5, "d", 1));
            let_go(&o, true);
            remove_tree(o.path);
        }
}

static void flip(const char *path, const char *file, uint64_t offset) {
    char name[300], byte;
    snprintf(name, sizeof name, "%s/%s", path, file);
    int fd = open(name, O_RDWR);
    CHECK(fd >= 0);
    CHECK(pread(fd, &byte, 1, (off_t)offset) == 1);
    byte = (char)(byte ^ 0x10);
    CHECK(pwrite(fd, &byte, 1, (off_t)offset) == 1);
    close(fd);
}

/* A flipped bit in the image is found when its page is first read, and named; never served. */
static void reads_are_verified(void) {
    static char buffer[REGION];
    struct opened o = open_pool("rot", PML_DOMAIN_EMULATED);
    uint64_t offset, size;
    random_fill(1, buffer, sizeof buffer);
    for (uint64_t at = 0; at < REGION; at += 50 * KIB)
        CHECK_OK(pml_bytes_write(o.region, at, buffer + at, 50 * KIB));
    CHECK_OK(pml_bytes_where(o.region, &offset, &size));
    let_go(&o, true);
    for (uint64_t at = 0; at < REGION; at += 9001) {
        flip(o.path, "image", offset + at);
        struct pml_options options = small_pool(PML_DOMAIN_EMULATED, 0);
        uint64_t page = (offset + at) / PML_PAGE * PML_PAGE;
        for (int reader = 0; reader < 2; reader++) {
            options.flags = PML_OPEN_NO_THREAD | (reader ? PML_OPEN_READ_ONLY : 0u);
            struct pml_pool *pool;
            struct pml_container *region;
            int st = pml_open(o.path, &options, &pool);
            if (st != PML_OK) { /* a page that opening reads */
                CHECK(st == PML_E_CORRUPT && pml_error()->offset == page &&
                      page < offset + PML_PAGE);
                continue;
            }
            CHECK_OK(pml_container_open(pool, "r", 1, PML_TYPE_REGION, 0, NULL, 0, &region));
            CHECK_IS(pml_bytes_read(region, at, buffer, 1), PML_E_CORRUPT);
            CHECK(!strcmp(pml_error()->file, "image") && pml_error()->offset == page);
            if (!reader) CHECK_IS(pml_bytes_write(region, at, "x", 1), PML_E_CORRUPT);
            struct pml_fault fault;
            if (reader) {
                CHECK(pml_check(pool, &fault, 1) >= 1);
                CHECK(fault.code == PML_FAULT_PAGE && fault.offset == page);
            }
            pml_container_free(region);
            CHECK_OK(pml_close(pool));
            pml_free(pool);
        }
        flip(o.path, "image", offset + at);
    }
    check_closed_pool(o.path);
}

/* One rotten checkpoint mark never yields an older state in silence: the pool opens with all that
 * was committed, or it is called corrupt. */
static void a_rotten_mark_is_no_older_state(void) {
    static char block[60000], found[16];
    for (int laps = 0; laps < 2; laps++)
        for (int clean_before = 0; clean_before < 2; clean_before++)
            for (uint64_t slot = 0; slot < 2; slot++) {
                struct opened o = open_pool("marks", PML_DOMAIN_EMULATED);
                CHECK_OK(pml_bytes_write(o.region, 0, "old", 4));
                let_go(&o, clean_before);
                o = open_pool("marks", PML_DOMAIN_EMULATED);
                for (uint64_t n = 0; n < (laps ? 9 : 1); n++)
                    CHECK_OK(pml_bytes_write(o.region, 1000 + n, block, sizeof block));
                CHECK_OK(pml_bytes_write(o.region, 0, "new", 4));
                let_go(&o, false);
                char control[300];
                snprintf(control, sizeof control, "%s/control", o.path);
                unlink(control);
                flip(o.path, "image", PML_MARK_OFFSET + slot * PML_MARK_STRIDE + 20);
                struct pml_options options = small_pool(PML_DOMAIN_EMULATED, 0);
                struct pml_pool *pool;
                int st = pml_open(o.path, &options, &pool);
                if (st == PML_OK) {
                    struct pml_container *region;
                    st =
                        pml_container_open(pool, "r", 1, PML_TYPE_REGION, REGION, NULL, 0, &region);
                    if (st == PML_OK) {
                        st = pml_bytes_read(region, 0, found, 4);
                        CHECK(st != PML_OK || !memcmp(found, "new", 4));
                        pml_container_free(region);
                    }
                    pml_abandon(pool);
                    pml_free(pool);
                }
                CHECK(st == PML_OK || st == PML_E_CORRUPT);
                remove_tree(o.path);
            }
}

int main(void) {
    test_start("test_log");
    hand_ring = calloc(1, 2 * RING + PML_PAGE);
    CHECK(hand_ring);
    peek_tells_the_ends_apart();
    every_flipped_bit_ends_the_chain();
    hint_believes_sound_records_only();
    a_record_needs_the_pools_secret();
    free(hand_ring);
    records_of_all_sizes_lap_the_ring();
    one_drain_per_commit();
    a_slot_pins_the_ring();
    frozen_refuses_commits();
    a_failed_drain_poisons();
    reads_are_verified();
    a_rotten_mark_is_no_older_state();
    return 0;
}
