/*
 * What the engine owes besides crash images: each rule that the crash explorer cannot see breaking,
 * because it concerns two handles, another process's words, a replica, or a failing medium.
 */
#include <errno.h>
#include <fcntl.h>

#include "harness.h"

#define REGION 8192u

static struct pml_pool *open_at(const char *path, uint32_t domain, uint32_t flags) {
    struct pml_options options = small_pool(domain, flags);
    struct pml_pool *pool;
    CHECK_OK(pml_open(path, &options, &pool));
    return pool;
}

static struct pml_container *region_of(struct pml_pool *pool) {
    struct pml_container *region;
    CHECK_OK(pml_container_open(pool, "r", 1, PML_TYPE_REGION, REGION, NULL, 0, &region));
    return region;
}

static void let_go(struct pml_pool *pool, struct pml_container *region, bool close) {
    pml_container_free(region);
    CHECK_OK(close ? pml_close(pool) : pml_abandon(pool));
    pml_free(pool);
}

static void change_file(const char *path, const char *name, uint64_t offset, bool zero) {
    char file[300], byte[PML_LINE] = {0};
    snprintf(file, sizeof file, "%.200s/%s", path, name);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    if (!zero) {
        CHECK(pread(fd, byte, 1, (off_t)offset) == 1);
        byte[0] ^= 1;
    }
    CHECK(pwrite(fd, byte, zero ? sizeof byte : 1, (off_t)offset) ==
          (ssize_t)(zero ? sizeof byte : 1));
    close(fd);
}

/* Invariant 9. */
static void a_pool_has_one_writer(void) {
    const char *path = scratch_path("one");
    struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE), *second;
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, 0);
    CHECK_IS(pml_open(path, &options, &second), PML_E_LOCKED);
    let_go(pool, NULL, true);
}

/* A refused commit changes nothing, and the next one goes on from there. */
static void a_frozen_pool_refuses(void) {
    const char *path = scratch_path("frozen");
    char found[8];
    struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_container *region = region_of(pool);
    CHECK_OK(pml_bytes_write(region, 0, "before", 7));
    uint64_t txn = pool->txn;
    pool->control->frozen = PML_FROZEN_POWER;
    CHECK_IS(pml_bytes_write(region, 0, "behind", 7), PML_E_FROZEN);
    CHECK(pool->txn == txn);
    CHECK_OK(pml_bytes_read(region, 0, found, 7));
    CHECK(!memcmp(found, "before", 7));
    pool->control->frozen = PML_FROZEN_NO;
    CHECK_OK(pml_bytes_write(region, 100, "x", 1));
    let_go(pool, region, false);
    check_closed_pool(path);
}

/* Records of two opens are told apart by their session. */
static void sessions_rise(void) {
    const char *path = scratch_path("sessions");
    struct pml_info info;
    uint64_t before = 0;
    for (int n = 0; n < 4; n++) {
        struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
        CHECK_OK(pml_info(pool, &info));
        CHECK(info.session > before);
        before = info.session;
        let_go(pool, NULL, n % 2);
    }
}

static void rot_in_a_page_is_found(void) {
    const char *path = scratch_path("rot");
    char found[REGION];
    uint64_t offset, size;
    struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_container *region = region_of(pool);
    CHECK_OK(pml_bytes_write(region, 0, "value", 6));
    CHECK_OK(pml_bytes_where(region, &offset, &size));
    let_go(pool, region, true);
    change_file(path, "image", offset + 5000, false);
    pool = open_at(path, PML_DOMAIN_EMULATED, 0);
    int st = pml_container_open(pool, "r", 1, PML_TYPE_REGION, REGION, NULL, 0, &region);
    if (st == PML_OK) {
        st = pml_bytes_read(region, 0, found, REGION);
        pml_container_free(region);
    }
    CHECK(st == PML_E_CORRUPT);
    let_go(pool, NULL, false);
}

