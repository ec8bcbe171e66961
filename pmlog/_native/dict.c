/*
 * dict: linear hashing, with the entries also linked in order of insertion.
 *
 * A bucket is one cache line of tagged offsets, with a link to overflow buckets.  The table grows by
 * one bucket at a time: each insertion that passes the load splits one, so no operation ever
 * rewrites the table and the record of an insertion stays small at any size.  Buckets live in
 * segments that double, so the address of a bucket never changes.
 *
 * Invariants, checked by pml_dict_walk:
 *   following next from first visits `count` entries and ends at last; prev mirrors it;
 *   every entry is in exactly the bucket that its hash names, under its hash's tag; no other slot is
 *   taken; keys are unique.
 */
#include "internal.h"
#include "view.h"

#define FIRST_BUCKETS 8u
#define LOAD_NUMERATOR 7u  /* split when count * 2 > buckets * 7: half of a bucket's slots in use */
#define CHAIN_MAX 64u      /* buckets in one overflow chain, as a bound for loops */
#define SPLIT_MAX 112u     /* entries of a chain that a split moves; longer ones wait */
#define IN_PLACE_MAX 2048u /* longer values get a new entry: their old bytes need no undo then */
#define AHEAD 16u          /* keys of a bulk form that are looked for at a time */
#define AHEAD_BYTES 192u   /* of an entry: header, key and the beginning of its value */
#define SHRINK_BUCKETS 64u /* an emptied dict with more buckets than this starts over */

#define ROOT_FIELD(root, field) ((root) + offsetof(struct pml_dict_root, field))
#define ENTRY_FIELD(entry, field) ((entry) + offsetof(struct pml_dict_entry, field))

static uint64_t padded(uint64_t bytes) { return (bytes + 7) & ~7ull; }

static uint64_t hash_of(struct pml_pool *pool, const char *key, uint64_t word) {
    return pml_siphash13(pool->header.hash_seed, key, PML_VALUE_BYTES(word), PML_VALUE_KIND(word));
}

/* ---- reading ---- */

static int root_at(struct pml_pool *pool, uint64_t root, struct pml_dict_root **out) {
    int st = pml_reach(pool, root, sizeof(struct pml_dict_root));
    *out = pml_ptr(pool, root);
    return st;
}

/* A copy of the entry's header, whose lengths are checked, with all its bytes in reach: beside a
 * writer the words may be others when they are read again. */
int pml_dict_entry_at(struct pml_pool *pool, uint64_t at, struct pml_dict_entry *e) {
    int st = pml_reach(pool, at, sizeof *e);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    memcpy(e, pml_ptr(pool, at), sizeof *e);
    uint64_t key = PML_VALUE_BYTES(e->key), value = PML_VALUE_BYTES(e->value);
    if (PML_UNLIKELY(key > PML_KEY_MAX || value > PML_MAX_IMAGE))
        return pml_fail_corrupt("image", 0, at, PML_KEY_MAX, key, "a dict entry is damaged");
    return pml_reach(pool, at, sizeof *e + padded(key) + value);
}

static char *key_of(struct pml_dict_entry *e) { return (char *)(e + 1); }

static char *value_of(struct pml_dict_entry *e) {
    return (char *)(e + 1) + padded(PML_VALUE_BYTES(e->key));
}

static uint32_t log2_floor(uint64_t value) { return 63u - (uint32_t)__builtin_clzll(value); }

static uint64_t bucket_number(uint64_t hash, uint64_t buckets) {
    uint64_t low = 1ull << log2_floor(buckets); /* the table has low to 2 * low - 1 buckets */
    uint64_t number = hash & (2 * low - 1);
    return number < buckets ? number : number & (low - 1);
}

static uint32_t segment_of(uint64_t bucket) {
    return bucket < FIRST_BUCKETS ? 0 : log2_floor(bucket / FIRST_BUCKETS) + 1;
}

static uint64_t segment_buckets(uint32_t segment) {
    return segment ? (uint64_t)FIRST_BUCKETS << (segment - 1) : FIRST_BUCKETS;
}

static uint64_t bucket_offset(const struct pml_dict_root *root, uint64_t bucket) {
    uint32_t segment = segment_of(bucket);
    if (PML_UNLIKELY(segment >= PML_SEGMENTS)) return 0;
    uint64_t index = segment ? bucket - segment_buckets(segment) : bucket;
    return pml_round_up(root->segments[segment], PML_LINE) + index * sizeof(struct pml_bucket);
}

static int bucket_at(struct pml_pool *pool, uint64_t at, struct pml_bucket **out) {
    int st = pml_reach(pool, at, sizeof(struct pml_bucket));
    *out = pml_ptr(pool, at);
    return st;
}

