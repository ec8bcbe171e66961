/*
 * What a pool should hold, the naive way: a dict is a list of pairs in order of insertion, a deque
 * is an array, a region is bytes.  A state is compared by its digest, taken from the model on one
 * side and through the public C API on the other.
 */
#ifndef PML_TEST_MODEL_H
#define PML_TEST_MODEL_H

#include "harness.h"

#define MODEL_REGION_BYTES 8192u
#define MODEL_VALUE_MAX (128u * 1024u)

struct model_value {
    uint64_t word;
    uint32_t checksum;
};

struct model_entry {
    uint32_t key;
    struct model_value value;
};

struct model {
    bool has_dict, has_deque, has_region;
    uint64_t grown; /* regions that were made to make the image grow: "g" and its number */
    struct model_entry *entries;
    size_t entry_count, entry_capacity;
    struct model_value *items;
    size_t item_count, item_capacity;
    char region[MODEL_REGION_BYTES];
};

/* ---- what may be seen ---- */

struct commit {           /* one transaction of the recorded run */
    uint64_t txn;
    uint64_t digest;      /* of the state behind it */
    size_t begun;         /* events before its call */
    size_t whole;         /* events up to the last store of its record; SIZE_MAX: not known */
    size_t returned;      /* events when its call had returned; SIZE_MAX: it never did */
};

struct history {
    struct commit *commits;
    size_t count, capacity;
};

/* model: begin */
/* What may be seen after a cut behind event number `cut`: exactly the state behind one transaction
 * from *first to *last.  Nothing whose commit had returned is lost, nor what control had told other
 * processes (`told`); nothing is there whose commit had not begun.  Where only the process was
 * killed, the stores of a whole record are enough: no store is taken back. */
static inline void model_seen(const struct history *h, size_t cut, bool killed, uint64_t told,
                              uint64_t *first, uint64_t *last) {
    *first = *last = told;
    for (size_t i = 0; i < h->count; i++) {
        const struct commit *c = &h->commits[i];
        size_t kept = killed && c->whole < c->returned ? c->whole : c->returned;
        if (kept <= cut && *first < c->txn) *first = c->txn;
        if (c->begun < cut && *last < c->txn) *last = c->txn;
    }
}
/* model: end */

static inline void model_free(struct model *m) {
    free(m->entries);
    free(m->items);
    memset(m, 0, sizeof *m);
}

static inline void model_copy(struct model *to, const struct model *from) {
    struct model_entry *entries = to->entries;
    struct model_value *items = to->items;
    size_t entry_capacity = to->entry_capacity, item_capacity = to->item_capacity;
    if (entry_capacity < from->entry_count) {
        entry_capacity = from->entry_capacity;
        entries = realloc(entries, entry_capacity * sizeof *entries);
        CHECK(entries);
    }
    if (item_capacity < from->item_count) {
        item_capacity = from->item_capacity;
        items = realloc(items, item_capacity * sizeof *items);
        CHECK(items);
    }
    *to = *from;
    to->entries = entries;
    to->items = items;
    to->entry_capacity = entry_capacity;
    to->item_capacity = item_capacity;
    if (from->entry_count) memcpy(entries, from->entries, from->entry_count * sizeof *entries);
    if (from->item_count) memcpy(items, from->items, from->item_count * sizeof *items);
}

/* ---- keys and values: a number decides the bytes ---- */

static inline uint64_t key_bytes(uint32_t key, char out[300]) {
    int n = snprintf(out, 300, "key-%u", key);
    /* Some keys are long, some of a length that needs padding. */
    for (; key % 7 == 3 && n < 200; n++) out[n] = (char)('a' + (key + (uint32_t)n) % 26);
    return word_of((uint64_t)n, PML_KIND_STR);
}

static inline struct model_value value_bytes(uint64_t id, uint64_t length, char *out) {
    random_fill(mix64(id), out, length);
    return (struct model_value){word_of(length, id % 2 ? PML_KIND_BYTES : PML_KIND_MSGPACK),
                                pml_crc32c(0, out, length)};
}

