/*
 * What the engine's modules share.  Nothing here crosses the binding.
 *
 * Lock order: tx lock, then checkpoint mutex, then sync mutex.  The checkpointer takes the tx lock
 * by trying only, so it never waits for a transaction while it holds the checkpoint mutex.
 */
#ifndef PML_INTERNAL_H
#define PML_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/types.h>

#include "canary.h"
#include "pml.h"

#define PML_LIKELY(x) __builtin_expect(!!(x), 1)
#define PML_UNLIKELY(x) __builtin_expect(!!(x), 0)

#ifndef PML_MIN_RING /* the crash tests' build has both smaller: their images are many */
#define PML_MIN_IMAGE (1ull << 20)
#define PML_MIN_RING (256ull << 10)
#endif
#define PML_MAX_RING (1ull << 40)
#define PML_MAX_IMAGE (1ull << 46)
#define PML_KEY_MAX (64ull << 10)
#define PML_NAME_MAX 255u
#define PML_CHECKPOINT_IDLE_MS 200u   /* quiet time after which the image is brought up to date */
#define PML_RELEASE_IDLE_MS 700u      /* further quiet time after which clean pages are given back */
#define PML_STAGE_BYTES 16384u        /* small ranges gather here, so that a small record is one copy */
#define PML_SEEN 256u                 /* slots of the cache that finds ranges noted twice */
#define PML_READ_ATTEMPTS 100000u     /* of a reader that the writer overtakes again and again */
#define PML_PROMPT_BYTES 65536u       /* what an operation that waits for nobody may take of the ring */
#define PML_GARBAGE_STEP 1024u        /* pieces of dropped containers freed by one clear or drop */

/* ---- persist.c: the seam.  All bytes of image, log, sums and marks go through these. ---- */
struct pml_persist;

struct pml_ops {
    void (*copy)(struct pml_persist *p, void *dst, const void *src, size_t size);
    void (*set)(struct pml_persist *p, void *dst, int byte, size_t size);
    void (*flush)(struct pml_persist *p, const void *at, size_t size);
    int (*drain)(struct pml_persist *p); /* 0, or an errno */
};

struct pml_persist {
    const struct pml_ops *ops;
    int fds[2];               /* domain page: what drain syncs; -1: none */
    const struct pml_pmemobj_api *pmemobj;
    struct pml_tape *tape;    /* recorded, then: … */
    struct pml_pool *pool;
    const struct pml_ops *below; /* what the recording table passes every call on to */
    _Atomic uint64_t flushes;
    _Atomic uint64_t drains;
};

void pml_persist_init(struct pml_persist *p, uint32_t domain, int fd0, int fd1);
void pml_persist_init_pmemobj(struct pml_persist *p, const struct pml_pmemobj_api *api);
int pml_pmemobj_store_tx(const struct pml_pmemobj_api *api, void *dst, const void *src, size_t size);
uint32_t pml_domain_detect(int fd);
/* ---- tape.c: recording ---- */
void pml_tape_attach(struct pml_pool *pool);
int pml_tape_room(struct pml_pool *pool);
void pml_tape_grown(struct pml_pool *pool);

static inline void pml_put(struct pml_persist *p, void *dst, const void *src, size_t size) {
    p->ops->copy(p, dst, src, size);
}

