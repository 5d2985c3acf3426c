#include "data/data.h"

#include <gtest/gtest.h>
#include <png.h>
#include <sys/resource.h>
#include <zip.h>
#include <zlib.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <jpeglib.h>

#include "base/scratch_test.h"

namespace ganglion::data {
namespace {

namespace fs = std::filesystem;
using tensor::DataType;

std::span<const std::byte> Bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

class Files : public ScratchDir {
 protected:
  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return (dir_ / name).string();
  }
};

std::string Idx(std::initializer_list<int> dims, const std::string& body, int type = 8) {
  std::string s{0, 0, static_cast<char>(type), static_cast<char>(dims.size())};
  for (const int d : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) s += static_cast<char>(d >> shift);
  }
  return s + body;
}

TEST(Idx, ReadsBytesAndBigEndianNumbers) {
  const auto t = ParseIdx(Bytes(Idx({2, 3}, "abcdef")));
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->View().As<unsigned char>()[4], 'e');
  EXPECT_EQ(ParseIdx(Bytes(Idx({1}, std::string("\0\0\1\2", 4), 0x0C)))->As<int>()[0], 258);
}

TEST(Idx, RefusesEveryTruncationAndAnyExcess) {
  const std::string whole = Idx({2, 3}, "abcdef");
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(ParseIdx(Bytes(whole.substr(0, n))).ok()) << n;
  EXPECT_FALSE(ParseIdx(Bytes(whole + "g")).ok());
  EXPECT_NE(ParseIdx(Bytes(whole.substr(0, 14))).status().message().find("cut short"), std::string::npos);
}

TEST(Idx, RefusesHeadersThatLie) {
  EXPECT_FALSE(ParseIdx(Bytes(Idx({0x7fffffff, 0x7fffffff, 0x7fffffff}, "x"))).ok());
  EXPECT_FALSE(ParseIdx(Bytes("\x89PNG\r\n\x1a\n")).ok());
  EXPECT_FALSE(ParseIdx(Bytes(Idx({1}, "a", 0x0A))).ok());
  EXPECT_FALSE(ParseIdx(Bytes(std::string("\0\0\x08\0", 4))).ok());
}

TEST(Csv, ReadsNumbersWithOrWithoutAHeader) {
  const auto t = ParseCsv("a,\"b \"\"x\"\"\",label\r\n1, 2.5,0\n-3e2,+4,1\n\n");
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->columns[1], "b \"x\"");
  EXPECT_EQ(t->values.As<float>()[3], -300);
  EXPECT_EQ(ParseCsv("1,2\n3,4")->values.shape()[0], 2);
}

TEST(Csv, NamesTheLineThatIsWrong) {
  EXPECT_EQ(ParseCsv("1,2\n3\n").status().message(), "line 2 has 1 fields, the first has 2");
  EXPECT_EQ(ParseCsv("1,2\n3,x\n").status().message(), "line 2 field 2 \"x\" is no number");
  EXPECT_FALSE(ParseCsv("").ok());
  // A first row with one odd field is a mistake, not a header.
  EXPECT_EQ(ParseCsv("1,,0\n2,3,1\n").status().message(), "line 1 field 2 \"\" is no number");
  EXPECT_EQ(ParseCsv("\xEF\xBB\xBFlabel,a\n1,2\n")->columns[0], "label") << "a byte order mark";
  EXPECT_FALSE(ParseCsv("a,b\n").ok());
}

// The first 80 bytes are what numpy 1.24 wrote for numpy.save(f, numpy.arange(6, dtype='<f4').reshape(2, 3)).
TEST(Npy, ReadsWhatNumpyWrites) {
  std::string file("\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 10 + 58);
  while (file.size() < 127) file += ' ';
  file += '\n';
  for (const float v : {0.f, 1.f, 2.f, 3.f, 4.f, 5.f}) file.append(reinterpret_cast<const char*>(&v), 4);
  const auto t = ParseNpy(Bytes(file));
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(tensor::ShapeText(t->shape()), "[2,3]");
  EXPECT_EQ(t->As<float>()[5], 5);
  EXPECT_EQ(ParseNpy(Bytes(WriteNpy(t->View())))->As<float>()[4], 4);
  for (std::size_t n = 0; n < file.size(); ++n) EXPECT_FALSE(ParseNpy(Bytes(file.substr(0, n))).ok()) << n;
}

TEST(Npy, RefusesObjectsFortranOrderAndUnknownVersions) {
  const auto with = [](std::string header) {
    std::string s("\x93NUMPY\x01\x00", 8);
    s += static_cast<char>(header.size());
    s += '\0';
    return s + header;
  };
  EXPECT_FALSE(ParseNpy(Bytes(with("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"))).ok());
  EXPECT_NE(ParseNpy(Bytes(with("{'descr': '<f4', 'fortran_order': True, 'shape': (0,), }")))
                .status()
                .message()
                .find("Fortran"),
            std::string::npos);
  EXPECT_FALSE(ParseNpy(Bytes(with("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"))).ok());
  EXPECT_FALSE(ParseNpy(Bytes(std::string("\x93NUMPY\x09\x00\x00\x00", 10))).ok());
}

std::string Zip(const std::map<std::string, std::string>& entries) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* out = zip_source_buffer_create(nullptr, 0, 0, &error);
  zip_source_keep(out);
  zip_t* z = zip_open_from_source(out, ZIP_TRUNCATE, &error);
  for (const auto& [name, content] : entries)
    zip_file_add(z, name.c_str(), zip_source_buffer(z, content.data(), content.size(), 0), 0);
  zip_close(z);
  zip_stat_t stat;
  zip_source_stat(out, &stat);
  std::string bytes(stat.size, '\0');
  zip_source_open(out);
  zip_source_read(out, bytes.data(), bytes.size());
  zip_source_close(out);
  zip_source_free(out);
  return bytes;
}

