// Rows of files: the first byte says which format the rest is. The file lies in memory.
#include <sys/mman.h>
#include <unistd.h>

#include "data/records.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion::data;
  if (size < 1) return 0;
  const int fd = memfd_create("records", MFD_CLOEXEC);
  if (fd < 0 || ::write(fd, data + 1, size - 1) != static_cast<ssize_t>(size - 1)) {
    if (fd >= 0) ::close(fd);
    return 0;
  }
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  RecordOptions options;
  options.length = 3;
  options.text = data[0] % 4 == 1 ? RecordOptions::Text::kLabelFirst : RecordOptions::Text::kLanguage;
  if (data[0] % 4 == 3) options.vocabulary = path;  // its own words
  auto records = data[0] % 4 == 0 ? OpenCsv(path, options) : OpenText(path, options);
  if (records.ok()) {
    // All rows one by one, then some of them together, going back.
    std::vector<std::vector<std::byte>> rows;
    std::vector<std::span<std::byte>> out;
    const auto read = [&](std::int64_t begin, std::int64_t count) {
      rows.assign((*records)->fields().size(), {});
      out.clear();
      for (std::size_t f = 0; f < rows.size(); ++f) {
        rows[f].resize(static_cast<std::size_t>(count) * (*records)->fields()[f].row_bytes());
        out.emplace_back(rows[f]);
      }
      (void)(*records)->Read(begin, count, out);
    };
    const std::int64_t n = (*records)->rows();
    for (std::int64_t i = 0; i < n && i < 50; ++i) read(i, 1);
    read(n / 2, n - n / 2);
    read(0, n);
  }
  ::close(fd);
  return 0;
}

std::vector<std::string> Seeds() {
  return {std::string("\0a,label\n1,0\n2.5,1\n", 18), "\0011 good text\n0 bad\n", "\002the quick brown fox",
          "\003one\ntwo\nthree\nfour\n"};
}
