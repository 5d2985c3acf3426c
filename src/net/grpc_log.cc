#include "net/grpc_log.h"

#include <grpc/support/log.h>

#include <cstdlib>
#include <mutex>

namespace ganglion::net {

void QuietGrpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
  });
}

}  // namespace ganglion::net
