#include "pictures.h"

#include <stdexcept>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_PNM
#define STB_IMAGE_WRITE_IMPLEMENTATION
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "third_party/stb_image.h"
#include "third_party/stb_image_write.h"

#include <cstdio>

namespace {

bool write_ppm(const std::string& path, const Picture& picture) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  const bool header = std::fprintf(file, "P6\n%d %d\n255\n", picture.width, picture.height) > 0;
  const bool written = std::fwrite(picture.rgb.data(), 1, picture.rgb.size(), file) == picture.rgb.size();
  return std::fclose(file) == 0 && header && written;
}

}  // namespace

Picture read_picture(const std::string& path) {
  Picture picture;
  int channels = 0;
  std::uint8_t* data = stbi_load(path.c_str(), &picture.width, &picture.height, &channels, 3);
  if (data == nullptr) throw std::runtime_error(path + ": not a readable PNG, JPEG or PPM picture. Check the file.");
  picture.rgb.assign(data, data + static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height) * 3);
  stbi_image_free(data);
  return picture;
}

void write_picture(const std::string& path, const Picture& picture) {
  const bool ppm = path.size() > 4 && path.compare(path.size() - 4, 4, ".ppm") == 0;
  const bool written =
      ppm ? write_ppm(path, picture)
          : stbi_write_png(path.c_str(), picture.width, picture.height, 3, picture.rgb.data(), picture.width * 3) != 0;
  if (!written) throw std::runtime_error(path + ": cannot be written. Check the folder and the free space.");
}
