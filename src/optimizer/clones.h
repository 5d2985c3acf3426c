// One binary serves machines with and without AVX-512: loops marked GANGLION_CLONES are compiled for each and the
// fastest that runs is chosen when the program starts.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(GANGLION_SANITIZED)
#define GANGLION_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GANGLION_CLONES
#endif
