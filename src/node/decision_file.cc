#include "node/decision_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/limits.h"
#include "data/file.h"
#include "node/notation.h"
#include "node/yaml.h"

namespace ganglion::node {
namespace {

bool RowFits(const tensor::Spec& spec) {
  std::int64_t n = 1;
  for (std::size_t i = 1; i < spec.shape.size(); ++i) {
    if (spec.shape[i] > limits::kMaxRowElements ||
        (n *= std::max<std::int64_t>(1, spec.shape[i])) > limits::kMaxRowElements)
      return false;
  }
  return true;
}

// A name as YAML reads it back: quoted where it holds anything but plain characters.
std::string Quote(const std::string& name) {
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-' || c == '/';
  });
  if (plain && !std::isdigit(static_cast<unsigned char>(name[0])) && name[0] != '-' && name[0] != '.') return name;
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

void ReadPromise(YamlReader& y, const YAML::Node& node, calibration::Promise* promise) {
  if (!node.IsDefined()) return;
  if (!node.IsMap()) return y.Error(node, "promise must be a mapping, for example {loss_at_most: 0.01, delta: 0.1}");
  y.KnownKeys(node, "promise.", {"loss_at_most", "error_at_most", "disagreement_at_most", "delta"});
  int promises = 0;
  for (const char* key : {"loss_at_most", "error_at_most", "disagreement_at_most"}) {
    if (!node[key].IsDefined()) continue;
    ++promises;
    if (const auto v = y.Number(node, "promise.", key)) {
      promise->kind = *calibration::PromiseFromName(key);
      promise->limit = *v;
    }
  }
  if (promises != 1)
    y.Error(node,
            fmt::format("promise takes exactly one of loss_at_most, error_at_most, disagreement_at_most; there are {}",
                        promises));
  if (const auto v = y.Number(node, "promise.", "delta")) promise->delta = *v;
  if (const auto s = promise->Check(); !s.ok()) y.Error(node, "promise." + s.message());
}

// "0.5%" or 0.005.
void ReadShare(YamlReader& y, const YAML::Node& root, const std::string& key, double* share) {
  const auto text = y.Text(root, "", key);
  if (!text) return;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  const std::string unit(end, text->data() + text->size());
  if (unit == "%") value /= 100;
  if (error != std::errc() || (!unit.empty() && unit != "%") || !(value >= 0 && value <= 1))
    return y.Error(root[key], key + " \"" + *text + "\" is no share; write for example 0.5% or 0.005");
  *share = value;
}

void ReadConfidence(YamlReader& y, const YAML::Node& node, const std::string& where, StageConfig* stage) {
  if (!node.IsDefined()) return;
  if (node.IsMap()) {
    y.KnownKeys(node, where + "confidence.", {"output"});
    stage->confidence_output = y.Text(node, where + "confidence.", "output", true).value_or("");
    return;
  }
  if (!node.IsScalar()) return y.Error(node, where + "confidence must be a name or {output: NAME}");
  if (node.Scalar() == "auto") return;
  stage->measure = calibration::MeasureFromName(node.Scalar());
  if (!stage->measure) {
    y.Error(node, where + "confidence \"" + node.Scalar() +
                      "\" is unknown; one of auto, max_probability, margin, entropy, or {output: NAME}");
  }
}

StageConfig ReadStage(YamlReader& y, const YAML::Node& node, const std::string& where) {
  StageConfig stage;
  if (!node.IsMap()) {
    y.Error(node, where + " must be a mapping, for example {tier: device, model: small.onnx}");
    return stage;
  }
  const std::string at = where + ".";
  y.KnownKeys(node, at, {"tier", "model", "ensemble", "server", "pre", "post", "confidence", "rules", "online"});
  if (const auto tier = y.Text(node, at, "tier", true)) {
    const auto t = topology::TierFromName(*tier);
    if (t) {
      stage.tier = *t;
    } else {
      y.Error(node["tier"], at + "tier \"" + *tier + "\" is no tier; one of device, edge, region, global");
    }
  }
  const bool model = node["model"].IsDefined();
  const bool ensemble = node["ensemble"].IsDefined();
  const bool rules = node["rules"].IsDefined();
  const bool server = node["server"].IsDefined();
  const bool online = node["online"].IsDefined();
  if (model + ensemble + rules + server + online != 1)
    y.Error(node, where + " takes one of rules, online, model, ensemble and server");
  if (online) {
    stage.online = y.Text(node, at, "online").value_or("");
    for (const char* key : {"pre", "post"}) {
      if (node[key].IsDefined()) y.Error(node[key], at + key + " does not go with online; it is for ONNX models");
    }
  }
  if (server) {
    stage.server = y.Text(node, at, "server").value_or("");
    if (const auto url = ParseRemoteUrl(stage.server); !url.ok())
      y.Error(node["server"], at + "server " + url.status().message());
    for (const char* key : {"pre", "post"}) {
      if (node[key].IsDefined()) y.Error(node[key], at + key + " does not go with server; it is for models here");
    }
  }
  if (rules) {
    stage.rules = y.Text(node, at, "rules").value_or("");
    for (const char* key : {"pre", "post", "confidence"}) {
      if (node[key].IsDefined()) y.Error(node[key], at + key + " does not go with rules; it is for models");
    }
  }
  if (model) {
    if (auto file = y.Text(node, at, "model")) stage.models.push_back(*file);
  }
  if (ensemble) {
    const auto& list = node["ensemble"];
    if (!list.IsSequence() || list.size() < 2 || list.size() > static_cast<std::size_t>(limits::kMaxEnsemble)) {
      y.Error(list, at + fmt::format("ensemble must list 2 to {} models", limits::kMaxEnsemble));
    } else {
      for (const auto& m : list) {
        if (m.IsScalar() && !m.Scalar().empty()) {
          stage.models.push_back(m.Scalar());
        } else {
          y.Error(m, at + "ensemble has an entry that is no file name");
        }
      }
    }
  }
  stage.pre = y.Text(node, at, "pre").value_or("");
  stage.post = y.Text(node, at, "post").value_or("");
  ReadConfidence(y, node["confidence"], at, &stage);
  if (!stage.confidence_output.empty() && stage.models.size() > 1 && stage.post.empty()) {
    y.Error(node["confidence"], at + "confidence from an output needs one model or a post graph, not an ensemble");
  }
  return stage;
}

}  // namespace

