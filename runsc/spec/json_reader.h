// A cursor over parsed JSON that remembers the first mistake, so that parsing reads as a list of fields.
//
//   JsonObject root = document.Root();
//   spec.hostname = root["hostname"].String();
//   root["mounts"].ForEach([&](JsonField mount) { … });
//   if (!document.status().ok()) return document.status();
//
// After a mistake every read returns an empty value. What no one asked for is a warning: the specification wants
// unknown properties ignored. `null` is the same as absent.
#ifndef CAISSON_RUNSC_SPEC_JSON_READER_H_
#define CAISSON_RUNSC_SPEC_JSON_READER_H_

#include <stdint.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runsc/base/status.h"

namespace caisson {

class JsonDocument;
class JsonObject;

class JsonField {
 public:
  JsonField(JsonDocument* document, const void* value, std::string path)
      : document_(document), value_(value), path_(std::move(path)) {}

  bool present() const { return value_ != nullptr; }
  const std::string& path() const { return path_; }

  std::string String() const;  // "" if absent.
  bool Bool() const;
  std::optional<bool> OptionalBool() const;
  std::optional<int64_t> Int(int64_t minimum, int64_t maximum) const;
  std::optional<uint64_t> Uint(uint64_t maximum) const;
  template <typename T>
  std::optional<T> Uint() const {
    auto value = Uint(static_cast<uint64_t>(static_cast<T>(-1)));
    return value ? std::optional<T>(static_cast<T>(*value)) : std::nullopt;
  }
  std::vector<std::string> Strings() const;
  std::map<std::string, std::string> StringMap() const;
  void ForEach(const std::function<void(JsonField)>& visit) const;  // Elements of an array.
  JsonObject Object() const;  // Empty if absent.

  // Records a mistake at this field: "process.cwd: must be absolute".
  void Fail(const std::string& what) const;
  void Warn(const std::string& what) const;

 private:
  JsonDocument* document_;
  const void* value_;  // The library's value, whose type stays out of headers. Null: absent.
  std::string path_;
};

// One object. On destruction warns of the members that were not asked for.
class JsonObject {
 public:
  JsonObject(JsonDocument* document, const void* value, std::string path)
      : document_(document), value_(value), path_(std::move(path)) {}
  JsonObject(JsonObject&&) = delete;
  ~JsonObject();

  JsonField operator[](const std::string& name);
  // Marks a member as known and of no effect here: no warning.
  void Ignore(const std::string& name) { asked_.insert(name); }

 private:
  JsonDocument* document_;
  const void* value_;
  std::string path_;
  std::set<std::string> asked_;
};

class JsonDocument {
 public:
  // Fails on malformed text, deeper nesting than `max_depth`, a member given twice, a NUL in a string.
  static absl::StatusOr<std::unique_ptr<JsonDocument>> Parse(const std::string& text, int max_depth,
                                                             const std::string& name);

  JsonField Root() { return JsonField(this, root_.get(), ""); }
  absl::Status status() const { return status_; }
  std::vector<std::string> TakeWarnings() { return std::move(warnings_); }

 private:
  friend class JsonField;
  friend class JsonObject;
  JsonDocument() = default;

  std::shared_ptr<const void> root_;
  absl::Status status_;
  std::vector<std::string> warnings_;
};

}  // namespace caisson

#endif  // CAISSON_RUNSC_SPEC_JSON_READER_H_
