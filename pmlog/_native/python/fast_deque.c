/* Base of containers.deque.PoolDeque: its ends. */
#include "fast.h"

static PyObject *push(PyObject *object, PyObject *value, int left) {
    struct fast_container *self = (struct fast_container *)object;
    struct fast_bytes content = {0};
    int status = PML_E_BUSY;
    if (self->handle && fast_value(value, &content)) {
        struct fast_handle *handle = self->handle;
        FAST_CALL(handle->pool, content.word >> 8, status,
                  pml_deque_push(handle->container, left, content.data, content.word));
        fast_done(&content);
        if (status == PML_OK) {
            handle->version++;
            Py_RETURN_NONE;
        }
    }
    if (PyErr_Occurred()) return NULL;
    if (!fast_is_retried(status)) return fast_fail(self, status);
    return PyObject_CallMethod(object, "_push", "iO", left, value);
}

static PyObject *append(PyObject *object, PyObject *value) { return push(object, value, 0); }

static PyObject *append_left(PyObject *object, PyObject *value) { return push(object, value, 1); }

#define PUT_BACK_ATTEMPTS 1200u /* slices of waiting for another thread's transaction */

/* A pop that raises has changed nothing: not even where the interpreter's stack is too deep for the
 * value, so this needs no frame. */
static PyObject *put_back(struct fast_container *self, int left, const char *data, int64_t word) {
    struct fast_handle *handle = self->handle;
    PyObject *error = fast_error_take();
    int status = PML_E_BUSY;
    for (unsigned n = 0; n < PUT_BACK_ATTEMPTS && fast_is_retried(status); n++) {
        Py_BEGIN_ALLOW_THREADS status =
            pml_deque_push(handle->container, left, data, (uint64_t)word);
        Py_END_ALLOW_THREADS
    }
    if (status == PML_OK) {
        handle->version++;
        fast_error_give(error);
        return NULL;
    }
    fast_fail(self, status);
    PyObject *failure = fast_error_take();
    PyException_SetContext(failure, error);
    fast_error_give(failure);
    return NULL;
}

static PyObject *take(PyObject *object, int left) {
    struct fast_container *self = (struct fast_container *)object;
    char buffer[FAST_BYTES];
    int64_t word = PML_E_BUSY;
    if (self->handle && self->untyped) { /* else a value that cannot be decoded has to stay */
        struct fast_handle *handle = self->handle;
        FAST_CALL(handle->pool, 0, word,
                  pml_deque_pop(handle->container, left, buffer, sizeof buffer));
        if (word > 0 && (uint64_t)word >> 8 <= sizeof buffer) {
            handle->version++;
            PyObject *value = fast_decode(self, buffer, word);
            if (!value && !PyErr_Occurred())
                value = PyObject_CallMethod(object, "_decode", "y#K", buffer,
                                            (Py_ssize_t)(word >> 8), (unsigned long long)word);
            return value ? value : put_back(self, left, buffer, word);
        }
        if (word == PML_E_MISSING || word == 0) {
            PyErr_SetString(PyExc_IndexError, "pop from an empty deque");
            return NULL;
        }
        if (word < 0 && !fast_is_retried(word) && word != PML_E_BUFFER)
            return fast_fail(self, word);
    }
    return PyObject_CallMethod(object, "_pop", "i", left);
}

static PyObject *pop_left(PyObject *object, PyObject *unused) {
    (void)unused;
    return take(object, 1);
}

static PyObject *pop(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    int overflow = 0;
    if (count > 1 ||
        (count == 1 && !(PyLong_Check(arguments[0]) &&
                         PyLong_AsLongAndOverflow(arguments[0], &overflow) == -1 && !overflow))) {
        PyErr_SetString(PyExc_TypeError, "a deque pops at its ends only; use del for the middle");
        return NULL;
    }
    return take(object, 0);
}

static PyMethodDef methods[] = {
    {"pop", (PyCFunction)(void (*)(void))pop, METH_FASTCALL,
     "pop($self, index=-1, /)\n--\n\nRemove the value at the right end and return it."},
    {"popleft", pop_left, METH_NOARGS,
     "popleft($self, /)\n--\n\nRemove the value at the left end and return it."},
    FAST_BIND,
    {"append", append, METH_O, "append($self, value, /)\n--\n\nAdd a value at the right end."},
    {"appendleft", append_left, METH_O,
     "appendleft($self, value, /)\n--\n\nAdd a value at the left end."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject fast_deque_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Deque",
    .tp_basicsize = sizeof(struct fast_container),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = fast_container_traverse,
    .tp_clear = fast_container_clear,
    .tp_dealloc = fast_container_dealloc,
    .tp_methods = methods,
    .tp_members = fast_container_members,
};
