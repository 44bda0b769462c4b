/* A compiler that takes memory and time on cue: `g++ -c SOURCE -o OBJECT`, other options are passed over.
 *
 * The first line of SOURCE is `// fake MIB SECONDS`. Its memory grows to MIB over 70 % of SECONDS, every page of it touched,
 * and stays there; then OBJECT is written. It sleeps meanwhile, so that many of them run on few cores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const double ramp = 0.7;
static const size_t page = 4096, mib = 1 << 20;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&t, NULL);
}

static void grow(double wanted_mib, double seconds)
{
    const double start = now();
    const size_t size = (size_t)(wanted_mib * (double)mib);
    char *room = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        exit(fail("mmap"));
    size_t touched = 0;
    for (double part; (part = (now() - start) / seconds) < 1;) {
        const size_t goal = part >= ramp ? size : (size_t)((double)size * part / ramp);
        for (; touched < goal; touched += page)
            room[touched] = 1;
        nap();
    }
}

int main(int argc, char **argv)
{
    const char *source = NULL, *object = NULL;
    for (int at = 1; at < argc; at++)
        if (!strcmp(argv[at], "-o") && at + 1 < argc)
            object = argv[++at];
        else if (argv[at][0] != '-')
            source = argv[at];
    if (!source || !object) {
        fputs("usage: fake -c SOURCE -o OBJECT\n", stderr);
        return 2;
    }
    double wanted = 0, seconds = 0;
    FILE *in = fopen(source, "re");
    if (!in)
        return fail(source);
    const int got = fscanf(in, "// fake %lf %lf", &wanted, &seconds);
    fclose(in);
    if (got != 2 || wanted <= 0 || seconds <= 0) {
        fprintf(stderr, "%s:1:1: error: no figures\n", source);
        return 1;
    }
    grow(wanted, seconds);
    FILE *out = fopen(object, "we");
    if (!out || fprintf(out, "object of %s\n", source) < 0 || fclose(out) != 0)
        return fail(object);
    return 0;
}
