// Defines kvops::<op> for every operator of schemas.h.
// Runs when _C is loaded. A fragment: other libraries may add to the namespace.
// Names of peers are claimed later and one by one: see peer_names.cpp.
#include "registration/schemas.h"

#include <string>

#include "common/stable.h"

STABLE_TORCH_LIBRARY_FRAGMENT(kvops, m) {
  for (const kvops::OperatorSchema& op : kvops::kOperators) {
    m.def((std::string(op.name) + "(" + op.arguments + ") -> ()").c_str());
  }
}