/* ---- errors ---- */
struct pml_detail *pml_detail_new(int status);
int pml_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int pml_fail_errno(int status, int os_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int pml_fail_io(int os_errno, const char *what); /* PML_E_MEDIUM, whatever the errno */
int pml_fail_corrupt(const char *file, uint64_t lsn, uint64_t offset, uint64_t expected,
                     uint64_t found, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* ---- lock.c: a futex lock that is owned by a transaction and may be released by any thread ---- */
struct pml_lock {
    _Atomic uint32_t state;   /* 0 free, 1 held, 2 held and somebody waits */
};
bool pml_lock_try(struct pml_lock *lock);
bool pml_lock_take(struct pml_lock *lock, uint32_t timeout_ms);
void pml_lock_give(struct pml_lock *lock);
void pml_futex_wake(_Atomic uint32_t *word);
int pml_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ms);
extern _Thread_local uint64_t pml_thread_number;
extern _Thread_local bool pml_is_prompt; /* the calling thread must not wait for a lock */
uint64_t pml_thread_number_new(void);
static inline uint64_t pml_thread_id(void) {
    return PML_LIKELY(pml_thread_number) ? pml_thread_number : pml_thread_number_new();
}
extern _Atomic uint32_t pml_fork_generation;
void pml_forget_after_fork(struct pml_pool *pool); /* the child must not keep the writer's lock */
void pml_forget_no_longer(struct pml_pool *pool);

/* ---- a transaction ---- */
struct pml_note {             /* a range that goes into the record */
    uint64_t offset;
    uint64_t length;          /* as struct pml_range: kind in the high byte */
};
struct pml_undo {             /* old bytes of a range; fresh: it was free space and is zeroed */
    uint64_t offset;
    uint64_t length;
    uint64_t at;              /* in the arena; PML_FRESH: none */
};
#define PML_FRESH UINT64_MAX
struct pml_seen {
    uint64_t offset;
    uint64_t length;
    uint64_t generation;      /* of the transaction */
    uint64_t undo_generation; /* of the savepoint or operation */
};
/* where a transaction stood: a savepoint, or the begin of one operation */
struct pml_point {
    size_t notes, undo, frees;
    uint64_t record_bytes;
    uint64_t last_length;     /* of the last note: a later range may be joined to it */
};
struct pml_tx {
    uint64_t id;              /* 0: none open */
    bool explicit_;           /* opened by pml_tx_begin, not by one operation */
    bool catalog_changed;
    struct pml_note *notes;
    size_t note_count, note_capacity;
    struct pml_undo *undo;
    size_t undo_count, undo_capacity;
    char *arena;
    size_t arena_size, arena_capacity;
    uint64_t *frees;          /* payload offsets; carried out at commit */
    size_t free_count, free_capacity;
    uint64_t record_bytes;    /* upper bound of the record's length */
    uint64_t generation;
    uint64_t undo_generation;
    struct pml_seen seen[PML_SEEN];
    struct pml_point *savepoints;
    size_t savepoint_count, savepoint_capacity;
};

struct pml_chain {            /* where a log stands: what the next record must continue */
    uint64_t lsn;
    uint64_t txn;
    uint64_t session;
    uint32_t epoch;
    uint32_t checksum;
};
struct pml_copy {             /* of records, out of the writer's reach */
    char *data;
    size_t capacity;
};
struct pml_map {              /* address space reserved for a file that grows in place */
    char *base;
    uint64_t reserved;
    uint64_t mapped;
    bool sync;                /* direct access: the file system keeps block allocations durable too */
};

struct pml_pool {
    /* read by every operation */
    struct pml_lock lock;
    _Atomic uint64_t owner;   /* pml_thread_id() of the transaction's thread; 0: none */
    uint32_t fork_generation;
    bool read_only;
    bool closed;
    _Atomic int poison;       /* 0, or the status that every call answers */
    char *image;              /* working image: private mapping */
    uint64_t image_bytes;     /* as the working image's heap header says, once open */
    uint64_t *stamps;         /* per page; 0: not verified; else LSN | 1 of its last change */
    uint64_t catalog_generation;
    uint64_t rollbacks;
    struct pml_tx tx;
    uint64_t tx_next;
    uint64_t allocations;     /* since open */
    uint64_t allocations_reclaimed; /* of them, those that dropped containers have been freed for */

    /* log */
    char *ring;               /* mapped twice in a row: a record never wraps */
    uint64_t ring_bytes;
    uint64_t lsn_tail;        /* end of the last record */
    uint64_t lsn_received;    /* replica: end of the bytes behind it, perhaps inside a record */
    uint32_t promote_epoch;   /* PML_OPEN_PROMOTE: the epoch that begins; 0: the next */
    bool rebuilding;          /* replica: from before its first block until it is whole again */
    uint64_t control_session; /* what control.session says: changes whenever the log is not continued */
    uint64_t ring_limit;      /* the tail may go up to here */
    uint64_t record_max;
    _Atomic uint64_t checkpoint_at; /* wake the checkpointer when the tail passes this */
    uint32_t chain;           /* checksum of the last record */
    uint32_t salt;            /* of the records' checksums */
    uint32_t epoch;
    uint64_t txn;
    uint64_t session;
    struct pml_persist log;
    char *stage;
    _Atomic uint64_t lsn_durable;
    uint64_t commits;

    /* image */
    struct pml_persist store;
    struct pml_map work;      /* private */
    struct pml_map shared;    /* shared: the image itself */
    struct pml_map sums;      /* shared */
    struct pml_map stamp_map;
    uint64_t image_offset;    /* of the image in its file (pmemobj) */
    uint64_t sums_offset;
    uint64_t file_bytes;      /* of the image, reserved on the file system */
    uint64_t max_bytes;
    uint64_t *dirty;          /* bitmap of pages applied since the last mark */
    struct pml_map dirty_map;

    /* checkpoint */
    pthread_mutex_t checkpoint_mutex;
    pthread_cond_t checkpoint_wake;
    pthread_t thread;
    bool thread_runs;
    bool ended;               /* under checkpoint_mutex: the clean mark is written */
    bool stop;                /* under checkpoint_mutex */
    bool checkpoint_asked;
    _Atomic uint64_t lsn_checkpoint;
    struct pml_mark mark;     /* the last one written */
    bool image_settled;       /* no checkpoint was cut short since that mark */
    uint64_t checkpoints;
    uint64_t pages_released;

    /* group commit (domain page) */
    pthread_mutex_t sync_mutex;
    pthread_cond_t sync_done;
    bool syncing;
    uint64_t lsn_appended;    /* under sync_mutex: what a sync may cover */
    uint64_t txn_appended;

    /* follower (read-only) */
    struct pml_chain followed; /* up to where the working image is */
    struct pml_copy copy;
    uint8_t boot_id[16];
    uint64_t session_seen;
    uint64_t refreshes;
    uint64_t lsn_released;    /* lsn_checkpoint when private copies were last given back */
    bool live;                /* control was written under this boot */

    /* files */
    int dir_fd, lock_fd, image_fd, log_fd, sums_fd, control_fd;
    struct pml_control *control;
    bool control_writable;
    _Atomic uint64_t delay_owed_ns; /* of the backlog's delays, what was too short to sleep for */
    uint32_t domain;
    uint32_t domain_detected;
    uint32_t flags;
    uint64_t recovered_records;
    struct pml_image_header header;
    struct pml_container *containers;
    struct pml_container *catalog;
    struct pml_pmemobj_api pmemobj;
    bool has_pmemobj;
    struct pml_pool *next_open; /* list for the fork handler */
};

struct pml_container {
    struct pml_pool *pool;
    struct pml_container *next;
    uint32_t type;
    uint32_t name_bytes;
    uint64_t root;            /* offset */
    uint64_t catalog_generation;
    uint64_t changes;         /* structural changes, for cursors; volatile */
    uint64_t changed_in;      /* id of the transaction that changed it last */
    char name[PML_NAME_MAX + 1];
};

/* ---- op brackets (tx.c) ---- */
struct pml_op {
    struct pml_pool *pool;
    struct pml_point point;
    bool automatic;           /* a transaction of its own */
};
int pml_op_begin(struct pml_pool *pool, struct pml_op *op);
int pml_op_end(struct pml_op *op, int status);
int pml_view_begin(struct pml_pool *pool, bool *locked);
int pml_view_end(struct pml_pool *pool, bool locked, int status);
#define PML_VIEW_AGAIN(pool, status) ((pool)->read_only && (status) == PML_E_AGAIN)

int pml_note(struct pml_pool *pool, uint64_t offset, uint64_t length);       /* about to change */
int pml_note_fresh(struct pml_pool *pool, uint64_t offset, uint64_t length); /* free until now */
int pml_note_zero(struct pml_pool *pool, uint64_t offset, uint64_t length);  /* fresh, all zero */
int pml_note_undo_only(struct pml_pool *pool, uint64_t offset, uint64_t length);
int pml_note_grow(struct pml_pool *pool, uint64_t bytes);
int pml_tx_defer_free(struct pml_pool *pool, uint64_t payload);
int pml_poison(struct pml_pool *pool, int status);
int pml_alive(struct pml_pool *pool);
int pml_tx_init(struct pml_pool *pool);
void pml_tx_destroy(struct pml_pool *pool);

/* note, then store one word of the working image */
int pml_store64(struct pml_pool *pool, uint64_t offset, uint64_t value);

/* ---- access to the working image: bounds, then page checksums ---- */
int pml_verify_pages(struct pml_pool *pool, uint64_t offset, uint64_t size);
static inline void *pml_ptr(struct pml_pool *pool, uint64_t offset) { return pool->image + offset; }
static inline bool pml_in_body(const struct pml_pool *pool, uint64_t offset, uint64_t size) {
    return offset >= PML_BODY_OFFSET && size <= pool->image_bytes &&
           offset <= pool->image_bytes - size;
}
/* PML_OK when [offset, offset + size) may be read */
static inline int pml_reach(struct pml_pool *pool, uint64_t offset, uint64_t size) {
    if (PML_UNLIKELY(!pml_in_body(pool, offset, size) || (offset & 7)))
        return pml_fail_corrupt("image", 0, offset, size, pool->image_bytes,
                                "an offset points outside the image or is not aligned");
    uint64_t first = offset / PML_PAGE, last = (offset + size - 1) / PML_PAGE;
    if (PML_LIKELY(size && first == last && pool->stamps[first])) return PML_OK;
    return pml_verify_pages(pool, offset, size);
}

/* ---- log.c ---- */
int pml_log_append(struct pml_pool *pool, const struct pml_note *notes, size_t count, uint32_t kind);
int pml_log_space(struct pml_pool *pool, uint64_t bytes);
int pml_log_sync(struct pml_pool *pool, uint64_t lsn);
void pml_log_publish(struct pml_pool *pool, uint64_t lsn, uint64_t txn);
uint64_t pml_log_reclaim(struct pml_pool *pool, bool required_only);
/* the record at chain->lsn: PML_END_* when there is none that continues the chain, else -1 */
int pml_log_peek(const char *ring, uint64_t ring_bytes, uint32_t salt,
                 const struct pml_chain *chain, const struct pml_record **out);
int pml_log_judge(const struct pml_record *record, uint64_t ring_bytes, uint32_t salt,
                  const struct pml_chain *chain);
/* the same beside a writer, who may lap the ring meanwhile: judged is a copy, made at `at` in `copy`.
 * PML_OK, and in `end` what pml_log_peek answers; or PML_E_MEMORY */
int pml_log_copy(const char *ring, uint64_t ring_bytes, uint32_t salt,
                 const struct pml_chain *chain, struct pml_copy *copy, size_t at, int *end);
bool pml_shipper_lives(const struct pml_control *control); /* its words still count */
uint64_t pml_monotonic_ns(void);
uint32_t pml_log_salt(const struct pml_image_header *header);
uint32_t pml_record_sum(const struct pml_record *record, uint64_t length, uint32_t salt);
void pml_chain_advance(struct pml_chain *chain, const struct pml_record *record);
/* the greatest lsn_durable that any self-consistent record behind a break vouches for */
uint64_t pml_log_hint(const char *ring, uint64_t ring_bytes, uint32_t salt,
                      const struct pml_chain *chain);
int pml_record_ranges_valid(const struct pml_record *record, uint64_t image_bytes,
                            uint64_t *image_bytes_after);

/* ---- apply.c ---- */
int pml_checkpoint_locked(struct pml_pool *pool, uint64_t target, bool clean);
int pml_mark_write(struct pml_pool *pool, const struct pml_mark *mark);
bool pml_mark_valid(const struct pml_image_header *header, const struct pml_mark *mark);
int pml_marks_read(const char *image, const struct pml_image_header *header, struct pml_mark *best,
                   int *valid_count);
int pml_checkpointer_start(struct pml_pool *pool);
void pml_checkpointer_stop(struct pml_pool *pool);
uint32_t pml_page_sum(const void *page);
void pml_store_pages(struct pml_pool *pool, uint64_t offset, const char *data, size_t size);
int pml_verify_page(struct pml_pool *pool, uint64_t page);
void pml_checkpoint_nudge(struct pml_pool *pool, uint64_t durable);
uint64_t pml_release_run(struct pml_pool *pool, uint64_t from, uint64_t end, uint64_t limit);

/* ---- recover.c ---- */
int pml_recover(struct pml_pool *pool);
int pml_read_marks(struct pml_pool *pool, struct pml_mark *mark, int *count);
int pml_follow_start(struct pml_pool *pool);
int pml_follow(struct pml_pool *pool);
bool pml_writer_came(struct pml_pool *pool); /* a writer of this boot, since we last looked */
bool pml_follow_stable(struct pml_pool *pool); /* nothing looked at since pml_follow has moved */

/* ---- medium.c: files, maps, growth ---- */
int pml_map_reserve(struct pml_map *map, uint64_t bytes);
int pml_map_extend(struct pml_map *map, uint64_t bytes, int fd, uint64_t offset, bool shared,
                   bool writable);
int pml_map_anonymous(struct pml_map *map, uint64_t bytes);
void pml_map_release(struct pml_map *map);
int pml_reserve_space(int fd, uint64_t offset, uint64_t size, const char *file);
int pml_medium_grow(struct pml_pool *pool, uint64_t bytes);
int pml_medium_create(struct pml_pool *pool, const char *path, const struct pml_options *options);
int pml_medium_open(struct pml_pool *pool, const char *path, const struct pml_options *options);
int pml_medium_lock(struct pml_pool *pool);
bool pml_lock_is_free(struct pml_pool *pool);
void pml_medium_unmap(struct pml_pool *pool);
int pml_reserve_holes(int fd, uint64_t offset, uint64_t size, const char *file);
void pml_medium_close(struct pml_pool *pool, bool keep_work);
int pml_control_open(struct pml_pool *pool);
void pml_boot_id(uint8_t out[16]);
int pml_full_write(int fd, const void *data, size_t size);

/* ---- heap.c ---- */
#define PML_HEAP_AT PML_BODY_OFFSET
#define PML_HEAP_FIRST (PML_BODY_OFFSET + ((sizeof(struct pml_heap) + 15) & ~15ull) + 8)
static inline struct pml_heap *pml_heap(struct pml_pool *pool) {
    return (struct pml_heap *)(void *)(pool->image + PML_HEAP_AT);
}
int pml_heap_format(struct pml_pool *pool);
int pml_alloc(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload);
int pml_alloc_raw(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload);
int pml_alloc_zeroed(struct pml_pool *pool, uint64_t size, uint32_t kind, uint64_t *payload);
int pml_free_now(struct pml_pool *pool, uint64_t payload);
uint64_t pml_payload_bytes(struct pml_pool *pool, uint64_t payload);
uint64_t pml_free_cost(void); /* bytes of record that one free may take */

/* ---- containers ---- */
int pml_container_resolve(struct pml_container *c);
int pml_catalog_format(struct pml_pool *pool);
int pml_catalog_attach(struct pml_pool *pool);
void pml_container_changed(struct pml_container *c);
int pml_garbage_add(struct pml_pool *pool, uint64_t root);
int pml_garbage_step(struct pml_pool *pool, uint32_t pieces);
int pml_dict_make(struct pml_pool *pool, uint64_t *root);
int pml_deque_make(struct pml_pool *pool, uint64_t *root);
int pml_bytes_make(struct pml_pool *pool, uint32_t type, uint64_t size, const char *descr,
                   size_t descr_bytes, uint64_t *root);
/* frees up to `pieces` of a dropped container; *left: how many of them were not needed */
int pml_dict_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left);
int pml_deque_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left);
int pml_bytes_free_some(struct pml_pool *pool, uint64_t root, uint32_t *left);
/* a dict whose lock and resolution the caller has done */
int pml_dict_find(struct pml_pool *pool, uint64_t root, const char *key, uint64_t key_word,
                  uint64_t *entry);
