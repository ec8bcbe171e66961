/*
 * pmlog._fast: the library's hot calls as methods of C types, without a Python frame each.
 *
 * The types are the bases of what users hold.  A method here does the common case; what is not
 * common (another type of key, a long value, any answer but success) it leaves to a Python method of
 * the subclass, which does the whole of it from the start.  So nothing is decided twice: a call that
 * was not answered with success has changed nothing.
 *
 * The interpreter lock: letting go of it and taking it again costs as much as a small operation.  It
 * is kept where pml_prompt_begin promises that the call waits for nobody, and let go elsewhere.
 */
#ifndef PMLOG_FAST_H
#define PMLOG_FAST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <structmember.h>

#include "../pml.h"

#define FAST_BYTES 4096u /* longer keys and values are left to Python */

/* Runs `call` with the interpreter lock where it is prompt, without it elsewhere. */
#define FAST_CALL(pool, bytes, result, call)                                                    \
    do {                                                                                        \
        if (pml_prompt_begin((pool), (bytes))) {                                                \
            (result) = (call);                                                                  \
            pml_prompt_end();                                                                   \
        } else {                                                                                \
            Py_BEGIN_ALLOW_THREADS (result) = (call);                                           \
            Py_END_ALLOW_THREADS                                                                \
        }                                                                                       \
    } while (0)

/* Base of _handle.Core: an open pool. */
struct fast_core {
    PyObject_HEAD
    struct pml_pool *pool;
    uint64_t *tx_id;          /* where the engine writes a new transaction's number */
    unsigned long owner;      /* thread that has a transaction open; 0: none */
    Py_ssize_t depth;         /* of nested blocks */
    PyObject *doomed;         /* str: why the open transaction cannot be committed; empty: it can */
    PyObject *events;         /* list: what the open transaction did to the catalog */
};

/* Base of _handle.Handle: an open container. */
struct fast_handle {
    PyObject_HEAD
    struct pml_container *container;
    struct pml_pool *pool;
    unsigned long long version;
    unsigned long long edits;
};

/* Base of PoolDict, PoolDeque and PoolRegion. */
struct fast_container {
    PyObject_HEAD
    struct fast_handle *handle;
    PyObject *decode;         /* of MessagePack; NULL: values are left to Python */
    bool plain_bytes;         /* values that are bytes need no decoding */
    bool untyped;             /* decoding cannot fail for a value that was stored here */
};

struct fast_bytes {           /* a key or value as the engine takes it */
    const char *data;
    uint64_t word;            /* length << 8 | kind */
    PyObject *owner;          /* what keeps `data`; NULL: nothing needs to */
    char number[9];           /* an int as MessagePack */
};

extern PyTypeObject fast_core_type, fast_handle_type, fast_transaction_type;
extern PyTypeObject fast_dict_type, fast_deque_type, fast_region_type;
extern PyMethodDef fast_pack_method;

/* Bytes that grow: keys or values one behind the other, or their words. */
struct fast_column {
    char *data;
    size_t size, capacity;
};
bool fast_put(struct fast_column *bytes, struct fast_column *words, PyObject *encode,
              PyObject *object, bool is_key); /* false: an error is set */
void fast_drop(struct fast_column *column);

bool fast_key(PyObject *key, struct fast_bytes *out);     /* false: leave it to Python */
bool fast_value(PyObject *value, struct fast_bytes *out); /* the same */
void fast_done(struct fast_bytes *bytes);
PyObject *fast_decode(struct fast_container *self, const char *data, int64_t word); /* NULL, no
                                                              error set: leave it to Python */
PyObject *fast_fail(struct fast_container *self, int64_t status); /* raises what the status says */
PyObject *fast_error_take(void);        /* the error that is set, if one is; it is set no longer */
void fast_error_give(PyObject *error);  /* sets it again; NULL: nothing */
/* another thread's transaction is open, or receivers are behind: Python waits */
static inline bool fast_is_retried(int64_t status) {
    return status == PML_E_BUSY || status == PML_E_BEHIND;
}

PyObject *fast_container_bind(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
int fast_container_traverse(PyObject *self, visitproc visit, void *arg);
int fast_container_clear(PyObject *self);
void fast_container_dealloc(PyObject *self);
extern PyMemberDef fast_container_members[];
#define FAST_BIND \
    {"_bind", (PyCFunction)(void (*)(void))fast_container_bind, METH_FASTCALL, \
     "_bind(handle, decode, plain_bytes, untyped): say what container this is."}

#endif
