/*
 * Canaries: faults that a test build can switch on, one at a time, to see that a test finds them.
 *
 * This table is the registry: name, where the fault is, what it breaks.  `engine`: a line of the
 * engine asks PML_BROKEN(name).  `medium`: the crash tests' recording op table does what the name
 * says to a store, a flush or a drain on its way.  In any other build PML_BROKEN is the constant 0.
 */
#ifndef PML_CANARY_H
#define PML_CANARY_H

#define PML_CANARIES(X)                                                                            \
    X(DROP_LOG_FLUSH, medium, "every third record is not flushed")                                 \
    X(SHORT_LOG_FLUSH, medium, "only a record's first line is flushed")                            \
    X(EARLY_LOG_FLUSH, medium, "a record is flushed before its header is stored")                  \
    X(SKIP_LOG_DRAIN, medium, "a commit returns without a drain")                                  \
    X(LATE_LOG_DRAIN, medium, "a commit's drain comes with the next commit")                       \
    X(FLIP_LOG_BIT, medium, "one bit of a record changes on its way")                              \
    X(DROP_IMAGE_FLUSH, medium, "pages of the image are not flushed before the mark")              \
    X(DROP_SUMS_FLUSH, medium, "their checksums are not flushed")                                  \
    X(SKIP_IMAGE_DRAIN, medium, "there is no drain between the image and the mark")                \
    X(MARK_BEFORE_IMAGE, medium, "the mark's stores come before the image's")                      \
    X(SKIP_MARK_DRAIN, medium, "the mark is not drained before the ring is used again")            \
    X(DROP_MARK_FLUSH, medium, "the mark is not flushed")                                          \
    X(DROP_MARK_STORE, medium, "the mark never gets to the medium")                                \
    X(DROP_SUMS_STORE, medium, "checksums never get to the medium")                                \
    X(DROP_IMAGE_STORE, medium, "one range is not applied")                                        \
    X(DROP_ZERO_STORE, medium, "a range of zeros is not applied")                                  \
    X(CHECKPOINT_BEFORE_LOG, medium, "the image's stores come before the record is drained")       \
    X(EARLY_RECLAIM, medium, "the ring is used again without a checkpoint")                        \
    X(STEAL, medium, "an open transaction's bytes get into the image")                             \
    X(CLAIM_DURABLE, medium, "a record claims that its predecessors are durable before their sync") \
    X(RECORD_LSN_UNCHECKED, engine, "a record of an earlier lap is believed")                      \
    X(RECORD_SUM_UNCHECKED, engine, "a torn record is believed")                                   \
    X(RECORD_PREV_UNCHECKED, engine, "a record of another history continues the chain")            \
    X(RECORD_TXN_UNCHECKED, engine, "a record out of turn continues the chain")                    \
    X(RECORD_EPOCH_UNCHECKED, engine, "a record of a lower epoch continues the chain")             \
    X(RECORD_SESSION_UNCHECKED, engine, "a record of an earlier session continues the chain")      \
    X(HINT_IGNORED, engine, "later records do not tell that the log breaks too early")             \
    X(CONTROL_IGNORED, engine, "control does not tell that the log breaks too early")              \
    X(HOLE_ACCEPTED, engine, "a break below what was durable is taken for the end")                \
    X(SLOTS_IGNORED, engine, "the ring is used again though a consumer holds it")                  \
    X(PUBLISH_BEFORE_DRAIN, engine, "readers are told of a record before it is durable")           \
    X(SYNC_AFTER_PUBLISH, engine, "a group commit is published before its sync")                   \
    X(COMMIT_NOT_SYNCED, engine, "in domain page a commit returns before its sync")                \
    X(CHAIN_NOT_ADVANCED, engine, "a record is seeded with an older one's checksum")               \
    X(MARK_SUM_UNCHECKED, engine, "a torn mark is believed")                                       \
    X(OLDER_MARK_RULES, engine, "the older of two marks rules")                                    \
    X(MARK_SAME_SLOT, engine, "every mark is written over the last one")                           \
    X(MARK_TXN_WRONG, engine, "a mark names the wrong transaction")                                \
    X(APPLY_SKIPS_LAST, engine, "a record's last range is not applied")                            \
    X(APPLY_SKIPS_ZEROS, engine, "ranges of zeros are not applied")                                \
    X(APPLY_SKIPS_GROWTH, engine, "a record's growth is not applied")                              \
    X(SUM_NOT_UPDATED, engine, "one page in a run keeps its old checksum")                         \
    X(SUM_UNCHECKED, engine, "a page is read without a look at its checksum")                      \
    X(CLEAN_LEFT_ON, engine, "a mark says that the log ends, and it goes on")                      \
    X(CHECKPOINT_BEYOND_DURABLE, engine, "records are applied before their sync")                  \
    X(CHECKPOINT_PUBLISHED_EARLY, engine, "the ring is let go before the mark is written")         \
    X(IMAGE_NOT_DRAINED, engine, "the mark is written before the image is drained")                \
    X(IMAGE_WORD_FORGOTTEN, engine, "readers are not told that the image is about to move")        \
    X(RECOVERY_STOPS_EARLY, engine, "recovery takes two records and no more")                      \
    X(SESSION_KEPT, engine, "two opens for writing have one session")                              \
    X(FOUND_NOT_DRAINED, engine, "what a killed process left is applied before it is durable")     \
    X(GROWTH_NOT_SYNCED, engine, "a record is durable before the file's size that it needs")       \
    X(UNDO_SKIPS_FIRST, engine, "an abort leaves the first change")                                \
    X(ROLLBACK_KEEPS_FREES, engine, "what was freed behind a savepoint is freed though undone")    \
    X(ROLLBACK_KEEPS_SEEN, engine, "a range noted before a rollback is not noted again")           \
    X(SAVEPOINT_KEEPS_SEEN, engine, "a range changed before a savepoint is not kept behind it")    \
    X(NOTE_LOST, engine, "a transaction's sixth range is not logged")                              \
    X(ZERO_NOTE_LOST, engine, "ranges of zeros are not logged")                                    \
    X(GROW_NOTE_LOST, engine, "growth is not logged")                                              \
    X(FREE_BEFORE_COMMIT, engine, "a block is used again before its free has committed")           \
    X(FAILED_COMMIT_KEPT, engine, "a commit that was refused leaves its changes")                  \
    X(FREEZE_IGNORED, engine, "a frozen pool commits")                                             \
    X(POISON_FORGOTTEN, engine, "a handle goes on behind a failed sync")                           \
    X(BLOCK_STAYS_FREE, engine, "a block that was taken stays in its free list")                   \
    X(FREE_WORDS_NOT_KEPT, engine, "an abort does not bring back a free block's words")            \
    X(ZERO_FROM_FORGOTTEN, engine, "used bytes are taken for zeros")                               \
    X(PREV_FREE_FORGOTTEN, engine, "a block does not know that the one before it is free")         \
    X(LOCK_NOT_TAKEN, engine, "two handles write one pool")                                        \
    X(REPLICA_PUBLISHES_EARLY, engine, "a replica acknowledges before its drain")                  \
    X(REPLICA_TAKES_GAPS, engine, "a replica takes bytes that do not follow")                      \
    X(REPLICA_BELIEVES, engine, "a replica does not verify what it appends")                       \
    X(REPLICA_HINTS_BELIEVED, engine, "a replica takes its primary's word for its own drains")     \
    X(REPLICA_GROWS_LATE, engine, "a replica's record is there before the room that it needs")     \
    X(BASELINE_MARKS_KEPT, engine, "an unfinished baseline leaves marks by which it opens")        \
    X(BASELINE_ONE_MARK, engine, "a baseline leaves one mark where there must be two")                       \
    X(BLOCK_LOST, engine, "a baseline's block is not stored")                                      \
    X(TAIL_BEYOND_DURABLE, engine, "readers of the log see records that are not durable")          \
    X(ACK_UNCHECKED, engine, "a consumer acknowledges what was never written")

#if PML_TESTING
#define PML_CANARY_ENUM(name, where, breaks) PML_CANARY_##name,
enum pml_canary { PML_CANARY_NONE, PML_CANARIES(PML_CANARY_ENUM) PML_CANARY_COUNT };
extern enum pml_canary pml_canary; /* the one that is on */
#define PML_BROKEN(name) (__builtin_expect(pml_canary == PML_CANARY_##name, 0))
#else
#define PML_BROKEN(name) 0
#endif

#endif
