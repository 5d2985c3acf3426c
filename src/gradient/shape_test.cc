// The cases of rules_shape and rules_pieces.
#include "gradient/cases_test.h"

namespace ganglion::gradient {
namespace {

using graph::Attribute;
using List = std::vector<std::int64_t>;

constexpr double kLast = 9e15;  // beyond any size
Attribute Axis(std::int64_t axis) { return {"axis", axis}; }
Attribute Mode(const char* mode) { return {"mode", std::string(mode)}; }
const Attribute kTwoByTwo{"blocksize", std::int64_t{2}};

const std::vector<Case> kShapes{
    Case("Reshape", "one size to find", {P({2, 6}), I({3, -1})}),
    Case("Reshape", "size copied", {P({2, 6}), I({0, 2, 3})}).Batched(),
    Case("Reshape", "copied and found", {P({2, 6}), I({0, -1, 3})}).Batched(),
    Case("Flatten", "axis 1", {P({2, 3, 2})}).Batched(),
    Case("Flatten", "last axis", {P({2, 3, 2})}, {Axis(2)}),
    Case("Flatten", "axis -1", {P({2, 3, 2})}, {Axis(-1)}),
    Case("Flatten", "axis 0", {P({2, 3})}, {Axis(0)}),
    Case("Squeeze", "axes", {P({2, 1, 3, 1}), I({1, -1})}).Batched(),
    Case("Squeeze", "all of size 1", {P({2, 1, 3, 1})}),
    Case("Unsqueeze", "axes", {P({2, 3}), I({1, -1})}).Batched(),
    Case("Unsqueeze", "first", {P({3}), I({0})}),
    Case("Transpose", "default", {P({2, 3})}),
    Case("Transpose", "perm", {P({2, 3, 4})}, {{"perm", List{2, 0, 1}}}),
    Case("Transpose", "perm behind the batch", {P({2, 3, 4})}, {{"perm", List{0, 2, 1}}}).Batched(),
    Case("Expand", "row to matrix", {P({1, 3}), I({4, 3})}),
    Case("Expand", "new axes", {P({3, 1}), I({2, 1, 4})}),
    Case("Expand", "no change", {P({2, 3}), I({1, 1})}).Batched(),
    Case("Tile", "two axes", {P({2, 3}), I({2, 3})}),
    Case("Tile", "one axis", {P({2, 3}), I({1, 2})}).Batched(),
    Case("Tile", "once", {P({2, 3}), I({1, 1})}),
    Case("Concat", "first axis", {P({2, 3}), P({1, 3})}, {Axis(0)}),
    Case("Concat", "last axis, three", {P({2, 3}), P({2, 1}), P({2, 2})}, {Axis(-1)}),
    Case("Concat", "one", {P({2, 3})}, {Axis(1)}).Batched(),
    Case("Split", "equal parts", {P({4, 3})}, {Axis(0)}).Reads({true, true}),
    Case("Split", "sizes", {P({2, 6}), I({1, 2, 3})}, {Axis(1)}).Reads({true, true, true}).Batched(),
    Case("Split", "axis -1", {P({2, 2, 4}), I({3, 1})}, {Axis(-1)}).Reads({true, true}).Batched(),
    Case("DepthToSpace", "DCR", {P({2, 8, 2, 3})}, {kTwoByTwo}).Batched(),
    Case("DepthToSpace", "CRD", {P({2, 8, 2, 3})}, {kTwoByTwo, Mode("CRD")}).Batched(),
    Case("SpaceToDepth", "2 x 2", {P({2, 3, 4, 2})}, {kTwoByTwo}).Batched(),
};
INSTANTIATE_TEST_SUITE_P(Shapes, EveryRule, ::testing::ValuesIn(kShapes), CaseName);

const std::vector<Case> kPieces{
    Case("Slice", "start and end", {P({4, 5}), I({1, 0}), I({3, 4})}),
    Case("Slice", "negative ends", {P({2, 5}), I({-4}), I({-1}), I({1})}).Batched(),
    Case("Slice", "beyond the end", {P({2, 5}), I({2}), I({kLast}), I({-1})}).Batched(),
    Case("Slice", "step 2", {P({2, 7}), I({1}), I({6}), I({1}), I({2})}).Batched(),
    Case("Slice", "step 3 beyond the end", {P({2, 8}), I({1}), I({kLast}), I({1}), I({3})}),
    Case("Slice", "reversed", {P({2, 5}), I({-1}), I({-kLast}), I({1}), I({-1})}).Batched(),
    Case("Slice", "step -2", {P({3, 6}), I({4}), I({0}), I({1}), I({-2})}),
    Case("Slice", "steps on two axes", {P({5, 7, 2}), I({0, -1}), I({5, -kLast}), I({0, 1}), I({2, -3})}),
    Case("Slice", "whole batch", {P({2, 5}), I({0, 1}), I({kLast, 4}), I({0, 1})}).Batched(),
    Case("Pad", "zeros", {P({2, 3}), I({0, 1, 1, 2})}),
    Case("Pad", "zeros behind the batch", {P({2, 3}), I({0, 1, 0, 2})}).Batched(),
    Case("Pad", "a constant", {P({2, 3}), I({1, 0, 0, 1}), C({}, {.7})}),
    Case("Pad", "negative", {P({3, 4}), I({0, -1, -1, 2})}),
    Case("Pad", "none", {P({2, 3}), I({0, 0, 0, 0})}),
    Case("Pad", "edge", {P({2, 3, 4}), I({0, 2, 1, 0, 0, 3})}, {Mode("edge")}).Batched(),
    Case("Pad", "reflect", {P({2, 3, 4}), I({0, 2, 1, 0, 1, 3})}, {Mode("reflect")}).Batched(),
    Case("Gather", "rows of a table, repeated", {P({5, 3}), I({2, 3}, {0, 4, 4, 1, -1, 4})}),
    Case("Gather", "rows of a table, one thread", {P({5, 3}), I({2, 3}, {0, 4, 4, 1, -1, 4})})
        .Under({.one_thread = true}),
    Case("Gather", "list", {P({5, 3}), I({3, 0, 3})}),
    Case("Gather", "last axis", {P({2, 5}), I({3}, {0, 4, 4})}, {Axis(-1)}).Batched(),
    Case("Gather", "middle axis, matrix of indices", {P({2, 4, 3}), I({2, 2}, {0, 3, 3, 1})}, {Axis(1)}).Batched(),
    Case("Gather", "one place", {P({2, 4, 3}), I({}, {-1})}, {Axis(1)}).Batched(),
    Case("Gather", "list of one", {P({2, 4, 3}), I({2})}, {Axis(2)}).Batched(),
    Case("GatherElements", "first axis, repeated", {P({3, 2}), I({3, 2}, {0, 2, 0, 2, -1, 1})}),
    Case("GatherElements", "last axis", {P({2, 4}), I({2, 3}, {0, 3, 3, 1, 1, 1})}, {Axis(1)}),
    Case("Trilu", "upper", {P({3, 4})}),
    Case("Trilu", "lower, k", {P({2, 3, 3}), I({}, {-1})}, {{"upper", std::int64_t{0}}}).Batched(),
};
INSTANTIATE_TEST_SUITE_P(Pieces, EveryRule, ::testing::ValuesIn(kPieces), CaseName);

Attribute Coordinates(const char* mode) { return {"coordinate_transformation_mode", std::string(mode)}; }
Attribute Rounded(const char* mode) { return {"nearest_mode", std::string(mode)}; }
const Operand kNoRoi = Absent();

const std::vector<Case> kResizes{
    Case("Resize", "nearest, whole scales", {P({2, 2, 3, 2}), kNoRoi, C({4}, {1, 1, 2, 3})},
         {Coordinates("asymmetric"), Rounded("floor")})
        .Batched(),
    Case("Resize", "nearest, half pixel", {P({1, 2, 3, 2}), kNoRoi, C({4}, {1, 1, 2, 2})}).Batched(),
    Case("Resize", "nearest, odd sizes", {P({1, 2, 3, 5}), kNoRoi, Absent(), I({1, 2, 5, 3})},
         {Coordinates("asymmetric"), Rounded("floor")}),
    Case("Resize", "nearest, down", {P({1, 1, 4, 6}), kNoRoi, C({4}, {1, 1, .5, .5})}, {Rounded("ceil")}),
    Case("Resize", "nearest, one axis", {P({2, 2, 3}), kNoRoi, C({3}, {1, 1, 2})}, {Coordinates("asymmetric")})
        .Batched(),
    Case("Resize", "linear, half pixel", {P({1, 2, 3, 4}), kNoRoi, C({4}, {1, 1, 2, 2})}, {Mode("linear")}).Batched(),
    Case("Resize", "linear, corners, sizes", {P({1, 2, 3, 4}), kNoRoi, Absent(), I({1, 2, 5, 7})},
         {Mode("linear"), Coordinates("align_corners")}),
    Case("Resize", "linear, asymmetric, down", {P({1, 1, 6, 5}), kNoRoi, Absent(), I({1, 1, 3, 2})},
         {Mode("linear"), Coordinates("asymmetric")}),
};
INSTANTIATE_TEST_SUITE_P(Resizes, EveryRule, ::testing::ValuesIn(kResizes), CaseName);

}  // namespace
}  // namespace ganglion::gradient
