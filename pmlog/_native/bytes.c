/*
 * Array and region: one run of bytes at a fixed place, so that views of it stay valid.
 *
 * The data stand in a heap block of their own, at the first multiple of PML_LINE in it: a NumPy
 * array over them is aligned, and small neighbouring writes share a line.
 */
#include "internal.h"
#include "view.h"

static int reach_root(struct pml_pool *pool, uint64_t at, struct pml_bytes_root *out) {
    int st = pml_reach(pool, at, sizeof *out);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    /* A copy: beside a writer the words may change between check and use. */
    memcpy(out, pml_ptr(pool, at), sizeof *out);
    if (PML_UNLIKELY((out->root.type != PML_TYPE_ARRAY && out->root.type != PML_TYPE_REGION) ||
                     out->data % PML_LINE ||
                     (out->size_bytes && !pml_in_body(pool, out->data, out->size_bytes))))
        return pml_fail_corrupt("image", 0, at, out->data, out->size_bytes,
                                "the root of an array or region is damaged");
    return PML_OK;
}

static int outside(uint64_t offset, uint64_t size, uint64_t size_bytes) {
    return pml_fail(PML_E_ARGUMENT, "%llu bytes at offset %llu reach outside of the %llu there are",
                    (unsigned long long)size, (unsigned long long)offset,
                    (unsigned long long)size_bytes);
}

static inline bool fits(const struct pml_bytes_root *root, uint64_t offset, uint64_t size) {
    return PML_LIKELY(size <= root->size_bytes && offset <= root->size_bytes - size);
}

/* ---- life ---- */

int pml_bytes_make(struct pml_pool *pool, uint32_t type, uint64_t size, const char *descr,
                   size_t descr_bytes, uint64_t *root) {
    /* Both limits come before the sums, so that none of them can wrap. */
    if (size > PML_MAX_IMAGE || descr_bytes > PML_MAX_IMAGE)
        return pml_fail(PML_E_POOL_FULL, "%llu bytes are more than a pool can hold",
                        (unsigned long long)(size > PML_MAX_IMAGE ? size : descr_bytes));
    struct pml_bytes_root made = {
        .root = {.type = type}, .size_bytes = size, .descr_bytes = descr_bytes};
    int st = pml_alloc(pool, sizeof made + descr_bytes, PML_BLOCK_ROOT, root);
    if (st == PML_OK && size) {
        st = pml_alloc_zeroed(pool, size + PML_LINE, PML_BLOCK_BYTES, &made.block);
        made.data = pml_round_up(made.block, PML_LINE);
    }
    if (st != PML_OK) return st;
    char *at = pml_ptr(pool, *root);
    memcpy(at, &made, sizeof made);
    if (descr_bytes) memcpy(at + sizeof made, descr, descr_bytes);
    return PML_OK;
}

/* A budget that is left over tells the caller that the root is gone, so the root goes only when one
 * piece more than it takes is left. */
int pml_bytes_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left) {
    struct pml_bytes_root r;
    int st = reach_root(pool, root, &r);
    if (st == PML_OK && r.block && *left) {
        st = pml_tx_defer_free(pool, r.block);
        if (st == PML_OK) st = pml_note(pool, root + offsetof(struct pml_bytes_root, block), 24);
        if (st != PML_OK) return st;
        struct pml_bytes_root *stored = pml_ptr(pool, root);
        stored->block = stored->data = stored->size_bytes = 0;
        --*left;
    }
    if (st != PML_OK) return st;
    if (*left < 2) {
        *left = 0;
        return PML_OK;
    }
    --*left;
    return pml_tx_defer_free(pool, root);
}

/* ---- looks ---- */

static int where(struct pml_container *c, uint64_t *offset, uint64_t *size_bytes) {
    struct pml_bytes_root r;
    int st = reach_root(c->pool, c->root, &r);
    if (st != PML_OK) return st;
    *offset = r.data;
    *size_bytes = r.size_bytes;
    return PML_OK;
}

int pml_bytes_where(struct pml_container *c, uint64_t *offset, uint64_t *size_bytes) {
    *offset = *size_bytes = 0;
    PML_VIEW_INT(c, where(c, offset, size_bytes));
}

static int64_t descr_of(struct pml_container *c, char *buffer, size_t capacity) {
    struct pml_pool *pool = c->pool;
    struct pml_bytes_root r;
    int st = reach_root(pool, c->root, &r);
    if (st == PML_OK) st = pml_reach(pool, c->root - 8, 8);
    if (st != PML_OK) return st;
    uint64_t room = pml_payload_bytes(pool, c->root);
    if (room < sizeof r || room > pool->image_bytes || r.descr_bytes > room - sizeof r)
        return pml_fail_corrupt("image", 0, c->root, room, r.descr_bytes,
                                "an array's description is longer than its block");
    uint64_t at = c->root + sizeof r;
    if (!r.descr_bytes || r.descr_bytes > capacity) return (int64_t)r.descr_bytes;
    st = pml_reach(pool, at, r.descr_bytes);
    if (st != PML_OK) return st;
    memcpy(buffer, pml_ptr(pool, at), r.descr_bytes);
    return (int64_t)r.descr_bytes;
}

