/*
 * Every canary of canary.h is switched on in turn; some test has to fail for it.
 *
 * The crash explorer comes first (over the canary's own programs, then over all of them), then the
 * other native tests, each as a process of its own with PMLOG_CANARY in its environment, then the
 * explorer with more images.  A fault
 * shows as a wrong image, as a failed check while a program runs, as a death, or as no end (a limit
 * of processor time).  Without a canary all of that passes; that is looked at first.
 *
 * Printed is a table: canary, which tier caught it, after how many images.  A survivor fails the
 * test, unless it stands in `allowed` with its reason.
 *
 * PMLOG_CANARY_REPORT=FILE: a line of JSON for each is added to the file.
 */
#include <libgen.h>
#include <sys/resource.h>

#include "programs.h"
#include "workers.h"

#define CPU_LIMIT_S 30
#define IMAGES_FEW 60 /* of one program, at first */
#define IMAGES_MANY 600
#define EXIT_IMAGE 40 /* the explorer found a wrong image */

struct canary_case {
    enum pml_canary canary;
    enum fault_model fault;
    const char *program;
};
static const struct canary_case cases[] = {
    {PML_CANARY_DROP_LOG_FLUSH, MODEL_UNITS, "nnsnn"},
    {PML_CANARY_SHORT_LOG_FLUSH, MODEL_UNITS, "nns"},
    {PML_CANARY_EARLY_LOG_FLUSH, MODEL_UNITS, "nns"},
    {PML_CANARY_SKIP_LOG_DRAIN, MODEL_UNITS, "nnsnn"},
    {PML_CANARY_SKIP_LOG_DRAIN, MODEL_PAGES, "nnsnn"},
    {PML_CANARY_LATE_LOG_DRAIN, MODEL_PAGES, "nnsnn"},
    {PML_CANARY_LATE_LOG_DRAIN, MODEL_UNITS, "nnsnn"},
    {PML_CANARY_FLIP_LOG_BIT, MODEL_ORDER, "nnsnnsnn"},
    {PML_CANARY_DROP_IMAGE_FLUSH, MODEL_UNITS, "nnknn"},
    {PML_CANARY_DROP_SUMS_FLUSH, MODEL_UNITS, "nnknn"},
    {PML_CANARY_SKIP_IMAGE_DRAIN, MODEL_UNITS, "nnknn"},
    {PML_CANARY_SKIP_IMAGE_DRAIN, MODEL_PAGES, "nnknn"},
    {PML_CANARY_MARK_BEFORE_IMAGE, MODEL_KILLED, "nnknn"},
    {PML_CANARY_MARK_BEFORE_IMAGE, MODEL_UNITS, "nnknn"},
    {PML_CANARY_MARK_BEFORE_IMAGE, MODEL_PAGES, "nnknn"},
    {PML_CANARY_SKIP_MARK_DRAIN, MODEL_UNITS, "BBBBBBBB"},
    {PML_CANARY_DROP_MARK_FLUSH, MODEL_UNITS, "BBBBBBBB"},
    {PML_CANARY_DROP_MARK_STORE, MODEL_ORDER, "BBBBBBBB"},
    {PML_CANARY_DROP_SUMS_STORE, MODEL_ORDER, "nnknn"},
    {PML_CANARY_DROP_IMAGE_STORE, MODEL_KILLED, "nnknknk"},
    {PML_CANARY_DROP_ZERO_STORE, MODEL_ORDER, "nwkRknnnwk"},
    {PML_CANARY_CHECKPOINT_BEFORE_LOG, MODEL_UNITS, "nnknn"},
    {PML_CANARY_EARLY_RECLAIM, MODEL_KILLED, "BBBBBB"},
    {PML_CANARY_EARLY_RECLAIM, MODEL_UNITS, "BBBBBB"},
    {PML_CANARY_STEAL, MODEL_KILLED, "nkanan"},
    {PML_CANARY_STEAL, MODEL_ORDER, "nktt"},
    {PML_CANARY_CLAIM_DURABLE, MODEL_PAGES, "nnsnnsnn"},
    {PML_CANARY_RECORD_SUM_UNCHECKED, MODEL_UNITS, "nns"},
    {PML_CANARY_PUBLISH_BEFORE_DRAIN, MODEL_UNITS, "nns"},
    {PML_CANARY_SYNC_AFTER_PUBLISH, MODEL_PAGES, "nns"},
    {PML_CANARY_COMMIT_NOT_SYNCED, MODEL_PAGES, "nns"},
    {PML_CANARY_MARK_SUM_UNCHECKED, MODEL_UNITS, "nkBBBkBBk"},
    {PML_CANARY_MARK_SAME_SLOT, MODEL_UNITS, "BBBBBBBBB"},
    {PML_CANARY_CHECKPOINT_PUBLISHED_EARLY, MODEL_UNITS, "nnknn"},
    {PML_CANARY_IMAGE_NOT_DRAINED, MODEL_UNITS, "nnknn"},
    {PML_CANARY_GROWTH_NOT_SYNCED, MODEL_PAGES, "gg"},
    {PML_CANARY_FOUND_NOT_DRAINED, MODEL_PAGES, "nnKnn"},
    {PML_CANARY_IMAGE_WORD_FORGOTTEN, MODEL_KILLED, "nnknnk"},
    {PML_CANARY_SESSION_KEPT, MODEL_UNITS, "nnennenn"},
    {PML_CANARY_CHECKPOINT_BEYOND_DURABLE, MODEL_PAGES, "nnynn"},
};
#define CASES (sizeof cases / sizeof cases[0])

