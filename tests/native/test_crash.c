/*
 * The crash explorer: short programs over a small pool are recorded store by store, every image that
 * a crash could leave is built (all of them where they are few, seeded samples where not), and what
 * recovery makes of each is compared with the states that the program went through.
 *
 * Canaries: the same with a recording that misbehaves on purpose; each has to be caught.
 *
 * PMLOG_CRASH_SECONDS: how long to go on with random programs (default 20).
 */
#include <errno.h>
#include <sys/wait.h>

#include "explore.h"

/* ---- programs: a letter an operation ---- */

struct run {
    struct pml_pool *pool;
    struct pml_container *d, *q, *r;
    struct model model, before, kept;
    struct tape tape;
    struct history history;
    struct content start; /* the files before the first store */
    struct random random;
    uint64_t values; /* so that no two values are equal */
    char path[256];
    uint32_t domain;
    enum canary canary;
    bool in_transaction;
    uint64_t lsn_durable, txn_durable; /* before drains were held */
};

static struct run *running;

/* The files are there and nothing has been stored through the ops yet: what crash images begin with. */
static void take_start(struct pml_pool *pool) {
    const int fds[FILES] = {pool->log_fd, pool->image_fd, pool->sums_fd};
    recorder.at_open = NULL;
    for (int f = 0; f < FILES; f++) {
        struct stat st;
        CHECK(fstat(fds[f], &st) == 0);
        running->start.size[f] = (uint64_t)st.st_size;
        CHECK(pread(fds[f], running->start.bytes[f], (size_t)st.st_size, 0) == st.st_size);
    }
    content_hash(&running->start);
}

/* A drain that was held has made nothing durable, whatever the engine believes. */
static void take_back_sync(struct run *run) {
    if (!recorder.hold_drains || run->canary == CLAIM_DURABLE) return;
    atomic_store(&run->pool->lsn_durable, run->lsn_durable);
    run->pool->control->lsn_durable = run->lsn_durable;
    run->pool->control->txn_durable = run->txn_durable;
}

/* A call has returned: if it committed, the state is noted. */
static void note_commit(struct run *run, size_t begun) {
    struct pml_position position;
    struct history *h = &run->history;
    CHECK_OK(pml_position(run->pool, &position));
    uint64_t txn = h->count ? h->commits[h->count - 1].txn : 0;
    if (position.txn == txn) {
        take_back_sync(run); /* a transaction without a change asks for a sync too */
        return;
    }
    CHECK(position.txn == txn + 1);
    size_t whole = run->tape.count;
    while (whole > begun && !(run->tape.events[whole - 1].kind == EVENT_STORE &&
                              run->tape.events[whole - 1].file == FILE_LOG))
        whole--;
    TAPE_ROOM(h->commits, h->capacity, h->count + 1);
    h->commits[h->count++] = (struct commit){.txn = position.txn,
                                             .digest = model_digest(&run->model),
                                             .begun = begun,
                                             .whole = whole,
                                             .returned = run->tape.count};
    if (recorder.hold_drains) { /* appended, not synced: as other threads' records are */
        h->commits[h->count - 1].returned = SIZE_MAX;
    }
    take_back_sync(run);
    uint64_t digest;
    CHECK_OK(pool_digest(run->pool, &digest));
    CHECK(digest == h->commits[h->count - 1].digest);
}

/* Group commit: in domain page other threads append while one syncs, so that several records are
 * pending at once.  One thread does the same when the sync of its commit is put off to the next. */
static void hold_drains(struct run *run) {
    struct pml_pool *pool = run->pool;
    recorder.hold_drains = run->domain == PML_DOMAIN_PAGE && random_below(&run->random, 2) &&
                           pool->lsn_tail + 200 * KIB < pool->ring_limit;
    run->lsn_durable = atomic_load(&pool->lsn_durable);
    run->txn_durable = pool->control->txn_durable;
}

static void synced(struct run *run) {
    recorder.hold_drains = false;
    if (atomic_load(&run->pool->lsn_durable) != run->pool->lsn_tail) return;
    for (size_t i = run->history.count; i-- > 0 && run->history.commits[i].returned == SIZE_MAX;)
        run->history.commits[i].returned = run->tape.count;
}

static void forget_containers(struct run *run) {
    pml_container_free(run->d);
    pml_container_free(run->q);
    pml_container_free(run->r);
    run->d = run->q = run->r = NULL;
}

static void open_run(struct run *run) {
    struct pml_options options = small_pool(run->domain, PML_OPEN_CREATE);
    size_t begun = run->tape.count;
    CHECK_OK(pml_open(run->path, &options, &run->pool));
    if (run->canary == EARLY_RECLAIM) run->pool->ring_limit = UINT64_MAX;
    note_commit(run, begun);
}

