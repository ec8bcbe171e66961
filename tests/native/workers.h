/*
 * A test's work on several processors: a process each, with a scratch directory of its own; the
 * images that they met are counted once, whoever met them.
 */
#ifndef PML_TEST_WORKERS_H
#define PML_TEST_WORKERS_H

#include <errno.h>
#include <sys/wait.h>

#include "explore.h"

#define WORKERS_MAX 8

/* Called in each worker; `out` is memory that the parent sees, zero at first. */
typedef void work_function(int worker, int workers, void *out, struct hash_set *distinct);

static inline void hashes_write(const struct hash_set *set, const char *path) {
    FILE *file = fopen(path, "wbe");
    CHECK(file);
    for (size_t i = 0; i < set->capacity; i++)
        if (set->slots[i]) CHECK(fwrite(&set->slots[i], 8, 1, file) == 1);
    CHECK(fclose(file) == 0);
}

static inline void hashes_read(struct hash_set *set, const char *path) {
    uint64_t hash;
    FILE *file = fopen(path, "rbe");
    if (!file) return; /* of a worker that failed */
    while (fread(&hash, 8, 1, file) == 1) hash_set_add(set, hash);
    fclose(file);
    unlink(path);
}

/* True when all went well.  `results`: WORKERS_MAX of them, each of `size` bytes, shared. */
static inline bool run_workers(work_function *work, char *results, size_t size, uint64_t *distinct) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int workers = processors < 2 ? 1 : processors > WORKERS_MAX ? WORKERS_MAX : (int)processors;
    pid_t pids[WORKERS_MAX];
    char hashes[WORKERS_MAX][128];
    for (int i = 0; i < workers; i++) {
        snprintf(hashes[i], sizeof hashes[i], "%s/hashes-%d", test_scratch, i);
        fflush(stdout);
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i]) continue;
        struct hash_set met = {.count = 0};
        size_t used = strlen(test_scratch);
        snprintf(test_scratch + used, sizeof test_scratch - used, "/%d", i);
        CHECK(mkdir(test_scratch, 0777) == 0);
        work(i, workers, results + (size_t)i * size, &met);
        hashes_write(&met, hashes[i]);
        free(met.slots);
        exit(0);
    }
    bool well = true;
    struct hash_set all = {.count = 0};
    for (int i = 0; i < workers; i++) {
        int status;
        while (waitpid(pids[i], &status, 0) < 0) CHECK(errno == EINTR);
        well = well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (WIFSIGNALED(status)) fprintf(stderr, "a worker died of signal %d\n", WTERMSIG(status));
        hashes_read(&all, hashes[i]);
    }
    *distinct = all.count;
    free(all.slots);
    return well;
}

static inline void *shared_memory(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

#endif
