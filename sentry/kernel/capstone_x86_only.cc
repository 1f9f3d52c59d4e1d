// The sentry decodes x86 alone. Capstone's table of architectures names the entry points of all of them, so that all would be
// linked: 7 MB, of which pages full of relocated pointers are written in every process at start. These definitions come
// before the archive's, whose modules then stay out; cs_open() of another architecture fails with CS_ERR_ARCH.
#include <capstone/capstone.h>

#define NO_ARCHITECTURE(name)                                                        \
  extern "C" cs_err name##_global_init(void*);                                       \
  extern "C" cs_err name##_option(void*, cs_opt_type, size_t);                       \
  cs_err name##_global_init(void*) { return CS_ERR_ARCH; }                           \
  cs_err name##_option(void*, cs_opt_type, size_t) { return CS_ERR_ARCH; }

NO_ARCHITECTURE(AArch64)
NO_ARCHITECTURE(ARM)
NO_ARCHITECTURE(EVM)
NO_ARCHITECTURE(M680X)
NO_ARCHITECTURE(M68K)
NO_ARCHITECTURE(Mips)
NO_ARCHITECTURE(PPC)
NO_ARCHITECTURE(Sparc)
NO_ARCHITECTURE(SystemZ)
NO_ARCHITECTURE(TMS320C64x)
NO_ARCHITECTURE(XCore)
