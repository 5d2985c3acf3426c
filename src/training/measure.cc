#include "training/measure.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gradient/losses.h"
#include "graph/graph.h"
#include "graph/onnx.pb.h"

namespace ganglion::training {
namespace {

using gradient::Loss;
using tensor::DataType;
using tensor::Shape;
using tensor::Tensor;

std::size_t Largest(std::span<const float> v) {
  return static_cast<std::size_t>(std::max_element(v.begin(), v.end()) - v.begin());
}

// log(sum exp(scale y)) over one position.
double LogSumExp(std::span<const float> y, double scale) {
  double top = -INFINITY;
  for (const float v : y) top = std::max(top, scale * v);
  double sum = 0;
  for (const float v : y) sum += std::exp(scale * v - top);
  return top + std::log(sum);
}

double SoftPlus(double y) { return std::max(y, 0.) + std::log1p(std::exp(-std::fabs(y))); }

struct Position {
  double loss = 0;
  double right = -1;
};

double CrossEntropy(std::span<const float> y, std::int64_t label) {
  return LogSumExp(y, 1) - y[static_cast<std::size_t>(label)];
}

// `target`: of this position, as the loss takes it. `label`: the class where there is one.
Position OfPosition(const gradient::Options& o, std::span<const float> y, std::span<const float> target,
                    std::int64_t label) {
  const auto k = static_cast<double>(y.size());
  const auto same = [&](std::size_t a, std::size_t b) { return a == b ? 1. : 0.; };
  double sum = 0;
  switch (o.loss) {
    case Loss::kSoftmaxCrossEntropy:
      return {CrossEntropy(y, label), same(Largest(y), static_cast<std::size_t>(label))};
    case Loss::kSoftmaxCrossEntropyDense: {
      const double log_sum = LogSumExp(y, 1);
      for (std::size_t i = 0; i < y.size(); ++i) sum += target[i] * (log_sum - y[i]);
      return {sum, same(Largest(y), Largest(target))};
    }
    case Loss::kSquaredError:
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double e = static_cast<double>(y[i]) - target[i];
        sum += e * e;
      }
      return {sum / k, -1};
    case Loss::kHuber:
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double e = std::fabs(static_cast<double>(y[i]) - target[i]);
        sum += e <= o.huber_delta ? e * e / 2 : o.huber_delta * (e - o.huber_delta / 2.);
      }
      return {sum / k, -1};
    case Loss::kSigmoidCrossEntropy: {
      double right = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        sum += SoftPlus(y[i]) - static_cast<double>(target[i]) * y[i];
        right += (y[i] > 0) == (target[i] > .5f) ? 1 : 0;
      }
      return {sum / k, right / k};
    }
    case Loss::kDistillation: {
      const double t = 1 / static_cast<double>(o.temperature);
      const double log_p = LogSumExp(target, t);
      const double log_q = LogSumExp(y, t);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double lp = t * target[i] - log_p;
        sum += std::exp(lp) * (lp - (t * y[i] - log_q));
      }
      sum *= (1 - static_cast<double>(o.hard_share)) * o.temperature * o.temperature;
      if (label >= 0 && o.hard_share > 0) sum += o.hard_share * CrossEntropy(y, label);
      return {sum, same(Largest(y), label >= 0 ? static_cast<std::size_t>(label) : Largest(target))};
    }
  }
  return {};
}

}  // namespace

