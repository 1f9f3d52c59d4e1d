// linux.seccomp of config.json: the container's profile of system calls. Internal to runsc/spec, but for the compiler.
#ifndef CAISSON_RUNSC_SPEC_SECCOMP_H_
#define CAISSON_RUNSC_SPEC_SECCOMP_H_

#include <string>

#include "runsc/base/status.h"
#include "runsc/spec/json_reader.h"
#include "runsc/spec/spec.h"

namespace caisson {

SeccompSpec ParseSeccompObject(JsonObject seccomp);

// The profile as a classic BPF program for x86-64: an array of struct sock_filter, as bytes. Names that libseccomp does not
// know are left out, as runc does. Fails when libseccomp cannot express a rule.
absl::StatusOr<std::string> CompileSeccomp(const SeccompSpec& profile);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SPEC_SECCOMP_H_
