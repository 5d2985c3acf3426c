#include "collective/rendezvous.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "collective/collective.h"
#include "collective/meeting_places.h"

namespace ganglion::collective {
namespace {

constexpr char kMagic[] = {'G', 'H', 'I', '1'};

void AppendNumber(std::string* out, std::uint32_t v) { out->append(reinterpret_cast<const char*>(&v), 4); }

void AppendText(std::string* out, std::string_view v) {
  AppendNumber(out, static_cast<std::uint32_t>(v.size()));
  out->append(v);
}

bool TakeNumber(std::string_view* in, std::uint32_t* v) {
  if (in->size() < 4) return false;
  std::memcpy(v, in->data(), 4);
  in->remove_prefix(4);
  return true;
}

bool TakeText(std::string_view* in, std::string* v) {
  std::uint32_t n = 0;
  if (!TakeNumber(in, &n) || n > in->size()) return false;
  v->assign(in->substr(0, n));
  in->remove_prefix(n);
  return true;
}

}  // namespace

Result<Place> ParsePlace(std::string_view text) {
  Place place;
  constexpr std::string_view kTcp = "tcp://";
  if (text.empty()) return InvalidArgument("the rendezvous is empty; tcp://HOST:PORT or a directory");
  if (text.substr(0, kTcp.size()) != kTcp) {
    if (text.find("://") != std::string_view::npos)
      return InvalidArgument("rendezvous \"" + std::string(text) + "\" is neither tcp://HOST:PORT nor a directory");
    place.directory = text;
    return place;
  }
  const std::string_view rest = text.substr(kTcp.size());
  const auto colon = rest.rfind(':');
  const std::string_view host = rest.substr(0, colon);
  const std::string_view port = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), place.port);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (host.empty() || error != std::errc() || end != port.data() + port.size() || place.port < 1 ||
      place.port > 65535 || (!bracketed && host.find(':') != std::string_view::npos)) {
    return InvalidArgument("rendezvous \"" + std::string(text) + "\" is not tcp://HOST:PORT with a port 1 .. 65535");
  }
  place.host = bracketed ? host.substr(1, host.size() - 2) : host;
  return place;
}

std::string EncodeHello(const Hello& hello) {
  std::string out(kMagic, 4);
  AppendNumber(&out, static_cast<std::uint32_t>(hello.rank));
  AppendNumber(&out, static_cast<std::uint32_t>(hello.size));
  AppendText(&out, hello.about);
  AppendText(&out, hello.addresses);
  return out;
}

Result<Hello> DecodeHello(std::string_view bytes) {
  Hello hello;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::string_view in = bytes;
  const bool named = bytes.size() <= kMaxHello && bytes.substr(0, 4) == std::string_view(kMagic, 4);
  if (named) in.remove_prefix(4);
  if (!named || !TakeNumber(&in, &rank) || !TakeNumber(&in, &size) || !TakeText(&in, &hello.about) ||
      !TakeText(&in, &hello.addresses) || !in.empty() || size < 1 || size > static_cast<std::uint32_t>(kMaxRanks) ||
      rank >= size) {
    return DataLoss("this is no greeting of a rank");
  }
  hello.rank = static_cast<int>(rank);
  hello.size = static_cast<int>(size);
  return hello;
}

std::string EncodeTable(const std::vector<std::string>& addresses) {
  std::string out;
  AppendNumber(&out, static_cast<std::uint32_t>(addresses.size()));
  for (const auto& a : addresses) AppendText(&out, a);
  return out;
}

Result<std::vector<std::string>> DecodeTable(std::string_view bytes) {
  std::uint32_t n = 0;
  if (!TakeNumber(&bytes, &n) || n > static_cast<std::uint32_t>(kMaxRanks))
    return DataLoss("this is no table of addresses");
  std::vector<std::string> table(n);
  for (auto& address : table) {
    if (!TakeText(&bytes, &address)) return DataLoss("the table of addresses is cut short");
  }
  if (!bytes.empty()) return DataLoss("the table of addresses has something behind it");
  return table;
}

Status CheckHello(const Hello& hello, int size, const std::string& about) {
  if (hello.size != size) {
    return FailedPrecondition("rank " + std::to_string(hello.rank) + " expects " + std::to_string(hello.size) +
                              " ranks, another one " + std::to_string(size));
  }
  if (hello.about != about) {
    return FailedPrecondition("rank " + std::to_string(hello.rank) + " is about to do something else: \"" +
                              hello.about + "\", another one: \"" + about + "\"");
  }
  return {};
}

std::string Missing(const std::vector<bool>& here) {
  std::string names;
  int count = 0;
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i]) continue;
    names += (count++ > 0 ? ", " : "") + std::to_string(i);
  }
  return (count == 1 ? "rank " : "ranks ") + names;
}

Result<std::unique_ptr<Meeting>> Meeting::Open(const Place& place, int rank, int size, TimePoint deadline,
                                               const std::function<Status()>& watch) {
  if (!place.directory.empty()) return OpenDirectory(place, rank, size, deadline, watch);
  return rank == 0 ? ListenForOthers(place, size, deadline, watch) : ConnectToFirst(place, rank, size, deadline);
}

}  // namespace ganglion::collective
