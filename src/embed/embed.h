// embed: the public headers include/ganglion/decider.h (C++) and include/ganglion/ganglion.h (C) on top of node.
//
// The shared library libganglion holds everything behind these two headers and exports nothing else.
#pragma once

#include "ganglion/decider.h"
#include "ganglion/ganglion.h"
