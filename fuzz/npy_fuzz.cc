// NumPy arrays.
#include "data/formats.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto t = ganglion::data::ParseNpy(AsBytes(data, size));
  if (t.ok()) (void)ganglion::data::ToFp32(*t);
  return 0;
}

std::vector<std::string> Seeds() {
  using ganglion::tensor::DataType;
  return {ganglion::data::WriteNpy(ganglion::tensor::Tensor::Zeros(DataType::kFp32, {2, 3})->View()),
          ganglion::data::WriteNpy(ganglion::tensor::Tensor::Zeros(DataType::kUint8, {})->View())};
}
