#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/data.h"
#include "shrinking/shrinking.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model;
  std::string data;
  std::string rows;
  std::string valid;
  std::string valid_rows;
  std::vector<std::string> teachers;
  std::string out;
  std::string progressive;
  std::string bytes;
  std::string latency;
  std::string accuracy;
  std::vector<std::string> rules;
  std::vector<std::string> without;
  shrinking::ShrinkOptions shrink;
  bool quiet = false;
  bool json = false;
};

// A number with one of some units behind it: "100KB", "1ms", "-.005".
Result<double> Number(const std::string& option, const std::string& text,
                      const std::vector<std::pair<std::string, double>>& units) {
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  const std::string unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::string known;
  for (const auto& [name, factor] : units) {
    if (error == std::errc() && unit == name) return v * factor;
    known += (known.empty() ? "" : ", ") + (name.empty() ? "none" : name);
  }
  return InvalidArgument(option + " \"" + text + "\" is no number with a unit (" + known + ")");
}

Result<shrink::Budget> ReadBudget(const Options& o) {
  shrink::Budget budget;
  if (!o.bytes.empty()) {
    ASSIGN_OR_RETURN(const double v, Number("--budget-bytes", o.bytes,
                                            {{"", 1}, {"KB", 1e3}, {"MB", 1e6}, {"KiB", 1024}, {"MiB", 1 << 20}}));
    if (!(v >= 1 && v < 1e15)) return InvalidArgument("--budget-bytes must be at least 1, got " + o.bytes);
    budget.bytes = static_cast<std::uint64_t>(v);
  }
  if (!o.latency.empty()) {
    ASSIGN_OR_RETURN(budget.latency_ms, Number("--budget-latency", o.latency, {{"ms", 1}, {"us", 1e-3}, {"s", 1e3}}));
  }
  if (!o.accuracy.empty()) {
    ASSIGN_OR_RETURN(const double v, Number("--budget-accuracy", o.accuracy, {{"", 1}}));
    if (!(v <= 0 && v >= -1))
      return InvalidArgument("--budget-accuracy is what may be lost, from -1 to 0 (-.005: half a point), got " +
                             o.accuracy);
    budget.accuracy_loss = -v;
  }
  if (!budget.bytes && !budget.latency_ms && !budget.accuracy_loss) budget.accuracy_loss = .005;
  return budget;
}

Status ReadWays(const Options& o, shrinking::ShrinkOptions* s) {
  if (!o.rules.empty()) {
    s->rules.clear();
    for (const auto& name : o.rules) {
      const auto rule = shrink::RangeRuleFromName(name);
      if (!rule) return InvalidArgument("--ranges \"" + name + "\" is unknown; min-max, percentile or entropy");
      s->rules.push_back(*rule);
    }
  }
  for (const auto& way : o.without) {
    if (way == "int8") {
      s->rules.clear();
    } else if (way == "dynamic") {
      s->dynamic = false;
    } else if (way == "pruned") {
      s->sparsities.clear();
    } else if (way == "cut") {
      s->cuts.clear();
    } else if (way == "slim") {
      s->widths.clear();
    } else {
      return InvalidArgument("--without \"" + way + "\" is unknown; int8, dynamic, pruned, cut or slim");
    }
  }
  return {};
}

Result<model::Model> LoadModel(const std::string& path) {
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(path, limits::kMaxModelBytes));
  return model::Model::FromBytes(fs::path(path).filename(), std::move(bytes));
}

