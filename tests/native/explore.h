/*
 * From a tape to the images that a crash could leave, and what the engine must make of each.
 *
 * The fault model, per domain:
 *   MODEL_KILLED  a process dies, the page cache lives: stores take effect in order, a copy may be
 *                 cut at any byte; the control words are there as they stood
 *   MODEL_ORDER   eadr: the same for the bytes, but a power cut: control is gone
 *   MODEL_UNITS   adr: what was flushed before a drain of its files is there; of all other stores
 *                 any subset of aligned 8-byte units
 *   MODEL_PAGES   page: what was stored before a drain of its files is there; of all other pages of
 *                 4 KiB any, each as it stood at some moment since, torn at 512 bytes
 * A file that grew since its last drain may have its old size or its new one, until the engine has
 * synced that.  The drain of the log
 * says nothing about image and sums, nor the other way round, though the hardware would.
 *
 * For each image: the pool opens; its state is that after a transaction j, durable <= j <= begun;
 * the checker finds no fault; one more transaction works and survives another power cut.
 */
#ifndef PML_TEST_EXPLORE_H
#define PML_TEST_EXPLORE_H

#include "record.h"

#define NESTED_MAX 60u    /* images of cuts inside one recovery */
#define DEPTH_MAX 2       /* a recovery of a cut inside a recovery is cut too */

enum fault_model { MODEL_KILLED, MODEL_ORDER, MODEL_UNITS, MODEL_PAGES, MODELS };
static const char *const fault_model_names[MODELS] = {"killed", "order", "units", "pages"};
static const uint32_t fault_model_domain[MODELS] = {PML_DOMAIN_EMULATED, PML_DOMAIN_EADR,
                                                    PML_DOMAIN_ADR, PML_DOMAIN_PAGE};

struct content {          /* three files in memory */
    char *bytes[FILES];
    uint64_t size[FILES];
    uint64_t hash;        /* XOR over the hashes of all 8-byte words and their places */
};

struct piece {            /* a store that may not have reached the medium: within one cache line */
    uint8_t file, size;
    bool flushed;
    uint64_t offset;
    const char *bytes;
};

struct hash_set {
    uint64_t *slots;
    size_t count, capacity;
};

struct explorer {
    enum fault_model fault;
    const struct history *history;
    struct random random;
    uint64_t trials;           /* images that were opened */
    uint64_t limit;            /* … at most */
    uint64_t nested[DEPTH_MAX]; /* of them, cuts inside a recovery, inside that one's recovery */
    int depth;                 /* recoveries that we are inside of */
    size_t from;               /* cuts begin at this event: those before were another program's */
    uint64_t repeated;         /* images met before, not opened again */
    double deadline;
    uint64_t samples;          /* random subsets a cut */
    bool canary;               /* a failure is what we are after */
    bool replica;              /* readers may have no room for its last record: see reader_low */
    uint64_t reader_low;       /* what was promised when the recovery that we are inside of began */
    const char *failure;       /* NULL: none yet */
    char failure_text[512];
    struct memory *m;          /* the trial's files; they equal `base` between trials */
    struct hash_set seen;      /* of (contents, durable) */
    struct hash_set distinct;  /* of contents */
};

/* ---- small parts ---- */

static inline bool hash_set_add(struct hash_set *s, uint64_t hash) {
    if (4 * s->count >= 3 * s->capacity) {
        struct hash_set bigger = {.capacity = s->capacity ? 2 * s->capacity : 4096};
        bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
        CHECK(bigger.slots);
        for (size_t i = 0; i < s->capacity; i++)
            if (s->slots[i]) hash_set_add(&bigger, s->slots[i]);
        free(s->slots);
        *s = bigger;
    }
    if (!hash) hash = 1;
    for (size_t i = hash % s->capacity;; i = (i + 1) % s->capacity) {
        if (s->slots[i] == hash) return false;
        if (!s->slots[i]) {
            s->slots[i] = hash;
            s->count++;
            return true;
        }
    }
}

static inline uint64_t word_hash(uint32_t file, uint64_t index, uint64_t word) {
    return word ? mix64(mix64(index * FILES + file) ^ word) : 0;
}

