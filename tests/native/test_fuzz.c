/*
 * Any bytes: in a pool's files, and in a record that arrives with a right checksum.  Whatever they
 * are, the engine answers; it neither crashes nor reads or writes where it must not.
 *
 * An input is a byte that says which of the two, then:
 *   pool    patches of the files: which file, where (4 bytes), how long (1), the bytes
 *   record  number of ranges, kind of record, and the ranges; header and checksum are put in front
 *
 * As a test: seeded random inputs, under the sanitizers too.  With PML_LIBFUZZER defined the same
 * function is what clang's libFuzzer calls: `make fuzz`.
 */
#include <fcntl.h>

#include "harness.h"

#define INPUT_MAX 4096u

static const char *const files[] = {"log", "image", "sums", "control"};
static char pool_path[128];
static struct pml_pool *replica;
static uint64_t opened, refused, appended, turned_down;

/* ---- pools ---- */

static void make_pool(void) {
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE);
    struct pml_pool *pool;
    struct pml_container *dict, *deque;
    char value[200];
    snprintf(pool_path, sizeof pool_path, "%.100s", scratch_path("pool"));
    random_fill(7, value, sizeof value);
    CHECK_OK(pml_open(pool_path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &dict));
    CHECK_OK(pml_container_open(pool, "q", 1, PML_TYPE_DEQUE, 0, NULL, 0, &deque));
    for (uint32_t i = 0; i < 60; i++) {
        uint64_t word = word_of(1 + i * 3, PML_KIND_BYTES);
        CHECK_OK(pml_dict_set(dict, (const char *)&i, word_of(4, PML_KIND_BYTES), value, word));
        CHECK_OK(pml_deque_push(deque, i & 1, value, word));
        if (i == 30) CHECK_OK(pml_checkpoint(pool));
    }
    pml_container_free(dict);
    pml_container_free(deque);
    CHECK_OK(pml_abandon(pool));
    pml_free(pool);
}

static void read_all(struct pml_pool *pool) {
    static char buffer[65536];
    struct pml_fault faults[8];
    struct pml_container *c;
    uint64_t count;
    pml_check(pool, faults, 8);
    if (pml_container_open(pool, "d", 1, PML_TYPE_DICT, 0, NULL, 0, &c) == PML_OK) {
        struct pml_cursor cursor = {0};
        for (int i = 0; i < 100; i++)
            if (pml_dict_scan(c, &cursor, PML_SCAN_KEYS | PML_SCAN_VALUES, buffer, sizeof buffer,
                              &count) < 0 ||
                !count)
                break;
        pml_container_free(c);
    }
    if (pml_container_open(pool, "q", 1, PML_TYPE_DEQUE, 0, NULL, 0, &c) == PML_OK) {
        pml_deque_scan(c, 0, 0, buffer, sizeof buffer, &count);
        pml_container_free(c);
    }
}

static void open_patched(void) {
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, PML_OPEN_READ_ONLY);
    struct pml_pool *pool;
    struct pml_tail *tail;
    struct pml_tail_record next;
    if (pml_open(pool_path, &options, &pool) == PML_OK) {
        opened++;
        read_all(pool);
        pml_close(pool);
        pml_free(pool);
    } else {
        refused++;
    }
    if (pml_tail_open(pool_path, &tail) == PML_OK) {
        for (int i = 0; i < 1000 && pml_tail_next(tail, &next) == PML_OK; i++) continue;
        pml_tail_close(tail);
    }
}

struct patch {
    int file;
    uint64_t offset, size;
    char old[256];
};

static void try_pool(const uint8_t *data, size_t size) {
    struct patch patches[16];
    int fds[4], count = 0;
    for (int i = 0; i < 4; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", pool_path, files[i]);
        fds[i] = open(path, O_RDWR | O_CLOEXEC);
        CHECK(fds[i] >= 0);
    }
    for (; size >= 7 && count < 16; count++) {
        struct patch *p = &patches[count];
        struct stat known;
        p->file = data[0] & 3;
        CHECK(fstat(fds[p->file], &known) == 0);
        p->offset =
            (data[1] | (uint64_t)data[2] << 8 | (uint64_t)data[3] << 16 | (uint64_t)data[4] << 24) %
            (uint64_t)known.st_size;
        p->size = data[5];
        data += 6, size -= 6;
        p->size = pml_min64(pml_min64(p->size, size), (uint64_t)known.st_size - p->offset);
        CHECK(pread(fds[p->file], p->old, p->size, (off_t)p->offset) == (ssize_t)p->size);
        CHECK(pwrite(fds[p->file], data, p->size, (off_t)p->offset) == (ssize_t)p->size);
        data += p->size, size -= p->size;
    }
    open_patched();
    while (count--) {
        struct patch *p = &patches[count];
        CHECK(pwrite(fds[p->file], p->old, p->size, (off_t)p->offset) == (ssize_t)p->size);
    }
    for (int i = 0; i < 4; i++) close(fds[i]);
}

/* ---- records ---- */

