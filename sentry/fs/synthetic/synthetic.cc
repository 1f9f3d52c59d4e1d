#include "sentry/fs/synthetic/synthetic.h"

#include <dirent.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/time/timers.h"
#include "sentry/vfs/filesystem_type.h"

namespace caisson {
namespace {

class DirectoryFile : public File {
 public:
  DirectoryFile(const VfsPath& path, int flags, RefPtr<SyntheticDirectory> directory)
      : File(path, flags), directory_(std::move(directory)) {}
  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer&, int64_t, int) override { return Errno(EISDIR); }
  Result<int64_t> Seek(Task&, int64_t offset, int whence) override {
    if (whence == SEEK_CUR) offset += position();
    if ((whence != SEEK_SET && whence != SEEK_CUR) || offset < 0) return Errno(EINVAL);
    set_position(offset);
    return offset;
  }
  Result<void> Getdents(Task&, DirentSink& sink) override {
    int64_t at = position();
    uint64_t parent_ino = directory_->ino();
    if (RefPtr<Dentry> parent = path().dentry->parent(); parent && parent->inode()) {
      if (Result<InodeAttr> attr = parent->inode()->GetAttr(); attr.ok()) parent_ino = attr->ino;
    }
    EmitEntries(directory_->List(), &at, directory_->ino(), parent_ino, sink);
    set_position(at);
    return {};
  }
  Result<void> Fsync(Task&, bool) override { return {}; }

 private:
  const RefPtr<SyntheticDirectory> directory_;
};

class TextFile : public File {
 public:
  TextFile(const VfsPath& path, int flags, RefPtr<TextInode> inode) : File(path, flags), inode_(std::move(inode)) {}
  bool seekable() const override { return true; }
  Result<size_t> Pread(Task&, IoBuffer& destination, int64_t offset, int) override {
    if (offset < 0) return Errno(EINVAL);
    absl::MutexLock lock(&mutex_);
    if (offset == 0 || !generated_) {
      text_ = TRY(inode_->Generate());
      generated_ = true;
    }
    if (static_cast<uint64_t>(offset) >= text_.size()) return size_t{0};
    return destination.CopyOut(text_.data() + offset, std::min(destination.remaining(), text_.size() - offset));
  }
  Result<size_t> Pwrite(Task& task, IoBuffer& source, int64_t offset, int) override {
    constexpr size_t kMaxStore = 64 << 10;
    const size_t length = source.remaining();
    if (length > kMaxStore) return Errno(EINVAL);
    std::string text(length, 0);
    if (TRY(source.CopyIn(text.data(), length)) != length) return Errno(EFAULT);
    TRY(inode_->Store(task, text, offset));
    return length;
  }
  Result<size_t> Append(Task& task, IoBuffer& source, int64_t* end_offset, int flags) override {
    size_t written = TRY(Pwrite(task, source, 0, flags));
    *end_offset = position() + static_cast<int64_t>(written);
    return written;
  }
  Result<int64_t> Seek(Task&, int64_t offset, int whence) override {
    if (whence == SEEK_CUR) offset += position();
    if ((whence != SEEK_SET && whence != SEEK_CUR) || offset < 0) return Errno(EINVAL);
    set_position(offset);
    return offset;
  }
  WaitQueue* wait_queue() override { return inode_->wait_queue(); }
  Result<void> Fsync(Task&, bool) override { return Errno(EINVAL); }

 private:
  const RefPtr<TextInode> inode_;
  absl::Mutex mutex_;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  bool generated_ ABSL_GUARDED_BY(mutex_) = false;
};

class FunctionText : public TextInode {
 public:
  FunctionText(Filesystem& fs, uint32_t mode, TextGenerator generate, TextStore store)
      : TextInode(fs, mode), generate_(std::move(generate)), store_(std::move(store)) {}
  Result<std::string> Generate() override { return generate_(); }
  Result<void> Store(Task& task, std::string_view text, int64_t offset) override {
    if (!store_) return Errno(EIO);
    return store_(task, text);
  }

 private:
  const TextGenerator generate_;
  const TextStore store_;
};

class LinkInode : public SyntheticInode {
 public:
  LinkInode(Filesystem& fs, std::function<Result<std::string>()> target)
      : SyntheticInode(fs, S_IFLNK | 0777), target_(std::move(target)) {}
  Result<std::string> Readlink() override { return target_(); }

 private:
  const std::function<Result<std::string>()> target_;
};

}  // namespace

SyntheticInode::SyntheticInode(Filesystem& fs, uint32_t mode, uid_t uid, gid_t gid)
    : Inode(fs, mode), ino_(fs.NextIno()), mode_(mode), uid_(uid), gid_(gid) {
  atime_ns_ = mtime_ns_ = ctime_ns_ = RealtimeNow();
}