static inline uint64_t hash_range(const char *bytes, uint32_t file, uint64_t offset,
                                  uint64_t length) {
    uint64_t hash = 0;
    for (uint64_t at = offset & ~7ull; at < offset + length; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        hash ^= word_hash(file, at / 8, word);
    }
    return hash;
}

static inline void content_make(struct content *c) {
    for (int f = 0; f < FILES; f++) {
        c->bytes[f] = calloc(1, file_room[f]);
        CHECK(c->bytes[f]);
        c->size[f] = 0;
    }
    c->hash = 0;
}

static inline void content_free(struct content *c) {
    for (int f = 0; f < FILES; f++) free(c->bytes[f]);
}

static inline void content_copy(struct content *to, const struct content *from) {
    for (int f = 0; f < FILES; f++) {
        memcpy(to->bytes[f], from->bytes[f], from->size[f]);
        if (to->size[f] > from->size[f])
            memset(to->bytes[f] + from->size[f], 0, to->size[f] - from->size[f]);
        to->size[f] = from->size[f];
    }
    to->hash = from->hash;
}

static inline void content_hash(struct content *c) {
    c->hash = 0;
    for (uint32_t f = 0; f < FILES; f++) c->hash ^= hash_range(c->bytes[f], f, 0, c->size[f]);
}

static inline void content_store(struct content *c, uint32_t file, uint64_t offset,
                                 const char *bytes, uint64_t length) {
    c->hash ^= hash_range(c->bytes[file], file, offset, length);
    memcpy(c->bytes[file] + offset, bytes, length);
    c->hash ^= hash_range(c->bytes[file], file, offset, length);
}

/* ---- the trial's files ---- */

static inline void memory_load(struct memory *m, const struct content *content) {
    for (int f = 0; f < FILES; f++) {
        memory_resize(m, f, content->size[f]);
        memcpy(m->map[f], content->bytes[f], content->size[f]);
    }
    m->has_control = false;
}

static inline void trial_load(struct explorer *x, const struct content *base) {
    memory_load(x->m, base);
}

static inline void trial_restore(struct explorer *x, const struct content *base, uint32_t file,
                                 uint64_t offset, uint64_t length) {
    if (offset >= base->size[file]) return; /* gone with the file's end */
    length = pml_min64(length, base->size[file] - offset);
    memcpy(x->m->map[file] + offset, base->bytes[file] + offset, length);
}

/* ---- one image ---- */

static inline const char *fail_trial(struct explorer *x, const char *what, uint64_t low,
                                     uint64_t high, uint64_t found) {
    snprintf(x->failure_text, sizeof x->failure_text,
             "%s (transactions %llu to %llu allowed, %llu found; %s: %s, file \"%s\", offset %llu)",
             what, (unsigned long long)low, (unsigned long long)high, (unsigned long long)found,
             pml_status_name(pml_error()->status), pml_error()->text, pml_error()->file,
             (unsigned long long)pml_error()->offset);
    return x->failure = x->failure_text;
}

static inline const struct commit *commit_of(const struct history *h, uint64_t txn) {
    for (size_t i = h->count; i-- > 0;)
        if (h->commits[i].txn == txn) return &h->commits[i];
    return NULL;
}

static inline const char *state_is_wrong(struct explorer *x, struct pml_pool *pool, uint64_t low,
                                         uint64_t high, uint64_t *txn) {
    struct pml_position position;
    if (pml_position(pool, &position) != PML_OK)
        return fail_trial(x, "no position", low, high, 0);
    *txn = position.txn;
    /* Cut before the first transaction: opening for writing makes it. */
    high = pml_max64(high, 1);
    if (position.txn < low || position.txn > high)
        return fail_trial(x, "a durable transaction is lost, or one that never began is there", low,
                          high, position.txn);
    uint64_t digest;
    int st = pool_digest(pool, &digest);
    if (st != PML_OK) {
        if (pml_error()->status != st) pml_fail(st, "(no detail)");
        return fail_trial(x, "the state cannot be read", low, high, position.txn);
    }
    if (digest != commit_of(x->history, position.txn)->digest)
        return fail_trial(x, "the state is not that behind the transaction", low, high,
                          position.txn);
    return NULL;
}

