/* Heap, dict, deque and region against naive models; savepoints and aborts; growth to the limit. */
#include "model.h"

static struct pml_pool *pool;
static struct pml_container *dict, *deque, *region;
static char buffer[MODEL_VALUE_MAX];

static void open_pool(const char *name, uint64_t max_size) {
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    options.max_size = max_size;
    CHECK_OK(pml_open(scratch_path(name), &options, &pool));
}

static void open_containers(void) {
    CHECK_OK(open_named(pool, "d", PML_TYPE_DICT, &dict));
    CHECK_OK(open_named(pool, "q", PML_TYPE_DEQUE, &deque));
    CHECK_OK(open_named(pool, "r", PML_TYPE_REGION, &region));
}

static void close_pool(const char *name) {
    pml_container_free(dict);
    pml_container_free(deque);
    pml_container_free(region);
    dict = deque = region = NULL;
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    check_closed_pool(scratch_path(name));
}

/* ---- the heap ---- */

struct block {
    uint64_t payload, size, id;
};

/* Every fault is a leak: the test's own blocks, that no container knows, and nothing else. */
static void check_leaks_only(size_t blocks) {
    static struct pml_fault faults[4096];
    CHECK(pml_check(pool, faults, 4096) == (int64_t)blocks);
    for (size_t i = 0; i < blocks && i < 4096; i++) CHECK(faults[i].code == PML_FAULT_LEAK);
}

/* Blocks taken and given back at random, some of it undone, never overlap and keep their bytes. */
static void heap_keeps_its_blocks(void) {
    static struct block blocks[800];
    static char wanted[20000];
    struct random random = {test_seed};
    size_t count = 0;
    open_pool("heap", 64 * MIB);
    for (uint64_t n = 1, rounds = test_rounds(60000); n <= rounds; n++) {
        struct pml_op op;
        bool undo = n % 13 == 0;
        CHECK_OK(pml_op_begin(pool, &op));
        if (count == 800 || (count && random_below(&random, 9) < 4)) {
            size_t at = random_below(&random, count);
            random_fill(blocks[at].id, wanted, blocks[at].size);
            CHECK(!memcmp(wanted, pml_ptr(pool, blocks[at].payload), blocks[at].size));
            CHECK_OK(pml_tx_defer_free(pool, blocks[at].payload));
            CHECK_IS(pml_op_end(&op, undo ? PML_E_ARGUMENT : PML_OK),
                     undo ? PML_E_ARGUMENT : PML_OK);
            if (!undo) blocks[at] = blocks[--count];
        } else {
            struct block b = {.id = n};
            b.size = 1 + random_below(&random, n % 50 ? 700 : sizeof wanted - 1);
            CHECK_OK(pml_alloc(pool, b.size, PML_BLOCK_BYTES, &b.payload));
            CHECK(b.payload % 16 == 0 && pml_payload_bytes(pool, b.payload) >= b.size);
            random_fill(b.id, pml_ptr(pool, b.payload), b.size);
            CHECK_IS(pml_op_end(&op, undo ? PML_E_ARGUMENT : PML_OK),
                     undo ? PML_E_ARGUMENT : PML_OK);
            if (!undo) blocks[count++] = b;
        }
        if (n % 1000 == 0) check_leaks_only(count);
    }
    while (count) {
        struct pml_op op;
        CHECK_OK(pml_op_begin(pool, &op));
        CHECK_OK(pml_tx_defer_free(pool, blocks[--count].payload));
        CHECK_OK(pml_op_end(&op, PML_OK));
    }
    check_leaks_only(0);
    close_pool("heap");
}

/* ---- containers ---- */

static uint32_t crowded[200]; /* keys whose hashes share their low bits: one bucket, overflow */

static void find_crowded_keys(void) {
    char bytes[300];
    size_t found = 0;
    for (uint32_t key = 1u << 20; found < 200; key++) {
        uint64_t word = key_bytes(key, bytes);
        uint64_t hash = pml_siphash13(pool->header.hash_seed, bytes, PML_VALUE_BYTES(word),
                                      PML_VALUE_KIND(word));
        if ((hash & 0x3ff) == 5) crowded[found++] = key;
    }
}

static uint64_t values;

static struct model_value new_value(struct random *random) {
    uint64_t r = random_below(random, 40);
    uint64_t length =
        r == 0 ? 2000 + random_below(random, 3000) : random_below(random, r < 5 ? 400 : 40);
    return value_bytes(mix64(test_seed) + ++values, length, buffer);
}

