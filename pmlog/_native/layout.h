/*
 * What stands on the medium, and nothing else.
 *
 * Byte order is little-endian; every field has an exact width; no struct has implicit padding;
 * reserved fields are zero.  docs/format.md is the specification and a test compares its tables
 * with these structs.  Offsets inside the image count from the first byte of the image file and
 * are never pointers.
 */
#ifndef PML_LAYOUT_H
#define PML_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pmlog's format is little-endian and is read in place"
#endif

/* cdef: begin */
#define PML_FORMAT_VERSION 1
#define PML_LINE 64              /* cache line: records and marks are aligned to it */
#define PML_PAGE 4096            /* unit of image checksums, whatever the kernel's page is */
#define PML_MARK_OFFSET 4096     /* image: first of two mark slots */
#define PML_MARK_STRIDE 4096     /* a page of its own each, so that one torn page spoils one slot */
#define PML_BODY_OFFSET 16384    /* image: from here on bytes change only through the log */
#define PML_RING_OFFSET 65536    /* log: the ring; a multiple of every kernel page size in use */
#define PML_RING_UNIT 65536      /* the ring's size is a multiple of this */
#define PML_LSN_FIRST 4096       /* LSN of the first record of a new pool; 0 means "none" */
#define PML_SUMS_OFFSET 4096     /* sums: one u32 a page of the image */
#define PML_BINS 352
#define PML_BIN_WORDS 6
#define PML_SEGMENTS 48
#define PML_BUCKET_SLOTS 7
#define PML_DEQUE_SLOTS 60
#define PML_SLOTS 16
#define PML_SLOT_NAME 32
#define PML_SESSION_SHIFT 20     /* control.session: the session above, a count of its changes below */

/* image, offset 0: written once, at creation. */
struct pml_image_header {
    uint64_t magic;          /* PML_MAGIC_IMAGE */
    uint32_t version;        /* PML_FORMAT_VERSION */
    uint32_t checksum;       /* CRC-32C of this struct with this field zero */
    uint8_t pool_id[16];     /* random; the same in every file of a pool */
    uint64_t created_ns;     /* Unix time */
    uint64_t ring_bytes;     /* size of the log ring */
    uint64_t hash_seed[2];   /* key of SipHash-1-3 for dict keys */
    uint32_t medium;         /* PML_MEDIUM_* */
    uint32_t reserved0;
    uint64_t reserved[6];
};

/* image, PML_MARK_OFFSET and PML_MARK_OFFSET + PML_MARK_STRIDE: the checkpoint marks. */
struct pml_mark {
    uint32_t magic;          /* PML_MAGIC_MARK */
    uint32_t checksum;       /* CRC-32C of this struct with this field zero, seeded by the pool id */
    uint64_t sequence;       /* the greater of two valid marks rules; slot = sequence & 1 */
    uint64_t lsn_checkpoint; /* every record below it is in the image */
    uint64_t txn;            /* number of the last transaction below lsn_checkpoint; 0: none */
    uint64_t image_bytes;    /* size of the image at lsn_checkpoint */
    uint64_t session;        /* number of the writer's open that wrote this mark */
    uint32_t epoch;          /* number of the primaryship */
    uint32_t chain;          /* checksum of the record that ends at lsn_checkpoint */
    uint32_t flags;          /* PML_MARK_CLEAN: the log ends at lsn_checkpoint; PML_MARK_REPLICA */
    uint32_t reserved;
};

/* log, offset 0: written once, at creation. */
struct pml_log_header {
    uint64_t magic;          /* PML_MAGIC_LOG */
    uint32_t version;        /* PML_FORMAT_VERSION */
    uint32_t checksum;       /* CRC-32C of this struct with this field zero */
    uint8_t pool_id[16];
    uint64_t ring_bytes;
    uint64_t image_offset;   /* of the image's first byte in its file; 0 in medium file */
    uint64_t sums_offset;    /* of the sums' first byte in their file; 0 in medium file */
    uint32_t medium;         /* PML_MEDIUM_*: file: image, sums; pmemobj: image.pmemobj holds both */
    uint32_t reserved;
};

