#!/usr/bin/env python3
"""Continues a text by libqgc, called through ctypes: embed.py MODEL.qgc WEIGHTS TEXT [LIBRARY]"""
import ctypes as c
import sys


class OpenOptions(c.Structure):
    """qgc_open_options of include/qgc.h, as far as it is used: the library goes by the size."""
    _fields_ = [("size", c.c_size_t), ("path", c.c_char_p), ("weights", c.c_char_p), ("device", c.c_char_p)]


def load(library):
    qgc = c.CDLL(library)
    for name in ("qgc_open", "qgc_encode", "qgc_begin", "qgc_feed", "qgc_step"):
        getattr(qgc, name).restype = c.c_void_p  # NULL, or an error
    qgc.qgc_error_text.restype = c.c_char_p
    qgc.qgc_piece.restype = c.POINTER(c.c_char)
    return qgc


def check(qgc, error):
    if error:
        text, code = qgc.qgc_error_text(c.c_void_p(error)), qgc.qgc_error_code(c.c_void_p(error))
        qgc.qgc_error_free(c.c_void_p(error))
        sys.stderr.write(text.decode())
        sys.exit(code)


def write(qgc, model, weights, prompt, most=40):
    engine, text = c.c_void_p(), c.c_void_p()
    options = OpenOptions(c.sizeof(OpenOptions), model.encode(), weights.encode(), None)
    check(qgc, qgc.qgc_open(c.byref(engine), c.byref(options)))
    ids, n, token, size = (c.c_int32 * 512)(), c.c_size_t(), c.c_int32(), c.c_size_t()
    data = prompt.encode()
    check(qgc, qgc.qgc_encode(engine, data, c.c_size_t(len(data)), 1, ids, c.c_size_t(512), c.byref(n)))
    check(qgc, qgc.qgc_begin(c.byref(text), engine, None))
    check(qgc, qgc.qgc_feed(text, ids, c.c_size_t(min(n.value, 512)), c.byref(token)))
    out = b""
    for i in range(most):
        if qgc.qgc_is_end(engine, token):
            break
        piece = qgc.qgc_piece(engine, token, c.byref(size))
        out += piece[:size.value]
        check(qgc, qgc.qgc_step(text, c.c_int64(most - i), c.byref(token)))
    qgc.qgc_end(text)
    qgc.qgc_close(engine)
    print(out.decode(errors="replace"))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    write(load(sys.argv[4] if len(sys.argv) > 4 else "libqgc.so.1"), *sys.argv[1:4])
