/* The module, and what its types share: keys, values, failures. */
#include "fast.h"

static PyObject *encode_msgpack; /* set once, by `configure` */

/* ---- keys and values ---- */

/* MessagePack's shortest form of an int, as the encoder of other values writes it. */
static uint64_t put_int(PyObject *number, char *to) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow || (value == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0;
    }
    unsigned bytes;
    unsigned char first;
    if (value >= -32 && value <= 127) {
        to[0] = (char)value;
        return 1;
    }
    if (value >= 0) {
        bytes = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffffll ? 4 : 8;
        first = bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : bytes == 4 ? 0xce : 0xcf;
    } else {
        bytes = value >= INT8_MIN ? 1 : value >= INT16_MIN ? 2 : value >= INT32_MIN ? 4 : 8;
        first = bytes == 1 ? 0xd0 : bytes == 2 ? 0xd1 : bytes == 4 ? 0xd2 : 0xd3;
    }
    to[0] = (char)first;
    for (unsigned i = 0; i < bytes; i++)
        to[1 + i] = (char)((unsigned long long)value >> (8 * (bytes - 1 - i)));
    return 1 + bytes;
}

bool fast_key(PyObject *key, struct fast_bytes *out) {
    Py_ssize_t size;
    uint64_t kind;
    out->owner = NULL;
    if (PyUnicode_CheckExact(key)) {
        out->data = PyUnicode_AsUTF8AndSize(key, &size);
        if (!out->data) {
            PyErr_Clear(); /* lone surrogates: Python says so better */
            return false;
        }
        kind = PML_KIND_STR;
    } else if (PyBytes_CheckExact(key)) {
        out->data = PyBytes_AS_STRING(key);
        size = PyBytes_GET_SIZE(key);
        kind = PML_KIND_BYTES;
    } else if (PyLong_CheckExact(key)) {
        size = (Py_ssize_t)put_int(key, out->number);
        out->data = out->number;
        kind = PML_KIND_MSGPACK;
        if (!size) return false;
    } else {
        return false;
    }
    out->word = (uint64_t)size << 8 | kind;
    return size <= (Py_ssize_t)FAST_BYTES;
}

bool fast_value(PyObject *value, struct fast_bytes *out) {
    out->owner = NULL;
    if (PyBytes_CheckExact(value)) {
        out->data = PyBytes_AS_STRING(value);
        out->word = (uint64_t)PyBytes_GET_SIZE(value) << 8 | PML_KIND_BYTES;
        return true;
    }
    if (PyLong_CheckExact(value)) {
        uint64_t size = put_int(value, out->number);
        out->data = out->number;
        out->word = size << 8 | PML_KIND_MSGPACK;
        if (size) return true;
    }
    if (!encode_msgpack) return false;
    PyObject *packed = PyObject_CallOneArg(encode_msgpack, value);
    if (!packed || !PyBytes_CheckExact(packed)) {
        Py_XDECREF(packed);
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
        return false; /* a KeyboardInterrupt stays set: the caller looks */
    }
    out->owner = packed;
    out->data = PyBytes_AS_STRING(packed);
    out->word = (uint64_t)PyBytes_GET_SIZE(packed) << 8 | PML_KIND_MSGPACK;
    return true;
}

void fast_done(struct fast_bytes *bytes) { Py_CLEAR(bytes->owner); }

PyObject *fast_decode(struct fast_container *self, const char *data, int64_t word) {
    int64_t kind = word & 0xff, size = word >> 8;
    bool plain = kind == PML_KIND_BYTES && self->plain_bytes;
    if (!plain && (kind != PML_KIND_MSGPACK || !self->decode)) return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (!bytes || plain) return bytes;
    PyObject *value = PyObject_CallOneArg(self->decode, bytes);
    Py_DECREF(bytes);
    if (!value && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
    return value;
}

PyObject *fast_fail(struct fast_container *self, int64_t status) {
    PyObject *error = PyObject_CallMethod((PyObject *)self->handle, "failure", "i", (int)status);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

#if PY_VERSION_HEX >= 0x030c0000
PyObject *fast_error_take(void) { return PyErr_GetRaisedException(); }

void fast_error_give(PyObject *error) {
    if (error) PyErr_SetRaisedException(error);
}
#else
PyObject *fast_error_take(void) {
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    if (!kind) return NULL;
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace) PyException_SetTraceback(error, trace);
    Py_DECREF(kind);
    Py_XDECREF(trace);
    return error;
}

void fast_error_give(PyObject *error) {
    if (!error) return;
    Py_INCREF(Py_TYPE(error));
    PyErr_Restore((PyObject *)Py_TYPE(error), error, PyException_GetTraceback(error));
}
#endif

/* ---- _handle.Core ---- */

static int core_traverse(PyObject *object, visitproc visit, void *arg) {
    struct fast_core *self = (struct fast_core *)object;
    Py_VISIT(self->doomed);
    Py_VISIT(self->events);
    return 0;
}

static int core_clear(PyObject *object) {
    struct fast_core *self = (struct fast_core *)object;
    Py_CLEAR(self->doomed);
    Py_CLEAR(self->events);
    return 0;
}

static void core_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    core_clear(object);
    Py_TYPE(object)->tp_free(object);
}