/* What every canary of the engine is tried on besides. */
static const char *const programs[] = {"nnsnnk", "BBBBBBBBB", "nwkRwkK",  "(n[x]n)xnx",
                                       "tavtK",  "gngKg",     "ppPoOknxe"};
static const char *const tests[] = {"test_log",     "test_duties", "test_containers",
                                    "test_replica", "test_commit", "test_follow"};
#define TESTS ((int)(sizeof tests / sizeof tests[0]))

/* Why a fault need not be seen; at most one in twenty. */
static const struct {
    enum pml_canary canary;
    const char *reason;
} allowed_survivors[] = {
    {PML_CANARY_NONE, "none: every canary is caught"},
};

struct verdict {
    bool run, caught;
    char tier[48];
    uint64_t images;
};

struct shared {
    uint64_t images; /* of the child that runs just now */
    struct verdict verdicts[PML_CANARY_COUNT];
};

static const struct {
    const char *where, *breaks;
} registry[] = {
#define CANARY_ROW(name, where, breaks) {#where, breaks},
    {"", ""}, PML_CANARIES(CANARY_ROW)};

static char folder[256]; /* of the tests' programs */
static struct explorer *counted;
static struct shared *count_here;

static void tell_images(void) {
    if (counted && count_here) count_here->images = counted->trials;
}

static bool is_medium(enum pml_canary canary) { return !strcmp(registry[canary].where, "medium"); }

static void explore_case(struct explorer *x, const struct canary_case *c, uint64_t attempts,
                         uint64_t images) {
    bool medium = is_medium(c->canary);
    for (uint64_t attempt = 0; attempt < attempts; attempt++) {
        x->limit = x->trials + images;
        run_and_explore(x, c->program, c->fault, medium ? c->canary : PML_CANARY_NONE,
                        c->fault == MODEL_PAGES && attempt % 2, false, mix64(test_seed + attempt));
        if (x->failure) exit(EXIT_IMAGE);
    }
}

/* In a child: the explorer, over one case or over every program. */
static void explore_canary(enum pml_canary canary, uint64_t images, struct shared *out) {
    static struct explorer x = {.samples = 24, .limit = UINT64_MAX};
    x.deadline = test_now_s() + 1e6;
    start_programs(&x);
    counted = &x;
    count_here = out;
    atexit(tell_images);
    if (!is_medium(canary)) pml_canary = canary;
    x.canary = canary != PML_CANARY_NONE;
    for (size_t i = 0; i < CASES; i++)
        if (cases[i].canary == canary) explore_case(&x, &cases[i], 4, 2000);
    for (size_t i = 0; i < sizeof programs / sizeof programs[0] && !is_medium(canary); i++)
        for (int fault = 0; fault < MODELS; fault++) {
            struct canary_case c = {canary, (enum fault_model)fault, programs[i]};
            explore_case(&x, &c, fault == MODEL_PAGES ? 2 : 1, images);
        }
    exit(0);
}

static void run_test(const char *name, enum pml_canary canary) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    setenv("PMLOG_CANARY", canary == PML_CANARY_NONE ? "" : canary_names[canary], 1);
    execl(path, name, (char *)NULL);
    fprintf(stderr, "cannot run %s\n", path);
    exit(99);
}

