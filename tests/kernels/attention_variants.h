/* VARIANT(elements of a head, query heads, key-value heads, parts): tests.cmake compiles the kernels for each. */
VARIANT(1, 1, 1, 2)
VARIANT(7, 6, 2, 1)
VARIANT(64, 14, 2, 1)
VARIANT(64, 14, 2, 4)
VARIANT(40, 4, 4, 64)
VARIANT(257, 3, 1, 3)
