// TreeFixes: messages that put trees right, gathered and then laid over them as one more run of
// pending changes, newer than all there is.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/error.h"
#include "format/value.h"
#include "repair/draft.h"

namespace caw {

class TreeFixes {
 public:
  /// After what was added before for the same key.
  void add(NodeId tree, const std::string& key, Message message);
  /// What was added, or null.
  const Message* find(NodeId tree, const std::string& key) const;
  uint64_t count() const { return count_; }
  /// Writes the runs and the roots that refer to them; then there is nothing left.
  Result<void> apply(Draft& draft);

 private:
  using Messages = std::map<std::string, Message>;
  static Result<void> apply(Draft& draft, NodeId tree, const Messages& messages);

  std::map<NodeId, Messages> trees_;
  uint64_t count_ = 0;
};

}  // namespace caw
