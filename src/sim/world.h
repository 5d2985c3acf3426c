// The World is what a simulation has instead of a machine: one clock, one queue of events, links, one stream of chance.
//
// Intuition: time stands still while an event runs and jumps to the next one when it has. Nothing ever waits, so an
// hour passes in milliseconds; nothing runs beside anything else, so the same seed gives the same run to the bit.
// Events of the same instant run in the order in which they were planned: the queue is ordered by (time, sequence).
//
// A message over a link takes delay give or take jitter. Links keep their order, as a connection does, but may be told
// to lose, repeat or overtake, each with a probability, or be cut: what is sent then is gone, and nobody is told.
// What happens is noted: the last notes are the trace that a failure shows, and a digest of all of them says whether
// two runs were the same.
// Thread-compatible. Cost: about a microsecond an event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"

namespace ganglion::sim {

using NodeId = int;
inline constexpr NodeId kOutside = -1;  // whoever is no node: a client

// What can be noted. `request`, `a` and `b` of a note mean what the table in world.cc says.
enum class What : std::uint8_t {
  kArrive,
  kAdmit,
  kCheaper,
  kRefuse,
  kRun,
  kQueue,
  kExpire,
  kAsk,
  kCall,
  kRetry,
  kReply,
  kTimeout,
  kForbidden,
  kAnswer,
  kEnd,
  kLost,
  kAudit,
  kCrash,
  kStart,
  kFault,
  kFaultOver,
  kCount,
};

struct Link {
  Duration delay{};
  Duration jitter{};  // less than delay
  double loss = 0;
  double duplicate = 0;
  double reorder = 0;
  int cuts = 0;         // above 0: cut
  TimePoint arrives{};  // when the last one does that keeps its place
};

class World {
 public:
  using Action = std::function<void()>;

  explicit World(std::uint64_t seed);

  TimePoint now() const { return now_; }
  Random& random() { return random_; }
  std::uint64_t seed() const { return seed_; }

  struct Timer {
    TimePoint at{};
    std::uint64_t id = 0;  // 0: none
  };
  // An `at` that has passed means now, after what is planned for now already.
  Timer At(TimePoint at, Action action);
  // False: it has run.
  bool Cancel(const Timer& timer);
  // Runs the next event that comes by `until`; false: there is none, and it is `until` now.
  bool Step(TimePoint until);

  void SetNodes(std::size_t nodes);
  Link& link(NodeId from, NodeId to) { return links_[Index(from, to)]; }
  // Calls `arrive` once, twice or never. Returns how often.
  int Send(NodeId from, NodeId to, const Action& arrive);

  void Note(What what, NodeId node, std::uint64_t request = 0, std::int64_t a = 0, std::int64_t b = 0);
  std::uint64_t digest() const { return digest_; }
  std::uint64_t events() const { return events_; }
  // The last notes, a line each, oldest first.
  std::string Trace() const;
  // Seconds since the world began.
  double Seconds(TimePoint at) const;

 private:
  struct Noted {
    TimePoint at{};
    std::uint64_t request = 0;
    std::int64_t a = 0;
    std::int64_t b = 0;
    NodeId node = kOutside;
    What what = What::kArrive;
  };
  static constexpr std::size_t kTrace = 60;

  std::size_t Index(NodeId from, NodeId to) const {
    return static_cast<std::size_t>(from) * nodes_ + static_cast<std::size_t>(to);
  }

  std::uint64_t seed_;
  Random random_;
  TimePoint now_;
  std::uint64_t sequence_ = 0;
  std::map<std::pair<TimePoint, std::uint64_t>, Action> queue_;
  std::size_t nodes_ = 0;
  std::vector<Link> links_;
  std::vector<Noted> trace_;  // a ring
  std::uint64_t noted_ = 0;
  std::uint64_t digest_ = 0;
  std::uint64_t events_ = 0;
};

}  // namespace ganglion::sim