/* *e: a copy of the entry's header. */
static int find_hashed(struct pml_pool *pool, uint64_t root, const char *key, uint64_t word,
                       uint64_t hash, uint64_t *entry, struct pml_dict_entry *e) {
    struct pml_dict_root *r;
    int st = root_at(pool, root, &r);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    uint64_t buckets = __atomic_load_n(&r->buckets, __ATOMIC_RELAXED);
    if (!buckets) return PML_E_MISSING;
    uint64_t at = bucket_offset(r, bucket_number(hash, buckets)), tag = PML_SLOT_TAG(hash);
    for (uint32_t n = 0; at && n < CHAIN_MAX; n++) {
        struct pml_bucket *bucket;
        st = bucket_at(pool, at, &bucket);
        if (PML_UNLIKELY(st != PML_OK)) return st;
        for (int i = 0; i < PML_BUCKET_SLOTS; i++) {
            uint64_t slot = __atomic_load_n(&bucket->slots[i], __ATOMIC_RELAXED);
            if (!slot || PML_SLOT_TAG(slot) != tag) continue;
            uint64_t offset = PML_SLOT_OFFSET(slot);
            st = pml_dict_entry_at(pool, offset, e);
            if (PML_UNLIKELY(st != PML_OK)) return st;
            if (e->hash == hash && e->key == word &&
                !memcmp(pml_entry_key(pool, offset), key, PML_VALUE_BYTES(word))) {
                *entry = PML_SLOT_OFFSET(slot);
                return PML_OK;
            }
        }
        at = bucket->overflow;
    }
    return PML_E_MISSING;
}

int pml_dict_find(struct pml_pool *pool, uint64_t root, const char *key, uint64_t key_word,
                  uint64_t *entry) {
    struct pml_dict_entry e;
    return find_hashed(pool, root, key, key_word, hash_of(pool, key, key_word), entry, &e);
}

static int find(struct pml_container *c, const char *key, uint64_t word, uint64_t *entry,
                struct pml_dict_entry *e) {
    return find_hashed(c->pool, c->root, key, word, hash_of(c->pool, key, word), entry, e);
}

/* Hashes of the next keys of a bulk form.  A look-up in a large dict waits for memory twice, for a
 * bucket and for an entry; here the lines of AHEAD keys are asked for together, so that most of that
 * time passes at once.  Only hints: the look-ups begin anew. */
static void look_ahead(struct pml_container *c, size_t count, const char *keys,
                       const uint64_t *words, uint64_t hashes[AHEAD]) {
    struct pml_pool *pool = c->pool;
    struct pml_dict_root *r;
    uint64_t at[AHEAD];
    count = pml_min64(count, AHEAD);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_of(pool, keys, words[i]);
        keys += PML_VALUE_BYTES(words[i]);
    }
    uint64_t buckets;
    if (root_at(pool, c->root, &r) != PML_OK ||
        !(buckets = __atomic_load_n(&r->buckets, __ATOMIC_RELAXED)))
        return;
    for (size_t i = 0; i < count; i++) {
        at[i] = bucket_offset(r, bucket_number(hashes[i], buckets));
        if (pml_in_body(pool, at[i], sizeof(struct pml_bucket)))
            __builtin_prefetch(pml_ptr(pool, at[i]));
    }
    for (size_t i = 0; i < count; i++) {
        struct pml_bucket *bucket;
        if (bucket_at(pool, at[i], &bucket) != PML_OK) continue;
        for (int k = 0; k < PML_BUCKET_SLOTS; k++) {
            uint64_t slot = __atomic_load_n(&bucket->slots[k], __ATOMIC_RELAXED);
            uint64_t entry = PML_SLOT_OFFSET(slot);
            if (!slot || PML_SLOT_TAG(slot) != PML_SLOT_TAG(hashes[i]) ||
                !pml_in_body(pool, entry, AHEAD_BYTES))
                continue;
            for (uint64_t line = 0; line < AHEAD_BYTES; line += PML_LINE)
                __builtin_prefetch((const char *)pml_ptr(pool, entry) + line);
        }
    }
}

/* ---- buckets ---- */

/* The slot of a chain that holds `wanted`; wanted 0: the first empty one, at the end a new bucket. */
static int find_slot(struct pml_pool *pool, uint64_t at, uint64_t wanted, uint64_t *slot_at) {
    uint64_t last = at;
    for (uint32_t n = 0; at && n < CHAIN_MAX; n++) {
        struct pml_bucket *bucket;
        int st = bucket_at(pool, at, &bucket);
        if (st != PML_OK) return st;
        for (uint64_t i = 0; i < PML_BUCKET_SLOTS; i++)
            if (PML_SLOT_OFFSET(bucket->slots[i]) == wanted) {
                *slot_at = at + i * 8;
                return PML_OK;
            }
        last = at;
        at = bucket->overflow;
    }
    if (!wanted && at) return pml_fail(PML_E_POOL_FULL, "too many keys of one hash");
    if (wanted)
        return pml_fail_corrupt("image", 0, last, wanted, 0, "a dict entry is in no bucket");
    uint64_t fresh;
    int st = pml_alloc(pool, sizeof(struct pml_bucket), PML_BLOCK_BUCKET, &fresh);
    if (st != PML_OK) return st;
    memset(pml_ptr(pool, fresh), 0, sizeof(struct pml_bucket));
    *slot_at = fresh;
    return pml_store64(pool, last + offsetof(struct pml_bucket, overflow), fresh);
}