static void open_replica(void) {
    struct pml_identity identity = {.pool_id = {1}, .ring_bytes = 256 * KIB, .hash_seed = {1, 2}};
    struct pml_options options =
        small_pool(PML_DOMAIN_EMULATED, PML_OPEN_CREATE | PML_OPEN_REPLICA);
    options.identity = &identity;
    const char *path = scratch_path("replica");
    remove_tree(path);
    CHECK_OK(pml_open(path, &options, &replica));
}

static void try_record(const uint8_t *data, size_t size) {
    static _Alignas(64) char bytes[INPUT_MAX + 256];
    struct pml_position at;
    if (size < 2) return;
    if (!replica) open_replica();
    CHECK_OK(pml_position(replica, &at));
    size_t length = (sizeof(struct pml_record) + size - 2 + 63) / 64 * 64;
    memset(bytes, 0, length);
    memcpy(bytes + sizeof(struct pml_record), data + 2, size - 2);
    struct pml_record *record = (struct pml_record *)(void *)bytes;
    *record = (struct pml_record){.magic = PML_MAGIC_RECORD,
                                  .lsn = at.lsn,
                                  .length = length,
                                  .txn = at.txn + 1,
                                  .lsn_durable = at.lsn,
                                  .session = 1,
                                  .epoch = at.epoch ? at.epoch : 1,
                                  .checksum_prev = at.chain,
                                  .range_count = data[0],
                                  .kind = data[1]};
    record->checksum = pml_record_sum(record, length, replica->salt);
    uint64_t image_bytes = replica->image_bytes;
    int st = pml_replica_append(replica, at.lsn, bytes, length, &at);
    if (st == PML_OK && at.lsn == record->lsn + length) {
        appended++;
        CHECK(replica->image_bytes >= image_bytes && replica->image_bytes <= replica->max_bytes);
        st = pml_checkpoint(replica);
    } else {
        turned_down++;
        pml_replica_restart(replica);
    }
    if (pml_alive(replica) != PML_OK || st == PML_E_POOL_FULL) { /* poisoned: begin anew */
        pml_abandon(replica);
        pml_free(replica);
        replica = NULL;
    }
}

static void try_input(const uint8_t *data, size_t size) {
    if (!size || size > INPUT_MAX) return;
    if (data[0] & 1)
        try_record(data + 1, size - 1);
    else
        try_pool(data + 1, size - 1);
}

#ifdef PML_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!pool_path[0]) {
        test_start("fuzz");
        make_pool();
    }
    try_input(data, size);
    return 0;
}
#else

/* Ranges that make sense, nearly: most of them get as far as being applied. */
static size_t make_ranges(struct random *random, uint8_t *out) {
    size_t at = 3, count = 1 + random_below(random, 4);
    out[0] = 1;
    out[1] = (uint8_t)count;
    out[2] = (uint8_t)(random_below(random, 8) ? 1 : random_word(random));
    for (size_t i = 0; i < count; i++) {
        uint64_t kind = random_below(random, 4), length = random_below(random, 200);
        struct pml_range range = {
            random_below(random, 4) ? PML_BODY_OFFSET + random_below(random, MIB)
                                    : random_word(random) >> random_below(random, 64),
            (random_below(random, 8) ? length : random_word(random) >> random_below(random, 64)) |
                kind << 56};
        memcpy(out + at, &range, sizeof range);
        at += sizeof range;
        random_fill(random_word(random), out + at, (length + 7) & ~7ull);
        at += (length + 7) & ~7ull;
    }
    return at;
}

static size_t make_patches(struct random *random, uint8_t *out) {
    size_t at = 1;
    out[0] = 0;
    for (uint64_t i = 1 + random_below(random, 3); i; i--) {
        uint32_t offset = (uint32_t)random_below(random, random_below(random, 2) ? 40000 : 2 * MIB);
        uint8_t length = (uint8_t)(1 + random_below(random, 16));
        out[at++] = (uint8_t)random_word(random);
        memcpy(out + at, &offset, 4);
        out[at + 4] = length;
        random_fill(random_word(random), out + at + 5, length);
        at += 5u + length;
    }
    return at;
}

int main(void) {
    static uint8_t input[INPUT_MAX];
    test_start("test_fuzz");
    make_pool();
    struct random random = {test_seed};
    for (uint64_t n = test_rounds(6000); n; n--) {
        size_t size = n & 1 ? make_ranges(&random, input) : make_patches(&random, input);
        if (!random_below(&random, 4))
            input[random_below(&random, size)] ^= (uint8_t)(1u << (n / 2 % 8));
        try_input(input, size);
    }
    printf("opened %llu, refused %llu, appended %llu, turned down %llu\n",
           (unsigned long long)opened, (unsigned long long)refused, (unsigned long long)appended,
           (unsigned long long)turned_down);
    CHECK(opened && refused && appended && turned_down); /* it gets past the first look */
    check_closed_pool(pool_path);
    if (replica) {
        pml_abandon(replica);
        pml_free(replica);
    }
    return 0;
}
#endif
