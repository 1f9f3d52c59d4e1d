// The initial stack of a program: argument and environment strings, pointers to them, auxiliary vector.
#ifndef CAISSON_SENTRY_LOADER_STACK_IMAGE_H_
#define CAISSON_SENTRY_LOADER_STACK_IMAGE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

struct StackImageRequest {
  uint64_t top = 0;      // The image ends here; page-aligned.
  uint64_t padding = 0;  // Unused bytes between strings and pointers, for ASLR.
  const std::vector<std::string>& argv;
  const std::vector<std::string>& envp;
  const std::string& filename;
  std::array<uint8_t, 16> random{};  // What AT_RANDOM points to.
  // Type and value of each entry but AT_RANDOM, AT_EXECFN, AT_PLATFORM and AT_NULL, which are added where 0 stands as
  // their value or at the end.
  std::vector<uint64_t> auxv;
};

struct StackImage {
  std::string bytes;  // To be put at stack_pointer; ends at `top`.
  uint64_t stack_pointer = 0;
  uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  std::vector<uint64_t> auxv;  // Complete.
};

StackImage BuildStackImage(const StackImageRequest& request);

}  // namespace caisson

#endif  // CAISSON_SENTRY_LOADER_STACK_IMAGE_H_