static int first_buckets(struct pml_pool *pool, uint64_t root) {
    uint64_t segment, bytes = FIRST_BUCKETS * sizeof(struct pml_bucket);
    int st = pml_alloc_raw(pool, bytes + PML_LINE, PML_BLOCK_SEGMENT, &segment);
    if (st != PML_OK) return st;
    uint64_t start = pml_round_up(segment, PML_LINE);
    st = pml_note_fresh(pool, start, bytes);
    if (st == PML_OK) memset(pml_ptr(pool, start), 0, bytes);
    if (st == PML_OK) st = pml_store64(pool, ROOT_FIELD(root, segments), segment);
    return st == PML_OK ? pml_store64(pool, ROOT_FIELD(root, buckets), FIRST_BUCKETS) : st;
}

struct chain { /* slot words of one bucket chain */
    uint64_t slots[SPLIT_MAX];
    uint32_t count;
};

/* Writes a chain compactly over the buckets that are there, and takes or frees overflow buckets. */
static int write_chain(struct pml_pool *pool, uint64_t at, const struct chain *chain, bool fresh) {
    uint32_t done = 0;
    for (;;) {
        struct pml_bucket *bucket;
        int st =
            fresh ? pml_note_fresh(pool, at, sizeof *bucket) : pml_note(pool, at, sizeof *bucket);
        if (st != PML_OK) return st;
        bucket = pml_ptr(pool, at);
        uint64_t overflow = fresh ? 0 : bucket->overflow;
        for (int i = 0; i < PML_BUCKET_SLOTS; i++)
            bucket->slots[i] = done < chain->count ? chain->slots[done++] : 0;
        bucket->overflow = overflow;
        if (done == chain->count) {
            bucket->overflow = 0;
            for (uint32_t n = 0; overflow && n < CHAIN_MAX; n++) {
                struct pml_bucket *spare;
                st = bucket_at(pool, overflow, &spare);
                if (st == PML_OK) st = pml_tx_defer_free(pool, overflow);
                if (st != PML_OK) return st;
                overflow = spare->overflow;
            }
            return PML_OK;
        }
        fresh = !overflow;
        if (!overflow) {
            st = pml_alloc(pool, sizeof *bucket, PML_BLOCK_BUCKET, &overflow);
            if (st != PML_OK) return st;
            bucket->overflow = overflow;
        }
        at = overflow;
    }
}

static int split_one(struct pml_pool *pool, uint64_t root) {
    struct pml_dict_root *r = pml_ptr(pool, root);
    uint64_t target = r->buckets, bit = 1ull << log2_floor(target), parent = target - bit;
    uint32_t segment = segment_of(target);
    if (segment >= PML_SEGMENTS) return PML_OK;
    struct chain stay = {.count = 0}, move = {.count = 0};
    uint64_t at = bucket_offset(r, parent);
    for (uint32_t n = 0; at && n < CHAIN_MAX; n++) {
        struct pml_bucket *bucket;
        int st = bucket_at(pool, at, &bucket);
        if (st != PML_OK) return st;
        for (int i = 0; i < PML_BUCKET_SLOTS; i++) {
            uint64_t slot = bucket->slots[i];
            if (!slot) continue;
            st = pml_reach(pool, PML_SLOT_OFFSET(slot), sizeof(struct pml_dict_entry));
            if (st != PML_OK) return st;
            const struct pml_dict_entry *e = pml_ptr(pool, PML_SLOT_OFFSET(slot));
            struct chain *to = (e->hash & bit) ? &move : &stay;
            if (to->count == SPLIT_MAX) return PML_OK;
            to->slots[to->count++] = slot;
        }
        at = bucket->overflow;
    }
    int st = PML_OK;
    if (!r->segments[segment]) {
        uint64_t payload, bytes = segment_buckets(segment) * sizeof(struct pml_bucket);
        st = pml_alloc_raw(pool, bytes + PML_LINE, PML_BLOCK_SEGMENT, &payload);
        if (st == PML_OK)
            st = pml_store64(pool, ROOT_FIELD(root, segments) + 8ull * segment, payload);
    }
    if (st == PML_OK) st = write_chain(pool, bucket_offset(r, target), &move, true);
    if (st == PML_OK && (move.count || stay.count > PML_BUCKET_SLOTS))
        st = write_chain(pool, bucket_offset(r, parent), &stay, false);
    return st == PML_OK ? pml_store64(pool, ROOT_FIELD(root, buckets), target + 1) : st;
}

/* ---- changing ---- */

static int note_list(struct pml_pool *pool, uint64_t root) {
    return pml_note(pool, ROOT_FIELD(root, count), 24); /* count, first, last */
}

