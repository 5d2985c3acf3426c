// The live demo: four nodes on this machine decide real images over real sockets while the upper three are killed and
// brought back, one after the other.
//
// It writes a node.yaml for each tier (ports that are free; links as long as the built-in topology's, emulated by the
// node that asks), starts `serve` of this very program four times, sends test images to the device at a steady rate,
// and counts, for each phase, what was answered where. It fails unless every request was answered, in time, with a
// label, and every tier that came back decided again.
// Two settings differ from a node's own: breakers stay open for 3 s, not 30, so that a tier that is back is asked again
// within the demo; and the cache is off, so that who is said to have decided did so then. Nothing else is scaled.
#pragma once

#include <filesystem>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "verbs.h"

namespace ganglion::app {

struct LiveSettings {
  std::filesystem::path decision;  // a calibrated directory
  std::filesystem::path data;      // the folder of Fashion-MNIST
  std::filesystem::path dir;       // for node files and logs
  std::filesystem::path json;
  double seconds = 60;
  double rate_per_s = 200;
};
Status RunLive(Context& context, const LiveSettings& settings);

}  // namespace ganglion::app
