/*
 * Programs over a small pool, a letter an operation, recorded store by store beside a model.
 */
#ifndef PML_TEST_PROGRAMS_H
#define PML_TEST_PROGRAMS_H

#include <errno.h>

#include "explore.h"

struct run {
    struct pml_pool *pool;
    struct pml_container *d, *q, *r;
    struct model model, before, kept;
    struct tape tape;
    struct history history;
    struct random random;
    uint64_t values; /* so that no two values are equal */
    uint32_t domain;
    enum pml_canary canary;
    const char *path;
    uint64_t id; /* of the open transaction */
    bool in_transaction, closed, hold_all;
    int64_t savepoint;     /* -1: none */
    size_t last_begun;     /* events before the last letter's call */
    uint64_t lsn_durable, txn_durable; /* before drains were held */
};

/* The files of a pool that has just been made, before its first store through the ops: what every
 * program begins with, the same for one seed. */
static struct content empty_pool;

static void take_start(struct pml_pool *pool) {
    const int fds[FILES] = {pool->log_fd, pool->image_fd, pool->sums_fd};
    recorder.at_open = NULL;
    for (int f = 0; f < FILES; f++) {
        struct stat st;
        CHECK(fstat(fds[f], &st) == 0);
        empty_pool.size[f] = (uint64_t)st.st_size;
        CHECK(pread(fds[f], empty_pool.bytes[f], (size_t)st.st_size, 0) == st.st_size);
    }
    content_hash(&empty_pool);
}

/* Behind the last fork of this process: memory 0 is the recorded pool's, memory 1 the trial's. */
static void start_programs(struct explorer *x) {
    struct pml_identity identity = {.created_ns = test_seed, .ring_bytes = MEMORY_RING};
    struct pml_options options = crash_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_pool *pool;
    const char *path = scratch_path("empty");
    random_fill(test_seed, identity.pool_id, sizeof identity.pool_id);
    random_fill(mix64(test_seed), identity.hash_seed, sizeof identity.hash_seed);
    options.identity = &identity;
    content_make(&empty_pool);
    recorder.at_open = take_start;
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK(!recorder.at_open);
    CHECK_OK(pml_abandon(pool));
    pml_free(pool);
    remove_tree(path);
    recorder.dirty_count = 0;
    memory_grown = record_growth;
    memory_make(0);
    x->m = memory_make(1);
}

static inline void end_programs(struct explorer *x) {
    memory_free(0);
    memory_free(1);
    content_free(&empty_pool);
    free(x->seen.slots);
    free(x->distinct.slots);
    free(recorder.dirty);
    recorder.dirty = NULL;
    recorder.dirty_count = recorder.dirty_capacity = 0;
}

/* A drain that was held has made nothing durable, whatever the engine believes. */
static void take_back_sync(struct run *run) {
    if (!recorder.hold_drains || run->canary == PML_CANARY_CLAIM_DURABLE) return;
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
    /* Dropped containers are freed by transactions of their own, which change no state. */
    for (; txn && position.txn > txn + 1; txn++) {
        TAPE_ROOM(h->commits, h->capacity, h->count + 1);
        h->commits[h->count] = h->commits[h->count - 1];
        h->commits[h->count].txn = txn + 1;
        h->commits[h->count].begun = begun;
        h->commits[h->count].whole = h->commits[h->count].returned = SIZE_MAX;
        h->count++;
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
    recorder.hold_drains = run->domain == PML_DOMAIN_PAGE &&
                           (run->hold_all || random_below(&run->random, 2)) &&
                           pool->lsn_tail + MEMORY_RING / 2 < pool->ring_limit;
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
    struct pml_options options = crash_pool(run->domain, PML_OPEN_CREATE);
    size_t begun = run->tape.count;
    CHECK_OK(pml_open(run->path, &options, &run->pool));
    if (run->canary == PML_CANARY_EARLY_RECLAIM) run->pool->ring_limit = UINT64_MAX;
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
            if (bytes > 700) bytes = 50; /* growth would not end */
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
    case 'B': /* a value of many KiB: the ring laps, the image grows */
        need_container(run, 'd');
        put(run, 5000u + (uint32_t)random_below(random, 12), 12000 + random_below(random, 12000));
        return true;
    case 'g': { /* a region for which the image has to grow */
        char name[32];
        struct pml_container *c;
        snprintf(name, sizeof name, "g%llu", (unsigned long long)++run->values);
        CHECK_OK(pml_container_open(run->pool, name, strlen(name), PML_TYPE_REGION, 100 * KIB, NULL,
                                    0, &c));
        pml_container_free(c);
        m->grown++;
        return true;
    }
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

/* PML_CANARY_STEAL: what an open transaction has changed is written down as if it were in the image already,
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
    if (run->canary == PML_CANARY_STEAL) steal(run);
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

static void end_transaction(struct run *run) {
    run->in_transaction = false;
    run->savepoint = -1;
}

static void step(struct run *run, char letter) {
    size_t begun = run->last_begun = run->tape.count;
    switch (letter) {
    case '(': /* begin */
        model_copy(&run->before, &run->model);
        CHECK_OK(pml_tx_begin(run->pool, &run->id));
        run->in_transaction = true;
        return;
    case ')': /* commit */
        end_transaction(run);
        CHECK_OK(pml_tx_commit(run->pool, run->id));
        note_commit(run, begun);
        return;
    case '!': /* abort */
        end_transaction(run);
        CHECK_OK(pml_tx_abort(run->pool, run->id));
        model_copy(&run->model, &run->before);
        return;
    case '[': /* savepoint */
        run->savepoint = pml_tx_savepoint(run->pool, run->id);
        CHECK(run->savepoint >= 0);
        model_copy(&run->kept, &run->model);
        return;
    case ']': /* back to it */
        CHECK_OK(pml_tx_rollback(run->pool, run->id, run->savepoint));
        model_copy(&run->model, &run->kept);
        return;
    case '/': /* close, which aborts */
        if (run->in_transaction) model_copy(&run->model, &run->before);
        end_transaction(run);
        forget_containers(run);
        CHECK_OK(pml_close(run->pool));
        pml_free(run->pool);
        run->closed = true;
        return;
    case '|': /* open */
        run->closed = false;
        open_run(run);
        return;
    case 't': /* a transaction of several operations */
    case 'v': /* … with a savepoint and a rollback */
    case 'a': /* … that is aborted */
        transaction(run, letter);
        return;
    case 'k': /* checkpoint */
        CHECK_OK(pml_checkpoint(run->pool));
        return;
    case 'y': { /* checkpoint, as the background thread does: of what is durable already */
        struct pml_pool *pool = run->pool;
        pthread_mutex_lock(&pool->checkpoint_mutex);
        int st = pml_checkpoint_locked(pool, atomic_load(&pool->lsn_durable), false);
        pthread_mutex_unlock(&pool->checkpoint_mutex);
        CHECK_OK(st);
        return;
    }
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
        if (!run->in_transaction) note_commit(run, begun);
    }
}

