// PNG and JPEG files.
#include "data/formats.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)ganglion::data::ParseImage(AsBytes(data, size), 1);
  (void)ganglion::data::ParseImage(AsBytes(data, size), 3);
  return 0;
}

std::vector<std::string> Seeds() {
  // The smallest grey PNG, 1x1, and the beginning of a JPEG.
  static const unsigned char png[] = {0x89, 'P',  'N',  'G',  13,   10,  26,  10,   0,    0,    0,    13,   'I',  'H',
                                      'D',  'R',  0,    0,    0,    1,   0,   0,    0,    1,    8,    0,    0,    0,
                                      0,    0x3a, 0x7e, 0x9b, 0x55, 0,   0,   0,    10,   'I',  'D',  'A',  'T',  0x78,
                                      0x9c, 0x63, 0x60, 0,    0,    0,   2,   0,    1,    0x48, 0xaf, 0xa4, 0x71, 0,
                                      0,    0,    0,    'I',  'E',  'N', 'D', 0xae, 0x42, 0x60, 0x82};
  static const unsigned char jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F',  'I',  'F',  0,   1,
                                       1,    0,    0,    1,    0, 1,  0,   0,    0xff, 0xc0, 0,   11,
                                       8,    0,    1,    0,    1, 1,  1,   0x11, 0,    0xff, 0xd9};
  return {std::string(reinterpret_cast<const char*>(png), sizeof png),
          std::string(reinterpret_cast<const char*>(jpeg), sizeof jpeg)};
}