void PrintTable(const shrinking::Shrunk& s) {
  Table table({"candidate", "bytes", "of given", "p50", "p99", "accuracy"});
  std::vector<std::string> ends{"  kept, or why not"};
  std::vector<Colour> colours{Colour::kDim};
  const auto given = static_cast<double>(s.rows[0].measured.bytes);
  for (const auto& row : s.rows) {
    const auto& c = row.measured;
    if (c.failed.empty()) {
      table.Row({c.name, Thousands(static_cast<long long>(c.bytes)), Percent(static_cast<double>(c.bytes) / given),
                 Millis(c.p50_ms), Millis(c.p99_ms), fmt::format("{:.4f}", c.accuracy)});
    } else {
      table.Row({c.name, "-", "-", "-", "-", "-"});
    }
    ends.push_back("  " + (row.verdict.why.empty() ? "kept" : row.verdict.why));
    colours.push_back(row.verdict.why == "chosen" ? Colour::kGreen : row.verdict.kept ? Colour::kPlain : Colour::kDim);
  }
  const std::string text = table.Text(false);
  std::size_t at = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const std::size_t end = text.find('\n', at);
    fmt::print("{}\n", Paint(text.substr(at, end - at) + ends[i], colours[i], ColourOut()));
    at = end + 1;
  }
}

wire::Json AsJson(const shrinking::Shrunk& s, const std::string& out) {
  wire::Json j;
  j["candidates"] = wire::Json::array();
  for (const auto& row : s.rows) {
    const auto& c = row.measured;
    wire::Json one = {{"name", c.name}, {"kept", row.verdict.kept}, {"why", row.verdict.why}, {"about", row.about}};
    if (c.failed.empty()) {
      one["bytes"] = c.bytes;
      one["p50_ms"] = c.p50_ms;
      one["p99_ms"] = c.p99_ms;
      one["accuracy"] = c.accuracy;
    }
    j["candidates"].push_back(std::move(one));
  }
  j["reference"] = s.rows[static_cast<std::size_t>(s.reference)].measured.name;
  j["chosen"] =
      s.chosen < 0 ? wire::Json(nullptr) : wire::Json(s.rows[static_cast<std::size_t>(s.chosen)].measured.name);
  if (s.chosen >= 0) j["model"] = out;
  return j;
}

Status Run(Context& context, const Options& o) {
  shrinking::ShrinkOptions options = o.shrink;
  ASSIGN_OR_RETURN(options.budget, ReadBudget(o));
  RETURN_IF_ERROR(ReadWays(o, &options));
  if (!o.progressive.empty() && options.widths.empty())
    return InvalidArgument("--progressive holds the widths of the slim net; do not leave slim out");
  ASSIGN_OR_RETURN(const auto model, LoadModel(o.model));
  std::vector<model::Model> teachers;
  for (const auto& path : o.teachers) {
    ASSIGN_OR_RETURN(auto teacher, LoadModel(path));
    teachers.push_back(std::move(teacher));
  }
  data::LoadOptions load;
  RETURN_IF_ERROR(ParseRows(o.rows, &load.begin, &load.end));
  ASSIGN_OR_RETURN(const auto train, data::LoadDataset(o.data, load));
  data::LoadOptions load_valid;
  RETURN_IF_ERROR(ParseRows(o.valid_rows, &load_valid.begin, &load_valid.end));
  ASSIGN_OR_RETURN(const auto valid, data::LoadDataset(o.valid, load_valid));
  const fs::path out = o.out.empty() ? fs::path(o.model).replace_extension(".small.onnx") : fs::path(o.out);
  options.dir = out.string() + ".shrink";
  std::optional<shrinking::Shrunk> shrunk;
  {
    ProgressBar bar(o.quiet);
    auto result = shrinking::Shrink(context.engine, model, train, valid, teachers, options, context.stop,
                                    [&](const shrinking::ShrinkProgress& p) { bar.Show(p.done, p.doing); });
    if (!result.ok()) return result.status();
    shrunk = std::move(*result);
  }
  if (o.json) {
    std::fputs(wire::WriteJson(AsJson(*shrunk, out.string())).c_str(), stdout);
  } else {
    PrintTable(*shrunk);
  }
  const auto write_widths = [&]() -> Status {
    if (o.progressive.empty()) return {};
    if (shrunk->slim_file.empty()) return FailedPrecondition("there are no widths to write to " + o.progressive);
    return data::WriteFileAtomically(o.progressive, shrunk->slim_file);
  };
  if (shrunk->chosen < 0)
    return FailedPrecondition("no candidate is within the budget; " + options.dir.string() +
                              " holds them, --resume with another budget chooses at once");
  const auto& chosen = shrunk->rows[static_cast<std::size_t>(shrunk->chosen)];
  RETURN_IF_ERROR(data::WriteFileAtomically(out, chosen.model));
  if (!o.json) {
    fmt::print("wrote {}: {}{}; chosen on the rows of --valid, so measure it on others\n", out.string(),
               chosen.measured.name, chosen.about.empty() ? "" : " (" + chosen.about + ")");
  }
  return write_widths();
}

}  // namespace

