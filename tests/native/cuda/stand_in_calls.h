// How the functions of the stand-in driver begin: a call is counted, and fails where a test says so.
#pragma once

#include "stand_in_state.h"

#define COUNTED(name) \
  if (fails(#name)) return failure()

// What gives something back tells of earlier faults, and has given it back all the same.
#define GIVES_BACK(name) const int result = fails(#name) ? kFault : kSuccess

// What might wait for a stream that another thread captures.
#define UNSAFE \
  if (breaks_capture()) return kCaptureUnsupported
