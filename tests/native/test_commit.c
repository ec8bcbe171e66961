/* Many threads: commits share syncs (domain page), nothing is lost, memory is given back. */
#include <sched.h>

#include "harness.h"

#define THREADS 6

static struct pml_pool *pool;
static struct pml_container *dict;
static _Atomic int running;
static uint64_t commits_each;
static const struct pml_ops *ops_before;

/* A slow device, without a clock: it is done when everybody else has appended or left. */
static int slow_drain(struct pml_persist *p) {
    uint64_t commits = __atomic_load_n(&pool->commits, __ATOMIC_RELAXED);
    for (int n = 0; n < 1000; n++) {
        uint64_t others = (uint64_t)atomic_load(&running) - 1;
        if (__atomic_load_n(&pool->commits, __ATOMIC_RELAXED) - commits >= others) break;
        sched_yield();
    }
    return ops_before->drain(p);
}

static int set(const char *key, uint64_t value) {
    int st;
    do {
        st = pml_dict_set(dict, key, word_of(strlen(key), PML_KIND_STR), (const char *)&value,
                          word_of(sizeof value, PML_KIND_BYTES));
    } while (st == PML_E_BUSY);
    return st;
}

static void *committer(void *argument) {
    int number = *(const int *)argument;
    for (uint64_t n = 0; n < commits_each; n++) {
        char key[32];
        snprintf(key, sizeof key, "%d-%llu", number, (unsigned long long)n % 50);
        CHECK_OK(set(key, n));
        /* Its commit has returned, so it is durable. */
        CHECK(atomic_load(&pool->lsn_durable) > PML_LSN_FIRST);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *checkpointing(void *argument) {
    (void)argument;
    while (atomic_load(&running) > 0) {
        uint64_t released;
        int st = pml_checkpoint(pool);
        CHECK(st == PML_OK || st == PML_E_BUSY);
        CHECK_OK(pml_release_pages(pool, &released));
        sched_yield();
    }
    return NULL;
}

/* Threads that commit at the same time share syncs; every one of their commits is there after a
 * kill, while checkpoints and the release of pages go on beside them. */
static void commits_share_syncs(bool checkpoints) {
    struct pml_options options = small_pool(PML_DOMAIN_PAGE, PML_OPEN_CREATE);
    if (checkpoints) options.flags &= ~(uint32_t)PML_OPEN_NO_THREAD;
    const char *path = scratch_path(checkpoints ? "shared-2" : "shared");
    pthread_t threads[THREADS], other;
    int numbers[THREADS];
    commits_each = test_rounds(60);
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &dict));
    struct pml_info before, after;
    CHECK_OK(pml_info(pool, &before));
    ops_before = pool->log.ops;
    struct pml_ops slow = *ops_before;
    slow.drain = slow_drain;
    if (!checkpoints) pool->log.ops = &slow;
    atomic_store(&running, THREADS);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, committer, &numbers[i]) == 0);
    }
    if (checkpoints) CHECK(pthread_create(&other, NULL, checkpointing, NULL) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (checkpoints) pthread_join(other, NULL);
    pool->log.ops = ops_before;
    CHECK_OK(pml_info(pool, &after));
    CHECK(after.commits - before.commits == THREADS * commits_each);
    CHECK(after.lsn_durable == after.lsn_committed);
    printf("  %llu commits, %llu syncs, %llu checkpoints\n",
           (unsigned long long)(after.commits - before.commits),
           (unsigned long long)(after.drains - before.drains),
           (unsigned long long)after.checkpoints);
    if (!checkpoints) CHECK(after.drains - before.drains < after.commits - before.commits);
    pml_container_free(dict);
    CHECK_OK(pml_abandon(pool));
    pml_free(pool);
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &dict));
    for (int i = 0; i < THREADS; i++)
        for (uint64_t last = commits_each < 50 ? 0 : commits_each - 50; last < commits_each;
             last++) {
            char key[32];
            uint64_t found;
            snprintf(key, sizeof key, "%d-%llu", i, (unsigned long long)last % 50);
            CHECK(pml_dict_get(dict, key, word_of(strlen(key), PML_KIND_STR), (char *)&found,
                               sizeof found) == (int64_t)word_of(sizeof found, PML_KIND_BYTES));
            CHECK(found == last);
        }
    pml_container_free(dict);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    check_closed_pool(path);
}

static int failing_drain(struct pml_persist *p) {
    slow_drain(p);
    return 5; /* EIO */
}

static void *refused(void *argument) {
    char key[8];
    snprintf(key, sizeof key, "%d", *(const int *)argument);
    int st = set(key, 1);
    atomic_fetch_sub(&running, 1);
    CHECK(st == PML_E_MEDIUM); /* the leader's failure, or the poison that it left */
    return NULL;
}

/* A sync that fails fails for everybody who waited for it: nobody is told that he committed. */
static void a_failed_sync_fails_for_all(void) {
    struct pml_options options = small_pool(PML_DOMAIN_PAGE, PML_OPEN_CREATE);
    const char *path = scratch_path("failing");
    pthread_t threads[THREADS];
    int numbers[THREADS];
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &dict));
    ops_before = pool->log.ops;
    struct pml_ops broken = *ops_before;
    broken.drain = failing_drain;
    pool->log.ops = &broken;
    atomic_store(&running, THREADS);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, refused, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pml_container_free(dict);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    check_closed_pool(path);
}

/* Pages that the image has may be given back; what is read afterwards is the same. */
static void released_pages_read_the_same(void) {
    static char wanted[600 * KIB], found[600 * KIB];
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    const char *path = scratch_path("released");
    struct pml_container *region;
    struct random random = {test_seed};
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "r", 1, PML_TYPE_REGION, sizeof wanted, NULL, 0, &region));
    uint64_t all = 0;
    for (uint64_t n = test_rounds(600); n; n--) {
        uint64_t size = 1 + random_below(&random, 3000), released = 0;
        uint64_t at = random_below(&random, sizeof wanted - size);
        random_fill(n, wanted + at, size);
        CHECK_OK(pml_bytes_write(region, at, wanted + at, size));
        if (n % 7 == 0) CHECK_OK(pml_checkpoint(pool));
        if (n % 3 == 0) CHECK_OK(pml_release_pages(pool, &released));
        all += released;
        if (n % 11) continue;
        uint64_t id; /* an open transaction's pages stay */
        CHECK_OK(pml_tx_begin(pool, &id));
        CHECK_OK(pml_bytes_write(region, 0, "?", 1));
        CHECK_OK(pml_release_pages(pool, &released));
        CHECK(released == 0);
        CHECK_OK(pml_tx_abort(pool, id));
        CHECK_OK(pml_bytes_read(region, 0, found, sizeof found));
        CHECK(!memcmp(wanted, found, sizeof wanted));
    }
    CHECK(all > 0 || test_rounds(600) < 40);
    pml_container_free(region);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    check_closed_pool(path);
}

int main(void) {
    test_start("test_commit");
    commits_share_syncs(false);
    commits_share_syncs(true);
    a_failed_sync_fails_for_all();
    released_pages_read_the_same();
    return 0;
}
