// One HTTP/1.1 request to a server, start to end, within a time: what `ganglion infer --url`, `ganglion status` and the
// exporter of traces need. A connection for each; not for a hot path.
// Thread-safe; blocks.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::net {

struct Url {
  std::string scheme;  // "http", "https", "grpc", "grpcs", "mailbox"
  std::string host;
  std::string port;
  std::string path;  // begins with "/"; of mailbox: the socket's
};
// "http://127.0.0.1:8000/v2". The port may be left out for http and https. Refuses what has no scheme or host.
Result<Url> ParseUrl(const std::string& text);

struct HttpAnswer {
  int status = 0;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string_view Header(std::string_view lower_case_name) const;
};

struct HttpQuestion {
  std::string method = "GET";
  std::string url;  // http or https
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string authority;  // https: PEM file of who signed the server's certificate; empty: the system's
};

// UNAVAILABLE when nobody is there or the connection broke, DEADLINE_EXCEEDED when it took longer than `patience`.
// Whatever status the server gives is an answer, not an error.
Result<HttpAnswer> Ask(const HttpQuestion& question, Duration patience);

}  // namespace ganglion::net
