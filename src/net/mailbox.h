// A Mailbox carries REST requests between two processes of one machine through shared memory instead of a socket: what
// a program on the device uses to ask its node.
//
// Intuition: a socket costs two system calls and a wake-up each way, some tens of microseconds, far more than a small
// model's run. Here the client writes the request into memory that both see and raises a counter; the server, which
// watched that counter for a moment after the last request, answers in the same way. Who waits longer than that moment
// sleeps on a futex.
// One request at a time a mailbox, like one connection of HTTP/1.1 without pipelining; the same handler answers, so
// everything that REST can do is here, in the same words. A client with several threads opens one each.
//
//   client                    Unix socket at `path`                  server
//   connect  ------------------------------------------------------>  makes the memory, sealed against resizing
//            <----------------- its descriptor ---------------------
//   request: bytes, then sequence+1, wake            reply: bytes, then sequence+1, wake
//   closing the socket ends the mailbox; its memory goes with the last of the two.
//
// Both sides treat what the other writes as hostile: lengths are read once and checked, requests are copied out before
// they are parsed. The client cannot shrink the memory under the server.
// Limits: kMaxMailboxes at once, a thread of the server each; requests and replies of at most `capacity` bytes each.
// Cost: two to five microseconds a round trip beside the handler's own time, while requests follow each other.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "net/http_server.h"

namespace ganglion::net {

struct MailboxOptions {
  std::string path;                               // of the Unix socket; at most 100 characters
  std::size_t capacity = std::size_t{4} << 20;    // for a request, and again for a reply
  Duration spin = std::chrono::microseconds(50);  // how long the server watches after a request before it sleeps
};
inline constexpr int kMaxMailboxes = 16;

// A service.
class MailboxServer {
 public:
  static Result<std::unique_ptr<MailboxServer>> Start(const MailboxOptions& options, HttpHandler handler);
  // Ends all mailboxes. REQUIRES: every reply has been sent.
  ~MailboxServer();
  std::size_t open() const;

 private:
  MailboxServer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One mailbox. Thread-compatible.
class MailboxClient {
 public:
  static Result<std::unique_ptr<MailboxClient>> Connect(const std::string& path);
  ~MailboxClient();

  struct Answer {
    int status = 0;
    std::optional<std::size_t> json_bytes;
    std::string_view body;  // until the next Ask
  };
  // DEADLINE_EXCEEDED when nothing came within `patience`; the mailbox is of no use after that. UNAVAILABLE when the
  // server is gone.
  Result<Answer> Ask(std::string_view method, std::string_view target, std::string_view body,
                     std::optional<std::size_t> json_bytes, Duration patience);

 private:
  MailboxClient();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::net
