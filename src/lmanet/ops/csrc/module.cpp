// Python module lmanet.ops._native.

#include <nanobind/nanobind.h>

NB_MODULE(_native, m) { m.doc() = "The CPU kernel of local attention."; }
