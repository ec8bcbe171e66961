/*
 * Deque: blocks of slots in a doubly linked list, a slot is the offset of an item's heap block.
 *
 * As in CPython, first_index and last_index are inclusive and only slots between the ends mean
 * anything: a pop leaves its slot's old word where it is, which saves a range in the record.
 * Unlike CPython, an empty deque has no block.
 *
 * An operation works on a copy of the root and stores its 32 changing bytes once, at the end.
 * Every loop is bounded by the number of items, and that by the size of the image, so a reader
 * beside a writer gets to the end of whatever it meets.
 */
#include "internal.h"
#include "view.h"

#define SLOTS PML_DEQUE_SLOTS
#define MIDDLE (SLOTS / 2)
#define ITEM_BLOCK_MIN 32u   /* the heap's least block: bounds how many items an image can hold */
#define IN_PLACE_BELOW 2048u /* longer values take a new block: their old bytes need no undo */
#define IN_PLACE_WASTE 256u  /* blocks up to here are kept even for a far shorter value */

#define ROOT_STATE offsetof(struct pml_deque_root, count)
#define ROOT_STATE_BYTES (sizeof(struct pml_deque_root) - ROOT_STATE)
#define NEXT_OF(block) ((block) + offsetof(struct pml_deque_block, next))
#define PREV_OF(block) ((block) + offsetof(struct pml_deque_block, prev))
#define SLOT_OF(block, index) ((block) + offsetof(struct pml_deque_block, slots) + 8ull * (index))

struct place {
    uint64_t block;
    uint32_t index;
};

/* Read once: beside a writer a second read may find another word than the one that was checked. */
static inline uint64_t load(struct pml_pool *pool, uint64_t at) {
    return __atomic_load_n((const uint64_t *)pml_ptr(pool, at), __ATOMIC_RELAXED);
}

static inline uint64_t slot_at(struct pml_pool *pool, struct place p) {
    return load(pool, SLOT_OF(p.block, p.index));
}

/* ---- reaching ---- */

/* A used heap block of that kind; *room: what its payload holds. */
static int reach_block(struct pml_pool *pool, uint64_t payload, uint32_t kind, uint64_t least,
                       uint64_t *room) {
    int st = pml_reach(pool, payload - 8, 8 + least);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    uint64_t word = load(pool, payload - 8), size = PML_BLOCK_SIZE(word);
    if (PML_UNLIKELY(!(word & PML_BLOCK_USED) || PML_BLOCK_KIND(word) != kind || size < 8 + least ||
                     !pml_in_body(pool, payload - 8, size)))
        return pml_fail_corrupt("image", 0, payload - 8, kind, word,
                                "a deque points to a heap block that is not one of its own");
    *room = size - 8;
    return PML_OK;
}

static int reach_slots(struct pml_pool *pool, uint64_t block) {
    uint64_t room;
    return reach_block(pool, block, PML_BLOCK_DEQUE, sizeof(struct pml_deque_block), &room);
}

/* *word: the item's value word, whose length fits the block; `whole`: its bytes will be read. */
static int reach_item(struct pml_pool *pool, uint64_t item, bool whole, uint64_t *word,
                      uint64_t *room) {
    int st = reach_block(pool, item, PML_BLOCK_ITEM, sizeof(struct pml_item), room);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    *word = load(pool, item);
    uint64_t size = PML_VALUE_BYTES(*word);
    if (PML_UNLIKELY(size > *room - sizeof(struct pml_item) || !PML_VALUE_KIND(*word)))
        return pml_fail_corrupt("image", 0, item, *room, *word, "an item of a deque is damaged");
    return whole ? pml_reach(pool, item, sizeof(struct pml_item) + size) : PML_OK;
}

static int load_root(struct pml_pool *pool, uint64_t root, struct pml_deque_root *d) {
    int st = pml_reach(pool, root, sizeof *d);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    memcpy(d, pml_ptr(pool, root), sizeof *d);
    if (PML_UNLIKELY(d->root.type != PML_TYPE_DEQUE || d->first_index >= SLOTS ||
                     d->last_index >= SLOTS || !d->count != !d->first_block ||
                     !d->count != !d->last_block || d->count > pool->image_bytes / ITEM_BLOCK_MIN))
        return pml_fail_corrupt("image", 0, root, d->first_block, d->count,
                                "the root of a deque is damaged");
    return PML_OK;
}

