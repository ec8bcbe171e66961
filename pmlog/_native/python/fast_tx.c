/* Base of transaction.Transaction: the outermost block, entered and left without trouble. */
#include "fast.h"

#define NEW 0
#define ENDED (-1)

struct fast_transaction {
    PyObject_HEAD struct fast_core *core;
    long long id;     /* of the open transaction; NEW, ENDED */
    Py_ssize_t depth; /* of this block; 1: the outermost */
};

static PyObject *enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct fast_transaction *self = (struct fast_transaction *)object;
    struct fast_core *core = self->core;
    int status = PML_E_BUSY;
    if (core && self->id == NEW && core->owner == 0 && pml_prompt_begin(core->pool, 0)) {
        status = pml_tx_begin(core->pool, core->tx_id);
        pml_prompt_end();
    }
    if (status != PML_OK) return PyObject_CallMethod(object, "_enter", NULL);
    self->id = (long long)*core->tx_id;
    core->owner = PyThread_get_thread_ident();
    self->depth = core->depth = 1;
    Py_INCREF(object);
    return object;
}

static PyObject *leave(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
    struct fast_transaction *self = (struct fast_transaction *)object;
    struct fast_core *core = self->core;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "__exit__ takes a class, an exception and a traceback");
        return NULL;
    }
    bool plain = core && arguments[0] == Py_None && self->depth == 1 && core->depth == 1 &&
                 self->id > NEW && core->owner == PyThread_get_thread_ident() && core->doomed &&
                 PyUnicode_Check(core->doomed) && !PyUnicode_GET_LENGTH(core->doomed);
    if (!plain)
        return PyObject_CallMethod(object, "_exit", "OOO", arguments[0], arguments[1],
                                   arguments[2]);
    /* Before the engine lets go: the next owner may be there at once. */
    core->owner = 0;
    core->depth = 0;
    int status;
    FAST_CALL(core->pool, 0, status, pml_tx_commit(core->pool, (uint64_t)self->id));
    if (status != PML_OK) return PyObject_CallMethod(object, "_commit_failed", "i", status);
    self->id = ENDED;
    if (core->events && PyList_Check(core->events) && PyList_GET_SIZE(core->events) &&
        PyList_SetSlice(core->events, 0, PyList_GET_SIZE(core->events), NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int init(PyObject *object, PyObject *arguments, PyObject *names) {
    struct fast_transaction *self = (struct fast_transaction *)object;
    PyObject *core;
    if (names && PyDict_GET_SIZE(names)) {
        PyErr_SetString(PyExc_TypeError, "a transaction takes its pool, and no names");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "O!", &fast_core_type, &core)) return -1;
    Py_INCREF(core);
    Py_XSETREF(self->core, (struct fast_core *)core);
    self->id = NEW;
    self->depth = 0;
    return 0;
}

/* A transaction that nobody can end any more is rolled back. */
static void finalize(PyObject *object) {
    struct fast_transaction *self = (struct fast_transaction *)object;
    if (self->id <= NEW || !self->core) return;
    PyObject *error = fast_error_take();
    PyObject *done = PyObject_CallMethod(object, "_abandon", NULL);
    if (!done) PyErr_WriteUnraisable(object);
    Py_XDECREF(done);
    fast_error_give(error);
}

static int traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(((struct fast_transaction *)object)->core);
    return 0;
}

static int clear(PyObject *object) {
    Py_CLEAR(((struct fast_transaction *)object)->core);
    return 0;
}

static void dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    clear(object);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef methods[] = {
    {"__enter__", enter, METH_NOARGS, "Begin."},
    {"__exit__", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, "Commit, or undo."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_core", T_OBJECT_EX, offsetof(struct fast_transaction, core), READONLY, "The pool."},
    {"_id", T_LONGLONG, offsetof(struct fast_transaction, id), 0, "Of the open transaction."},
    {"_depth", T_PYSSIZET, offsetof(struct fast_transaction, depth), 0, "Of this block."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject fast_transaction_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pmlog._fast.Transaction",
    .tp_basicsize = sizeof(struct fast_transaction),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = init,
    .tp_traverse = traverse,
    .tp_clear = clear,
    .tp_dealloc = dealloc,
    .tp_finalize = finalize,
    .tp_methods = methods,
    .tp_members = members,
};