Result<Measured> Measure(const std::shared_ptr<runtime::Engine>& engine, const model::Model& model, Source& source,
                         const gradient::Options& loss, std::int64_t batch) {
  // The loss is taken on what goes into a final Softmax: the same value becomes the output here.
  onnx::ModelProto proto;
  RETURN_IF_ERROR(graph::Parse(model.bytes(), &proto));
  onnx::GraphProto& g = *proto.mutable_graph();
  if (!loss.output.empty()) {
    const auto named =
        std::find_if(g.output().begin(), g.output().end(), [&](const auto& v) { return v.name() == loss.output; });
    if (named == g.output().end()) return InvalidArgument(model.name() + " has no output \"" + loss.output + "\"");
    g.mutable_output()->SwapElements(0, static_cast<int>(named - g.output().begin()));
  }
  g.mutable_output(0)->set_name(gradient::Head(g, loss.loss, loss.output));
  while (g.output_size() > 1) g.mutable_output()->RemoveLast();
  ASSIGN_OR_RETURN(const auto headed, model::Model::FromBytes(model.name(), graph::Serialize(proto)));
  ASSIGN_OR_RETURN(const auto session, runtime::Session::Create(engine, headed));
  const auto& signature = headed.signature();
  ASSIGN_OR_RETURN(const auto row_shapes, source.RowShapes(signature.inputs));

  // A model of fixed batch takes that one.
  std::int64_t rows_at_once = std::min(batch, source.count());
  for (const auto& spec : signature.inputs) {
    if (!spec.shape.empty() && spec.shape[0] > 0) rows_at_once = spec.shape[0];
  }
  std::vector<Tensor> inputs;
  Wanted wanted;
  wanted.loss = loss.loss;
  wanted.label = loss.loss == Loss::kDistillation && loss.hard_share > 0;
  Batch buffers;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    Shape shape = row_shapes[i];
    shape.insert(shape.begin(), rows_at_once);
    wanted.inputs.push_back({signature.inputs[i].name, signature.inputs[i].type, shape});
    ASSIGN_OR_RETURN(Tensor t, Tensor::Zeros(signature.inputs[i].type, shape));
    inputs.push_back(std::move(t));
  }
  for (auto& t : inputs) buffers.inputs.push_back(t.Mutable());
  // The shape of the output says what the target looks like; the first run tells it where the model does not.
  std::vector<tensor::View> views;
  views.reserve(inputs.size());
  for (const auto& t : inputs) views.push_back(t.View());
  ASSIGN_OR_RETURN(const auto trial, session->Run(views));
  Shape head = trial[0].shape();
  if (head.size() < 2 || head[0] != rows_at_once || trial[0].type() != DataType::kFp32) {
    return InvalidArgument(model.name() + ": a measure takes an output FP32[-1, ..., K], this one is " +
                           signature.outputs[0].Text());
  }
  wanted.classes = head.back();
  wanted.target = gradient::TargetSpec(loss.loss, head);
  RETURN_IF_ERROR(source.Prepare(wanted));
  ASSIGN_OR_RETURN(Tensor target, Tensor::Zeros(wanted.target.type, wanted.target.shape));
  buffers.target = target.Mutable();
  Tensor label;
  if (wanted.label) {
    ASSIGN_OR_RETURN(label, Tensor::Zeros(DataType::kInt64, Shape(head.begin(), head.end() - 1)));
    buffers.label = label.Mutable();
  }

  const auto k = static_cast<std::size_t>(head.back());
  const std::size_t positions = trial[0].As<float>().size() / k / static_cast<std::size_t>(rows_at_once);
  double loss_sum = 0;
  double right_sum = 0;
  bool has_accuracy = false;
  for (std::int64_t begin = 0; begin < source.count(); begin += rows_at_once) {
    const std::int64_t rows = std::min(rows_at_once, source.count() - begin);
    RETURN_IF_ERROR(source.Fill({}, begin, rows, buffers));
    ASSIGN_OR_RETURN(const auto out, session->Run(views));
    const auto y = out[0].As<float>();
    for (std::size_t p = 0; p < static_cast<std::size_t>(rows) * positions; ++p) {
      const bool classes = loss.loss == Loss::kSoftmaxCrossEntropy;
      const std::int64_t at = classes ? target.As<long>()[p] : wanted.label ? label.As<long>()[p] : -1;
      const auto one = OfPosition(loss, y.subspan(p * k, k),
                                  classes ? std::span<const float>() : target.View().As<float>().subspan(p * k, k), at);
      loss_sum += one.loss;
      right_sum += std::max(one.right, 0.);
      has_accuracy = one.right >= 0;
    }
  }
  const double all = static_cast<double>(source.count()) * static_cast<double>(positions);
  return Measured{loss_sum / all, has_accuracy ? right_sum / all : -1};
}

Result<double> Accuracy(const runtime::Session& session, const data::Dataset& dataset) {
  if (dataset.labels.empty()) return InvalidArgument("accuracy needs labels");
  constexpr std::int64_t kBatch = 500;
  std::int64_t right = 0;
  for (std::int64_t begin = 0; begin < dataset.rows(); begin += kBatch) {
    tensor::Shape shape;
    const auto view = tensor::Rows(dataset.x.View(), begin, std::min(begin + kBatch, dataset.rows()), &shape);
    ASSIGN_OR_RETURN(const auto out, session.Run({&view, 1}));
    const auto y = out[0].As<float>();
    const auto k = y.size() / static_cast<std::size_t>(shape[0]);
    for (std::size_t i = 0; i < static_cast<std::size_t>(shape[0]); ++i) {
      const auto row = y.subspan(i * k, k);
      right +=
          std::max_element(row.begin(), row.end()) - row.begin() == dataset.labels[static_cast<std::size_t>(begin) + i];
    }
  }
  return static_cast<double>(right) / static_cast<double>(dataset.rows());
}

}  // namespace ganglion::training
