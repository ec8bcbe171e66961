/*
 * The brackets of a container's public functions: one look, or one change.
 *
 * All macros here are the last statement of a function: they return from it.  `expression` is
 * evaluated after c->root is resolved, with the pool's lock held.
 *
 * A look is taken again while the writer in another process overtakes it: the expression answers a
 * count or size >= 0 or a negative status, and what it stored through pointers in an earlier
 * attempt is garbage, so it must store all of it again each time.  A look inside pml_read_begin …
 * pml_read_end is not repeated here: the bracket's owner has to repeat all of it, so PML_E_AGAIN
 * goes up to him.
 *
 * A change may fail half-way: pml_op_end takes back all that the expression noted.
 */
#ifndef PML_VIEW_H
#define PML_VIEW_H

#include "internal.h"

#define PML_VIEW_AS(type, pool_, resolve, expression)                                           \
    do {                                                                                        \
        struct pml_pool *view_pool = (pool_);                                                   \
        for (uint32_t view_attempt = 0; view_attempt < PML_READ_ATTEMPTS; view_attempt++) {     \
            bool view_locked;                                                                   \
            int64_t view_result = pml_view_begin(view_pool, &view_locked);                      \
            if (PML_UNLIKELY(view_result != PML_OK)) return (type)view_result;                  \
            view_result = (resolve);                                                            \
            if (PML_LIKELY(view_result == PML_OK)) view_result = (expression);                  \
            int view_status = pml_view_end(view_pool, view_locked,                              \
                                           view_result < 0 ? (int)view_result : PML_OK);        \
            if (PML_LIKELY(view_status == PML_OK)) return (type)view_result;                    \
            if (view_status != PML_E_AGAIN || !view_locked) return (type)view_status;           \
        }                                                                                       \
        return pml_fail(PML_E_BUSY, "the writer overtook this reader %u times in a row",     \
                        PML_READ_ATTEMPTS);                                                     \
    } while (0)

/* in int64_t functions, in int functions, and in int64_t functions that look at no one container */
#define PML_VIEW(c, expression) \
    PML_VIEW_AS(int64_t, (c)->pool, pml_container_resolve(c), expression)
#define PML_VIEW_INT(c, expression) \
    PML_VIEW_AS(int, (c)->pool, pml_container_resolve(c), expression)
#define PML_VIEW_POOL(pool, expression) PML_VIEW_AS(int64_t, pool, PML_OK, expression)

/* in int functions; the expression answers a status */
#define PML_CHANGE(c, expression)                                                               \
    do {                                                                                        \
        struct pml_op change_op;                                                                \
        int change_status = pml_op_begin((c)->pool, &change_op);                                \
        if (PML_UNLIKELY(change_status != PML_OK)) return change_status;                        \
        change_status = pml_container_resolve(c);                                               \
        if (PML_LIKELY(change_status == PML_OK)) change_status = (expression);                  \
        return pml_op_end(&change_op, change_status);                                           \
    } while (0)

#endif
