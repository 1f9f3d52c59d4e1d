// What the zygote runs after it has left everything of the sentry's address space behind.
#ifndef CAISSON_PLATFORM_STUB_ZYGOTE_CODE_H_
#define CAISSON_PLATFORM_STUB_ZYGOTE_CODE_H_

#include <cstdint>

#include "platform/stub/layout.h"

namespace caisson::stub {

// Parts of the zygote's region at STUB_ZYGOTE.
inline constexpr uint64_t kZygoteCodeSize = 0x4000;
inline constexpr uint64_t kZygoteConfig = STUB_ZYGOTE + kZygoteCodeSize;
inline constexpr uint64_t kZygoteStackTop = STUB_ZYGOTE + STUB_ZYGOTE_SIZE - 0x1000;

struct ZygoteConfig {
  // Where relocation starts from: one anonymous mapping that holds the zygote's code, this, the stub's image (code and
  // data) and a stack.
  uint64_t temp_start, temp_size;
  uint64_t zygote_code;  // Address of the code in that mapping.
  uint64_t stub_image;   // Same, of the STUB_CODE_SIZE + STUB_DATA_SIZE bytes for STUB_CODE.
  uint64_t loop_offset;  // Of ZygoteLoop in the zygote's code.
  uint64_t service_address;  // stub_service_begin, in the stub.
  uint64_t handler;          // Address in the stub of the signal handler,
  uint64_t restorer;
  uint64_t handled_signals;  // and for which signals (bit signo - 1).
  int32_t pid;               // The zygote's own.
};

// Sentry to zygote, over the channel (SOCK_SEQPACKET).
struct ZygoteRequest {
  enum Kind : uint32_t { kSpawn, kReap };
  uint32_t kind;
  int32_t pid;               // kReap: a stub that has ended. Not answered.
  uint64_t request_offset;   // kSpawn: of its request page in the control file.
};

// Answer to kSpawn, with the stub's pidfd, the sentry's end of its socket, its eventfd for requests and the sentry's end
// of the pipe of its answers attached; and once at start (pid 0).
struct ZygoteReply {
  int32_t pid;  // Or a negative errno, without descriptors.
};

// Entered in the temporary mapping, on the stack there. Does not return.
[[noreturn]] void ZygoteRelocate(const ZygoteConfig* config);
// Entered at its final address.
[[noreturn]] void ZygoteLoop(ZygoteConfig* config);

}  // namespace caisson::stub

extern "C" {
// The section that holds both.
extern const char __start_caisson_zygote[], __stop_caisson_zygote[];
}

#endif  // CAISSON_PLATFORM_STUB_ZYGOTE_CODE_H_
