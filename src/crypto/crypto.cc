#include "crypto/crypto.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace ganglion::crypto {

struct Sha256Stream::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256Stream::Sha256Stream() : context_(std::make_unique<Context>()) {
  GANGLION_CHECK(context_->md != nullptr && EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr) == 1);
}
Sha256Stream::~Sha256Stream() = default;

void Sha256Stream::Add(std::span<const std::byte> bytes) {
  GANGLION_CHECK(EVP_DigestUpdate(context_->md, bytes.data(), bytes.size()) == 1);
}

Digest Sha256Stream::Finish() {
  Digest digest;
  unsigned int size = 0;
  GANGLION_CHECK(EVP_DigestFinal_ex(context_->md, digest.bytes.data(), &size) == 1 && size == digest.bytes.size());
  return digest;
}

Digest Sha256(std::span<const std::byte> bytes) {
  Sha256Stream stream;
  stream.Add(bytes);
  return stream.Finish();
}

Digest Sha256(std::string_view text) { return Sha256(std::as_bytes(std::span(text))); }

std::string Digest::Hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (const std::uint8_t b : bytes) {
    hex += kDigits[b >> 4];
    hex += kDigits[b & 15];
  }
  return hex;
}

std::string Digest::Short() const { return Hex().substr(0, 4); }

Result<Digest> DigestFromHex(std::string_view hex) {
  Digest digest;
  bool good = hex.size() == 64;
  for (std::size_t i = 0; good && i < 64; ++i) {
    const char c = hex[i];
    const int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    good = v >= 0;
    if (good) digest.bytes[i / 2] = static_cast<std::uint8_t>(digest.bytes[i / 2] << 4 | v);
  }
  if (!good)
    return InvalidArgument("\"" + std::string(hex.substr(0, 80)) +
                           "\" is no SHA-256; 64 lower-case hexadecimal digits are");
  return digest;
}

}  // namespace ganglion::crypto
