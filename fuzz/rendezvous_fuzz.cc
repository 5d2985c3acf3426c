// What processes that meet for training send each other.
#include "collective/rendezvous.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace collective = ganglion::collective;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto hello = collective::DecodeHello(bytes); hello.ok()) {
    if (collective::EncodeHello(*hello) != bytes) std::abort();
  }
  if (const auto table = collective::DecodeTable(bytes); table.ok()) {
    if (collective::EncodeTable(*table) != bytes) std::abort();
  }
  (void)collective::ParsePlace(bytes);
  return 0;
}

std::vector<std::string> Seeds() {
  namespace collective = ganglion::collective;
  return {collective::EncodeHello({1, 4, "train", "addresses"}), collective::EncodeTable({"one", "", "three"}),
          "tcp://node0:7000"};
}
