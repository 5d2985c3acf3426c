#include <fmt/format.h>

#include <set>

#include "node/node_file.h"
#include "node/section.h"
#include "node/yaml.h"

namespace ganglion::node {
namespace {

constexpr std::size_t kMaxTokens = 10'000;

}  // namespace

Result<std::vector<TokenRule>> ParseTokensFile(const std::string& text, const std::string& shown_as) {
  const std::string example = "{token_sha256: 64 hexadecimal digits, role: infer, name: who}";
  YAML::Node list;
  try {
    list = YAML::Load(text);
  } catch (const YAML::Exception& e) {
    return InvalidArgument(shown_as + (e.mark.line >= 0 ? ":" + std::to_string(e.mark.line + 1) : "") + " " + e.msg);
  }
  // YamlReader wants a mapping at the top; only its way of gathering mistakes is used here.
  YamlReader y(shown_as, "{}");
  std::vector<TokenRule> rules;
  if (!list.IsSequence() || list.size() == 0 || list.size() > kMaxTokens) {
    y.Error(list, fmt::format("must list 1 to {} tokens, each {}", kMaxTokens, example));
    RETURN_IF_ERROR(y.Finish());
  }
  std::set<std::string> seen;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("token {}", i);
    const YAML::Node node = list[i];
    if (!node.IsMap()) {
      y.Error(node, where + " must be a mapping, " + example);
      continue;
    }
    y.KnownKeys(node, where + " ", {"token_sha256", "role", "name"});
    Section s(&y, node, where + " ");
    TokenRule rule;
    if (const std::string hex = s.Text("token_sha256", true); !hex.empty()) {
      // Whatever stands here may be the token itself, so it is not repeated.
      if (const auto digest = crypto::DigestFromHex(hex); !digest.ok()) {
        s.Mistake("token_sha256", "is no SHA-256 of 64 hexadecimal digits; `printf %s TOKEN | sha256sum` makes one");
      } else if (rule.digest = *digest; !seen.insert(digest->Hex()).second) {
        s.Mistake("token_sha256", "is there twice; a token has one role");
      }
    }
    s.Choice("role", {Role::kInfer, Role::kOperate}, &rule.role, /*required=*/true);
    rule.name = s.Text("name", true);
    if (!rule.name.empty() && !IsPlainName(rule.name))
      s.Mistake("name", "\"" + rule.name + "\" is no name; at most 128 letters, digits, - _ .");
    rules.push_back(std::move(rule));
  }
  RETURN_IF_ERROR(y.Finish());
  return rules;
}

}  // namespace ganglion::node
