// Status says whether the world allowed something, and if not, in one sentence with the value and its limit.
// Result<T> is a T or the Status that explains why there is none.
//
// Three kinds of "no" are kept apart: a bug of ours is a CHECK; a refusal of the world (file, peer, input, deadline)
// is a Status; an ordinary answer (defer, absent, nothing accepted) is an enum or optional of the module that owns
// the question. Codes are the canonical RPC codes, so that a wire can carry them unchanged.
//
// Both are values. Nothing in Ganglion throws.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace ganglion {

enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,  // known, but not allowed this
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,  // not known
};

// "INVALID_ARGUMENT" and so on.
const char* CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // The same refusal, told from further out: "decision.yaml: " + message.
  Status Within(const std::string& place) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string m) { return {Code::kInvalidArgument, std::move(m)}; }
inline Status NotFound(std::string m) { return {Code::kNotFound, std::move(m)}; }
inline Status FailedPrecondition(std::string m) { return {Code::kFailedPrecondition, std::move(m)}; }
inline Status ResourceExhausted(std::string m) { return {Code::kResourceExhausted, std::move(m)}; }
inline Status Unimplemented(std::string m) { return {Code::kUnimplemented, std::move(m)}; }
inline Status Unavailable(std::string m) { return {Code::kUnavailable, std::move(m)}; }
inline Status Internal(std::string m) { return {Code::kInternal, std::move(m)}; }
inline Status DataLoss(std::string m) { return {Code::kDataLoss, std::move(m)}; }
inline Status Cancelled(std::string m) { return {Code::kCancelled, std::move(m)}; }
inline Status PermissionDenied(std::string m) { return {Code::kPermissionDenied, std::move(m)}; }
inline Status Unauthenticated(std::string m) { return {Code::kUnauthenticated, std::move(m)}; }

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: a value is a result
  Result(Status status) : status_(std::move(status)) {  // NOLINT: so is a refusal
    GANGLION_CHECK(!status_.ok());
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  // REQUIRES: ok().
  T& value() & {
    GANGLION_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    GANGLION_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    GANGLION_CHECK(ok());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace ganglion

#define GANGLION_CONCAT_(a, b) a##b
#define GANGLION_CONCAT(a, b) GANGLION_CONCAT_(a, b)

// Returns from the enclosing function when `expression` (a Status) is a refusal.
#define RETURN_IF_ERROR(expression)                    \
  do {                                                 \
    ::ganglion::Status ganglion_status = (expression); \
    if (!ganglion_status.ok()) return ganglion_status; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): x is F()'s value, or the enclosing function returns F()'s Status.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_(GANGLION_CONCAT(ganglion_result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_(result, declaration, expression) \
  auto result = (expression);                              \
  if (!result.ok()) return result.status();                \
  declaration = std::move(result).value()
