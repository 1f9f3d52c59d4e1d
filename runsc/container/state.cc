#include "runsc/container/state.h"

#include <stdio.h>
#include <time.h>

#include <nlohmann/json.hpp>

namespace caisson {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;  // Of the file.

Json ProcessJson(const ProcessId& id) { return {{"pid", id.pid}, {"startTime", id.start_time}}; }

ProcessId ProcessFrom(const Json& json) { return {json.at("pid").get<pid_t>(), json.at("startTime").get<uint64_t>()}; }

std::string Dump(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::string SerializeState(const ContainerState& state) {
  Json json;
  json["format"] = kFormat;
  json["id"] = state.id;
  json["ociVersion"] = state.oci_version;
  json["bundle"] = state.bundle;
  json["rootfs"] = state.rootfs;
  json["created"] = state.created;
  json["owner"] = state.owner;
  json["annotations"] = state.annotations;
  json["recorded"] = StatusName(state.recorded);
  json["creator"] = ProcessJson(state.creator);
  json["init"] = ProcessJson(state.init);
  json["cgroups"] = Json::array();
  for (const auto& cgroup : state.cgroups) {
    json["cgroups"].push_back({{"controllers", cgroup.controllers}, {"path", cgroup.path}});
  }
  json["pausedBySentry"] = state.paused_by_sentry;
  json["rootless"] = state.rootless;
  return Dump(json, -1);
}

absl::StatusOr<ContainerState> ParseState(const std::string& text) {
  // The library reports type mismatches by exception; they end here.
  try {
    Json json = Json::parse(text);
    if (json.at("format").get<int>() != kFormat) return ErrorF("state.json: unknown format");
    ContainerState state;
    state.id = json.at("id").get<std::string>();
    state.oci_version = json.at("ociVersion").get<std::string>();
    state.bundle = json.at("bundle").get<std::string>();
    state.rootfs = json.at("rootfs").get<std::string>();
    state.created = json.at("created").get<std::string>();
    state.owner = json.at("owner").get<uid_t>();
    state.annotations = json.at("annotations").get<std::map<std::string, std::string>>();
    std::string recorded = json.at("recorded").get<std::string>();
    bool known = false;
    for (ContainerStatus status : {ContainerStatus::kCreating, ContainerStatus::kCreated, ContainerStatus::kRunning}) {
      if (recorded != StatusName(status)) continue;
      state.recorded = status;
      known = true;
    }
    if (!known) return ErrorF("state.json: unknown status \"%s\"", recorded.c_str());
    state.creator = ProcessFrom(json.at("creator"));
    state.init = ProcessFrom(json.at("init"));
    for (const Json& cgroup : json.at("cgroups")) {
      state.cgroups.push_back({cgroup.at("controllers").get<std::string>(), cgroup.at("path").get<std::string>()});
    }
    state.paused_by_sentry = json.at("pausedBySentry").get<bool>();
    state.rootless = json.at("rootless").get<bool>();
    return state;
  } catch (const Json::exception& e) {
    return ErrorF("state.json: %s", e.what());
  }
}

std::string OciStateJson(const ContainerState& state, ContainerStatus status, bool indent) {
  Json json;
  json["ociVersion"] = state.oci_version;
  json["id"] = state.id;
  json["pid"] = status == ContainerStatus::kStopped ? 0 : state.init.pid;
  json["status"] = StatusName(status);
  json["bundle"] = state.bundle;
  if (indent) {
    json["rootfs"] = state.rootfs;
    json["created"] = state.created;
  }
  if (!state.annotations.empty()) json["annotations"] = state.annotations;
  if (indent) json["owner"] = "";
  return Dump(json, indent ? 2 : -1);
}

std::string TimestampNow() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts;
  gmtime_r(&now.tv_sec, &parts);
  char date[32], text[64];
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(text, sizeof text, "%s.%09ldZ", date, now.tv_nsec);
  return text;
}

}  // namespace caisson