/* log ring, at LSN modulo ring_bytes: one committed transaction. */
struct pml_record {
    uint32_t magic;          /* PML_MAGIC_RECORD */
    uint32_t checksum;       /* CRC-32C of bytes [8, length) seeded with checksum_prev */
    uint64_t lsn;            /* of this record's first byte */
    uint64_t length;         /* header, ranges and padding; a multiple of PML_LINE */
    uint64_t txn;            /* transaction number: predecessor's + 1 */
    uint64_t lsn_durable;    /* everything below it was durable when this record was appended */
    uint64_t session;        /* of the writer's open */
    uint32_t epoch;
    uint32_t checksum_prev;  /* checksum of the record that ends where this one begins */
    uint32_t range_count;
    uint32_t kind;           /* PML_RECORD_* */
};

/* after the record header, range_count times, each followed by its data padded with zeros to 8. */
struct pml_range {
    uint64_t offset;         /* in the image; DATA and ZERO: >= PML_BODY_OFFSET.  GROW: new size */
    uint64_t length;         /* low 56 bits: bytes; high 8 bits: PML_RANGE_* */
};

/* sums, offset 0: checksums of image pages; u32 a page from PML_SUMS_OFFSET. */
struct pml_sums_header {
    uint64_t magic;          /* PML_MAGIC_SUMS */
    uint32_t version;        /* PML_FORMAT_VERSION */
    uint32_t checksum;       /* CRC-32C of this struct with this field zero */
    uint8_t pool_id[16];
    uint64_t reserved[4];
};

/* image, PML_BODY_OFFSET: the heap's header. */
struct pml_heap {
    uint64_t magic;          /* PML_MAGIC_HEAP */
    uint64_t end;            /* committed size of the image */
    uint64_t catalog;        /* offset of the root of the dict of names */
    uint64_t garbage;        /* first dropped container that is not yet freed; 0: none */
    uint64_t top;            /* blocks fill [first block, top) */
    uint64_t zero_from;      /* bytes from here to end have never been written */
    uint64_t used_bytes;     /* sum of the sizes of used blocks */
    uint64_t used_blocks;
    uint64_t bin_map[PML_BIN_WORDS]; /* bit b: bin b is not empty */
    uint64_t reserved[2];
    uint64_t bins[PML_BINS]; /* first free block of each size class; 0: none */
};

/* a heap block: header word, then the payload.
 * header: bit 0 used, bit 1 the block before is free, bits 4..47 size with header, bits 56..63 kind.
 * A free block also ends with its size, so that the block behind it can find its start. */
struct pml_free_block {
    uint64_t header;
    uint64_t next;           /* offset of the next free block of the bin; 0: last */
    uint64_t prev;           /* offset of the one before; 0: first */
};

/* what every container's root begins with. */
struct pml_root {
    uint32_t type;           /* PML_TYPE_* */
    uint32_t reserved;
    uint64_t garbage_next;   /* next dropped container; 0: last, or not dropped */
};

/* dict: linear hashing over segments of buckets; entries linked in order of insertion. */
struct pml_dict_root {
    struct pml_root root;
    uint64_t count;          /* entries */
    uint64_t first;          /* oldest entry; 0: empty */
    uint64_t last;           /* newest entry; 0: empty */
    uint64_t buckets;        /* buckets in use */
    uint64_t segments[PML_SEGMENTS]; /* segment 0: buckets 0..7; segment k: the next 8 << (k - 1) */
};

struct pml_bucket {
    uint64_t slots[PML_BUCKET_SLOTS]; /* low 48 bits: entry's offset, high 16: top bits of its hash */
    uint64_t overflow;       /* offset of a further bucket; 0: none */
};

