// How far what a bundle computes is from its float64 twin.
#pragma once

#include "deepsim/inverter.h"
#include "random_bundle.h"

namespace deepsim::tests {

struct Deviation {
  double features = 0;     // relative, of an image's features; 0 where the bundle does not encode
  double levels = 0;       // mean, of the whole image of features, in grey levels
  bool part = false;       // whether the decoded image is the part of the whole one that the geometry says, bit for bit
  bool iterates = true;    // whether two iterations of re-encoding are two reconstructions, bit for bit
};

Deviation deviation_of(const RandomBundle& bundle, const runtime::Options& options);

// Whether the networks of a recipe ran. Checks that they ran right, features and levels below the limits, or were refused by a
// BundleError whose text has `refusal`.
bool ran_or_refused(const Recipe& recipe, const runtime::Options& options, double features, double levels,
                    const std::string& refusal);

// The instruction sets of this machine, as Options::isa has them.
std::vector<std::string> instruction_sets();

}  // namespace deepsim::tests
