#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

#include "error.h"
#include "strict_json.h"

namespace deepsim::runtime::detail {

namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxHeader = 1 << 20;  // thousands of tensors; parsed, it takes up to fifty times as much
constexpr std::size_t kMaxDepth = 4;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 40;
struct ElementType {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr ElementType kTypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
                                  {"I32", 4},  {"U32", 4}, {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}};

[[noreturn]] void invalid(const std::string& source, const std::string& what) {
  throw Failure(ErrorKind::bundle, source + ": not valid safetensors (" + what + "). Export the bundle again.");
}

std::uint64_t unsigned_of(const json& value, const std::string& source, const char* what) {
  if (!value.is_number_unsigned()) invalid(source, what);
  return value.get<std::uint64_t>();
}

json parse_header(const std::string& source, const char* begin, std::uint64_t size) {
  try {
    json header = parse_strictly({begin, static_cast<std::size_t>(size)}, kMaxDepth);
    if (!header.is_object()) invalid(source, "its header is no object");
    return header;
  } catch (const JsonFault& fault) {
    invalid(source, std::string("its header: ") + fault.what());
  }
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

// Whether no value is NaN or infinite: their exponents have all bits set.
bool all_finite(const float* values, std::uint64_t count) {
  std::uint32_t highest = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    highest = std::max(highest, bits & 0x7fffffffu);
  }
  return highest < 0x7f800000u;
}

}  // namespace

Tensors Tensors::parse(std::shared_ptr<const Bytes> data, const std::string& source) {
  Tensors tensors;
  tensors.source_ = source;
  if (data->size() < 8) invalid(source, "shorter than its header");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(data->data()[i])} << (8 * i);
  if (length > data->size() - 8) invalid(source, "its header is longer than the file");
  if (length > kMaxHeader) invalid(source, "its header is longer than " + with_commas(kMaxHeader) + " bytes");
  const std::uint64_t data_size = data->size() - 8 - length;
  const json header = parse_header(source, data->data() + 8, length);
  std::map<std::uint64_t, std::uint64_t> places;
  for (const auto& [name, record] : header.items()) {
    if (name == "__metadata__") continue;
    const bool complete = record.is_object() && record.contains("dtype") && record.contains("shape") &&
                          record.contains("data_offsets") && record.at("dtype").is_string() && record.at("shape").is_array() &&
                          record.at("data_offsets").is_array() && record.at("data_offsets").size() == 2;
    if (!complete) invalid(source, name + " lacks dtype, shape or data_offsets");
    Entry entry;
    entry.type = record.at("dtype").get<std::string>();
    entry.begin = unsigned_of(record.at("data_offsets")[0], source, "an offset is no whole number");
    entry.end = unsigned_of(record.at("data_offsets")[1], source, "an offset is no whole number");
    std::uint64_t elements = 1;
    for (const json& extent : record.at("shape")) {
      const std::uint64_t value = unsigned_of(extent, source, "an extent is no whole number");
      if (value > kMaxElements || (value > 0 && elements > kMaxElements / value)) invalid(source, name + " is too large");
      elements *= value;
      entry.shape.push_back(static_cast<std::int64_t>(value));
    }
    const auto* const type =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const ElementType& each) { return each.name == entry.type; });
    if (type == std::end(kTypes)) invalid(source, name + " has the unknown type " + entry.type);
    if (entry.end > data_size) invalid(source, name + " ends after the file");  // an empty one is in no place either
    if (entry.end < entry.begin || entry.end - entry.begin != elements * type->bytes) {
      invalid(source, name + " has offsets that do not fit its shape");
    }
    if (entry.end > entry.begin && !places.emplace(entry.begin, entry.end).second) invalid(source, "tensors overlap");
    tensors.entries_[name] = std::move(entry);
  }
  std::uint64_t at = 0;
  for (const auto& [begin, end] : places) {
    if (begin != at) invalid(source, begin < at ? "tensors overlap" : "there is a gap between tensors");
    at = end;
  }
  if (at != data_size) invalid(source, "its tensors do not end with the file");
  tensors.data_ = data->data() + 8 + length;
  if (at > 0 && reinterpret_cast<std::uintptr_t>(tensors.data_) % alignof(float) != 0) {
    tensors.copy_ = std::make_shared<std::vector<float>>((at + 3) / 4);
    std::memcpy(tensors.copy_->data(), tensors.data_, at);
    tensors.data_ = reinterpret_cast<const char*>(tensors.copy_->data());
  }
  tensors.file_ = std::move(data);
  return tensors;
}

const float* Tensors::find(const std::string& name, const std::vector<std::int64_t>& shape) const {
  const auto entry = entries_.find(name);
  const bool found = entry != entries_.end();
  const bool fits = found && entry->second.type == "F32" && entry->second.shape == shape && entry->second.begin % 4 == 0;
  if (!fits) {
    const std::string what = found ? entry->second.type + " " + text_of(entry->second.shape) : "missing";
    throw Failure(ErrorKind::bundle,
                  source_ + ": " + name + " is " + what + ", expected F32 " + text_of(shape) + ". Export the bundle again.");
  }
  const auto* values = reinterpret_cast<const float*>(data_ + entry->second.begin);
  if (!all_finite(values, (entry->second.end - entry->second.begin) / sizeof(float))) {
    throw Failure(ErrorKind::bundle, source_ + ": " + name +
                                         " holds NaN or infinity, expected finite float32. "
                                         "Train or export it again.");
  }
  return values;
}

}  // namespace deepsim::runtime::detail