static void dict_step(struct model *m, struct random *random) {
    char bytes[300];
    uint64_t what = random_below(random, 100);
    uint32_t key = what % 3 ? (uint32_t)random_below(random, 900)
                            : crowded[random_below(random, sizeof crowded / sizeof crowded[0])];
    uint64_t word = key_bytes(key, bytes);
    size_t at = model_find(m, key);
    bool known = at < m->entry_count;
    if (what < 62) {
        struct model_value value = new_value(random);
        model_put(m, key, value);
        CHECK_OK(pml_dict_set(dict, bytes, word, buffer, value.word));
    } else if (what < 80) {
        CHECK_IS(pml_dict_delete(dict, bytes, word), known ? PML_OK : PML_E_MISSING);
        model_delete(m, key);
    } else if (what < 99) {
        int64_t found = pml_dict_get(dict, bytes, word, buffer, sizeof buffer);
        CHECK(found == (known ? (int64_t)m->entries[at].value.word : PML_E_MISSING));
        if (known)
            CHECK(pml_crc32c(0, buffer, PML_VALUE_BYTES((uint64_t)found)) ==
                  m->entries[at].value.checksum);
        CHECK(pml_dict_has(dict, bytes, word) == known);
    } else if (random_below(random, 12) == 0) {
        CHECK_OK(pml_dict_clear(dict));
        m->entry_count = 0;
    }
}

static void deque_step(struct model *m, struct random *random) {
    uint64_t what = random_below(random, 100);
    size_t count = m->item_count, at = count ? random_below(random, count) : 0;
    if (what < 40) {
        int left = what % 2;
        struct model_value value = new_value(random);
        CHECK_OK(pml_deque_push(deque, left, buffer, value.word));
        model_insert(m, left ? 0 : count, value);
    } else if (what < 60) {
        int left = what % 2;
        int64_t found = pml_deque_pop(deque, left, buffer, sizeof buffer);
        if (!count) {
            CHECK(found == PML_E_MISSING);
            return;
        }
        struct model_value value = model_erase(m, left ? 0 : count - 1);
        CHECK(found == (int64_t)value.word);
        CHECK(pml_crc32c(0, buffer, PML_VALUE_BYTES(value.word)) == value.checksum);
    } else if (what < 70) {
        struct model_value value = new_value(random);
        CHECK_OK(pml_deque_insert(deque, (int64_t)at, buffer, value.word));
        model_insert(m, at, value);
    } else if (what < 80) {
        CHECK_IS(pml_deque_erase(deque, (int64_t)at), count ? PML_OK : PML_E_MISSING);
        if (count) model_erase(m, at);
    } else if (what < 90) {
        struct model_value value = new_value(random);
        int64_t index = what % 2 ? (int64_t)at : (int64_t)at - (int64_t)count;
        CHECK_IS(pml_deque_set(deque, index, buffer, value.word), count ? PML_OK : PML_E_MISSING);
        if (count) m->items[at] = value;
    } else if (what < 94) {
        int64_t steps = (int64_t)random_below(random, 40) - 20;
        CHECK_OK(pml_deque_rotate(deque, steps));
        for (; count > 1 && steps > 0; steps--) model_insert(m, 0, model_erase(m, count - 1));
        for (; count > 1 && steps < 0; steps++) {
            struct model_value value = model_erase(m, 0);
            model_insert(m, count - 1, value);
        }
    } else if (what < 96) {
        CHECK_OK(pml_deque_reverse(deque));
        for (size_t i = 0; i < count / 2; i++) {
            struct model_value value = m->items[i];
            m->items[i] = m->items[count - 1 - i];
            m->items[count - 1 - i] = value;
        }
    } else if (what == 96 && random_below(random, 12) == 0) {
        CHECK_OK(pml_deque_clear(deque));
        m->item_count = 0;
    }
}

static void region_step(struct model *m, struct random *random) {
    uint64_t size = 1 + random_below(random, 200),
             at = random_below(random, MODEL_REGION_BYTES - size);
    random_fill(random_word(random), m->region + at, size);
    CHECK_OK(pml_bytes_write(region, at, m->region + at, size));
}

static void any_step(struct model *m, struct random *random) {
    uint64_t which = random_below(random, 10);
    if (which < 5)
        dict_step(m, random);
    else if (which < 9)
        deque_step(m, random);
    else
        region_step(m, random);
}

static void check_state(const struct model *m) {
    uint64_t digest;
    CHECK_OK(pool_digest(pool, &digest));
    CHECK(digest == model_digest(m));
}

static struct model new_model(void) {
    return (struct model){.has_dict = true, .has_deque = true, .has_region = true};
}

/* Dict, deque and region do what naive ones do, over splits, overflow buckets, kills and reopens. */
static void containers_equal_naive_ones(void) {
    struct random random = {test_seed};
    struct model m = new_model();
    open_pool("containers", 64 * MIB);
    find_crowded_keys();
    open_containers();
    for (uint64_t n = 1, rounds = test_rounds(100000); n <= rounds; n++) {
        any_step(&m, &random);
        if (n % 200 == 0) check_state(&m);
        if (n % 1000 == 0) check_pool(pool);
        if (n % 5000 == 0) {
            pml_container_free(dict);
            pml_container_free(deque);
            pml_container_free(region);
            CHECK_OK(n % 10000 ? pml_abandon(pool) : pml_close(pool));
            pml_free(pool);
            open_pool("containers", 64 * MIB);
            open_containers();
            check_state(&m);
        }
    }
    check_state(&m);
    check_pool(pool);
    close_pool("containers");
    model_free(&m);
}

