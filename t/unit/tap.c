/* tap.h itself: what is false is counted as a failure. */
#include "tap.h"

int main(void)
{
    bool passed;

    ok(1 + 1 == 2);
    is_int(6 * 7, 42, "with a %s", "name");
    is_str("a", "a");
    is_mem("ab", "ax", 1);

    /* A failing one, with its output sent away, must count and must not count as passed.
     */
    fflush(stdout);
    FILE *out = stdout, *err = stderr;
    stdout = stderr = fopen("/dev/null", "w");
    passed = is_int(1, 2);
    fclose(stdout);
    stdout = out;
    stderr = err;
    tap_run_n--;
    ok(!passed && tap_failed_n == 1, "a failure is counted");
    tap_failed_n--;
    return done_testing();
}
