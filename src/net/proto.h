// The values of the Open Inference Protocol to and from its protobuf messages.
//
// Reading borrows: tensors point into the message's raw contents, which must outlive the request. Typed contents are
// converted into `owned`. Writing always uses raw contents, the form that every client reads.
// `InferParameter` of the plain protocol has no fraction: doubles are written as strings ("0.973").
// Pure, thread-safe.
#pragma once

#include "base/status.h"
#include "wire/inference.h"

namespace inference {
class ModelConfig;
class ModelInferRequest;
class ModelInferResponse;
class ModelMetadataResponse;
class ModelStatisticsResponse;
}  // namespace inference

namespace ganglion::net {

Result<wire::InferRequest> FromProto(const inference::ModelInferRequest& message);
void ToProto(const wire::InferRequest& request, inference::ModelInferRequest* message);

Result<wire::InferResponse> FromProto(const inference::ModelInferResponse& message);
void ToProto(const wire::InferResponse& response, inference::ModelInferResponse* message);

void ToProto(const wire::ModelMetadata& metadata, inference::ModelMetadataResponse* message);
wire::ModelMetadata FromProto(const inference::ModelMetadataResponse& message);
void ToProto(const wire::ModelConfig& config, inference::ModelConfig* message);
void ToProto(const wire::ModelStatistics& statistics, inference::ModelStatisticsResponse* message);  // adds one

}  // namespace ganglion::net
