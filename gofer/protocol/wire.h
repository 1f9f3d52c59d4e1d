// Packs and unpacks frames. A Reader never reads past its bytes, however hostile; a Writer never writes past its own.
#ifndef CAISSON_GOFER_PROTOCOL_WIRE_H_
#define CAISSON_GOFER_PROTOCOL_WIRE_H_

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace caisson::gofer {

// A struct that can travel: plain bytes, none of which are padding (padding would leak memory).
template <typename T>
concept Wire = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  // False, and nothing changed, if too little is left.
  template <Wire T>
  [[nodiscard]] bool Get(T& value) {
    if (bytes_.size() < sizeof(T)) return false;
    memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return true;
  }
  // A string of at most `limit` bytes. It points into the frame.
  [[nodiscard]] bool GetString(std::string_view& text, size_t limit) {
    uint16_t length;
    if (!Get(length) || length > limit || length > bytes_.size()) return false;
    text = {reinterpret_cast<const char*>(bytes_.data()), length};
    bytes_ = bytes_.subspan(length);
    return true;
  }
  // All that is left.
  std::string_view Rest() {
    std::string_view rest(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
    bytes_ = {};
    return rest;
  }
  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }

 private:
  std::span<const uint8_t> bytes_;
};

// Once something did not fit, ok() is false and the frame is not to be sent.
class Writer {
 public:
  explicit Writer(std::span<uint8_t> bytes) : bytes_(bytes) {}

  template <Wire T>
  void Put(const T& value) {
    PutBytes({reinterpret_cast<const char*>(&value), sizeof(T)});
  }
  void PutString(std::string_view text) {
    if (text.size() > UINT16_MAX) {
      ok_ = false;
      return;
    }
    Put(static_cast<uint16_t>(text.size()));
    PutBytes(text);
  }
  void PutBytes(std::string_view text) {
    if (!ok_ || text.size() > bytes_.size() - used_) {
      ok_ = false;
      return;
    }
    memcpy(bytes_.data() + used_, text.data(), text.size());
    used_ += text.size();
  }
  // Overwrites what was put at `offset`.
  template <Wire T>
  void PutAt(size_t offset, const T& value) {
    if (ok_ && offset + sizeof(T) <= used_) memcpy(bytes_.data() + offset, &value, sizeof(T));
  }
  // For calls that write into a buffer: the free room, of which Advance() uses a part.
  std::span<uint8_t> Room() { return ok_ ? bytes_.subspan(used_) : std::span<uint8_t>(); }
  void Advance(size_t n) {
    if (n > bytes_.size() - used_) {
      ok_ = false;
    } else {
      used_ += n;
    }
  }
  size_t used() const { return used_; }
  void Truncate(size_t used) {
    if (used <= used_) used_ = used;
  }
  bool ok() const { return ok_; }

 private:
  std::span<uint8_t> bytes_;
  size_t used_ = 0;
  bool ok_ = true;
};

// A name of one path component, as both sides accept it. "." and ".." are not.
inline bool IsValidName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace caisson::gofer

#endif  // CAISSON_GOFER_PROTOCOL_WIRE_H_