/* Invariant 5: control tells of the last record, of which no later one does. */
static void the_last_record_is_missed(void) {
    const char *path = scratch_path("last");
    struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_container *region = region_of(pool);
    CHECK_OK(pml_bytes_write(region, 0, "first", 6));
    uint64_t last = pool->lsn_tail;
    CHECK_OK(pml_bytes_write(region, 64, "last", 5));
    uint64_t ring = pool->ring_bytes;
    let_go(pool, region, false);
    change_file(path, "log", PML_RING_OFFSET + last % ring, true);
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, 0);
    CHECK_IS(pml_open(path, &options, &pool), PML_E_CORRUPT);
}

/* What has not been published is nobody's business, though it may be whole in the ring. */
static void readers_of_the_log_stop_at_the_durable_end(void) {
    const char *path = scratch_path("tail");
    struct pml_tail *tail;
    struct pml_tail_record next;
    struct pml_pool *pool = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_container *region = region_of(pool);
    uint64_t durable = pool->lsn_tail;
    CHECK_OK(pml_tail_open(path, &tail));
    while (pml_tail_next(tail, &next) == PML_OK) CHECK(next.lsn_next <= durable);
    int slot = pml_slot_claim(tail, "consumer", 0);
    CHECK(slot >= 0);
    CHECK_IS(pml_slot_ack(tail, slot, durable + 64), PML_E_ARGUMENT);
    CHECK_OK(pml_bytes_write(region, 0, "value", 6));
    pool->control->lsn_durable = durable; /* as if its sync were not over */
    CHECK_IS(pml_tail_next(tail, &next), PML_E_MISSING);
    CHECK_OK(pml_tail_close(tail));
    let_go(pool, region, false);
}

/* ---- replicas ---- */

static struct { /* an op table that fails or watches */
    const struct pml_ops *below;
    bool fail, undrained, early_mark;
    const char *base;
} watched;

static void watch_copy(struct pml_persist *p, void *dst, const void *src, size_t size) {
    const char *at = dst;
    if (watched.base && at >= watched.base + PML_MARK_OFFSET && at < watched.base + PML_BODY_OFFSET)
        watched.early_mark = watched.early_mark || watched.undrained;
    else
        watched.undrained = true;
    watched.below->copy(p, dst, src, size);
}
static void watch_set(struct pml_persist *p, void *dst, int byte, size_t size) {
    watched.undrained = true;
    watched.below->set(p, dst, byte, size);
}
static void watch_flush(struct pml_persist *p, const void *at, size_t size) {
    watched.below->flush(p, at, size);
}
static int watch_drain(struct pml_persist *p) {
    watched.undrained = false;
    return watched.fail ? EIO : watched.below->drain(p);
}
static const struct pml_ops watching = {watch_copy, watch_set, watch_flush, watch_drain};

static void watch(struct pml_persist *p, const char *base, bool fail) {
    watched.below = p->ops;
    watched.base = base;
    watched.fail = fail;
    watched.undrained = watched.early_mark = false;
    p->ops = &watching;
}

struct pair {
    struct pml_pool *primary, *replica;
    struct pml_container *region;
    struct pml_tail *tail;
    char replica_path[256];
};

static struct pair make_pair(const char *name) {
    struct pair p;
    char names[2][64];
    snprintf(names[0], sizeof names[0], "%s-a", name);
    snprintf(names[1], sizeof names[1], "%s-b", name);
    const char *path = scratch_path(names[0]);
    p.primary = open_at(path, PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    p.region = region_of(p.primary);
    CHECK_OK(pml_tail_open(path, &p.tail));
    struct pml_identity identity;
    CHECK_OK(pml_tail_identity(p.tail, &identity));
    struct pml_options options =
        small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE | PML_OPEN_REPLICA);
    options.identity = &identity;
    snprintf(p.replica_path, sizeof p.replica_path, "%s", scratch_path(names[1]));
    CHECK_OK(pml_open(p.replica_path, &options, &p.replica));
    CHECK_OK(pml_tail_seek(p.tail, PML_LSN_FIRST));
    return p;
}

static int ship(struct pair *p, struct pml_position *durable, uint64_t shift, bool flip) {
    const char *data;
    uint64_t size, lsn = p->replica->lsn_received;
    char copy[64 * KIB];
    CHECK_OK(pml_tail_run(p->tail, 32 * KIB, &data, &size));
    CHECK(size <= sizeof copy);
    memcpy(copy, data, size);
    if (flip) copy[size - 1] ^= 1;
    return pml_replica_append(p->replica, lsn + shift, copy, size, durable);
}