int pml_dict_put(struct pml_container *c, const char *key, uint64_t key_word, const char *value,
                 uint64_t value_word);
int pml_dict_remove(struct pml_container *c, uint64_t entry);
int pml_dict_entry_at(struct pml_pool *pool, uint64_t at, struct pml_dict_entry *out);
static inline char *pml_entry_key(struct pml_pool *pool, uint64_t at) {
    return (char *)pml_ptr(pool, at) + sizeof(struct pml_dict_entry);
}
static inline char *pml_entry_value(struct pml_pool *pool, uint64_t at,
                                    const struct pml_dict_entry *e) {
    return pml_entry_key(pool, at) + ((PML_VALUE_BYTES(e->key) + 7) & ~7ull);
}

/* ---- check: walks ---- */
struct pml_walk {
    struct pml_pool *pool;
    struct pml_heap heap;     /* as it was when the walk began */
    struct pml_fault *faults;
    size_t capacity;
    size_t count;             /* of all faults, also those that did not fit */
    uint64_t *unreached;      /* bitmap, a bit per 16 bytes of the image: used blocks not met yet */
    bool garbage;             /* a dropped container, perhaps half freed */
};
void pml_fault_add(struct pml_walk *w, int code, const char *file, uint64_t offset,
                   uint64_t expected, uint64_t found, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
bool pml_walk_block(struct pml_walk *w, uint64_t payload, uint64_t size, uint32_t kind);
void pml_dict_walk(struct pml_walk *w, uint64_t root, const char *name);
void pml_deque_walk(struct pml_walk *w, uint64_t root, const char *name);
void pml_bytes_walk(struct pml_walk *w, uint64_t root, const char *name);

static inline uint64_t pml_round_up(uint64_t value, uint64_t unit) {
    return (value + unit - 1) / unit * unit;
}
static inline uint64_t pml_min64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint32_t pml_max32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline uint64_t pml_max64(uint64_t a, uint64_t b) { return a > b ? a : b; }

#endif
