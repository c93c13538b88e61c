#pragma once

// VARSCOPE_VECTOR_CLONES before a non-template function compiles it for several x86-64 vector widths and
// picks one when the program starts. The bits are the same in each: contraction is off
// (cmake/VarscopeTargets.cmake) and IEEE operations round alike at every width. Off under sanitizers, whose
// start-up does not bear resolvers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(VARSCOPE_SANITIZED)
#define VARSCOPE_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VARSCOPE_VECTOR_CLONES
#endif
