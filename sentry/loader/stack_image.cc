#include "sentry/loader/stack_image.h"

#include <elf.h>
#include <string.h>

namespace caisson {
namespace {

constexpr char kPlatform[] = "x86_64";

uint64_t BytesOf(const std::vector<std::string>& strings) {
  uint64_t sum = 0;
  for (const std::string& s : strings) sum += s.size() + 1;
  return sum;
}

}  // namespace

StackImage BuildStackImage(const StackImageRequest& request) {
  StackImage image;
  // From the top down, as Linux has it: 8 zero bytes, file name, environment, arguments; then platform and random bytes;
  // then, 16-byte aligned, what the stack pointer points to.
  const uint64_t filename = request.top - 8 - (request.filename.size() + 1);
  image.env_end = filename;
  image.env_start = image.arg_end = filename - BytesOf(request.envp);
  image.arg_start = image.arg_end - BytesOf(request.argv);
  const uint64_t platform = ((image.arg_start - request.padding) & ~uint64_t{15}) - sizeof kPlatform;
  const uint64_t random = platform - request.random.size();

  image.auxv = request.auxv;
  for (size_t i = 0; i + 1 < image.auxv.size(); i += 2) {
    if (image.auxv[i] == AT_RANDOM) image.auxv[i + 1] = random;
    if (image.auxv[i] == AT_EXECFN) image.auxv[i + 1] = filename;
    if (image.auxv[i] == AT_PLATFORM) image.auxv[i + 1] = platform;
  }
  image.auxv.push_back(AT_NULL);
  image.auxv.push_back(0);

  const uint64_t words = 1 + request.argv.size() + 1 + request.envp.size() + 1 + image.auxv.size();
  image.stack_pointer = (random - words * 8) & ~uint64_t{15};
  image.bytes.assign(request.top - image.stack_pointer, '\0');
  auto put = [&image](uint64_t address, const void* data, size_t length) {
    memcpy(image.bytes.data() + (address - image.stack_pointer), data, length);
  };
  put(filename, request.filename.c_str(), request.filename.size() + 1);
  put(platform, kPlatform, sizeof kPlatform);
  put(random, request.random.data(), request.random.size());

  uint64_t position = image.stack_pointer;
  auto put_word = [&](uint64_t word) {
    put(position, &word, sizeof word);
    position += sizeof word;
  };
  put_word(request.argv.size());
  uint64_t text = image.arg_start;
  for (const auto* strings : {&request.argv, &request.envp}) {
    for (const std::string& s : *strings) {
      put(text, s.c_str(), s.size() + 1);
      put_word(text);
      text += s.size() + 1;
    }
    put_word(0);
  }
  for (uint64_t word : image.auxv) put_word(word);
  return image;
}

}  // namespace caisson
