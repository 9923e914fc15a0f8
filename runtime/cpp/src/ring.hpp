// Where the last frames of a stream lie, so that a window is always contiguous.
#pragma once

namespace salstream {

// Places the last `capacity` frames. Each is written twice, `capacity` slots apart, in a buffer
// of twice the capacity: whatever frame is the oldest, the window starts there and does not
// wrap. The buffer is its owner's, in whatever memory a backend wants it.
class FrameRing {
  public:
    explicit FrameRing(int capacity) : capacity_(capacity) {}

    // Make room for the next frame: it belongs in slot(0) and in slot(0) - capacity.
    void advance() { newest_ = newest_ + 1 == capacity_ ? 0 : newest_ + 1; }

    // Slot of the frame that came `age` frames before the newest one (0: itself).
    int slot(int age) const { return newest_ + capacity_ - age; }

    // Slot where the whole window starts, 1 to capacity; the newest frame is its last.
    int window() const { return newest_ + 1; }

    void clear() { newest_ = -1; }

  private:
    int capacity_, newest_ = -1;
};

}  // namespace salstream