static void need_container(struct run *run, char which) {
    struct pml_container **c = which == 'd' ? &run->d : which == 'q' ? &run->q : &run->r;
    bool *has = which == 'd'   ? &run->model.has_dict
                : which == 'q' ? &run->model.has_deque
                               : &run->model.has_region;
    if (*c && *has) return;
    size_t begun = run->tape.count;
    const char name[2] = {which, 0};
    uint32_t type = which == 'd' ? PML_TYPE_DICT : which == 'q' ? PML_TYPE_DEQUE : PML_TYPE_REGION;
    pml_container_free(*c);
    CHECK_OK(open_named(run->pool, name, type, c));
    if (!*has) {
        *has = true;
        if (which == 'd') run->model.entry_count = 0;
        if (which == 'q') run->model.item_count = 0;
        if (which == 'r') memset(run->model.region, 0, sizeof run->model.region);
    }
    if (!run->in_transaction) note_commit(run, begun);
}

static char value_buffer[MODEL_VALUE_MAX];

static struct model_value new_value(struct run *run, uint64_t length) {
    return value_bytes(mix64(test_seed) + ++run->values, length, value_buffer);
}

static void put(struct run *run, uint32_t key, uint64_t length) {
    char bytes[300];
    uint64_t word = key_bytes(key, bytes);
    struct model_value value = new_value(run, length);
    model_put(&run->model, key, value);
    CHECK_OK(pml_dict_set(run->d, bytes, word, value_buffer, value.word));
}

static void push(struct run *run, int left, uint64_t length) {
    struct model_value value = new_value(run, length);
    model_insert(&run->model, left ? 0 : run->model.item_count, value);
    CHECK_OK(pml_deque_push(run->q, left, value_buffer, value.word));
}

/* One letter; true if it may stand inside a transaction. */
static bool step_inside(struct run *run, char letter) {
    struct model *m = &run->model;
    struct random *random = &run->random;
    uint32_t known =
        m->has_dict && m->entry_count ? m->entries[random_below(random, m->entry_count)].key : 0;
    char key[300];
    switch (letter) {
    case 'n': /* new key */
        need_container(run, 'd');
        put(run, 1000u + (uint32_t)run->values, 1 + random_below(random, 60));
        return true;
    case 's': /* overwrite, same size */
    case 'b': /* overwrite, bigger */
        need_container(run, 'd');
        if (!m->entry_count)
            put(run, 1, 8);
        else {
            size_t at = model_find(m, known);
            uint64_t bytes = PML_VALUE_BYTES(m->entries[at].value.word);
            if (bytes > 3000) bytes = 100; /* growth would not end */
            put(run, known, letter == 's' ? bytes : 2 * bytes + 40);
        }
        return true;
    case 'x': /* delete */
        need_container(run, 'd');
        if (!m->entry_count) return true;
        model_delete(m, known);
        CHECK_OK(pml_dict_delete(run->d, key, key_bytes(known, key)));
        return true;
    case 'p': /* push */
    case 'P':
        need_container(run, 'q');
        push(run, letter == 'P', 1 + random_below(random, 100));
        return true;
    case 'o': /* pop */
    case 'O':
        need_container(run, 'q');
        if (!m->item_count) return true;
        model_erase(m, letter == 'O' ? 0 : m->item_count - 1);
        CHECK(pml_deque_pop(run->q, letter == 'O', value_buffer, sizeof value_buffer) > 0);
        return true;
    case 'w': { /* write into the region */
        need_container(run, 'r');
        uint64_t length = 1 + random_below(random, 300);
        uint64_t at = random_below(random, MODEL_REGION_BYTES - length);
        new_value(run, length);
        memcpy(m->region + at, value_buffer, length);
        CHECK_OK(pml_bytes_write(run->r, at, value_buffer, length));
        return true;
    }
    case 'B': /* a value of tens of KiB: the ring laps, the image grows */
        need_container(run, 'd');
        put(run, 5000u + (uint32_t)random_below(random, 12), 50000 + random_below(random, 50000));
        return true;
    case 'c': /* clear the dict */
        need_container(run, 'd');
        m->entry_count = 0;
        CHECK_OK(pml_dict_clear(run->d));
        return true;
    case 'C': /* clear the deque */
        need_container(run, 'q');
        m->item_count = 0;
        CHECK_OK(pml_deque_clear(run->q));
        return true;
    case 'D': /* drop the dict */
        if (!m->has_dict) return true;
        m->has_dict = false;
        CHECK_OK(pml_container_drop(run->pool, "d", 1));
        return true;
    case 'R': /* drop the region */
        if (!m->has_region) return true;
        m->has_region = false;
        CHECK_OK(pml_container_drop(run->pool, "r", 1));
        return true;
    default:
        return false;
    }
}