/* ---- the model's operations ---- */

static inline size_t model_find(const struct model *m, uint32_t key) {
    size_t i = 0;
    while (i < m->entry_count && m->entries[i].key != key) i++;
    return i;
}

static inline void model_put(struct model *m, uint32_t key, struct model_value value) {
    size_t at = model_find(m, key);
    if (at == m->entry_capacity) {
        m->entry_capacity = m->entry_capacity ? 2 * m->entry_capacity : 64;
        m->entries = realloc(m->entries, m->entry_capacity * sizeof *m->entries);
        CHECK(m->entries);
    }
    if (at == m->entry_count) m->entry_count++;
    m->entries[at] = (struct model_entry){key, value};
}

static inline bool model_delete(struct model *m, uint32_t key) {
    size_t at = model_find(m, key);
    if (at == m->entry_count) return false;
    m->entry_count--;
    memmove(&m->entries[at], &m->entries[at + 1], (m->entry_count - at) * sizeof *m->entries);
    return true;
}

static inline void model_insert(struct model *m, size_t at, struct model_value value) {
    if (m->item_count == m->item_capacity) {
        m->item_capacity = m->item_capacity ? 2 * m->item_capacity : 64;
        m->items = realloc(m->items, m->item_capacity * sizeof *m->items);
        CHECK(m->items);
    }
    memmove(&m->items[at + 1], &m->items[at], (m->item_count - at) * sizeof *m->items);
    m->items[at] = value;
    m->item_count++;
}

static inline struct model_value model_erase(struct model *m, size_t at) {
    struct model_value value = m->items[at];
    m->item_count--;
    memmove(&m->items[at], &m->items[at + 1], (m->item_count - at) * sizeof *m->items);
    return value;
}

/* ---- digests ---- */

static inline uint64_t digest_word(uint64_t digest, uint64_t word) { return mix64(digest ^ word); }

static inline uint64_t digest_value(uint64_t digest, uint64_t word, uint32_t checksum) {
    return digest_word(digest_word(digest, word), checksum);
}

static inline uint64_t model_digest(const struct model *m) {
    uint64_t digest = 1;
    digest = digest_word(digest, (uint64_t)m->has_dict | (uint64_t)m->has_deque << 1 |
                                     (uint64_t)m->has_region << 2 | m->grown << 3);
    for (size_t i = 0; m->has_dict && i < m->entry_count; i++) {
        char key[300];
        uint64_t word = key_bytes(m->entries[i].key, key);
        digest = digest_value(digest, word, pml_crc32c(0, key, PML_VALUE_BYTES(word)));
        digest = digest_value(digest, m->entries[i].value.word, m->entries[i].value.checksum);
    }
    digest = digest_word(digest, m->has_dict ? m->entry_count : 0);
    for (size_t i = 0; m->has_deque && i < m->item_count; i++)
        digest = digest_value(digest, m->items[i].word, m->items[i].checksum);
    digest = digest_word(digest, m->has_deque ? m->item_count : 0);
    if (m->has_region)
        digest = digest_word(digest, pml_crc32c(0, m->region, MODEL_REGION_BYTES));
    return digest;
}

/* Which of the three containers there are: bit 0 dict "d", bit 1 deque "q", bit 2 region "r"; from
 * bit 3 on, how many regions "g…".  Another name than these and "after", which a test adds, is an error. */
static inline int64_t pool_names(struct pml_pool *pool) {
    char buffer[4096];
    uint64_t count;
    struct pml_cursor cursor = {0};
    int64_t used = pml_container_names(pool, &cursor, buffer, sizeof buffer, &count), names = 0;
    if (used < 0) return used;
    for (const char *at = buffer; count; count--) {
        uint64_t key, value;
        memcpy(&key, at, 8);
        memcpy(&value, at + 8, 8);
        const char *name = at + 16;
        if (PML_VALUE_BYTES(key) == 1 && *name == 'd')
            names |= 1;
        else if (PML_VALUE_BYTES(key) == 1 && *name == 'q')
            names |= 2;
        else if (PML_VALUE_BYTES(key) == 1 && *name == 'r')
            names |= 4;
        else if (PML_VALUE_BYTES(key) > 1 && *name == 'g')
            names += 8;
        else if (PML_VALUE_BYTES(key) != 5 || memcmp(name, "after", 5))
            return PML_E_INVARIANT;
        at = name + PML_VALUE_BYTES(key) + PML_VALUE_BYTES(value);
    }
    return names;
}

