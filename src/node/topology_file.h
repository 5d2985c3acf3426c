// Links and prices from a file, over the defaults of topology::Topology::Default():
//
//   edge: {latency: [5ms, 20ms], price: 0.001}
//   global: {latency: [80ms, 300ms], price: 0.05, availability: 0.9999}
#pragma once

#include <filesystem>

#include "base/status.h"
#include "topology/topology.h"

namespace ganglion::node {

Result<topology::Topology> LoadTopologyFile(const std::filesystem::path& path);

}  // namespace ganglion::node
