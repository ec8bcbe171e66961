/*
 * The limit: pmlog's own C core without Python, the same operations in a loop.
 *
 * usage: core_loop POOL_FOLDER DOMAIN      (DOMAIN: number of enum pml_domain)
 */
#include "pml.h"

#include "worker.h"

#define KEY_BYTES 12u   /* "key:" and eight digits */
#define KEY_STEP 61657u /* shares no factor with KEYS: visits every key in a scattered order */

static struct pml_pool *pool;
static struct pml_container *region, *dict, *fresh, *deque;
static char keys[KEYS][KEY_BYTES + 1];
static uint64_t inserted;

static void must(int64_t status) {
    if (status < 0) refuse(pml_error()->text[0] ? pml_error()->text : pml_status_name((int)status));
}

static uint64_t word(uint64_t bytes) { return bytes << 8 | PML_KIND_BYTES; }

static const char *key_of(uint64_t number) { return keys[number * KEY_STEP % KEYS]; }

static void region_write(uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; n++)
        must(pml_bytes_write(region, slot_of(n) * VALUE_BYTES, value_of(n), VALUE_BYTES));
}

static void dict_set(uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; n++)
        must(pml_dict_set(dict, key_of(n), word(KEY_BYTES), value_of(n), word(VALUE_BYTES)));
}

static void dict_insert(uint64_t first, uint64_t count) {
    (void)first;
    for (uint64_t n = 0; n < count; n++) {
        char key[24];
        uint64_t size = (uint64_t)snprintf(key, sizeof key, "new:%08" PRIu64, inserted++);
        must(pml_dict_set(fresh, key, word(size), value_of(n), word(VALUE_BYTES)));
    }
}

static void dict_get(uint64_t first, uint64_t count) {
    char buffer[VALUE_BYTES];
    for (uint64_t n = first; n < first + count; n++)
        must(pml_dict_get(dict, key_of(n), word(KEY_BYTES), buffer, sizeof buffer));
}

static void transaction_set(uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; n++) {
        uint64_t id;
        must(pml_tx_begin(pool, &id));
        must(pml_dict_set(dict, key_of(n), word(KEY_BYTES), value_of(n), word(VALUE_BYTES)));
        must(pml_tx_commit(pool, id));
    }
}

static void deque_append(uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; n++)
        must(pml_deque_push(deque, 0, value_of(n), word(VALUE_BYTES)));
}

static void deque_popleft(uint64_t first, uint64_t count) {
    char buffer[VALUE_BYTES];
    for (uint64_t n = first; n < first + count; n++)
        must(pml_deque_pop(deque, 1, buffer, sizeof buffer));
}

static struct pml_container *container(const char *name, uint32_t type, uint64_t size) {
    struct pml_container *made;
    must(pml_container_open(pool, name, strlen(name), type, size, NULL, 0, &made));
    return made;
}

int main(int argc, char **argv) {
    if (argc != 3) refuse("usage: core_loop POOL_FOLDER DOMAIN");
    fill_values();
    struct pml_options options = {
        .size = 64u << 20,
        .max_size = 1u << 30, /* little enough for callgrind */
        .log_size = 64u << 20,
        .domain = (uint32_t)atoi(argv[2]),
        .flags = PML_OPEN_CREATE,
        .medium = PML_MEDIUM_FILE,
    };
    must(pml_open(argv[1], &options, &pool));
    region = container("region", PML_TYPE_REGION, (uint64_t)SLOTS * VALUE_BYTES);
    dict = container("dict", PML_TYPE_DICT, 0);
    fresh = container("fresh", PML_TYPE_DICT, 0);
    deque = container("deque", PML_TYPE_DEQUE, 0);
    for (uint64_t n = 0; n < KEYS; n++)
        snprintf(keys[n], sizeof keys[n], "key:%08u", (unsigned)(n % KEYS));
    /* In the order of the keys, and used in another, as by the peers in Python. */
    for (uint64_t n = 0; n < KEYS; n++)
        must(pml_dict_set(dict, keys[n], word(KEY_BYTES), value_of(n), word(VALUE_BYTES)));
    /* As peers/pmlog.py: the log has been round once. */
    static const char zeros[SLOTS * VALUE_BYTES];
    for (uint64_t n = 0; n <= options.log_size / sizeof zeros; n++)
        must(pml_bytes_write(region, 0, zeros, sizeof zeros));
    struct operation ops[] = {
        {.name = "region.write", .run = region_write},
        {.name = "dict.set", .run = dict_set},
        {.name = "dict.insert", .run = dict_insert},
        {.name = "dict.get", .run = dict_get},
        {.name = "transaction.set", .run = transaction_set},
        {.name = "deque.append", .run = deque_append},
        {.name = "deque.popleft", .run = deque_popleft},
    };
    int status = serve(ops, sizeof ops / sizeof *ops);
    must(pml_close(pool));
    pml_free(pool);
    return status;
}
