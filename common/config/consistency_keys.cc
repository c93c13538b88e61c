#include "common/config/consistency_keys.h"

#include "common/config/binder.h"

namespace varscope {
namespace {

// At the key, or where that is not written at what says the mode.
[[noreturn]] void refuse(const JobConfig& config, const char* path, const std::string& text) {
  const ConfigNode* node = config.root.find_path(path);
  if (node == nullptr) node = config.root.find_path("cluster.consistency");
  fail_at(node != nullptr ? *node : config.root, config.file, path, text);
}

void check_staleness(const JobConfig& config) {
  const ClusterConfig& cluster = config.cluster;
  const char* path = "cluster.staleness";
  if (cluster.consistency == Consistency::ssp) {
    if (cluster.staleness > 0) return;
    if (config.root.find_path(path) == nullptr)
      refuse(
          config, path,
          "missing; ssp needs it: how many steps the values may be behind those of bsp, for example staleness: 2");
    refuse(config, path,
           "0 is too little for ssp: that is bsp; set it to 1 or more, or cluster.consistency to bsp");
  }
  if (cluster.staleness == 0) return;
  if (cluster.consistency == Consistency::bsp && cluster.delay > 0)
    refuse(config, path,
           "does not go with cluster.delay, which says how many steps values are behind; remove it");
  refuse(
      config, path,
      cluster.consistency == Consistency::bsp
          ? "does not go with cluster.consistency: bsp, where no value is behind; remove it, or set that to ssp"
          : "does not go with cluster.consistency: asp, which has no bound; remove it, or set that to ssp");
}

void check_delay(const JobConfig& config) {
  const ClusterConfig& cluster = config.cluster;
  if (cluster.delay == 0) return;
  if (cluster.consistency == Consistency::ssp) {
    refuse(
        config, "cluster.delay",
        "does not go with cluster.consistency: ssp, where cluster.staleness says how far values may be behind; "
        "remove the key, or set that to bsp");
  }
  if (cluster.consistency == Consistency::asp) {
    refuse(
        config, "cluster.delay",
        "does not go with cluster.consistency: asp, where values are as new as they come; remove the key, or "
        "set that to bsp");
  }
  if (config.follow() != nullptr) {
    refuse(
        config, "cluster.delay",
        "does not go with data.train.follow, where data may end or pause after any step; remove the key, or "
        "name files in data.train");
  }
}

// What follows from the number of workers, and from the model, is in launch/job/step_rules.h.
void check_backups(const JobConfig& config) {
  const ClusterConfig& cluster = config.cluster;
  const char* path = "cluster.backup_workers";
  if (cluster.backup_workers == 0) return;
  if (cluster.consistency != Consistency::bsp) {
    refuse(config, path,
           fmt::format("does not go with cluster.consistency: {}, where no worker waits for a whole step; "
                       "remove it, or set that to bsp",
                       choice_name(kConsistencies, cluster.consistency)));
  }
  if (cluster.delay > 0) {
    refuse(config, path,
           "does not go with cluster.delay: a late worker's step is dropped, with a delay it is waited for; "
           "remove one of them");
  }
  if (config.follow() != nullptr) {
    refuse(config, path,
           "does not go with data.train.follow, where each record is learnt from: a late worker's part of a "
           "step is dropped; remove it, or name files in data.train");
  }
}

}  // namespace

void check_consistency_keys(const JobConfig& config) {
  const Consistency consistency = config.cluster.consistency;
  check_staleness(config);
  check_delay(config);
  check_backups(config);
  if (consistency == Consistency::bsp) {
    if (config.cluster.record && config.cluster.backup_workers == 0) {
      refuse(
          config, "cluster.record",
          "does not go with cluster.consistency: bsp without backup workers, where the same start gives the "
          "same bits: start it again to see it again; remove the key");
    }
    if (config.cluster.dealing != DealingChoice::automatic) {
      refuse(config, "cluster.dealing",
             fmt::format(
                 "{} does not go with cluster.consistency: bsp, where each worker always has its own part of "
                 "a step; remove it, or set that to ssp or asp",
                 choice_name(kDealings, config.cluster.dealing)));
    }
    if (config.optimizer.staleness_discount != StalenessDiscount::none) {
      refuse(config, "optimizer.staleness_discount",
             fmt::format(
                 "{} does not go with cluster.consistency: bsp, where no push is late; remove it, or set "
                 "that to ssp or asp",
                 choice_name(kStalenessDiscounts, config.optimizer.staleness_discount)));
    }
    return;
  }
  if (config.follow() != nullptr) {
    refuse(config, "cluster.consistency",
           fmt::format(
               "{} does not go with data.train.follow: a followed directory is trained in bsp; remove this "
               "key, or name files in data.train",
               choice_name(kConsistencies, consistency)));
  }
}

}  // namespace varscope