static int store_root(struct pml_pool *pool, uint64_t root, const struct pml_deque_root *d) {
    int st = pml_note(pool, root + ROOT_STATE, ROOT_STATE_BYTES);
    if (PML_LIKELY(st == PML_OK))
        memcpy((char *)pml_ptr(pool, root) + ROOT_STATE, &d->count, ROOT_STATE_BYTES);
    return st;
}

static int store_root_changed(struct pml_container *c, const struct pml_deque_root *d) {
    int st = store_root(c->pool, c->root, d);
    if (PML_LIKELY(st == PML_OK)) pml_container_changed(c);
    return st;
}

/* ---- places ---- */

static struct place end_of(const struct pml_deque_root *d, bool left) {
    return left ? (struct place){d->first_block, d->first_index}
                : (struct place){d->last_block, d->last_index};
}

static int step(struct pml_pool *pool, struct place *p, bool up) {
    if (PML_LIKELY(up ? p->index + 1 < SLOTS : p->index > 0)) {
        p->index += up ? 1u : UINT32_MAX;
        return PML_OK;
    }
    p->block = load(pool, up ? NEXT_OF(p->block) : PREV_OF(p->block));
    p->index = up ? 0 : SLOTS - 1;
    return reach_slots(pool, p->block);
}

/* The place of an index < count, from the nearer end. */
static int find(struct pml_pool *pool, const struct pml_deque_root *d, uint64_t index,
                struct place *p) {
    bool up = index <= d->count / 2;
    p->block = up ? d->first_block : d->last_block;
    /* counted in slots from the outer edge of the outermost block */
    uint64_t distance =
        up ? d->first_index + index : (SLOTS - 1 - d->last_index) + (d->count - 1 - index);
    int st = reach_slots(pool, p->block);
    for (; st == PML_OK && distance >= SLOTS; distance -= SLOTS) {
        p->block = load(pool, up ? NEXT_OF(p->block) : PREV_OF(p->block));
        st = reach_slots(pool, p->block);
    }
    p->index = (uint32_t)(up ? distance : SLOTS - 1 - distance % SLOTS);
    return st;
}

static int find_item(struct pml_pool *pool, const struct pml_deque_root *d, int64_t index,
                     uint64_t *at, struct place *p) {
    int64_t count = (int64_t)d->count;
    if (index < -count || index >= count)
        return pml_fail(PML_E_MISSING, "index %lld is outside of the deque's %lld items",
                        (long long)index, (long long)count);
    *at = (uint64_t)(index < 0 ? index + count : index);
    return find(pool, d, *at, p);
}

/* ---- the ends ---- */

static int make_item(struct pml_pool *pool, const char *value, uint64_t word, uint64_t *item) {
    uint64_t size = PML_VALUE_BYTES(word);
    if (PML_UNLIKELY(!PML_VALUE_KIND(word)))
        return pml_fail(PML_E_ARGUMENT, "a value's word has no kind");
    int st = pml_alloc(pool, sizeof(struct pml_item) + size, PML_BLOCK_ITEM, item);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    char *at = pml_ptr(pool, *item);
    memcpy(at, &word, sizeof word);
    if (size) memcpy(at + sizeof word, value, size);
    return PML_OK;
}

/* One slot more at an end.  *fresh: the block that this operation made last, 0 at first: the whole
 * of it is in the record already, and goes when the operation is undone. */
