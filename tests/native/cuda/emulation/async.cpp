#include "async.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace deepsim::cuda::emulation {

namespace {

constexpr std::size_t piece_bytes = 16, barrier_bytes = 8;

std::string number(std::int64_t value) { return std::to_string(value); }

}  // namespace

void Knowledge::add(const Knowledge& other) {
  for (std::size_t i = 0; i < multiplies.size(); ++i) multiplies[i] = std::max(multiplies[i], other.multiplies[i]);
  for (std::size_t i = 0; i < phases.size(); ++i) phases[i] = std::max(phases[i], other.phases[i]);
}

void Knowledge::keep_common(const Knowledge& other) {
  for (std::size_t i = 0; i < multiplies.size(); ++i) multiplies[i] = std::min(multiplies[i], other.multiplies[i]);
  for (std::size_t i = 0; i < phases.size(); ++i) phases[i] = std::min(phases[i], other.phases[i]);
}

void Async::start_block(SharedMemory* memory, int threads, std::size_t shared_bytes) {
  memory_ = memory;
  known_.clear();
  barriers_.clear();
  pieces_.clear();
  known_.resize(static_cast<std::size_t>(threads));
  pieces_.resize(shared_bytes / piece_bytes + 1);
}

void Async::end_block() const {
  for (const Phases& barrier : barriers_) {
    if (barrier.copies.empty()) continue;
    violate(Rule::unfinished, -1, barrier.copies.front().to,
            "copied to after the block has ended. Wait for the copy's barrier.");
  }
}

void Async::meet_all() {
  if (barriers_.empty()) return;
  Knowledge all;
  for (const Knowledge& known : known_) all.add(known);
  std::fill(known_.begin(), known_.end(), all);
}

void Async::init(const void* barrier, int arrivals, const Actor& actor) {
  const std::size_t offset = memory_->offset_of(barrier, barrier_bytes, barrier_bytes, actor);
  memory_->claim(offset, barrier_bytes, actor);
  if (barriers_.size() == Knowledge::most_barriers) {
    violate(Rule::no_such_barrier, actor.thread, offset,
            "the emulation knows " + number(Knowledge::most_barriers) + " barriers, expected no more.");
  }
  Phases phases{};
  phases.offset = offset;
  phases.arrivals = phases.pending = arrivals;
  phases.maker = actor.thread;
  known_by(actor).phases[barriers_.size()] = 1;
  barriers_.push_back(std::move(phases));
}

void Async::publish(const Actor& actor) {
  for (Phases& barrier : barriers_) barrier.published |= barrier.maker == actor.thread;
}

int Async::index_of(const void* barrier, const Actor& actor) const {
  const std::size_t offset = memory_->offset_of(barrier, barrier_bytes, barrier_bytes, actor);
  for (std::size_t i = 0; i < barriers_.size(); ++i) {
    if (barriers_[i].offset != offset) continue;
    if (known_[static_cast<std::size_t>(actor.thread)].phases[i] > 0) return static_cast<int>(i);
    violate(Rule::no_such_barrier, actor.thread, offset,
            "used as a barrier that another thread made. Put a sync_block between.");
  }
  violate(Rule::no_such_barrier, actor.thread, offset, "used as a barrier, but none was made there. Call init_barrier.");
}

bool Async::complete_if_due(int index) {
  Phases& barrier = barriers_[static_cast<std::size_t>(index)];
  if (barrier.pending > 0 || barrier.bytes > 0) return false;
  ++barrier.complete;
  barrier.pending = barrier.arrivals;
  barrier.incoming.phases[static_cast<std::size_t>(index)] = barrier.complete + 1;
  barrier.known = barrier.incoming;
  return true;
}

bool Async::arrive(const void* at, int bytes, const Actor& actor) {
  const int index = index_of(at, actor);
  Phases& barrier = barriers_[static_cast<std::size_t>(index)];
  if (barrier.pending == 0) {
    violate(Rule::surplus, actor.thread, barrier.offset,
            "arrived at a barrier whose " + number(barrier.arrivals) +
                " arrivals have all come, "
                "while its copies are under way. Wait for the phase before.");
  }
  --barrier.pending;
  barrier.bytes += bytes;
  barrier.incoming.add(known_by(actor));
  return complete_if_due(index);
}

// The bytes were copied before and are known to be there, and every multiplication that reads them is known to be over.
void Async::check_destination(std::size_t offset, std::size_t bytes, const Actor& actor) {
  const Knowledge& known = known_by(actor);
  for (std::size_t i = offset / piece_bytes; i < (offset + bytes) / piece_bytes; ++i) {
    const Piece& piece = pieces_[i];
    if (piece.barrier >= 0 && known.phases[static_cast<std::size_t>(piece.barrier)] < piece.phase) {
      violate(Rule::in_flight, actor.thread, i * piece_bytes,
              "copied over what another copy writes. Wait for that one's barrier first.");
    }
    for (std::size_t warp = 0; warp < piece.readers.size(); ++warp) {
      if (piece.readers[warp] <= known.multiplies[warp]) continue;
      violate(Rule::operands_in_use, actor.thread, i * piece_bytes,
              "copied over what a multiplication of warp " + std::to_string(warp) +
                  " may still read. "
                  "Let the warp wait for it, arrive at a barrier, and wait there.");
    }
  }
  for (const Phases& barrier : barriers_) {
    if (barrier.offset < offset + bytes && offset < barrier.offset + barrier_bytes) {
      violate(Rule::other_proxy, actor.thread, barrier.offset, "copied over a barrier. Copy elsewhere.");
    }
  }
}