std::string_view Name(Privacy privacy) {
  switch (privacy) {
    case Privacy::kPublic:
      return "public";
    case Privacy::kSensitive:
      return "sensitive";
    case Privacy::kRegulated:
      return "regulated";
  }
  return "";
}

topology::Tier HighestTier(Privacy privacy) {
  switch (privacy) {
    case Privacy::kPublic:
      return topology::Tier::kGlobal;
    case Privacy::kSensitive:
      return topology::Tier::kRegion;
    case Privacy::kRegulated:
      return topology::Tier::kEdge;
  }
  return topology::Tier::kDevice;
}

std::string DecisionConfig::LabelText(int label) const {
  const auto i = static_cast<std::size_t>(label);
  return label >= 0 && i < labels.size() ? labels[i] : std::to_string(label);
}

Result<DecisionConfig> ParseDecisionFile(const std::string& text, const std::filesystem::path& dir,
                                         const std::string& shown_as) {
  YamlReader y(shown_as, text);
  DecisionConfig c;
  c.dir = dir;
  const YAML::Node& root = y.root();
  if (root.IsMap() && y.ok()) {
    y.KnownKeys(root, "",
                {"decision", "input", "labels", "promise", "deadline", "when_late", "privacy", "audit", "stages"});
    c.name = y.Text(root, "", "decision", true).value_or("");
    const bool plain = std::all_of(c.name.begin(), c.name.end(), [](unsigned char ch) {
      return std::isalnum(ch) || ch == '-' || ch == '_' || ch == '.';
    });
    if (!plain)
      y.Error(root["decision"], "decision \"" + c.name + "\" has a character other than letters, digits, - _ .");
    const YAML::Node input = root["input"];
    if (!input.IsDefined() || !input.IsMap() || input.size() == 0) {
      y.Error(input.IsDefined() ? input : root,
              "input must name at least one tensor, for example {image: \"FP32[-1,784]\"}");
    } else {
      y.KnownKeys(input, "input.", {}, /*any=*/true);
      for (const auto& pair : input) {
        if (!pair.first.IsScalar() || pair.first.Scalar().empty()) {
          y.Error(pair.first, "input has a key that is no name");
          continue;
        }
        auto spec = tensor::ParseSpec(pair.second.IsScalar() ? pair.second.Scalar() : "");
        if (!spec.ok()) {
          y.Error(pair.second, "input." + pair.first.Scalar() + " " + spec.status().message());
        } else if (spec->shape.empty() || spec->shape[0] != -1) {
          y.Error(pair.second,
                  "input." + pair.first.Scalar() + " " + spec->Text() + " must begin with -1, the rows of a batch");
        } else if (!RowFits(*spec)) {
          y.Error(pair.second, fmt::format("input.{} {} has more numbers a row than the limit of {}",
                                           pair.first.Scalar(), spec->Text(), limits::kMaxRowElements));
        } else {
          spec->name = pair.first.Scalar();
          c.inputs.push_back(std::move(*spec));
        }
      }
    }
    if (const auto file = y.Text(root, "", "labels")) {
      const auto bytes = data::ReadFile(dir / *file, limits::kMaxConfigBytes);
      if (!bytes.ok()) {
        y.Error(root["labels"], "labels: " + bytes.status().message());
      } else {
        std::string line;
        for (const char ch : *bytes + "\n") {
          if (ch != '\n') {
            if (ch != '\r') line += ch;
          } else if (!line.empty()) {
            c.labels.push_back(std::exchange(line, ""));
          }
        }
      }
    }
    ReadPromise(y, root["promise"], &c.promise);
    if (const auto d = y.Time(root, "", "deadline")) c.deadline = *d;
    if (c.deadline <= Duration::zero()) y.Error(root["deadline"], "deadline must be longer than 0");
    if (const auto late = y.Text(root, "", "when_late")) {
      if (*late == "fail") {
        c.when_late = cascade::WhenLate::kFail;
      } else if (*late != "answer") {
        y.Error(root["when_late"], "when_late \"" + *late + "\" is unknown; answer or fail");
      }
    }
    if (const auto privacy = y.Text(root, "", "privacy")) {
      const auto known = {Privacy::kPublic, Privacy::kSensitive, Privacy::kRegulated};
      const auto found = std::find_if(known.begin(), known.end(), [&](Privacy p) { return Name(p) == *privacy; });
      if (found != known.end()) {
        c.privacy = *found;
      } else {
        y.Error(root["privacy"], "privacy \"" + *privacy + "\" is unknown; one of public, sensitive, regulated");
      }
    }
    ReadShare(y, root, "audit", &c.audit);
    const YAML::Node stages = root["stages"];
    if (!stages.IsDefined() || !stages.IsSequence() || stages.size() == 0 ||
        stages.size() > static_cast<std::size_t>(limits::kMaxStages)) {
      y.Error(stages.IsDefined() ? stages : root,
              fmt::format("stages must list 1 to {} stages, cheapest first", limits::kMaxStages));
    } else {
      for (std::size_t i = 0; i < stages.size(); ++i) {
        const std::string where = fmt::format("stages[{}]", i);
        c.stages.push_back(ReadStage(y, stages[i], where));
        if (c.stages[i].tier > HighestTier(c.privacy)) {
          y.Error(stages[i], fmt::format("{}.tier {} may not see the input: privacy {} ends at {}", where,
                                         topology::Name(c.stages[i].tier), Name(c.privacy),
                                         topology::Name(HighestTier(c.privacy))));
        }
        if (i > 0 && c.stages[i].tier < c.stages[i - 1].tier) {
          y.Error(stages[i],
                  fmt::format("{}.tier {} lies below {} of the stage before it; order stages from device up", where,
                              topology::Name(c.stages[i].tier), topology::Name(c.stages[i - 1].tier)));
        }
      }
    }
  }
  if (!c.stages.empty() && !c.stages.back().rules.empty())
    y.Error(root["stages"], "the last stage must be a model: rules may have no answer");
  if (std::count_if(c.stages.begin(), c.stages.end(), [](const StageConfig& s) { return !s.online.empty(); }) > 1)
    y.Error(root["stages"], "more than one stage is online; an outcome would not say which of them it is for");
  RETURN_IF_ERROR(y.Finish());
  return c;
}

