/*
 * The C API of the engine.
 *
 * Every function answers a status (enum pml_status) or, where it returns a size, a negative status.
 * pml_error() explains the calling thread's last failure.  Functions may be called from any thread;
 * one transaction is open at a time, and the thread that began it owns the pool until it ends.
 * A call that would have to wait longer than PML_WAIT_SLICE_MS for another thread's transaction
 * answers PML_E_BUSY with nothing changed, so that the caller can look at its signals and try again.
 *
 * Keys and values are passed as (pointer, word) where word = length << 8 | enum pml_kind.
 */
#ifndef PML_H
#define PML_H

#include "layout.h"

/* cdef: begin */
#define PML_WAIT_SLICE_MS 50
#define PML_SHIPPER_SILENCE_MS 5000 /* a shipper that has said nothing for so long is gone */
#define PML_MISSING_WORD 0 /* in place of a value's word: there is no such key */

enum pml_status {
    PML_OK = 0,
    PML_E_CLOSED = -1,        /* the pool or the tail is closed */
    PML_E_FORKED = -2,        /* the handle was opened by the parent process */
    PML_E_READ_ONLY = -3,
    PML_E_LOCKED = -4,        /* another process or handle writes this pool */
    PML_E_NOT_FOUND = -5,     /* no pool there */
    PML_E_EXISTS = -6,        /* there is one already, and a new one was asked for */
    PML_E_TOO_LARGE = -7,     /* the transaction does not fit the log */
    PML_E_ARGUMENT = -8,      /* caller's mistake: the detail says which */
    PML_E_LOG_FULL = -9,      /* a consumer pins the ring */
    PML_E_POOL_FULL = -10,    /* max_size reached, or no room on the file system */
    PML_E_MEDIUM = -11,       /* I/O failed; the handle is poisoned */
    PML_E_CORRUPT = -12,      /* bytes that no crash explains */
    PML_E_FORMAT = -13,       /* not a pool, or of a version that cannot be read */
    PML_E_FROZEN = -14,       /* power loss: no more commits */
    PML_E_INVARIANT = -15,    /* our bug; the handle is poisoned */
    PML_E_MISSING = -16,      /* no such key, index or name */
    PML_E_BUSY = -17,         /* another thread's transaction is open */
    PML_E_TYPE = -18,         /* the name belongs to another type of container */
    PML_E_DROPPED = -19,      /* the container was dropped, or its creation was undone */
    PML_E_STALE = -20,        /* the cursor's place has changed: seek again */
    PML_E_BUFFER = -21,       /* the caller's buffer is too small; nothing changed */
    PML_E_MEMORY = -22,       /* malloc failed; nothing changed */
    PML_E_NO_TRANSACTION = -23, /* the transaction has ended */
    PML_E_TIMEOUT = -24,
    PML_E_GAP = -25,          /* the log no longer holds that LSN */
    PML_E_FENCED = -26,
    PML_E_PERMISSION = -27,   /* the file system refuses: nothing changed */
    PML_E_AGAIN = -28,        /* internal: a reader was overtaken and must look again */
    PML_E_BEHIND = -29        /* receivers are behind, at the backlog's bound; nothing changed */
};

enum pml_domain {
    PML_DOMAIN_AUTO = 0,
    PML_DOMAIN_EMULATED = 1,
    PML_DOMAIN_EADR = 2,
    PML_DOMAIN_ADR = 3,
    PML_DOMAIN_PAGE = 4
};

enum pml_open_flag {
    PML_OPEN_CREATE = 1,      /* make the pool if there is none */
    PML_OPEN_READ_ONLY = 2,
    PML_OPEN_NO_THREAD = 4,   /* checkpoints only when asked for, or when the ring is short */
    PML_OPEN_NO_VERIFY = 8,   /* do not check page checksums: for the checker, which does it itself */
    PML_OPEN_REPLICA = 16,    /* the log comes from another pool: no transactions */
    PML_OPEN_PROMOTE = 32,    /* a writer's open that begins the next epoch */
    PML_OPEN_REBUILD = 64     /* a replica of which only the headers are believed: for a baseline */
};

/* What a new replica has in common with its primary. */
struct pml_identity {
    uint8_t pool_id[16];
    uint64_t created_ns;
    uint64_t ring_bytes;
    uint64_t hash_seed[2];
};

