#include "server/rpc/transfer_gate.h"

#include <algorithm>
#include <utility>

namespace isoscan {

void TransferGate::Enter(Go go) {
  {
    const absl::MutexLock lock(&mutex_);
    if (under_way_ >= at_once_) {
      const auto waiter = std::make_shared<Waiter>();
      waiter->go = std::move(go);
      waiting_.push_back(waiter);
      // The alarm keeps what it calls for as long as it is there: it must not keep its waiter.
      waiter->alarm.Set(std::chrono::system_clock::now() + patience_,
                        [this, weak = std::weak_ptr(waiter)](bool rang) {
                          if (!rang) return;
                          if (const auto waiting = weak.lock()) LosePatience(waiting);
                        });
      return;
    }
    ++under_way_;
  }
  go(MakePass());
}

void TransferGate::Leave() {
  std::shared_ptr<Waiter> next;
  {
    const absl::MutexLock lock(&mutex_);
    --under_way_;
    if (under_way_ >= at_once_ || waiting_.empty()) return;
    next = std::move(waiting_.front());
    waiting_.pop_front();
    ++under_way_;
  }
  next->alarm.Cancel();
  Admit(next);
}

void TransferGate::LosePatience(const std::shared_ptr<Waiter>& waiter) {
  {
    const absl::MutexLock lock(&mutex_);
    const auto found = std::find(waiting_.begin(), waiting_.end(), waiter);
    if (found == waiting_.end()) return;  // Let in meanwhile.
    waiting_.erase(found);
    ++under_way_;
  }
  Admit(waiter);
}

void TransferGate::Admit(const std::shared_ptr<Waiter>& waiter) {
  executor_.Run([this, go = std::move(waiter->go)] { go(MakePass()); });
}

}  // namespace isoscan