/* Whatever a transaction did, going back to a savepoint, and again, or aborting gives the state that
 * was there before, and what is used of the working image is the same byte for byte. */
static void going_back_restores_all(void) {
    struct random random = {test_seed + 1};
    struct model m = new_model(), points[4] = {{0}}, before = {0};
    static char image[4 * MIB];
    open_pool("back", 4 * MIB);
    find_crowded_keys();
    open_containers();
    for (uint64_t n = test_rounds(1500); n; n--) {
        uint64_t id;
        int64_t count = 0;
        for (uint64_t i = random_below(&random, 4); i; i--) any_step(&m, &random);
        /* What earlier transactions deferred is paid for by now: compare from here. */
        const struct pml_heap *heap = pml_heap(pool);
        uint64_t bytes = heap->top - PML_BODY_OFFSET, end = heap->end;
        memcpy(image, pml_ptr(pool, PML_BODY_OFFSET), bytes);
        struct pml_heap kept = *heap;
        model_copy(&before, &m);
        CHECK_OK(pml_tx_begin(pool, &id));
        for (uint64_t i = 1 + random_below(&random, 25); i; i--) {
            any_step(&m, &random);
            uint64_t what = random_below(&random, 8);
            if (what < 2 && count < 4) {
                CHECK(pml_tx_savepoint(pool, id) == count);
                model_copy(&points[count++], &m);
            } else if (what == 2 && count) {
                int64_t to = (int64_t)random_below(&random, (uint64_t)count);
                CHECK_OK(pml_tx_rollback(pool, id, to));
                model_copy(&m, &points[to]);
                count = to + 1;
                check_state(&m);
            }
        }
        if (n % 3) {
            CHECK_OK(pml_tx_abort(pool, id));
            model_copy(&m, &before);
            heap = pml_heap(pool);
            CHECK(!memcmp(&kept, heap, sizeof kept));
            CHECK(heap->end == end);
            /* What nothing points at may differ: free blocks, and in a segment the buckets that are
             * not in use yet, which going back leaves zeroed. */
            for (uint64_t at = PML_HEAP_FIRST; at != heap->top;) {
                uint64_t word, old;
                memcpy(&word, pml_ptr(pool, at), 8);
                memcpy(&old, image + (at - PML_BODY_OFFSET), 8);
                CHECK(word == old);
                bool whole = word & PML_BLOCK_USED && PML_BLOCK_KIND(word) != PML_BLOCK_SEGMENT;
                uint64_t size = whole ? PML_BLOCK_SIZE(word) : word & PML_BLOCK_USED ? 8 : 24;
                CHECK(!memcmp(pml_ptr(pool, at), image + (at - PML_BODY_OFFSET), size));
                at += PML_BLOCK_SIZE(word);
            }
        } else {
            CHECK_OK(pml_tx_commit(pool, id));
        }
        check_state(&m);
        if (n % 50 == 0) check_pool(pool);
    }
    close_pool("back");
    for (int i = 0; i < 4; i++) model_free(&points[i]);
    model_free(&before);
    model_free(&m);
}

/* The image grows up to max_size; the change that would pass it answers PoolFull, and nothing of it
 * is there; what is freed can be used again. */
static void growth_ends_at_max_size(void) {
    struct model m = new_model();
    struct pml_info info;
    char bytes[300];
    open_pool("growth", 3 * MIB);
    open_containers();
    int st = PML_OK;
    uint32_t key = 0;
    for (; st == PML_OK && key < 1000; key++) {
        uint64_t word = key_bytes(key, bytes);
        struct model_value value = value_bytes(key, 30000 + key, buffer);
        st = pml_dict_set(dict, bytes, word, buffer, value.word);
        if (st == PML_OK) model_put(&m, key, value);
    }
    CHECK(st == PML_E_POOL_FULL && key > 60);
    check_state(&m);
    check_pool(pool);
    CHECK_OK(pml_info(pool, &info));
    CHECK(info.image_bytes <= 3 * MIB && info.image_bytes > 2 * MIB && !info.poisoned);
    uint64_t word = key_bytes(7, bytes);
    CHECK_OK(pml_dict_delete(dict, bytes, word));
    model_delete(&m, 7);
    struct model_value value = value_bytes(9999, 30000, buffer);
    word = key_bytes(5000, bytes);
    CHECK_OK(pml_dict_set(dict, bytes, word, buffer, value.word));
    model_put(&m, 5000, value);
    check_state(&m);
    close_pool("growth");
    open_pool("growth", 3 * MIB);
    open_containers();
    check_state(&m);
    close_pool("growth");
    model_free(&m);
}

int main(void) {
    test_start("test_containers");
    heap_keeps_its_blocks();
    containers_equal_naive_ones();
    going_back_restores_all();
    growth_ends_at_max_size();
    return 0;
}
