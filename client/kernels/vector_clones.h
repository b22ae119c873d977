#pragma once

/// Before a function whose loops are worth the widest vectors that the processor has: it is
/// compiled for AVX-512, for AVX2 and for the baseline, and the loader picks one. The build
/// contracts no multiplication with an addition, and sums run over a fixed number of lanes, so that
/// all of them compute the same bits. Sanitizers are not ready when the loader picks; they get the
/// baseline.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ISOSCAN_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define ISOSCAN_VECTOR_CLONES
#endif
