/* Base of containers.dict.PoolDict: one key. */
#include "fast.h"

/* The value; NULL with *missing: the key is not there; NULL without an error: leave it to Python. */
static PyObject *look_up(struct fast_container *self, PyObject *key, bool *missing) {
    struct fast_bytes packed;
    char buffer[FAST_BYTES];
    int64_t word;
    *missing = false;
    if (!self->handle || !fast_key(key, &packed)) return NULL;
    struct fast_handle *handle = self->handle;
    FAST_CALL(handle->pool, 0, word,
              pml_dict_get(handle->container, packed.data, packed.word, buffer, sizeof buffer));
    if (word == PML_E_MISSING || word == 0) {
        *missing = true;
        return NULL;
    }
    if (word < 0) return fast_is_retried(word) ? NULL : fast_fail(self, word);
    return (uint64_t)word >> 8 <= sizeof buffer ? fast_decode(self, buffer, word) : NULL;
}

static PyObject *subscript(PyObject *object, PyObject *key) {
    bool missing;
    PyObject *value = look_up((struct fast_container *)object, key, &missing);
    if (value || PyErr_Occurred()) return value;
    if (missing) {
        PyErr_SetObject(PyExc_KeyError, key);
        return NULL;
    }
    return PyObject_CallMethod(object, "_look_up", "(O)", key);
}

static PyObject *get(PyObject *object, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *names) {
    if (names || count < 1 || count > 2) {
        PyObject *slow = PyObject_GetAttrString(object, "_get");
        PyObject *value = slow ? PyObject_Vectorcall(slow, arguments, (size_t)count, names) : NULL;
        Py_XDECREF(slow);
        return value;
    }
    bool missing;
    PyObject *value = look_up((struct fast_container *)object, arguments[0], &missing);
    if (value || PyErr_Occurred()) return value;
    PyObject *instead = count == 2 ? arguments[1] : Py_None;
    if (!missing) return PyObject_CallMethod(object, "_get", "OO", arguments[0], instead);
    Py_INCREF(instead);
    return instead;
}

static int as_int(PyObject *result) {
    if (!result) return -1;
    Py_DECREF(result);
    return 0;
}

static int assign(PyObject *object, PyObject *key, PyObject *value) {
    struct fast_container *self = (struct fast_container *)object;
    struct fast_bytes name, content = {0};
    int status = PML_E_BUSY;
    if (!value) return as_int(PyObject_CallMethod(object, "_delete", "(O)", key));
    if (self->handle && fast_key(key, &name) && fast_value(value, &content)) {
        struct fast_handle *handle = self->handle;
        FAST_CALL(
            handle->pool, content.word >> 8, status,
            pml_dict_set(handle->container, name.data, name.word, content.data, content.word));
        fast_done(&content);
        if (status == PML_OK) {
            handle->version++;
            return 0;
        }
    }
    if (PyErr_Occurred()) return -1;
    if (!fast_is_retried(status)) return fast_fail(self, status), -1;
    return as_int(PyObject_CallMethod(object, "_set", "OO", key, value));
}

static int contains(PyObject *object, PyObject *key) {
    struct fast_container *self = (struct fast_container *)object;
    struct fast_bytes packed;
    int found = PML_E_BUSY;
    if (self->handle && fast_key(key, &packed)) {
        FAST_CALL(self->handle->pool, 0, found,
                  pml_dict_has(self->handle->container, packed.data, packed.word));
        if (found >= 0) return found;
    }
    if (!fast_is_retried(found)) return fast_fail(self, found), -1;
    PyObject *answer = PyObject_CallMethod(object, "_has", "(O)", key);
    int truth = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return truth;
}

/* ---- many keys ---- */

#define FIRST_BYTES 256u /* room for each value, at first: what is not used costs no memory */
#define MANY_BYTES_MAX (1ull << 40)

static bool put_keys(struct fast_column *keys, struct fast_column *words, PyObject *names,
                     PyObject *encode_key) {
    PyObject *iterator = PyObject_GetIter(names), *name;
    bool good = iterator != NULL;
    while (good && (name = PyIter_Next(iterator))) {
        good = fast_put(keys, words, encode_key, name, true);
        Py_DECREF(name);
    }
    Py_XDECREF(iterator);
    return good && !PyErr_Occurred();
}

