/* The pure classes, driven by lines: what tests use to play exact scenarios. */
#pragma once

#include <istream>
#include <ostream>

namespace gate {

/* Reads events, prints decisions. Sizes are MiB, times milliseconds, lists are comma-separated:
 *   set NAME VALUE                                 a field of Settings; before all else
 *   T room DOMAIN AVAILABLE RESERVE TOTAL
 *   T open BUILD [KEY VALUE]...  T change BUILD [KEY VALUE]...     memory, jobs, reserve, weight, paused
 *   T close BUILD
 *   T request UNIT BUILD PEAK TIME BASIS [slots N] [domains 0,1] [curve 16 PERCENTS]
 *   T adopt UNIT BUILD PEAK TIME BASIS RESERVED STARTED [...]
 *   T revise UNIT PEAK TIME BASIS [curve ...]
 *   T sample UNIT USED
 *   T ended UNIT success|failure|us|kernel PEAK    prints the verdict
 *   T gone UNIT
 *   T decide | T next | T views
 * Ends at the first line that isn't understood, and says which: exit status 2. */
int play(std::istream &events, std::ostream &decisions);

/* Reads questions, prints predictions; fields are tab-separated, the first line of the answer to each:
 *   unit|hint|plain ...                            as in predict.hpp
 *   ask SOURCE OBJECT KIND FLAGS                   prints PEAK MILLIS BASIS SAMPLES CURVE
 *   learn SOURCE OBJECT KIND FLAGS PEAK MILLIS CURVE
 *   mask NAME 0|1 */
int foretell(std::istream &questions, std::ostream &answers);

/* How long a decision takes with 500 waiting and 64 running. */
int measure_decisions(std::ostream &);

} // namespace gate
