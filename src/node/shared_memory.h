// SharedRegions are pieces of POSIX shared memory that processes on this machine have registered, to pass tensors in.
//
// Read and written with pread and pwrite rather than through a mapping: one copy inside the kernel, of bytes that must
// be copied into aligned memory anyway, and a client that shortens its region while we read gets an error instead of
// killing the node with a bus error.
// Limits: kMaxRegions, and a region must lie inside its object when it is registered and when it is used.
// A service.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"
#include "wire/inference.h"

namespace ganglion::node {

class SharedRegions {
 public:
  static constexpr std::size_t kMaxRegions = 1024;

  Status Register(const wire::SharedMemoryRegion& region);
  // All where `name` is empty.
  Status Unregister(const std::string& name);
  Result<std::vector<wire::SharedMemoryRegion>> Look(const std::string& name) const;

  Result<tensor::Tensor> Read(const wire::SharedMemory& place, tensor::DataType type, const tensor::Shape& shape) const;
  Status Write(const wire::SharedMemory& place, std::span<const std::byte> bytes) const;

 private:
  struct Region;
  Result<std::shared_ptr<const Region>> Find(const wire::SharedMemory& place) const;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Region>> regions_;
};

}  // namespace ganglion::node