void AddShrink(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "shrink", "Make an ONNX model smaller by every way there is, measure each on this device, keep the best");
  auto& s = o->shrink;
  verb->add_option("model", o->model, "an ONNX classifier, trained or (with teachers) not")->required();
  verb->add_option("--data", o->data, "rows to train and calibrate on: idx prefix, .npz or .csv")->required();
  verb->add_option("--rows", o->rows, "only rows BEGIN:END of --data");
  verb->add_option("--valid", o->valid, "labelled rows to choose by")->required();
  verb->add_option("--valid-rows", o->valid_rows, "only rows BEGIN:END of --valid");
  verb->add_option("--teacher", o->teachers, "models whose mean answer the small ones learn");
  verb->add_option("--budget-bytes", o->bytes, "the largest file: 100KB");
  verb->add_option("--budget-latency", o->latency, "the slowest 99th percentile of one row: 1ms");
  verb->add_option("--budget-accuracy", o->accuracy,
                   "what may be lost against the float model: -.005 (this, if no budget is given)");
  verb->add_option("-o,--out", o->out, "the chosen model; finished candidates are kept in OUT.shrink");
  verb->add_option("--progressive", o->progressive, "all widths of the slim net in one file, the narrowest first");
  verb->add_option("--without", o->without, "ways not to try: int8, dynamic, pruned, cut, slim")->delimiter(',');
  verb->add_option("--ranges", o->rules, "how int8 finds ranges: min-max, percentile, entropy")->delimiter(',');
  verb->add_option("--percentile", s.percentile, "of --ranges percentile")->capture_default_str();
  verb->add_option("--calibration-rows", s.calibration_rows, "the first rows of --data, for ranges")
      ->capture_default_str();
  verb->add_flag("--seven-bit-weights", s.seven_bit_weights, "for processors without 8-bit dot products");
  verb->add_option("--sparsity", s.sparsities, "shares of weights to set to zero")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_option("--cut", s.cuts, "shares of channels to keep")->delimiter(',')->capture_default_str();
  verb->add_option("--widths", s.widths, "of the slim net, rising, the last 1")->delimiter(',')->capture_default_str();
  verb->add_option("--multiple", s.multiple, "keep channels in multiples of this")->capture_default_str();
  verb->add_option("--rate", s.rate, "peak learning rate of Adam")->capture_default_str();
  verb->add_option("--batch", s.batch)
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  verb->add_option("--epochs", s.epochs, "of distilling and of the slim net; the others take half")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  verb->add_flag("--mirror", s.mirror, "mirror images left to right at random while training");
  verb->add_option("--seed", s.seed, "the same seed gives the same models")->capture_default_str();
  verb->add_option("--threads", s.threads, "that ask the teachers")->capture_default_str()->check(CLI::Range(1, 256));
  verb->add_flag("--resume", s.resume, "use what an earlier run left in OUT.shrink");
  verb->add_flag("--quiet", o->quiet, "no progress bar");
  verb->add_flag("--json", o->json, "the table as JSON");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    Status status = Run(context, *o);
    if (status.code() == Code::kCancelled) status = Cancelled(status.message() + "; --resume continues there");
    if (!status.ok()) exit_code = Fail("shrink", status);
  });
}

}  // namespace ganglion::app