struct pml_dict_entry {
    uint64_t hash;           /* SipHash-1-3 of the key bytes; key: hash_seed, first half XOR kind */
    uint64_t next;           /* in order of insertion; 0: newest */
    uint64_t prev;           /* 0: oldest */
    uint64_t key;            /* length << 8 | PML_KIND_* ; the bytes follow, padded to 8 */
    uint64_t value;          /* length << 8 | PML_KIND_* ; the bytes follow the key */
};

/* deque: blocks of slots in a doubly linked list, as CPython's. */
struct pml_deque_root {
    struct pml_root root;
    uint64_t count;          /* items */
    uint64_t first_block;    /* 0: empty */
    uint64_t last_block;
    uint32_t first_index;    /* slot of the first item in first_block */
    uint32_t last_index;     /* slot of the last item in last_block */
};

struct pml_deque_block {
    uint64_t next;
    uint64_t prev;
    uint64_t slots[PML_DEQUE_SLOTS]; /* offsets of items */
};

struct pml_item {
    uint64_t value;          /* length << 8 | PML_KIND_* ; the bytes follow */
};

/* array and region: one run of bytes. */
struct pml_bytes_root {
    struct pml_root root;
    uint64_t block;          /* offset of the payload that holds the bytes; 0: none */
    uint64_t data;           /* offset of the first byte, a multiple of PML_LINE */
    uint64_t size_bytes;
    uint64_t descr_bytes;    /* array: length of the description (JSON) that follows this struct */
};

/* one entry of the catalog, as the value of a dict entry. */
struct pml_catalog_value {
    uint32_t type;           /* PML_TYPE_* */
    uint32_t reserved;
    uint64_t root;           /* offset of the container's root */
};

/* control: words that processes share.  Not needed for recovery; slots are durable. */
struct pml_slot {
    char name[PML_SLOT_NAME]; /* NUL-padded; empty: free */
    uint64_t lsn_acked;      /* the ring is not reused from here on */
    uint64_t lsn_received;
    uint64_t lsn_applied;
    uint32_t flags;          /* PML_SLOT_* */
    uint32_t pid;            /* of the holder; 0: none */
    uint64_t reserved[8];
};

struct pml_control {
    uint64_t magic;          /* PML_MAGIC_CONTROL */
    uint32_t version;        /* PML_FORMAT_VERSION */
    uint32_t writer_pid;     /* 0: none */
    uint8_t pool_id[16];
    uint8_t boot_id[16];     /* of the kernel under which the words below were written */
    uint64_t marking;        /* != 0: a checkpoint mark is being written */
    uint64_t reserved0;
    /* written by the writer at each commit: a line of its own */
    uint64_t lsn_durable;    /* end of the durable, valid log */
    uint64_t txn_durable;
    uint32_t wake;           /* futex: changes with every commit */
    uint32_t committing;     /* commits between their look at `frozen` and lsn_durable */
    uint64_t reserved2[5];
    /* written by the writer at checkpoints and opens */
    uint64_t session;        /* session << PML_SESSION_SHIFT, and a count: changes with every open */
    uint64_t lsn_image;      /* the image holds nothing of records from here on */
    uint64_t lsn_checkpoint;
    uint64_t lsn_closed;     /* != 0: closed cleanly, the log ends here */
    uint32_t epoch;
    uint32_t frozen;         /* PML_FROZEN_*: commits are refused */
    uint32_t fenced_epoch;   /* PML_FROZEN_FENCED: the epoch that has taken over */
    uint32_t reserved3;
    uint64_t reserved3b[2];
    /* written by readers of the log */
    uint32_t waiters;        /* != 0: somebody sleeps on wake */
    uint32_t level_wake;     /* futex: changes with every change of the words below, and of frozen */
    uint64_t lsn_level[3];   /* reached by the receivers that count: RECEIVED, REPLICATED, APPLIED */
    uint64_t delay_ns;       /* what each transaction waits before it begins (backlog bound) */
    uint64_t shipper_beat_ns; /* CLOCK_MONOTONIC of the shipper's last sign of life; 0: none */
    uint64_t lsn_limit;      /* no transaction begins once the log ends here or beyond; 0: no limit */
    uint64_t backlog_limit_bytes; /* what receivers may lack, of which lsn_limit came; 0: no bound */
    struct pml_slot slots[PML_SLOTS];
};

