/* VARIANT(tokens of the vocabulary, threads of a block, chunk): tests.cmake compiles the kernels for each. */
VARIANT(1, 64, 32)
VARIANT(31, 64, 32)
VARIANT(1000, 64, 32)
VARIANT(1000, 1024, 32)
VARIANT(5003, 64, 48)
VARIANT(5003, 128, 8)
VARIANT(151936, 1024, 32)
