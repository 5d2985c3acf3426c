// wire: what travels and what is written: JSON documents, and the Open Inference Protocol's requests as bytes.
//
//   json.h           reading with limits, without exceptions
//   infer_request.h  the binary form of an infer request (REST, binary tensor extension)
#pragma once

#include "wire/infer_request.h"
#include "wire/json.h"