static PyObject *core_bind(PyObject *object, PyObject *arguments) {
    struct fast_core *self = (struct fast_core *)object;
    unsigned long long pool, tx_id;
    if (!PyArg_ParseTuple(arguments, "KK", &pool, &tx_id)) return NULL;
    self->pool = (struct pml_pool *)(uintptr_t)pool;
    self->tx_id = (uint64_t *)(uintptr_t)tx_id;
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"_bind", core_bind, METH_VARARGS, "_bind(pool, tx_id): addresses of the engine's words."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef core_members[] = {
    {"owner", T_ULONG, offsetof(struct fast_core, owner), 0,
     "Thread that has a transaction open; 0: none."},
    {"depth", T_PYSSIZET, offsetof(struct fast_core, depth), 0, "Of nested blocks."},
    {"doomed", T_OBJECT_EX, offsetof(struct fast_core, doomed), 0,
     "Why the open transaction cannot be committed any more; empty: it can."},
    {"events", T_OBJECT_EX, offsetof(struct fast_core, events), 0,
     "What the open transaction did to the catalog: opened (False) or dropped (True)."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject fast_core_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Core",
    .tp_basicsize = sizeof(struct fast_core),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = core_traverse,
    .tp_clear = core_clear,
    .tp_dealloc = core_dealloc,
    .tp_methods = core_methods,
    .tp_members = core_members,
};

/* ---- _handle.Handle ---- */

static PyObject *handle_bind(PyObject *object, PyObject *arguments) {
    struct fast_handle *self = (struct fast_handle *)object;
    unsigned long long container, pool;
    if (!PyArg_ParseTuple(arguments, "KK", &container, &pool)) return NULL;
    self->container = (struct pml_container *)(uintptr_t)container;
    self->pool = (struct pml_pool *)(uintptr_t)pool;
    Py_RETURN_NONE;
}

static void handle_dealloc(PyObject *object) { Py_TYPE(object)->tp_free(object); }

static PyMethodDef handle_methods[] = {
    {"_bind", handle_bind, METH_VARARGS, "_bind(container, pool): the engine's addresses."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"version", T_ULONGLONG, offsetof(struct fast_handle, version), 0,
     "Of the container's structure; of everything, where nothing else counts."},
    {"edits", T_ULONGLONG, offsetof(struct fast_handle, edits), 0,
     "Of items that were replaced in place."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject fast_handle_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Handle",
    .tp_basicsize = sizeof(struct fast_handle),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = handle_dealloc,
    .tp_methods = handle_methods,
    .tp_members = handle_members,
};

/* ---- what containers share ---- */

PyObject *fast_container_bind(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    struct fast_container *self = (struct fast_container *)object;
    if (count != 4 || !PyObject_TypeCheck(arguments[0], &fast_handle_type)) {
        PyErr_SetString(PyExc_TypeError, "_bind(handle, decode, plain_bytes, untyped)");
        return NULL;
    }
    int plain = PyObject_IsTrue(arguments[2]), untyped = PyObject_IsTrue(arguments[3]);
    if (plain < 0 || untyped < 0) return NULL;
    self->plain_bytes = plain;
    self->untyped = untyped;
    Py_INCREF(arguments[0]);
    Py_XSETREF(self->handle, (struct fast_handle *)arguments[0]);
    Py_CLEAR(self->decode);
    if (arguments[1] != Py_None) {
        Py_INCREF(arguments[1]);
        self->decode = arguments[1];
    }
    Py_RETURN_NONE;
}

int fast_container_traverse(PyObject *object, visitproc visit, void *arg) {
    struct fast_container *self = (struct fast_container *)object;
    Py_VISIT(self->handle);
    Py_VISIT(self->decode);
    return 0;
}

int fast_container_clear(PyObject *object) {
    struct fast_container *self = (struct fast_container *)object;
    Py_CLEAR(self->handle);
    Py_CLEAR(self->decode);
    return 0;
}

void fast_container_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    fast_container_clear(object);
    Py_TYPE(object)->tp_free(object);
}

PyMemberDef fast_container_members[] = {
    {"_handle", T_OBJECT_EX, offsetof(struct fast_container, handle), READONLY,
     "The open container."},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the module ---- */

static PyObject *is_in_main(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

static PyObject *configure(PyObject *module, PyObject *encode) {
    (void)module;
    Py_INCREF(encode);
    Py_XSETREF(encode_msgpack, encode);
    Py_RETURN_NONE;
}

PyMODINIT_FUNC PyInit__fast(void);

PyMODINIT_FUNC PyInit__fast(void) {
    static PyMethodDef methods[4] = {
        {"configure", configure, METH_O, "configure(encode): how values are encoded."},
        {"is_in_main", is_in_main, METH_NOARGS,
         "is_in_main(): whether the calling interpreter is the process's first."},
    };
    static struct PyModuleDef definition = {
        PyModuleDef_HEAD_INIT,
        .m_name = "pmlog._fast",
        .m_doc = "The library's hot calls; see python/fast.h.",
        .m_size = -1,
        .m_methods = methods,
    };
    methods[2] = fast_pack_method;
    PyObject *module = PyModule_Create(&definition);
    PyTypeObject *types[] = {&fast_core_type, &fast_handle_type, &fast_transaction_type,
                             &fast_dict_type, &fast_deque_type,  &fast_region_type};
    for (size_t i = 0; module && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0) Py_CLEAR(module);
    return module;
}
