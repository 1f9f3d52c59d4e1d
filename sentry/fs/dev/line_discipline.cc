#include "sentry/fs/dev/line_discipline.h"

#include <signal.h>

#include <cstring>

#include <algorithm>
#include <utility>

namespace caisson {
namespace {

constexpr size_t kInputLimit = 4096;     // N_TTY_BUF_SIZE: the longest line, and what is kept unread.
constexpr size_t kOutputLimit = 64 << 10;
constexpr size_t kTabWidth = 8;

constexpr uint8_t ControlCharacter(char c) { return c & 0x1f; }

KernelTermios DefaultTermios() {
  KernelTermios t;
  memset(&t, 0, sizeof t);
  t.c_iflag = ICRNL | IXON;
  t.c_oflag = OPOST | ONLCR;
  t.c_cflag = B38400 | CS8 | CREAD;
  t.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
  t.c_cc[VINTR] = ControlCharacter('C');
  t.c_cc[VQUIT] = 0x1c;
  t.c_cc[VERASE] = 0x7f;
  t.c_cc[VKILL] = ControlCharacter('U');
  t.c_cc[VEOF] = ControlCharacter('D');
  t.c_cc[VTIME] = 0;
  t.c_cc[VMIN] = 1;
  t.c_cc[VSTART] = ControlCharacter('Q');
  t.c_cc[VSTOP] = ControlCharacter('S');
  t.c_cc[VSUSP] = ControlCharacter('Z');
  t.c_cc[VREPRINT] = ControlCharacter('R');
  t.c_cc[VDISCARD] = ControlCharacter('O');
  t.c_cc[VWERASE] = ControlCharacter('W');
  t.c_cc[VLNEXT] = ControlCharacter('V');
  return t;
}

bool IsControl(uint8_t c) { return (c < 0x20 && c != '\t' && c != '\n') || c == 0x7f; }
bool IsContinuation(uint8_t c) { return (c & 0xc0) == 0x80; }

}  // namespace

LineDiscipline::LineDiscipline() : termios_(DefaultTermios()) {}

bool LineDiscipline::Special(uint8_t c, int index) const { return termios_.c_cc[index] != 0 && c == termios_.c_cc[index]; }

void LineDiscipline::NotifyAll(bool master, bool slave) {
  if (master) master_queue_.Notify(kEventIn | kEventOut);
  if (slave) slave_queue_.Notify(kEventIn | kEventOut);
}

// Output processing of one byte towards the master.
void LineDiscipline::Output(uint8_t c) {
  if (termios_.c_oflag & OPOST) {
    switch (c) {
      case '\n':
        if (termios_.c_oflag & ONLRET) column_ = 0;
        if (termios_.c_oflag & ONLCR) {
          output_.push_back('\r');
          column_ = 0;
        }
        break;
      case '\r':
        if ((termios_.c_oflag & ONOCR) && column_ == 0) return;
        column_ = 0;
        if (termios_.c_oflag & OCRNL) c = '\n';
        break;
      case '\t': {
        const size_t spaces = kTabWidth - column_ % kTabWidth;
        column_ += spaces;
        if ((termios_.c_oflag & TABDLY) == XTABS) {
          output_.insert(output_.end(), spaces, ' ');
          return;
        }
        break;
      }
      case '\b':
        if (column_ > 0) --column_;
        break;
      default:
        if (termios_.c_oflag & OLCUC && c >= 'a' && c <= 'z') c -= 'a' - 'A';
        if (!IsControl(c) && !((termios_.c_iflag & IUTF8) && IsContinuation(c))) ++column_;
    }
  }
  output_.push_back(c);
}

void LineDiscipline::Echo(uint8_t c) {
  if (!(termios_.c_lflag & ECHO)) {
    if (c == '\n' && (termios_.c_lflag & ECHONL) && canonical()) Output('\n');
    return;
  }
  if ((termios_.c_lflag & ECHOCTL) && IsControl(c)) {
    Output('^');
    Output(c ^ 0x40);
    return;
  }
  Output(c);
}

void LineDiscipline::EraseEcho(uint8_t c) {
  if (!(termios_.c_lflag & ECHO)) return;
  if (!(termios_.c_lflag & ECHOE)) {
    Echo(termios_.c_cc[VERASE]);
    return;
  }
  int cells = (termios_.c_lflag & ECHOCTL) && IsControl(c) ? 2 : 1;
  if (c == '\t') cells = 1;
  for (int i = 0; i < cells; ++i) {
    for (uint8_t each : {'\b', ' ', '\b'}) Output(each);
  }
}

void LineDiscipline::EraseOne() {
  if (editing_.empty()) return;
  uint8_t c = editing_.back();
  editing_.pop_back();
  if (termios_.c_iflag & IUTF8) {
    while (IsContinuation(c) && !editing_.empty()) {
      c = editing_.back();
      editing_.pop_back();
    }
  }
  EraseEcho(c);
}

// Hands the line being typed to readers.
void LineDiscipline::FinishLine() {
  input_.insert(input_.end(), editing_.begin(), editing_.end());
  lines_.push_back(editing_.size());
  editing_.clear();
}

size_t LineDiscipline::InputRoom() const {
  const size_t used = input_.size() + editing_.size();
  // A canonical line that is full still takes what ends or edits it; other bytes are dropped as Linux drops them.
  if (canonical() && lines_.empty()) return kInputLimit;
  return used >= kInputLimit - 1 ? 0 : kInputLimit - 1 - used;
}

void LineDiscipline::Input(uint8_t c, Signals* signals) {
  if (termios_.c_iflag & ISTRIP) c &= 0x7f;
  if ((termios_.c_iflag & IUCLC) && (termios_.c_lflag & IEXTEN) && c >= 'A' && c <= 'Z') c += 'a' - 'A';
  if (literal_next_) {
    literal_next_ = false;
    if (canonical()) {
      if (editing_.size() < kInputLimit - 1) editing_ += static_cast<char>(c);
    } else {
      input_.push_back(c);
    }
    Echo(c);
    return;
  }
  if (c == '\r') {
    if (termios_.c_iflag & IGNCR) return;
    if (termios_.c_iflag & ICRNL) c = '\n';
  } else if (c == '\n' && (termios_.c_iflag & INLCR)) {
    c = '\r';
  }
  if (termios_.c_iflag & IXON) {
    if (Special(c, VSTOP)) {
      stopped_ = true;
      packet_status_ = (packet_status_ & ~TIOCPKT_START) | TIOCPKT_STOP;
      return;
    }
    if (Special(c, VSTART)) {
      stopped_ = false;
      packet_status_ = (packet_status_ & ~TIOCPKT_STOP) | TIOCPKT_START;
      return;
    }
    if (stopped_ && (termios_.c_iflag & IXANY)) stopped_ = false;
  }
  if (termios_.c_lflag & ISIG) {
    const int signo = Special(c, VINTR) ? SIGINT : Special(c, VQUIT) ? SIGQUIT : Special(c, VSUSP) ? SIGTSTP : 0;
    if (signo != 0) {
      if (!(termios_.c_lflag & NOFLSH)) {
        editing_.clear();
        input_.clear();
        lines_.clear();
        output_.clear();
        packet_status_ |= TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE;
      }
      Echo(c);
      signals->push_back(signo);
      return;
    }
  }
  if (!canonical()) {
    if (input_.size() < kInputLimit - 1) input_.push_back(c);
    Echo(c);
    return;
  }
  if (termios_.c_lflag & IEXTEN) {
    if (Special(c, VLNEXT)) {
      literal_next_ = true;
      if ((termios_.c_lflag & ECHO) && (termios_.c_lflag & ECHOCTL)) {
        Output('^');
        Output('\b');
      }
      return;
    }
    if (Special(c, VWERASE)) {
      while (!editing_.empty() && (editing_.back() == ' ' || editing_.back() == '\t')) EraseOne();
      while (!editing_.empty() && editing_.back() != ' ' && editing_.back() != '\t') EraseOne();
      return;
    }
    if (Special(c, VREPRINT)) {
      Echo(c);
      Output('\n');
      for (char each : editing_) Echo(static_cast<uint8_t>(each));
      return;
    }
  }
  if (Special(c, VERASE)) {
    EraseOne();
    return;
  }
  if (Special(c, VKILL)) {
    if ((termios_.c_lflag & ECHOK) && (termios_.c_lflag & ECHOKE) && (termios_.c_lflag & ECHOE)) {
      while (!editing_.empty()) EraseOne();
    } else {
      editing_.clear();
      Echo(c);
      if (termios_.c_lflag & ECHOK) Output('\n');
    }
    return;
  }
  if (Special(c, VEOF)) {
    FinishLine();
    return;
  }
  const bool ends = c == '\n' || Special(c, VEOL) || ((termios_.c_lflag & IEXTEN) && Special(c, VEOL2));
  if (!ends && editing_.size() >= kInputLimit - 1) {
    if (termios_.c_iflag & IMAXBEL) Output('\a');
    return;
  }
  editing_ += static_cast<char>(c);
  Echo(c);
  if (ends) FinishLine();
}

Result<size_t> LineDiscipline::MasterWrite(IoBuffer& source, Signals* signals) {
  if (source.remaining() == 0) return size_t{0};
  size_t total = 0;
  bool full = false;
  while (source.remaining() > 0 && !full) {
    uint8_t chunk[512];
    Result<size_t> got = source.CopyIn(chunk, std::min(source.remaining(), sizeof chunk));
    if (!got.ok()) {
      if (total == 0) return got;
      break;
    }
    absl::MutexLock lock(&mutex_);
    size_t used = 0;
    for (; used < *got; ++used) {
      if (InputRoom() == 0) {
        full = true;
        break;
      }
      Input(chunk[used], signals);
    }
    total += used;
    if (used < *got) source.Rewind(*got - used);
  }
  NotifyAll(true, true);
  if (total == 0) return Errno(EAGAIN);
  return total;
}

void LineDiscipline::Type(char c, Signals* signals) {
  {
    absl::MutexLock lock(&mutex_);
    Input(static_cast<uint8_t>(c), signals);
  }
  NotifyAll(true, true);
}

Result<size_t> LineDiscipline::MasterRead(IoBuffer& destination) {
  if (destination.remaining() == 0) return size_t{0};
  std::string data;
  {
    absl::MutexLock lock(&mutex_);
    if (packet_mode_ && packet_status_ != 0) {
      data.push_back(static_cast<char>(std::exchange(packet_status_, 0)));
    } else if (output_.empty() || stopped_) {
      if (slaves_ == 0 && slave_was_open_ && output_.empty()) return Errno(EIO);
      return Errno(EAGAIN);
    } else {
      if (packet_mode_) data.push_back(TIOCPKT_DATA);
      const size_t n = std::min({output_.size(), destination.remaining() - data.size(), size_t{4096}});
      data.append(output_.begin(), output_.begin() + n);
      output_.erase(output_.begin(), output_.begin() + n);
    }
  }
  Result<size_t> copied = destination.CopyOut(data.data(), data.size());
  NotifyAll(false, true);
  return copied;
}

bool LineDiscipline::SlaveReady() const {
  if (canonical()) return !lines_.empty();
  // VMIN bytes, or any where VTIME is set or VMIN is 0. VTIME's timer is the reader's (BlockingIo): see SlaveRead.
  const size_t minimum = termios_.c_cc[VTIME] ? 1 : std::max<size_t>(1, termios_.c_cc[VMIN]);
  return input_.size() >= std::min(minimum, kInputLimit - 1);
}

Result<size_t> LineDiscipline::SlaveRead(IoBuffer& destination) {
  if (destination.remaining() == 0) return size_t{0};
  std::string data;
  {
    absl::MutexLock lock(&mutex_);
    if (canonical()) {
      if (lines_.empty()) {
        if (master_closed_) return size_t{0};
        return Errno(EAGAIN);
      }
      const size_t n = std::min(lines_.front(), destination.remaining());
      data.assign(input_.begin(), input_.begin() + n);
      input_.erase(input_.begin(), input_.begin() + n);
      lines_.front() -= n;
      if (lines_.front() == 0) lines_.pop_front();
    } else {
      if (!SlaveReady()) {
        if (master_closed_) return size_t{0};
        if (termios_.c_cc[VMIN] == 0 && termios_.c_cc[VTIME] == 0) return size_t{0};
        return Errno(EAGAIN);
      }
      const size_t n = std::min(input_.size(), destination.remaining());
      data.assign(input_.begin(), input_.begin() + n);
      input_.erase(input_.begin(), input_.begin() + n);
    }
  }
  if (data.empty()) return size_t{0};
  Result<size_t> copied = destination.CopyOut(data.data(), data.size());
  NotifyAll(true, false);
  return copied;
}

Result<size_t> LineDiscipline::SlaveWrite(IoBuffer& source) {
  size_t total = 0;
  bool full = false;
  while (source.remaining() > 0 && !full) {
    uint8_t chunk[512];
    Result<size_t> got = source.CopyIn(chunk, std::min(source.remaining(), sizeof chunk));
    if (!got.ok()) {
      if (total == 0) return got;
      break;
    }
    absl::MutexLock lock(&mutex_);
    if (master_closed_) return Errno(EIO);
    size_t used = 0;
    for (; used < *got; ++used) {
      if (output_.size() >= kOutputLimit || stopped_) {
        full = true;
        break;
      }
      Output(chunk[used]);
    }
    total += used;
    if (used < *got) source.Rewind(*got - used);
  }
  NotifyAll(true, false);
  if (total == 0 && full) return Errno(EAGAIN);
  return total;
}

EventMask LineDiscipline::MasterPoll() {
  absl::MutexLock lock(&mutex_);
  EventMask events = 0;
  if ((!output_.empty() && !stopped_) || (packet_mode_ && packet_status_ != 0)) events |= kEventIn;
  if (packet_mode_ && packet_status_ != 0) events |= EPOLLPRI;
  if (InputRoom() > 0) events |= kEventOut;
  if (slaves_ == 0 && slave_was_open_) events |= EPOLLHUP;
  return events;
}

EventMask LineDiscipline::SlavePoll() {
  absl::MutexLock lock(&mutex_);
  EventMask events = 0;
  if (SlaveReady()) events |= kEventIn;
  if (output_.size() < kOutputLimit && !stopped_) events |= kEventOut;
  if (master_closed_) events |= EPOLLHUP | EPOLLERR | kEventIn | kEventOut;
  return events;
}

KernelTermios LineDiscipline::termios() {
  absl::MutexLock lock(&mutex_);
  return termios_;
}

void LineDiscipline::SetTermios(const KernelTermios& termios, bool flush_input) {
  {
    absl::MutexLock lock(&mutex_);
    const bool was_canonical = canonical();
    termios_ = termios;
    if (flush_input) {
      input_.clear();
      lines_.clear();
      editing_.clear();
    }
    if (was_canonical && !canonical()) {
      // What was typed becomes readable as it is; line ends no longer count.
      input_.insert(input_.end(), editing_.begin(), editing_.end());
      editing_.clear();
      lines_.clear();
    } else if (!was_canonical && canonical() && !input_.empty()) {
      lines_.push_back(input_.size());
    }
    if (!(termios_.c_iflag & IXON)) stopped_ = false;
  }
  NotifyAll(true, true);
}

WindowSize LineDiscipline::window_size() {
  absl::MutexLock lock(&mutex_);
  return window_size_;
}

bool LineDiscipline::SetWindowSize(const WindowSize& size) {
  absl::MutexLock lock(&mutex_);
  if (memcmp(&size, &window_size_, sizeof size) == 0) return false;
  window_size_ = size;
  return true;
}

Result<void> LineDiscipline::Flush(int which, bool from_master) {
  if (which != TCIFLUSH && which != TCOFLUSH && which != TCIOFLUSH) return Errno(EINVAL);
  {
    absl::MutexLock lock(&mutex_);
    const bool in = which == TCIOFLUSH || (which == TCIFLUSH) != from_master;
    const bool out = which == TCIOFLUSH || (which == TCOFLUSH) != from_master;
    if (in) {
      input_.clear();
      lines_.clear();
      editing_.clear();
      packet_status_ |= TIOCPKT_FLUSHREAD;
    }
    if (out) {
      output_.clear();
      packet_status_ |= TIOCPKT_FLUSHWRITE;
    }
  }
  NotifyAll(true, true);
  return {};
}

size_t LineDiscipline::SlaveReadable() {
  absl::MutexLock lock(&mutex_);
  if (canonical()) return lines_.empty() ? 0 : input_.size();
  return input_.size();
}

size_t LineDiscipline::MasterReadable() {
  absl::MutexLock lock(&mutex_);
  return output_.size();
}

void LineDiscipline::SetStopped(bool stopped) {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = stopped;
  }
  NotifyAll(true, true);
}

void LineDiscipline::SetPacketMode(bool on) {
  absl::MutexLock lock(&mutex_);
  if (on && !packet_mode_) packet_status_ = 0;
  packet_mode_ = on;
}

bool LineDiscipline::packet_mode() {
  absl::MutexLock lock(&mutex_);
  return packet_mode_;
}

void LineDiscipline::SlaveOpened() {
  absl::MutexLock lock(&mutex_);
  ++slaves_;
  slave_was_open_ = true;
}

void LineDiscipline::SlaveClosed() {
  {
    absl::MutexLock lock(&mutex_);
    --slaves_;
  }
  master_queue_.Notify(kEventIn | EPOLLHUP);
}

void LineDiscipline::MasterClosed() {
  {
    absl::MutexLock lock(&mutex_);
    master_closed_ = true;
  }
  slave_queue_.Notify(kEventIn | kEventOut | EPOLLHUP | EPOLLERR);
}

bool LineDiscipline::master_closed() {
  absl::MutexLock lock(&mutex_);
  return master_closed_;
}

}  // namespace caisson