static inline const char *checker_finds_faults(struct explorer *x, uint64_t low, uint64_t high,
                                               uint64_t txn, bool dead) {
    /* A reader beside a dead writer believes the control words: a record that is whole but was not
     * published yet is nobody's promise. */
    if (dead && x->fault == MODEL_KILLED && low) low--;
    /* Nor can a reader make the room that a replica's last record asks for; recovery does. */
    if (dead && x->replica && x->depth) low = pml_min64(low, x->reader_low);
    struct pml_options options =
        crash_pool(fault_model_domain[x->fault], PML_OPEN_READ_ONLY);
    struct pml_pool *pool;
    struct pml_fault fault;
    const char *wrong = NULL;
    int st = pml_open(x->m->path, &options, &pool);
    if (st == PML_E_NOT_FOUND && dead && low == 0) return NULL; /* not formatted yet */
    if (st != PML_OK) return fail_trial(x, "no open for reading", low, high, txn);
    if (dead) wrong = state_is_wrong(x, pool, low, high, &txn);
    int64_t faults = wrong ? 0 : pml_check(pool, &fault, 1);
    if (faults) {
        if (faults > 0) {
            struct pml_detail *d = pml_detail_new(PML_E_CORRUPT);
            snprintf(d->text, sizeof d->text, "%s", fault.text);
            d->offset = fault.offset;
        }
        wrong = fail_trial(x, dead ? "faults before recovery" : "faults", low, high, txn);
    }
    pml_abandon(pool);
    pml_free(pool);
    return wrong;
}

static inline int commit_after(struct pml_pool *pool) {
    uint64_t id;
    struct pml_container *c;
    int st = pml_tx_begin(pool, &id);
    if (st != PML_OK) return st;
    st = open_named(pool, "after", PML_TYPE_DICT, &c);
    if (st == PML_OK)
        st = pml_dict_set(c, "k", word_of(1, PML_KIND_STR), "a value of some length", word_of(22, 1));
    pml_container_free(c);
    if (st != PML_OK) {
        pml_tx_abort(pool, id);
        return st;
    }
    return pml_tx_commit(pool, id);
}

static inline const char *after_is_lost(struct explorer *x, struct pml_pool *pool, uint64_t txn) {
    char value[32];
    uint64_t found;
    struct pml_container *c;
    const char *wrong = NULL;
    struct pml_position position;
    if (pml_position(pool, &position) != PML_OK || position.txn != txn + 1)
        return fail_trial(x, "the transaction behind recovery is lost", txn, txn + 1, position.txn);
    if (pool_digest(pool, &found) != PML_OK || found != commit_of(x->history, txn)->digest)
        return fail_trial(x, "another state behind the second recovery", txn, txn + 1, txn);
    if (open_named(pool, "after", PML_TYPE_DICT, &c) != PML_OK)
        return fail_trial(x, "the container made behind recovery is lost", txn, txn + 1, txn);
    if (pml_dict_get(c, "k", word_of(1, PML_KIND_STR), value, sizeof value) != (int64_t)word_of(22, 1) ||
        memcmp(value, "a value of some length", 22))
        wrong = fail_trial(x, "the value stored behind recovery is lost", txn, txn + 1, txn);
    pml_container_free(c);
    return wrong;
}

static void explore(struct explorer *x, const struct content *base, const struct tape *tape,
                    uint64_t only);

