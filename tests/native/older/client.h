// A program compiled with older/deepsim.h, the header of the first version of the C ABI, which stays as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace deepsim::tests {

struct OlderClient {
  std::size_t options_size = 0;
  int image_size = 0, full_image_size = 0;
  std::string encoder, error;             // of the bundle; of the call that failed, if any
  std::vector<std::uint8_t> reconstructed;  // of the images
};

// Open a bundle with options of the older layout, describe it and reconstruct `n` images.
OlderClient run_older_client(const std::string& bundle, const std::vector<std::uint8_t>& images, int n);

}  // namespace deepsim::tests
