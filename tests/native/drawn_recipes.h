// Small networks of whatever layers a table can hold, drawn from a seed: each must compute right or be refused by name.
#pragma once

#include "random_bundle.h"

namespace deepsim::tests {

// An encoder of a square of up to 40 pixels; its generator is a fully connected layer and a convolution of one pixel.
Recipe drawn_encoder(unsigned seed);

// A generator, without an encoder, whose output is square and of up to 60 pixels.
Recipe drawn_generator(unsigned seed);

}  // namespace deepsim::tests
