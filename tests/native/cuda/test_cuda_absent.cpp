// A library that was built without nvcc, on a machine that has a GPU.
#include <doctest/doctest.h>

#include "../random_bundle.h"
#include "stand_in.h"

using namespace deepsim::tests;

TEST_CASE("a library built without nvcc says so") {
  const RandomBundle bundle(false);
  std::string kind, text;
  try {
    deepsim::runtime::Inverter(bundle.path(), on_gpu());
  } catch (const deepsim::Error& error) {
    kind = error.kind();
    text = error.what();
  }
  CHECK(kind == "DeviceError");
  CHECK(text.find("cuda: this libdeepsim was built without nvcc, so it has no kernels for GPUs.") == 0);
}
