// linux.resources of config.json, and what `runsc update` takes. Internal to runsc/spec.
#ifndef CAISSON_RUNSC_SPEC_RESOURCES_H_
#define CAISSON_RUNSC_SPEC_RESOURCES_H_

#include "runsc/spec/json_reader.h"
#include "runsc/spec/spec.h"

namespace caisson {

ResourcesSpec ParseResourcesObject(JsonObject resources);

}  // namespace caisson

#endif  // CAISSON_RUNSC_SPEC_RESOURCES_H_
