/* Which elements of a head rotary position embedding turns together, and what it does to two of them (arxiv.org/abs/2104.09864). */
#pragma once

/* Of HeadDim elements, Rotary from First on turn in pairs: pair p is elements p and p + Rotary / 2 of them (NEOX), or 2 p and 2 p + 1
 * if Interleaved. The others stay; they come two by two after those that turn, so that a head is HeadDim / 2 pairs. */
template <int HeadDim, int First, int Rotary, bool Interleaved> struct pairing {
    enum { TURNED = Rotary / 2 };

    static __device__ __forceinline__ int element(int pair, int which) {
        if (Rotary == HeadDim || pair < TURNED)
            return First + (Interleaved ? 2 * pair + which : pair + which * TURNED);
        const int rest = 2 * (pair - TURNED) + which;
        return rest < First ? rest : rest + Rotary;
    }
    static __device__ __forceinline__ bool turns(int pair) { return Rotary == HeadDim || pair < TURNED; }
};

/* `by`: cosine and sine. */
__device__ __forceinline__ float2 turned(float a, float b, float2 by) {
    return make_float2(a * by.x - b * by.y, b * by.x + a * by.y);
}
