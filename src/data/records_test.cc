#include "data/records.h"

#include <gtest/gtest.h>
#include <png.h>
#include <zip.h>
#include <zlib.h>

#include <array>
#include <fstream>

#include "base/random.h"
#include "base/scratch_test.h"
#include "data/bytes.h"
#include "data/file.h"
#include "data/formats.h"

namespace ganglion::data {
namespace {

namespace fs = std::filesystem;
using tensor::DataType;
using Text = RecordOptions::Text;

// All rows of every field, read in pieces of `piece` rows.
std::vector<std::string> All(Records& r, std::int64_t piece) {
  std::vector<std::string> whole(r.fields().size());
  for (std::int64_t begin = 0; begin < r.rows(); begin += piece) {
    const std::int64_t n = std::min(piece, r.rows() - begin);
    std::vector<std::string> parts(whole.size());
    std::vector<std::span<std::byte>> out;
    for (std::size_t f = 0; f < whole.size(); ++f) {
      parts[f].resize(static_cast<std::size_t>(n) * r.fields()[f].row_bytes());
      out.push_back(std::as_writable_bytes(std::span(parts[f])));
    }
    const Status s = r.Read(begin, n, out);
    EXPECT_TRUE(s.ok()) << s.message();
    for (std::size_t f = 0; f < whole.size(); ++f) whole[f] += parts[f];
  }
  return whole;
}

// Row `row` of field `field`, as numbers of T.
template <typename T>
std::vector<T> Row(Records& r, std::size_t field, std::int64_t row) {
  std::vector<std::string> parts(r.fields().size());
  std::vector<std::span<std::byte>> out;
  for (std::size_t f = 0; f < parts.size(); ++f) {
    parts[f].resize(r.fields()[f].row_bytes());
    out.push_back(std::as_writable_bytes(std::span(parts[f])));
  }
  const Status s = r.Read(row, 1, out);
  EXPECT_TRUE(s.ok()) << s.message();
  const auto* p = reinterpret_cast<const T*>(parts[field].data());
  return {p, p + parts[field].size() / sizeof(T)};
}

std::string Why(const Result<std::unique_ptr<Records>>& r) { return r.ok() ? "" : r.status().message(); }

class RecordFiles : public ScratchDir {
 protected:
  std::string Write(const std::string& name, const std::string& bytes) {
    fs::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return (dir_ / name).string();
  }
  std::string WriteGzip(const std::string& name, const std::string& bytes) {
    gzFile gz = gzopen((dir_ / name).c_str(), "wb");
    gzwrite(gz, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(gz);
    return (dir_ / name).string();
  }
  std::string WriteZip(const std::string& name, const std::map<std::string, std::string>& entries, bool deflate) {
    const std::string path = (dir_ / name).string();
    zip_t* z = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
    for (const auto& [entry, content] : entries) {
      const auto i = zip_file_add(z, entry.c_str(), zip_source_buffer(z, content.data(), content.size(), 0), 0);
      zip_set_file_compression(z, static_cast<zip_uint64_t>(i), deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
    }
    zip_close(z);
    return path;
  }
  std::string WriteGrey(const std::string& name, unsigned width, unsigned height, unsigned char first) {
    std::vector<unsigned char> pixels(std::size_t{width} * height, 100);
    pixels[0] = first;
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = width;
    image.height = height;
    image.format = PNG_FORMAT_GRAY;
    png_alloc_size_t size = 0;
    png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
    std::string png(size, '\0');
    png_image_write_to_memory(&image, png.data(), &size, 0, pixels.data(), 0, nullptr);
    return Write(name, png);
  }
};

std::string Npy(DataType type, const tensor::Shape& shape, const std::string& bytes) {
  return WriteNpy({type, shape, std::as_bytes(std::span(bytes))});
}

std::string Idx(std::initializer_list<int> dims, const std::string& body, int type = 8) {
  std::string s{0, 0, static_cast<char>(type), static_cast<char>(dims.size())};
  for (const int d : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) s += static_cast<char>(d >> shift);
  }
  return s + body;
}

std::string RandomBytes(std::size_t n) {
  Random random(7);
  std::string s(n, '\0');
  for (char& c : s) c = static_cast<char>(random.Below(256));
  return s;
}

TEST_F(RecordFiles, OfArraysGiveTheSameRowsInPiecesOfAnySize) {
  const std::string x = RandomBytes(103 * 6);
  const std::string y = RandomBytes(103);
  const tensor::Shape shape{103, 2, 3};
  const tensor::Shape rows{103};
  Write("plain-images-idx3-ubyte", Idx({103, 2, 3}, x));
  Write("plain-labels-idx1-ubyte", Idx({103}, y));
  WriteGzip("packed-images-idx3-ubyte.gz", Idx({103, 2, 3}, x));
  WriteGzip("packed-labels-idx1-ubyte.gz", Idx({103}, y));
  const std::map<std::string, std::string> arrays{{"x.npy", Npy(DataType::kUint8, shape, x)},
                                                  {"y.npy", Npy(DataType::kUint8, rows, y)}};
  WriteZip("stored.npz", arrays, false);
  WriteZip("deflated.npz", arrays, true);
  for (const auto& [name, content] : arrays) Write("folder/" + name, content);
  for (const char* name : {"plain", "packed", "stored.npz", "deflated.npz", "folder"}) {
    auto r = OpenRecords((dir_ / name).string());
    ASSERT_TRUE(r.ok()) << name << ": " << Why(r);
    EXPECT_EQ((*r)->rows(), 103) << name;
    EXPECT_EQ((*r)->fields()[0].Text(), "x UINT8[2,3]") << name;
    EXPECT_EQ((*r)->fields()[1].Text(), "y UINT8[]") << name;
    for (const std::int64_t piece : {1, 10, 103}) {
      const auto all = All(**r, piece);
      EXPECT_EQ(all[0], x) << name << ' ' << piece;
      EXPECT_EQ(all[1], y) << name << ' ' << piece;
    }
    // Going back.
    EXPECT_EQ(Row<unsigned char>(**r, 0, 50)[0], static_cast<unsigned char>(x[300])) << name;
    EXPECT_EQ(Row<unsigned char>(**r, 0, 3)[5], static_cast<unsigned char>(x[23])) << name;
  }
  EXPECT_TRUE(OpenRecords((dir_ / "packed").string()).value()->sequential());
  EXPECT_FALSE(OpenRecords((dir_ / "plain").string()).value()->sequential());
}

TEST_F(RecordFiles, OfIdxTurnBigEndianNumbers) {
  Write("n-images-idx3-ubyte", Idx({2}, std::string("\0\1\0\2", 4), 0x0B));
  Write("n-labels-idx1-ubyte", Idx({2}, std::string("\0\1", 2)));
  auto r = OpenRecords((dir_ / "n").string()).value();
  EXPECT_EQ(Row<std::int16_t>(*r, 0, 1)[0], 2);
}

TEST_F(RecordFiles, OfArraysRefuseWhatDoesNotAddUp) {
  const tensor::Shape shape{4, 2};
  const tensor::Shape four{4};
  const tensor::Shape three{3};
  const std::string x = Npy(DataType::kUint8, shape, "abcdefgh");
  const std::string short_x = Write("cut.npy", x.substr(0, x.size() - 1));
  EXPECT_NE(Why(OpenRecords(short_x)).find("it is cut short"), std::string::npos) << Why(OpenRecords(short_x));
  EXPECT_NE(Why(OpenRecords(Write("long.npy", x + "x"))).find("bytes, it has"), std::string::npos);
  EXPECT_FALSE(OpenRecords(Write("none.npy", "")).ok());
  Write("uneven/x.npy", x);
  Write("uneven/y.npy", Npy(DataType::kUint8, three, "abc"));
  EXPECT_NE(Why(OpenRecords((dir_ / "uneven").string())).find("\"y\" has 3 rows, \"x\" 4"), std::string::npos);
  EXPECT_NE(Why(OpenRecords((dir_ / "missing").string())).find("missing-images-idx3-ubyte"), std::string::npos);
  EXPECT_NE(Why(OpenRecords(WriteZip("text.npz", {{"x.npy", "no array"}}, false))).find("no NumPy magic"),
            std::string::npos);
  // A gzip file that ends early is noticed when its end is wanted.
  WriteGzip("c-images-idx3-ubyte.gz", Idx({4, 2}, "abcdefg"));
  WriteGzip("c-labels-idx1-ubyte.gz", Idx({4}, "abcd"));
  auto cut = OpenRecords((dir_ / "c").string()).value();
  std::array<std::byte, 8> a;
  std::array<std::byte, 4> b;
  const std::array<std::span<std::byte>, 2> out{a, b};
  EXPECT_NE(cut->Read(0, 4, out).message().find("cut short"), std::string::npos);
}

TEST_F(RecordFiles, OfSeveralArraysKeepTheirNamesAndTheTargetIsChosen) {
  const tensor::Shape shape{4, 2};
  const tensor::Shape four{4};
  const tensor::Shape ten{10};
  const auto path = WriteZip("m.npz",
                             {{"ids.npy", Npy(DataType::kUint8, shape, "abcdefgh")},
                              {"price.npy", Npy(DataType::kUint8, four, "1234")},
                              {"classes.npy", Npy(DataType::kUint8, ten, "0123456789")}},
                             true);
  RecordOptions o;
  o.targets = {"price"};
  auto r = OpenRecords(path, o);
  ASSERT_FALSE(r.ok()) << "without an x the first array says how many rows there are";
  const auto path2 = WriteZip("m2.npz",
                              {{"a.npy", Npy(DataType::kUint8, shape, "abcdefgh")},
                               {"price.npy", Npy(DataType::kUint8, four, "1234")},
                               {"zz.npy", Npy(DataType::kUint8, ten, "0123456789")}},
                              true);
  r = OpenRecords(path2, o);
  ASSERT_TRUE(r.ok()) << Why(r);
  EXPECT_EQ((*r)->fields().size(), 2u) << "an array of another length is no part of the rows";
  EXPECT_EQ(Row<char>(**r, (*r)->FieldIndex("y").value(), 2)[0], '3');
  o.targets = {"cost"};
  EXPECT_NE(Why(OpenRecords(path2, o)).find("there is no array \"cost\"; there are: a price"), std::string::npos)
      << Why(OpenRecords(path2, o));
}

TEST_F(RecordFiles, OfCsvReadAnyRowsAndChooseTheirTargets) {
  std::string text = "a,label,b\n";
  for (int i = 0; i < 2500; ++i) {
    text += std::to_string(i) + "," + std::to_string(i % 7) + ", " + std::to_string(-i) + ".5\r\n";
    if (i == 1700) text += "\n";  // a blank line is no row
  }
  for (const auto& path : {Write("d.csv", text), WriteGzip("d.csv.gz", text)}) {
    auto r = OpenRecords(path);
    ASSERT_TRUE(r.ok()) << Why(r);
    EXPECT_EQ((*r)->rows(), 2500);
    EXPECT_EQ(Row<float>(**r, 0, 2499), (std::vector<float>{2499, -2499.5f}));
    EXPECT_EQ(Row<float>(**r, 0, 10), (std::vector<float>{10, -10.5f}));
    EXPECT_EQ(Row<float>(**r, 1, 1999)[0], 1999 % 7);
    const auto all = All(**r, 2500);
    EXPECT_EQ(All(**r, 333), all);
    EXPECT_EQ((*r)->Where(10), path + " line 12");
  }
  RecordOptions o;
  o.targets = {"b", "a"};
  auto r = OpenRecords((dir_ / "d.csv").string(), o).value();
  EXPECT_EQ(r->fields()[1].Text(), "y FP32[2]");
  EXPECT_EQ(Row<float>(*r, 1, 3), (std::vector<float>{-3.5f, 3}));
  o.targets = {"c"};
  EXPECT_NE(Why(OpenRecords((dir_ / "d.csv").string(), o)).find("has no column \"c\"; it has: a label b"),
            std::string::npos);
  o.targets.clear();
  o.want_target = false;
  EXPECT_EQ(OpenRecords(Write("u.csv", "1,2\n3,4\n"), o).value()->fields()[0].shape[0], 2);
}

TEST_F(RecordFiles, OfCsvNameTheLineAndTheValueThatIsWrong) {
  std::string text = "a,label\n";
  for (int i = 0; i < 1500; ++i) text += i == 1203 ? "x7,1\n" : i == 1300 ? "1\n" : "1,2\n";
  auto r = OpenRecords(Write("bad.csv", text)).value();
  std::vector<float> x(1);
  std::vector<float> y(1);
  const std::array<std::span<std::byte>, 2> out{std::as_writable_bytes(std::span(x)),
                                                std::as_writable_bytes(std::span(y))};
  EXPECT_TRUE(r->Read(1202, 1, out).ok());
  EXPECT_EQ(r->Read(1203, 1, out).message(), (dir_ / "bad.csv").string() + " line 1205: field 1 \"x7\" is no number");
  EXPECT_EQ(r->Read(1300, 1, out).message(),
            (dir_ / "bad.csv").string() + " line 1302: there are 1 fields, the first line has 2");
  EXPECT_TRUE(r->Read(1204, 1, out).ok()) << "an error does not move the place";
  EXPECT_EQ(y[0], 2);
  EXPECT_NE(Why(OpenRecords(Write("empty.csv", "a,b\n"))).find("has no rows"), std::string::npos);
}

TEST_F(RecordFiles, OfLabelledTextAreCutAndFilledUp) {
  RecordOptions o;
  o.length = 4;
  auto r = OpenRecords(Write("t.txt", "1 hello\n0\tab\n\n2\n"), o);
  ASSERT_TRUE(r.ok()) << Why(r);
  EXPECT_EQ((*r)->rows(), 3);
  EXPECT_EQ(Row<long>(**r, 0, 0), (std::vector<long>{'h', 'e', 'l', 'l'}));
  EXPECT_EQ(Row<long>(**r, 0, 1), (std::vector<long>{'a', 'b', 0, 0}));
  EXPECT_EQ(Row<long>(**r, 1, 2), std::vector<long>{2});
  o.vocabulary = Write("v.txt", "<pad>\n<unk>\nred\nblue\n");
  r = OpenRecords(Write("w.txt", "0 red  green\tblue\n"), o);
  ASSERT_TRUE(r.ok()) << Why(r);
  EXPECT_EQ(Row<long>(**r, 0, 0), (std::vector<long>{2, 1, 3, 0}));
}

TEST_F(RecordFiles, OfTextRefuseWordsAndLabelsThatAreNotKnown) {
  RecordOptions o;
  o.length = 4;
  auto bad = OpenRecords(Write("t.txt", "1 hello\nspam buy\n"), o).value();
  std::array<std::byte, 32> x;
  std::array<std::byte, 8> y;
  const std::array<std::span<std::byte>, 2> out{x, y};
  EXPECT_NE(bad->Read(1, 1, out).message().find("t.txt line 2: \"spam\" is no class"), std::string::npos);
  o.vocabulary = Write("v.txt", "red\nblue\n");
  auto unknown = OpenRecords(Write("w.txt", "0 red green\n"), o).value();
  EXPECT_NE(unknown->Read(0, 1, out).message().find("w.txt line 1: \"green\" is not in"), std::string::npos);
  o.vocabulary = Write("twice.txt", "red\nblue\nred\n");
  EXPECT_NE(Why(OpenRecords((dir_ / "w.txt").string(), o)).find("line 3: \"red\" is there twice"), std::string::npos);
  o.length = 0;
  EXPECT_NE(Why(OpenRecords((dir_ / "w.txt").string(), o)).find("got 0"), std::string::npos);
}

TEST_F(RecordFiles, OfOneLongTextAreWindowsAndWhatFollows) {
  std::string text;
  for (int i = 0; i < 9000; ++i) text += "w" + std::to_string(i % 50) + (i % 9 == 8 ? "\n" : " ");
  RecordOptions o;
  o.text = Text::kLanguage;
  o.length = 5;
  for (const auto& path : {Write("b.txt", text), WriteGzip("b.txt.gz", text)}) {
    auto r = OpenRecords(path, o);
    ASSERT_TRUE(r.ok()) << Why(r);
    EXPECT_EQ((*r)->rows(), static_cast<std::int64_t>(text.size() - 1) / 5);
    const auto x = Row<long>(**r, 0, 700);
    const auto y = Row<long>(**r, 1, 700);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(x[i], text[3500 + i]);
      EXPECT_EQ(y[i], text[3501 + i]);
    }
  }
  std::string words = "<eos>\n";
  for (int i = 0; i < 50; ++i) words += "w" + std::to_string(i) + "\n";
  o.vocabulary = Write("v.txt", words);
  auto r = OpenRecords((dir_ / "b.txt").string(), o).value();
  EXPECT_EQ(r->rows(), (10000 - 1) / 5);  // nine words and a line's end, a thousand times
  const auto token = [](std::int64_t i) -> long { return i % 10 == 9 ? 0 : 1 + (i / 10 * 9 + i % 10) % 50; };
  for (const std::int64_t row : {0, 1, 999, 1000, 1001, 1998}) {
    const auto x = Row<long>(*r, 0, row);
    const auto y = Row<long>(*r, 1, row);
    for (std::int64_t i = 0; i < 5; ++i) {
      EXPECT_EQ(x[static_cast<std::size_t>(i)], token(row * 5 + i)) << row << ' ' << i;
      EXPECT_EQ(y[static_cast<std::size_t>(i)], token(row * 5 + i + 1)) << row << ' ' << i;
    }
  }
  EXPECT_EQ(All(*r, 77), All(*r, 1999));
  EXPECT_NE(Why(OpenRecords(Write("tiny.txt", "w1 w2\n"), o)).find("has 3 tokens, a row takes 6"), std::string::npos);
}

TEST_F(RecordFiles, InFoldersAreImagesOfTheirClasses) {
  WriteGrey("set/cat/1.png", 8, 6, 1);
  WriteGrey("set/cat/2.png", 8, 6, 2);
  WriteGrey("set/dog/1.png", 8, 6, 3);
  Write("set/dog/notes.md", "no image");
  RecordOptions o;
  o.channels = 1;
  auto r = OpenRecords((dir_ / "set").string(), o);
  ASSERT_TRUE(r.ok()) << Why(r);
  EXPECT_EQ((*r)->class_names(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ((*r)->fields()[0].Text(), "x UINT8[1,6,8]");
  EXPECT_EQ(Row<unsigned char>(**r, 0, 2)[0], 3);
  EXPECT_EQ(Row<long>(**r, 1, 2)[0], 1);
  o.channels = 3;
  o.channels_last = true;
  EXPECT_EQ(OpenRecords((dir_ / "set").string(), o).value()->fields()[0].Text(), "x UINT8[6,8,3]");
  WriteGrey("set/dog/2.png", 4, 4, 3);
  Write("set/dog/3.png", "broken");
  o.channels = 1;
  r = OpenRecords((dir_ / "set").string(), o);
  ASSERT_TRUE(r.ok()) << Why(r);
  std::vector<std::byte> x(48);
  std::array<std::byte, 8> y;
  const std::array<std::span<std::byte>, 2> out{x, y};
  EXPECT_NE((*r)->Read(3, 1, out).message().find("2.png is 4x4 pixels, the first image"), std::string::npos);
  EXPECT_NE((*r)->Read(4, 1, out).message().find("3.png"), std::string::npos);
  fs::create_directories(dir_ / "empty");
  EXPECT_NE(Why(OpenRecords((dir_ / "empty").string())).find("a class is a folder"), std::string::npos);
}

TEST_F(RecordFiles, HaveAFingerprintThatFollowsTheirContent) {
  const auto a = OpenRecords(Write("a.csv", "1,2\n3,4\n")).value()->fingerprint();
  EXPECT_EQ(OpenRecords(Write("b.csv", "1,2\n3,4\n")).value()->fingerprint(), a) << "whatever they are called";
  EXPECT_NE(OpenRecords(Write("c.csv", "1,2\n3,5\n")).value()->fingerprint(), a);
  RecordOptions o;
  o.want_target = false;
  EXPECT_NE(OpenRecords((dir_ / "a.csv").string(), o).value()->fingerprint(), a);
}

TEST_F(RecordFiles, LinesOfAnyLengthUpToTheLimit) {
  std::string text(900'000, 'x');
  text += "\nshort\n\nlast";
  auto bytes = OpenBytes(Write("l.txt", text)).value();
  Lines lines(*bytes);
  std::string_view line;
  std::vector<std::size_t> sizes;
  for (;;) {
    const auto more = lines.Next(&line);
    ASSERT_TRUE(more.ok());
    if (!*more) break;
    sizes.push_back(line.size());
  }
  EXPECT_EQ(sizes, (std::vector<std::size_t>{900'000, 5, 0, 4}));
  EXPECT_EQ(lines.offset(), static_cast<std::int64_t>(text.size()));
  auto endless = OpenBytes(Write("e.txt", std::string(limits::kMaxLineBytes + 600'000, 'x'))).value();
  Lines one(*endless);
  EXPECT_EQ(one.Next(&line).status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace ganglion::data