/* Functions of libpmemobj, as found by the binding: the core does not link it. */
struct pml_pmemobj_api {
    void *pool;               /* PMEMobjpool *: also the address of the pool file's first byte */
    uint64_t image_offset;    /* of the image's first byte in the pool file; page-aligned */
    uint64_t image_bytes_max; /* room there */
    uint64_t sums_offset;     /* of the sums' first byte in the pool file; page-aligned */
    uint64_t sums_bytes_max;
    void *flush_fn;           /* pmemobj_flush */
    void *drain_fn;           /* pmemobj_drain */
    void *tx_begin_fn;        /* pmemobj_tx_begin (variadic) */
    void *tx_set_failure_behavior_fn;
    void *tx_add_range_direct_fn;
    void *tx_commit_fn;
    void *tx_abort_fn;
    void *tx_end_fn;
};

struct pml_options {
    uint64_t size;            /* first size of the image in bytes; a new pool only */
    uint64_t max_size;        /* address space reserved for the image */
    uint64_t log_size;        /* size of the ring; a new pool only */
    uint32_t domain;          /* enum pml_domain */
    uint32_t flags;           /* enum pml_open_flag */
    uint32_t medium;          /* enum pml_medium_kind */
    uint32_t epoch;           /* PML_OPEN_PROMOTE: the one that begins; 0: the next */
    const struct pml_pmemobj_api *pmemobj; /* medium PML_MEDIUM_PMEMOBJ only */
    const struct pml_identity *identity; /* a new replica only; NULL: a pool of its own */
};

struct pml_detail {
    int32_t status;
    int32_t os_errno;         /* 0: not from the operating system */
    int64_t pid;              /* PML_E_LOCKED: of the holder, 0 unknown */
    uint64_t lsn;             /* PML_E_CORRUPT in the log */
    uint64_t offset;
    uint64_t expected;
    uint64_t found;
    char file[16];            /* "image", "log", "sums", "control", "" */
    char text[200];           /* one sentence in English */
};

struct pml_position {
    uint64_t lsn;
    uint32_t epoch;
    uint32_t chain;
    uint64_t txn;
};

struct pml_info {
    uint8_t pool_id[16];
    uint64_t created_ns;
    uint32_t version;
    uint32_t medium;
    uint32_t domain;          /* in use */
    uint32_t domain_detected;
    uint32_t read_only;
    int32_t poisoned;         /* 0 or the status that every call answers */
    uint32_t epoch;
    uint32_t frozen;
    uint64_t session;
    uint64_t image_bytes;
    uint64_t max_bytes;
    uint64_t ring_bytes;
    uint64_t ring_used_bytes; /* from the oldest byte that may not be overwritten to the end */
    uint64_t lsn_checkpoint;
    uint64_t lsn_durable;
    uint64_t lsn_committed;   /* end of the last record; >= lsn_durable in domain page */
    uint64_t txn;
    uint64_t heap_used_bytes;
    uint64_t heap_used_blocks;
    uint64_t heap_top;
    uint64_t commits;         /* since open */
    uint64_t drains;          /* of the log since open */
    uint64_t drains_image;    /* of image, sums and marks since open */
    uint64_t flushes;
    uint64_t checkpoints;
    uint64_t pages_released;  /* private copies given back since open */
    uint64_t tx_record_max;   /* bytes: the greatest record */
    uint64_t recovered_records; /* replayed at open */
    uint64_t refreshes;       /* read-only: how often it caught up */
    uint64_t delay_ns;        /* what a transaction waits; these three: 0 without a shipper */
    uint64_t lsn_limit;       /* no transaction begins once the log ends here; 0: no bound */
    uint64_t backlog_limit_bytes; /* what receivers may lack; 0: no bound */
};

struct pml_fault {
    int32_t code;             /* enum pml_fault_code */
    uint32_t reserved;
    uint64_t offset;          /* in the file; log faults: the LSN */
    uint64_t expected;
    uint64_t found;
    char file[16];
    char text[160];
};

enum pml_fault_code {
    PML_FAULT_PAGE = 1,       /* a page does not match its checksum */
    PML_FAULT_HEAP = 2,       /* the allocator's words contradict each other */
    PML_FAULT_STRUCTURE = 3,  /* a container's words contradict each other */
    PML_FAULT_LEAK = 4        /* a used block that nothing points at */
};

