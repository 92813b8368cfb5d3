// Whatever a table of layers can say is computed right, by every instruction set, or refused by name when it is loaded.
#include <doctest/doctest.h>

#include "deviation.h"
#include "drawn_recipes.h"

using deepsim::runtime::Options;
using namespace deepsim::tests;

namespace {

// Draw networks of both kinds; tell how many of a hundred ran.
int percent_run(Recipe (*draw)(unsigned), unsigned count) {
  const std::vector<std::string> names = instruction_sets();
  unsigned ran = 0;
  for (unsigned seed = 0; seed < count; ++seed) {
    CAPTURE(seed);
    Options options;
    options.isa = names[seed % names.size()];
    options.threads = 1 + static_cast<int>(seed % 2);
    ran += ran_or_refused(draw(seed), options, 1e-5, 1e-2, "has no kernel for this ") ? 1 : 0;
  }
  return static_cast<int>(100 * ran / count);
}

}  // namespace

// Sanitizers watch every access: a few draws meet the same code, and the others would take a minute.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kDraws = 20;
#else
constexpr int kDraws = 150;
#endif

TEST_CASE("drawn encoders agree with float64 or are refused by name") { CHECK(percent_run(drawn_encoder, kDraws) > 70); }

TEST_CASE("drawn generators agree with float64 or are refused by name") { CHECK(percent_run(drawn_generator, kDraws) > 50); }
