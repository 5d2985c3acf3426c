#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "collective/meeting_places.h"

namespace ganglion::collective {
namespace {

namespace fs = std::filesystem;

// A refusal is seen by whoever reads the file that does not fit: ours stays this long, so that the other sees it, too.
constexpr auto kLinger = std::chrono::milliseconds(500);

class DirectoryMeeting final : public Meeting {
 public:
  DirectoryMeeting(fs::path dir, int rank, int size, TimePoint deadline, std::function<Status()> watch)
      : dir_(std::move(dir)), rank_(rank), size_(size), deadline_(deadline), watch_(std::move(watch)) {}
  ~DirectoryMeeting() override {
    if (written_) ::unlink(File(rank_).c_str());  // a rank that is gone should not be found
  }

  const std::string& local_host() const override { return host_; }

  Result<std::vector<std::string>> Exchange(const std::string& about, const std::string& addresses) override {
    RETURN_IF_ERROR(Write(EncodeHello({rank_, size_, about, addresses})));
    std::vector<std::string> table(static_cast<std::size_t>(size_));
    std::vector<bool> here(table.size());
    auto pause = std::chrono::milliseconds(1);
    for (;;) {
      bool all = true;
      for (std::size_t i = 0; i < table.size(); ++i) {
        if (here[i]) continue;
        std::ifstream in(File(static_cast<int>(i)), std::ios::binary);
        if (!in) {
          all = false;
          continue;
        }
        const std::string bytes{std::istreambuf_iterator<char>(in), {}};
        auto hello = DecodeHello(bytes);
        if (!hello.ok()) return hello.status().Within(File(static_cast<int>(i)).string());
        if (auto refused = CheckHello(*hello, size_, about); !refused.ok()) {
          std::this_thread::sleep_for(kLinger);
          return refused;
        }
        table[i] = std::move(hello->addresses);
        here[i] = true;
      }
      if (all) return table;
      if (watch_) RETURN_IF_ERROR(watch_());
      if (std::chrono::steady_clock::now() >= deadline_)
        return Status(Code::kDeadlineExceeded, Missing(here) + " did not come to " + dir_.string() + " in time");
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::milliseconds(20));
    }
  }

 private:
  fs::path File(int rank) const { return dir_ / ("rank." + std::to_string(rank)); }

  // Written beside and linked into place: the others see all of it or nothing, and a second one is refused.
  Status Write(const std::string& bytes) {
    const fs::path beside = dir_ / ("." + std::to_string(rank_) + "." + std::to_string(::getpid()));
    {
      std::ofstream out(beside, std::ios::binary | std::ios::trunc);
      out << bytes;
      out.flush();
      if (!out) return Unavailable(beside.string() + " cannot be written: " + std::strerror(errno));
    }
    const int linked = ::link(beside.c_str(), File(rank_).c_str());
    const int error = errno;
    ::unlink(beside.c_str());
    if (linked != 0 && error == EEXIST) {
      return FailedPrecondition(File(rank_).string() + " is there already: another process has rank " +
                                std::to_string(rank_) + ", or an earlier run left it; give an empty directory");
    }
    if (linked != 0) return Unavailable(File(rank_).string() + " cannot be written: " + std::strerror(error));
    written_ = true;
    return {};
  }

  fs::path dir_;
  int rank_;
  int size_;
  TimePoint deadline_;
  std::function<Status()> watch_;
  bool written_ = false;
  std::string host_ = "127.0.0.1";
};

}  // namespace

Result<std::unique_ptr<Meeting>> OpenDirectory(const Place& place, int rank, int size, TimePoint deadline,
                                               const std::function<Status()>& watch) {
  std::error_code error;
  fs::create_directories(place.directory, error);
  if (!fs::is_directory(place.directory, error))
    return Unavailable("the rendezvous " + place.directory + " is no directory and cannot be made one");
  return std::unique_ptr<Meeting>(new DirectoryMeeting(place.directory, rank, size, deadline, watch));
}

}  // namespace ganglion::collective
