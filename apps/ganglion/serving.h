// What the verbs about running nodes share.
#pragma once

#include <string>

#include "base/status.h"

namespace ganglion::app {

// The machine's name where it may be a node's, else "node".
std::string HostName();

// What the environment variable holds; a refusal that names it when it holds nothing.
Result<std::string> TokenFrom(const std::string& variable);

}  // namespace ganglion::app
