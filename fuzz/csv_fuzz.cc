// Tables of numbers.
#include "data/formats.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)ganglion::data::ParseCsv({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> Seeds() {
  return {"a,b,label\n1,2.5,0\n-3e2,+4,1\n", "1,2\r\n3,4\r\n", "\"x \"\"y\"\"\",z\n1,2\n"};
}
