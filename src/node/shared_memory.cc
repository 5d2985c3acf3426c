#include "node/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace ganglion::node {

struct SharedRegions::Region {
  wire::SharedMemoryRegion what;
  int fd = -1;
  ~Region() {
    if (fd >= 0) ::close(fd);
  }
};

Status SharedRegions::Register(const wire::SharedMemoryRegion& region) {
  if (region.name.empty()) return InvalidArgument("a shared memory region needs a name");
  const std::string bare = region.key.rfind('/', 0) == 0 ? region.key.substr(1) : region.key;
  if (bare.empty() || bare.size() > 200 || bare.find('/') != std::string::npos)
    return InvalidArgument("shared memory key \"" + region.key + "\" is no name of shm_open; write for example /input");
  auto r = std::make_shared<Region>();
  r->what = region;
  r->fd = ::shm_open(("/" + bare).c_str(), O_RDWR | O_CLOEXEC, 0);
  if (r->fd < 0)
    return InvalidArgument(fmt::format("shared memory \"{}\" cannot be opened: {}", region.key, std::strerror(errno)));
  struct stat info {};
  if (::fstat(r->fd, &info) != 0 || !S_ISREG(info.st_mode))
    return InvalidArgument("shared memory \"" + region.key + "\" is no memory object");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (region.bytes == 0 || region.offset > size || region.bytes > size - region.offset)
    return InvalidArgument(fmt::format("shared memory \"{}\" has {} bytes; {} from {} on do not fit", region.key, size,
                                       region.bytes, region.offset));
  std::lock_guard lock(mutex_);
  if (regions_.count(region.name) != 0)
    return {Code::kAlreadyExists, "shared memory region \"" + region.name + "\" is registered; unregister it first"};
  if (regions_.size() >= kMaxRegions)
    return ResourceExhausted(fmt::format("{} shared memory regions, limit {}", regions_.size(), kMaxRegions));
  regions_.emplace(region.name, std::move(r));
  return {};
}

Status SharedRegions::Unregister(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (name.empty()) {
    regions_.clear();
  } else {
    regions_.erase(name);  // one that is not there is gone already
  }
  return {};
}

Result<std::vector<wire::SharedMemoryRegion>> SharedRegions::Look(const std::string& name) const {
  std::lock_guard lock(mutex_);
  std::vector<wire::SharedMemoryRegion> all;
  for (const auto& [n, r] : regions_) {
    if (name.empty() || n == name) all.push_back(r->what);
  }
  if (!name.empty() && all.empty()) return NotFound("no shared memory region \"" + name + "\"");
  return all;
}

Result<std::shared_ptr<const SharedRegions::Region>> SharedRegions::Find(const wire::SharedMemory& place) const {
  std::shared_ptr<const Region> r;
  {
    std::lock_guard lock(mutex_);
    const auto it = regions_.find(place.region);
    if (it != regions_.end()) r = it->second;
  }
  if (r == nullptr) return InvalidArgument("shared memory region \"" + place.region + "\" is not registered");
  if (place.offset > r->what.bytes || place.bytes > r->what.bytes - place.offset)
    return InvalidArgument(fmt::format("shared memory region \"{}\" has {} bytes; {} from {} on do not fit",
                                       place.region, r->what.bytes, place.bytes, place.offset));
  return r;
}

Result<tensor::Tensor> SharedRegions::Read(const wire::SharedMemory& place, tensor::DataType type,
                                           const tensor::Shape& shape) const {
  ASSIGN_OR_RETURN(const auto region, Find(place));
  const auto read = [&](std::span<std::byte> into) -> Status {
    const ssize_t n =
        ::pread(region->fd, into.data(), into.size(), static_cast<off_t>(region->what.offset + place.offset));
    if (n != static_cast<ssize_t>(into.size()))
      return InvalidArgument("shared memory region \"" + place.region + "\" became shorter than it was registered");
    return {};
  };
  if (type == tensor::DataType::kBytes) {
    std::vector<std::byte> bytes(place.bytes);
    RETURN_IF_ERROR(read(bytes));
    return tensor::Tensor::FromBytes(type, shape, bytes);
  }
  ASSIGN_OR_RETURN(const std::int64_t count, tensor::ElementCount(shape));
  const std::size_t want = static_cast<std::size_t>(count) * tensor::SizeOf(type);
  if (want != place.bytes)
    return InvalidArgument(fmt::format("{}{} takes {} bytes, shared_memory_byte_size is {}", tensor::Name(type),
                                       tensor::ShapeText(shape), want, place.bytes));
  ASSIGN_OR_RETURN(auto t, tensor::Tensor::Zeros(type, shape));
  RETURN_IF_ERROR(read(t.Mutable().bytes));
  return t;
}

Status SharedRegions::Write(const wire::SharedMemory& place, std::span<const std::byte> bytes) const {
  ASSIGN_OR_RETURN(const auto region, Find(place));
  if (bytes.size() > place.bytes)
    return InvalidArgument(
        fmt::format("output has {} bytes, shared_memory_byte_size is {}", bytes.size(), place.bytes));
  const ssize_t n =
      ::pwrite(region->fd, bytes.data(), bytes.size(), static_cast<off_t>(region->what.offset + place.offset));
  if (n != static_cast<ssize_t>(bytes.size()))
    return InvalidArgument("shared memory region \"" + place.region + "\" cannot be written");
  return {};
}

}  // namespace ganglion::node