static inline int digest_dict(struct pml_container *c, char *buffer, size_t capacity,
                              uint64_t *digest, uint64_t *total) {
    struct pml_cursor cursor = {0};
    *total = 0;
    for (;;) {
        uint64_t count;
        int64_t used = pml_dict_scan(c, &cursor, PML_SCAN_KEYS | PML_SCAN_VALUES, buffer, capacity,
                                     &count);
        if (used < 0) return (int)used;
        if (!count) return PML_OK;
        *total += count;
        for (const char *at = buffer; count; count--) {
            uint64_t key, value;
            memcpy(&key, at, 8);
            memcpy(&value, at + 8, 8);
            at += 16;
            *digest = digest_value(*digest, key, pml_crc32c(0, at, PML_VALUE_BYTES(key)));
            at += PML_VALUE_BYTES(key);
            *digest = digest_value(*digest, value, pml_crc32c(0, at, PML_VALUE_BYTES(value)));
            at += PML_VALUE_BYTES(value);
        }
    }
}

static inline int digest_deque(struct pml_container *c, char *buffer, size_t capacity,
                               uint64_t *digest, uint64_t *total) {
    for (*total = 0;;) {
        uint64_t count;
        int64_t used = pml_deque_scan(c, *total, 0, buffer, capacity, &count);
        if (used < 0) return (int)used;
        if (!count) return PML_OK;
        *total += count;
        for (const char *at = buffer; count; count--) {
            uint64_t word;
            memcpy(&word, at, 8);
            *digest = digest_value(*digest, word, pml_crc32c(0, at + 8, PML_VALUE_BYTES(word)));
            at += 8 + PML_VALUE_BYTES(word);
        }
    }
}

static inline int open_named(struct pml_pool *pool, const char *name, uint32_t type,
                             struct pml_container **out) {
    return pml_container_open(pool, name, strlen(name), type,
                              type == PML_TYPE_REGION ? MODEL_REGION_BYTES : 0, NULL, 0, out);
}

/* The digest of what the pool holds; a negative status when it cannot be read. */
static inline int pool_digest(struct pml_pool *pool, uint64_t *out) {
    static char buffer[2 * MODEL_VALUE_MAX];
    *out = 0;
    int64_t names = pool_names(pool);
    if (names < 0) return (int)names;
    uint64_t digest = digest_word(1, (uint64_t)names);
    struct pml_container *c;
    uint64_t count = 0;
    int st = PML_OK;
    if (names & 1) {
        st = open_named(pool, "d", PML_TYPE_DICT, &c);
        if (st == PML_OK) {
            st = digest_dict(c, buffer, sizeof buffer, &digest, &count);
            pml_container_free(c);
        }
    }
    digest = digest_word(digest, count);
    count = 0;
    if (st == PML_OK && names & 2) {
        st = open_named(pool, "q", PML_TYPE_DEQUE, &c);
        if (st == PML_OK) {
            st = digest_deque(c, buffer, sizeof buffer, &digest, &count);
            pml_container_free(c);
        }
    }
    digest = digest_word(digest, count);
    if (st == PML_OK && names & 4) {
        st = open_named(pool, "r", PML_TYPE_REGION, &c);
        if (st == PML_OK) {
            st = pml_bytes_read(c, 0, buffer, MODEL_REGION_BYTES);
            pml_container_free(c);
        }
        digest = digest_word(digest, pml_crc32c(0, buffer, MODEL_REGION_BYTES));
    }
    *out = digest;
    return st;
}

#endif
