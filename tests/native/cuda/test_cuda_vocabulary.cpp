// Whatever a table of layers can say is computed right on the emulated GPU or refused by name when it is loaded.
#include <doctest/doctest.h>

#include "../deviation.h"
#include "../drawn_recipes.h"
#include "stand_in.h"

using deepsim::runtime::Options;
using namespace deepsim::tests;

namespace {

bool runs(const Recipe& recipe, const char* precision, double features, double levels) {
  const Options options = on_gpu(2, true, precision);
  return ran_or_refused(recipe, options, features, levels, "the cuda backend has no kernel for this ");
}

int count_run(Recipe (*draw)(unsigned), unsigned first, unsigned end) {
  int ran = 0;
  for (unsigned seed = first; seed < end; ++seed) {
    CAPTURE(seed);
    ran += seed % 2 == 0 ? runs(draw(seed), "fp32", 1e-5, 1e-2) : runs(draw(seed), "fp16", 4e-3, 0.6);
  }
  return ran;
}

}  // namespace

TEST_CASE("drawn networks agree with float64 on the emulated GPU or are refused by name") {
  CHECK(count_run(drawn_encoder, 1000, 1006) > 3);
  CHECK(count_run(drawn_generator, 1000, 1010) > 4);
}
