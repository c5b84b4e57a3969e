// Which of cuBLASLt's algorithms multiplies what, for one session. Two algorithms sum in two orders, so a run that goes on elsewhere takes its
// choices with it: they are text, a first line that names GPU and library, then a line a product.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "cublaslt_library.h"

namespace attune::cuda::lt {

class Choices {
 public:
  using Key = std::array<int64_t, 8>;  // m, n, k, ta, tb, dtypes, onto, bias

  // False: nothing is known of this product yet.
  bool find(const Key& key, Algorithm* out);
  // `timed`: worth keeping in the cache folder for later runs on this machine.
  void keep(const Key& key, const Algorithm& algorithm, bool timed);

  // What was used so far. Its first line stands there before any product does; empty where the GPU does not answer.
  std::string text() const;
  // Goes on with another session's choices, before any of its own. False, and nothing is taken, where they were made by another GPU or
  // version of the library, or are no such text.
  bool adopt(const std::string& text);

 private:
  void open();
  bool opened_ = false;
  std::string path_;              // of the file in the cache folder; empty: none
  std::map<Key, Algorithm> used_, file_;
};

}  // namespace attune::cuda::lt
