/*
 * The allocator inside the image: boundary tags, size-class bins, good fit, immediate coalescing.
 *
 *   [heap header][block][block]…[block][top: never used or given back … end of the image]
 *
 * A block is its header word and its payload.  Header words stand at 8 modulo 16, payloads at 0.
 * A free block carries links behind its header and its size in its last word; the block behind a
 * free one has PREV_FREE set.  The block before top is never free: it would be part of top.
 *
 * Invariants, checked by check.c:
 *   blocks tile [first, top) exactly; no two free blocks touch; the bins hold just the free blocks;
 *   used_bytes and used_blocks agree with the walk; zero_from >= top and bytes behind it are zero.
 *
 * Everything changed here is noted in the transaction, so a crash or an abort undoes it as one.
 */
#include "internal.h"

#define BLOCK_MIN 32u
#define SMALL_MAX 1024u
#define SMALL_BINS 63u
#define GROW_STEP_MAX (256ull << 20)
#define GROW_UNIT 65536u
#define FIT_ATTEMPTS 8

#define HEAP_FIELD(field) (PML_HEAP_AT + offsetof(struct pml_heap, field))

uint64_t pml_free_cost(void) { return 448; }

static uint32_t bin_of(uint64_t size) {
    if (size <= SMALL_MAX) return (uint32_t)((size - BLOCK_MIN) / 16);
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(size);
    uint32_t bin = SMALL_BINS + (exponent - 10) * 8 + (uint32_t)((size >> (exponent - 3)) & 7);
    return bin < PML_BINS ? bin : PML_BINS - 1;
}

/* the first bin whose blocks are all large enough */
static uint32_t bin_above(uint64_t size) {
    uint32_t bin = bin_of(size);
    if (size <= SMALL_MAX) return bin;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(size);
    return (size & ((1ull << (exponent - 3)) - 1)) ? bin + 1 : bin;
}

static int read_block(struct pml_pool *pool, uint64_t block, struct pml_free_block **out) {
    int st = pml_reach(pool, block, sizeof(struct pml_free_block));
    if (PML_UNLIKELY(st != PML_OK)) return st;
    *out = pml_ptr(pool, block);
    return PML_OK;
}

static int damaged(uint64_t block, uint64_t word, const char *what) {
    return pml_fail_corrupt("image", 0, block, 0, word, "the heap is damaged: %s", what);
}

static int set_bin(struct pml_pool *pool, uint32_t bin, uint64_t block) {
    struct pml_heap *heap = pml_heap(pool);
    bool had = heap->bins[bin] != 0;
    int st = pml_store64(pool, HEAP_FIELD(bins) + 8ull * bin, block);
    if (st != PML_OK || had == (block != 0)) return st;
    uint64_t map = heap->bin_map[bin / 64] ^ (1ull << (bin % 64));
    return pml_store64(pool, HEAP_FIELD(bin_map) + 8ull * (bin / 64), map);
}

static int unlink_block(struct pml_pool *pool, uint64_t block, uint64_t size) {
    struct pml_free_block *b, *other;
    int st = read_block(pool, block, &b);
    if (st != PML_OK) return st;
    uint64_t next = b->next, prev = b->prev;
    if (next) {
        st = read_block(pool, next, &other);
        if (st == PML_OK && other->prev != block)
            st = damaged(next, other->prev, "a free list is broken");
        if (st == PML_OK)
            st = pml_store64(pool, next + offsetof(struct pml_free_block, prev), prev);
        if (st != PML_OK) return st;
    }
    if (!prev) {
        if (pml_heap(pool)->bins[bin_of(size)] != block)
            return damaged(block, size, "a free list does not begin where it should");
        return set_bin(pool, bin_of(size), next);
    }
    st = read_block(pool, prev, &other);
    if (st == PML_OK && other->next != block)
        st = damaged(prev, other->next, "a free list is broken");
    return st == PML_OK ? pml_store64(pool, prev + offsetof(struct pml_free_block, next), next)
                        : st;
}

/* The block's own words are noted by the caller: fresh when they were free space already. */
static int link_block(struct pml_pool *pool, uint64_t block, uint64_t size) {
    uint32_t bin = bin_of(size);
    uint64_t next = pml_heap(pool)->bins[bin];
    struct pml_free_block *other, *b = pml_ptr(pool, block);
    if (next) {
        int st = read_block(pool, next, &other);
        if (st == PML_OK)
            st = pml_store64(pool, next + offsetof(struct pml_free_block, prev), block);
        if (st != PML_OK) return st;
    }
    b->header = size; /* not used; the block before a free one is used */
    b->next = next;
    b->prev = 0;
    int st = pml_store64(pool, block + size - 8, size);
    return st == PML_OK ? set_bin(pool, bin, block) : st;
}

