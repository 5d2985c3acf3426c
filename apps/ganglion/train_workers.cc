#include "train_workers.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>

#include "data/file.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;

// This program's own command, without the options that its workers get in another form.
Result<std::vector<std::string>> OwnCommand() {
  ASSIGN_OR_RETURN(const std::string line, data::ReadFile("/proc/self/cmdline", limits::kMaxConfigBytes));
  std::vector<std::string> words;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find('\0', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (words.empty() || error) return Unavailable("this program cannot find itself to start workers");
  std::vector<std::string> command{self.string()};
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--workers") {
      ++i;
    } else if (words[i].rfind("--workers=", 0) != 0 && words[i] != "--quiet" && words[i] != "--json") {
      command.push_back(words[i]);
    }
  }
  return command;
}

Result<fs::path> PrivateDirectory() {
  std::string name = (fs::temp_directory_path() / "ganglion-train.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) return Unavailable(name + ": " + std::strerror(errno));
  return fs::path(name);
}

// The last line that a worker wrote: what it says of its end.
std::string LastLine(const fs::path& log) {
  const auto text = data::ReadFile(log);
  if (!text.ok()) return "";
  std::string_view rest = *text;
  while (!rest.empty() && (rest.back() == '\n' || rest.back() == '\r')) rest.remove_suffix(1);
  const auto line = rest.find_last_of("\n\r");
  return std::string(line == std::string_view::npos ? rest : rest.substr(line + 1));
}

Status Check(const WorkersOptions& o) {
  const bool one_of_many = o.rank >= 0 || o.size > 0 || !o.rendezvous.empty();
  if (o.workers > 1 && one_of_many)
    return InvalidArgument(
        "--workers starts all ranks on this machine; it does not go with --rank, --size, --rendezvous");
  if (one_of_many && (o.rank < 0 || o.size < 1 || o.rendezvous.empty()))
    return InvalidArgument("--rank, --size and --rendezvous are given together or not at all");
  return {};
}

}  // namespace

void AddWorkersOptions(CLI::App& verb, WorkersOptions& o) {
  const auto group = [](CLI::Option* option) { option->group("Several processes"); };
  group(verb.add_option("--workers", o.workers, "processes of this machine that train together")
            ->capture_default_str()
            ->check(CLI::Range(1, collective::kMaxRanks)));
  group(verb.add_option("--rank", o.rank, "which of --size processes this one is, from 0 on")
            ->check(CLI::Range(0, collective::kMaxRanks - 1)));
  group(verb.add_option("--size", o.size, "processes in all, on several machines")
            ->check(CLI::Range(1, collective::kMaxRanks)));
  group(verb.add_option("--rendezvous", o.rendezvous,
                        "where they meet: tcp://HOST:PORT of rank 0, or a directory on one machine"));
  group(verb.add_option("--host", o.host, "this machine's address for the others; found out if not given"));
  group(verb.add_option("--exchange", o.exchange, "allreduce, diloco:STEPS, server:STALENESS or backup:WORKERS")
            ->capture_default_str());
  group(verb.add_option("--compress", o.compress, "of what is exchanged: none, 8bit, topk:SHARE or powersgd:RANK")
            ->capture_default_str());
  group(verb.add_option("--timeout", o.timeout_s, "seconds to wait for another process")
            ->capture_default_str()
            ->check(CLI::Range(.01, 86'400.)));
}

Result<std::unique_ptr<Crew>> Crew::Start(const WorkersOptions& o, const std::string& about) {
  RETURN_IF_ERROR(Check(o));
  ASSIGN_OR_RETURN(const auto way, training::ParseExchange(o.exchange, o.compress));
  if (o.workers <= 1 && o.rank < 0) return std::unique_ptr<Crew>();
  std::unique_ptr<Crew> crew(new Crew);
  ASSIGN_OR_RETURN(crew->dir_, PrivateDirectory());
  collective::Options join;
  join.rank = std::max(0, o.rank);
  join.size = o.rank < 0 ? o.workers : o.size;
  join.rendezvous = o.rank < 0 ? (crew->dir_ / "meeting").string() : o.rendezvous;
  join.host = o.host;
  join.timeout = FromMilliseconds(o.timeout_s * 1000);
  join.about = about + ", exchange " + Name(way) + ", compress " + compress::Name(way.compress);
  crew->timeout_ = join.timeout;
  if (o.rank < 0) RETURN_IF_ERROR(crew->StartOthers(join.rendezvous, join.size));
  join.watch = [&crew]() -> Status {
    for (std::size_t i = 0; i < crew->others_.size(); ++i) {
      if (crew->others_[i].Ended()) return Unavailable(fmt::format("rank {} ended before it had joined", i + 1));
    }
    return {};
  };
  auto joined = collective::Collective::Join(join);
  if (!joined.ok()) return crew->Ended(joined.status());
  crew->collective_ = std::move(*joined);
  ASSIGN_OR_RETURN(crew->exchange_, training::MakeExchange(way, *crew->collective_));
  return crew;
}

Status Crew::StartOthers(const std::string& rendezvous, int size) {
  ASSIGN_OR_RETURN(const auto command, OwnCommand());
  for (int rank = 1; rank < size; ++rank) {
    auto words = command;
    for (const std::string& word :
         {std::string("--quiet"), std::string("--rank"), std::to_string(rank), std::string("--size"),
          std::to_string(size), std::string("--rendezvous"), rendezvous})
      words.push_back(word);
    ASSIGN_OR_RETURN(auto child, Child::Start(words, dir_ / fmt::format("log.{}", rank)));
    others_.push_back(std::move(child));
  }
  return {};
}

Crew::~Crew() {
  exchange_.reset();
  collective_.reset();
  others_.clear();
  std::error_code ignored;
  if (!dir_.empty()) fs::remove_all(dir_, ignored);
}

Result<fs::path> Crew::ShareCheckpoint(const fs::path& path, bool resume) {
  if (!resume) return first() ? path : fs::path();
  std::string ours;
  std::error_code ignored;
  if (first() && fs::exists(path, ignored)) {
    ASSIGN_OR_RETURN(ours, data::ReadFile(path));
  }
  ASSIGN_OR_RETURN(const auto all, collective_->AllGather(ours));
  if (first()) return path;
  if (all[0].empty()) return fs::path();
  const fs::path copy = dir_ / "checkpoint";
  RETURN_IF_ERROR(data::WriteFileAtomically(copy, all[0]));
  return copy;
}

Status Crew::Ended(const Status& status) {
  if (!status.ok() && exchange_) collective_->Abandon(status.message());
  if (exchange_) lost_ = exchange_->lost();
  exchange_.reset();  // its end is what the others wait for
  if (others_.empty()) return status;
  const TimePoint end = std::chrono::steady_clock::now() + (status.ok() ? timeout_ : std::chrono::seconds(2));
  std::string fates;
  for (std::size_t i = 0; i < others_.size(); ++i) {
    const auto code = others_[i].Wait(std::max(Duration::zero(), end - std::chrono::steady_clock::now()));
    if (!code || *code == 0) continue;
    const std::string words = LastLine(dir_ / fmt::format("log.{}", i + 1));
    fates += fmt::format(
        "; rank {} (process {}) {}", i + 1, others_[i].pid(),
        *code < 0 ? fmt::format("was ended by signal {}", -*code) : fmt::format("ended with \"{}\"", words));
  }
  return status.ok() ? status : Status(status.code(), status.message() + fates);
}

}  // namespace ganglion::app
