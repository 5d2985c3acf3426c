// The idx format of the MNIST family.
#include "data/formats.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto t = ganglion::data::ParseIdx(AsBytes(data, size));
  if (t.ok()) (void)ganglion::data::ToFp32(*t);
  return 0;
}

std::vector<std::string> Seeds() {
  return {std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02"
                      "abcd",
                      20),
          std::string("\0\0\x0d\x01\0\0\0\x01\0\0\0\0", 12)};
}
