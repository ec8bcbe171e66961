/*
 * SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF"), as used for dict keys.
 * The kind of the key is mixed into the key's first half, so that "1" and b"1" are different keys.
 */
#include "internal.h"

static inline uint64_t rotate_left(uint64_t value, int bits) {
    return (value << bits) | (value >> (64 - bits));
}

#define SIP_ROUND()                                                                                \
    do {                                                                                           \
        v0 += v1, v1 = rotate_left(v1, 13), v1 ^= v0, v0 = rotate_left(v0, 32);                    \
        v2 += v3, v3 = rotate_left(v3, 16), v3 ^= v2;                                              \
        v0 += v3, v3 = rotate_left(v3, 21), v3 ^= v0;                                              \
        v2 += v1, v1 = rotate_left(v1, 17), v1 ^= v2, v2 = rotate_left(v2, 32);                    \
    } while (0)

uint64_t pml_siphash13(const uint64_t key[2], const void *data, size_t size, uint32_t kind) {
    const unsigned char *p = data;
    uint64_t k0 = key[0] ^ kind, k1 = key[1];
    uint64_t v0 = k0 ^ 0x736f6d6570736575ull, v1 = k1 ^ 0x646f72616e646f6dull;
    uint64_t v2 = k0 ^ 0x6c7967656e657261ull, v3 = k1 ^ 0x7465646279746573ull;
    uint64_t last = (uint64_t)size << 56;
    size_t rest = size & 7;
    for (const unsigned char *end = p + (size - rest); p != end; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        v3 ^= word;
        SIP_ROUND();
        v0 ^= word;
    }
    for (size_t i = 0; i < rest; i++) last |= (uint64_t)p[i] << (8 * i);
    v3 ^= last;
    SIP_ROUND();
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND();
    SIP_ROUND();
    SIP_ROUND();
    return v0 ^ v1 ^ v2 ^ v3;
}
