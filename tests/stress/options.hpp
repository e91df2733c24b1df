// options.hpp: the options of the small stress programs, --millis and --seed; wrong ones end the program with status 2.
// Those of ring_stress, which has more, are its own.
#ifndef WSENGINE_TESTS_STRESS_OPTIONS_HPP
#define WSENGINE_TESTS_STRESS_OPTIONS_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

struct Options {
  std::uint64_t millis = 500, seed = 1;

  Options(const char* program, int argc, char** argv) : program_(program) {
    for (int i = 1; i < argc; i += 2) {
      const std::string option = argv[i];
      if (i + 1 == argc) refuse("'" + option + "' lacks its value");
      if (option == "--millis") millis = std::strtoull(argv[i + 1], nullptr, 10);
      else if (option == "--seed") seed = std::strtoull(argv[i + 1], nullptr, 10);
      else refuse("'" + option + "' is unknown");
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    std::fprintf(stderr, "%s: %s\n", program_, why.c_str());
    std::exit(2);
  }
  const char* program_;
};
#endif
