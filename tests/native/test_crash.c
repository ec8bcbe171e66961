/*
 * The crash explorer: short programs over a small pool are recorded store by store, every image that
 * a crash could leave is built (all of them where they are few, seeded samples where not), and what
 * recovery makes of each is compared with the states that the program went through.
 *
 * Canaries: the same with a recording that misbehaves on purpose; each has to be caught.
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

struct canary_case {
    enum canary canary;
    enum fault_model fault;
    const char *program;
};
static const struct canary_case canary_cases[] = {
    {DROP_LOG_FLUSH, MODEL_UNITS, "nnsnn"},
    {SHORT_LOG_FLUSH, MODEL_UNITS, "nns"},
    {EARLY_LOG_FLUSH, MODEL_UNITS, "nns"},
    {SKIP_LOG_DRAIN, MODEL_UNITS, "nnsnn"},
    {SKIP_LOG_DRAIN, MODEL_PAGES, "nnsnn"},
    {LATE_LOG_DRAIN, MODEL_PAGES, "nnsnn"},
    {LATE_LOG_DRAIN, MODEL_UNITS, "nnsnn"},
    {FLIP_LOG_BIT, MODEL_ORDER, "nnsnnsnn"},
    {DROP_IMAGE_FLUSH, MODEL_UNITS, "nnknn"},
    {DROP_SUMS_FLUSH, MODEL_UNITS, "nnknn"},
    {SKIP_IMAGE_DRAIN, MODEL_UNITS, "nnknn"},
    {SKIP_IMAGE_DRAIN, MODEL_PAGES, "nnknn"},
    {MARK_BEFORE_IMAGE, MODEL_KILLED, "nnknn"},
    {MARK_BEFORE_IMAGE, MODEL_UNITS, "nnknn"},
    {MARK_BEFORE_IMAGE, MODEL_PAGES, "nnknn"},
    {SKIP_MARK_DRAIN, MODEL_UNITS, "BBBBBBBB"},
    {DROP_MARK_FLUSH, MODEL_UNITS, "BBBBBBBB"},
    {DROP_MARK_STORE, MODEL_ORDER, "BBBBBBBB"},
    {DROP_SUMS_STORE, MODEL_ORDER, "nnknn"},
    {DROP_IMAGE_STORE, MODEL_KILLED, "nnknknk"},
    {DROP_ZERO_STORE, MODEL_ORDER, "nwkRknnnwk"},
    {CHECKPOINT_BEFORE_LOG, MODEL_UNITS, "nnknn"},
    {EARLY_RECLAIM, MODEL_KILLED, "BBBBBB"},
    {EARLY_RECLAIM, MODEL_UNITS, "BBBBBB"},
    {STEAL, MODEL_KILLED, "nkanan"},
    {STEAL, MODEL_ORDER, "nktt"},
    {CLAIM_DURABLE, MODEL_PAGES, "nnsnnsnn"},
};
#define CANARY_CASES (sizeof canary_cases / sizeof canary_cases[0])

struct result { /* of one worker, in memory shared with the parent */
    uint64_t programs, trials, nested[DEPTH_MAX], repeated;
    uint64_t canary_trials[CANARY_CASES]; /* images it took; 0: not caught, not run here */
    bool canary_run[CANARY_CASES];
};

static const char random_letters[] = "nnnsssbbxxppPPoOOttttvvaakkkwwBBcCDReK";

/* A canary is a failing run: it ends at the first image that does not come out right. */
static void run_canary(struct explorer *x, const struct canary_case *c, size_t number,
                       struct result *out) {
    uint64_t before = x->trials, limit = x->limit, samples = x->samples;
    for (uint64_t attempt = 0; attempt < 4 && !x->failure; attempt++) {
        x->limit = x->trials + 2000;
        x->samples = 24;
        run_and_explore(x, c->program, c->fault, c->canary, false, false,
                        mix64(test_seed + attempt));
    }
    out->canary_run[number] = true;
    out->canary_trials[number] = x->failure ? x->trials - before : 0;
    if (getenv("PMLOG_VERBOSE"))
        printf("  canary \"%s\", %s: %s\n", canary_names[c->canary], fault_model_names[c->fault],
               x->failure ? x->failure : "SURVIVED");
    x->failure = NULL;
    x->canary = false;
    x->limit = limit;
    x->samples = samples;
}

