// gRPC writes lines of its own to standard error, past the structured log, about connections that a node reports
// itself. They are dropped, unless GRPC_VERBOSITY asks for them. Called before the first channel or server; cheap.
#pragma once

namespace ganglion::net {

void QuietGrpc();

}  // namespace ganglion::net