static int push_slot(struct pml_pool *pool, struct pml_deque_root *d, bool left, uint64_t item,
                     uint64_t *fresh) {
    struct place p = end_of(d, left);
    bool room = d->count && (left ? p.index > 0 : p.index + 1 < SLOTS);
    int st;
    if (PML_LIKELY(room)) {
        p.index += left ? UINT32_MAX : 1u;
        st = p.block == *fresh ? PML_OK : reach_slots(pool, p.block);
    } else {
        struct place edge = p;
        struct pml_deque_block zero = {0};
        st = edge.block ? reach_slots(pool, edge.block) : PML_OK;
        if (st == PML_OK) st = pml_alloc(pool, sizeof zero, PML_BLOCK_DEQUE, &p.block);
        if (st != PML_OK) return st;
        zero.next = left ? edge.block : 0;
        zero.prev = left ? 0 : edge.block;
        memcpy(pml_ptr(pool, p.block), &zero, sizeof zero);
        *fresh = p.block;
        p.index = left ? SLOTS - 1 : 0;
        if (edge.block) {
            st = pml_store64(pool, left ? PREV_OF(edge.block) : NEXT_OF(edge.block), p.block);
        } else {
            p.index = MIDDLE;
            d->first_block = d->last_block = p.block;
            d->first_index = d->last_index = MIDDLE;
        }
    }
    if (PML_UNLIKELY(st != PML_OK)) return st;
    d->count++;
    if (left) {
        d->first_block = p.block;
        d->first_index = p.index;
    } else {
        d->last_block = p.block;
        d->last_index = p.index;
    }
    uint64_t at = SLOT_OF(p.block, p.index);
    if (p.block != *fresh) return pml_store64(pool, at, item);
    memcpy(pml_ptr(pool, at), &item, sizeof item);
    return PML_OK;
}

/* One slot less at an end, whose block the caller has reached; the item is the caller's. */
static int drop_slot(struct pml_pool *pool, struct pml_deque_root *d, bool left) {
    struct place p = end_of(d, left);
    d->count--;
    if (!d->count) {
        d->first_block = d->last_block = 0;
        d->first_index = d->last_index = 0;
        return pml_tx_defer_free(pool, p.block);
    }
    if (PML_LIKELY(left ? p.index + 1 < SLOTS : p.index > 0)) {
        if (left)
            d->first_index++;
        else
            d->last_index--;
        return PML_OK;
    }
    uint64_t inner = load(pool, left ? NEXT_OF(p.block) : PREV_OF(p.block));
    int st = reach_slots(pool, inner);
    if (st == PML_OK) st = pml_store64(pool, left ? PREV_OF(inner) : NEXT_OF(inner), 0);
    if (st == PML_OK) st = pml_tx_defer_free(pool, p.block);
    if (left) {
        d->first_block = inner;
        d->first_index = 0;
    } else {
        d->last_block = inner;
        d->last_index = SLOTS - 1;
    }
    return st;
}

/* ---- looks ---- */

static int64_t count_of(struct pml_container *c) {
    struct pml_deque_root d;
    int st = load_root(c->pool, c->root, &d);
    return st == PML_OK ? (int64_t)d.count : st;
}

int64_t pml_deque_count(struct pml_container *c) { PML_VIEW(c, count_of(c)); }

/* A value's word is positive: its length is below 2^48. */
static int64_t get(struct pml_container *c, int64_t index, char *buffer, size_t capacity) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    struct place p;
    uint64_t at, word, room, item;
    int st = load_root(pool, c->root, &d);
    if (st == PML_OK) st = find_item(pool, &d, index, &at, &p);
    if (st != PML_OK) return st;
    item = slot_at(pool, p);
    st = reach_item(pool, item, true, &word, &room);
    if (st != PML_OK) return st;
    uint64_t size = PML_VALUE_BYTES(word);
    if (size && size <= capacity)
        memcpy(buffer, pml_ptr(pool, item + sizeof(struct pml_item)), size);
    return (int64_t)word;
}

int64_t pml_deque_get(struct pml_container *c, int64_t index, char *buffer, size_t capacity) {
    PML_VIEW(c, get(c, index, buffer, capacity));
}

static int64_t scan(struct pml_container *c, uint64_t index, bool reverse, char *buffer,
                    size_t capacity, uint64_t *count) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    struct place p;
    *count = 0;
    int st = load_root(pool, c->root, &d);
    if (st == PML_OK && index >= d.count) return 0;
    if (st == PML_OK) st = find(pool, &d, index, &p);
    size_t used = 0;
    uint64_t items = reverse ? index + 1 : d.count - index;
    while (st == PML_OK) { /* ends: *count grows up to items */
        uint64_t word, room, item = slot_at(pool, p);
        st = reach_item(pool, item, true, &word, &room);
        if (st != PML_OK) break;
        uint64_t need = sizeof word + PML_VALUE_BYTES(word);
        if (need > capacity - used) {
            if (*count) break;
            *count = need;
            return pml_fail(PML_E_BUFFER, "the item takes %llu bytes", (unsigned long long)need);
        }
        memcpy(buffer + used, &word, sizeof word);
        memcpy(buffer + used + sizeof word, pml_ptr(pool, item + sizeof(struct pml_item)),
               need - sizeof word);
        used += need;
        if (++*count == items) break;
        st = step(pool, &p, !reverse);
    }
    return st == PML_OK ? (int64_t)used : st;
}

