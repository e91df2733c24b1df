// poller.hpp: readiness of descriptors, by epoll on Linux and by poll elsewhere. No policy, no reading, no writing.
// Level-triggered in both. Only the thread that has the lead (lead.hpp) calls anything.
#ifndef WSENGINE_POLLER_HPP
#define WSENGINE_POLLER_HPP

#include <cerrno>
#include <cstdint>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#else
#include <poll.h>
#include <vector>
#endif

namespace wsengine {

struct Readiness {
  void* key;
  bool readable, writable, broken;
};

class Poller {
 public:
  static constexpr int kMost = 64;  // events a wait

#ifdef __linux__
  Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~Poller() { shut(); }
  void shut() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool valid() const { return fd_ >= 0; }
  bool add(int fd, void* key, bool read, bool write) { return control(EPOLL_CTL_ADD, fd, key, read, write); }
  bool modify(int fd, void* key, bool read, bool write) { return control(EPOLL_CTL_MOD, fd, key, read, write); }
  void remove(int fd) { epoll_ctl(fd_, EPOLL_CTL_DEL, fd, nullptr); }
  int wait(Readiness* out, int timeout_ms) {
    epoll_event events[kMost];
    int n = epoll_wait(fd_, events, kMost, timeout_ms);
    for (int i = 0; i < n; ++i) {
      std::uint32_t e = events[i].events;
      out[i] = {events[i].data.ptr, (e & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0, (e & EPOLLOUT) != 0,
                (e & (EPOLLERR | EPOLLHUP)) != 0};
    }
    return n < 0 ? 0 : n;
  }

 private:
  bool control(int what, int fd, void* key, bool read, bool write) {
    epoll_event event{};
    event.events = (read ? std::uint32_t{EPOLLIN} : 0u) | (write ? std::uint32_t{EPOLLOUT} : 0u);
    event.data.ptr = key;
    return epoll_ctl(fd_, what, fd, &event) == 0;
  }
  int fd_;
#else
  void shut() {}
  bool valid() const { return true; }
  bool add(int fd, void* key, bool read, bool write) {
    fds_.push_back({fd, events(read, write), 0});
    keys_.push_back(key);
    return true;
  }
  bool modify(int fd, void* key, bool read, bool write) {
    for (std::size_t i = 0; i < fds_.size(); ++i)
      if (fds_[i].fd == fd) {
        fds_[i].events = events(read, write);
        keys_[i] = key;
        return true;
      }
    return false;
  }
  void remove(int fd) {
    for (std::size_t i = 0; i < fds_.size(); ++i)
      if (fds_[i].fd == fd) {
        fds_.erase(fds_.begin() + i);
        keys_.erase(keys_.begin() + i);
        return;
      }
  }
  int wait(Readiness* out, int timeout_ms) {
    int n = 0, ready = ::poll(fds_.data(), fds_.size(), timeout_ms);
    for (std::size_t i = 0; ready > 0 && i < fds_.size() && n < kMost; ++i) {
      short e = fds_[i].revents;
      if (e) out[n++] = {keys_[i], (e & (POLLIN | POLLHUP | POLLERR)) != 0, (e & POLLOUT) != 0,
                         (e & (POLLERR | POLLHUP)) != 0};
    }
    return n;
  }

 private:
  static short events(bool read, bool write) { return static_cast<short>((read ? POLLIN : 0) | (write ? POLLOUT : 0)); }
  std::vector<pollfd> fds_;
  std::vector<void*> keys_;
#endif
};

}  // namespace wsengine
#endif
