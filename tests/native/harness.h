/*
 * What every native test shares: a check that says where and with which seed it failed, a random
 * generator that the seed decides, and a scratch directory in memory that goes when the test ends.
 *
 * PMLOG_SEED=n repeats a run; PMLOG_KEEP=1 leaves the scratch directory behind.
 */
#ifndef PML_TEST_HARNESS_H
#define PML_TEST_HARNESS_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define KIB 1024ull
#define MIB (1024ull * 1024ull)

static uint64_t test_seed;
static char test_scratch[64];
static pid_t test_pid;

static inline _Noreturn void test_failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n  last error: %s: %s (file \"%s\", offset %llu)\n  PMLOG_SEED=%llu\n",
            file, line, what, pml_status_name(pml_error()->status), pml_error()->text,
            pml_error()->file, (unsigned long long)pml_error()->offset,
            (unsigned long long)test_seed);
    exit(1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) test_failed(__FILE__, __LINE__, #condition);                             \
    } while (0)
#define CHECK_OK(call) CHECK((call) == PML_OK)
#define CHECK_IS(call, status) CHECK((call) == (status))

/* ---- random numbers: splitmix64 ---- */

static inline uint64_t mix64(uint64_t z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

struct random {
    uint64_t state;
};

static inline uint64_t random_word(struct random *r) {
    r->state += 0x9e3779b97f4a7c15ull;
    return mix64(r->state);
}

static inline uint64_t random_below(struct random *r, uint64_t limit) {
    return random_word(r) % limit;
}

static inline void random_fill(uint64_t seed, void *out, size_t size) {
    char *at = out;
    struct random r = {seed};
    while (size) {
        uint64_t word = random_word(&r);
        size_t n = size < sizeof word ? size : sizeof word;
        memcpy(at, &word, n);
        at += n;
        size -= n;
    }
}

/* ---- where and how long ---- */

/* Memory checkers make everything twenty to fifty times slower: fewer rounds, the same checks. */
static inline bool test_under_valgrind(void) {
    const char *preload = getenv("LD_PRELOAD");
    return preload && strstr(preload, "vgpreload");
}

static inline bool test_under_sanitizer(void) {
#if defined(__SANITIZE_ADDRESS__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
    return true;
#else
    return false;
#endif
#else
    return false;
#endif
}

static inline uint64_t test_rounds(uint64_t plain) {
    uint64_t divisor = test_under_valgrind() ? 40 : test_under_sanitizer() ? 4 : 1;
    return plain / divisor ? plain / divisor : 1;
}

static inline double test_now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void remove_tree(const char *path) {
    DIR *listing = opendir(path);
    if (!listing) return;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char inner[512];
        snprintf(inner, sizeof inner, "%.200s/%.255s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            remove_tree(inner);
        else
            unlink(inner);
    }
    closedir(listing);
    rmdir(path);
}

static inline void remove_scratch(void) {
    if (getpid() == test_pid && !getenv("PMLOG_KEEP")) remove_tree(test_scratch);
}

#if PML_TESTING
static const char *const canary_names[] = {
#define CANARY_NAME(name, where, breaks) #name,
    "NONE", PML_CANARIES(CANARY_NAME)};

/* PMLOG_CANARY=NAME: the whole test runs on an engine that is broken in this way, and has to fail. */
static inline void canary_from_environment(void) {
    const char *given = getenv("PMLOG_CANARY");
    if (!given || !*given) return;
    for (int i = 0; i < PML_CANARY_COUNT; i++)
        if (!strcmp(given, canary_names[i])) pml_canary = (enum pml_canary)i;
    CHECK(pml_canary != PML_CANARY_NONE);
}
#else
static inline void canary_from_environment(void) {}
#endif

static inline void test_start(const char *name) {
    canary_from_environment();
    const char *given = getenv("PMLOG_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    test_seed = given ? strtoull(given, NULL, 0)
                      : ((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000) % 1000000000u;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s: PMLOG_SEED=%llu\n", name, (unsigned long long)test_seed);
    snprintf(test_scratch, sizeof test_scratch, "%s/pmlog-native-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(test_scratch));
    test_pid = getpid();
    atexit(remove_scratch);
}

static inline const char *scratch_path(const char *name) {
    static char path[4][256];
    static unsigned next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", test_scratch, name);
    return out;
}

/* ---- pools ---- */

static inline struct pml_options small_pool(uint32_t domain, uint32_t flags) {
    return (struct pml_options){.size = MIB,
                                .max_size = 4 * MIB,
                                .log_size = 256 * KIB,
                                .domain = domain,
                                .flags = flags | PML_OPEN_NO_THREAD,
                                .medium = PML_MEDIUM_FILE};
}

static inline uint64_t word_of(uint64_t bytes, uint32_t kind) { return bytes << 8 | kind; }

/* Every test runs the checker on its pool: it answers with no fault. */
static inline void check_pool(struct pml_pool *pool) {
    struct pml_fault faults[4];
    int64_t count = pml_check(pool, faults, 4);
    for (int64_t i = 0; i < count && i < 4; i++)
        fprintf(stderr, "fault: %s +%llu: %s (expected %llu, found %llu)\n", faults[i].file,
                (unsigned long long)faults[i].offset, faults[i].text,
                (unsigned long long)faults[i].expected, (unsigned long long)faults[i].found);
    CHECK(count == 0);
}

static inline void check_closed_pool(const char *path) {
    struct pml_options options = small_pool(PML_DOMAIN_AUTO, PML_OPEN_READ_ONLY);
    options.max_size = 256 * MIB;
    struct pml_pool *pool;
    CHECK_OK(pml_open(path, &options, &pool));
    check_pool(pool);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
}

#endif