Result<InodeAttr> SyntheticInode::GetAttr() {
  InodeAttr attr;
  {
    absl::MutexLock lock(&attr_mutex_);
    attr.mode = mode_;
    attr.uid = uid_;
    attr.gid = gid_;
    attr.atime_ns = atime_ns_;
    attr.mtime_ns = mtime_ns_;
    attr.ctime_ns = ctime_ns_;
  }
  attr.ino = ino_;
  attr.dev = fs().device();
  attr.block_size = 1024;
  FillAttr(attr);
  return attr;
}

Result<void> SyntheticInode::SetAttr(const SetAttrRequest& request) { return Errno(EPERM); }

void SyntheticInode::ApplyAttr(const SetAttrRequest& request) {
  absl::MutexLock lock(&attr_mutex_);
  if (request.mask & SetAttrRequest::kMode) mode_ = (mode_ & S_IFMT) | (request.mode & 07777);
  if (request.mask & SetAttrRequest::kUid) uid_ = request.uid;
  if (request.mask & SetAttrRequest::kGid) gid_ = request.gid;
  if (request.mask & SetAttrRequest::kAtime) atime_ns_ = request.atime_ns;
  if (request.mask & SetAttrRequest::kMtime) mtime_ns_ = request.mtime_ns;
  ctime_ns_ = RealtimeNow();
}

Result<RefPtr<File>> SyntheticInode::Open(const VfsPath& path, int flags) {
  return OpenSpecial(fs().kernel(), *this, path, flags, 0);
}

Result<RefPtr<File>> SyntheticDirectory::Open(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<DirectoryFile>(path, flags, RefPtr<SyntheticDirectory>(this)));
}

Result<RefPtr<Inode>> StaticDirectory::Lookup(std::string_view name) {
  auto it = entries_.find(name);
  if (it == entries_.end()) return Errno(ENOENT);
  return it->second;
}

std::vector<SyntheticEntry> StaticDirectory::List() {
  std::vector<SyntheticEntry> out;
  for (const auto& [name, inode] : entries_) {
    Result<InodeAttr> attr = inode->GetAttr();
    out.push_back({name, attr.ok() ? attr->ino : 1, static_cast<uint8_t>(inode->type() >> 12)});
  }
  return out;
}

Result<void> TextInode::SetAttr(const SetAttrRequest& request) {
  // O_TRUNC before a write is customary; the size is not a real one.
  if ((request.mask & ~uint32_t{SetAttrRequest::kSize}) == 0) return {};
  return Errno(EPERM);
}

Result<RefPtr<File>> TextInode::Open(const VfsPath& path, int flags) {
  return RefPtr<File>(MakeRef<TextFile>(path, flags, RefPtr<TextInode>(this)));
}

RefPtr<Inode> NewText(Filesystem& fs, uint32_t mode, TextGenerator generate, TextStore store) {
  return MakeRef<FunctionText>(fs, mode, std::move(generate), std::move(store));
}

RefPtr<Inode> NewConstantText(Filesystem& fs, std::string text, uint32_t mode) {
  return NewText(fs, mode, [text = std::move(text)]() -> Result<std::string> { return text; });
}

RefPtr<Inode> NewLink(Filesystem& fs, std::function<Result<std::string>()> target) {
  return MakeRef<LinkInode>(fs, std::move(target));
}

void EmitEntries(const std::vector<SyntheticEntry>& entries, int64_t* position, uint64_t self_ino, uint64_t parent_ino,
                 DirentSink& sink) {
  constexpr int64_t kDots = 2;
  auto offer = [&](std::string_view name, uint64_t ino, uint8_t type, int64_t next) {
    if (next <= *position) return true;
    if (!sink.Add(name, ino, type, next)) return false;
    *position = next;
    return true;
  };
  if (!offer(".", self_ino, DT_DIR, 1) || !offer("..", parent_ino, DT_DIR, 2)) return;
  for (size_t i = 0; i < entries.size(); ++i) {
    const SyntheticEntry& entry = entries[i];
    const int64_t next = entry.next ? entry.next : kDots + static_cast<int64_t>(i) + 1;
    if (!offer(entry.name, entry.ino, entry.type, next)) return;
  }
}

Result<abi::Statfs> SyntheticFilesystem::Statfs() {
  abi::Statfs out;
  memset(&out, 0, sizeof out);
  out.f_type = static_cast<decltype(out.f_type)>(magic_);
  out.f_bsize = out.f_frsize = abi::kPageSize;
  out.f_namelen = abi::kNameMax;
  return out;
}

}  // namespace caisson
