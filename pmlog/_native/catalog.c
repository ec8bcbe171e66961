/*
 * Names: the catalog is a dict like any other, whose root stands in the heap's header.
 *
 * A container handle finds its root by name again whenever the catalog may have changed under it:
 * after a drop, a rollback, or a reader's refresh.
 *
 * Dropped containers go to a list in the heap's header in O(1) and are freed a few pieces at a time
 * before later transactions (tx.c), so that dropping or clearing millions of entries is one small
 * record.
 */
#include <stdlib.h>

#include "internal.h"
#include "view.h"

#define HEAP_WORD(field) (PML_HEAP_AT + offsetof(struct pml_heap, field))

static uint64_t name_word(size_t bytes) { return (uint64_t)bytes << 8 | PML_KIND_STR; }

int pml_catalog_format(struct pml_pool *pool) {
    uint64_t root;
    int st = pml_dict_make(pool, &root);
    return st == PML_OK ? pml_store64(pool, HEAP_WORD(catalog), root) : st;
}

int pml_catalog_attach(struct pml_pool *pool) {
    pool->catalog = calloc(1, sizeof *pool->catalog);
    if (!pool->catalog) return pml_fail(PML_E_MEMORY, "no memory");
    pool->catalog->pool = pool;
    pool->catalog->type = PML_TYPE_DICT;
    pool->catalog->root = pml_heap(pool)->catalog;
    pool->catalog->catalog_generation = UINT64_MAX;
    return PML_OK;
}

static int find(struct pml_pool *pool, const char *name, size_t bytes, uint64_t *entry,
                struct pml_catalog_value *value) {
    int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
    if (st == PML_OK)
        st = pml_dict_find(pool, pml_heap(pool)->catalog, name, name_word(bytes), entry);
    if (st != PML_OK) return st;
    struct pml_dict_entry e;
    st = pml_dict_entry_at(pool, *entry, &e);
    if (st != PML_OK) return st;
    if (PML_VALUE_BYTES(e.value) != sizeof *value)
        return pml_fail_corrupt("image", 0, *entry, sizeof *value, PML_VALUE_BYTES(e.value),
                                "an entry of the catalog is damaged");
    memcpy(value, pml_entry_value(pool, *entry, &e), sizeof *value);
    return PML_OK;
}

int pml_container_resolve(struct pml_container *c) {
    struct pml_pool *pool = c->pool;
    if (PML_LIKELY(c->catalog_generation == pool->catalog_generation)) return PML_OK;
    if (c == pool->catalog) {
        int st = pml_reach(pool, PML_HEAP_AT, sizeof(struct pml_heap));
        if (st != PML_OK) return st;
        c->root = pml_heap(pool)->catalog;
        c->changes++;
        c->catalog_generation = pool->catalog_generation;
        return PML_OK;
    }
    struct pml_catalog_value value;
    uint64_t entry;
    int st = find(pool, c->name, c->name_bytes, &entry, &value);
    if (st == PML_E_MISSING || (st == PML_OK && value.type != c->type))
        return pml_fail(PML_E_DROPPED, "\"%s\" was dropped, or its creation was undone", c->name);
    if (st != PML_OK) return st;
    st = pml_reach(pool, value.root, sizeof(struct pml_root));
    if (st != PML_OK) return st;
    const struct pml_root *root = pml_ptr(pool, value.root);
    if (root->type != c->type)
        return pml_fail_corrupt("image", 0, value.root, c->type, root->type,
                                "the root of \"%s\" is of another type", c->name);
    /* Dropped and made again it may stand at the same place, and a reader's refresh may have changed
     * anything: a cursor has to find its place again. */
    c->changes++;
    c->root = value.root;
    c->catalog_generation = pool->catalog_generation;
    return PML_OK;
}

void pml_container_changed(struct pml_container *c) {
    c->changes++;
    c->changed_in = c->pool->tx.id;
}

static int make(struct pml_pool *pool, const char *name, size_t bytes, uint32_t type,
                uint64_t size_bytes, const char *descr, size_t descr_bytes) {
    struct pml_catalog_value value = {.type = type};
    int st;
    switch (type) {
    case PML_TYPE_DICT:
        st = pml_dict_make(pool, &value.root);
        break;
    case PML_TYPE_DEQUE:
        st = pml_deque_make(pool, &value.root);
        break;
    default:
        st = pml_bytes_make(pool, type, size_bytes, descr, descr_bytes, &value.root);
        break;
    }
    if (st == PML_OK) st = pml_container_resolve(pool->catalog);
    if (st == PML_OK)
        st = pml_dict_put(pool->catalog, name, name_word(bytes), (const char *)&value,
                          (uint64_t)sizeof value << 8 | PML_KIND_BYTES);
    pool->catalog_generation++;
    return st;
}

