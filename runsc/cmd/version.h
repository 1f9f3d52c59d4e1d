#ifndef CAISSON_RUNSC_CMD_VERSION_H_
#define CAISSON_RUNSC_CMD_VERSION_H_

namespace caisson {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace caisson

#endif  // CAISSON_RUNSC_CMD_VERSION_H_
