// crypto: the primitives of OpenSSL that the rest builds on. In this version, SHA-256 (FIPS 180-4), which gives every
// model, data set and file its name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace ganglion::crypto {

// The SHA-256 of some bytes. A value.
struct Digest {
  std::array<std::uint8_t, 32> bytes{};

  std::string Hex() const;    // 64 hexadecimal digits
  std::string Short() const;  // the first 4, for people
  bool operator==(const Digest&) const = default;
};

Digest Sha256(std::span<const std::byte> bytes);
Digest Sha256(std::string_view text);
// Reads 64 hexadecimal digits.
Result<Digest> DigestFromHex(std::string_view hex);

// SHA-256 over pieces, in order. Thread-compatible.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  Sha256Stream& operator=(const Sha256Stream&) = delete;
  void Add(std::span<const std::byte> bytes);
  Digest Finish();  // REQUIRES: called once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace ganglion::crypto