static int fill_entry(struct pml_pool *pool, uint64_t at, uint64_t hash, const char *key,
                      uint64_t key_word, const char *value, uint64_t value_word) {
    struct pml_dict_entry *e = pml_ptr(pool, at);
    uint64_t key_bytes = PML_VALUE_BYTES(key_word);
    e->hash = hash;
    e->key = key_word;
    e->value = value_word;
    memset(key_of(e) + key_bytes, 0, padded(key_bytes) - key_bytes);
    memcpy(key_of(e), key, key_bytes);
    memcpy(value_of(e), value, PML_VALUE_BYTES(value_word));
    return PML_OK;
}

static int insert(struct pml_container *c, uint64_t hash, const char *key, uint64_t key_word,
                  const char *value, uint64_t value_word) {
    struct pml_pool *pool = c->pool;
    struct pml_dict_root *r = pml_ptr(pool, c->root);
    uint64_t at, slot_at;
    uint64_t bytes = sizeof(struct pml_dict_entry) + padded(PML_VALUE_BYTES(key_word)) +
                     PML_VALUE_BYTES(value_word);
    int st = pml_alloc(pool, bytes, PML_BLOCK_ENTRY, &at);
    if (st != PML_OK) return st;
    fill_entry(pool, at, hash, key, key_word, value, value_word);
    struct pml_dict_entry *e = pml_ptr(pool, at);
    e->next = 0;
    e->prev = r->last;
    if (r->last) {
        st = pml_reach(pool, r->last, sizeof *e);
        if (st == PML_OK) st = pml_store64(pool, ENTRY_FIELD(r->last, next), at);
    }
    if (st == PML_OK) st = note_list(pool, c->root);
    if (st != PML_OK) return st;
    if (!r->first) r->first = at;
    r->last = at;
    r->count++;
    if (!r->buckets)
        st = first_buckets(pool, c->root);
    else if (r->count * 2 > r->buckets * LOAD_NUMERATOR)
        st = split_one(pool, c->root);
    if (st == PML_OK)
        st = find_slot(pool, bucket_offset(r, bucket_number(hash, r->buckets)), 0, &slot_at);
    if (st == PML_OK) st = pml_store64(pool, slot_at, PML_SLOT_TAG(hash) | at);
    pml_container_changed(c);
    return st;
}

static int slot_holding(struct pml_pool *pool, const struct pml_dict_root *r, uint64_t hash,
                        uint64_t entry, uint64_t *slot_at) {
    return find_slot(pool, bucket_offset(r, bucket_number(hash, r->buckets)), entry, slot_at);
}

/* Neighbours and root take `to` where they had the entry; to 0: the entry leaves the list. */
static int relink(struct pml_pool *pool, uint64_t root, const struct pml_dict_entry *e,
                  uint64_t to) {
    struct pml_dict_root *r = pml_ptr(pool, root);
    int st = note_list(pool, root);
    if (st != PML_OK) return st;
    if (e->prev) {
        st = pml_reach(pool, e->prev, sizeof *e);
        if (st == PML_OK) st = pml_store64(pool, ENTRY_FIELD(e->prev, next), to ? to : e->next);
    } else {
        r->first = to ? to : e->next;
    }
    if (st != PML_OK) return st;
    if (e->next) {
        st = pml_reach(pool, e->next, sizeof *e);
        if (st == PML_OK) st = pml_store64(pool, ENTRY_FIELD(e->next, prev), to ? to : e->prev);
    } else {
        r->last = to ? to : e->prev;
    }
    return st;
}

static int replace(struct pml_container *c, uint64_t entry, const char *value,
                   uint64_t value_word) {
    struct pml_pool *pool = c->pool;
    struct pml_dict_entry *e = pml_ptr(pool, entry);
    uint64_t bytes = PML_VALUE_BYTES(value_word);
    uint64_t room = pml_payload_bytes(pool, entry) - sizeof *e - padded(PML_VALUE_BYTES(e->key));
    if (bytes <= room && bytes <= IN_PLACE_MAX && (room <= 256 || bytes * 2 >= room)) {
        int st = e->value == value_word ? PML_OK
                                        : pml_store64(pool, ENTRY_FIELD(entry, value), value_word);
        uint64_t at = entry + sizeof *e + padded(PML_VALUE_BYTES(e->key));
        if (st == PML_OK) st = pml_note(pool, at, bytes);
        if (st == PML_OK) memcpy(pml_ptr(pool, at), value, bytes);
        return st;
    }
    uint64_t at, slot_at;
    int st =
        pml_alloc(pool, sizeof *e + padded(PML_VALUE_BYTES(e->key)) + bytes, PML_BLOCK_ENTRY, &at);
    if (st != PML_OK) return st;
    fill_entry(pool, at, e->hash, key_of(e), e->key, value, value_word);
    struct pml_dict_entry *fresh = pml_ptr(pool, at);
    fresh->next = e->next;
    fresh->prev = e->prev;
    st = relink(pool, c->root, e, at);
    if (st == PML_OK) st = slot_holding(pool, pml_ptr(pool, c->root), e->hash, entry, &slot_at);
    if (st == PML_OK) st = pml_store64(pool, slot_at, PML_SLOT_TAG(e->hash) | at);
    if (st == PML_OK) st = pml_tx_defer_free(pool, entry);
    pml_container_changed(c);
    return st;
}

