// The names that config.json uses, and Linux's numbers for them. Internal to runsc/spec.
#ifndef CAISSON_RUNSC_SPEC_NAMES_H_
#define CAISSON_RUNSC_SPEC_NAMES_H_

#include <stdint.h>

#include <optional>
#include <string>

#include "runsc/base/files.h"
#include "runsc/spec/spec.h"

namespace caisson {

std::optional<int> RlimitNumber(const std::string& name);         // "RLIMIT_NOFILE"
std::optional<uint64_t> NamespaceFlag(const std::string& name);   // "network"
std::optional<uint64_t> PropagationFlag(const std::string& name); // "rslave"

// Sorts `mount.options` into flags, propagation and data, and settles the type. "" or what is wrong.
std::string InterpretMountOptions(MountSpec* mount);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SPEC_NAMES_H_