int64_t pml_deque_scan(struct pml_container *c, uint64_t index, int reverse, char *buffer,
                       size_t capacity, uint64_t *count) {
    PML_VIEW(c, scan(c, index, reverse != 0, buffer, capacity, count));
}

/* ---- changes at the ends ---- */

static int extend(struct pml_container *c, bool left, size_t count, const char *values,
                  const uint64_t *words) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    uint64_t item, fresh = 0;
    int st = load_root(pool, c->root, &d);
    for (size_t i = 0; st == PML_OK && i < count; i++) {
        st = make_item(pool, values, words[i], &item);
        if (st == PML_OK) st = push_slot(pool, &d, left, item, &fresh);
        values += PML_VALUE_BYTES(words[i]);
    }
    return st == PML_OK && count ? store_root_changed(c, &d) : st;
}

int pml_deque_push(struct pml_container *c, int left, const char *value, uint64_t word) {
    PML_CHANGE(c, extend(c, left != 0, 1, value, &word));
}

int pml_deque_extend(struct pml_container *c, int left, size_t count, const char *values,
                     const uint64_t *words) {
    PML_CHANGE(c, extend(c, left != 0, count, values, words));
}

static int pop(struct pml_container *c, bool left, char *buffer, size_t capacity, uint64_t *word) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    int st = load_root(pool, c->root, &d);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    if (!d.count) return pml_fail(PML_E_MISSING, "the deque is empty");
    struct place p = end_of(&d, left);
    uint64_t room, item;
    st = reach_slots(pool, p.block);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    item = slot_at(pool, p);
    st = reach_item(pool, item, true, word, &room);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    uint64_t size = PML_VALUE_BYTES(*word);
    if (size > capacity) return PML_OK; /* the caller sees it by the length and asks again */
    if (size) memcpy(buffer, pml_ptr(pool, item + sizeof(struct pml_item)), size);
    st = pml_tx_defer_free(pool, item);
    if (st == PML_OK) st = drop_slot(pool, &d, left);
    return st == PML_OK ? store_root_changed(c, &d) : st;
}

static int pop_in_op(struct pml_container *c, bool left, char *buffer, size_t capacity,
                     uint64_t *word) {
    PML_CHANGE(c, pop(c, left, buffer, capacity, word));
}

int64_t pml_deque_pop(struct pml_container *c, int left, char *buffer, size_t capacity) {
    uint64_t word = 0;
    int st = pop_in_op(c, left != 0, buffer, capacity, &word);
    return st == PML_OK ? (int64_t)word : st;
}

/* ---- changes in the middle ---- */

/* Small values stay where they are: one range, no allocation, no free. */
static bool stays(uint64_t size, uint64_t room) {
    uint64_t need = sizeof(struct pml_item) + size;
    return need <= room && size < IN_PLACE_BELOW && (room <= IN_PLACE_WASTE || need >= room / 2);
}

static int set(struct pml_container *c, int64_t index, const char *value, uint64_t word) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    struct place p;
    uint64_t at, old_word, room, item;
    int st = load_root(pool, c->root, &d);
    if (st == PML_OK) st = find_item(pool, &d, index, &at, &p);
    if (st != PML_OK) return st;
    uint64_t old = slot_at(pool, p), size = PML_VALUE_BYTES(word);
    st = reach_item(pool, old, false, &old_word, &room);
    if (st != PML_OK) return st;
    if (stays(size, room) && PML_VALUE_KIND(word)) {
        st = pml_note(pool, old, sizeof word + size);
        if (st != PML_OK) return st;
        char *bytes = pml_ptr(pool, old);
        memcpy(bytes, &word, sizeof word);
        if (size) memcpy(bytes + sizeof word, value, size);
        return PML_OK;
    }
    st = make_item(pool, value, word, &item);
    if (st == PML_OK) st = pml_store64(pool, SLOT_OF(p.block, p.index), item);
    return st == PML_OK ? pml_tx_defer_free(pool, old) : st;
}

