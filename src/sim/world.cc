#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace ganglion::sim {
namespace {

// Not at zero: a clock that has run for a while is what production has.
constexpr TimePoint kBegin{std::chrono::hours(1)};

struct Form {
  const char* text;
  const char* a;  // nullptr: not shown
  const char* b;
};
constexpr std::array<Form, static_cast<std::size_t>(What::kCount)> kForms{{
    {"arrives", "from", "us left"},
    {"admitted", "in flight", "limit"},
    {"over the limit, cheapest stage only", "in flight", "limit"},
    {"refused", "in flight", "limit"},
    {"runs", "stage", "rows"},
    {"waits", "stage", "rows"},
    {"expires in the queue", "stage", "rows"},
    {"asks above", "hop", "us left"},
    {"calls", "parent", "attempt"},
    {"tries again", nullptr, nullptr},
    {"reply", "parent", "code"},
    {"no reply in time", "parent", "attempt"},
    {"may not go up", nullptr, nullptr},
    {"answers", "to", "code"},
    {"has ended", "code", "degraded rows"},
    {"lost with its node", nullptr, nullptr},
    {"audits", "row", nullptr},
    {"crashes", "silently", nullptr},
    {"starts", nullptr, nullptr},
    {"fault begins", "kind", "other"},
    {"fault ends", "kind", "other"},
}};

std::uint64_t Mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

World::World(std::uint64_t seed) : seed_(seed), random_(seed), now_(kBegin), trace_(kTrace) {}

World::Timer World::At(TimePoint at, Action action) {
  const Timer timer{std::max(at, now_), ++sequence_};
  queue_.emplace(std::pair(timer.at, timer.id), std::move(action));
  return timer;
}

bool World::Cancel(const Timer& timer) { return timer.id != 0 && queue_.erase({timer.at, timer.id}) > 0; }

bool World::Step(TimePoint until) {
  if (queue_.empty() || queue_.begin()->first.first > until) {
    now_ = std::max(now_, until);
    return false;
  }
  const auto first = queue_.begin();
  now_ = first->first.first;
  const Action action = std::move(first->second);
  queue_.erase(first);
  ++events_;
  action();
  return true;
}

void World::SetNodes(std::size_t nodes) {
  nodes_ = nodes;
  links_.assign(nodes * nodes, {});
}

int World::Send(NodeId from, NodeId to, const Action& arrive) {
  Link& l = link(from, to);
  if (l.cuts > 0 || (l.loss > 0 && random_.Uniform() < l.loss)) return 0;
  const int copies = l.duplicate > 0 && random_.Uniform() < l.duplicate ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    TimePoint at = now_ + l.delay + std::chrono::duration_cast<Duration>(l.jitter * random_.Uniform(-1, 1));
    if (l.reorder > 0 && random_.Uniform() < l.reorder) {
      at += std::chrono::duration_cast<Duration>(l.delay * (2 * random_.Uniform()));
    } else {
      at = l.arrives = std::max(at, l.arrives);
    }
    At(at, arrive);
  }
  return copies;
}

void World::Note(What what, NodeId node, std::uint64_t request, std::int64_t a, std::int64_t b) {
  for (const std::uint64_t x :
       {static_cast<std::uint64_t>(now_.time_since_epoch().count()), request, static_cast<std::uint64_t>(a),
        static_cast<std::uint64_t>(b),
        (static_cast<std::uint64_t>(what) << 32) ^ static_cast<std::uint64_t>(static_cast<std::uint32_t>(node))})
    digest_ = Mix(digest_ * 0x9e3779b97f4a7c15u + x);
  trace_[noted_++ % kTrace] = {now_, request, a, b, node, what};
}

double World::Seconds(TimePoint at) const { return Milliseconds(at - kBegin) / 1000; }

std::string World::Trace() const {
  std::string text;
  for (std::uint64_t i = noted_ > kTrace ? noted_ - kTrace : 0; i < noted_; ++i) {
    const Noted& n = trace_[i % kTrace];
    const Form& form = kForms[static_cast<std::size_t>(n.what)];
    text += fmt::format("{:12.6f}  node {:>2}  ", Seconds(n.at), n.node);
    if (n.request != 0) text += fmt::format("request {} ", n.request);
    text += form.text;
    if (form.a != nullptr) text += fmt::format(", {} {}", form.a, n.a);
    if (form.b != nullptr) text += fmt::format(", {} {}", form.b, n.b);
    text += '\n';
  }
  return text;
}

}  // namespace ganglion::sim
