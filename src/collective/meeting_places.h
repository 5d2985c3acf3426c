// The three kinds of Meeting (rendezvous.h), and what they share. Inside the module only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/rendezvous.h"

namespace ganglion::collective {

Result<std::unique_ptr<Meeting>> OpenDirectory(const Place& place, int rank, int size, TimePoint deadline,
                                               const std::function<Status()>& watch);
Result<std::unique_ptr<Meeting>> ListenForOthers(const Place& place, int size, TimePoint deadline,
                                                 const std::function<Status()>& watch);
Result<std::unique_ptr<Meeting>> ConnectToFirst(const Place& place, int rank, int size, TimePoint deadline);

// Whether another rank's greeting goes with ours.
Status CheckHello(const Hello& hello, int size, const std::string& about);
// "rank 2", "ranks 1, 3": those that are not here.
std::string Missing(const std::vector<bool>& here);

}  // namespace ganglion::collective