int pml_deque_set(struct pml_container *c, int64_t index, const char *value, uint64_t word) {
    PML_CHANGE(c, set(c, index, value, word));
}

/* Each of `steps` slots takes what its neighbour above (up) or below holds, beginning at *p, which
 * ends at the slot whose word is now there twice.  Slots of one block are noted as one range. */
static int shift(struct pml_pool *pool, struct place *p, uint64_t steps, bool up) {
    uint32_t noted = 0;
    for (; steps; steps--) {
        if (!noted) {
            noted = (uint32_t)pml_min64(steps, up ? SLOTS - p->index : p->index + 1);
            uint32_t lowest = up ? p->index : p->index + 1 - noted;
            int st = pml_note(pool, SLOT_OF(p->block, lowest), 8ull * noted);
            if (st != PML_OK) return st;
        }
        struct place from = *p;
        int st = step(pool, &from, up);
        if (st != PML_OK) return st;
        uint64_t item = slot_at(pool, from);
        memcpy(pml_ptr(pool, SLOT_OF(p->block, p->index)), &item, sizeof item);
        *p = from;
        noted--;
    }
    return PML_OK;
}

static int insert(struct pml_container *c, int64_t index, const char *value, uint64_t word) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    uint64_t item, fresh = 0;
    int st = load_root(pool, c->root, &d);
    if (st == PML_OK) st = make_item(pool, value, word, &item);
    if (st != PML_OK) return st;
    int64_t count = (int64_t)d.count;
    if (index < 0) index = index < -count ? 0 : index + count;
    uint64_t at = pml_min64((uint64_t)index, d.count);
    if (at == 0 || at == d.count) {
        st = push_slot(pool, &d, at == 0, item, &fresh);
    } else {
        /* The end of the shorter side is doubled, then its slots move by one towards that end. */
        bool left = at <= d.count / 2;
        struct place p = end_of(&d, left);
        st = reach_slots(pool, p.block);
        if (st == PML_OK) st = push_slot(pool, &d, left, slot_at(pool, p), &fresh);
        uint64_t steps = left ? at - 1 : d.count - 2 - at;
        if (st == PML_OK) st = shift(pool, &p, steps, left);
        if (st == PML_OK) st = pml_store64(pool, SLOT_OF(p.block, p.index), item);
    }
    return st == PML_OK ? store_root_changed(c, &d) : st;
}

int pml_deque_insert(struct pml_container *c, int64_t index, const char *value, uint64_t word) {
    PML_CHANGE(c, insert(c, index, value, word));
}

static int erase(struct pml_container *c, int64_t index) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    struct place p;
    uint64_t at = 0, word, room;
    int st = load_root(pool, c->root, &d);
    if (st == PML_OK) st = find_item(pool, &d, index, &at, &p);
    if (st != PML_OK) return st;
    uint64_t item = slot_at(pool, p);
    st = reach_item(pool, item, false, &word, &room);
    if (st == PML_OK) st = pml_tx_defer_free(pool, item);
    if (st != PML_OK) return st;
    bool left = at < d.count / 2;
    /* The hole wanders to the nearer end: p ends there, in a block that is reached. */
    st = shift(pool, &p, left ? at : d.count - 1 - at, !left);
    struct place end = end_of(&d, left);
    if (st == PML_OK && (p.block != end.block || p.index != end.index))
        st = pml_fail_corrupt("image", 0, c->root, end.block, p.block,
                              "the root of a deque counts other slots than there are");
    if (st == PML_OK) st = drop_slot(pool, &d, left);
    return st == PML_OK ? store_root_changed(c, &d) : st;
}

int pml_deque_erase(struct pml_container *c, int64_t index) { PML_CHANGE(c, erase(c, index)); }

/* ---- changes of the whole ---- */

