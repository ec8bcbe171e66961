/* Pure functions: checksums, hashes and the decision of recovery. */
#include "harness.h"

/* The published check value, and empty input. */
static void crc32c_has_its_published_check_value(void) {
    CHECK(pml_crc32c(0, "123456789", 9) == 0xe3069283u);
    CHECK(pml_crc32c_portable(0, "123456789", 9) == 0xe3069283u);
    CHECK(pml_crc32c(0, "", 0) == 0);
    /* RFC 3720, B.4: 32 bytes of zeros, of ones */
    char bytes[32];
    memset(bytes, 0, sizeof bytes);
    CHECK(pml_crc32c(0, bytes, sizeof bytes) == 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    CHECK(pml_crc32c(0, bytes, sizeof bytes) == 0x62a8ab43u);
}

static uint32_t crc32c_bit_by_bit(uint32_t seed, const unsigned char *p, size_t size) {
    uint32_t c = ~seed;
    while (size--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = (c & 1) ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    }
    return ~c;
}

/* The instruction's path, the portable one and the definition agree, at any length and alignment,
 * and a checksum can be taken in pieces. */
static void crc32c_paths_agree(void) {
    struct random random = {test_seed};
    static unsigned char bytes[40000];
    random_fill(test_seed, bytes, sizeof bytes);
    for (uint64_t n = test_rounds(4000); n; n--) {
        size_t at = random_below(&random, 16);
        size_t size = random_below(&random, n % 8 ? 400 : sizeof bytes - 16);
        uint32_t seed = (uint32_t)random_word(&random), found = pml_crc32c(seed, bytes + at, size);
        CHECK(found == pml_crc32c_portable(seed, bytes + at, size));
        if (size < 1000) CHECK(found == crc32c_bit_by_bit(seed, bytes + at, size));
        size_t cut = random_below(&random, size + 1);
        CHECK(found == pml_crc32c(pml_crc32c(seed, bytes + at, cut), bytes + at + cut, size - cut));
    }
}

/* ---- SipHash-c-d after the paper, byte by byte ---- */

static uint64_t turn(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

static void sip_rounds(uint64_t v[4], int rounds) {
    while (rounds--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = turn(v[1], 13) ^ v[0];
        v[3] = turn(v[3], 16) ^ v[2];
        v[0] = turn(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = turn(v[1], 17) ^ v[2];
        v[3] = turn(v[3], 21) ^ v[0];
        v[2] = turn(v[2], 32);
    }
}

static uint64_t siphash(int c, int d, const uint64_t key[2], const unsigned char *data,
                        size_t size) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
                     key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};
    for (size_t block = 0; block <= size / 8; block++) {
        uint64_t m = block == size / 8 ? (uint64_t)(size & 0xff) << 56 : 0;
        for (size_t i = 0; i < 8 && block * 8 + i < size; i++)
            m |= (uint64_t)data[block * 8 + i] << (8 * i);
        v[3] ^= m;
        sip_rounds(v, c);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    sip_rounds(v, d);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The reference is right by the paper's vector for SipHash-2-4, and the engine's 1-3 equals it. */
static void siphash_is_siphash(void) {
    const uint64_t key[2] = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};
    unsigned char bytes[600];
    for (unsigned i = 0; i < 15; i++) bytes[i] = (unsigned char)i;
    CHECK(siphash(2, 4, key, bytes, 15) == 0xa129ca6149be45e5ull);
    /* SipHash-1-3 of nothing under the same key, as in the tests of Rust's standard library. */
    CHECK(pml_siphash13(key, bytes, 0, 0) == 0xabac0158050fc4dcull);
    struct random random = {test_seed};
    for (uint64_t n = test_rounds(4000); n; n--) {
        uint64_t own[2] = {random_word(&random), random_word(&random)};
        size_t at = random_below(&random, 8), size = random_below(&random, n % 5 ? 40 : 580);
        uint32_t kind = (uint32_t)random_below(&random, 4);
        random_fill(random_word(&random), bytes, sizeof bytes);
        uint64_t mixed[2] = {own[0] ^ kind, own[1]};
        CHECK(pml_siphash13(own, bytes + at, size, kind) == siphash(1, 3, mixed, bytes + at, size));
    }
}

/* ---- recovery's decision ---- */

#define ANY 0xff
#define IS(value) (1u << (value))

struct row { /* sets of values, a bit each */
    const char *name;
    unsigned marks, clean, records, end, below;
    int decision;
};
#define SOME_MARK (IS(PML_MARKS_ONE) | IS(PML_MARKS_BOTH))
#define NO_LATER (IS(PML_END_NOTHING) | IS(PML_END_STALE) | IS(PML_END_TORN))
static const struct row rows[] = {
    {"R1 no mark", IS(PML_MARKS_NONE), ANY, ANY, ANY, ANY, PML_DECIDE_CORRUPT_MARKS},
    {"R2 later lap", SOME_MARK, ANY, ANY, IS(PML_END_LATER_LAP), ANY, PML_DECIDE_CORRUPT_LOG},
    {"R3 hole", SOME_MARK, ANY, ANY, NO_LATER, IS(1), PML_DECIDE_CORRUPT_LOG},
    {"R4 behind a clean end", IS(PML_MARKS_BOTH), IS(1), IS(1), NO_LATER, IS(0),
     PML_DECIDE_CORRUPT_LOG},
    {"R5 replay", IS(PML_MARKS_BOTH), IS(0), IS(1), NO_LATER, IS(0), PML_DECIDE_REPLAY},
    {"R5 replay, one mark", IS(PML_MARKS_ONE), ANY, IS(1), NO_LATER, IS(0), PML_DECIDE_REPLAY},
    {"R6 nothing to do", SOME_MARK, ANY, IS(0), NO_LATER, IS(0), PML_DECIDE_CLEAN},
};

/* For every combination of findings exactly one row of the table matches, and decides. */
static void recovery_decides_by_the_table(void) {
    static const char *const decisions[] = {"clean", "replay", "corrupt marks", "corrupt log"};
    unsigned counted[sizeof rows / sizeof rows[0]] = {0}, combinations = 0;
    for (int marks = 0; marks < 3; marks++)
        for (int clean = 0; clean < 2; clean++)
            for (int records = 0; records < 2; records++)
                for (int end = 0; end < 4; end++)
                    for (int below = 0; below < 2; below++) {
                        size_t match = 0, at = 0;
                        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                            if (rows[i].marks >> marks & rows[i].clean >> clean &
                                rows[i].records >> records & rows[i].end >> end &
                                rows[i].below >> below & 1) {
                                match++;
                                at = i;
                            }
                        CHECK(match == 1);
                        CHECK(pml_recover_decide(marks, clean, records, end, below) ==
                              rows[at].decision);
                        counted[at]++;
                        combinations++;
                    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(counted[i]);
        printf("  %-24s %2u combinations: %s\n", rows[i].name, counted[i],
               decisions[rows[i].decision]);
    }
    CHECK(combinations == 96);
}

/* Every status has a name of its own. */
static void statuses_have_names(void) {
    for (int status = 0; status >= PML_E_BEHIND; status--) {
        CHECK(strcmp(pml_status_name(status), "UNKNOWN"));
        for (int other = 0; other > status; other--)
            CHECK(strcmp(pml_status_name(status), pml_status_name(other)));
    }
    CHECK(!strcmp(pml_status_name(PML_E_BEHIND - 1), "UNKNOWN"));
    CHECK(!strcmp(pml_status_name(1), "UNKNOWN"));
}

int main(void) {
    test_start("test_codes");
    crc32c_has_its_published_check_value();
    crc32c_paths_agree();
    siphash_is_siphash();
    recovery_decides_by_the_table();
    statuses_have_names();
    return 0;
}