static const char *type_name(uint32_t type) {
    static const char *const names[] = {"nothing", "dict", "deque", "array", "region"};
    return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

static int64_t look_up(struct pml_pool *pool, const char *name, size_t bytes, uint32_t type) {
    struct pml_catalog_value value;
    uint64_t entry;
    int st = find(pool, name, bytes, &entry, &value);
    if (st == PML_E_MISSING) return pml_fail(PML_E_MISSING, "there is no container of that name");
    if (st == PML_OK && value.type != type)
        return pml_fail(PML_E_TYPE, "the name is taken by a container of type %s",
                        type_name(value.type));
    return st;
}

static int64_t look_up_in_view(struct pml_pool *pool, const char *name, size_t bytes,
                               uint32_t type) {
    PML_VIEW(pool->catalog, look_up(pool, name, bytes, type));
}

int pml_container_open(struct pml_pool *pool, const char *name, size_t name_bytes, uint32_t type,
                       uint64_t size_bytes, const char *descr, size_t descr_bytes,
                       struct pml_container **out) {
    *out = NULL;
    if (!name_bytes || name_bytes > PML_NAME_MAX)
        return pml_fail(PML_E_ARGUMENT, "a name has from 1 to %u bytes", PML_NAME_MAX);
    if (type < PML_TYPE_DICT || type > PML_TYPE_REGION)
        return pml_fail(PML_E_ARGUMENT, "there is no such type of container");
    int st = (int)look_up_in_view(pool, name, name_bytes, type);
    if (st == PML_E_MISSING && !pool->read_only) {
        struct pml_op op;
        st = pml_op_begin(pool, &op);
        if (st != PML_OK) return st;
        st = (int)look_up(pool, name, name_bytes, type); /* another thread may have been first */
        if (st == PML_E_MISSING)
            st = make(pool, name, name_bytes, type, size_bytes, descr, descr_bytes);
        st = pml_op_end(&op, st);
    }
    if (st != PML_OK) return st;
    struct pml_container *c = calloc(1, sizeof *c);
    if (!c) return pml_fail(PML_E_MEMORY, "no memory");
    c->pool = pool;
    c->type = type;
    c->name_bytes = (uint32_t)name_bytes;
    memcpy(c->name, name, name_bytes);
    c->catalog_generation = UINT64_MAX;
    bool locked = !pml_tx_owned(pool);
    if (locked && !pml_lock_take(&pool->lock, PML_WAIT_SLICE_MS)) {
        free(c);
        return pml_fail(PML_E_BUSY, "another thread's transaction is open");
    }
    c->next = pool->containers;
    pool->containers = c;
    if (locked) pml_lock_give(&pool->lock);
    *out = c;
    return PML_OK;
}

/* Only once pml_free or nobody else uses the pool any more: the list is the pool's. */
void pml_container_free(struct pml_container *c) {
    if (!c) return;
    if (c->pool)
        for (struct pml_container **at = &c->pool->containers; *at; at = &(*at)->next)
            if (*at == c) {
                *at = c->next;
                break;
            }
    free(c);
}

/* ---- dropping ---- */

int pml_garbage_add(struct pml_pool *pool, uint64_t root) {
    int st =
        pml_store64(pool, root + offsetof(struct pml_root, garbage_next), pml_heap(pool)->garbage);
    return st == PML_OK ? pml_store64(pool, HEAP_WORD(garbage), root) : st;
}

/* Frees up to `pieces`; stops early when the record is half full, so that the transaction that pays
 * for the work keeps its room. */
int pml_garbage_step(struct pml_pool *pool, uint32_t pieces) {
    while (pieces && pml_heap(pool)->garbage) {
        uint64_t root = pml_heap(pool)->garbage;
        if (pool->tx.record_bytes + pieces * 2 * pml_free_cost() > pool->record_max / 2) {
            pieces /= 2;
            continue;
        }
        int st = pml_reach(pool, root, sizeof(struct pml_root));
        if (st != PML_OK) return st;
        const struct pml_root *r = pml_ptr(pool, root);
        uint64_t next = r->garbage_next;
        uint32_t left = pieces;
        switch (r->type) {
        case PML_TYPE_DICT:
            st = pml_dict_free_some(pool, root, &left);
            break;
        case PML_TYPE_DEQUE:
            st = pml_deque_free_some(pool, root, &left);
            break;
        default:
            st = pml_bytes_free_some(pool, root, &left);
            break;
        }
        if (st != PML_OK) return st;
        if (left) st = pml_store64(pool, HEAP_WORD(garbage), next);
        if (st != PML_OK) return st;
        pieces = left;
    }
    return PML_OK;
}

static int drop(struct pml_pool *pool, const char *name, size_t bytes) {
    struct pml_catalog_value value;
    uint64_t entry;
    int st = find(pool, name, bytes, &entry, &value);
    if (st == PML_OK) st = pml_container_resolve(pool->catalog);
    if (st == PML_OK) st = pml_dict_remove(pool->catalog, entry);
    if (st == PML_OK) st = pml_garbage_add(pool, value.root);
    if (st == PML_OK) st = pml_garbage_step(pool, PML_GARBAGE_STEP);
    pool->catalog_generation++;
    return st;
}

int pml_container_drop(struct pml_pool *pool, const char *name, size_t name_bytes) {
    struct pml_op op;
    int st = pml_op_begin(pool, &op);
    if (st != PML_OK) return st;
    return pml_op_end(&op, drop(pool, name, name_bytes));
}

int64_t pml_container_names(struct pml_pool *pool, struct pml_cursor *cursor, char *buffer,
                            size_t capacity, uint64_t *count) {
    return pml_dict_scan(pool->catalog, cursor, PML_SCAN_KEYS | PML_SCAN_VALUES, buffer, capacity,
                         count);
}