static int rotate(struct pml_container *c, int64_t steps) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    uint64_t fresh = 0;
    int st = load_root(pool, c->root, &d);
    if (st != PML_OK || d.count < 2) return st;
    int64_t count = (int64_t)d.count;
    steps %= count;
    if (steps > count / 2) steps -= count;
    if (steps < -(count / 2)) steps += count;
    if (!steps) return PML_OK;
    bool right = steps > 0;
    for (int64_t i = right ? steps : -steps; st == PML_OK && i; i--) {
        struct place p = end_of(&d, !right);
        st = reach_slots(pool, p.block);
        if (st != PML_OK) return st;
        uint64_t item = slot_at(pool, p);
        st = drop_slot(pool, &d, !right);
        if (st == PML_OK) st = push_slot(pool, &d, right, item, &fresh);
    }
    return st == PML_OK ? store_root_changed(c, &d) : st;
}

int pml_deque_rotate(struct pml_container *c, int64_t steps) { PML_CHANGE(c, rotate(c, steps)); }

/* All live slots of each block, as one range a block. */
static int note_slots(struct pml_pool *pool, const struct pml_deque_root *d) {
    uint64_t block = d->first_block;
    uint32_t first = d->first_index;
    for (uint64_t left = d->count; left;) {
        int st = reach_slots(pool, block);
        uint32_t live = (uint32_t)pml_min64(left, SLOTS - first);
        if (st == PML_OK) st = pml_note(pool, SLOT_OF(block, first), 8ull * live);
        if (st != PML_OK) return st;
        left -= live;
        first = 0;
        block = load(pool, NEXT_OF(block));
    }
    return PML_OK;
}

static int reverse_slots(struct pml_container *c) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    int st = load_root(pool, c->root, &d);
    if (st != PML_OK || d.count < 2) return st;
    st = note_slots(pool, &d);
    struct place a = end_of(&d, true), b = end_of(&d, false);
    if (st == PML_OK) st = reach_slots(pool, b.block);
    for (uint64_t pairs = d.count / 2; st == PML_OK && pairs; pairs--) {
        uint64_t low = slot_at(pool, a), high = slot_at(pool, b);
        memcpy(pml_ptr(pool, SLOT_OF(a.block, a.index)), &high, sizeof high);
        memcpy(pml_ptr(pool, SLOT_OF(b.block, b.index)), &low, sizeof low);
        st = step(pool, &a, true);
        if (st == PML_OK) st = step(pool, &b, false);
    }
    if (st == PML_OK) pml_container_changed(c);
    return st;
}

int pml_deque_reverse(struct pml_container *c) { PML_CHANGE(c, reverse_slots(c)); }

/* ---- life ---- */

int pml_deque_make(struct pml_pool *pool, uint64_t *root) {
    struct pml_deque_root d = {.root = {.type = PML_TYPE_DEQUE}};
    int st = pml_alloc(pool, sizeof d, PML_BLOCK_ROOT, root);
    if (st == PML_OK) memcpy(pml_ptr(pool, *root), &d, sizeof d);
    return st;
}

/* Items from the left, and blocks as they become empty; a last block may overdraw *left by one. */
static int free_items(struct pml_pool *pool, struct pml_deque_root *d, uint32_t *left) {
    while (d->count && *left) {
        struct place p = end_of(d, true);
        uint64_t word, room;
        int st = reach_slots(pool, p.block);
        if (st != PML_OK) return st;
        uint64_t item = slot_at(pool, p);
        st = reach_item(pool, item, false, &word, &room);
        if (st == PML_OK) st = pml_tx_defer_free(pool, item);
        if (st == PML_OK) st = drop_slot(pool, d, true);
        if (st != PML_OK) return st;
        --*left;
        if (d->first_block != p.block && *left) --*left;
    }
    return PML_OK;
}

/* A budget that is left over tells the caller that the root is gone, so the root goes only when one
 * piece more than it takes is left. */
int pml_deque_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left) {
    struct pml_deque_root d;
    int st = load_root(pool, root, &d);
    if (st == PML_OK && d.count && *left) {
        st = free_items(pool, &d, left);
        if (st == PML_OK) st = store_root(pool, root, &d);
    }
    if (st != PML_OK) return st;
    if (d.count || *left < 2) {
        *left = 0;
        return PML_OK;
    }
    --*left;
    return pml_tx_defer_free(pool, root);
}

