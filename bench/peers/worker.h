/*
 * What the C peers share: a process that runs operations on command and says how long they took.
 *
 * Each line on stdin is "run NAME COUNT" or "latency NAME COUNT"; each is answered by one line:
 *   run      wall_ns cpu_ns            of all COUNT operations together; cpu: the whole process
 *   latency  p50 p99 p99.9 timer       nanoseconds of single operations, less the timer's own cost
 * End of file ends the process.
 *
 * A process of its own, because libpmem reads its environment when it is loaded, and because
 * libpmemobj ends the process where it meets a mistake.  COUNT is large, so that the way through the
 * pipe (about 20 µs) does not count.
 */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* As in bench/workload.py. */
#define VALUE_BYTES 64u
#define VALUES 4093u          /* prime: neighbours in time and place differ */
#define SLOTS 16384u
#define SLOT_STEP 5167u       /* odd: visits every slot before it comes back to one */
#define KEYS 100000u

struct operation {
    const char *name;
    void (*run)(uint64_t first, uint64_t count); /* operations number first … first + count - 1 */
    uint64_t done;
};

static char values[VALUES][VALUE_BYTES];

static inline const char *value_of(uint64_t number) { return values[number % VALUES]; }
static inline uint64_t slot_of(uint64_t number) { return number * SLOT_STEP % SLOTS; }

static inline uint64_t next_random(uint64_t *state) { /* xorshift64 */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void fill_values(void) {
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < VALUES; i++)
        for (size_t j = 0; j < VALUE_BYTES; j++) values[i][j] = (char)next_random(&state);
}

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void refuse(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static int by_size(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void answer_latency(struct operation *op, uint64_t count) {
    uint64_t *ns = malloc(count * sizeof *ns);
    if (!ns) refuse("no memory");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        ns[i] = clock_ns(CLOCK_MONOTONIC) - begin;
    }
    qsort(ns, count, sizeof *ns, by_size);
    uint64_t timer = ns[count / 2];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t begin = clock_ns(CLOCK_MONOTONIC);
        op->run(op->done++, 1);
        uint64_t took = clock_ns(CLOCK_MONOTONIC) - begin;
        ns[i] = took > timer ? took - timer : 0;
    }
    qsort(ns, count, sizeof *ns, by_size);
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", ns[count / 2],
           ns[count * 99 / 100], ns[count * 999 / 1000], timer);
    free(ns);
}

static void answer_run(struct operation *op, uint64_t count) {
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), begin = clock_ns(CLOCK_MONOTONIC);
    op->run(op->done, count);
    uint64_t wall = clock_ns(CLOCK_MONOTONIC) - begin;
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    op->done += count;
    printf("%" PRIu64 " %" PRIu64 "\n", wall, cpu);
}

static int serve(struct operation *ops, size_t op_count) {
    char line[128], verb[32], name[32];
    uint64_t count;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%31s %31s %" SCNu64, verb, name, &count) != 3 || !count)
            refuse("a command has three words");
        struct operation *op = NULL;
        for (size_t i = 0; i < op_count; i++)
            if (!strcmp(ops[i].name, name)) op = &ops[i];
        if (!op) refuse("no such operation");
        if (!strcmp(verb, "latency")) answer_latency(op, count);
        else answer_run(op, count);
    }
    return 0;
}

#endif
