#include "sentry/fs/tmpfs/tmpfs.h"

#include <charconv>

#include "sentry/fs/tmpfs/tmpfs_fs.h"
#include "sentry/kernel/kernel.h"

namespace caisson {
namespace {

constexpr long kTmpfsMagic = 0x01021994;

// memparse(): a number and one suffix. `percent_of`: what "%" refers to; 0: not taken.
Result<uint64_t> ParseSize(std::string_view text, uint64_t percent_of) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest == text.data()) return Errno(EINVAL);
  if (rest == end) return value;
  if (end - rest != 1) return Errno(EINVAL);
  if (*rest == '%') {
    if (!percent_of) return Errno(EINVAL);
    uint64_t bytes;
    if (__builtin_mul_overflow(percent_of, value, &bytes)) return Errno(EINVAL);
    return bytes / 100;
  }
  constexpr std::string_view kSuffixes = "kmgtpe";
  size_t power = kSuffixes.find(static_cast<char>(*rest | 0x20));
  if (power == std::string_view::npos) return Errno(EINVAL);
  uint64_t bytes;
  if (__builtin_mul_overflow(value, uint64_t{1} << (10 * (power + 1)), &bytes)) return Errno(EINVAL);
  return bytes;
}

Result<uint32_t> ParseNumber(std::string_view text, int base) {
  uint32_t value = 0;
  auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || text.empty() || rest != text.data() + text.size()) return Errno(EINVAL);
  return value;
}

uint64_t Pages(uint64_t bytes) { return bytes / abi::kPageSize + (bytes % abi::kPageSize != 0); }

Result<void> ParseOption(std::string_view key, std::string_view value, const Credentials& creds, uint64_t memory,
                         TmpfsOptions* options) {
  if (key == "size") {
    options->max_pages = Pages(TRY(ParseSize(value, memory)));
  } else if (key == "nr_blocks") {
    options->max_pages = TRY(ParseSize(value, 0));
  } else if (key == "nr_inodes") {
    options->max_inodes = TRY(ParseSize(value, 0));
  } else if (key == "mode") {
    options->mode = TRY(ParseNumber(value, 8)) & 07777;
  } else if (key == "uid" || key == "gid") {
    uint32_t id = TRY(ParseNumber(value, 10));
    const UserNamespace* ns = creds.user_ns.get();
    if (ns) id = key == "uid" ? ns->UidToKernel(id) : ns->GidToKernel(id);
    if (id == static_cast<uint32_t>(-1)) return Errno(EINVAL);
    (key == "uid" ? options->uid : options->gid) = id;
  } else if (key != "huge" && key != "mpol" && key != "inode32" && key != "inode64" && key != "rw" && key != "noswap") {
    return Errno(EINVAL);
  }
  return {};
}

}  // namespace

Result<TmpfsOptions> ParseTmpfsOptions(std::string_view data, const Credentials& creds, uint64_t total_memory_bytes) {
  TmpfsOptions options;
  options.uid = creds.fsuid;
  options.gid = creds.fsgid;
  options.max_pages = total_memory_bytes / 2 / abi::kPageSize;
  options.max_inodes = options.max_pages;
  while (!data.empty()) {
    std::string_view option = data.substr(0, data.find(','));
    data.remove_prefix(std::min(data.size(), option.size() + 1));
    if (option.empty()) continue;
    const size_t equals = option.find('=');
    std::string_view key = option.substr(0, equals);
    std::string_view value = equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
    TRY(ParseOption(key, value, creds, total_memory_bytes, &options));
    if (key == "size") options.shown += "size=" + std::to_string(options.max_pages * 4) + "k,";
    if (key == "nr_inodes" || key == "mode" || key == "uid" || key == "gid") options.shown += std::string(option) + ',';
  }
  if (!options.shown.empty()) options.shown.pop_back();
  return options;
}

TmpfsFilesystem::TmpfsFilesystem(Kernel& kernel, RefPtr<MemoryFile> memory_file, const TmpfsOptions& options)
    : Filesystem(kernel),
      memory_file_(std::move(memory_file)),
      account_(MakeRef<TmpfsAccount>(options.max_pages, options.max_inodes)),
      shown_(options.shown) {
  account_->ChargeInode();
  NewInodeAttr attr{.mode = S_IFDIR | options.mode, .uid = options.uid, .gid = options.gid};
  root_ = MakeRef<TmpfsDirectory>(*this, attr);
}

TmpfsFilesystem::~TmpfsFilesystem() = default;

Result<abi::Statfs> TmpfsFilesystem::Statfs() {
  abi::Statfs s{};
  s.f_type = kTmpfsMagic;
  s.f_bsize = s.f_frsize = abi::kPageSize;
  s.f_namelen = abi::kNameMax;
  if (uint64_t limit = account_->max_pages()) {
    s.f_blocks = limit;
    s.f_bfree = s.f_bavail = limit - std::min(limit, account_->pages());
  }
  if (uint64_t limit = account_->max_inodes()) {
    s.f_files = limit;
    s.f_ffree = limit - std::min(limit, account_->inodes());
  }
  return s;
}

Result<RefPtr<Filesystem>> NewTmpfs(Kernel& kernel, const MountData& data) {
  TmpfsOptions options = TRY(ParseTmpfsOptions(data.data, data.creds, kernel.options().total_memory_bytes));
  return RefPtr<Filesystem>(MakeRef<TmpfsFilesystem>(kernel, kernel.memory_file(), options));
}

}  // namespace caisson
