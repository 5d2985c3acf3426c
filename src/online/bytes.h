// Numbers to bytes and back, little-endian, for snapshots. A reader that runs out says so once, at the end, and gives
// zeros until then; sizes are checked against what is left before memory is asked for.
// Values; thread-compatible.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace ganglion::online {

class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(out) {}
  template <typename T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));  // little-endian hosts alone are supported, as in the other formats
    out_->append(reinterpret_cast<const char*>(&bits), sizeof(T));
  }
  void Put(std::string_view text) {
    Put(static_cast<std::uint32_t>(text.size()));
    out_->append(text);
  }

 private:
  std::string* out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  template <typename T>
  T Get() {
    static_assert(std::is_arithmetic_v<T>);
    T value{};
    if (bytes_.size() < sizeof(T)) {
      Fail();
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_.remove_prefix(sizeof(T));
    return value;
  }
  std::string GetText() {
    const auto size = Get<std::uint32_t>();
    if (bytes_.size() < size) {
      Fail();
      return {};
    }
    std::string text(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return text;
  }
  // A count of things of at least `each` bytes; 0 when so many cannot follow.
  std::uint64_t GetCount(std::size_t each) {
    const auto count = Get<std::uint64_t>();
    if (count > bytes_.size() / each) {
      Fail();
      return 0;
    }
    return count;
  }
  bool ok() const { return ok_; }
  std::size_t left() const { return bytes_.size(); }

 private:
  void Fail() {
    ok_ = false;
    bytes_ = {};
  }
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace ganglion::online
