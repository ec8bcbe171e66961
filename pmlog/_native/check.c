/*
 * Every fault in a pool, not just the first: page checksums, the heap, the containers, leaks.
 *
 * It runs on a read-only handle, whose working image is a consistent state, beside a live writer
 * too; when the writer's checkpoint moves the image meanwhile, all that was found is dropped and
 * the walk begins again.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define WALK_ATTEMPTS 200
#define WALK_PAUSE_US 20000

void pml_fault_add(struct pml_walk *w, int code, const char *file, uint64_t offset,
                   uint64_t expected, uint64_t found, const char *format, ...) {
    if (w->count++ >= w->capacity) return;
    struct pml_fault *fault = &w->faults[w->count - 1];
    memset(fault, 0, sizeof *fault);
    fault->code = code;
    fault->offset = offset;
    fault->expected = expected;
    fault->found = found;
    snprintf(fault->file, sizeof fault->file, "%s", file);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

static bool bit_take(uint64_t *bits, uint64_t offset) {
    uint64_t bit = offset / 16, mask = 1ull << (bit % 64);
    bool was = (bits[bit / 64] & mask) != 0;
    bits[bit / 64] &= ~mask;
    return was;
}

/* A payload that a container points at: a used block of that kind, large enough, met only once. */
bool pml_walk_block(struct pml_walk *w, uint64_t payload, uint64_t size, uint32_t kind) {
    struct pml_pool *pool = w->pool;
    if (!pml_in_body(pool, payload - 8, size + 8) || payload % 16 ||
        !bit_take(w->unreached, payload - 8)) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", payload, kind, 0,
                      "a container points at what is no block, or is reached twice");
        return false;
    }
    uint64_t header;
    memcpy(&header, pml_ptr(pool, payload - 8), 8);
    if (PML_BLOCK_KIND(header) != kind || PML_BLOCK_SIZE(header) - 8 < size) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", payload, size, PML_BLOCK_SIZE(header) - 8,
                      "a block of kind %u where %u is needed, or too small", PML_BLOCK_KIND(header),
                      kind);
        return false;
    }
    return true;
}

static void check_pages(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    for (uint64_t page = PML_BODY_OFFSET / PML_PAGE; page < pool->image_bytes / PML_PAGE; page++) {
        if (pool->stamps[page] > 1) continue; /* a private copy: the log has changed it since */
        const uint32_t *sums = (const uint32_t *)(const void *)(pool->sums.base + PML_SUMS_OFFSET);
        uint32_t expected = sums[page], found = pml_page_sum(pool->image + page * PML_PAGE);
        if (expected != found)
            pml_fault_add(w, PML_FAULT_PAGE, "image", page * PML_PAGE, expected, found,
                          "a page does not match its checksum");
    }
}

/* A crash can tear the mark that is being written, the first one behind a clean close too.  One that
 * is bad while none was being written, as control knows under the same boot, has rotted, though the
 * other one still leads to the right state. */
static void check_marks(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    struct pml_mark mark;
    int count;
    if (pml_read_marks(pool, &mark, &count) != PML_OK) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", PML_MARK_OFFSET, 2, 0,
                      "neither checkpoint mark is valid");
        return;
    }
    if (count == 2 || mark.sequence == 1) return; /* 1: the other slot was never written */
    const struct pml_control *control = pool->control;
    bool settled = pool->live && control->session && !control->marking &&
                   control->lsn_image == control->lsn_checkpoint;
    if (settled)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image",
                      PML_MARK_OFFSET + (~mark.sequence & 1) * PML_MARK_STRIDE, 2, 1,
                      "one of the two checkpoint marks is damaged");
}