static int check_words(uint64_t key_word) {
    if (PML_UNLIKELY(PML_VALUE_BYTES(key_word) > PML_KEY_MAX))
        return pml_fail(PML_E_ARGUMENT, "a key has at most %llu bytes", PML_KEY_MAX);
    return PML_OK;
}

static int put_hashed(struct pml_container *c, uint64_t hash, const char *key, uint64_t key_word,
                      const char *value, uint64_t value_word) {
    int st = check_words(key_word);
    if (st != PML_OK) return st;
    struct pml_dict_entry e;
    uint64_t entry;
    st = find_hashed(c->pool, c->root, key, key_word, hash, &entry, &e);
    if (st == PML_OK) return replace(c, entry, value, value_word);
    return st == PML_E_MISSING ? insert(c, hash, key, key_word, value, value_word) : st;
}

int pml_dict_put(struct pml_container *c, const char *key, uint64_t key_word, const char *value,
                 uint64_t value_word) {
    return put_hashed(c, hash_of(c->pool, key, key_word), key, key_word, value, value_word);
}

/* The old root's content becomes a dropped container under a root of its own. */
static int detach(struct pml_container *c) {
    struct pml_pool *pool = c->pool;
    uint64_t copy;
    int st = pml_alloc(pool, sizeof(struct pml_dict_root), PML_BLOCK_ROOT, &copy);
    if (st != PML_OK) return st;
    memcpy(pml_ptr(pool, copy), pml_ptr(pool, c->root), sizeof(struct pml_dict_root));
    uint64_t from = sizeof(struct pml_root), size = sizeof(struct pml_dict_root) - from;
    st = pml_note(pool, c->root + from, size);
    if (st != PML_OK) return st;
    memset((char *)pml_ptr(pool, c->root) + from, 0, size);
    pml_container_changed(c);
    st = pml_garbage_add(pool, copy);
    return st == PML_OK ? pml_garbage_step(pool, PML_GARBAGE_STEP) : st;
}

int pml_dict_remove(struct pml_container *c, uint64_t entry) {
    struct pml_pool *pool = c->pool;
    struct pml_dict_root *r = pml_ptr(pool, c->root);
    struct pml_dict_entry *e = pml_ptr(pool, entry);
    uint64_t slot_at;
    int st = slot_holding(pool, r, e->hash, entry, &slot_at);
    if (st == PML_OK) st = pml_store64(pool, slot_at, 0);
    if (st == PML_OK) st = relink(pool, c->root, e, 0);
    if (st != PML_OK) return st;
    r->count--; /* noted by relink */
    st = pml_tx_defer_free(pool, entry);
    pml_container_changed(c);
    if (st == PML_OK && !r->count && r->buckets > SHRINK_BUCKETS) st = detach(c);
    return st;
}

int pml_dict_make(struct pml_pool *pool, uint64_t *root) {
    int st = pml_alloc(pool, sizeof(struct pml_dict_root), PML_BLOCK_ROOT, root);
    if (st != PML_OK) return st;
    struct pml_dict_root *r = pml_ptr(pool, *root);
    memset(r, 0, sizeof *r);
    r->root.type = PML_TYPE_DICT;
    return PML_OK;
}

/* Entries, then overflow buckets, then segments, then the root; the root says how far it went. */
int pml_dict_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left) {
    struct pml_dict_root *r;
    int st = root_at(pool, root, &r);
    if (st == PML_OK) st = pml_note(pool, ROOT_FIELD(root, count), 32);
    while (st == PML_OK && *left && r->first) {
        struct pml_dict_entry e;
        st = pml_dict_entry_at(pool, r->first, &e);
        if (st == PML_OK) st = pml_tx_defer_free(pool, r->first);
        if (st != PML_OK) return st;
        r->first = e.next;
        --*left;
    }
    uint32_t looks = *left * 8;
    while (st == PML_OK && *left && looks && r->buckets) {
        struct pml_bucket *bucket;
        uint64_t at = bucket_offset(r, r->buckets - 1);
        st = bucket_at(pool, at, &bucket);
        if (st != PML_OK) return st;
        uint64_t overflow = bucket->overflow;
        if (overflow) {
            st = bucket_at(pool, overflow, &bucket);
            if (st == PML_OK) st = pml_tx_defer_free(pool, overflow);
            if (st == PML_OK)
                st =
                    pml_store64(pool, at + offsetof(struct pml_bucket, overflow), bucket->overflow);
            --*left;
        } else {
            r->buckets--;
        }
        looks--;
    }
    if (st != PML_OK || r->first || r->buckets) {
        *left = 0;
        return st;
    }
    for (uint32_t k = 0; k < PML_SEGMENTS; k++) {
        if (!r->segments[k]) continue;
        if (*left < 2) {
            *left = 0;
            return PML_OK;
        }
        st = pml_tx_defer_free(pool, r->segments[k]);
        if (st == PML_OK) st = pml_store64(pool, ROOT_FIELD(root, segments) + 8ull * k, 0);
        if (st != PML_OK) return st;
        --*left;
    }
    if (*left < 2) {
        *left = 0;
        return PML_OK;
    }
    --*left;
    return pml_tx_defer_free(pool, root);
}

