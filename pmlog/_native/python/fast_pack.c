/* Many keys and values into the columns that the engine's bulk calls take. */
#include "fast.h"

static bool put(struct fast_column *column, const void *data, size_t size) {
    if (!size) return true;
    if (column->size + size > column->capacity) {
        size_t wanted = column->capacity ? 2 * column->capacity : 4096;
        while (wanted < column->size + size) wanted *= 2;
        char *bigger = PyMem_Realloc(column->data, wanted);
        if (!bigger) {
            PyErr_NoMemory();
            return false;
        }
        column->data = bigger;
        column->capacity = wanted;
    }
    memcpy(column->data + column->size, data, size);
    column->size += size;
    return true;
}

static bool put_packed(struct fast_column *bytes, struct fast_column *words,
                       struct fast_bytes *packed) {
    bool done = put(bytes, packed->data, packed->word >> 8) && put(words, &packed->word, 8);
    fast_done(packed);
    return done;
}

/* What the fast way does not know, by Python's: `encode` answers (bytes, word). */
static bool put_slowly(struct fast_column *bytes, struct fast_column *words, PyObject *encode,
                       PyObject *object) {
    if (PyErr_Occurred()) return false;
    PyObject *pair = PyObject_CallOneArg(encode, object);
    struct fast_bytes packed = {0};
    Py_ssize_t size = 0;
    char *data = NULL;
    bool good = pair && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 &&
                PyBytes_AsStringAndSize(PyTuple_GET_ITEM(pair, 0), &data, &size) == 0;
    if (good) {
        packed.data = data;
        packed.word = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(pair, 1));
        good = !PyErr_Occurred() && packed.word >> 8 == (uint64_t)size;
    }
    if (!good && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "an encoder answers bytes and their word");
    good = good && put_packed(bytes, words, &packed);
    Py_XDECREF(pair);
    return good;
}

bool fast_put(struct fast_column *bytes, struct fast_column *words, PyObject *encode,
              PyObject *object, bool is_key) {
    struct fast_bytes packed;
    return (is_key ? fast_key(object, &packed) : fast_value(object, &packed))
               ? put_packed(bytes, words, &packed)
               : put_slowly(bytes, words, encode, object);
}

void fast_drop(struct fast_column *column) {
    PyMem_Free(column->data);
    *column = (struct fast_column){0};
}

static bool pack_pair(struct fast_column columns[4], PyObject *item, PyObject *encode_key,
                      PyObject *encode_value) {
    PyObject *pair = PySequence_Fast(item, "update() takes a mapping, or pairs of key and value");
    if (!pair) return false;
    if (PySequence_Fast_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_ValueError, "an element of length %zd; 2 is required",
                     PySequence_Fast_GET_SIZE(pair));
        Py_DECREF(pair);
        return false;
    }
    /* A pair may be the caller's list, and what encodes its key may empty it. */
    PyObject *key = PySequence_Fast_GET_ITEM(pair, 0), *value = PySequence_Fast_GET_ITEM(pair, 1);
    Py_INCREF(key);
    Py_INCREF(value);
    Py_DECREF(pair);
    bool good = fast_put(&columns[0], &columns[1], encode_key, key, true) &&
                fast_put(&columns[2], &columns[3], encode_value, value, false);
    Py_DECREF(key);
    Py_DECREF(value);
    return good;
}

static PyObject *pack(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *pairs, *encode_key, *encode_value;
    if (!PyArg_ParseTuple(arguments, "OOO", &pairs, &encode_key, &encode_value)) return NULL;
    PyObject *iterator = PyObject_GetIter(pairs);
    if (!iterator) return NULL;
    struct fast_column columns[4] = {{0}};
    Py_ssize_t count = 0;
    PyObject *item, *result = NULL;
    bool good = true;
    while (good && (item = PyIter_Next(iterator))) {
        good = pack_pair(columns, item, encode_key, encode_value);
        Py_DECREF(item);
        count++;
    }
    Py_DECREF(iterator);
    if (good && !PyErr_Occurred())
        result = Py_BuildValue("(ny#y#y#y#)", count, columns[0].data ? columns[0].data : "",
                               (Py_ssize_t)columns[0].size, columns[1].data ? columns[1].data : "",
                               (Py_ssize_t)columns[1].size, columns[2].data ? columns[2].data : "",
                               (Py_ssize_t)columns[2].size, columns[3].data ? columns[3].data : "",
                               (Py_ssize_t)columns[3].size);
    for (size_t i = 0; i < 4; i++) fast_drop(&columns[i]);
    return result;
}

PyMethodDef fast_pack_method = {"pack", pack, METH_VARARGS,
                                "pack(pairs, encode_key, encode_value): how many, then keys, their "
                                "words, values, their words."};
