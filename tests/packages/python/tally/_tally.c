#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *count(PyObject *self, PyObject *args) {
    PyObject *list, *word;
    if (!PyArg_ParseTuple(args, "OO", &list, &word)) return NULL;
    return PyLong_FromSsize_t(PySequence_Count(list, word));
}

static PyMethodDef methods[] = {{"count", count, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_tally", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__tally(void) { return PyModule_Create(&module); }