static void end_pair(struct pair *p) {
    CHECK_OK(pml_tail_close(p->tail));
    let_go(p->primary, p->region, false);
    let_go(p->replica, NULL, false);
}

static void a_replica_takes_what_continues_its_log(void) {
    struct pair p = make_pair("follow");
    struct pml_position there, here;
    CHECK_OK(ship(&p, &there, 0, false));
    CHECK_OK(pml_position(p.primary, &here));
    CHECK(there.lsn == here.lsn && there.chain == here.chain && there.txn == here.txn);
    CHECK_OK(pml_bytes_write(p.region, 0, "value", 6));
    CHECK_IS(ship(&p, &there, 64, false), PML_E_GAP);
    CHECK(there.lsn == here.lsn);
    CHECK_OK(pml_tail_seek(p.tail, here.lsn));
    CHECK_IS(ship(&p, &there, 0, true), PML_E_CORRUPT);
    CHECK(there.lsn == here.lsn);
    CHECK_OK(pml_tail_seek(p.tail, here.lsn));
    CHECK_OK(ship(&p, &there, 0, false));
    CHECK_OK(pml_position(p.primary, &here));
    CHECK(there.lsn == here.lsn);
    end_pair(&p);
}

/* Invariant 7: nothing is acknowledged that a failing drain would have taken back. */
static void a_replica_acknowledges_behind_its_drain(void) {
    struct pair p = make_pair("drain");
    struct pml_position there;
    uint64_t before = p.replica->control->lsn_durable;
    watch(&p.replica->log, NULL, true);
    CHECK_IS(ship(&p, &there, 0, false), PML_E_MEDIUM);
    CHECK(p.replica->control->lsn_durable == before && there.lsn == before);
    CHECK_IS(pml_checkpoint(p.replica), PML_E_MEDIUM); /* poisoned */
    p.replica->log.ops = watched.below;
    end_pair(&p);
}

static void a_baseline_is_durable_before_its_marks(void) {
    struct pair p = make_pair("baseline");
    struct pml_position here;
    char file[300], page[PML_PAGE], found[PML_PAGE];
    random_fill(test_seed, page, sizeof page);
    CHECK_OK(pml_position(p.primary, &here));
    CHECK_OK(pml_replica_begin(p.replica));
    static const char zeros[PML_BODY_OFFSET - PML_MARK_OFFSET];
    CHECK(!memcmp(p.replica->shared.base + PML_MARK_OFFSET, zeros, 2 * PML_MARK_STRIDE));
    watch(&p.replica->store, p.replica->shared.base, false);
    CHECK_OK(pml_replica_block(p.replica, 64 * KIB, page, sizeof page));
    struct pml_mark start = {.lsn_checkpoint = here.lsn,
                             .txn = here.txn,
                             .image_bytes = MIB,
                             .session = 9,
                             .epoch = 3,
                             .chain = here.chain};
    CHECK_OK(pml_replica_baseline(p.replica, &start));
    CHECK_OK(pml_replica_whole(p.replica));
    CHECK(!watched.early_mark);
    p.replica->store.ops = watched.below;
    snprintf(file, sizeof file, "%s/image", p.replica_path);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pread(fd, found, sizeof found, 64 * KIB) == sizeof found);
    CHECK(!memcmp(found, page, sizeof page));
    for (int slot = 0; slot < 2; slot++) {
        struct pml_mark mark;
        CHECK(pread(fd, &mark, sizeof mark, PML_MARK_OFFSET + slot * PML_MARK_STRIDE) ==
              sizeof mark);
        CHECK(mark.lsn_checkpoint == here.lsn && mark.epoch == 3);
    }
    close(fd);
    end_pair(&p);
}

int main(void) {
    test_start("test_duties");
    a_pool_has_one_writer();
    a_frozen_pool_refuses();
    sessions_rise();
    rot_in_a_page_is_found();
    the_last_record_is_missed();
    readers_of_the_log_stop_at_the_durable_end();
    a_replica_takes_what_continues_its_log();
    a_replica_acknowledges_behind_its_drain();
    a_baseline_is_durable_before_its_marks();
    puts("test_duties: ok");
    return 0;
}
