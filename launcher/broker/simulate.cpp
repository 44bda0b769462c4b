/* spark-build-simulate: the gate without a machine.
 *
 *   spark-build-simulate --trace             events on stdin, decisions on stdout (trace.hpp)
 *   spark-build-simulate --predict           questions on stdin, predictions on stdout (trace.hpp)
 *   spark-build-simulate --decisions         how long a decision takes
 *   spark-build-simulate UNITS.csv [OPTION VALUE]...
 *       a whole build of the units (name,cpu_s,peak_mib,kind; first line is a heading) in seconds instead of hours
 *       --cores N --ceiling GIB --reserve GIB --jobs N|cores|worst|8gib (static -j) --cap 0|1 --hold 0|1 --curve 0|1
 *       --known SHARE --noise-peak S --noise-time S --normal 0|1 --model GIB --model-at S --model-over S --window N --seed N
 *       --overcommit F --bypasses N --patience MS
 *   prints one line of JSON */
#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

#include "trace.hpp"
#include "world.hpp"

namespace {

constexpr double gib = 1073741824.0;

std::vector<gate::Work> read_units(const std::string &path) {
    std::ifstream in(path);
    std::vector<gate::Work> units;
    std::string text;
    std::getline(in, text);
    while (std::getline(in, text)) {
        std::istringstream line(text);
        std::string name, seconds, peak, kind;
        std::getline(line, name, ',');
        std::getline(line, seconds, ',');
        std::getline(line, peak, ',');
        std::getline(line, kind, ',');
        units.push_back({name, kind, std::stod(seconds), static_cast<gate::Bytes>(std::stod(peak) * 1048576.0)});
    }
    return units;
}

class Options {
  public:
    Options(int argc, char **argv) {
        for (int i = 2; i + 1 < argc; i += 2)
            given[argv[i]] = argv[i + 1];
    }
    std::string text(const std::string &name, const std::string &fallback) const {
        const auto found = given.find(name);
        return found == given.end() ? fallback : found->second;
    }
    double number(const std::string &name, double fallback) const {
        const auto found = given.find(name);
        return found == given.end() ? fallback : std::stod(found->second);
    }

  private:
    std::map<std::string, std::string> given;
};

int static_jobs(const std::string &rule, const std::vector<gate::Work> &units, const gate::Scenario &scenario) {
    if (rule == "cores")
        return scenario.cores;
    gate::Bytes each = static_cast<gate::Bytes>(8 * gib);
    if (rule == "worst")
        each = std::max_element(units.begin(), units.end(), [](const gate::Work &one, const gate::Work &other) {
                   return one.peak < other.peak;
               })->peak;
    else if (rule != "8gib")
        return std::stoi(rule);
    return std::clamp(static_cast<int>(scenario.ceiling / each), 1, scenario.cores);
}

gate::Scenario read_scenario(const Options &options, const std::vector<gate::Work> &units) {
    gate::Scenario scenario;
    scenario.cores = static_cast<int>(options.number("--cores", 20));
    scenario.ceiling = static_cast<gate::Bytes>(options.number("--ceiling", 60) * gib);
    scenario.reserve = static_cast<gate::Bytes>(options.number("--reserve", 6) * gib);
    scenario.cap = options.number("--cap", 1) > 0;
    scenario.hold = options.number("--hold", 0) > 0;
    scenario.curve = options.number("--curve", 0) > 0;
    scenario.known = options.number("--known", 1);
    scenario.noise_peak = options.number("--noise-peak", 0);
    scenario.noise_time = options.number("--noise-time", 0);
    scenario.normal = options.number("--normal", 0) > 0;
    scenario.model = static_cast<gate::Bytes>(options.number("--model", 0) * gib);
    scenario.model_at = options.number("--model-at", 0);
    scenario.model_over = options.number("--model-over", 40);
    scenario.window = static_cast<int>(options.number("--window", 0));
    scenario.seed = static_cast<unsigned>(options.number("--seed", 1));
    scenario.settings.overcommit = options.number("--overcommit", scenario.settings.overcommit);
    scenario.settings.bypasses = static_cast<int>(options.number("--bypasses", scenario.settings.bypasses));
    scenario.settings.patience =
        static_cast<gate::Millis>(options.number("--patience", static_cast<double>(scenario.settings.patience)));
    const std::string rule = options.text("--jobs", "");
    scenario.jobs = rule.empty() ? 0 : static_jobs(rule, units, scenario);
    return scenario;
}

void print(const gate::Outcome &outcome, const gate::Scenario &scenario) {
    std::cout << "{\"makespan_s\": " << outcome.makespan << ", \"bound_s\": " << outcome.bound
              << ", \"ratio\": " << outcome.makespan / outcome.bound
              << ", \"most_gib\": " << static_cast<double>(outcome.most) / gib
              << ", \"over_gib\": " << static_cast<double>(outcome.over) / gib << ", \"wasted_s\": " << outcome.wasted
              << ", \"kills\": " << outcome.kills << ", \"kernel_kills\": " << outcome.kernel_kills
              << ", \"jobs\": " << scenario.jobs << ", \"died\": " << (outcome.died ? "true" : "false")
              << ", \"failed\": " << (outcome.failed ? "true" : "false") << "}\n";
}

} // namespace

int main(int argc, char **argv) {
    const std::string first = argc > 1 ? argv[1] : "";
    if (first == "--trace")
        return gate::play(std::cin, std::cout);
    if (first == "--predict")
        return gate::foretell(std::cin, std::cout);
    if (first == "--decisions")
        return gate::measure_decisions(std::cout);
    const std::vector<gate::Work> units = read_units(first);
    if (units.empty()) {
        std::cerr << "spark-build-simulate: no units in '" << first << "'; see the head of simulate.cpp\n";
        return 2;
    }
    const Options options(argc, argv);
    const gate::Scenario scenario = read_scenario(options, units);
    print(gate::run(units, scenario), scenario);
    return 0;
}
