/*
 * Every sequence of up to four operations (PMLOG_SEQUENCE: another number), in every fault model.
 *
 * The alphabet: begin, put, delete, append, savepoint, back to it, abort, commit, checkpoint, grow,
 * close, open.  A sequence is run when each of its operations makes sense where it stands:
 *
 *   - between close and open there is nothing but open, and open stands nowhere else;
 *   - begin outside of a transaction; savepoint, abort and commit inside; back behind a savepoint;
 *   - delete where the dict has something.
 *
 * A crash in any but the last operation is a crash of a shorter sequence, so only the last one is
 * cut; one whose last operation stores nothing has no image of its own.  All three are counted.
 * In fault model "pages" each sequence runs twice, the second time with every sync but the last put
 * off, as group commit may.
 */
#include "programs.h"
#include "workers.h"

static const char alphabet[] = "(nxp[]!)kg/|";
#define LETTERS (sizeof alphabet - 1)
#define LENGTH_MAX 8

struct place { /* what decides which operation makes sense next */
    bool closed, inside, savepoint;
    int entries, entries_before; /* in the dict; when the transaction began */
    int entries_kept;            /* … and at the savepoint */
};

static bool makes_sense(struct place *p, char letter) {
    if (p->closed != (letter == '|')) return false;
    switch (letter) {
    case '|':
        p->closed = false;
        return true;
    case '/':
        if (p->inside) p->entries = p->entries_before;
        *p = (struct place){.closed = true, .entries = p->entries};
        return true;
    case '(':
        if (p->inside) return false;
        p->inside = true;
        p->entries_before = p->entries;
        return true;
    case ')':
    case '!':
        if (!p->inside) return false;
        if (letter == '!') p->entries = p->entries_before;
        p->inside = p->savepoint = false;
        return true;
    case '[':
        if (!p->inside) return false;
        p->savepoint = true;
        p->entries_kept = p->entries;
        return true;
    case ']':
        if (!p->savepoint) return false;
        p->entries = p->entries_kept;
        return true;
    case 'n':
        p->entries++;
        return true;
    case 'x':
        if (!p->entries) return false;
        p->entries--;
        return true;
    default:
        return true;
    }
}

struct result {
    uint64_t sequences, senseless, silent, images, nested[DEPTH_MAX], repeated;
};

struct variant {
    enum fault_model fault;
    bool hold_all;
};
static const struct variant variants[] = {
    {MODEL_KILLED, false}, {MODEL_ORDER, false}, {MODEL_UNITS, false},
    {MODEL_PAGES, false},  {MODEL_PAGES, true},
};
#define VARIANTS (sizeof variants / sizeof variants[0])

static void run_sequence(struct explorer *x, const char *program, struct result *out) {
    out->sequences++;
    for (size_t v = 0; v < VARIANTS; v++)
        if (!run_and_explore(x, program, variants[v].fault, PML_CANARY_NONE, variants[v].hold_all,
                             true, mix64(test_seed)))
            out->silent++;
}

/* What sequences have found; each is mended, and named here so that its story is not lost. */
static void stories(struct explorer *x) {
    /* In domain page a commit syncs the log alone.  When the image had grown for it, a power cut could
     * leave a durable record of a growth beside a file of the old size: recovery made room, but a
     * reader of the pool that nobody had recovered yet called it truncated. */
    run_and_explore(x, "gg", MODEL_PAGES, PML_CANARY_NONE, false, false, mix64(test_seed));
}

static uint64_t length_max = 4;

static void work(int worker, int workers, void *shared, struct hash_set *distinct) {
    struct explorer x = {.samples = 16, .limit = UINT64_MAX, .deadline = test_now_s() + 1e6};
    struct result *out = shared;
    uint64_t number = 0;
    start_programs(&x);
    if (!worker) stories(&x);
    for (uint64_t length = 1; length <= length_max; length++) {
        uint64_t all = 1;
        for (uint64_t i = 0; i < length; i++) all *= LETTERS;
        for (uint64_t code = 0; code < all; code++) {
            char program[LENGTH_MAX + 1] = {0};
            struct place place = {.closed = false};
            bool sense = true;
            uint64_t rest = code;
            for (uint64_t i = 0; i < length; i++, rest /= LETTERS) {
                program[i] = alphabet[rest % LETTERS];
                sense = sense && makes_sense(&place, program[i]);
            }
            if (number++ % (uint64_t)workers != (uint64_t)worker) continue;
            if (sense)
                run_sequence(&x, program, out);
            else
                out->senseless++;
        }
    }
    out->images = x.trials;
    out->repeated = x.repeated;
    for (int i = 0; i < DEPTH_MAX; i++) out->nested[i] = x.nested[i];
    *distinct = x.distinct;
    x.distinct = (struct hash_set){.count = 0};
    end_programs(&x);
}

int main(void) {
    test_start("test_sequences");
    const char *given = getenv("PMLOG_SEQUENCE");
    length_max = given                    ? strtoull(given, NULL, 10)
                 : test_under_valgrind()  ? 1
                 : test_under_sanitizer() ? 2
                                          : 4;
    CHECK(length_max >= 1 && length_max <= LENGTH_MAX);
    struct result *results = shared_memory(sizeof *results * WORKERS_MAX), sum = {.sequences = 0};
    double start = test_now_s();
    uint64_t distinct;
    bool well = run_workers(work, (char *)results, sizeof *results, &distinct);
    for (int i = 0; i < WORKERS_MAX; i++) {
        sum.sequences += results[i].sequences;
        sum.senseless += results[i].senseless;
        sum.silent += results[i].silent;
        sum.images += results[i].images;
        sum.repeated += results[i].repeated;
        for (int n = 0; n < DEPTH_MAX; n++) sum.nested[n] += results[i].nested[n];
    }
    double took = test_now_s() - start;
    printf(
        "test_sequences: %llu sequences of up to %llu operations, %llu that make no sense, %llu "
        "runs that store nothing at their end; %llu images opened, %llu distinct, %llu inside a "
        "recovery, %llu inside the recovery of such a one, %llu met again; %.1f s, %.0f images/s\n",
        (unsigned long long)sum.sequences, (unsigned long long)length_max,
        (unsigned long long)sum.senseless, (unsigned long long)sum.silent,
        (unsigned long long)sum.images, (unsigned long long)distinct,
        (unsigned long long)sum.nested[0], (unsigned long long)sum.nested[1],
        (unsigned long long)sum.repeated, took, (double)sum.images / took);
    CHECK(well);
    CHECK(distinct > 0);
    return 0;
}
