// What files and memory are taken through: a file of a bundle, large buffers, JSON of strangers.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "error.h"
#include "files.h"
#include "memory.h"
#include "strict_json.h"

using namespace deepsim::runtime::detail;

namespace {

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("deepsim-files-" + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path / "engines"); }
  ~Folder() { std::filesystem::remove_all(path); }
  void write(const char* name, const std::string& bytes) const { std::ofstream(path / name, std::ios::binary) << bytes; }

  // The file's bytes, "nothing" where there is none, or the name of the error.
  std::string read(const std::string& name, std::optional<std::uint64_t> size = {}, std::uint64_t limit = 100) const {
    try {
      const auto found = map_file(path.string(), name, size, limit);
      return found ? std::string(found->data(), found->size()) : "nothing";
    } catch (const Failure& failure) {
      return kind_name(failure.kind());
    }
  }
};

// "parsed", or the fault's kind as a number and its words.
std::string parsing(const std::string& text, std::size_t depth = 8) {
  try {
    parse_strictly(text, depth);
    return "parsed";
  } catch (const JsonFault& fault) {
    return std::to_string(static_cast<int>(fault.kind)) + " " + fault.what();
  }
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("a file is mapped when it has the size that was promised, or one within the limit") {
  const Folder folder;
  folder.write("weights", "0123456789");
  folder.write("engines/plan", "abc");
  folder.write("empty", "");
  CHECK(folder.read("weights") == "0123456789");
  CHECK(folder.read("weights", 10, 0) == "0123456789");
  CHECK(folder.read("weights", 11) == "BundleCorrupt");
  CHECK(folder.read("weights", 9) == "BundleCorrupt");
  CHECK(folder.read("weights", {}, 9) == "BundleUnsafe");
  CHECK(folder.read("weights", {}, 10) == "0123456789");
  CHECK(folder.read("engines/plan", 3) == "abc");
  CHECK(folder.read("empty", 0) == "");
  CHECK(folder.read("empty") == "");
  CHECK(folder.read("other") == "nothing");
  CHECK(folder.read("engines/other") == "nothing");
  CHECK(folder.read("nowhere/plan") == "nothing");
}

TEST_CASE("nothing but regular files below the folder is read, and no link on the way is followed") {
  const Folder folder;
  folder.write("weights", "0123");
  std::filesystem::create_symlink("weights", folder.path / "link");
  std::filesystem::create_directory_symlink("engines", folder.path / "linked");
  folder.write("engines/plan", "abc");
  REQUIRE(mkfifo((folder.path / "pipe").c_str(), 0600) == 0);
  CHECK(folder.read("link") == "BundleUnsafe");
  CHECK(folder.read("linked/plan") == "BundleUnsafe");
  CHECK(folder.read("weights/plan") == "BundleUnsafe");  // a file as a folder
  CHECK(folder.read("engines") == "BundleUnsafe");
  CHECK(folder.read("pipe") == "BundleUnsafe");  // and does not wait for who writes
  if (geteuid() != 0) {
    std::filesystem::permissions(folder.path / "weights", std::filesystem::perms::none);
    CHECK(folder.read("weights") == "BundleError");
  }
}

TEST_CASE("numbers are grouped by thousands") {
  CHECK(with_commas(0) == "0");
  CHECK(with_commas(999) == "999");
  CHECK(with_commas(1000) == "1,000");
  CHECK(with_commas(1234567) == "1,234,567");
  CHECK(with_commas(std::numeric_limits<std::uint64_t>::max()) == "18,446,744,073,709,551,615");
}

TEST_CASE("buffers are aligned, hold their bytes to the last and change owners") {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{4097}, std::size_t{65536},
                                  std::size_t{65537}, std::size_t{2} << 20, (std::size_t{2} << 20) + 1}) {
    CAPTURE(bytes);
    Buffer first(bytes);
    CHECK(first.bytes() == bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(first.as<char>()) % 64 == 0);
    std::memset(first.as<char>(), 5, bytes);
    char* const before = first.as<char>();
    const Buffer second = std::move(first);
    CHECK(second.as<char>() == before);
    CHECK(second.as<char>()[bytes - 1] == 5);
    CHECK(first.as<char>() == nullptr);
  }
  CHECK(Buffer().as<char>() == nullptr);
  CHECK(Buffer(0).bytes() == 0);
}

TEST_CASE("memory that is not to be had is an error with its size, also where rounding up would overflow") {
  for (const std::size_t bytes :
       {std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max() - 5000, std::size_t{1} << 62}) {
    try {
      const Buffer buffer(bytes);
      CHECK(false);
    } catch (const Failure& failure) {
      CHECK(failure.kind() == deepsim::runtime::ErrorKind::out_of_memory);
      CHECK(std::string(failure.what()).find("memory: " + std::to_string(bytes) + " bytes are not to be had") == 0);
    }
  }
}

TEST_CASE("JSON of strangers: nesting is bounded, no key comes twice, and a fault of syntax has a place") {
  CHECK(parsing(R"({"a": [1, 2.5, "x", null, true], "b": {"a": 1}})") == "parsed");
  CHECK(parsing(nested(8)) == "parsed");
  CHECK(parsing(nested(9)) == "1 nested too deep");
  CHECK(parsing(nested(9), 9) == "parsed");
  CHECK(parsing(R"([{"a": 1}, {"a": 1}])") == "parsed");
  CHECK(parsing(R"({"a": 1, "b": 2, "a": 1})") == "2 a key appears twice");
  CHECK(parsing(R"({"b": {"a": 1, "\u0061": 2}})") == "2 a key appears twice");
  CHECK(parsing(std::string(100000, '[')) == "1 nested too deep");
  for (const char* text : {"", "{", "[1,]", "nul", "{\"a\" 1}", "\"\xff\"", "[1] 2", "01", "1e", "'a'", "[NaN]"}) {
    CAPTURE(text);
    CHECK(parsing(text).rfind("0 ", 0) == 0);
  }
  CHECK(parsing("[1, x]").find("column 5") != std::string::npos);
}