/* Records the program; what it leaves is compared with the model once more, by the checker too. */
static inline void record_run(struct run *run, const char *program, enum fault_model fault,
                       enum pml_canary canary, bool hold_all, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->random.state = seed;
    run->domain = fault_model_domain[fault];
    run->canary = canary;
    run->hold_all = hold_all;
    run->savepoint = -1;
    run->path = "memory:0";
    memory_load(memories[0], &empty_pool);
    recorder.tape = &run->tape;
    recorder.history = &run->history;
    recorder.canary = canary;
    recorder.log_drains = recorder.log_flushes = recorder.image_stores = 0;
    open_run(run);
    for (const char *letter = program; *letter; letter++) {
        bool last = !letter[1];
        if ((canary == PML_CANARY_NONE || canary == PML_CANARY_CLAIM_DURABLE) && !strchr("ekK/|", *letter) &&
            !(hold_all && last))
            hold_drains(run);
        step(run, *letter);
        if (!run->closed) synced(run);
    }
    recorder.hold_drains = false;
    forget_containers(run);
    if (!run->closed) tape_control(&run->tape, run->pool);
    recorder.tape = NULL;
    recorder.canary = PML_CANARY_NONE;
    recorder.dirty_count = 0;
    if (!run->closed) {
        CHECK_OK(pml_abandon(run->pool));
        pml_free(run->pool);
    }
    if (canary == PML_CANARY_NONE) {
        struct pml_options options = crash_pool(run->domain, PML_OPEN_READ_ONLY);
        struct pml_pool *pool;
        CHECK_OK(pml_open("memory:0", &options, &pool));
        check_pool(pool);
        pml_abandon(pool);
        pml_free(pool);
    }
}

static void free_run(struct run *run) {
    model_free(&run->model);
    model_free(&run->before);
    model_free(&run->kept);
    tape_free(&run->tape);
    free(run->history.commits);
}

/* `last`: cuts within the last letter only, the others are those of a shorter program; false: it
 * stored nothing, so that there are none. */
static inline bool run_and_explore(struct explorer *x, const char *program, enum fault_model fault,
                            enum pml_canary canary, bool hold_all, bool last, uint64_t seed) {
    struct run run;
    record_run(&run, program, fault, canary, hold_all, seed);
    x->fault = fault;
    x->history = &run.history;
    x->random.state = seed ^ 0x5eed;
    x->canary = canary != PML_CANARY_NONE || pml_canary != PML_CANARY_NONE;
    x->from = last ? run.last_begun : 0;
    bool stores = x->from < run.tape.count;
    if (stores) {
        trial_load(x, &empty_pool);
        explore(x, &empty_pool, &run.tape, 0);
    }
    free_run(&run);
    if (x->failure && !x->canary) {
        fprintf(stderr, "program \"%s\", fault model %s, program seed %llu, image %llu: %s\n",
                program, fault_model_names[fault], (unsigned long long)seed,
                (unsigned long long)x->trials, x->failure);
        fprintf(stderr, "PMLOG_SEED=%llu\n", (unsigned long long)test_seed);
        exit(1);
    }
    return stores;
}

#endif
