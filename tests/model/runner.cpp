// runner.cpp: runs models of the engine's concurrent header under Relacy's random scheduler, from a seed, as written or
// with memory orders changed. Here belong the options and the report, not the models.
//
//   models --list
//   models [--model NAME[,NAME...]] [--iterations N] [--seed N] [--mutant TAG=ORDER]... [--history]
//
// Exit status: 0 all passed, 1 a model failed (the rest are not run), 2 wrong options, 3 no model came past a changed
// order.
#include "models.hpp"

#include <cstdio>
#include <cstring>
#include <sstream>
#include <vector>

namespace {
using namespace wsengine::model;

using Simulate = bool (*)(rl::test_params&);
struct Entry {
  const char* name;
  Simulate simulate;
};
const Entry kModels[] = {
    {"ring_1_2", &rl::simulate<RingModel<1, 2>>},     {"ring_2_2", &rl::simulate<RingModel<2, 2>>},
    {"parker_1", &rl::simulate<ParkerModel<1>>},      {"parker_2", &rl::simulate<ParkerModel<2>>},
    {"chain_2", &rl::simulate<ChainModel<2>>},        {"chain_3", &rl::simulate<ChainModel<3>>},
    {"stop", &rl::simulate<StopModel>},               {"slabs", &rl::simulate<SlabModel>},
    {"mailbox", &rl::simulate<MailboxModel>},         {"account_1_2", &rl::simulate<AccountModel<1, 2>>},
    {"account_2_2", &rl::simulate<AccountModel<2, 2>>}, {"admission_1", &rl::simulate<AdmissionModel<1>>},
    {"admission_2", &rl::simulate<AdmissionModel<2>>}, {"lead", &rl::simulate<LeadModel<false>>},
    {"lead_stuck", &rl::simulate<LeadModel<true>>},   {"shut", &rl::simulate<ShutModel>},
    {"outbox", &rl::simulate<OutboxModel>},
};
const char* const kOrders[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};  // rl::memory_order

struct Options {
  std::vector<Entry> models;
  unsigned long long iterations = 10000;
  unsigned long long seed = 1;
  bool history = false;
};

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "models: %s\n", why.c_str());
  std::exit(2);
}

void add_models(Options& options, const std::string& names) {
  std::istringstream list(names);
  for (std::string name; std::getline(list, name, ',');) {
    const std::size_t before = options.models.size();
    for (const Entry& entry : kModels)
      if (name == entry.name) options.models.push_back(entry);
    if (options.models.size() == before) refuse("no model is called '" + name + "'; --list names them");
  }
}

void add_mutant(const std::string& text) {
  const std::size_t equals = text.find('=');
  for (int order = 0; equals != std::string::npos && order < 6; ++order)
    if (text.substr(equals + 1) == kOrders[order])
      return mutant().change(text.substr(0, equals), static_cast<rl::memory_order>(order));
  refuse("--mutant wants TAG=ORDER with an order as in the header, not '" + text + "'");
}

unsigned long long number(const std::string& option, const char* text) {
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (*text == 0 || *end != 0) refuse(option + " wants a number, not '" + text + "'");
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--list") {
      for (const Entry& entry : kModels) std::puts(entry.name);
      std::exit(0);
    }
    if (option == "--history") {
      options.history = true;
      continue;
    }
    if (i + 1 == argc) refuse("'" + option + "' is unknown or lacks its value");
    const char* value = argv[++i];
    if (option == "--model") add_models(options, value);
    else if (option == "--iterations") options.iterations = number(option, value);
    else if (option == "--seed") options.seed = number(option, value);
    else if (option == "--mutant") add_mutant(value);
    else refuse("'" + option + "' is unknown");
  }
  if (options.models.empty()) options.models.assign(std::begin(kModels), std::end(kModels));
  if (options.iterations == 0) refuse("--iterations wants at least 1, not 0");
  return options;
}

// Relacy draws each schedule from its number alone, so a seed is the number to start from; shifted, so that seeds that
// follow each other share no schedules.
bool run(const Entry& model, const Options& options) {
  rl::ostringstream output;  // with Relacy's allocator: it is written to while Relacy counts what `new` gives
  std::ostringstream start;
  const unsigned long long first = ((options.seed & 0xffffffff) << 24) + 1;
  start << first << ' ';
  rl::test_params params;
  params.iteration_count = first + options.iterations - 1;
  params.output_stream = params.progress_stream = &output;
  params.search_type = rl::random_scheduler_type;
  params.execution_depth_limit = 5000;
  params.initial_state = start.str();
  const bool passed = model.simulate(params);
  std::printf("%s: %s after %llu schedules of seed %llu\n", model.name,
              passed ? "passed" : rl::test_result_str(params.test_result),
              static_cast<unsigned long long>(params.stop_iteration - first + 1), options.seed);
  if (!passed && options.history) std::printf("%s\n", output.str().c_str());
  std::fflush(stdout);
  return passed;
}
}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  for (const Entry& model : options.models)
    if (!run(model, options)) return 1;
  if (!mutant().all_reached()) {
    std::puts("no model came past a changed order");
    return 3;
  }
  return 0;
}
