/*
 * The peer "libpmemobj": 64 bytes changed in one transaction of its own, as its manual page
 * pmemobj_tx_begin(3) shows it: begin, snapshot the range, change it, commit, end.
 *
 * usage: pmemobj_tx POOL_FILE      (made anew; PMEM_IS_PMEM_FORCE=1 in the environment: see README)
 */
#include <libpmemobj.h>

#include "worker.h"

#define LAYOUT "pmlog-bench"

struct root {
    char slots[SLOTS][VALUE_BYTES];
};

static PMEMobjpool *pool;
static struct root *root;

static void region_write(uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; n++) {
        char *slot = root->slots[slot_of(n)];
        if (pmemobj_tx_begin(pool, NULL, TX_PARAM_NONE)) refuse(pmemobj_errormsg());
        if (pmemobj_tx_add_range_direct(slot, VALUE_BYTES)) refuse(pmemobj_errormsg());
        memcpy(slot, value_of(n), VALUE_BYTES);
        pmemobj_tx_commit();
        if (pmemobj_tx_end()) refuse(pmemobj_errormsg());
    }
}

int main(int argc, char **argv) {
    if (argc != 2) refuse("usage: pmemobj_tx POOL_FILE");
    fill_values();
    pool = pmemobj_create(argv[1], LAYOUT, 64u << 20, 0600);
    if (!pool) refuse(pmemobj_errormsg());
    root = pmemobj_direct(pmemobj_root(pool, sizeof *root));
    if (!root) refuse(pmemobj_errormsg());
    struct operation ops[] = {{.name = "region.write", .run = region_write}};
    int status = serve(ops, sizeof ops / sizeof *ops);
    pmemobj_close(pool);
    return status;
}
