/*
 * A reader beside a writer in another process that is killed again and again.
 *
 * Model: SIGKILL at any instruction; nothing that the reader has seen is lost, and no view is mixed.
 * Method: the writer moves money between accounts, one transaction a transfer, in laps over a small
 * ring with checkpoints on the way; the reader adds the accounts up in one call.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "harness.h"

#define ACCOUNTS 24u
#define TOTAL (ACCOUNTS * 1000u)
#define PATIENCE_S 200

static const char *path;

static void account_keys(char *keys, uint64_t *words) {
    for (uint32_t i = 0; i < ACCOUNTS; i++) {
        memcpy(keys + i * 4, &i, 4);
        words[i] = word_of(4, PML_KIND_BYTES);
    }
}

static struct pml_options options_of(uint32_t flags) {
    struct pml_options options = small_pool(PML_DOMAIN_EMULATED, flags);
    options.max_size = 16 * MIB;
    return options;
}

static void store(struct pml_container *c, uint32_t account, uint64_t amount) {
    CHECK_OK(pml_dict_set(c, (const char *)&account, word_of(4, PML_KIND_BYTES),
                          (const char *)&amount, word_of(8, PML_KIND_BYTES)));
}

static uint64_t load(struct pml_container *c, uint32_t account) {
    uint64_t amount;
    CHECK(pml_dict_get(c, (const char *)&account, word_of(4, PML_KIND_BYTES), (char *)&amount, 8) ==
          (int64_t)word_of(8, PML_KIND_BYTES));
    return amount;
}

/* Never returns: it transfers until it is killed. */
static _Noreturn void transfer_for_ever(uint64_t seed) {
    static char ballast[30000];
    struct random random = {seed};
    struct pml_options options = options_of(0);
    struct pml_pool *pool;
    struct pml_container *c, *region;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive the test */
    if (getppid() != test_pid) _exit(0);
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "accounts", 8, PML_TYPE_DICT, 0, NULL, 0, &c));
    CHECK_OK(
        pml_container_open(pool, "ballast", 7, PML_TYPE_REGION, sizeof ballast, NULL, 0, &region));
    for (uint64_t n = 0;; n++) {
        uint32_t from = (uint32_t)random_below(&random, ACCOUNTS);
        uint32_t to = (uint32_t)random_below(&random, ACCOUNTS);
        uint64_t id, had = load(c, from), amount = had ? random_below(&random, had) : 0;
        CHECK_OK(pml_tx_begin(pool, &id));
        store(c, from, had - amount);
        if (n % 5 == 0) { /* the ring laps */
            random_fill(n, ballast, 64);
            CHECK_OK(pml_bytes_write(region, 0, ballast, random_below(&random, sizeof ballast)));
        }
        store(c, to, load(c, to) + amount);
        if (n % 11 == 3) {
            CHECK_OK(pml_tx_abort(pool, id));
        } else {
            CHECK_OK(pml_tx_commit(pool, id));
        }
        if (n % 97 == 0) CHECK_OK(pml_checkpoint(pool));
        if (n % 1009 == 0) {
            uint64_t released;
            CHECK_OK(pml_release_pages(pool, &released));
        }
    }
}

/* One call is one view: the sum is the same in all of them. */
static void check_sum(struct pml_container *c) {
    char keys[ACCOUNTS * 4];
    uint64_t words[ACCOUNTS], found[ACCOUNTS], amounts[ACCOUNTS], sum = 0;
    account_keys(keys, words);
    CHECK(pml_dict_get_many(c, ACCOUNTS, keys, words, (char *)amounts, sizeof amounts, found) ==
          (int64_t)sizeof amounts);
    for (uint32_t i = 0; i < ACCOUNTS; i++) sum += amounts[i];
    CHECK(sum == TOTAL);
}

int main(void) {
    test_start("test_follow");
    path = scratch_path("bank");
    struct pml_options options = options_of(PML_OPEN_CREATE);
    struct random random = {test_seed};
    struct pml_pool *pool;
    struct pml_container *c;
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "accounts", 8, PML_TYPE_DICT, 0, NULL, 0, &c));
    uint64_t id;
    CHECK_OK(pml_tx_begin(pool, &id));
    for (uint32_t i = 0; i < ACCOUNTS; i++) store(c, i, TOTAL / ACCOUNTS);
    CHECK_OK(pml_tx_commit(pool, id));
    pml_container_free(c);
    CHECK_OK(pml_close(pool));
    pml_free(pool);

    uint64_t kills = test_rounds(160), seen = 0, views = 0, checks = 0;
    double start = test_now_s(), longest_s = 0;
    struct pml_position position;
    options = options_of(PML_OPEN_READ_ONLY);
    CHECK_OK(pml_open(path, &options, &pool));
    CHECK_OK(pml_container_open(pool, "accounts", 8, PML_TYPE_DICT, 0, NULL, 0, &c));
    for (uint64_t kill_number = 0; kill_number < kills; kill_number++) {
        fflush(stdout);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) transfer_for_ever(mix64(test_seed + kill_number));
        /* The moment of the kill is a number of transactions, now and then none at all: then it hits
         * the recovery. */
        uint64_t until = seen + (kill_number % 4 ? random_below(&random, test_rounds(3000)) : 0);
        /* Busy, since a yield gives the writer a whole time slice. */
        volatile uint64_t spins = random_below(&random, test_rounds(1000000));
        while (spins) spins--;
        do {
            double before = test_now_s();
            check_sum(c);
            views++;
            if (test_now_s() - before > longest_s) longest_s = test_now_s() - before;
            CHECK_OK(pml_position(pool, &position));
            CHECK(position.txn >= seen); /* never back */
            seen = position.txn;
            CHECK(waitpid(child, NULL, WNOHANG) == 0); /* the writer must not fail */
            CHECK(test_now_s() - start < PATIENCE_S);
        } while (seen < until);
        CHECK(kill(child, SIGKILL) == 0);
        int status;
        while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check_sum(c); /* beside a dead writer, too */
        check_pool(pool);
        checks++;
        CHECK_OK(pml_position(pool, &position));
        CHECK(position.txn >= seen);
        seen = position.txn;
    }
    pml_container_free(c);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    options = options_of(0);
    CHECK_OK(pml_open(path, &options, &pool)); /* what the reader saw is what recovery finds */
    CHECK_OK(pml_position(pool, &position));
    CHECK(position.txn >= seen);
    CHECK_OK(pml_container_open(pool, "accounts", 8, PML_TYPE_DICT, 0, NULL, 0, &c));
    check_sum(c);
    pml_container_free(c);
    CHECK_OK(pml_close(pool));
    pml_free(pool);
    check_closed_pool(path);
    printf("  %llu kills, %llu views, %llu checks beside a dead writer, %llu transactions, "
           "longest view %.0f ms\n",
           (unsigned long long)kills, (unsigned long long)views, (unsigned long long)checks,
           (unsigned long long)seen, longest_s * 1e3);
    return 0;
}
