// telemetry: how a node tells people outside what it does: numbers, lines, and the paths of single requests.
//
//   metrics.h  counters, gauges and histograms in the Prometheus text format: how much, how often, how long
//   log.h      structured lines on standard error: what happened, at most so many a second
//   trace.h    W3C trace context and spans in OTLP: where one request spent its time
//
// Everything here watches and nothing decides: no other module reads a metric to choose what to do.
#pragma once

#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "telemetry/trace.h"
