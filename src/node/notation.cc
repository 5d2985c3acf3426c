#include "node/notation.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstring>

namespace ganglion::node {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 50;

struct Unit {
  std::string_view name;
  std::int64_t bytes;
};
// In the order in which ByteSizeText tries them, so powers of ten win where both would do.
constexpr std::array<Unit, 9> kUnits{{{"TB", 1'000'000'000'000},
                                      {"TiB", std::int64_t{1} << 40},
                                      {"GB", 1'000'000'000},
                                      {"GiB", std::int64_t{1} << 30},
                                      {"MB", 1'000'000},
                                      {"MiB", std::int64_t{1} << 20},
                                      {"KB", 1'000},
                                      {"KiB", std::int64_t{1} << 10},
                                      {"B", 1}}};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlnum(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool ReadIpv4(const std::string& host, std::uint32_t* address) {
  in_addr a{};
  if (host.size() != std::strlen(host.c_str()) || inet_pton(AF_INET, host.c_str(), &a) != 1) return false;
  *address = ntohl(a.s_addr);
  return true;
}

bool ReadIpv6(const std::string& host, std::array<std::uint8_t, 16>* address) {
  return host.size() == std::strlen(host.c_str()) && inet_pton(AF_INET6, host.c_str(), address->data()) == 1;
}

Status CheckHost(const std::string& host, const std::string& text) {
  std::uint32_t ignored = 0;
  if (ReadIpv4(host, &ignored)) return {};
  if (std::all_of(host.begin(), host.end(), [](char c) { return IsDigit(c) || c == '.'; }))
    return InvalidArgument("\"" + text + "\" has no valid IPv4 address; write four numbers from 0 to 255");
  if (host.size() > 253 ||
      !std::all_of(host.begin(), host.end(), [](char c) { return IsAlnum(c) || c == '-' || c == '.' || c == '_'; }))
    return InvalidArgument("\"" + text + "\" has no valid host name; letters, digits, - _ . and at most 253 of them");
  return {};
}

}  // namespace

Result<std::int64_t> ParseByteSize(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view name(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::int64_t unit = name == "kB" ? 1'000 : 0;
  for (const auto& u : kUnits) {
    if (u.name == name) unit = u.bytes;
  }
  const double bytes = value * static_cast<double>(unit);
  if (error != std::errc() || unit == 0 || !(bytes >= 0)) {
    return InvalidArgument("\"" + text + "\" is no size; write for example 64MB, 512KB or 2GiB");
  }
  if (bytes > static_cast<double>(kMaxBytes)) return InvalidArgument("\"" + text + "\" is more than the limit of 1PiB");
  if (std::abs(bytes - std::round(bytes)) > 1e-3)
    return InvalidArgument("\"" + text + "\" is no whole number of bytes");
  return static_cast<std::int64_t>(std::llround(bytes));
}

std::string ByteSizeText(std::int64_t bytes) {
  if (bytes == 0) return "0B";
  for (const auto& u : kUnits) {
    if (bytes % u.bytes == 0) return fmt::format("{}{}", bytes / u.bytes, u.name);
  }
  return fmt::format("{}B", bytes);
}

Result<std::int64_t> ParseRate(const std::string& text) {
  if (text.ends_with("/s")) {
    auto bytes = ParseByteSize(text.substr(0, text.size() - 2));
    if (bytes.ok()) return bytes;
  }
  return InvalidArgument("\"" + text + "\" is no rate; write for example 64KB/s");
}

std::string DurationText(Duration d) {
  const std::int64_t ns = d.count();
  if (ns == 0) return "0s";
  if (ns % 1'000'000'000 == 0) return fmt::format("{}s", ns / 1'000'000'000);
  if (ns % 1'000'000 == 0) return fmt::format("{}ms", ns / 1'000'000);
  if (ns % 1'000 == 0) return fmt::format("{}us", ns / 1'000);
  return fmt::format("{}ns", ns);
}

std::string Address::Text() const {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

bool Address::IsLoopback() const {
  std::uint32_t v4 = 0;
  if (ReadIpv4(host, &v4)) return v4 >> 24 == 127;
  std::array<std::uint8_t, 16> v6{};
  if (ReadIpv6(host, &v6))
    return v6.back() == 1 && std::all_of(v6.begin(), v6.end() - 1, [](auto b) { return b == 0; });
  return host == "localhost";
}

bool Address::IsWildcard() const {
  std::uint32_t v4 = 0;
  if (ReadIpv4(host, &v4)) return v4 == 0;
  std::array<std::uint8_t, 16> v6{};
  return ReadIpv6(host, &v6) && std::all_of(v6.begin(), v6.end(), [](auto b) { return b == 0; });
}

Result<Address> ParseAddress(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const bool bracket = text.starts_with('[');
  const std::size_t close = bracket ? text.find(']') : std::string::npos;
  if (colon == std::string::npos || (bracket && close != std::string::npos && colon < close)) {
    const bool number = !text.empty() && std::all_of(text.begin(), text.end(), IsDigit);
    return InvalidArgument("\"" + text + "\" has no port; write " +
                           (number ? "127.0.0.1:" + text : "for example 127.0.0.1:8000"));
  }
  Address address;
  const std::string port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size() || address.port < 0 || address.port > 65535 ||
      !IsDigit(port[0])) {
    return InvalidArgument("\"" + text + "\" has no valid port; a number from 0 (any free one) to 65535");
  }
  if (colon == 0) {
    return InvalidArgument("\"" + text + "\" names no host; write 127.0.0.1" + text + ", or 0.0.0.0" + text +
                           " for every interface");
  }
  if (bracket) {
    std::array<std::uint8_t, 16> ignored{};
    address.host = close == colon - 1 ? text.substr(1, close - 1) : "";
    if (!ReadIpv6(address.host, &ignored))
      return InvalidArgument("\"" + text + "\" has no valid IPv6 address; write for example [::1]:8000");
    return address;
  }
  address.host = text.substr(0, colon);
  if (address.host.find(':') != std::string::npos)
    return InvalidArgument("\"" + text + "\" needs brackets around an IPv6 address; write for example [::1]:8000");
  RETURN_IF_ERROR(CheckHost(address.host, text));
  return address;
}

Result<Url> ParseUrl(const std::string& text, const std::vector<std::string_view>& schemes) {
  const std::size_t mark = text.find("://");
  if (mark == std::string::npos)
    return InvalidArgument("\"" + text + "\" has no scheme; write " + std::string(schemes[0]) + "://" + text);
  Url url;
  url.scheme = text.substr(0, mark);
  if (std::find(schemes.begin(), schemes.end(), url.scheme) == schemes.end()) {
    std::string all;
    for (const auto s : schemes) all += (all.empty() ? "" : " or ") + std::string(s) + "://";
    return InvalidArgument("\"" + text + "\" begins with " + url.scheme + "://, which is not spoken here; write " +
                           all);
  }
  const std::string rest = text.substr(mark + 3);
  const std::size_t slash = rest.find('/');
  std::string authority = rest.substr(0, slash);
  if (slash != std::string::npos) url.path = rest.substr(slash);
  if (!std::all_of(url.path.begin(), url.path.end(), [](unsigned char c) { return c > ' ' && c < 127; }))
    return InvalidArgument("\"" + text + "\" has a path with blanks or characters beyond ASCII; write them as %20");
  if (authority.find('@') != std::string::npos)  // not quoted: it may be a password
    return InvalidArgument("holds a user before its host; leave out what stands before the @");
  if (authority.empty()) return InvalidArgument("\"" + text + "\" names no host");
  const bool no_port = authority.back() == ']' || authority.find(':') == std::string::npos;
  if (no_port && (url.scheme == "http" || url.scheme == "https")) authority += url.scheme == "http" ? ":80" : ":443";
  if (no_port && authority.find(':') == std::string::npos)
    return InvalidArgument("\"" + text + "\" has no port; write for example " + url.scheme + "://" + authority +
                           ":8001");
  auto address = ParseAddress(authority);
  if (!address.ok()) return InvalidArgument("\"" + text + "\": " + address.status().message());
  if (address->port == 0) return InvalidArgument("\"" + text + "\" has port 0; name the port to call");
  url.address = std::move(*address);
  return url;
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name.size() <= 128 &&
         std::all_of(name.begin(), name.end(), [](char c) { return IsAlnum(c) || c == '-' || c == '_' || c == '.'; });
}

std::string QuoteYaml(const std::string& text) {
  // "null" in any case means absent, so it is quoted; other words are plain text to YamlReader.
  std::string lower;
  for (const char c : text.substr(0, 5)) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool plain = !text.empty() && lower != "null" && text[0] != '-' && text[0] != '.' &&
                     std::all_of(text.begin(), text.end(),
                                 [](char c) { return IsAlnum(c) || c == '-' || c == '_' || c == '.' || c == '/'; });
  if (plain) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

Result<RemoteUrl> ParseRemoteUrl(const std::string& url) {
  ASSIGN_OR_RETURN(const Url u, ParseUrl(url, {"grpc", "grpcs"}));
  RemoteUrl parts;
  parts.tls = u.scheme == "grpcs";
  parts.target = u.address.Text();
  parts.model = u.path.empty() ? "" : u.path.substr(1);
  if (const auto slash = parts.model.find('/'); slash != std::string::npos) {
    parts.version = parts.model.substr(slash + 1);
    parts.model.resize(slash);
  }
  if (parts.model.empty() || parts.version.find('/') != std::string::npos)
    return InvalidArgument("\"" + url + "\" names no model; write grpc://HOST:PORT/MODEL");
  return parts;
}

}  // namespace ganglion::node