struct pml_cursor {
    uint64_t at;              /* next entry or item; 0 with started: the end */
    uint64_t changes;         /* the container's change count when `at` was noted */
    uint64_t need;            /* PML_E_BUFFER: bytes that the next entry takes */
    uint32_t started;
    uint32_t reverse;
};

enum pml_scan_what { PML_SCAN_KEYS = 1, PML_SCAN_VALUES = 2 };

/* What recovery found (pure input) and what it decides: docs/recovery.md. */
enum pml_found_marks { PML_MARKS_NONE = 0, PML_MARKS_ONE = 1, PML_MARKS_BOTH = 2 };
enum pml_found_end {
    PML_END_NOTHING = 0,      /* no record magic where the next record should be */
    PML_END_STALE = 1,        /* a record of an earlier lap, session or history */
    PML_END_TORN = 2,         /* the right LSN, but the checksum fails */
    PML_END_LATER_LAP = 3     /* a record of a later lap: the mark is too old */
};
enum pml_decision {
    PML_DECIDE_CLEAN = 0,     /* nothing to replay */
    PML_DECIDE_REPLAY = 1,
    PML_DECIDE_CORRUPT_MARKS = 2,
    PML_DECIDE_CORRUPT_LOG = 3
};

struct pml_pool;
struct pml_container;
struct pml_tail;

const struct pml_detail *pml_error(void);
const char *pml_status_name(int status);
uint32_t pml_crc32c(uint32_t seed, const void *data, size_t size);
uint32_t pml_crc32c_portable(uint32_t seed, const void *data, size_t size);
uint64_t pml_siphash13(const uint64_t key[2], const void *data, size_t size, uint32_t kind);
int pml_recover_decide(int marks, int clean, int records, int end, int below_durable);

/* pool.c */
int pml_open(const char *path, const struct pml_options *options, struct pml_pool **out);
int pml_close(struct pml_pool *pool);          /* checkpoints, marks clean, unlocks */
int pml_abandon(struct pml_pool *pool);        /* lets go as a killed process would */
void pml_free(struct pml_pool *pool);          /* after close: unmaps the working image */
char *pml_base(struct pml_pool *pool);         /* the working image; valid until pml_free */
int pml_info(struct pml_pool *pool, struct pml_info *out);
int pml_position(struct pml_pool *pool, struct pml_position *out);
int pml_checkpoint(struct pml_pool *pool);
int pml_release_pages(struct pml_pool *pool, uint64_t *released); /* clean private copies */
int pml_refresh(struct pml_pool *pool);        /* read-only: catch up with the writer */
int pml_read_begin(struct pml_pool *pool);     /* a stable view for several raw reads … */
int pml_read_end(struct pml_pool *pool);       /* … PML_E_AGAIN: it was not stable, do it again */
int pml_verify(struct pml_pool *pool, uint64_t offset, uint64_t size); /* pages' checksums */
int64_t pml_check(struct pml_pool *pool, struct pml_fault *faults, size_t capacity);
int pml_probe_domain(const char *directory, uint32_t *domain);
int pml_lock_holder(const char *path, int64_t *pid); /* PML_OK: nobody; PML_E_LOCKED: pid */

/* tx.c */
int pml_tx_begin(struct pml_pool *pool, uint64_t *id);
int pml_tx_commit(struct pml_pool *pool, uint64_t id);
int pml_tx_abort(struct pml_pool *pool, uint64_t id);
int64_t pml_tx_savepoint(struct pml_pool *pool, uint64_t id);
int pml_tx_rollback(struct pml_pool *pool, uint64_t id, int64_t savepoint);
int pml_tx_owned(struct pml_pool *pool);       /* 1: the calling thread has one open */
uint64_t pml_tx_rollbacks(struct pml_pool *pool);
/* 1: a small operation of the calling thread, of up to `bytes`, will wait for nobody; until
 * pml_prompt_end it answers PML_E_BUSY rather than wait for a lock.  0: it may wait. */
int pml_prompt_begin(struct pml_pool *pool, uint64_t bytes);
void pml_prompt_end(void);
int pml_sync(struct pml_pool *pool);           /* everything committed is durable on return */

/* catalog.c */
int pml_container_open(struct pml_pool *pool, const char *name, size_t name_bytes, uint32_t type,
                       uint64_t size_bytes, const char *descr, size_t descr_bytes,
                       struct pml_container **out); /* makes it if absent */