/* STEAL: what an open transaction has changed is written down as if it were in the image already,
 * sums included. */
static void steal(struct run *run) {
    struct pml_pool *pool = run->pool;
    for (uint64_t page = PML_BODY_OFFSET / PML_PAGE; page < pool->image_bytes / PML_PAGE; page++) {
        if (pool->stamps[page] != (pool->lsn_tail | 1)) continue;
        const char *bytes = pool->image + page * PML_PAGE;
        uint32_t sum = pml_page_sum(bytes);
        tape_store(&run->tape, pool, FILE_IMAGE, page * PML_PAGE, bytes, PML_PAGE);
        tape_store(&run->tape, pool, FILE_SUMS, PML_SUMS_OFFSET + 4 * page, &sum, sizeof sum);
    }
}

static const char inside_letters[] = "nsbxpPoOwnpB";

static void several_steps(struct run *run) {
    uint64_t steps = 1 + random_below(&run->random, 4);
    while (steps--)
        step_inside(run, inside_letters[random_below(&run->random, sizeof inside_letters - 2)]);
}

static void transaction(struct run *run, char letter) {
    uint64_t id;
    model_copy(&run->before, &run->model);
    CHECK_OK(pml_tx_begin(run->pool, &id));
    run->in_transaction = true;
    size_t begun = run->tape.count;
    several_steps(run);
    if (letter == 'v') {
        int64_t savepoint = pml_tx_savepoint(run->pool, id);
        CHECK(savepoint >= 0);
        model_copy(&run->kept, &run->model);
        several_steps(run);
        CHECK_OK(pml_tx_rollback(run->pool, id, savepoint));
        model_copy(&run->model, &run->kept);
        several_steps(run);
    }
    if (run->canary == STEAL) steal(run);
    run->in_transaction = false;
    if (letter == 'a') {
        CHECK_OK(pml_tx_abort(run->pool, id));
        model_copy(&run->model, &run->before);
        uint64_t digest;
        CHECK_OK(pool_digest(run->pool, &digest));
        CHECK(digest == model_digest(&run->model));
    } else {
        CHECK_OK(pml_tx_commit(run->pool, id));
        note_commit(run, begun);
    }
}

static void step(struct run *run, char letter) {
    size_t begun = run->tape.count;
    switch (letter) {
    case 't': /* a transaction of several operations */
    case 'v': /* … with a savepoint and a rollback */
    case 'a': /* … that is aborted */
        transaction(run, letter);
        return;
    case 'k': /* checkpoint */
        CHECK_OK(pml_checkpoint(run->pool));
        return;
    case 'e': /* close, open */
        forget_containers(run);
        CHECK_OK(pml_close(run->pool));
        pml_free(run->pool);
        open_run(run);
        return;
    case 'K': /* killed, open */
        forget_containers(run);
        CHECK_OK(pml_abandon(run->pool));
        pml_free(run->pool);
        open_run(run);
        return;
    default:
        CHECK(step_inside(run, letter));
        note_commit(run, begun);
    }
}

static void record_run(struct run *run, const char *program, enum fault_model fault,
                       enum canary canary, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->random.state = seed;
    run->domain = fault_model_domain[fault];
    run->canary = canary;
    snprintf(run->path, sizeof run->path, "%s", scratch_path("recorded"));
    content_make(&run->start);
    running = run;
    recorder.tape = &run->tape;
    recorder.history = &run->history;
    recorder.at_open = take_start;
    recorder.canary = canary;
    recorder.log_drains = recorder.log_flushes = recorder.image_stores = 0;
    open_run(run);
    for (const char *letter = program; *letter; letter++) {
        if ((canary == CANARY_NONE || canary == CLAIM_DURABLE) && !strchr("ekK", *letter))
            hold_drains(run);
        step(run, *letter);
        synced(run);
    }
    forget_containers(run);
    tape_control(&run->tape, run->pool);
    recorder.tape = NULL;
    recorder.canary = CANARY_NONE;
    recorder.dirty_count = 0;
    CHECK_OK(pml_abandon(run->pool));
    pml_free(run->pool);
    if (canary == CANARY_NONE) check_closed_pool(run->path);
    remove_tree(run->path);
}

