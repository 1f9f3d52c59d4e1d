// Calls that a platform answers by itself.
#ifndef CAISSON_PLATFORM_CALL_ANSWERS_H_
#define CAISSON_PLATFORM_CALL_ANSWERS_H_

#include <cstdint>
#include <span>

namespace caisson {

// A system call without arguments whose result is the same until the thread does something about it itself (getpid).
struct CallAnswer {
  uint32_t number;  // Below 256.
  uint32_t result;
};

// What a Context may implement too.
class CallAnswers {
 public:
  virtual ~CallAnswers() = default;
  // From the next Switch on these calls, where they come by Platform::call_entry(), are answered inside the guest, which
  // nobody is told of; all others are reported. They are kept where the guest can write: it can lie to itself, and
  // to nobody else. Thread as for Switch.
  virtual void SetAnswers(std::span<const CallAnswer> answers) = 0;
};

}  // namespace caisson

#endif  // CAISSON_PLATFORM_CALL_ANSWERS_H_