/* The trial's files hold the image; on return they hold whatever recovery made of it. */
static inline void trial(struct explorer *x, uint64_t low, uint64_t high,
                         const struct pml_control *control, bool nest) {
    struct pml_options options = crash_pool(fault_model_domain[x->fault], 0);
    struct pml_pool *pool = NULL;
    uint64_t txn = 0;
    const char *wrong = NULL;
    struct content before = {.hash = 0};
    struct tape tape = {.count = 0};
    x->trials++;
    memory_control(x->m, control);
    recorder.tape = NULL;
    if (x->trials % 4 == 0)
        wrong = checker_finds_faults(x, low, high, 0, true);
    if (nest) {
        content_make(&before);
        for (int f = 0; f < FILES; f++) {
            before.size[f] = x->m->size[f];
            memcpy(before.bytes[f], x->m->map[f], x->m->size[f]);
        }
        content_hash(&before);
        recorder.tape = &tape;
    }
    if (!wrong && pml_open(x->m->path, &options, &pool) != PML_OK)
        wrong = fail_trial(x, "the pool does not open", low, high, 0);
    recorder.tape = NULL;
    if (pool) {
        if (!wrong) wrong = state_is_wrong(x, pool, low, high, &txn);
        if (!wrong) wrong = checker_finds_faults(x, low, high, txn, false);
        if (!wrong && commit_after(pool) != PML_OK)
            wrong = fail_trial(x, "no transaction behind recovery", low, high, txn);
        if (!wrong && x->trials % 8 == 3) {
            if (pml_close(pool) != PML_OK) wrong = fail_trial(x, "no close", low, high, txn);
        } else {
            pml_abandon(pool);
        }
        pml_free(pool);
        pool = NULL;
    }
    if (!wrong) {
        memory_control(x->m, NULL); /* this time the power fails */
        options.flags |= x->trials % 2 ? PML_OPEN_READ_ONLY : 0u;
        if (pml_open(x->m->path, &options, &pool) != PML_OK) {
            wrong = fail_trial(x, "the pool does not open a second time", low, high, txn);
        } else {
            wrong = after_is_lost(x, pool, txn);
            pml_abandon(pool);
            pml_free(pool);
        }
    }
    if (nest) {
        /* Cuts inside the recovery that this image needed: they come out at the same transaction. */
        if (!wrong && low && tape.count) {
            uint64_t limit = x->limit;
            size_t from = x->from;
            x->limit = pml_min64(limit, x->trials + (x->depth ? NESTED_MAX / 3 : NESTED_MAX));
            x->from = 0;
            uint64_t reader_low = x->reader_low;
            if (!x->depth) x->reader_low = low;
            x->depth++;
            trial_load(x, &before);
            explore(x, &before, &tape, txn);
            x->depth--;
            x->reader_low = reader_low;
            x->from = from;
            x->limit = limit;
        }
        content_free(&before);
        tape_free(&tape);
    }
}

static inline bool enough(const struct explorer *x) {
    return x->failure || x->trials >= x->limit || test_now_s() > x->deadline;
}

/* Which transactions may be the last one when the first `at` events of the tape have happened, all
 * that came before event number `at` included. */
static inline void allowed(const struct explorer *x, const struct tape *t, size_t at, uint64_t only,
                           uint64_t *low, uint64_t *high) {
    bool killed = x->fault == MODEL_KILLED;
    uint64_t told = 0;
    if (!killed && t->control_count)
        told = t->controls[at < t->count ? t->events[at].control : t->control_count - 1].txn_durable;
    model_seen(x->history, at, killed, told, low, high);
    if (only) *low = *high = only;
}

/* Some pieces of the pending ones, each with some of its words, on top of `base`. */
static inline void try_image(struct explorer *x, const struct content *base,
                             const struct piece *pieces, const uint8_t *masks, size_t count,
                             uint64_t image_bytes, uint64_t low, uint64_t high,
                             const struct pml_control *control) {
    if (enough(x)) return;
    uint64_t size = base->size[FILE_IMAGE], hash = base->hash;
    for (size_t i = 0; i < count; i++)
        if (masks[i] && pieces[i].file == FILE_IMAGE && pieces[i].offset + pieces[i].size > size)
            size = image_bytes;
    if (size < image_bytes && random_below(&x->random, 2)) size = image_bytes;
    memory_resize(x->m, FILE_IMAGE, base->size[FILE_IMAGE]);
    memory_resize(x->m, FILE_IMAGE, size);
    for (size_t i = 0; i < count; i++) {
        const struct piece *p = &pieces[i];
        if (!masks[i]) continue;
        char *map = x->m->map[p->file];
        hash ^= hash_range(map, p->file, p->offset, p->size);
        for (uint64_t at = p->offset; at < p->offset + p->size;) {
            uint64_t next = pml_min64((at & ~7ull) + 8, p->offset + p->size);
            if (masks[i] >> (at / 8 % 8) & 1)
                memcpy(map + at, p->bytes + (at - p->offset), next - at);
            at = next;
        }
        hash ^= hash_range(map, p->file, p->offset, p->size);
    }
    hash ^= mix64(size);
    uint64_t control_hash = control ? mix64(pml_crc32c(0, control, sizeof *control)) : 0;
    hash_set_add(&x->distinct, hash);
    recorder.dirty_count = 0;
    if (hash_set_add(&x->seen, mix64(mix64(hash ^ control_hash) ^ low))) {
        bool nest = !x->canary && x->depth < DEPTH_MAX &&
                    (x->depth ? x->trials % 31 == 7 : x->trials % 97 == 11);
        if (x->depth) x->nested[x->depth - 1]++;
        trial(x, low, high, control, nest);
        if (nest) {
            trial_load(x, base);
            recorder.dirty_count = 0;
            return;
        }
    } else {
        x->repeated++;
    }
    /* back to `base` */
    memory_resize(x->m, FILE_IMAGE, base->size[FILE_IMAGE]);
    for (size_t i = 0; i < count; i++)
        if (masks[i]) trial_restore(x, base, pieces[i].file, pieces[i].offset, pieces[i].size);
    for (size_t i = 0; i < recorder.dirty_count; i++)
        trial_restore(x, base, recorder.dirty[i].file, recorder.dirty[i].offset,
                      recorder.dirty[i].length);
}

