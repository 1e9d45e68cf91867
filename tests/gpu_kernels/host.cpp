// One unit of csrc/cuda as a library: -DSOURCE="..." and the unit's macros choose it.
#include "host.h"
#include SOURCE

#define PLAY(kernel, Arguments, meets)                                                           \
  extern "C" void play_##kernel(const fastsnn::Arguments* a, int64_t blocks) {                   \
    play([](const fastsnn::Arguments& b) { fastsnn::kernel(b); }, *a, blocks, fastsnn::THREADS, meets); \
  }

#if defined(UNIT_SPAN)
PLAY(forward_wide, IntegrateFire, false)
PLAY(forward_narrow, IntegrateFire, false)
PLAY(backward_wide, IntegrateFire, a->tally != nullptr)
PLAY(backward_narrow, IntegrateFire, a->tally != nullptr)
#elif defined(ENCODES)
PLAY(encode_wide, PhaseEncode, false)
PLAY(encode_narrow, PhaseEncode, false)
#else
PLAY(step_wide, AttackStep, false)
PLAY(step_narrow, AttackStep, false)
#endif
