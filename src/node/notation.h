// The notations of node.yaml: how sizes, rates, times, addresses and URLs are written, read and refused.
//
// Sizes are "64MB" (powers of ten: B, KB, MB, GB, TB) or "64MiB" (powers of two), rates "64KB/s". Addresses are
// "HOST:PORT", with brackets around an IPv6 host. What is read is written back so that reading it gives the same value.
// Ranges: a size is a whole number of bytes from 0 to 2^50, a port 0 to 65535. Refusals quote the text and show the way
// it should look. All are values; nothing here resolves a name or touches a network.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::node {

Result<std::int64_t> ParseByteSize(const std::string& text);
std::string ByteSizeText(std::int64_t bytes);             // "64MB", in the largest unit that loses nothing
Result<std::int64_t> ParseRate(const std::string& text);  // "64KB/s" to bytes a second
std::string DurationText(Duration d);                     // as ParseDuration reads it: "150ms"

struct Address {
  std::string host;  // a name, an IPv4 address, or an IPv6 address without brackets
  int port = 0;      // 0: any free one

  std::string Text() const;
  // 127.0.0.0/8, ::1 or "localhost". Any other name may point anywhere, so it is not.
  bool IsLoopback() const;
  // 0.0.0.0 or ::, every interface of the machine.
  bool IsWildcard() const;
  bool operator==(const Address&) const = default;
};
Result<Address> ParseAddress(const std::string& text);

struct Url {
  std::string scheme;
  Address address;   // without a port: 80 of http, 443 of https; other schemes must name one
  std::string path;  // empty, or from the '/' on
};
// `schemes` are those that mean something here, the first one being the proposal when the text has none.
Result<Url> ParseUrl(const std::string& text, const std::vector<std::string_view>& schemes);

// A model on another server: grpc://HOST:PORT/MODEL or grpc://HOST:PORT/MODEL/VERSION, grpcs for TLS.
struct RemoteUrl {
  bool tls = false;
  std::string target;  // "triton:8001"
  std::string model;
  std::string version;  // empty: the server's choice
};
Result<RemoteUrl> ParseRemoteUrl(const std::string& url);

// Letters, digits, '-', '_' and '.', at least one and at most 128: what nodes, models and labels may be called.
bool IsPlainName(std::string_view name);
// A scalar as YAML reads it back.
std::string QuoteYaml(const std::string& text);

}  // namespace ganglion::node