enum pml_medium_kind { PML_MEDIUM_FILE = 1, PML_MEDIUM_PMEMOBJ = 2 };
enum pml_mark_flag { PML_MARK_CLEAN = 1, PML_MARK_REPLICA = 2 };
enum pml_record_kind { PML_RECORD_TRANSACTION = 1, PML_RECORD_EPOCH = 2 };
enum pml_range_kind { PML_RANGE_DATA = 1, PML_RANGE_ZERO = 2, PML_RANGE_GROW = 3 };
enum pml_type {
    PML_TYPE_DICT = 1,
    PML_TYPE_DEQUE = 2,
    PML_TYPE_ARRAY = 3,
    PML_TYPE_REGION = 4
};
/* what a key's or value's bytes are; the core only stores and compares them. */
enum pml_kind { PML_KIND_BYTES = 1, PML_KIND_STR = 2, PML_KIND_MSGPACK = 3 };
/* what a heap block holds. */
enum pml_block_kind {
    PML_BLOCK_ROOT = 1,
    PML_BLOCK_SEGMENT = 2,
    PML_BLOCK_BUCKET = 3,
    PML_BLOCK_ENTRY = 4,
    PML_BLOCK_DEQUE = 5,
    PML_BLOCK_ITEM = 6,
    PML_BLOCK_BYTES = 7
};
enum pml_frozen { PML_FROZEN_NO = 0, PML_FROZEN_POWER = 1, PML_FROZEN_FENCED = 2 };
enum pml_slot_flag { PML_SLOT_REQUIRED = 1 };
/* cdef: end */

#define PML_MAGIC_IMAGE 0x4547414d494c4d50ull   /* "PMLIMAGE" */
#define PML_MAGIC_LOG 0x474f4c474f4c4d50ull     /* "PMLOGLOG" */
#define PML_MAGIC_SUMS 0x20534d55534c4d50ull    /* "PMLSUMS " */
#define PML_MAGIC_CONTROL 0x4c5254434c4d5020ull /* " PMLCTRL" */
#define PML_MAGIC_HEAP 0x20504145484c4d50ull    /* "PMLHEAP " */
#define PML_MAGIC_MARK 0x4b524d50u              /* "PMRK" */
#define PML_MAGIC_RECORD 0x43524d50u            /* "PMRC" */

#define PML_RANGE_LENGTH(word) ((word) & ((1ull << 56) - 1))
#define PML_RANGE_KIND(word) ((uint32_t)((word) >> 56))
#define PML_BLOCK_USED 1ull
#define PML_BLOCK_PREV_FREE 2ull
#define PML_BLOCK_SIZE(word) ((word) & 0x0000fffffffffff0ull)
#define PML_BLOCK_KIND(word) ((uint32_t)((word) >> 56))
#define PML_SLOT_OFFSET(word) ((word) & ((1ull << 48) - 1))
#define PML_SLOT_TAG(hash) ((hash) & ~((1ull << 48) - 1))
#define PML_VALUE_BYTES(word) ((word) >> 8)
#define PML_VALUE_KIND(word) ((uint32_t)((word) & 0xff))

