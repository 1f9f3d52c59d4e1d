// WakeTask: wakes a task when a queue tells of one of some events, for as long as it lives.
#ifndef CAISSON_SENTRY_KERNEL_TASK_WAITER_H_
#define CAISSON_SENTRY_KERNEL_TASK_WAITER_H_

#include "sentry/kernel/task.h"
#include "sentry/kernel/wait_queue.h"

namespace caisson {

// Both must outlive it. On the task's own stack, around a loop of "ready? else Task::Block()".
class WakeTask final : public Waiter {
 public:
  WakeTask(Task& task, WaitQueue& queue, EventMask mask) : task_(task), queue_(queue) { queue_.Add(this, mask); }
  ~WakeTask() override { queue_.Remove(this); }
  bool OnEvent(EventMask) override {
    task_.Wake();
    return true;
  }

 private:
  Task& task_;
  WaitQueue& queue_;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_KERNEL_TASK_WAITER_H_