/* Tiles [first, top); collects the used blocks.  False: the rest makes no sense. */
static bool walk_heap(struct pml_walk *w, uint64_t *free_blocks) {
    struct pml_pool *pool = w->pool;
    const struct pml_heap *heap = &w->heap;
    uint64_t used_bytes = 0, used_blocks = 0;
    bool before_free = false;
    *free_blocks = 0;
    for (uint64_t at = PML_HEAP_FIRST; at != heap->top;) {
        uint64_t header, size, last;
        memcpy(&header, pml_ptr(pool, at), 8);
        size = PML_BLOCK_SIZE(header);
        bool used = (header & PML_BLOCK_USED) != 0;
        if (size < 32 || size > heap->top - at) {
            pml_fault_add(w, PML_FAULT_HEAP, "image", at, heap->top - at, size,
                          "heap: a block's size is wrong");
            return false;
        }
        if (((header & PML_BLOCK_PREV_FREE) != 0) != before_free)
            pml_fault_add(w, PML_FAULT_HEAP, "image", at, before_free, header,
                          "heap: a block is wrong about the one before it");
        memcpy(&last, pml_ptr(pool, at + size - 8), 8);
        if (!used && (before_free || last != size || at + size == heap->top))
            pml_fault_add(w, PML_FAULT_HEAP, "image", at, size, last,
                          "heap: a free block is not joined, or its end is wrong");
        if (used) {
            used_bytes += size;
            used_blocks++;
            w->unreached[at / 16 / 64] |= 1ull << (at / 16 % 64);
        } else {
            ++*free_blocks;
        }
        before_free = !used;
        at += size;
    }
    if (used_bytes != heap->used_bytes || used_blocks != heap->used_blocks)
        pml_fault_add(w, PML_FAULT_HEAP, "image", PML_HEAP_AT, heap->used_bytes, used_bytes,
                      "heap: the count of used blocks is wrong");
    return true;
}

static void check_bins(struct pml_walk *w, uint64_t free_blocks) {
    struct pml_pool *pool = w->pool;
    const struct pml_heap *heap = &w->heap;
    uint64_t linked = 0;
    for (uint32_t bin = 0; bin < PML_BINS; bin++) {
        bool mapped = (heap->bin_map[bin / 64] >> (bin % 64)) & 1;
        if (mapped != (heap->bins[bin] != 0))
            pml_fault_add(w, PML_FAULT_HEAP, "image", PML_HEAP_AT, heap->bins[bin], mapped,
                          "heap: the map of bins is wrong about bin %u", bin);
        uint64_t prev = 0;
        for (uint64_t at = heap->bins[bin]; at; linked++) {
            const struct pml_free_block *b = pml_ptr(pool, at);
            if (linked > free_blocks || pml_reach(pool, at, sizeof *b) != PML_OK ||
                (b->header & PML_BLOCK_USED) || b->prev != prev) {
                pml_fault_add(w, PML_FAULT_HEAP, "image", at, prev, 0,
                              "heap: the free list of bin %u is broken", bin);
                return;
            }
            prev = at;
            at = b->next;
        }
    }
    if (linked != free_blocks)
        pml_fault_add(w, PML_FAULT_HEAP, "image", PML_HEAP_AT, free_blocks, linked,
                      "heap: free lists hold another number of blocks");
}

static void check_zeros(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    for (uint64_t at = (w->heap.zero_from + 7) & ~7ull; at < pool->image_bytes; at += 8) {
        uint64_t word;
        /* Pages without a checksum were never written, and have been compared with zeros. */
        uint64_t page = at / PML_PAGE;
        const uint32_t *sums = (const uint32_t *)(const void *)(pool->sums.base + PML_SUMS_OFFSET);
        if (at % PML_PAGE == 0 && pool->stamps[page] <= 1 && !sums[page]) {
            at += PML_PAGE - 8;
            continue;
        }
        memcpy(&word, pml_ptr(pool, at), 8);
        if (word) {
            pml_fault_add(w, PML_FAULT_HEAP, "image", at, 0, word,
                          "heap: bytes behind zero_from are not zero");
            return;
        }
    }
}

static void walk_container(struct pml_walk *w, uint64_t root, uint32_t type, const char *name) {
    switch (type) {
    case PML_TYPE_DICT:
        pml_dict_walk(w, root, name);
        break;
    case PML_TYPE_DEQUE:
        pml_deque_walk(w, root, name);
        break;
    case PML_TYPE_ARRAY:
    case PML_TYPE_REGION:
        pml_bytes_walk(w, root, name);
        break;
    default:
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, 0, type, "\"%s\" is of unknown type",
                      name);
    }
}

