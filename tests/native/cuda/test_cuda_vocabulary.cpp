// Whatever a table of layers can say is computed right on the emulated GPU or refused by name when it is loaded.
#include <doctest/doctest.h>

#include "../deviation.h"
#include "../drawn_recipes.h"
#include "stand_in.h"

using deepsim::Error;
using namespace deepsim::tests;

namespace {

// Whether the networks ran; that they ran right, or were refused in words, is checked.
bool runs(const Recipe& recipe, const char* precision, double features, double levels) {
  try {
    const Deviation found = deviation_of(RandomBundle(recipe), on_gpu(2, true, precision));
    CHECK(found.features < features);
    CHECK(found.levels < levels);
    CHECK(found.part);
    CHECK(found.iterates);
    return true;
  } catch (const Error& error) {
    CAPTURE(error.what());
    CHECK(error.kind() == "BundleError");
    CHECK(std::string(error.what()).find("the cuda backend has no kernel for this ") != std::string::npos);
    return false;
  }
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
