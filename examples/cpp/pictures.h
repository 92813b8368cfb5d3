// Picture files for the examples: PNG, JPEG and PPM in, PNG and PPM out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Picture {
  int height = 0, width = 0;
  std::vector<std::uint8_t> rgb;  // (height, width, 3), 0-255
};

// Throw std::runtime_error with one line naming the file.
Picture read_picture(const std::string& path);
void write_picture(const std::string& path, const Picture& picture);
