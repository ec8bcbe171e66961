/*
 * The one seam to the medium: four domains and libpmemobj behind one table of four operations.
 *
 *   copy, set   store bytes; they may reach the medium at any time from now on, in any order
 *   flush       start to make a range durable
 *   drain       on return everything flushed is durable (as far as the domain can)
 *
 * emulated  stores survive the process because the pages belong to the kernel: drain only keeps the
 *           compiler and the processor from moving stores across it
 * eadr      caches are inside the persistence domain: drain is a store fence
 * adr       lines must leave the caches: clwb, clflushopt or clflush; dc cvac on arm64
 * page      drain is fdatasync of the file
 *
 * No other file stores to image, log, sums or marks.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6

/* Each persist has one user at a time, so that counting needs no locked instruction. */
static inline void count(_Atomic uint64_t *counter) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void plain_copy(struct pml_persist *p, void *dst, const void *src, size_t size) {
    (void)p;
    memcpy(dst, src, size);
}

static void plain_set(struct pml_persist *p, void *dst, int byte, size_t size) {
    (void)p;
    memset(dst, byte, size);
}

static void plain_flush(struct pml_persist *p, const void *at, size_t size) {
    (void)at;
    (void)size;
    count(&p->flushes);
}

static int order_drain(struct pml_persist *p) {
    atomic_thread_fence(memory_order_release);
    count(&p->drains);
    return 0;
}

static void store_fence(void) {
#if defined(__x86_64__)
    _mm_sfence();
#elif defined(__aarch64__)
    __asm__ volatile("dmb ishst" ::: "memory");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static int fence_drain(struct pml_persist *p) {
    store_fence();
    count(&p->drains);
    return 0;
}

#if defined(__x86_64__)
__attribute__((target("clwb"))) static void flush_clwb(const char *line, const char *end) {
    for (; line < end; line += PML_LINE) _mm_clwb((void *)(uintptr_t)line);
}
__attribute__((target("clflushopt"))) static void flush_clflushopt(const char *line,
                                                                   const char *end) {
    for (; line < end; line += PML_LINE) _mm_clflushopt((void *)(uintptr_t)line);
}
static void flush_clflush(const char *line, const char *end) {
    for (; line < end; line += PML_LINE) _mm_clflush(line);
}
static void (*choose_flush(void))(const char *, const char *) {
    unsigned a, b = 0, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        if (b & (1u << 24)) return flush_clwb;
        if (b & (1u << 23)) return flush_clflushopt;
    }
    return flush_clflush;
}
#elif defined(__aarch64__)
static void flush_cvac(const char *line, const char *end) {
    for (; line < end; line += PML_LINE) __asm__ volatile("dc cvac, %0" ::"r"(line) : "memory");
}
static void (*choose_flush(void))(const char *, const char *) { return flush_cvac; }
#else
static void flush_none(const char *line, const char *end) {
    (void)line;
    (void)end;
}
static void (*choose_flush(void))(const char *, const char *) { return flush_none; }
#endif

static void (*flush_lines)(const char *, const char *);

__attribute__((constructor)) static void choose(void) { flush_lines = choose_flush(); }

static void line_flush(struct pml_persist *p, const void *at, size_t size) {
    uintptr_t first = (uintptr_t)at & ~(uintptr_t)(PML_LINE - 1);
    flush_lines((const char *)first, (const char *)at + size);
    count(&p->flushes);
}

static int line_drain(struct pml_persist *p) {
#if defined(__aarch64__)
    __asm__ volatile("dsb ish" ::: "memory");
#else
    store_fence();
#endif
    count(&p->drains);
    return 0;
}

static int page_drain(struct pml_persist *p) {
    count(&p->drains);
    for (int i = 0; i < 2; i++)
        if (p->fds[i] >= 0)
            while (fdatasync(p->fds[i]) != 0)
                if (errno != EINTR) return errno;
    return 0;
}

static const struct pml_ops emulated_ops = {plain_copy, plain_set, plain_flush, order_drain};
static const struct pml_ops eadr_ops = {plain_copy, plain_set, plain_flush, fence_drain};
static const struct pml_ops adr_ops = {plain_copy, plain_set, line_flush, line_drain};
static const struct pml_ops page_ops = {plain_copy, plain_set, plain_flush, page_drain};