/* ---- the public operations ---- */

static int64_t count_body(struct pml_container *c) {
    struct pml_dict_root *r;
    int st = root_at(c->pool, c->root, &r);
    return st == PML_OK ? (int64_t)r->count : st;
}

int64_t pml_dict_count(struct pml_container *c) { PML_VIEW(c, count_body(c)); }

static int64_t copy_value(struct pml_pool *pool, uint64_t at, const struct pml_dict_entry *e,
                          char *buffer, size_t capacity) {
    uint64_t bytes = PML_VALUE_BYTES(e->value);
    if (PML_LIKELY(bytes <= capacity)) memcpy(buffer, pml_entry_value(pool, at, e), bytes);
    return (int64_t)e->value;
}

static int64_t get_body(struct pml_container *c, const char *key, uint64_t word, char *buffer,
                        size_t capacity) {
    uint64_t entry;
    struct pml_dict_entry e;
    int st = find(c, key, word, &entry, &e);
    return st == PML_OK ? copy_value(c->pool, entry, &e, buffer, capacity) : st;
}

int64_t pml_dict_get(struct pml_container *c, const char *key, uint64_t key_word, char *buffer,
                     size_t capacity) {
    PML_VIEW(c, get_body(c, key, key_word, buffer, capacity));
}

static int64_t has_body(struct pml_container *c, const char *key, uint64_t word) {
    uint64_t entry;
    int st = pml_dict_find(c->pool, c->root, key, word, &entry);
    return st == PML_OK ? 1 : st == PML_E_MISSING ? 0 : st;
}

int pml_dict_has(struct pml_container *c, const char *key, uint64_t key_word) {
    PML_VIEW_INT(c, has_body(c, key, key_word));
}

int pml_dict_set(struct pml_container *c, const char *key, uint64_t key_word, const char *value,
                 uint64_t value_word) {
    struct pml_op op;
    int st = pml_op_begin(c->pool, &op);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    st = pml_container_resolve(c);
    if (PML_LIKELY(st == PML_OK)) st = pml_dict_put(c, key, key_word, value, value_word);
    return pml_op_end(&op, st);
}

static int64_t take(struct pml_container *c, const char *key, uint64_t word, char *buffer,
                    size_t capacity, bool whole) {
    uint64_t entry;
    struct pml_dict_entry e;
    int st = find(c, key, word, &entry, &e);
    if (st != PML_OK) return st;
    int64_t value = whole ? copy_value(c->pool, entry, &e, buffer, capacity) : (int64_t)e.value;
    if (whole && PML_VALUE_BYTES((uint64_t)value) > capacity) return value;
    st = pml_dict_remove(c, entry);
    return st == PML_OK ? value : st;
}

int pml_dict_delete(struct pml_container *c, const char *key, uint64_t key_word) {
    struct pml_op op;
    int st = pml_op_begin(c->pool, &op);
    if (st != PML_OK) return st;
    int64_t r = pml_container_resolve(c);
    if (r == PML_OK) r = take(c, key, key_word, NULL, 0, false);
    return pml_op_end(&op, r < 0 ? (int)r : PML_OK);
}

int64_t pml_dict_pop(struct pml_container *c, const char *key, uint64_t key_word, char *buffer,
                     size_t capacity) {
    struct pml_op op;
    int st = pml_op_begin(c->pool, &op);
    if (st != PML_OK) return st;
    int64_t r = pml_container_resolve(c);
    if (r == PML_OK) r = take(c, key, key_word, buffer, capacity, true);
    st = pml_op_end(&op, r < 0 ? (int)r : PML_OK);
    return st < 0 ? st : r;
}

static int update_body(struct pml_container *c, size_t count, const char *keys,
                       const uint64_t *key_words, const char *values, const uint64_t *value_words) {
    uint64_t hashes[AHEAD];
    for (size_t i = 0; i < count; i++) {
        if (i % AHEAD == 0) look_ahead(c, count - i, keys, key_words + i, hashes);
        int st = put_hashed(c, hashes[i % AHEAD], keys, key_words[i], values, value_words[i]);
        if (st != PML_OK) return st;
        keys += PML_VALUE_BYTES(key_words[i]);
        values += PML_VALUE_BYTES(value_words[i]);
    }
    return PML_OK;
}

