/*
 * The hot paths, each in a function of its own, so that callgrind can count what they take.
 *
 * usage: hot_paths FOLDER
 *
 * Prints for each path, per operation: drains, flushes, calls of malloc and its like.  The
 * instructions are callgrind's: the inclusive cost of the functions path_*, divided by OPERATIONS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pml.h"

#define OPERATIONS 2000u
#define KEYS 1000u
#define BYTES 64u

static uint64_t mallocs;
void *__real_malloc(size_t size);
void *__real_realloc(void *at, size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size) { return mallocs++, __real_malloc(size); }
void *__wrap_realloc(void *at, size_t size) { return mallocs++, __real_realloc(at, size); }
void *__wrap_calloc(size_t count, size_t size) { return mallocs++, __real_calloc(count, size); }

static struct pml_pool *pool;
static struct pml_container *region, *dict, *deque;
static char keys[KEYS][8], values[OPERATIONS][BYTES], buffer[BYTES];

static void must(int64_t status) {
    if (status >= 0) return;
    fprintf(stderr, "hot_paths: %s: %s\n", pml_status_name((int)status), pml_error()->text);
    exit(1);
}

static uint64_t word(uint64_t bytes) { return bytes << 8 | PML_KIND_BYTES; }

#define PATH __attribute__((noinline)) static void

PATH path_region_write(uint32_t n) {
    must(pml_bytes_write(region, n % 512 * BYTES, values[n], BYTES));
}

PATH path_region_read(uint32_t n) { must(pml_bytes_read(region, n % 512 * BYTES, buffer, BYTES)); }

PATH path_dict_get(uint32_t n) {
    must(pml_dict_get(dict, keys[n * 7 % KEYS], word(8), buffer, sizeof buffer));
}

PATH path_dict_set(uint32_t n) {
    must(pml_dict_set(dict, keys[n * 7 % KEYS], word(8), values[n], word(BYTES)));
}

PATH path_dict_insert(uint32_t n) {
    char key[8];
    snprintf(key, sizeof key, "n%06u", n);
    must(pml_dict_set(dict, key, word(7), values[n], word(BYTES)));
}

PATH path_transaction_of_three(uint32_t n) {
    uint64_t id;
    must(pml_tx_begin(pool, &id));
    for (uint32_t i = 0; i < 3; i++)
        must(pml_dict_set(dict, keys[(n + i * 311) % KEYS], word(8), values[n], word(BYTES)));
    must(pml_tx_commit(pool, id));
}

PATH path_deque_append(uint32_t n) { must(pml_deque_push(deque, 0, values[n], word(BYTES))); }

PATH path_deque_popleft(uint32_t n) {
    (void)n;
    must(pml_deque_pop(deque, 1, buffer, sizeof buffer));
}

static void run(const char *name, void (*path)(uint32_t)) {
    struct pml_info before, after;
    must(pml_info(pool, &before));
    uint64_t mallocs_before = mallocs;
    for (uint32_t n = 0; n < OPERATIONS; n++) path(n);
    uint64_t mallocs_after = mallocs;
    must(pml_info(pool, &after));
    printf("%s %.3f %.3f %.3f\n", name, (double)(after.drains - before.drains) / OPERATIONS,
           (double)(after.flushes - before.flushes) / OPERATIONS,
           (double)(mallocs_after - mallocs_before) / OPERATIONS);
}

static struct pml_container *container(const char *name, uint32_t type, uint64_t size) {
    struct pml_container *made;
    must(pml_container_open(pool, name, strlen(name), type, size, NULL, 0, &made));
    return made;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct pml_options options = {
        .size = 8u << 20,
        .max_size = 64u << 20,
        .log_size = 32u << 20, /* never round: no checkpoint is taken meanwhile */
        .domain = PML_DOMAIN_EMULATED,
        .flags = PML_OPEN_CREATE | PML_OPEN_NO_THREAD,
        .medium = PML_MEDIUM_FILE,
    };
    must(pml_open(argv[1], &options, &pool));
    region = container("region", PML_TYPE_REGION, 512 * BYTES);
    dict = container("dict", PML_TYPE_DICT, 0);
    deque = container("deque", PML_TYPE_DEQUE, 0);
    for (uint32_t n = 0; n < OPERATIONS; n++) memset(values[n], (int)(n % 251), BYTES);
    for (uint32_t n = 0; n < KEYS; n++) {
        memcpy(keys[n], &n, sizeof n);
        must(pml_dict_set(dict, keys[n], word(8), values[n], word(BYTES)));
    }
    run("region_write", path_region_write);
    run("region_read", path_region_read);
    run("dict_get", path_dict_get);
    run("dict_set", path_dict_set);
    run("dict_insert", path_dict_insert);
    run("transaction_of_three", path_transaction_of_three);
    run("deque_append", path_deque_append);
    run("deque_popleft", path_deque_popleft);
    must(pml_close(pool));
    pml_free(pool);
    return 0;
}
