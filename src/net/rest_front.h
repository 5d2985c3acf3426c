// The REST front of the Open Inference Protocol v2: routes of HTTP onto a Service.
//
//   GET  /v2  /v2/health/{live,ready}  /v2/models/stats
//   GET  /v2/models/M[/versions/V][/ready | /config | /stats]        POST .../infer
//   POST /v2/repository/index  /v2/repository/models/M/{load,unload}
//   GET  /v2/systemsharedmemory[/region/R]/status      POST /v2/systemsharedmemory/region/R/register
//   POST /v2/systemsharedmemory[/region/R]/unregister
//   GET  /metrics  /status                             (where the server is meant for it)
// Errors are {"error": "..."} with the status of wire::HttpStatus. Whatever Content-Type says, bodies are what the
// protocol makes them: stock clients send none. What is not known is 404, another method 405, a compressed body 415.
// Thread-safe.
#pragma once

#include "net/http_server.h"
#include "net/service.h"

namespace ganglion::net {

// The service must outlive the server that the handler is given to.
HttpHandler MakeRestFront(Service* service);
// /metrics, /status and the health routes only.
HttpHandler MakeMetricsFront(Service* service);

}  // namespace ganglion::net
