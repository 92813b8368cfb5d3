// Runs a fuzz target without a fuzzer: every file of the folders given, then fixed mutations of each, the same on every
// machine. "--mutations N" for another number in all; a single file is run as it is. A sanitizer ends the program at once:
// "--verbose" says before each run what it is.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

bool verbose = false;

Input read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::printf("%s: cannot be read, expected a file or a folder of files. Give a corpus.\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// A place in 0..size; the standard's distributions differ between libraries.
std::size_t below(std::size_t size, std::mt19937& random) { return random() % std::max<std::size_t>(size, 1); }

// One change at a random place: a bit, a byte, a cut, a doubled piece, a number in its place.
void mutate(Input* input, std::mt19937& random) {
  static constexpr const char* numbers[] = {"0", "-1", "65536", "4096", "18446744073709551615", "1e999", "null", "[]"};
  const std::size_t at = below(input->size(), random);
  const std::size_t length = below(std::min<std::size_t>(input->size() - at, 64), random);
  const auto place = input->begin() + static_cast<std::ptrdiff_t>(at);
  const auto end = place + static_cast<std::ptrdiff_t>(length);
  const std::string number = numbers[below(std::size(numbers), random)];
  const Input piece(place, end);
  switch (random() % 6) {
    case 0:
      (*input)[at] = static_cast<std::uint8_t>((*input)[at] ^ (1u << random() % 8));
      break;
    case 1:
      (*input)[at] = static_cast<std::uint8_t>(random());
      break;
    case 2:
      input->resize(at);
      break;
    case 3:
      input->erase(place, end);
      break;
    case 4:
      input->insert(end, piece.begin(), piece.end());
      break;
    default:
      input->insert(input->erase(place, place + 1), number.begin(), number.end());
      break;
  }
}

void run(const Input& input, const std::filesystem::path& path, unsigned mutation) {
  if (verbose) std::fprintf(stderr, "%s, mutation %u\n", path.c_str(), mutation);
  try {
    LLVMFuzzerTestOneInput(input.data(), input.size());
  } catch (const std::exception& error) {
    std::printf("%s, mutation %u: %s\n", path.c_str(), mutation, error.what());
    std::exit(1);
  }
}

void run_mutations(const std::filesystem::path& path, unsigned count) {
  const Input whole = read(path);
  for (unsigned mutation = 1; mutation <= count && !whole.empty(); ++mutation) {  // its number is its seed
    std::mt19937 random(mutation);
    Input input = whole;
    for (unsigned changes = 1 + static_cast<unsigned>(below(3, random)); changes > 0 && !input.empty(); --changes)
      mutate(&input, random);
    run(input, path, mutation);
  }
}

}  // namespace

int main(int count, char** arguments) {
  unsigned mutations = 2000;
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--mutations") == 0 && i + 1 < count) {
      mutations = static_cast<unsigned>(std::atoi(arguments[++i]));
    } else if (std::strcmp(arguments[i], "--verbose") == 0) {
      verbose = true;
    } else {
      for (const auto& file : files_of(arguments[i])) files.push_back(file);
    }
  }
  const unsigned each = files.size() > 1 ? mutations / static_cast<unsigned>(files.size()) : 0;
  for (const auto& file : files) run(read(file), file, 0);
  for (const auto& file : files) run_mutations(file, each);
  std::printf("%zu files, %zu mutations: no error but typed ones\n", files.size(), files.size() * each);
  return files.empty() ? 1 : 0;
}
