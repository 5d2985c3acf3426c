#include "collective/mesh.h"

#include <gloo/common/error.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/tcp/device.h>

#include <exception>

#include "collective/collective.h"

namespace ganglion::collective {
namespace {

// Longer than any process lives; in milliseconds it still fits what the standard library adds to a clock.
constexpr auto kForever = std::chrono::hours(24 * 365);

// Gloo's messages begin with the place in its sources: "[/build/.../pair.cc:598] Connection closed by peer ...".
std::string Words(const std::exception& e) {
  const std::string text = e.what();
  const auto end = text.find("] ");
  return !text.empty() && text[0] == '[' && end != std::string::npos ? text.substr(end + 2) : text;
}

}  // namespace

Status Mesh::Connect(Meeting& meeting, const std::string& host, const std::string& about, Duration timeout) {
  int peer = -1;
  try {
    gloo::transport::tcp::attr attr;
    attr.hostname = host;
    device_ = gloo::transport::tcp::CreateDevice(attr);
    transportContext_ = device_->createContext(rank, size);
    // Gloo waits five times as long for a connection.
    transportContext_->setTimeout(
        std::max(std::chrono::milliseconds(1), std::chrono::duration_cast<std::chrono::milliseconds>(timeout / 5)));
    // Each pair listens at a port of its own: rank j connects to the j-th of these.
    std::vector<std::string> mine;
    for (int i = 0; i < size; ++i) {
      if (i == rank) {
        mine.emplace_back();
        continue;
      }
      const auto bytes = transportContext_->createPair(i)->address().bytes();
      mine.emplace_back(bytes.begin(), bytes.end());
    }
    ASSIGN_OR_RETURN(const auto table, meeting.Exchange(about, EncodeTable(mine)));
    std::vector<std::vector<char>> theirs(table.size());
    for (int i = 0; i < size; ++i) {
      if (i == rank) continue;
      ASSIGN_OR_RETURN(const auto ports, DecodeTable(table[static_cast<std::size_t>(i)]));
      if (ports.size() != table.size())
        return DataLoss("the addresses of rank " + std::to_string(i) + " are not what was expected");
      const std::string& address = ports[static_cast<std::size_t>(rank)];
      if (address.size() != mine[static_cast<std::size_t>(i)].size())
        return DataLoss("the address of rank " + std::to_string(i) + " is not what was expected");
      theirs[static_cast<std::size_t>(i)].assign(address.begin(), address.end());
    }
    for (int i = 0; i < size; ++i) {
      if (i == rank) continue;
      peer = i;
      transportContext_->getPair(i)->connect(theirs[static_cast<std::size_t>(i)]);
    }
  } catch (const std::exception& e) {
    if (peer < 0) return Unavailable("the connections cannot be made at " + host + ": " + Words(e));
    return Unavailable("rank " + std::to_string(peer) + " cannot be connected to: " + Words(e));
  }
  return {};
}

void Mesh::Close(int peer) {
  try {
    transportContext_->getPair(peer)->close();
  } catch (const std::exception&) {  // it is closed already
  }
}

bool Transfer::StartSend(Mesh& mesh, int to, std::uint64_t slot, const void* bytes, std::size_t size) {
  peer_ = to;
  sends_ = true;
  try {
    buffer_ = mesh.createUnboundBuffer(const_cast<void*>(bytes), size);
    buffer_->send(to, slot);
  } catch (const std::exception& e) {
    error_ = Words(e);
    return false;
  }
  return true;
}

bool Transfer::StartReceive(Mesh& mesh, int from, std::uint64_t slot, void* bytes, std::size_t size) {
  peer_ = from;
  try {
    buffer_ = mesh.createUnboundBuffer(bytes, size);
    buffer_->recv(from, slot);
  } catch (const std::exception& e) {
    error_ = Words(e);
    return false;
  }
  return true;
}

bool Transfer::Wait() {
  if (!error_.empty()) return false;
  try {
    return sends_ ? buffer_->waitSend(nullptr, kForever) : buffer_->waitRecv(nullptr, kForever);
  } catch (const std::exception& e) {
    error_ = Words(e);
    return false;
  }
}

void Transfer::Abort() {
  if (buffer_ == nullptr) return;
  try {
    if (sends_)
      buffer_->abortWaitSend();
    else
      buffer_->abortWaitRecv();
  } catch (const std::exception&) {  // it has nothing to throw, but says so nowhere
  }
}

}  // namespace ganglion::collective
