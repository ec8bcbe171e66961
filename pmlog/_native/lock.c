/*
 * A futex lock that belongs to a transaction rather than to a thread: a transaction may have to be
 * ended by another thread (the collector of an abandoned generator), which pthread mutexes forbid.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

_Thread_local uint64_t pml_thread_number;
_Thread_local bool pml_is_prompt;
_Atomic uint32_t pml_fork_generation;

/* Never reused, unlike thread ids and addresses of thread-local storage. */
uint64_t pml_thread_number_new(void) {
    static _Atomic uint64_t last;
    return pml_thread_number = atomic_fetch_add(&last, 1) + 1;
}

static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pml_pool *open_pools;

void pml_forget_after_fork(struct pml_pool *pool) {
    pthread_mutex_lock(&open_mutex);
    pool->next_open = open_pools;
    open_pools = pool;
    pthread_mutex_unlock(&open_mutex);
}

void pml_forget_no_longer(struct pml_pool *pool) {
    pthread_mutex_lock(&open_mutex);
    for (struct pml_pool **at = &open_pools; *at; at = &(*at)->next_open)
        if (*at == pool) {
            *at = pool->next_open;
            break;
        }
    pthread_mutex_unlock(&open_mutex);
}

static void before_fork(void) { pthread_mutex_lock(&open_mutex); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&open_mutex); }

/* The lock belongs to the open file description, which the child shares: if the child kept it, a
 * killed writer's pool would stay locked until its children are gone too. */
static void after_fork_in_child(void) {
    atomic_fetch_add(&pml_fork_generation, 1);
    for (struct pml_pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->lock_fd >= 0) {
            close(pool->lock_fd);
            pool->lock_fd = -1;
        }
    open_pools = NULL;
    pthread_mutex_init(&open_mutex, NULL);
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int pml_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ms) {
    struct timespec limit = {(time_t)(timeout_ms / 1000), (long)(timeout_ms % 1000) * 1000000};
    if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0) == 0) return 0;
    return errno;
}

void pml_futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

bool pml_lock_try(struct pml_lock *lock) {
    uint32_t free = 0;
    return atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool pml_lock_take(struct pml_lock *lock, uint32_t timeout_ms) {
    if (PML_LIKELY(pml_lock_try(lock))) return true;
    if (pml_is_prompt) return false;
    for (int spin = 0; spin < 100; spin++)
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 && pml_lock_try(lock))
            return true;
    uint64_t deadline = now_ms() + timeout_ms;
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0) {
        uint64_t now = now_ms();
        if (now >= deadline) return false;
        pml_futex_wait(&lock->state, 2, deadline - now);
    }
    return true;
}

void pml_lock_give(struct pml_lock *lock) {
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2) {
        syscall(SYS_futex, &lock->state, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}
