// A Meeting is where processes find each other: each leaves an address and gets everyone's.
//
// Two places: a directory, into which each rank writes one file (processes of one machine), or a TCP port at which rank
// 0 listens. Gloo has stores for this; its file store does not notice leftovers of an earlier run, its hash store is
// for threads, and its Redis store wants a server.
//
// All ranks must say the same `size` and `about`, and each rank comes once; what does not fit is refused, with the same
// sentence at every rank (tcp), or at those that see it (directory).
// On the wire and in the files, little endian: a hello is "GHI1", rank, size as u32, then about and addresses, each a
// u32 length and the bytes. Over TCP a frame is a u32 length and the bytes; the answer's first byte is 0 for the table
// of addresses or 1 for a reason. Limits: kMaxHello bytes a hello, kMaxFrame a frame; strangers that send something
// else are dropped. Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::collective {

struct Place {
  std::string directory;  // empty: tcp
  std::string host;
  int port = 0;
};
// "tcp://HOST:PORT" ("tcp://[::1]:PORT" for IPv6), or a directory.
Result<Place> ParsePlace(std::string_view text);

struct Hello {
  int rank = 0;
  int size = 0;
  std::string about;
  std::string addresses;
};
inline constexpr std::size_t kMaxHello = std::size_t{1} << 17;
inline constexpr std::size_t kMaxFrame = std::size_t{1} << 26;

std::string EncodeHello(const Hello& hello);
Result<Hello> DecodeHello(std::string_view bytes);
std::string EncodeTable(const std::vector<std::string>& addresses);
Result<std::vector<std::string>> DecodeTable(std::string_view bytes);

class Meeting {
 public:
  virtual ~Meeting() = default;
  // The address of this machine by which the others reach it.
  virtual const std::string& local_host() const = 0;
  // Everyone's addresses, by rank. Once.
  virtual Result<std::vector<std::string>> Exchange(const std::string& about, const std::string& addresses) = 0;

  // Rank 0 of a TCP place listens from here on; the others connect. `watch` is asked while others are waited for; what
  // it refuses ends the waiting. REQUIRES: 0 <= rank < size.
  static Result<std::unique_ptr<Meeting>> Open(const Place& place, int rank, int size, TimePoint deadline,
                                               const std::function<Status()>& watch = {});
};

}  // namespace ganglion::collective
