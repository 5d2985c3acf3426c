// Zip archives of NumPy arrays.
#include "data/formats.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)ganglion::data::ParseNpz(AsBytes(data, size));
  return 0;
}

std::vector<std::string> Seeds() {
  // A stored zip entry "x.npy" that holds one array, put together by hand: local header, data, directory, end.
  const std::string npy =
      ganglion::data::WriteNpy(ganglion::tensor::Tensor::Zeros(ganglion::tensor::DataType::kUint8, {1})->View());
  const auto u16 = [](unsigned v) { return std::string{static_cast<char>(v), static_cast<char>(v >> 8)}; };
  const auto u32 = [&](std::size_t v) {
    return u16(static_cast<unsigned>(v & 0xffff)) + u16(static_cast<unsigned>(v >> 16));
  };
  const std::string common =
      u16(20) + u16(0) + u16(0) + u16(0) + u16(0) + u32(0) + u32(npy.size()) + u32(npy.size()) + u16(5) + u16(0);
  const std::string local = "PK\x03\x04" + common + "x.npy" + npy;
  const std::string directory = "PK\x01\x02" + u16(20) + common + u16(0) + u16(0) + u16(0) + u32(0) + u32(0) + "x.npy";
  return {local + directory + "PK\x05\x06" + u16(0) + u16(0) + u16(1) + u16(1) + u32(directory.size()) +
          u32(local.size()) + u16(0)};
}