static void free_run(struct run *run) {
    model_free(&run->model);
    model_free(&run->before);
    model_free(&run->kept);
    tape_free(&run->tape);
    free(run->history.commits);
    content_free(&run->start);
}

static void run_and_explore(struct explorer *x, const char *program, enum fault_model fault,
                            enum canary canary, uint64_t seed) {
    struct run run;
    record_run(&run, program, fault, canary, seed);
    x->fault = fault;
    x->history = &run.history;
    x->random.state = seed ^ 0x5eed;
    x->canary = canary != CANARY_NONE;
    trial_load(x, &run.start);
    explore(x, &run.start, &run.tape, false, 0);
    free_run(&run);
    if (x->failure && !x->canary) {
        fprintf(stderr, "program \"%s\", fault model %s, program seed %llu, image %llu: %s\n",
                program, fault_model_names[fault], (unsigned long long)seed,
                (unsigned long long)x->trials, x->failure);
        fprintf(stderr, "PMLOG_SEED=%llu\n", (unsigned long long)test_seed);
        exit(1);
    }
}

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
    uint64_t programs, trials, distinct, nested, repeated;
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
        run_and_explore(x, c->program, c->fault, c->canary, mix64(test_seed + attempt));
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

static void work(int worker, int workers, double seconds, struct result *out) {
    struct explorer x = {.samples = 12, .limit = UINT64_MAX, .deadline = test_now_s() + 1e6};
    double end = test_now_s() + seconds;
    bool slow = test_under_valgrind();
    uint64_t number = 0, per_script = slow ? 4 : test_under_sanitizer() ? 40 : 250;
    struct hash_set distinct = {.count = 0};
    trial_make(&x, worker);
    for (size_t i = 0; i < CANARY_CASES; i++, number++)
        if (number % (uint64_t)workers == (uint64_t)worker && (!slow || i % 9 == 0))
            run_canary(&x, &canary_cases[i], i, out);
    uint64_t canary_trials = x.trials;
    x.trials = x.nested = x.repeated = 0; /* those images were of a broken engine */
    free(x.distinct.slots);
    x.distinct = distinct;
    for (size_t i = 0; i < SCRIPTS; i++)
        for (int fault = 0; fault < MODELS; fault++, number++) {
            if (number % (uint64_t)workers != (uint64_t)worker) continue;
            x.limit = x.trials + per_script;
            run_and_explore(&x, scripts[i], (enum fault_model)fault, CANARY_NONE,
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
                        random_word(&random));
        out->programs++;
    }
    out->trials = x.trials;
    out->distinct = x.distinct.count;
    out->nested = x.nested;
    out->repeated = x.repeated;
    (void)canary_trials;
    for (int f = 0; f < FILES; f++) close(x.fd[f]);
    free(x.seen.slots);
    free(x.distinct.slots);
    free(recorder.dirty);
}

int main(void) {
    test_start("test_crash");
    const char *given = getenv("PMLOG_CRASH_SECONDS");
    double seconds = given ? atof(given) : 20, start = test_now_s();
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int workers = processors < 2 ? 1 : processors > 8 ? 8 : (int)processors;
    struct result *results =
        mmap(NULL, sizeof *results * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(results != MAP_FAILED);
    pid_t pids[8];
    for (int i = 0; i < workers; i++) {
        fflush(stdout);
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            /* each in a directory of its own */
            size_t used = strlen(test_scratch);
            snprintf(test_scratch + used, sizeof test_scratch - used, "/%d", i);
            CHECK(mkdir(test_scratch, 0777) == 0);
            work(i, workers, seconds, &results[i]);
            exit(0);
        }
    }
    bool failed = false;
    for (int i = 0; i < workers; i++) {
        int status;
        while (waitpid(pids[i], &status, 0) < 0) CHECK(errno == EINTR);
        failed = failed || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        if (WIFSIGNALED(status)) fprintf(stderr, "a worker died of signal %d\n", WTERMSIG(status));
    }
    struct result sum = {.programs = 0};
    for (int i = 0; i < workers; i++) {
        sum.programs += results[i].programs;
        sum.trials += results[i].trials;
        sum.distinct += results[i].distinct;
        sum.nested += results[i].nested;
        sum.repeated += results[i].repeated;
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
           "%llu met again; %zu of %zu canaries caught; %.1f s, %.0f images/s\n",
           (unsigned long long)sum.programs, (unsigned long long)sum.trials,
           (unsigned long long)sum.distinct, (unsigned long long)sum.nested,
           (unsigned long long)sum.repeated, caught, run, took, (double)sum.trials / took);
    CHECK(!failed);
    CHECK(caught == run && run > 0 && sum.distinct > 0);
    return 0;
}
