#include <sys/socket.h>
#include <unistd.h>

#include "gofer/server/gofer.h"

namespace caisson {

// Serves nothing until the sentry's end closes.
int GoferMain(const GoferOptions& options) {
  char byte;
  while (recv(options.socket_fd, &byte, 1, 0) > 0) continue;
  return 0;
}

}  // namespace caisson