/* The exit status as waitpid gives it; test < 0 or >= TESTS: the explorer. */
static int in_child(enum pml_canary canary, int test, struct shared *out) {
    out->images = 0;
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        struct rlimit cpu = {CPU_LIMIT_S, CPU_LIMIT_S}, core = {0, 0};
        setrlimit(RLIMIT_CPU, &cpu);
        setrlimit(RLIMIT_CORE, &core);
        if (canary != PML_CANARY_NONE && !getenv("PMLOG_VERBOSE"))
            CHECK(freopen("/dev/null", "w", stderr) && freopen("/dev/null", "w", stdout));
        if (test < 0 || test >= TESTS)
            explore_canary(canary, test < 0 ? IMAGES_FEW : IMAGES_MANY, out);
        else
            run_test(tests[test], canary);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0) CHECK(errno == EINTR);
    CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 99);
    return status;
}

static void try_canary(enum pml_canary canary, struct shared *out) {
    struct verdict *v = &out->verdicts[canary];
    v->run = true;
    for (int test = -1; test <= TESTS && !v->caught; test++) {
        bool explores = test < 0 || test >= TESTS;
        if (test >= 0 && is_medium(canary)) break; /* it is the recording that is broken */
        int status = in_child(canary, test, out);
        v->images += out->images;
        if (status == 0) continue;
        v->caught = true;
        snprintf(v->tier, sizeof v->tier, "%s%s", explores ? "crash images" : tests[test],
                 WIFSIGNALED(status) ? WTERMSIG(status) == SIGXCPU ? " (no end)" : " (died)"
                 : explores && WEXITSTATUS(status) != EXIT_IMAGE ? " (while it ran)"
                                                                 : "");
    }
}

static void work(int worker, int workers, void *shared, struct hash_set *distinct) {
    struct shared *out = shared;
    (void)distinct;
    /* First: without a canary nothing fails. */
    for (int test = -1; test < TESTS; test++)
        if ((test + 1) % workers == worker) CHECK(in_child(PML_CANARY_NONE, test, out) == 0);
    int step = test_under_valgrind() ? 40 : test_under_sanitizer() ? 12 : 1;
    for (int i = 1; i < PML_CANARY_COUNT; i++)
        if (i % step == 0 && i / step % workers == worker) try_canary((enum pml_canary)i, out);
}

static const char *reason_of(enum pml_canary canary) {
    for (size_t i = 0; i < sizeof allowed_survivors / sizeof allowed_survivors[0]; i++)
        if (canary && allowed_survivors[i].canary == canary) return allowed_survivors[i].reason;
    return NULL;
}

int main(int argc, char **argv) {
    test_start("test_canaries");
    CHECK(argc == 1);
    char self[256];
    snprintf(self, sizeof self, "%s", argv[0]);
    snprintf(folder, sizeof folder, "%s", dirname(self));
    struct shared *results = shared_memory(sizeof *results * WORKERS_MAX);
    uint64_t none;
    double start = test_now_s();
    CHECK(run_workers(work, (char *)results, sizeof *results, &none));
    const char *path = getenv("PMLOG_CANARY_REPORT");
    FILE *report = path ? fopen(path, "ae") : NULL;
    int run = 0, caught = 0, excused = 0;
    printf("%-28s %-8s %-32s %8s  %s\n", "canary", "where", "caught by", "images",
           "what it breaks");
    for (int i = 1; i < PML_CANARY_COUNT; i++) {
        const struct verdict *v = NULL;
        for (int w = 0; w < WORKERS_MAX; w++)
            if (results[w].verdicts[i].run) v = &results[w].verdicts[i];
        if (!v) continue;
        const char *reason = reason_of((enum pml_canary)i);
        run++;
        caught += v->caught;
        excused += !v->caught && reason;
        const char *tier = v->caught ? v->tier : reason ? reason : "SURVIVED";
        printf("%-28s %-8s %-32s %8llu  %s\n", canary_names[i], registry[i].where, tier,
               (unsigned long long)v->images, registry[i].breaks);
        if (report)
            fprintf(report,
                    "{\"canary\": \"%s\", \"where\": \"%s\", \"breaks\": \"%s\", \"caught\": %s, "
                    "\"by\": \"%s\", \"images\": %llu}\n",
                    canary_names[i], registry[i].where, registry[i].breaks,
                    v->caught ? "true" : "false", tier, (unsigned long long)v->images);
    }
    if (report) fclose(report);
    printf("test_canaries: %d of %d canaries caught, %d allowed to survive; %.1f s\n", caught, run,
           excused, test_now_s() - start);
    CHECK(run > 0 && caught + excused == run && 20 * excused <= run);
    return 0;
}