void pml_container_free(struct pml_container *c);
int pml_container_drop(struct pml_pool *pool, const char *name, size_t name_bytes);
int64_t pml_container_names(struct pml_pool *pool, struct pml_cursor *cursor, char *buffer,
                            size_t capacity, uint64_t *count); /* as PML_SCAN_KEYS|PML_SCAN_VALUES */

/* dict.c */
int64_t pml_dict_count(struct pml_container *c);
int64_t pml_dict_get(struct pml_container *c, const char *key, uint64_t key_word, char *buffer,
                     size_t capacity); /* value word; bytes are copied if they fit */
int pml_dict_has(struct pml_container *c, const char *key, uint64_t key_word); /* 1, 0 */
int pml_dict_set(struct pml_container *c, const char *key, uint64_t key_word, const char *value,
                 uint64_t value_word);
int pml_dict_delete(struct pml_container *c, const char *key, uint64_t key_word);
int64_t pml_dict_pop(struct pml_container *c, const char *key, uint64_t key_word, char *buffer,
                     size_t capacity); /* value word; if it did not fit, nothing changed */
int pml_dict_update(struct pml_container *c, size_t count, const char *keys,
                    const uint64_t *key_words, const char *values, const uint64_t *value_words);
int64_t pml_dict_get_many(struct pml_container *c, size_t count, const char *keys,
                          const uint64_t *key_words, char *buffer, size_t capacity,
                          uint64_t *value_words); /* bytes used; PML_E_BUFFER: too small */
int64_t pml_dict_scan(struct pml_container *c, struct pml_cursor *cursor, uint32_t what,
                      char *buffer, size_t capacity, uint64_t *count);
int pml_dict_seek(struct pml_container *c, struct pml_cursor *cursor, const char *key,
                  uint64_t key_word); /* the cursor goes behind that key */
int pml_dict_clear(struct pml_container *c);

/* deque.c */
int64_t pml_deque_count(struct pml_container *c);
int pml_deque_push(struct pml_container *c, int left, const char *value, uint64_t word);
int pml_deque_extend(struct pml_container *c, int left, size_t count, const char *values,
                     const uint64_t *words);
int64_t pml_deque_pop(struct pml_container *c, int left, char *buffer, size_t capacity);
int64_t pml_deque_get(struct pml_container *c, int64_t index, char *buffer, size_t capacity);
int pml_deque_set(struct pml_container *c, int64_t index, const char *value, uint64_t word);
int pml_deque_insert(struct pml_container *c, int64_t index, const char *value, uint64_t word);
int pml_deque_erase(struct pml_container *c, int64_t index);
int pml_deque_rotate(struct pml_container *c, int64_t steps);
int pml_deque_reverse(struct pml_container *c);
int64_t pml_deque_scan(struct pml_container *c, uint64_t index, int reverse, char *buffer,
                       size_t capacity, uint64_t *count); /* words and bytes from that index */
int pml_deque_clear(struct pml_container *c);

/* bytes.c: array and region */
int pml_bytes_where(struct pml_container *c, uint64_t *offset, uint64_t *size_bytes);
int64_t pml_bytes_descr(struct pml_container *c, char *buffer, size_t capacity);
int pml_bytes_write(struct pml_container *c, uint64_t offset, const char *data, size_t size);
int pml_bytes_read(struct pml_container *c, uint64_t offset, char *buffer, size_t size);
int pml_bytes_add(struct pml_container *c, uint64_t offset, uint64_t size); /* inside a transaction:
                  note the range, then change the working image in place */
int pml_bytes_add_strided(struct pml_container *c, uint64_t offset, uint64_t size, uint64_t stride,
                          uint64_t count);

/* tail.c: the log as another process reads it */
struct pml_tail_record {
    const struct pml_record *record; /* a verified copy, until the tail is used again */
    uint64_t lsn_next;
};

