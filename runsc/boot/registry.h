// The file systems and devices that a sandbox has.
#ifndef CAISSON_RUNSC_BOOT_REGISTRY_H_
#define CAISSON_RUNSC_BOOT_REGISTRY_H_

namespace caisson {

// Fills the VFS's registries; once, before the first mount.
void RegisterFilesystemsAndDevices();

}  // namespace caisson

#endif  // CAISSON_RUNSC_BOOT_REGISTRY_H_