static int set_header(struct pml_pool *pool, uint64_t block, uint64_t clear, uint64_t set) {
    int st = pml_reach(pool, block, 8);
    if (st != PML_OK) return st;
    uint64_t word;
    memcpy(&word, pml_ptr(pool, block), 8);
    return pml_store64(pool, block, (word & ~clear) | set);
}

static int count_blocks(struct pml_pool *pool, uint64_t bytes, bool used) {
    struct pml_heap *heap = pml_heap(pool);
    int st = pml_note(pool, HEAP_FIELD(top), 32); /* top, zero_from, used_bytes, used_blocks */
    if (st != PML_OK) return st;
    heap->used_bytes = used ? heap->used_bytes + bytes : heap->used_bytes - bytes;
    heap->used_blocks = used ? heap->used_blocks + 1 : heap->used_blocks - 1;
    return PML_OK;
}

/* ---- finding room ---- */

static int find_free(struct pml_pool *pool, uint64_t need, uint64_t *block, uint64_t *size) {
    struct pml_heap *heap = pml_heap(pool);
    struct pml_free_block *b;
    *block = 0;
    uint32_t bin = bin_above(need);
    for (uint32_t word = bin / 64; word < PML_BIN_WORDS && !*block; word++) {
        uint64_t map = heap->bin_map[word];
        if (word == bin / 64) map &= ~0ull << (bin % 64);
        if (map) *block = heap->bins[word * 64 + (uint32_t)__builtin_ctzll(map)];
    }
    int attempts = *block ? 1 : FIT_ATTEMPTS;
    if (!*block) *block = heap->bins[bin_of(need)];
    for (; *block && attempts; attempts--) {
        int st = read_block(pool, *block, &b);
        if (st != PML_OK) return st;
        *size = PML_BLOCK_SIZE(b->header);
        if ((b->header & PML_BLOCK_USED) || *size < BLOCK_MIN)
            return damaged(*block, b->header, "a used block is in a free list");
        if (*size >= need) return PML_OK;
        *block = b->next;
    }
    *block = 0;
    return PML_OK;
}

static int take_free(struct pml_pool *pool, uint64_t block, uint64_t size, uint64_t need,
                     uint64_t *taken) {
    if (!pml_in_body(pool, block, size)) return damaged(block, size, "a free block is too long");
    int st = pml_reach(pool, block + size - 8, 8);
    if (st == PML_OK && !PML_BROKEN(BLOCK_STAYS_FREE)) st = unlink_block(pool, block, size);
    /* Its payload will be noted as fresh, without undo: keep the words that make it a free block. */
    if (st == PML_OK && !PML_BROKEN(FREE_WORDS_NOT_KEPT))
        st = pml_note_undo_only(pool, block, sizeof(struct pml_free_block));
    if (st == PML_OK) st = pml_note_undo_only(pool, block + size - 8, 8);
    if (st != PML_OK) return st;
    uint64_t rest = size - need;
    if (rest < BLOCK_MIN) {
        need = size;
        st = set_header(pool, block + size, PML_BLOCK_PREV_FREE, 0);
    } else {
        uint64_t tail = block + need;
        st = pml_note_fresh(pool, tail, sizeof(struct pml_free_block));
        if (st == PML_OK) st = link_block(pool, tail, rest);
    }
    *taken = need;
    return st;
}

static int grow(struct pml_pool *pool, uint64_t need) {
    struct pml_heap *heap = pml_heap(pool);
    uint64_t least = pml_round_up(heap->top + need + 8, GROW_UNIT);
    uint64_t step = pml_min64(heap->end / 2, GROW_STEP_MAX);
    uint64_t wanted = pml_max64(least, pml_round_up(heap->end + step, GROW_UNIT));
    wanted = pml_max64(least, pml_min64(wanted, pool->max_bytes));
    int st = pml_medium_grow(pool, wanted);
    if (st == PML_E_POOL_FULL && wanted > least) {
        wanted = least;
        st = pml_medium_grow(pool, wanted);
    }
    if (st == PML_OK) st = pml_note_grow(pool, wanted);
    if (st != PML_OK) return st;
    pool->image_bytes = wanted;
    return pml_store64(pool, HEAP_FIELD(end), wanted);
}

static int take_top(struct pml_pool *pool, uint64_t need, uint64_t *block) {
    struct pml_heap *heap = pml_heap(pool);
    if (heap->top + need + 8 > heap->end) {
        int st = grow(pool, need);
        if (st != PML_OK) return st;
    }
    *block = heap->top;
    int st = pml_note(pool, HEAP_FIELD(top), 32);
    if (st != PML_OK) return st;
    heap->top += need;
    if (!PML_BROKEN(ZERO_FROM_FORGOTTEN)) heap->zero_from = pml_max64(heap->zero_from, heap->top);
    return PML_OK;
}

