// A CSV header and rows, as `ganglion learn` reads them.
#include <string_view>

#include "online/online.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto line = [&text] {
    const std::string_view first = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), first.size() + 1));
    return first;
  };
  online::LearnerOptions options;
  options.bits = 8;
  auto csv = online::CsvText::Create(options, {}, line());
  online::Example example;
  while (csv.ok() && !text.empty()) (void)csv->Parse(line(), &example).ok();
  return 0;
}

std::vector<std::string> Seeds() {
  return {"label,a,b\n1,2.5,red\n-1,,\"x,\"\"y\"\"\"\n", "a,y\r\n1e3,0\r\n", "\xef\xbb\xbf\"y\",z\n1,2\n"};
}