int pml_tail_open(const char *path, struct pml_tail **out);
int pml_tail_close(struct pml_tail *tail);
int pml_tail_seek(struct pml_tail *tail, uint64_t lsn); /* 0: lsn_checkpoint */
int pml_tail_next(struct pml_tail *tail, struct pml_tail_record *out); /* PML_E_MISSING: at the end */
uint32_t pml_tail_record_sum(struct pml_tail *tail, const char *record, size_t size); /* of a copy */
int pml_tail_wait(struct pml_tail *tail, uint64_t timeout_ms); /* PML_OK or PML_E_TIMEOUT */
int pml_tail_wait_beyond(struct pml_tail *tail, uint64_t lsn, uint64_t timeout_ms); /* any thread */
int pml_tail_mark(struct pml_tail *tail, struct pml_mark *out); /* the checkpoint, as it is now */
int pml_tail_position(struct pml_tail *tail, struct pml_position *out);
const struct pml_control *pml_tail_control(struct pml_tail *tail);
int pml_tail_header(struct pml_tail *tail, uint8_t pool_id[16], uint64_t *ring_bytes);
int pml_slot_claim(struct pml_tail *tail, const char *name, uint32_t flags);  /* its number */
int pml_slot_ack(struct pml_tail *tail, int slot, uint64_t lsn);
int pml_slot_release(struct pml_tail *tail, int slot);  /* no longer pins; forgets it */
/* The whole records from the tail's position on: up to `max` bytes or one record, a verified copy
 * until the tail is used again; the tail moves behind them.  PML_E_MISSING: none. */
int pml_tail_run(struct pml_tail *tail, uint64_t max, const char **data, uint64_t *size);
int pml_tail_identity(struct pml_tail *tail, struct pml_identity *out);
/* what a shipper tells the writer */
struct pml_bound {            /* how far writers may run ahead of receivers */
    uint64_t delay_ns;        /* as in struct pml_control, these three */
    uint64_t lsn_limit;
    uint64_t backlog_limit_bytes;
};
int pml_tail_publish(struct pml_tail *tail, const uint64_t lsn_level[3],
                     const struct pml_bound *bound);
int pml_tail_freeze(struct pml_tail *tail, uint32_t frozen, uint32_t fenced_epoch);
/* and the writer waits for */
int pml_shipper_age(struct pml_pool *pool, uint64_t *age_ns); /* UINT64_MAX: there was none */
int pml_wait_level(struct pml_pool *pool, uint32_t level, uint64_t lsn, uint64_t timeout_ms);

/* tape.c: what a pool stores, flushes and drains, in order; and faults made on purpose */
enum pml_tape_kind {
    PML_TAPE_STORE = 1,
    PML_TAPE_FLUSH = 2,
    PML_TAPE_DRAIN = 3,
    PML_TAPE_GROWN = 4        /* the image's new size is durable, its new bytes are not */
};
enum pml_tape_file { PML_TAPE_LOG = 0, PML_TAPE_IMAGE = 1, PML_TAPE_SUMS = 2 };
struct pml_tape_event {
    uint32_t kind;            /* enum pml_tape_kind */
    uint32_t file;            /* enum pml_tape_file; a drain of IMAGE is one of SUMS too */
    uint64_t offset;          /* in the file */
    uint64_t length;
    uint64_t image_bytes;     /* size of the image's file at this moment */
    uint64_t at;              /* STORE: where its bytes are on the tape */
};
struct pml_tape;

int pml_tape_new(int records, struct pml_tape **out); /* records: 0 for faults only */
void pml_tape_free(struct pml_tape *tape);      /* after the pools that it recorded */
void pml_tape_use(struct pml_tape *tape);       /* what this thread opens from now on; NULL: nothing */
void pml_tape_fail(struct pml_tape *tape, uint32_t file, uint64_t number, int os_errno); /* that drain */
void pml_tape_no_room(struct pml_tape *tape, uint64_t number); /* from that growth of the image on */
int64_t pml_tape_count(struct pml_tape *tape);  /* events; PML_E_MEMORY: some are missing */
const struct pml_tape_event *pml_tape_event(struct pml_tape *tape, uint64_t number);
const char *pml_tape_bytes(struct pml_tape *tape, uint64_t at);

/* replica.c */
int pml_replica_append(struct pml_pool *pool, uint64_t lsn, const char *data, size_t size,
                       struct pml_position *durable); /* lsn: of the first byte; what is durable now */
int pml_replica_restart(struct pml_pool *pool); /* forget the bytes behind the last whole record */
int pml_replica_begin(struct pml_pool *pool); /* of no use to anybody from here … */
int pml_replica_block(struct pml_pool *pool, uint64_t offset, const char *data, size_t size);
int pml_replica_baseline(struct pml_pool *pool, const struct pml_mark *start);
int pml_replica_whole(struct pml_pool *pool); /* … to here: enough of the log is there */
/* cdef: end */

#endif