/* Values of all keys at one instant; < 0: the engine's answer. */
static int64_t fetch(struct fast_handle *handle, const struct fast_column *keys,
                     const struct fast_column *words, struct fast_column *values,
                     struct fast_column *found) {
    size_t count = words->size / 8, guess = count * FIRST_BYTES;
    size_t capacity = guess + FAST_BYTES;
    int64_t used = PML_E_MEMORY;
    for (;;) { /* ends: the values have a size */
        char *to = PyMem_Realloc(values->data, capacity);
        char *lengths = PyMem_Realloc(found->data, words->size);
        if (to) values->data = to;
        if (lengths) found->data = lengths;
        if (!to || !lengths) return PML_E_MEMORY;
        /* Many keys take their time: other threads get the interpreter lock meanwhile. */
        FAST_CALL(handle->pool, guess, used,
                  pml_dict_get_many(handle->container, count, keys->data,
                                    (const uint64_t *)(const void *)words->data, to, capacity,
                                    (uint64_t *)(void *)lengths));
        if (used != PML_E_BUFFER || capacity > MANY_BYTES_MAX) return used;
        capacity *= 4;
    }
}

static PyObject *listed(PyObject *object, const struct fast_column *values,
                        const struct fast_column *found, size_t count, PyObject *instead) {
    struct fast_container *self = (struct fast_container *)object;
    PyObject *list = PyList_New((Py_ssize_t)count);
    const char *at = values->data;
    for (size_t i = 0; list && i < count; i++) {
        uint64_t word;
        memcpy(&word, found->data + 8 * i, 8);
        PyObject *value = instead;
        if (word) {
            value = fast_decode(self, at, (int64_t)word);
            if (!value && !PyErr_Occurred())
                value = PyObject_CallMethod(object, "_decode", "y#K", at, (Py_ssize_t)(word >> 8),
                                            (unsigned long long)word);
            at += word >> 8;
        } else {
            Py_INCREF(value);
        }
        if (!value) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, value);
    }
    return list;
}

static PyObject *get_many(PyObject *object, PyObject *arguments) {
    struct fast_container *self = (struct fast_container *)object;
    PyObject *names, *instead, *encode_key;
    if (!PyArg_ParseTuple(arguments, "OOO", &names, &instead, &encode_key)) return NULL;
    struct fast_column keys = {0}, words = {0}, values = {0}, found = {0};
    PyObject *list = NULL;
    int64_t used = 0;
    if (!self->handle) return PyObject_GetAttrString(object, "_handle"); /* raises: never bound */
    if (put_keys(&keys, &words, names, encode_key)) {
        if (words.size) used = fetch(self->handle, &keys, &words, &values, &found);
        if (used >= 0)
            list = listed(object, &values, &found, words.size / 8, instead);
        else if (used == PML_E_BUSY)
            list =
                (Py_INCREF(Py_None), Py_None); /* another thread's transaction is open: ask again */
        else
            fast_fail(self, used);
    }
    fast_drop(&keys);
    fast_drop(&words);
    fast_drop(&values);
    fast_drop(&found);
    return list;
}

static PyMethodDef methods[] = {
    {"_get_many", get_many, METH_VARARGS,
     "_get_many(keys, default, encode_key): a list, or None: the pool is busy."},
    FAST_BIND,
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, key, default=None)\n--\n\n"
     "Look a key up: its value, or the default if it is not there."},
    {NULL, NULL, 0, NULL},
};

static PyMappingMethods mapping = {.mp_subscript = subscript, .mp_ass_subscript = assign};
static PySequenceMethods sequence = {.sq_contains = contains};

PyTypeObject fast_dict_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Dict",
    .tp_basicsize = sizeof(struct fast_container),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_as_mapping = &mapping,
    .tp_as_sequence = &sequence,
    .tp_traverse = fast_container_traverse,
    .tp_clear = fast_container_clear,
    .tp_dealloc = fast_container_dealloc,
    .tp_methods = methods,
    .tp_members = fast_container_members,
};
