/*
 * The crash explorer: short programs over a small pool are recorded store by store, every image that
 * a crash could leave is built (all of them where they are few, seeded samples where not), and what
 * recovery makes of each is compared with the states that the program went through.
 *
 * PMLOG_CRASH_SECONDS: how long to go on with random programs (default 20).
 */
#include "programs.h"
#include "workers.h"

/* ---- what is run ---- */

static const char *const scripts[] = {
    "n",         "nsb",      "nxnx",      "ppPoO",   "tta",       "nvk",     "nkskbk",
    "ntKnk",     "npenpe",   "nnnDnk",    "nwkwRwk", "pppCpk",    "nnncnkK", "BBkBBKB",
    "BBBBBBBBB", "nbkatvKk", "ppppkOOOO", "Kk",      "nBcBkDKnB",
};
#define SCRIPTS (sizeof scripts / sizeof scripts[0])

struct result { /* of one worker, in memory shared with the parent */
    uint64_t programs, trials, nested[DEPTH_MAX], repeated;
};

static const char random_letters[] = "nnnsssbbxxppPPoOOttttvvaakkyywwBBcCDReK";

static double seconds;

/* Of one worker: their hashes are kept in memory until the end. */
#define IMAGES_MAX 10000000u

static void work(int worker, int workers, void *shared, struct hash_set *met) {
    struct result *out = shared;
    struct explorer x = {.samples = 12, .limit = UINT64_MAX, .deadline = test_now_s() + 1e6};
    double end = test_now_s() + seconds;
    bool slow = test_under_valgrind();
    uint64_t number = 0, per_script = slow ? 4 : test_under_sanitizer() ? 40 : 250;
    start_programs(&x);
    for (size_t i = 0; i < SCRIPTS; i++)
        for (int fault = 0; fault < MODELS; fault++, number++) {
            if (number % (uint64_t)workers != (uint64_t)worker) continue;
            x.limit = x.trials + per_script;
            run_and_explore(&x, scripts[i], (enum fault_model)fault, PML_CANARY_NONE, false, false,
                            mix64(test_seed ^ number));
            out->programs++;
        }
    x.deadline = end;
    for (; test_now_s() < end && x.distinct.count < IMAGES_MAX; number++) {
        if (number % (uint64_t)workers != (uint64_t)worker) continue;
        struct random random = {mix64(test_seed * 3 + number)};
        char program[24] = {0};
        uint64_t length = 3 + random_below(&random, 18);
        for (uint64_t i = 0; i < length; i++)
            program[i] = random_letters[random_below(&random, sizeof random_letters - 1)];
        x.limit = x.trials + 2000;
        x.samples = 4 + random_below(&random, 12);
        run_and_explore(&x, program, (enum fault_model)random_below(&random, MODELS),
                        PML_CANARY_NONE, false, false, random_word(&random));
        out->programs++;
    }
    out->trials = x.trials;
    out->repeated = x.repeated;
    for (int i = 0; i < DEPTH_MAX; i++) out->nested[i] = x.nested[i];
    *met = x.distinct;
    x.distinct = (struct hash_set){.count = 0};
    end_programs(&x);
}

int main(void) {
    test_start("test_crash");
    const char *given = getenv("PMLOG_CRASH_SECONDS");
    seconds = given ? atof(given) : 20;
    double start = test_now_s();
    struct result *results = shared_memory(sizeof *results * WORKERS_MAX), sum = {.programs = 0};
    uint64_t distinct_images;
    bool failed = !run_workers(work, (char *)results, sizeof *results, &distinct_images);
    for (int i = 0; i < WORKERS_MAX; i++) {
        sum.programs += results[i].programs;
        sum.trials += results[i].trials;
        sum.repeated += results[i].repeated;
        for (int n = 0; n < DEPTH_MAX; n++) sum.nested[n] += results[i].nested[n];
    }
    double took = test_now_s() - start;
    printf("test_crash: %llu programs, %llu images opened, %llu distinct, %llu inside a recovery, "
           "%llu inside the recovery of such a one, %llu met again; %.1f s, %.0f images/s\n",
           (unsigned long long)sum.programs, (unsigned long long)sum.trials,
           (unsigned long long)distinct_images, (unsigned long long)sum.nested[0],
           (unsigned long long)sum.nested[1], (unsigned long long)sum.repeated, took,
           (double)sum.trials / took);
    CHECK(!failed);
    CHECK(distinct_images > 0);
    return 0;
}