static void walk_catalog(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    uint64_t root = w->heap.catalog;
    size_t before = w->count;
    pml_dict_walk(w, root, "catalog");
    if (w->count != before) return; /* do not follow what is known to be broken */
    const struct pml_dict_root *r = pml_ptr(pool, root);
    uint64_t left = r->count;
    for (uint64_t at = r->first; at && left; left--) {
        struct pml_dict_entry e;
        if (pml_dict_entry_at(pool, at, &e) != PML_OK) return;
        char name[PML_NAME_MAX + 1] = {0};
        struct pml_catalog_value value = {0};
        memcpy(name, pml_entry_key(pool, at), pml_min64(PML_VALUE_BYTES(e.key), PML_NAME_MAX));
        if (PML_VALUE_BYTES(e.value) == sizeof value)
            memcpy(&value, pml_entry_value(pool, at, &e), sizeof value);
        const struct pml_root *found = pml_ptr(pool, value.root);
        if (pml_reach(pool, value.root, sizeof *found) != PML_OK || found->type != value.type)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", value.root, value.type, 0,
                          "the root of \"%s\" is not of its type", name);
        else
            walk_container(w, value.root, value.type, name);
        at = e.next;
    }
}

static void walk_garbage(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    uint64_t left = w->heap.used_blocks;
    w->garbage = true;
    for (uint64_t at = w->heap.garbage; at;) {
        const struct pml_root *root = pml_ptr(pool, at);
        if (!left-- || pml_reach(pool, at, sizeof *root) != PML_OK) {
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", at, 0, 0,
                          "the list of dropped containers is broken");
            break;
        }
        uint64_t next = root->garbage_next;
        walk_container(w, at, root->type, "(dropped)");
        at = next;
    }
    w->garbage = false;
}

static void check_leaks(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    for (uint64_t word = 0; word < pool->image_bytes / 16 / 64; word++)
        for (uint64_t bits = w->unreached[word]; bits; bits &= bits - 1) {
            uint64_t at = (word * 64 + (uint64_t)__builtin_ctzll(bits)) * 16, header;
            at = PML_HEAP_FIRST + (at - (PML_HEAP_FIRST & ~15ull));
            memcpy(&header, pml_ptr(pool, at), 8);
            pml_fault_add(w, PML_FAULT_LEAK, "image", at, 0, header,
                          "heap: a used block of kind %u belongs to nothing",
                          PML_BLOCK_KIND(header));
        }
}

static int walk_all(struct pml_walk *w) {
    struct pml_pool *pool = w->pool;
    w->unreached = calloc(pool->image_bytes / 16 / 64 + 1, 8);
    if (!w->unreached) return pml_fail(PML_E_MEMORY, "no memory for the checker's bitmap");
    if (pool->read_only) {
        check_marks(w);
        check_pages(w);
    }
    const struct pml_heap *heap = &w->heap;
    memcpy(&w->heap, pml_heap(pool), sizeof w->heap); /* beside a writer it may change under us */
    uint64_t free_blocks;
    if (heap->magic != PML_MAGIC_HEAP || heap->end != pool->image_bytes || heap->top > heap->end ||
        heap->top < PML_HEAP_FIRST || heap->zero_from < heap->top || heap->zero_from > heap->end)
        pml_fault_add(w, PML_FAULT_HEAP, "image", PML_HEAP_AT, pool->image_bytes, heap->end,
                      "heap: the header contradicts itself");
    else if (walk_heap(w, &free_blocks)) {
        check_bins(w, free_blocks);
        check_zeros(w);
        walk_catalog(w);
        walk_garbage(w);
        if (!w->count) check_leaks(w); /* behind a broken link everything would be a leak */
    }
    free(w->unreached);
    return PML_OK;
}

/* Answers the number of faults, which may be more than fitted. */
int64_t pml_check(struct pml_pool *pool, struct pml_fault *faults, size_t capacity) {
    for (int attempt = 0; attempt < WALK_ATTEMPTS; attempt++) {
        struct pml_walk w = {.pool = pool, .faults = faults, .capacity = capacity};
        bool locked;
        int st = pml_view_begin(pool, &locked);
        if (st != PML_OK) return st;
        st = pml_view_end(pool, locked, walk_all(&w));
        if (st == PML_OK) return (int64_t)w.count;
        if (st != PML_E_AGAIN) return st;
        usleep(WALK_PAUSE_US);
    }
    return pml_fail(PML_E_BUSY, "the writer's checkpoints overtook the check %d times",
                    WALK_ATTEMPTS);
}