/* A used block of at least `need` bytes whose header word is noted; the payload is not yet. */
static int acquire(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *block,
                   uint64_t *taken) {
    if (PML_UNLIKELY(size > PML_MAX_IMAGE))
        return pml_fail(PML_E_POOL_FULL, "%llu bytes are more than a pool can hold",
                        (unsigned long long)size);
    uint64_t need = pml_max64((size + 8 + 15) & ~15ull, BLOCK_MIN), free_size = 0;
    int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
    pool->allocations++;
    if (st == PML_OK) st = find_free(pool, need, block, &free_size);
    if (st != PML_OK) return st;
    *taken = need;
    st = *block ? take_free(pool, *block, free_size, need, taken) : take_top(pool, need, block);
    if (st == PML_OK) st = count_blocks(pool, *taken, true);
    if (st == PML_OK) st = pml_note_fresh(pool, *block, 8);
    if (st != PML_OK) return st;
    uint64_t header = *taken | PML_BLOCK_USED | (uint64_t)kind << 56;
    memcpy(pml_ptr(pool, *block), &header, 8);
    return PML_OK;
}

int pml_alloc(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload) {
    uint64_t block, taken;
    int st = acquire(pool, size, kind, &block, &taken);
    if (st != PML_OK) return st;
    *payload = block + 8;
    return pml_note_fresh(pool, block + 8, size);
}

/* Only the header is noted: whoever writes into the payload notes what he writes as fresh. */
int pml_alloc_raw(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload) {
    uint64_t block, taken;
    int st = acquire(pool, size, kind, &block, &taken);
    *payload = block + 8;
    return st;
}

int pml_alloc_zeroed(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload) {
    uint64_t block, taken;
    int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
    if (st != PML_OK) return st;
    uint64_t zero_from = pml_heap(pool)->zero_from;
    st = acquire(pool, size, kind, &block, &taken);
    if (st != PML_OK) return st;
    *payload = block + 8;
    uint64_t written = zero_from > block + 8 ? pml_min64(zero_from - (block + 8), size) : 0;
    return written ? pml_note_zero(pool, block + 8, written) : PML_OK;
}

uint64_t pml_payload_bytes(struct pml_pool *pool, uint64_t payload) {
    uint64_t word;
    memcpy(&word, pml_ptr(pool, payload - 8), 8);
    return PML_BLOCK_SIZE(word) - 8;
}

/* ---- giving back ---- */

int pml_free_now(struct pml_pool *pool, uint64_t payload) {
    struct pml_heap *heap = pml_heap(pool);
    uint64_t block = payload - 8, word, size;
    int st = pml_reach(pool, block, 8);
    if (st != PML_OK) return st;
    memcpy(&word, pml_ptr(pool, block), 8);
    size = PML_BLOCK_SIZE(word);
    if (!(word & PML_BLOCK_USED) || size < BLOCK_MIN || block + size > heap->top)
        return damaged(block, word, "a block that is not in use was to be freed");
    st = count_blocks(pool, size, false);
    if (st != PML_OK) return st;
    uint64_t after = block + size;
    if (word & PML_BLOCK_PREV_FREE) {
        uint64_t before;
        st = pml_reach(pool, block - 8, 8);
        if (st != PML_OK) return st;
        memcpy(&before, pml_ptr(pool, block - 8), 8);
        if (before < BLOCK_MIN || before > block - PML_HEAP_FIRST || (before & 15))
            return damaged(block - 8, before, "the size at the end of a free block is wrong");
        st = unlink_block(pool, block - before, before);
        if (st != PML_OK) return st;
        block -= before;
        size += before;
    }
    if (after == heap->top) {
        st = pml_note(pool, HEAP_FIELD(top), 32);
        if (st == PML_OK) heap->top = block;
        return st;
    }
    st = pml_reach(pool, after, 8);
    if (st != PML_OK) return st;
    memcpy(&word, pml_ptr(pool, after), 8);
    if (word & PML_BLOCK_USED) {
        if (!PML_BROKEN(PREV_FREE_FORGOTTEN)) st = set_header(pool, after, 0, PML_BLOCK_PREV_FREE);
    } else {
        st = unlink_block(pool, after, PML_BLOCK_SIZE(word));
        size += PML_BLOCK_SIZE(word);
    }
    if (st == PML_OK) st = pml_note(pool, block, sizeof(struct pml_free_block));
    return st == PML_OK ? link_block(pool, block, size) : st;
}

int pml_heap_format(struct pml_pool *pool) {
    int st = pml_note_fresh(pool, PML_HEAP_AT, PML_HEAP_FIRST - PML_HEAP_AT);
    if (st != PML_OK) return st;
    struct pml_heap *heap = pml_heap(pool);
    memset(heap, 0, sizeof *heap);
    heap->magic = PML_MAGIC_HEAP;
    heap->end = pool->image_bytes;
    heap->top = PML_HEAP_FIRST;
    heap->zero_from = PML_HEAP_FIRST;
    return PML_OK;
}
