// The files that make a node's TLS: its certificate, its key, and the authority that it trusts.
// A value.
#pragma once

#include <string>

namespace ganglion::net {

struct TlsFiles {
  std::string certificate;  // PEM chain
  std::string key;          // PEM
  std::string authority;    // PEM; empty: the system's, for clients
  bool require_client = false;
};

}  // namespace ganglion::net
