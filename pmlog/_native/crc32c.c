/*
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), check value 0xE3069283 for "123456789".
 *
 * The hardware paths run three independent instruction streams, since the CRC instruction has a
 * latency of three cycles and a throughput of one, and join them with tables that multiply a
 * checksum by x^(8n) (R. Crandall's and M. Adler's published method).
 */
#include "internal.h"

#define POLYNOMIAL 0x82f63b78u
#define LONG_BYTES 2048u
#define SHORT_BYTES 128u

static uint32_t slice_table[8][256];
static uint32_t long_table[4][256];
static uint32_t short_table[4][256];

/* a * b modulo the polynomial, both reflected */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b & 1) ? (b >> 1) ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* x^(8n): what a checksum is multiplied by when n zero bytes follow */
static uint32_t power_of_x(size_t bytes) {
    uint32_t result = 0x80000000u; /* 1 */
    uint32_t square = 0x00800000u; /* x^8 */
    for (; bytes; bytes >>= 1) {
        if (bytes & 1) result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

static void fill_shift_table(uint32_t table[4][256], size_t bytes) {
    uint32_t factor = power_of_x(bytes);
    for (uint32_t k = 0; k < 4; k++)
        for (uint32_t n = 0; n < 256; n++) table[k][n] = multiply(n << (8 * k), factor);
}

__attribute__((constructor)) static void fill_tables(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int k = 0; k < 8; k++) c = (c & 1) ? (c >> 1) ^ POLYNOMIAL : c >> 1;
        slice_table[0][n] = c;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (uint32_t k = 1; k < 8; k++) {
            uint32_t before = slice_table[k - 1][n];
            slice_table[k][n] = slice_table[0][before & 0xff] ^ (before >> 8);
        }
    fill_shift_table(long_table, LONG_BYTES);
    fill_shift_table(short_table, SHORT_BYTES);
}

uint32_t pml_crc32c_portable(uint32_t seed, const void *data, size_t size) {
    const unsigned char *p = data;
    uint32_t c = ~seed;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= c;
        c = slice_table[7][word & 0xff] ^ slice_table[6][(word >> 8) & 0xff] ^
            slice_table[5][(word >> 16) & 0xff] ^ slice_table[4][(word >> 24) & 0xff] ^
            slice_table[3][(word >> 32) & 0xff] ^ slice_table[2][(word >> 40) & 0xff] ^
            slice_table[1][(word >> 48) & 0xff] ^ slice_table[0][word >> 56];
        p += 8;
        size -= 8;
    }
    while (size--) c = slice_table[0][(c ^ *p++) & 0xff] ^ (c >> 8);
    return ~c;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define PML_CRC_TARGET __attribute__((target("sse4.2")))
#define STEP8(crc, word) _mm_crc32_u64((crc), (word))
#define STEP1(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
static bool has_instruction(void) { return __builtin_cpu_supports("sse4.2") != 0; }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define PML_CRC_TARGET __attribute__((target("+crc")))
#define STEP8(crc, word) __crc32cd((uint32_t)(crc), (word))
#define STEP1(crc, byte) __crc32cb((uint32_t)(crc), (byte))
static bool has_instruction(void) { return (getauxval(AT_HWCAP) & (1ul << 7)) != 0; /* CRC32 */ }
#endif

#ifdef PML_CRC_TARGET
static inline uint64_t shift(uint32_t table[4][256], uint64_t crc) {
    return table[0][crc & 0xff] ^ table[1][(crc >> 8) & 0xff] ^ table[2][(crc >> 16) & 0xff] ^
           table[3][(crc >> 24) & 0xff];
}

static inline uint64_t load8(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

PML_CRC_TARGET static uint64_t three_streams(uint64_t c, const unsigned char *p, size_t block,
                                             uint32_t table[4][256]) {
    uint64_t c1 = 0, c2 = 0;
    for (size_t i = 0; i < block; i += 8) {
        c = STEP8(c, load8(p + i));
        c1 = STEP8(c1, load8(p + block + i));
        c2 = STEP8(c2, load8(p + 2 * block + i));
    }
    return shift(table, shift(table, c) ^ c1) ^ c2;
}

PML_CRC_TARGET static uint32_t crc32c_instruction(uint32_t seed, const void *data, size_t size) {
    const unsigned char *p = data;
    uint64_t c = ~seed;
    for (; size >= 3 * LONG_BYTES; p += 3 * LONG_BYTES, size -= 3 * LONG_BYTES)
        c = three_streams(c, p, LONG_BYTES, long_table);
    for (; size >= 3 * SHORT_BYTES; p += 3 * SHORT_BYTES, size -= 3 * SHORT_BYTES)
        c = three_streams(c, p, SHORT_BYTES, short_table);
    for (; size >= 8; p += 8, size -= 8) c = STEP8(c, load8(p));
    for (; size; p++, size--) c = STEP1(c, *p);
    return ~(uint32_t)c;
}
#endif

uint32_t pml_crc32c(uint32_t seed, const void *data, size_t size) {
#ifdef PML_CRC_TARGET
    static _Atomic int known; /* 0 not asked yet, 1 instruction, 2 none */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (PML_UNLIKELY(!answer)) {
        answer = has_instruction() ? 1 : 2;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    if (PML_LIKELY(answer == 1)) return crc32c_instruction(seed, data, size);
#endif
    return pml_crc32c_portable(seed, data, size);
}