/* ---- subsets ---- */

struct cut {
    struct explorer *x;
    const struct content *base;
    const struct piece *pieces;
    uint8_t *masks;
    size_t count;
    uint64_t image_bytes, low, high;
};

static inline void try_masks(struct cut *c) {
    try_image(c->x, c->base, c->pieces, c->masks, c->count, c->image_bytes, c->low, c->high, NULL);
}

static inline uint8_t words_of(const struct piece *p) {
    uint8_t words = 0;
    for (uint64_t at = p->offset & ~7ull; at < p->offset + p->size; at += 8)
        words = (uint8_t)(words | 1u << (at / 8 % 8));
    return words;
}

/* Word number n of the pending ones is there, or not. */
static inline void set_word(struct cut *c, uint64_t n, bool there) {
    for (size_t i = 0; i < c->count; i++) {
        uint8_t words = words_of(&c->pieces[i]);
        uint64_t here = (uint64_t)__builtin_popcount(words);
        if (n >= here) {
            n -= here;
            continue;
        }
        for (uint8_t bit = 0; bit < 8; bit++)
            if (words >> bit & 1 && !n--)
                c->masks[i] = (uint8_t)(there ? c->masks[i] | 1u << bit
                                              : c->masks[i] & ~(1u << bit));
        return;
    }
}

static inline void all_words(struct cut *c, bool there) {
    for (size_t i = 0; i < c->count; i++) c->masks[i] = there ? words_of(&c->pieces[i]) : 0;
}

static inline void cut_units(struct cut *c) {
    uint64_t words = 0;
    for (size_t i = 0; i < c->count; i++)
        words += (uint64_t)__builtin_popcount(words_of(&c->pieces[i]));
    if (words <= 6) { /* every subset */
        for (uint64_t subset = 0; subset < 1ull << words; subset++) {
            all_words(c, false);
            for (uint64_t n = 0; n < words; n++) set_word(c, n, subset >> n & 1);
            try_masks(c);
        }
        return;
    }
    for (int there = 0; there < 2; there++) { /* none, all; each alone in, each alone out */
        all_words(c, there != 0);
        try_masks(c);
        uint64_t singles = pml_min64(words, c->x->samples);
        for (uint64_t n = 0; n < singles; n++) {
            uint64_t word = singles == words ? n : random_below(&c->x->random, words);
            all_words(c, there != 0);
            set_word(c, word, !there);
            try_masks(c);
        }
    }
    for (uint64_t n = 0; n < c->x->samples; n++) {
        /* few, half or most of the words; or whole lines */
        uint64_t density = 1 + random_below(&c->x->random, 15);
        bool lines = random_below(&c->x->random, 3) == 0;
        for (size_t i = 0; i < c->count; i++) {
            uint8_t words_there = 0;
            if (lines)
                words_there = random_below(&c->x->random, 16) < density ? 0xff : 0;
            else
                for (int bit = 0; bit < 8; bit++)
                    words_there = (uint8_t)(words_there | (random_below(&c->x->random, 16) < density)
                                                              << bit);
            c->masks[i] = words_there & words_of(&c->pieces[i]);
        }
        try_masks(c);
    }
}

static inline uint64_t place(const struct piece *p, uint64_t unit) {
    return (p->offset / unit) * FILES + p->file;
}