int pml_dict_update(struct pml_container *c, size_t count, const char *keys,
                    const uint64_t *key_words, const char *values, const uint64_t *value_words) {
    struct pml_op op;
    int st = pml_op_begin(c->pool, &op);
    if (st != PML_OK) return st;
    st = pml_container_resolve(c);
    if (st == PML_OK) st = update_body(c, count, keys, key_words, values, value_words);
    return pml_op_end(&op, st);
}

static int64_t many_body(struct pml_container *c, size_t count, const char *keys,
                         const uint64_t *key_words, char *buffer, size_t capacity,
                         uint64_t *value_words) {
    uint64_t hashes[AHEAD];
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (i % AHEAD == 0) look_ahead(c, count - i, keys, key_words + i, hashes);
        uint64_t entry;
        struct pml_dict_entry e;
        int st = find_hashed(c->pool, c->root, keys, key_words[i], hashes[i % AHEAD], &entry, &e);
        keys += PML_VALUE_BYTES(key_words[i]);
        value_words[i] = PML_MISSING_WORD;
        if (st == PML_E_MISSING) continue;
        if (st != PML_OK) return st;
        uint64_t bytes = PML_VALUE_BYTES(e.value);
        if (bytes > capacity - used) return PML_E_BUFFER;
        memcpy(buffer + used, pml_entry_value(c->pool, entry, &e), bytes);
        used += bytes;
        value_words[i] = e.value;
    }
    return (int64_t)used;
}

int64_t pml_dict_get_many(struct pml_container *c, size_t count, const char *keys,
                          const uint64_t *key_words, char *buffer, size_t capacity,
                          uint64_t *value_words) {
    PML_VIEW(c, many_body(c, count, keys, key_words, buffer, capacity, value_words));
}

static size_t pack(struct pml_pool *pool, uint64_t at, const struct pml_dict_entry *e,
                   uint32_t what, char *to) {
    size_t used = 0, key = PML_VALUE_BYTES(e->key), value = PML_VALUE_BYTES(e->value);
    if (what & PML_SCAN_KEYS) memcpy(to, &e->key, 8), used += 8;
    if (what & PML_SCAN_VALUES) memcpy(to + used, &e->value, 8), used += 8;
    if (what & PML_SCAN_KEYS) memcpy(to + used, pml_entry_key(pool, at), key), used += key;
    if (what & PML_SCAN_VALUES)
        memcpy(to + used, pml_entry_value(pool, at, e), value), used += value;
    return used;
}

static size_t packed_bytes(const struct pml_dict_entry *e, uint32_t what) {
    return (what & PML_SCAN_KEYS ? 8 + PML_VALUE_BYTES(e->key) : 0) +
           (what & PML_SCAN_VALUES ? 8 + PML_VALUE_BYTES(e->value) : 0);
}

static int64_t scan_body(struct pml_container *c, const struct pml_cursor *from,
                         struct pml_cursor *to, uint32_t what, char *buffer, size_t capacity,
                         uint64_t *count) {
    struct pml_dict_root *r;
    int st = root_at(c->pool, c->root, &r);
    if (st != PML_OK) return st;
    *to = *from;
    *count = 0;
    if (!to->started) {
        to->started = 1;
        to->changes = c->changes;
        to->at = to->reverse ? r->last : r->first;
    } else if (to->changes != c->changes) {
        return PML_E_STALE;
    }
    size_t used = 0;
    for (uint64_t n = r->count; to->at && n; n--) {
        struct pml_dict_entry e;
        st = pml_dict_entry_at(c->pool, to->at, &e);
        if (st != PML_OK) return st;
        size_t bytes = packed_bytes(&e, what);
        if (bytes > capacity - used) {
            if (*count) break;
            to->need = bytes;
            return PML_E_BUFFER;
        }
        used += pack(c->pool, to->at, &e, what, buffer + used);
        ++*count;
        to->at = to->reverse ? e.prev : e.next;
    }
    return (int64_t)used;
}

static int64_t scan_view(struct pml_container *c, const struct pml_cursor *from,
                         struct pml_cursor *to, uint32_t what, char *buffer, size_t capacity,
                         uint64_t *count) {
    PML_VIEW(c, scan_body(c, from, to, what, buffer, capacity, count));
}

int64_t pml_dict_scan(struct pml_container *c, struct pml_cursor *cursor, uint32_t what,
                      char *buffer, size_t capacity, uint64_t *count) {
    struct pml_cursor next = *cursor;
    int64_t used = scan_view(c, cursor, &next, what, buffer, capacity, count);
    if (used >= 0) *cursor = next;
    if (used == PML_E_BUFFER) cursor->need = next.need;
    return used;
}

static int64_t seek_body(struct pml_container *c, const char *key, uint64_t word,
                         struct pml_cursor *cursor) {
    uint64_t entry;
    struct pml_dict_entry e;
    int st = find(c, key, word, &entry, &e);
    if (st != PML_OK) return st;
    cursor->at = cursor->reverse ? e.prev : e.next;
    cursor->changes = c->changes;
    cursor->started = 1;
    return PML_OK;
}

