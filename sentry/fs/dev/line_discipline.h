// The terminal line discipline (N_TTY): what happens between a pseudo terminal's master and slave. See termios(3).
//
//   master Write -> input processing (echo, ^C, editing)  -> slave Read
//   slave  Write -> output processing (NL to CR NL, tabs) -> master Read
//
// Lock order: LineDiscipline::mutex_ is a leaf but for wait queues, which are notified under it never.
#ifndef CAISSON_SENTRY_FS_DEV_LINE_DISCIPLINE_H_
#define CAISSON_SENTRY_FS_DEV_LINE_DISCIPLINE_H_

#include <asm/termbits.h>
#include <sys/ioctl.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"

namespace caisson {

// The kernel's struct termios (TCGETS).
using KernelTermios = struct ::termios;
using WindowSize = struct ::winsize;

class LineDiscipline {
 public:
  LineDiscipline();

  // What a write by the master caused besides data: signals for the slave's foreground group, in order.
  using Signals = std::vector<int>;

  // --- Master. EAGAIN: nothing there, or no room. EIO on Read once every slave is closed and all is read.
  Result<size_t> MasterRead(IoBuffer& destination);
  Result<size_t> MasterWrite(IoBuffer& source, Signals* signals);
  // --- Slave. 0: end of file (^D), or the master is closed; writing is EIO then. EAGAIN.
  Result<size_t> SlaveRead(IoBuffer& destination);
  Result<size_t> SlaveWrite(IoBuffer& source);

  EventMask MasterPoll();
  EventMask SlavePoll();
  WaitQueue& master_queue() { return master_queue_; }
  WaitQueue& slave_queue() { return slave_queue_; }

  KernelTermios termios();
  // `flush_input`: TCSETSF. Output is never waited for: the master's buffer is what it was sent to.
  void SetTermios(const KernelTermios& termios, bool flush_input);
  WindowSize window_size();
  // True if it changed.
  bool SetWindowSize(const WindowSize& size);
  // TCFLSH: TCIFLUSH, TCOFLUSH, TCIOFLUSH. `from_master` swaps what is in and out.
  Result<void> Flush(int which, bool from_master);
  size_t SlaveReadable();
  size_t MasterReadable();
  // TCXONC: TCOOFF and TCOON.
  void SetStopped(bool stopped);
  // TIOCPKT: packet mode of the master.
  void SetPacketMode(bool on);
  bool packet_mode();
  // TIOCSTI: as if it had been typed.
  void Type(char c, Signals* signals);

  void SlaveOpened();
  void SlaveClosed();
  void MasterClosed();
  bool master_closed();

 private:
  // All of these need mutex_.
  void Input(uint8_t c, Signals* signals) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Special(uint8_t c, int index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Output(uint8_t c) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Echo(uint8_t c) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseEcho(uint8_t c) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLine() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool canonical() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return termios_.c_lflag & ICANON; }
  bool SlaveReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t InputRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NotifyAll(bool master, bool slave) ABSL_LOCKS_EXCLUDED(mutex_);

  WaitQueue master_queue_;
  WaitQueue slave_queue_;
  mutable absl::Mutex mutex_;
  KernelTermios termios_ ABSL_GUARDED_BY(mutex_);
  WindowSize window_size_ ABSL_GUARDED_BY(mutex_) = {};
  std::deque<uint8_t> output_ ABSL_GUARDED_BY(mutex_);     // Slave to master.
  // Master to slave: complete lines (canonical), or everything. A line's end is in line_ends_: how many bytes each line
  // still has; a line of no bytes is an end of file.
  std::deque<uint8_t> input_ ABSL_GUARDED_BY(mutex_);
  std::deque<size_t> lines_ ABSL_GUARDED_BY(mutex_);
  std::string editing_ ABSL_GUARDED_BY(mutex_);            // The line being typed.
  size_t column_ ABSL_GUARDED_BY(mutex_) = 0;              // Of the output, for tabs.
  bool literal_next_ ABSL_GUARDED_BY(mutex_) = false;      // ^V was typed.
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;           // ^S
  bool packet_mode_ ABSL_GUARDED_BY(mutex_) = false;
  uint8_t packet_status_ ABSL_GUARDED_BY(mutex_) = 0;
  int slaves_ ABSL_GUARDED_BY(mutex_) = 0;
  bool slave_was_open_ ABSL_GUARDED_BY(mutex_) = false;
  bool master_closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caisson

#endif  // CAISSON_SENTRY_FS_DEV_LINE_DISCIPLINE_H_