static inline void cut_pages(struct cut *c) {
    uint64_t sectors[7];
    size_t found = 0;
    for (size_t i = 0; i < c->count && found < 7; i++) {
        size_t s = 0;
        while (s < found && sectors[s] != place(&c->pieces[i], 512)) s++;
        if (s == found) sectors[found++] = place(&c->pieces[i], 512);
    }
    if (found < 7) /* every subset of sectors, as they stand now */
        for (uint64_t subset = 0; subset < 1ull << found; subset++) {
            for (size_t i = 0; i < c->count; i++) {
                size_t s = 0;
                while (sectors[s] != place(&c->pieces[i], 512)) s++;
                c->masks[i] = subset >> s & 1 ? 0xff : 0;
            }
            try_masks(c);
        }
    for (uint64_t n = 0; n < 2 * c->x->samples; n++) {
        /* Each page as it stood at some moment, with some of its sectors. */
        uint64_t salt = random_word(&c->x->random), density = salt % 17;
        bool torn = salt >> 8 & 1, late = salt >> 9 & 1;
        for (size_t i = 0; i < c->count; i++) {
            uint64_t unit = torn ? 512 : PML_PAGE;
            bool there = mix64(salt ^ place(&c->pieces[i], unit)) % 16 < density;
            uint64_t moment = mix64(salt ^ ~place(&c->pieces[i], PML_PAGE)) % (c->count + 1);
            c->masks[i] = there && (late || i <= moment) ? 0xff : 0;
        }
        try_masks(c);
    }
}

/* ---- cuts along a tape ---- */

struct pending {
    struct piece *pieces;
    size_t count, capacity;
};

static inline void pending_add(struct pending *p, const struct tape *t, const struct event *e) {
    for (uint64_t at = e->offset; at < e->offset + e->length;) {
        uint64_t next = pml_min64((at & ~(PML_LINE - 1ull)) + PML_LINE, e->offset + e->length);
        TAPE_ROOM(p->pieces, p->capacity, p->count + 1);
        p->pieces[p->count++] = (struct piece){.file = e->file,
                                               .size = (uint8_t)(next - at),
                                               .offset = at,
                                               .bytes = t->bytes + e->data + (at - e->offset)};
        at = next;
    }
}

static inline void pending_flush(struct pending *p, const struct event *e) {
    uint64_t first = e->offset & ~(PML_LINE - 1ull), last = e->offset + e->length;
    for (size_t i = 0; i < p->count; i++)
        if (p->pieces[i].file == e->file && p->pieces[i].offset < last &&
            p->pieces[i].offset + p->pieces[i].size > first)
            p->pieces[i].flushed = true;
}

/* What a drain makes durable moves from the pending stores to the base, in the trial's files too. */
static inline void pending_drain(struct explorer *x, struct pending *p, struct content *base,
                                 const struct event *e) {
    size_t kept = 0;
    if (e->file != FILE_LOG && base->size[FILE_IMAGE] < e->image_bytes) {
        base->size[FILE_IMAGE] = e->image_bytes;
        memory_resize(x->m, FILE_IMAGE, e->image_bytes);
    }
    for (size_t i = 0; i < p->count; i++) {
        const struct piece piece = p->pieces[i];
        bool covered = (piece.file == FILE_LOG) == (e->file == FILE_LOG);
        if (covered && (piece.flushed || x->fault == MODEL_PAGES)) {
            content_store(base, piece.file, piece.offset, piece.bytes, piece.size);
            memcpy(x->m->map[piece.file] + piece.offset, piece.bytes, piece.size);
        } else {
            p->pieces[kept++] = piece;
        }
    }
    p->count = kept;
}