void pml_persist_init(struct pml_persist *p, uint32_t domain, int fd0, int fd1) {
    static const struct pml_ops *const by_domain[] = {
        [PML_DOMAIN_AUTO] = &page_ops, [PML_DOMAIN_EMULATED] = &emulated_ops,
        [PML_DOMAIN_EADR] = &eadr_ops, [PML_DOMAIN_ADR] = &adr_ops,
        [PML_DOMAIN_PAGE] = &page_ops,
    };
    p->ops = by_domain[domain <= PML_DOMAIN_PAGE ? domain : PML_DOMAIN_PAGE];
    p->fds[0] = fd0;
    p->fds[1] = fd1;
}

/* ---- libpmemobj, through the pointers that the binding found ---- */

static void pmemobj_flush_range(struct pml_persist *p, const void *at, size_t size) {
    void (*flush)(void *, const void *, size_t);
    memcpy(&flush, &p->pmemobj->flush_fn, sizeof flush);
    flush(p->pmemobj->pool, at, size);
    count(&p->flushes);
}

static int pmemobj_wait(struct pml_persist *p) {
    void (*drain)(void *);
    memcpy(&drain, &p->pmemobj->drain_fn, sizeof drain);
    drain(p->pmemobj->pool);
    count(&p->drains);
    return 0;
}

/* Plain stores, then one flush of a merged range: off persistent memory every flush is an msync. */
static const struct pml_ops pmemobj_ops = {plain_copy, plain_set, pmemobj_flush_range,
                                           pmemobj_wait};

void pml_persist_init_pmemobj(struct pml_persist *p, const struct pml_pmemobj_api *api) {
    p->ops = &pmemobj_ops;
    p->fds[0] = p->fds[1] = -1;
    p->pmemobj = api;
}

/* A mark is metadata: it changes in a transaction of libpmemobj, all of it in this one call,
 * because a transaction that another thread ends, or a call outside of one, aborts the process.
 * With "failure behaviour return" a failed call leaves the stage as it was: a commit after it would
 * keep the change without undo, so a failure must abort, and every begin has its end. */
int pml_pmemobj_store_tx(const struct pml_pmemobj_api *api, void *dst, const void *src,
                         size_t size) {
    int (*begin)(void *, void *, ...);
    void (*set_failure_behavior)(int);
    int (*add)(const void *, size_t);
    void (*commit)(void);
    void (*abort_tx)(int);
    int (*end)(void);
    memcpy(&begin, &api->tx_begin_fn, sizeof begin);
    memcpy(&set_failure_behavior, &api->tx_set_failure_behavior_fn, sizeof set_failure_behavior);
    memcpy(&add, &api->tx_add_range_direct_fn, sizeof add);
    memcpy(&commit, &api->tx_commit_fn, sizeof commit);
    memcpy(&abort_tx, &api->tx_abort_fn, sizeof abort_tx);
    memcpy(&end, &api->tx_end_fn, sizeof end);
    int status = begin(api->pool, NULL, 0 /* TX_PARAM_NONE */);
    if (status == 0) {
        set_failure_behavior(1 /* POBJ_TX_FAILURE_RETURN */);
        status = add(dst, size);
        if (status == 0) {
            memcpy(dst, src, size);
            commit();
        } else {
            abort_tx(status);
        }
    }
    int ended = end();
    return status ? status : ended;
}

/* ---- what the file system under a file gives ---- */

static bool caches_are_persistent(void) {
    /* The kernel names the domain for every region; one that is less decides. */
    static const char *const form = "/sys/bus/nd/devices/region%d/persistence_domain";
    bool any = false;
    for (int i = 0; i < 64; i++) {
        char path[96], word[32] = {0};
        snprintf(path, sizeof path, form, i);
        FILE *file = fopen(path, "re");
        if (!file) continue;
        bool all = fgets(word, sizeof word, file) && !strncmp(word, "cpu_cache", 9);
        fclose(file);
        if (!all) return false;
        any = true;
    }
    return any;
}

uint32_t pml_domain_detect(int fd) {
    struct statfs fs;
    if (fstatfs(fd, &fs) == 0 &&
        ((unsigned long)fs.f_type == TMPFS_MAGIC || (unsigned long)fs.f_type == RAMFS_MAGIC))
        return PML_DOMAIN_EMULATED;
#if defined(MAP_SYNC) && defined(MAP_SHARED_VALIDATE)
    long unit = sysconf(_SC_PAGESIZE);
    void *at = mmap(NULL, (size_t)unit, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
    if (at != MAP_FAILED) {
        munmap(at, (size_t)unit);
        return caches_are_persistent() ? PML_DOMAIN_EADR : PML_DOMAIN_ADR;
    }
#endif
    return PML_DOMAIN_PAGE;
}