int pml_dict_seek(struct pml_container *c, struct pml_cursor *cursor, const char *key,
                  uint64_t key_word) {
    PML_VIEW_INT(c, seek_body(c, key, key_word, cursor));
}

static int clear_body(struct pml_container *c) {
    struct pml_dict_root *r;
    int st = root_at(c->pool, c->root, &r);
    if (st != PML_OK || (!r->count && !r->buckets)) return st;
    return detach(c);
}

int pml_dict_clear(struct pml_container *c) {
    struct pml_op op;
    int st = pml_op_begin(c->pool, &op);
    if (st != PML_OK) return st;
    st = pml_container_resolve(c);
    if (st == PML_OK) st = clear_body(c);
    return pml_op_end(&op, st);
}

/* ---- checking ---- */

static void walk_entries(struct pml_walk *w, const struct pml_dict_root *r, uint64_t root,
                         const char *name) {
    struct pml_pool *pool = w->pool;
    uint64_t seen = 0, prev = 0;
    for (uint64_t at = r->first; at; seen++) {
        struct pml_dict_entry e, again;
        if ((!w->garbage && seen > r->count) || pml_dict_entry_at(pool, at, &e) != PML_OK) {
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, r->count, seen,
                          "dict \"%s\": the list of entries is broken", name);
            return;
        }
        uint64_t size = sizeof e + padded(PML_VALUE_BYTES(e.key)) + PML_VALUE_BYTES(e.value), found;
        if (!pml_walk_block(w, at, size, PML_BLOCK_ENTRY)) return;
        if (w->garbage) { /* half taken apart: only what is left of it counts */
            at = e.next;
            continue;
        }
        if (e.prev != prev)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, prev, e.prev,
                          "dict \"%s\": an entry's prev is wrong", name);
        const char *key = pml_entry_key(pool, at);
        uint64_t hash = hash_of(pool, key, e.key);
        if (hash != e.hash)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, hash, e.hash,
                          "dict \"%s\": an entry's hash is wrong", name);
        else if (find_hashed(pool, root, key, e.key, hash, &found, &again) != PML_OK || found != at)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, at, 0,
                          "dict \"%s\": an entry is not found by its key", name);
        prev = at;
        at = e.next;
    }
    if (w->garbage) return;
    if (seen != r->count)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, r->count, seen,
                      "dict \"%s\": count is wrong", name);
    if (prev != r->last)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, prev, r->last,
                      "dict \"%s\": last is wrong", name);
}

static void walk_buckets(struct pml_walk *w, const struct pml_dict_root *r, uint64_t root,
                         const char *name) {
    uint64_t slots = 0;
    for (uint64_t b = 0; b < r->buckets; b++) {
        uint64_t at = bucket_offset(r, b);
        for (uint32_t n = 0; at; n++) {
            struct pml_bucket *bucket;
            if (n == CHAIN_MAX || bucket_at(w->pool, at, &bucket) != PML_OK) {
                pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, b, n,
                              "dict \"%s\": a bucket chain is broken", name);
                return;
            }
            if (n && !pml_walk_block(w, at, sizeof *bucket, PML_BLOCK_BUCKET)) return;
            for (int i = 0; i < PML_BUCKET_SLOTS; i++) slots += bucket->slots[i] != 0;
            at = bucket->overflow;
        }
    }
    if (slots != r->count && !w->garbage)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, r->count, slots,
                      "dict \"%s\": buckets hold another number of entries", name);
}

void pml_dict_walk(struct pml_walk *w, uint64_t root, const char *name) {
    struct pml_dict_root *now, copy, *r = &copy;
    if (!pml_walk_block(w, root, sizeof *r, PML_BLOCK_ROOT) ||
        root_at(w->pool, root, &now) != PML_OK)
        return;
    memcpy(&copy, now, sizeof copy);
    uint32_t segments = r->buckets ? segment_of(r->buckets - 1) + 1 : 0;
    if (segments > PML_SEGMENTS || r->buckets > w->pool->image_bytes / sizeof(struct pml_bucket)) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, w->pool->image_bytes, r->buckets,
                      "dict \"%s\": it cannot have that many buckets", name);
        return;
    }
    for (uint32_t k = 0; k < PML_SEGMENTS; k++) {
        bool wanted = w->garbage ? r->segments[k] != 0 : k < segments;
        if (wanted != (r->segments[k] != 0)) {
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, wanted, r->segments[k],
                          "dict \"%s\": segment %u", name, k);
            return;
        }
        if (wanted && !pml_walk_block(w, r->segments[k],
                                      segment_buckets(k) * sizeof(struct pml_bucket) + PML_LINE,
                                      PML_BLOCK_SEGMENT))
            return;
    }
    walk_entries(w, r, root, name);
    walk_buckets(w, r, root, name);
}