static inline void explore_subsets(struct explorer *x, struct content *base,
                                   const struct tape *tape, uint64_t only) {
    struct pending pending = {.count = 0};
    uint8_t *masks = NULL;
    size_t mask_capacity = 0;
    for (size_t at = 0; at <= tape->count && !enough(x); at++) {
        const struct event *e = at < tape->count ? &tape->events[at] : NULL;
        /* What can be pending between two drains is pending before the second: cut there, and now
         * and then elsewhere. */
        if (at >= x->from &&
            (!e || e->kind == EVENT_DRAIN || random_below(&x->random, 12) == 0)) {
            TAPE_ROOM(masks, mask_capacity, pending.count + 1);
            struct cut cut = {.x = x,
                              .base = base,
                              .pieces = pending.pieces,
                              .masks = masks,
                              .count = pending.count,
                              .image_bytes = at ? tape->events[at - 1].image_bytes
                                                : base->size[FILE_IMAGE]};
            cut.image_bytes = pml_max64(cut.image_bytes, base->size[FILE_IMAGE]);
            allowed(x, tape, at, only, &cut.low, &cut.high);
            if (x->fault == MODEL_PAGES)
                cut_pages(&cut);
            else
                cut_units(&cut);
        }
        if (!e) break;
        if (e->kind == EVENT_STORE) pending_add(&pending, tape, e);
        if (e->kind == EVENT_FLUSH) pending_flush(&pending, e);
        if (e->kind == EVENT_DRAIN) pending_drain(x, &pending, base, e);
        if (e->kind == EVENT_GROWN && base->size[FILE_IMAGE] < e->image_bytes) {
            base->size[FILE_IMAGE] = e->image_bytes;
            memory_resize(x->m, FILE_IMAGE, e->image_bytes);
        }
    }
    free(masks);
    free(pending.pieces);
}

/* In order, each store whole, and cut somewhere inside. */
static inline void explore_prefixes(struct explorer *x, struct content *base,
                                    const struct tape *tape, uint64_t only) {
    bool killed = x->fault == MODEL_KILLED;
    for (size_t at = 0; at <= tape->count && !enough(x); at++) {
        uint64_t low, high;
        allowed(x, tape, at, only, &low, &high);
        const struct pml_control *control = NULL;
        if (killed && tape->control_count) {
            /* The words changed at some moment between this store and the next. */
            size_t from = at ? tape->events[at - 1].control : 0;
            size_t to = at < tape->count ? tape->events[at].control : tape->control_count - 1;
            control = &tape->controls[from + random_below(&x->random, to - from + 1)];
        }
        const struct event *e = at < tape->count ? &tape->events[at] : NULL;
        uint64_t image_bytes = e ? e->image_bytes : base->size[FILE_IMAGE];
        if (image_bytes > base->size[FILE_IMAGE]) {
            base->size[FILE_IMAGE] = image_bytes;
            memory_resize(x->m, FILE_IMAGE, image_bytes);
        }
        bool here = at >= x->from;
        if (here && (!at || tape->events[at - 1].kind == EVENT_STORE || !e))
            try_image(x, base, NULL, NULL, 0, image_bytes, low, high, control);
        if (!e) break;
        if (e->kind != EVENT_STORE) continue;
        if (control) control = &tape->controls[e->control]; /* as they are when the store begins */
        /* Begun, perhaps, and not whole. */
        uint64_t ignored;
        allowed(x, tape, at, only, &low, &ignored);
        allowed(x, tape, at + 1, only, &ignored, &high);
        for (int n = 0; here && n < 2 && e->length > 1; n++) {
            uint64_t length = 1 + random_below(&x->random, e->length - 1);
            if (n) length &= ~7ull;
            struct tape part = {.bytes = tape->bytes};
            struct event some = *e;
            some.length = length;
            struct pending pending = {.count = 0};
            pending_add(&pending, &part, &some);
            uint8_t *masks = malloc(pending.count + 1);
            CHECK(masks);
            memset(masks, 0xff, pending.count);
            try_image(x, base, pending.pieces, masks, pending.count, image_bytes, low, high,
                      control);
            free(masks);
            free(pending.pieces);
        }
        content_store(base, e->file, e->offset, tape->bytes + e->data, e->length);
        memcpy(x->m->map[e->file] + e->offset, tape->bytes + e->data, e->length);
    }
}

/* The trial's files equal `start`; `only`: every image has to come out at that transaction. */
static void explore(struct explorer *x, const struct content *start, const struct tape *tape,
                    uint64_t only) {
    struct content base;
    content_make(&base);
    content_copy(&base, start);
    if (x->fault == MODEL_UNITS || x->fault == MODEL_PAGES)
        explore_subsets(x, &base, tape, only);
    else
        explore_prefixes(x, &base, tape, only);
    content_free(&base);
}

#endif
