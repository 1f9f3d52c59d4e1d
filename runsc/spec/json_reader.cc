#include "runsc/spec/json_reader.h"

#include <nlohmann/json.hpp>

namespace caisson {
namespace {

using nlohmann::json;

constexpr size_t kMaxWarnings = 64;

// Runs over the text before a tree is made of it, and refuses what a tree would hide or could not bear.
class Guard : public nlohmann::json_sax<json> {
 public:
  explicit Guard(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& value) override { return CheckString(value); }
  bool start_object(std::size_t) override {
    members_.emplace_back();
    return CheckDepth();
  }
  bool end_object() override {
    members_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    members_.emplace_back();
    return CheckDepth();
  }
  bool end_array() override {
    members_.pop_back();
    return true;
  }
  bool key(string_t& name) override {
    if (!CheckString(name)) return false;
    if (!members_.back().insert(name).second) return Refuse("member \"" + name + "\" is given twice");
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: …" without the library's tag.
    std::string what = e.what();
    size_t tag = what.find("] ");
    return Refuse("invalid JSON at byte " + std::to_string(position) + ": " +
                  (tag == std::string::npos ? what : what.substr(tag + 2)));
  }

  const std::string& error() const { return error_; }

 private:
  bool Refuse(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }
  bool CheckString(const std::string& value) {
    return value.find('\0') == std::string::npos || Refuse("a string holds a NUL character");
  }
  bool CheckDepth() {
    return members_.size() <= static_cast<size_t>(max_depth_) ||
           Refuse("nested deeper than " + std::to_string(max_depth_) + " levels");
  }

  int max_depth_;
  std::vector<std::set<std::string>> members_;
  std::string error_;
};

const json& Unwrap(const void* value) { return *static_cast<const json*>(value); }
const void* Wrap(const json& value) { return value.is_null() ? nullptr : &value; }

}  // namespace

absl::StatusOr<std::unique_ptr<JsonDocument>> JsonDocument::Parse(const std::string& text, int max_depth,
                                                                  const std::string& name) {
  Guard guard(max_depth);
  if (!json::sax_parse(text, &guard)) {
    return ErrorF("%s: %s", name.c_str(), guard.error().empty() ? "invalid JSON" : guard.error().c_str());
  }
  json tree = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!tree.is_object()) return ErrorF("%s: must be a JSON object", name.c_str());
  std::unique_ptr<JsonDocument> document(new JsonDocument);
  document->root_ = std::make_shared<const json>(std::move(tree));
  return document;
}

void JsonField::Fail(const std::string& what) const {
  if (document_->status_.ok()) document_->status_ = ErrorF("%s: %s", path_.empty() ? "spec" : path_.c_str(), what.c_str());
}

void JsonField::Warn(const std::string& what) const {
  if (document_->warnings_.size() < kMaxWarnings) document_->warnings_.push_back(path_ + ": " + what);
}

std::string JsonField::String() const {
  if (!present()) return "";
  if (!Unwrap(value_).is_string()) {
    Fail("must be a string");
    return "";
  }
  return Unwrap(value_).get<std::string>();
}

std::optional<bool> JsonField::OptionalBool() const {
  if (!present()) return std::nullopt;
  if (!Unwrap(value_).is_boolean()) {
    Fail("must be true or false");
    return std::nullopt;
  }
  return Unwrap(value_).get<bool>();
}

bool JsonField::Bool() const { return OptionalBool().value_or(false); }

std::optional<int64_t> JsonField::Int(int64_t minimum, int64_t maximum) const {
  if (!present()) return std::nullopt;
  const json& value = Unwrap(value_);
  if (!value.is_number_integer()) {
    Fail("must be an integer");
    return std::nullopt;
  }
  bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  int64_t number = too_large ? INT64_MAX : value.get<int64_t>();
  if (too_large || number < minimum || number > maximum) {
    Fail("must be from " + std::to_string(minimum) + " to " + std::to_string(maximum));
    return std::nullopt;
  }
  return number;
}

std::optional<uint64_t> JsonField::Uint(uint64_t maximum) const {
  if (!present()) return std::nullopt;
  const json& value = Unwrap(value_);
  if (!value.is_number_integer()) {
    Fail("must be an integer");
    return std::nullopt;
  }
  if (!value.is_number_unsigned() || value.get<uint64_t>() > maximum) {
    Fail("must be from 0 to " + std::to_string(maximum));
    return std::nullopt;
  }
  return value.get<uint64_t>();
}

std::vector<std::string> JsonField::Strings() const {
  std::vector<std::string> strings;
  ForEach([&](JsonField element) { strings.push_back(element.String()); });
  return strings;
}

std::map<std::string, std::string> JsonField::StringMap() const {
  std::map<std::string, std::string> strings;
  if (!present()) return strings;
  if (!Unwrap(value_).is_object()) {
    Fail("must be an object");
    return strings;
  }
  for (const auto& [name, member] : Unwrap(value_).items()) {
    strings[name] = JsonField(document_, Wrap(member), path_ + "." + name).String();
  }
  return strings;
}

void JsonField::ForEach(const std::function<void(JsonField)>& visit) const {
  if (!present()) return;
  if (!Unwrap(value_).is_array()) {
    Fail("must be an array");
    return;
  }
  size_t index = 0;
  for (const json& element : Unwrap(value_)) {
    JsonField field(document_, Wrap(element), path_ + "[" + std::to_string(index++) + "]");
    if (!field.present()) field.Fail("must not be null");
    if (!document_->status_.ok()) return;
    visit(field);
  }
}

JsonObject JsonField::Object() const {
  if (present() && !Unwrap(value_).is_object()) {
    Fail("must be an object");
    return JsonObject(document_, nullptr, path_);
  }
  return JsonObject(document_, value_, path_);
}

JsonField JsonObject::operator[](const std::string& name) {
  asked_.insert(name);
  std::string path = path_.empty() ? name : path_ + "." + name;
  if (value_ == nullptr) return JsonField(document_, nullptr, path);
  const json& object = Unwrap(value_);
  auto found = object.find(name);
  return JsonField(document_, found == object.end() ? nullptr : Wrap(*found), path);
}

JsonObject::~JsonObject() {
  if (value_ == nullptr || !document_->status_.ok()) return;
  for (const auto& [name, member] : Unwrap(value_).items()) {
    if (asked_.contains(name) || member.is_null()) continue;
    JsonField(document_, nullptr, path_.empty() ? name : path_ + "." + name).Warn("not supported, ignored");
  }
}

}  // namespace caisson
