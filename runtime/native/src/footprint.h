// What a layer takes in memory once it is lowered, found before anything is allocated: a table of a few hundred bytes
// can ask for terabytes. In doubles, which no product of a table's fields overflows.
#pragma once

#include "layer.h"

namespace deepsim::runtime::detail {

struct Footprint {
  double weights = 0;      // floats, padding and zeros between groups included
  double activations = 0;  // floats of one image: input after space-to-depth, output, or what a row of windows reads
};

// `stored` is the shape in which the output is kept: the next layer's where that reshapes a fully connected one.
// Raises BundleError for a kind that it does not know.
Footprint footprint_of(const Layer& layer, const Shape& input, const Shape& stored, bool from_pixels, bool to_pixels);

}  // namespace deepsim::runtime::detail