#define PML_ASSERT_SIZE(type, size) static_assert(sizeof(struct type) == (size), #type)
#define PML_ASSERT_AT(type, field, at) \
    static_assert(offsetof(struct type, field) == (at), #type "." #field)

PML_ASSERT_SIZE(pml_image_header, 120);
PML_ASSERT_AT(pml_image_header, version, 8);
PML_ASSERT_AT(pml_image_header, checksum, 12);
PML_ASSERT_AT(pml_image_header, pool_id, 16);
PML_ASSERT_AT(pml_image_header, created_ns, 32);
PML_ASSERT_AT(pml_image_header, ring_bytes, 40);
PML_ASSERT_AT(pml_image_header, hash_seed, 48);
PML_ASSERT_AT(pml_image_header, medium, 64);
PML_ASSERT_SIZE(pml_mark, 64);
PML_ASSERT_AT(pml_mark, checksum, 4);
PML_ASSERT_AT(pml_mark, sequence, 8);
PML_ASSERT_AT(pml_mark, lsn_checkpoint, 16);
PML_ASSERT_AT(pml_mark, txn, 24);
PML_ASSERT_AT(pml_mark, image_bytes, 32);
PML_ASSERT_AT(pml_mark, session, 40);
PML_ASSERT_AT(pml_mark, epoch, 48);
PML_ASSERT_AT(pml_mark, chain, 52);
PML_ASSERT_AT(pml_mark, flags, 56);
PML_ASSERT_SIZE(pml_log_header, 64);
PML_ASSERT_AT(pml_log_header, pool_id, 16);
PML_ASSERT_AT(pml_log_header, ring_bytes, 32);
PML_ASSERT_AT(pml_log_header, image_offset, 40);
PML_ASSERT_AT(pml_log_header, sums_offset, 48);
PML_ASSERT_AT(pml_log_header, medium, 56);
PML_ASSERT_SIZE(pml_record, 64);
PML_ASSERT_AT(pml_record, checksum, 4);
PML_ASSERT_AT(pml_record, lsn, 8);
PML_ASSERT_AT(pml_record, length, 16);
PML_ASSERT_AT(pml_record, txn, 24);
PML_ASSERT_AT(pml_record, lsn_durable, 32);
PML_ASSERT_AT(pml_record, session, 40);
PML_ASSERT_AT(pml_record, epoch, 48);
PML_ASSERT_AT(pml_record, checksum_prev, 52);
PML_ASSERT_AT(pml_record, range_count, 56);
PML_ASSERT_AT(pml_record, kind, 60);
PML_ASSERT_SIZE(pml_range, 16);
PML_ASSERT_SIZE(pml_sums_header, 64);
PML_ASSERT_SIZE(pml_heap, 128 + 8 * PML_BINS);
PML_ASSERT_AT(pml_heap, top, 32);
PML_ASSERT_AT(pml_heap, bin_map, 64);
PML_ASSERT_AT(pml_heap, bins, 128);
PML_ASSERT_SIZE(pml_free_block, 24);
PML_ASSERT_SIZE(pml_root, 16);
PML_ASSERT_SIZE(pml_dict_root, 48 + 8 * PML_SEGMENTS);
PML_ASSERT_AT(pml_dict_root, count, 16);
PML_ASSERT_AT(pml_dict_root, segments, 48);
PML_ASSERT_SIZE(pml_bucket, PML_LINE);
PML_ASSERT_SIZE(pml_dict_entry, 40);
PML_ASSERT_SIZE(pml_deque_root, 48);
PML_ASSERT_SIZE(pml_deque_block, 16 + 8 * PML_DEQUE_SLOTS);
PML_ASSERT_SIZE(pml_item, 8);
PML_ASSERT_SIZE(pml_bytes_root, 48);
PML_ASSERT_SIZE(pml_catalog_value, 16);
PML_ASSERT_SIZE(pml_slot, 128);
PML_ASSERT_AT(pml_control, lsn_durable, 64);
PML_ASSERT_AT(pml_control, wake, 80);
PML_ASSERT_AT(pml_control, session, 128);
PML_ASSERT_AT(pml_control, waiters, 192);
PML_ASSERT_AT(pml_control, delay_ns, 224);
PML_ASSERT_AT(pml_control, lsn_limit, 240);
PML_ASSERT_AT(pml_control, slots, 256);
PML_ASSERT_SIZE(pml_control, 256 + 128 * PML_SLOTS);

#endif
