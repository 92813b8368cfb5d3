#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "error.h"

namespace deepsim::runtime::detail {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void raise_for(int error, const std::string& path) {
  if (error == ENOMEM) {
    throw Failure(ErrorKind::out_of_memory, path + ": does not fit into memory. Free memory, or raise the limit on it.");
  }
  if (error == EMFILE || error == ENFILE) {
    throw Failure(ErrorKind::device, path + ": " + std::strerror(error) + ". Close files, or raise the limit on them.");
  }
  if (error == ELOOP || error == ENOTDIR || error == ENXIO) {  // what a link, a file as folder, a socket answer
    throw Failure(ErrorKind::bundle_unsafe, path + ": not a regular file reached without links. Do not use this bundle.");
  }
  throw Failure(ErrorKind::bundle, path + ": " + std::strerror(error) + ", expected a readable file. Check its permissions.");
}

// Open one path component at a time, following no link below `folder`; -1 when something on the way does not exist.
Descriptor open_below(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  Descriptor current(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (std::size_t begin = 0; current.get() >= 0 && begin <= name.size();) {
    const std::size_t slash = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, slash - begin);
    const int kind = slash < name.size() ? O_DIRECTORY : O_NONBLOCK;  // a FIFO must not block us
    current = Descriptor(openat(current.get(), part.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind));
    begin = slash + 1;
  }
  if (current.get() < 0 && errno != ENOENT) raise_for(errno, path);
  return current;
}

void check_size(const std::string& path, std::uint64_t found, std::optional<std::uint64_t> size, std::uint64_t limit) {
  if (!size && found > limit) {
    throw Failure(ErrorKind::bundle_unsafe,
                  path + ": " + with_commas(found) + " bytes, expected at most " + with_commas(limit) + ". Do not use it.");
  }
  if (size && found != *size) {
    throw Failure(ErrorKind::bundle_corrupt, path + ": " + with_commas(found) + " bytes, expected " + with_commas(*size) +
                                                 ". Copy or export the bundle again.");
  }
}

}  // namespace

Bytes::~Bytes() {
  if (mapped_) munmap(const_cast<char*>(data_), size_);
}

std::shared_ptr<const Bytes> map_file(const std::string& folder, const std::string& name, std::optional<std::uint64_t> size,
                                      std::uint64_t limit) {
  const std::string path = folder + "/" + name;
  const Descriptor file = open_below(folder, name);
  if (file.get() < 0) return nullptr;
  struct stat status{};
  if (fstat(file.get(), &status) != 0) raise_for(errno, path);
  if (!S_ISREG(status.st_mode)) {
    throw Failure(ErrorKind::bundle_unsafe, path + ": not a regular file. Do not use this bundle.");
  }
  const auto found = static_cast<std::uint64_t>(status.st_size);
  check_size(path, found, size, limit);
  if (found == 0) return std::make_shared<Bytes>("", std::size_t{0}, false);
  void* data = mmap(nullptr, found, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) raise_for(errno, path);
  return std::make_shared<Bytes>(static_cast<const char*>(data), static_cast<std::size_t>(found), true);
}

std::string with_commas(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

}  // namespace deepsim::runtime::detail
