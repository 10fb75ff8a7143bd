/* What pack_blocks.cu and unpack_blocks.cu are compiled for: a phase of the persistent kernel and the block format of its matrices. */
#pragma once
#ifndef K
#define K 1024
#endif
#ifndef FORMAT
#define FORMAT Q4_0
#endif
#ifndef TILES /* that a block usually has */
#define TILES 4
#endif
#ifndef OUT0
#define OUT0 1024
#define OUT1 0
#define OUT2 0
#define OUT3 0
#endif
#ifndef PLACE
#define PLACE FIRST(0) * 576ull
#endif
#include "pack.cuh"
#include "stream_blocks.cuh"
