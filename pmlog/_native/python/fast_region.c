/* Base of containers.region.PoolRegion. */
#include "fast.h"

static bool is_offset(PyObject *number, uint64_t *out) {
    if (!PyLong_CheckExact(number)) return false;
    *out = PyLong_AsUnsignedLongLong(number);
    if (*out != UINT64_MAX || !PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
}

static PyObject *slowly(PyObject *object, const char *name, PyObject *const *arguments,
                        Py_ssize_t count, PyObject *names) {
    PyObject *method = PyObject_GetAttrString(object, name);
    PyObject *result = method ? PyObject_Vectorcall(method, arguments, (size_t)count, names) : NULL;
    Py_XDECREF(method);
    return result;
}

static PyObject *write_bytes(PyObject *object, PyObject *const *arguments, Py_ssize_t count,
                             PyObject *names) {
    struct fast_container *self = (struct fast_container *)object;
    uint64_t offset;
    if (names || count != 2 || !self->handle || !PyBytes_CheckExact(arguments[1]) ||
        !is_offset(arguments[0], &offset))
        return slowly(object, "_write", arguments, count, names);
    struct fast_handle *handle = self->handle;
    const char *data = PyBytes_AS_STRING(arguments[1]);
    size_t size = (size_t)PyBytes_GET_SIZE(arguments[1]);
    int status;
    FAST_CALL(handle->pool, size, status, pml_bytes_write(handle->container, offset, data, size));
    if (status == PML_OK) Py_RETURN_NONE;
    if (fast_is_retried(status) || status == PML_E_ARGUMENT)
        return slowly(object, "_write", arguments, count, names);
    return fast_fail(self, status);
}

static PyObject *read_bytes(PyObject *object, PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names) {
    struct fast_container *self = (struct fast_container *)object;
    uint64_t offset, size;
    if (names || count != 2 || !self->handle || !is_offset(arguments[0], &offset) ||
        !is_offset(arguments[1], &size) || size > FAST_BYTES)
        return slowly(object, "_read", arguments, count, names);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!bytes) return NULL;
    struct fast_handle *handle = self->handle;
    char *to = PyBytes_AS_STRING(bytes);
    int status;
    FAST_CALL(handle->pool, 0, status, pml_bytes_read(handle->container, offset, to, size));
    if (status == PML_OK) return bytes;
    Py_DECREF(bytes);
    if (fast_is_retried(status) || status == PML_E_ARGUMENT)
        return slowly(object, "_read", arguments, count, names);
    return fast_fail(self, status);
}

static PyMethodDef methods[] = {
    FAST_BIND,
    {"write", (PyCFunction)(void (*)(void))write_bytes, METH_FASTCALL | METH_KEYWORDS,
     "write($self, offset, data)\n--\n\nWrite bytes at an offset."},
    {"read", (PyCFunction)(void (*)(void))read_bytes, METH_FASTCALL | METH_KEYWORDS,
     "read($self, offset=0, size=None)\n--\n\nRead bytes, all of one instant."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject fast_region_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Region",
    .tp_basicsize = sizeof(struct fast_container),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = fast_container_traverse,
    .tp_clear = fast_container_clear,
    .tp_dealloc = fast_container_dealloc,
    .tp_methods = methods,
    .tp_members = fast_container_members,
};