static double seconds;

static void work(int worker, int workers, void *shared, struct hash_set *met) {
    struct result *out = shared;
    struct explorer x = {.samples = 12, .limit = UINT64_MAX, .deadline = test_now_s() + 1e6};
    double end = test_now_s() + seconds;
    bool slow = test_under_valgrind();
    uint64_t number = 0, per_script = slow ? 4 : test_under_sanitizer() ? 40 : 250;
    struct hash_set distinct = {.count = 0};
    start_programs(&x);
    for (size_t i = 0; i < CANARY_CASES; i++, number++)
        if (number % (uint64_t)workers == (uint64_t)worker && (!slow || i % 9 == 0))
            run_canary(&x, &canary_cases[i], i, out);
    x.trials = x.nested[0] = x.nested[1] = x.repeated =
        0; /* those images were of a broken engine */
    free(x.distinct.slots);
    x.distinct = distinct;
    for (size_t i = 0; i < SCRIPTS; i++)
        for (int fault = 0; fault < MODELS; fault++, number++) {
            if (number % (uint64_t)workers != (uint64_t)worker) continue;
            x.limit = x.trials + per_script;
            run_and_explore(&x, scripts[i], (enum fault_model)fault, CANARY_NONE, false, false,
                            mix64(test_seed ^ number));
            out->programs++;
        }
    x.deadline = end;
    for (; test_now_s() < end; number++) {
        if (number % (uint64_t)workers != (uint64_t)worker) continue;
        struct random random = {mix64(test_seed * 3 + number)};
        char program[24] = {0};
        uint64_t length = 3 + random_below(&random, 18);
        for (uint64_t i = 0; i < length; i++)
            program[i] = random_letters[random_below(&random, sizeof random_letters - 1)];
        x.limit = x.trials + 2000;
        x.samples = 4 + random_below(&random, 12);
        run_and_explore(&x, program, (enum fault_model)random_below(&random, MODELS), CANARY_NONE,
                        false, false, random_word(&random));
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
        for (size_t c = 0; c < CANARY_CASES; c++) {
            sum.canary_run[c] = sum.canary_run[c] || results[i].canary_run[c];
            sum.canary_trials[c] += results[i].canary_trials[c];
        }
    }
    size_t caught = 0, run = 0;
    for (size_t c = 0; c < CANARY_CASES; c++) {
        run += sum.canary_run[c];
        caught += sum.canary_trials[c] != 0;
        if (!sum.canary_run[c] || sum.canary_trials[c]) continue;
        fprintf(stderr, "a canary survived: %s (fault model %s, program \"%s\")\n",
                canary_names[canary_cases[c].canary], fault_model_names[canary_cases[c].fault],
                canary_cases[c].program);
        failed = true;
    }
    double took = test_now_s() - start;
    printf("test_crash: %llu programs, %llu images opened, %llu distinct, %llu inside a recovery, "
           "%llu inside the recovery of such a one, %llu met again; %zu of %zu canaries caught; "
           "%.1f s, %.0f images/s\n",
           (unsigned long long)sum.programs, (unsigned long long)sum.trials,
           (unsigned long long)distinct_images, (unsigned long long)sum.nested[0],
           (unsigned long long)sum.nested[1], (unsigned long long)sum.repeated, caught, run, took,
           (double)sum.trials / took);
    CHECK(!failed);
    CHECK(caught == run && run > 0 && distinct_images > 0);
    return 0;
}