static int clear(struct pml_container *c) {
    struct pml_pool *pool = c->pool;
    struct pml_deque_root d;
    int st = load_root(pool, c->root, &d);
    if (st != PML_OK || !d.count) return st;
    uint64_t pieces = d.count + d.count / SLOTS + 2;
    uint64_t room = (pool->record_max - pml_min64(pool->tx.record_bytes, pool->record_max)) / 2;
    if (pieces <= PML_GARBAGE_STEP && pieces * pml_free_cost() <= room) {
        uint32_t left = PML_GARBAGE_STEP;
        st = free_items(pool, &d, &left);
        return st == PML_OK ? store_root_changed(c, &d) : st;
    }
    /* The items go with a second root to the dropped containers; the first one stays where it is,
     * because the catalog and open handles know its offset. */
    uint64_t copy;
    st = pml_alloc(pool, sizeof d, PML_BLOCK_ROOT, &copy);
    if (st != PML_OK) return st;
    d.root = (struct pml_root){.type = PML_TYPE_DEQUE};
    memcpy(pml_ptr(pool, copy), &d, sizeof d);
    d.count = d.first_block = d.last_block = 0;
    d.first_index = d.last_index = 0;
    st = pml_garbage_add(pool, copy);
    return st == PML_OK ? store_root_changed(c, &d) : st;
}

int pml_deque_clear(struct pml_container *c) { PML_CHANGE(c, clear(c)); }

/* ---- the checker's walk ---- */

static void walk_item(struct pml_walk *w, uint64_t at, uint64_t item, const char *name) {
    struct pml_pool *pool = w->pool;
    if (!pml_walk_block(w, item, sizeof(struct pml_item), PML_BLOCK_ITEM)) return;
    uint64_t word = load(pool, item), room = pml_payload_bytes(pool, item);
    if (PML_VALUE_BYTES(word) > room - sizeof(struct pml_item))
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", item, room - sizeof(struct pml_item),
                      PML_VALUE_BYTES(word), "\"%s\": an item is longer than its block", name);
    if (!PML_VALUE_KIND(word))
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", item, at, word,
                      "\"%s\": an item is of no kind", name);
}

/* Ends: pml_walk_block answers false for a block that is met again. */
static uint64_t walk_blocks(struct pml_walk *w, const struct pml_deque_root *d, const char *name) {
    struct pml_pool *pool = w->pool;
    uint64_t items = 0, before = 0;
    for (uint64_t block = d->first_block;;) {
        if (!pml_walk_block(w, block, sizeof(struct pml_deque_block), PML_BLOCK_DEQUE)) break;
        uint64_t prev = load(pool, PREV_OF(block)), next = load(pool, NEXT_OF(block));
        bool last = block == d->last_block;
        if (prev != before)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", PREV_OF(block), before, prev,
                          "\"%s\": a block does not point back to the one before", name);
        uint32_t from = before ? 0 : d->first_index, to = last ? d->last_index : SLOTS - 1;
        for (uint32_t i = from; i <= to; i++) {
            walk_item(w, SLOT_OF(block, i), load(pool, SLOT_OF(block, i)), name);
            items++;
        }
        if (last != !next)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", NEXT_OF(block), d->last_block, next,
                          "\"%s\": its chain of blocks does not end at its last block", name);
        if (last || !next) break;
        before = block;
        block = next;
    }
    return items;
}

void pml_deque_walk(struct pml_walk *w, uint64_t root, const char *name) {
    struct pml_deque_root d;
    if (!pml_walk_block(w, root, sizeof d, PML_BLOCK_ROOT)) return;
    if (load_root(w->pool, root, &d) != PML_OK) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, 0, 0, "\"%s\": its root is damaged",
                      name);
        return;
    }
    if (!d.count) {
        if (d.first_index || d.last_index)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, 0, d.first_index,
                          "\"%s\" is empty but has indices", name);
        return;
    }
    uint64_t items = walk_blocks(w, &d, name);
    if (items != d.count)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, d.count, items,
                      "\"%s\": its count is not that of the items found", name);
}
