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

static PyMethodDef methods[] = {
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