int64_t pml_bytes_descr(struct pml_container *c, char *buffer, size_t capacity) {
    PML_VIEW(c, descr_of(c, buffer, capacity));
}

static int read_bytes(struct pml_container *c, uint64_t offset, char *buffer, size_t size) {
    struct pml_pool *pool = c->pool;
    struct pml_bytes_root r;
    int st = reach_root(pool, c->root, &r);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    if (!fits(&r, offset, size)) return outside(offset, size, r.size_bytes);
    if (!size) return PML_OK;
    /* Callers may begin at any byte, pml_reach at a word only. */
    uint64_t at = r.data + offset, word = at & ~7ull;
    st = pml_reach(pool, word, at - word + size);
    if (PML_LIKELY(st == PML_OK)) memcpy(buffer, pml_ptr(pool, at), size);
    return st;
}

int pml_bytes_read(struct pml_container *c, uint64_t offset, char *buffer, size_t size) {
    PML_VIEW_INT(c, read_bytes(c, offset, buffer, size));
}

/* ---- changes ---- */

static int note_bytes(struct pml_container *c, uint64_t offset, uint64_t size, uint64_t *at) {
    struct pml_bytes_root r;
    int st = reach_root(c->pool, c->root, &r);
    if (PML_UNLIKELY(st != PML_OK)) return st;
    if (!fits(&r, offset, size)) return outside(offset, size, r.size_bytes);
    *at = r.data + offset;
    return pml_note(c->pool, *at, size); /* checks the pages too */
}

static int write_bytes(struct pml_container *c, uint64_t offset, const char *data, size_t size) {
    uint64_t at;
    int st = note_bytes(c, offset, size, &at);
    if (PML_LIKELY(st == PML_OK && size)) memcpy(pml_ptr(c->pool, at), data, size);
    return st;
}

int pml_bytes_write(struct pml_container *c, uint64_t offset, const char *data, size_t size) {
    PML_CHANGE(c, write_bytes(c, offset, data, size));
}

/* Only an open transaction can commit what the caller stores after this call has returned. */
static int inside_transaction(struct pml_pool *pool) {
    int st = pml_alive(pool);
    if (st != PML_OK || pml_tx_owned(pool)) return st;
    return pml_fail(PML_E_NO_TRANSACTION, "changes in place need a transaction around them");
}

int pml_bytes_add(struct pml_container *c, uint64_t offset, uint64_t size) {
    uint64_t at;
    int st = inside_transaction(c->pool);
    if (st != PML_OK) return st;
    PML_CHANGE(c, note_bytes(c, offset, size, &at));
}

static int note_strided(struct pml_container *c, uint64_t offset, uint64_t size, uint64_t stride,
                        uint64_t count) {
    struct pml_bytes_root r;
    int st = reach_root(c->pool, c->root, &r);
    if (st != PML_OK) return st;
    if (!size || !count) return PML_OK;
    uint64_t span;
    if (__builtin_mul_overflow(stride, count - 1, &span) ||
        __builtin_add_overflow(span, size, &span))
        span = UINT64_MAX;
    if (!fits(&r, offset, span)) return outside(offset, span, r.size_bytes);
    uint64_t at = r.data + offset;
    /* A gap that is not longer than a range's header is cheaper noted than left out. */
    if (count == 1 || stride <= size + sizeof(struct pml_range)) return pml_note(c->pool, at, span);
    for (uint64_t i = 0; st == PML_OK && i < count; i++)
        st = pml_note(c->pool, at + i * stride, size);
    return st;
}

int pml_bytes_add_strided(struct pml_container *c, uint64_t offset, uint64_t size, uint64_t stride,
                          uint64_t count) {
    int st = inside_transaction(c->pool);
    if (st != PML_OK) return st;
    PML_CHANGE(c, note_strided(c, offset, size, stride, count));
}

/* ---- the checker's walk ---- */

void pml_bytes_walk(struct pml_walk *w, uint64_t root, const char *name) {
    struct pml_pool *pool = w->pool;
    if (!pml_walk_block(w, root, sizeof(struct pml_bytes_root), PML_BLOCK_ROOT)) return;
    struct pml_bytes_root r;
    if (reach_root(pool, root, &r) != PML_OK) {
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, 0, 0, "\"%s\": its root is damaged",
                      name);
        return;
    }
    uint64_t room = pml_payload_bytes(pool, root) - sizeof r;
    if (r.descr_bytes > room)
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, room, r.descr_bytes,
                      "\"%s\": its description is longer than its block", name);
    if (!r.size_bytes) {
        if (r.block || r.data)
            pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, 0, r.block,
                          "\"%s\" is empty but has a block", name);
        return;
    }
    if (!pml_walk_block(w, r.block, r.size_bytes + PML_LINE, PML_BLOCK_BYTES)) return;
    if (r.data != pml_round_up(r.block, PML_LINE))
        pml_fault_add(w, PML_FAULT_STRUCTURE, "image", root, pml_round_up(r.block, PML_LINE),
                      r.data, "\"%s\": its bytes do not begin where its block does", name);
}