TEST(Npz, ReadsItsArraysAndRefusesDamage) {
  const std::array<float, 4> x{1, 2, 3, 4};
  const std::string npy = WriteNpy(tensor::Tensor::From<float>({2, 2}, x)->View());
  const std::string file = Zip({{"x.npy", npy}});
  const auto arrays = ParseNpz(Bytes(file));
  ASSERT_TRUE(arrays.ok()) << arrays.status().message();
  EXPECT_EQ(arrays->arrays.at("x").As<float>()[3], 4);
  EXPECT_FALSE(ParseNpz(Bytes(file.substr(0, file.size() / 2))).ok());
  EXPECT_FALSE(ParseNpz(Bytes("PK\x03\x04 not a zip")).ok());
  // An array that nobody asks for may be what it likes.
  auto mixed = ParseNpz(Bytes(Zip({{"names.npy", "no array"}, {"x.npy", npy}})));
  ASSERT_TRUE(mixed.ok());
  EXPECT_TRUE(Take(*mixed, "x").ok());
  EXPECT_NE(Take(*mixed, "names").status().message().find("no NumPy magic"), std::string::npos);
  EXPECT_NE(Take(*mixed, "y").status().message().find("it has: x"), std::string::npos);
}

TEST(Image, ReadsPngAndJpegAndRefusesTruncation) {
  std::vector<unsigned char> grey(8 * 6, 100);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = 8;
  image.height = 6;
  image.format = PNG_FORMAT_GRAY;
  png_alloc_size_t size = 0;
  ASSERT_TRUE(png_image_write_to_memory(&image, nullptr, &size, 0, grey.data(), 0, nullptr));
  std::string png(size, '\0');
  ASSERT_TRUE(png_image_write_to_memory(&image, png.data(), &size, 0, grey.data(), 0, nullptr));
  const auto t = ParseImage(Bytes(png), 1);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(tensor::ShapeText(t->shape()), "[6,8,1]");
  EXPECT_EQ(t->As<unsigned char>()[5], 100);
  EXPECT_FALSE(ParseImage(Bytes(png.substr(0, png.size() / 2)), 1).ok());

  jpeg_compress_struct info{};
  jpeg_error_mgr error{};
  info.err = jpeg_std_error(&error);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long out_size = 0;
  jpeg_mem_dest(&info, &out, &out_size);
  info.image_width = 8;
  info.image_height = 6;
  info.input_components = 1;
  info.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < 6; ++y) {
    JSAMPROW row[1] = {grey.data() + y * 8};
    jpeg_write_scanlines(&info, row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const std::string jpeg(reinterpret_cast<char*>(out), out_size);
  std::free(out);
  const auto j = ParseImage(Bytes(jpeg), 3);
  ASSERT_TRUE(j.ok()) << j.status().message();
  EXPECT_EQ(tensor::ShapeText(j->shape()), "[6,8,3]");
  EXPECT_NEAR(j->As<unsigned char>()[9], 100, 2);
  EXPECT_FALSE(ParseImage(Bytes(jpeg.substr(0, jpeg.size() / 2)), 3).ok());
  EXPECT_FALSE(ParseImage(Bytes("GIF89a"), 3).ok());
  EXPECT_FALSE(ParseImage(Bytes(png), 2).ok());
}

TEST_F(Files, AreOpenedWhetherGzippedOrNot) {
  const std::string plain = Write("a.txt", "hello");
  EXPECT_EQ(ReadFile(plain).value(), "hello");
  const std::string packed = (dir_ / "b.gz").string();
  gzFile gz = gzopen(packed.c_str(), "wb");
  gzwrite(gz, "hello", 5);
  gzclose(gz);
  EXPECT_EQ(ReadFile(packed).value(), "hello");
  EXPECT_EQ(ReadFile(packed, 4).status().code(), Code::kResourceExhausted);
  EXPECT_EQ(ReadFile((dir_ / "none").string()).status().code(), Code::kNotFound);
  EXPECT_FALSE(ReadFile(dir_).ok());
  std::string bytes;
  {
    std::ifstream in(packed, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  EXPECT_FALSE(ReadFile(Write("c.gz", bytes.substr(0, bytes.size() - 6))).ok());
}

// The system refuses to let a file grow, as a full disk does; the old file must survive, with nothing left beside it.
TEST_F(Files, KeepTheOldContentWhenTheNewDoesNotFit) {
  const std::string path = Write("checkpoint", "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small{1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const Status status = WriteFileAtomically(path, std::string(100'000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.message();
  EXPECT_NE(status.message().find("unchanged"), std::string::npos);
  EXPECT_EQ(ReadFile(path).value(), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
  ASSERT_TRUE(WriteFileAtomically(path, "new").ok());
  EXPECT_EQ(ReadFile(path).value(), "new");
}

TEST_F(Files, ThatAreLinksOrDevicesStayWhatTheyAre) {
  const std::string target = Write("target", "old");
  fs::create_symlink("target", dir_ / "link");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "link", "new").ok());
  EXPECT_TRUE(fs::is_symlink(dir_ / "link"));
  EXPECT_EQ(ReadFile(target).value(), "new");
  ASSERT_TRUE(WriteFileAtomically("/dev/null", "x").ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_FALSE(WriteFileAtomically("/dev/full", "x").ok());
}

TEST_F(Files, BecomeDatasets) {
  Write("t-images-idx3-ubyte", Idx({2, 1, 2}, std::string("\0\xff\x33\0", 4)));
  Write("t-labels-idx1-ubyte", Idx({2}, std::string("\3\1", 2)));
  const auto idx = LoadDataset((dir_ / "t").string());
  ASSERT_TRUE(idx.ok()) << idx.status().message();
  EXPECT_EQ(idx->Row(0)[1], 1);
  EXPECT_EQ(idx->labels, (std::vector<int>{3, 1}));
  EXPECT_EQ(tensor::ShapeText(idx->row_shape), "[1,2]");
  const auto csv = LoadDataset(Write("d.csv", "label,a,b\n1,2,3\n0,4,5\n"));
  ASSERT_TRUE(csv.ok()) << csv.status().message();
  EXPECT_EQ(csv->Row(1)[1], 5);
  EXPECT_EQ(csv->labels[0], 1);
  const std::array<float, 4> x{1, 2, 3, 4};
  const std::array<long, 2> y{7, 8};
  const auto npz = LoadDataset(Write("d.npz", Zip({{"x.npy", WriteNpy(tensor::Tensor::From<float>({2, 2}, x)->View())},
                                                   {"y.npy", WriteNpy(tensor::Tensor::From<long>({2}, y)->View())}})),
                               {.begin = 1});
  ASSERT_TRUE(npz.ok()) << npz.status().message();
  EXPECT_EQ(npz->rows(), 1);
  EXPECT_EQ(npz->labels[0], 8);
  EXPECT_NE(DigestOf(*npz), DigestOf(*csv));
}

TEST_F(Files, WithoutLabelsKeepAllTheirColumns) {
  const std::string path = Write("u.csv", "1,2.5\n3,4.5\n");
  EXPECT_EQ(LoadDataset(path, {.want_labels = false})->features(), 2);
  EXPECT_FALSE(LoadDataset(path).ok()) << "2.5 is no class";
  EXPECT_EQ(LoadDataset(Write("n.csv", "y,a,b\n1,2,3\n"), {.want_labels = false})->features(), 2);
  EXPECT_NE(LoadDataset(Write("x.npy", "")).status().message().find("is no data set; give"), std::string::npos);
}

TEST(FromFp32, TakesOnlyWholeNumbersInRangeForIntegers) {
  const std::array<float, 2> x{1, -2};
  const auto t = tensor::Tensor::From<float>({2}, x).value();
  EXPECT_EQ(FromFp32(t, DataType::kInt64)->As<long>()[1], -2);
  EXPECT_EQ(FromFp32(t, DataType::kFp64)->As<double>()[0], 1);
  EXPECT_NE(FromFp32(t, DataType::kUint8).status().message().find("is no UINT8"), std::string::npos);
  const std::array<float, 1> half{.5f};
  EXPECT_FALSE(FromFp32(*tensor::Tensor::From<float>({1}, half), DataType::kInt32).ok());
}

TEST_F(Files, ThatAreNoDatasetsSayWhy) {
  EXPECT_NE(LoadDataset(Write("n.csv", "1,nan\n2,3\n")).status().message().find("is no class"), std::string::npos);
  EXPECT_NE(LoadDataset(Write("i.csv", "a,label\ninf,1\n")).status().message().find("infinity at element 0"),
            std::string::npos);
  EXPECT_NE(LoadDataset(Write("l.csv", "a,label\n1,1.5\n")).status().message().find("label 1.5"), std::string::npos);
  EXPECT_FALSE(LoadDataset((dir_ / "missing").string()).ok());
  EXPECT_FALSE(LoadDataset(Write("r.csv", "1,1\n"), {.begin = 0, .end = 5}).ok());
  EXPECT_FALSE(
      LoadDataset(Write("z.npz", Zip({{"y.npy", WriteNpy(tensor::Tensor::Zeros(DataType::kFp32, {2})->View())}})))
          .ok());
}

}  // namespace
}  // namespace ganglion::data
