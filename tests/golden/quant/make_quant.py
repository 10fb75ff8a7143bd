#!/usr/bin/env python3
"""Writes one small GGUF for each block type that qgc reads, with the float32 values that it stands for.

    python3 tests/golden/quant/make_quant.py

    TYPE.gguf   one tensor "t" of 3 rows and 512 columns
    TYPE.f32    its 3 * 512 values, float32, little-endian, row by row
    mixed.gguf  all the tensors in one file, each named after its type in lower case

Where the gguf package has a quantizer, it made the blocks from numbers; for the K types, whose quantizers
it lacks, the blocks are random bytes with sane scales. The expected values always come from its dequantizer.
They are products and sums of float32 in the order of that package: a compiler that contracts a*b+c into
one operation may differ in the last bit for the types with a minimum (Q4_1, Q5_1, Q4_K, Q5_K).
"""
import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, COLS = 3, 512
FROM_NUMBERS = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
# In each K block, the places of its fp16 scales.
FROM_BYTES = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}


def numbers(rng):
    """Rows of different size, a block of zeros, an outlier and a block of one sign."""
    x = rng.standard_normal((ROWS, COLS)).astype(np.float32)
    x *= np.array([[1.0], [1e-3], [300.0]], np.float32)
    x[0, 32:64] = 0.0
    x[0, 100] = -40.0
    x[1, 64:96] = np.abs(x[1, 64:96])
    return x


def random_blocks(rng, kind, scales):
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * COLS // elems, size), dtype=np.uint8)
    for at in scales:
        d = rng.uniform(1e-4, 2e-2, len(blocks)).astype(np.float16)
        blocks[:, at:at + 2] = d.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def write(path, tensors):
    w = gguf.GGUFWriter(path, "qwen2")
    w.add_name("block types, for tests")
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, kind, data in tensors:
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    rng = np.random.default_rng(20)
    x = numbers(rng)
    made = [(k, gguf.quants.quantize(x, k)) for k in FROM_NUMBERS]
    made += [(k, random_blocks(rng, k, scales)) for k, scales in FROM_BYTES.items()]
    for kind, data in made:
        want = gguf.quants.dequantize(data, kind).astype("<f4")
        assert want.shape == (ROWS, COLS) and np.isfinite(want).all(), kind.name
        write(os.path.join(HERE, f"{kind.name}.gguf"), [("t", kind, data)])
        want.tofile(os.path.join(HERE, f"{kind.name}.f32"))
        error = np.abs(want - x).max(axis=1) if kind in FROM_NUMBERS else None
        print(f"{kind.name:5} {data.nbytes:6} bytes", "" if error is None else f"largest error in each row {error}")
    write(os.path.join(HERE, "mixed.gguf"), [(kind.name.lower(), kind, data) for kind, data in made])

    # What was written must read back as what was meant.
    for t in gguf.GGUFReader(os.path.join(HERE, "mixed.gguf")).tensors:
        want = np.fromfile(os.path.join(HERE, f"{t.tensor_type.name}.f32"), "<f4").reshape(ROWS, COLS)
        assert list(t.shape) == [COLS, ROWS], t.name
        assert np.array_equal(gguf.quants.dequantize(t.data, t.tensor_type), want), t.name


if __name__ == "__main__":
    main()