void Async::start_copy(void* shared, const void* global, int size, const void* at, const Actor& actor) {
  const auto bytes = static_cast<std::size_t>(size);
  const std::size_t offset = memory_->offset_of(shared, bytes, piece_bytes, actor);
  if (size <= 0 || bytes % piece_bytes != 0 || reinterpret_cast<std::uintptr_t>(global) % piece_bytes != 0) {
    violate(Rule::misaligned, actor.thread, offset,
            "copied to " + number(size) + " bytes, from an address or of a size that is no multiple of 16.");
  }
  const int index = index_of(at, actor);
  Phases& barrier = barriers_[static_cast<std::size_t>(index)];
  if (!barrier.published) {
    violate(Rule::no_such_barrier, actor.thread, barrier.offset,
            "a copy reports to a barrier that copies cannot see. Call publish_barriers.");
  }
  check_destination(offset, bytes, actor);
  memory_->claim(offset, bytes, actor);
  for (std::size_t i = offset / piece_bytes; i < (offset + bytes) / piece_bytes; ++i) {
    pieces_[i] = Piece();
    pieces_[i].barrier = index;
    pieces_[i].phase = barrier.complete + 2;
  }
  barrier.copies.push_back({offset, global, bytes});
}

bool Async::finish_copies(const void* at, const Actor& actor) {
  const int index = index_of(at, actor);
  Phases& barrier = barriers_[static_cast<std::size_t>(index)];
  if (barrier.pending > 0 || barrier.copies.empty()) return false;
  for (const Copy& copy : std::exchange(barrier.copies, {})) {
    std::memcpy(memory_->data() + copy.to, copy.from, copy.bytes);
    for (std::size_t i = copy.to / piece_bytes; i < (copy.to + copy.bytes) / piece_bytes; ++i) pieces_[i].copied = true;
    barrier.bytes -= static_cast<std::int64_t>(copy.bytes);
  }
  if (barrier.bytes < 0) {
    violate(Rule::surplus, actor.thread, barrier.offset,
            "copies bring " + number(-barrier.bytes) + " bytes more than the phase expects.");
  }
  return complete_if_due(index);
}

bool Async::try_wait(const void* at, unsigned parity, const Actor& actor) {
  const Phases& barrier = barriers_[static_cast<std::size_t>(index_of(at, actor))];
  if (barrier.complete % 2 == parity) return false;
  known_by(actor).add(barrier.known);
  return true;
}

void Async::report_deadlock(const void* at, unsigned parity, int thread, const std::string& census) const {
  const std::size_t offset = memory_->offset_of(at, barrier_bytes, barrier_bytes, {thread, false, 0, 0});
  for (const Phases& barrier : barriers_) {
    if (barrier.offset != offset) continue;
    violate(Rule::waits_for_ever, thread, offset,
            "waits for ever for a phase of parity " + std::to_string(parity) + "; " + std::to_string(barrier.complete) +
                " are complete, the next lacks " + number(barrier.pending) + " arrivals and " + number(barrier.bytes) +
                " bytes; " + census + ". Let all arrive and all bytes be copied.");
  }
  violate(Rule::no_such_barrier, thread, offset, "waits for ever, " + census + ".");
}

Knowledge Async::common_knowledge(int first_thread, int count) const {
  Knowledge common = known_[static_cast<std::size_t>(first_thread)];
  for (int i = 1; i < count; ++i) common.keep_common(known_[static_cast<std::size_t>(first_thread + i)]);
  return common;
}

void Async::read(std::size_t offset, int warp, std::uint32_t number, const Knowledge& known, const Actor& actor) {
  Piece& piece = pieces_[offset / piece_bytes];
  if (piece.barrier < 0) {
    violate(Rule::unwritten, actor.thread, offset, "multiplied, but never copied to. Copy first.");
  }
  if (!piece.copied) {
    violate(Rule::in_flight, actor.thread, offset, "multiplied while a copy to it is under way. Wait for the copy's barrier.");
  }
  if (known.phases[static_cast<std::size_t>(piece.barrier)] < piece.phase) {
    violate(Rule::unsynchronised_read, actor.thread, offset,
            "multiplied, but not all lanes have waited for the copy's barrier. Let them.");
  }
  piece.readers[static_cast<std::size_t>(warp)] = number;
}

void Async::learn_multiplies(int thread, std::uint32_t count) {
  known_[static_cast<std::size_t>(thread)].multiplies[static_cast<std::size_t>(thread / 32)] = count;
}

}  // namespace deepsim::cuda::emulation