Result<DecisionConfig> LoadDecisionFile(const std::filesystem::path& dir) {
  const auto path = dir / "decision.yaml";
  auto text = data::ReadFile(path, limits::kMaxConfigBytes);
  if (!text.ok()) {
    return text.status().code() == Code::kNotFound
               ? NotFound(path.string() + " does not exist; `ganglion init` makes one")
               : text.status();
  }
  return ParseDecisionFile(*text, dir, path.string());
}

std::string WriteDecisionFile(const DecisionConfig& c) {
  std::string text = fmt::format("decision: {}\ninput: {{", c.name);
  for (std::size_t i = 0; i < c.inputs.size(); ++i)
    text += fmt::format("{}{}: \"{}\"", i > 0 ? ", " : "", Quote(c.inputs[i].name), c.inputs[i].Text());
  text += "}\n";
  if (!c.labels.empty()) text += "labels: labels.txt\n";
  text += fmt::format("promise: {{{}: {}, delta: {}}}\n", calibration::Name(c.promise.kind), c.promise.limit,
                      c.promise.delta);
  text += fmt::format("deadline: {}ms\n", std::chrono::duration_cast<std::chrono::milliseconds>(c.deadline).count());
  text += fmt::format(
      "when_late: {}  # {}\n", c.when_late == cascade::WhenLate::kAnswer ? "answer" : "fail",
      c.when_late == cascade::WhenLate::kAnswer ? "the best so far, marked degraded; or: fail" : "or: answer");
  if (c.privacy != Privacy::kPublic) text += fmt::format("privacy: {}\n", Name(c.privacy));
  if (c.audit > 0) text += fmt::format("audit: {:g}\n", c.audit);
  text += "stages:  # cheapest first\n";
  for (const auto& s : c.stages) {
    text += fmt::format("  - {{tier: {}, ", topology::Name(s.tier));
    if (!s.rules.empty()) {
      text += "rules: " + Quote(s.rules);
    } else if (!s.online.empty()) {
      text += "online: " + Quote(s.online);
    } else if (!s.server.empty()) {
      text += "server: \"" + s.server + "\"";
    } else if (s.models.size() == 1) {
      text += "model: " + Quote(s.models[0]);
    } else {
      std::string members;
      for (const auto& m : s.models) members += (members.empty() ? "" : ", ") + Quote(m);
      text += "ensemble: [" + members + "]";
    }
    if (!s.pre.empty()) text += ", pre: " + Quote(s.pre);
    if (!s.post.empty()) text += ", post: " + Quote(s.post);
    if (s.measure) text += fmt::format(", confidence: {}", calibration::Name(*s.measure));
    if (!s.confidence_output.empty()) text += fmt::format(", confidence: {{output: {}}}", Quote(s.confidence_output));
    text += "}\n";
  }
  return text;
}

}  // namespace ganglion::node
