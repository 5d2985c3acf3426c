#include "shrink/progressive.h"

#include <gtest/gtest.h>

#include "shrink/models_test.h"
#include "shrink/slim.h"

namespace ganglion::shrink {
namespace {

class Progressive : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto wide = ConvNet(6);
    std::vector<const onnx::ModelProto*> pointers;
    models_.resize(3);
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_TRUE(ExtractWidth(wide, widths_[i], 1, &models_[i]).ok());
      // Statistics of its own, as after measuring them for a width.
      for (auto& t : *models_[i].mutable_graph()->mutable_initializer()) {
        if (t.name() != "n1.mean") continue;
        auto v = graph::ToTensor(t).value();
        for (float& x : v.As<float>()) x += static_cast<float>(i);
        t.Clear();
        graph::FromTensor("n1.mean", v.View(), &t);
      }
      pointers.push_back(&models_[i]);
    }
    file_ = WriteProgressive(pointers, widths_).value();
  }
  std::span<const std::byte> Prefix(std::size_t n) const { return std::as_bytes(std::span(file_)).first(n); }

  const std::vector<double> widths_{.34, .67, 1};
  std::vector<onnx::ModelProto> models_;
  std::string file_;
};

TEST_F(Progressive, APrefixIsTheNarrowModelAndTheWholeTheWide) {
  const auto head = ReadHead(Prefix(file_.size())).value();
  ASSERT_EQ(head.levels.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    onnx::ModelProto loaded;
    int level = -1;
    ASSERT_TRUE(LoadPrefix(Prefix(head.levels[i].end), kMaxLevels, &loaded, &level).ok());
    EXPECT_EQ(level, static_cast<int>(i));
    EXPECT_EQ(graph::Serialize(loaded), graph::Serialize(models_[i]));
    EXPECT_EQ(head.levels[i].width, widths_[i]);
    // One byte less is the model before.
    const auto s = LoadPrefix(Prefix(head.levels[i].end - 1), kMaxLevels, &loaded, &level);
    EXPECT_EQ(s.ok(), i > 0);
    if (i > 0) {
      EXPECT_EQ(level, static_cast<int>(i) - 1);
    }
  }
}

TEST_F(Progressive, UpgradesFromTheMissingLevelAlone) {
  const auto head = ReadHead(Prefix(file_.size())).value();
  onnx::ModelProto model;
  int level = -1;
  ASSERT_TRUE(LoadPrefix(Prefix(file_.size()), 0, &model, &level).ok());
  EXPECT_EQ(level, 0);
  for (int i = 1; i < 3; ++i) {
    const auto& l = head.levels[static_cast<std::size_t>(i)];
    ASSERT_TRUE(Upgrade(head, i, Prefix(l.end).subspan(l.begin), &model).ok());
    EXPECT_EQ(graph::Serialize(model), graph::Serialize(models_[static_cast<std::size_t>(i)]));
  }
}

TEST_F(Progressive, SharedParametersAreWrittenOnce) {
  std::size_t widest = 0;
  std::size_t all = 0;
  std::size_t graphs = 0;
  for (const auto& m : models_) {
    std::size_t numbers = 0;
    for (const auto& t : m.graph().initializer()) numbers += t.raw_data().size();
    widest = std::max(widest, numbers);
    all += numbers;
    graphs += graph::Serialize(m).size() - numbers;
  }
  EXPECT_LT(file_.size(), widest + graphs + 1200);  // 1,200: statistics of the widths, and the head
  EXPECT_LT(file_.size(), all + graphs);
}

TEST_F(Progressive, EveryByteThatIsChangedIsFound) {
  for (std::size_t i = 0; i < file_.size(); i += 7) {
    std::string bad = file_;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    onnx::ModelProto model;
    EXPECT_FALSE(LoadPrefix(std::as_bytes(std::span(bad)), kMaxLevels, &model, nullptr).ok()) << "byte " << i;
  }
}

TEST_F(Progressive, EveryCutIsAModelOrARefusal) {
  const auto head = ReadHead(Prefix(file_.size())).value();
  for (std::size_t n = 0; n < file_.size(); n += 11) {
    onnx::ModelProto model;
    int level = -1;
    const auto s = LoadPrefix(Prefix(n), kMaxLevels, &model, &level);
    EXPECT_EQ(s.ok(), n >= head.levels[0].end) << n << ": " << s.message();
  }
}

TEST_F(Progressive, ALevelOfAnotherFileDoesNotFit) {
  const auto head = ReadHead(Prefix(file_.size())).value();
  onnx::ModelProto model = models_[1];
  const auto before = graph::Serialize(model);
  const auto& l = head.levels[1];
  EXPECT_FALSE(Upgrade(head, 2, Prefix(l.end).subspan(l.begin), &model).ok());
  EXPECT_EQ(graph::Serialize(model), before);
}

TEST_F(Progressive, RefusesNoModelAndWidthsThatDoNotRise) {
  EXPECT_FALSE(WriteProgressive({}, {}).ok());
  EXPECT_FALSE(WriteProgressive({&models_[0], &models_[1]}, {.5, .5}).ok());
  EXPECT_FALSE(WriteProgressive({&models_[0]}, {0}).ok());
  EXPECT_FALSE(WriteProgressive({&models_[0]}, {.5, 1}).ok());
}

}  // namespace
}  // namespace ganglion::shrink
