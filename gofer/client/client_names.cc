// The calls that make, link, rename and remove names.
#include <sys/stat.h>

#include <utility>

#include "gofer/client/client.h"
#include "gofer/client/connection.h"
#include "gofer/protocol/protocol.h"
#include "gofer/protocol/wire.h"

namespace caisson {

using gofer::Op;
using gofer::Reader;
using Call = gofer::Connection::Call;

Result<GoferCreated> GoferClient::Impl::MakeNode(GoferClient& client, const GoferHandle& directory, const Make& make) {
  uint64_t id = TRY(IdOf(client, directory));
  if (make.op != Op::kCreateUnnamed) TRY(CheckName(make.name));
  Call call(client.impl_->connection, make.op);
  call.request().Put(gofer::MakeRequest{.directory = id,
                                        .mode = make.mode,
                                        .flags = make.flags,
                                        .owner = {.uid = make.owner.uid, .gid = make.owner.gid}});
  if (make.op != Op::kCreateUnnamed) call.request().PutString(make.name);
  if (make.op == Op::kSymlink) call.request().PutString(make.target);
  Reader answer = TRY(call.Send());
  GoferCreated created;
  created.node = TRY(ReadNode(client, call, answer));
  if (!answer.empty() || (created.node.attr.mode & S_IFMT) != make.type) return call.Malformed();
  TRY(call.ExpectFds(make.brings_fd ? 1 : 0));
  created.file = call.TakeFd();
  return created;
}

Result<GoferCreated> GoferClient::Create(const GoferHandle& directory, std::string_view name, int flags,
                                         uint32_t mode, GoferOwner owner) {
  return Impl::MakeNode(*this, directory, {.op = Op::kCreate,
                              .name = name,
                              .mode = mode,
                              .flags = flags,
                              .owner = owner,
                              .type = S_IFREG,
                              .brings_fd = true});
}

Result<GoferCreated> GoferClient::CreateUnnamed(const GoferHandle& directory, int flags, uint32_t mode,
                                                GoferOwner owner) {
  return Impl::MakeNode(*this, directory, {.op = Op::kCreateUnnamed,
                              .mode = mode,
                              .flags = flags,
                              .owner = owner,
                              .type = S_IFREG,
                              .brings_fd = true});
}

Result<GoferNode> GoferClient::Mkdir(const GoferHandle& directory, std::string_view name, uint32_t mode,
                                     GoferOwner owner) {
  Impl::Make make = {.op = Op::kMkdir, .name = name, .mode = mode, .owner = owner, .type = S_IFDIR};
  return TRY(Impl::MakeNode(*this, directory, make)).node;
}

Result<GoferNode> GoferClient::Mknod(const GoferHandle& directory, std::string_view name, uint32_t mode,
                                     GoferOwner owner) {
  return TRY(Impl::MakeNode(*this, directory,
                      {.op = Op::kMknod, .name = name, .mode = mode, .owner = owner, .type = mode & S_IFMT}))
      .node;
}

Result<GoferNode> GoferClient::Symlink(const GoferHandle& directory, std::string_view name, std::string_view target,
                                       GoferOwner owner) {
  Impl::Make make = {.op = Op::kSymlink, .name = name, .target = target, .owner = owner, .type = S_IFLNK};
  return TRY(Impl::MakeNode(*this, directory, make)).node;
}

Result<GoferBoundSocket> GoferClient::BindUds(const GoferHandle& directory, std::string_view name, int type,
                                              uint32_t mode, GoferOwner owner) {
  GoferCreated made = TRY(Impl::MakeNode(*this, directory, {.op = Op::kBindUds,
                                               .name = name,
                                               .mode = mode,
                                               .flags = type,
                                               .owner = owner,
                                               .type = S_IFSOCK,
                                               .brings_fd = true}));
  return GoferBoundSocket{.node = std::move(made.node), .socket = std::move(made.file)};
}

Result<GoferAttr> GoferClient::Link(const GoferHandle& node, const GoferHandle& directory, std::string_view name) {
  uint64_t id = TRY(Impl::IdOf(*this, node));
  uint64_t directory_id = TRY(Impl::IdOf(*this, directory));
  TRY(Impl::CheckName(name));
  Call call(impl_->connection, Op::kLink);
  call.request().Put(gofer::LinkRequest{.node = id, .directory = directory_id});
  call.request().PutString(name);
  Reader answer = TRY(call.Send());
  TRY(call.ExpectFds(0));
  return Impl::ReadAttr(call, answer);
}

Result<void> GoferClient::Impl::RemoveName(GoferClient& client, Op op, const GoferHandle& directory,
                                           std::string_view name) {
  uint64_t id = TRY(IdOf(client, directory));
  TRY(CheckName(name));
  Call call(client.impl_->connection, op);
  call.request().Put(gofer::RemoveRequest{id});
  call.request().PutString(name);
  TRY(call.Send());
  return call.ExpectFds(0);
}

Result<void> GoferClient::Unlink(const GoferHandle& directory, std::string_view name) {
  return Impl::RemoveName(*this, Op::kUnlink, directory, name);
}

Result<void> GoferClient::Rmdir(const GoferHandle& directory, std::string_view name) {
  return Impl::RemoveName(*this, Op::kRmdir, directory, name);
}

Result<void> GoferClient::Rename(const GoferHandle& old_directory, std::string_view old_name,
                                 const GoferHandle& new_directory, std::string_view new_name, uint32_t flags) {
  uint64_t old_id = TRY(Impl::IdOf(*this, old_directory));
  uint64_t new_id = TRY(Impl::IdOf(*this, new_directory));
  TRY(Impl::CheckName(old_name));
  TRY(Impl::CheckName(new_name));
  Call call(impl_->connection, Op::kRename);
  call.request().Put(
      gofer::RenameRequest{.old_directory = old_id, .new_directory = new_id, .flags = flags, .zero = 0});
  call.request().PutString(old_name);
  call.request().PutString(new_name);
  TRY(call.Send());
  return call.ExpectFds(0);
}

}  // namespace caisson
