#include "options.h"

#include <string.h>

#include "words.h"

/* What takes its value from the next word. For GCC and clang: options.html of the GCC manual, and `clang --help-hidden`. */
static const char *const gcc_separate[] = {
    "-o", "-I", "-D", "-U", "-L", "-l", "-x", "-u", "-T", "-e", "-z", "-A", "-B", "-G", "-MF", "-MT", "-MQ", "-include",
    "-imacros", "-iprefix", "-isystem", "-iquote", "-idirafter", "-isysroot", "-imultilib", "-imultiarch", "-iwithprefix",
    "-iwithprefixbefore", "-iframework", "-framework", "-include-pch", "-Xlinker", "-Xassembler", "-Xpreprocessor", "-Xclang",
    "-Xcuda-ptxas", "-Xcuda-fatbinary", "-Xarch_host", "-Xarch_device", "-Xopenmp-target", "-Xoffload-linker", "-arch", "-target", "--target", "-mllvm", "-aux-info", "-dumpbase", "-dumpbase-ext",
    "-dumpdir", "-wrapper", "--param", "-param", "--sysroot", "-gcc-toolchain", "-specs", "--specs", "-iplugindir",
    "--output", "--define-macro", "--undefine-macro", "--include-directory", "-rpath", "-soname", "-h", "-ivfsoverlay", NULL,
};

/* What may have its value in the same word. */
static const char *const gcc_joined[] = {
    "-isystem", "-iquote", "-idirafter", "-isysroot", "-MF", "-MT", "-MQ", "-o", "-I", "-D", "-U", "-L", "-l", "-x", "-B", NULL,
};

/* Begin like one of those, and are none. */
static const char *const gcc_others[] = {"-objc", "-openmp", "-undef", "-lto", NULL};

/* Pairs of names, `nvcc --help` of 13.0: "--long" and "-short" are spelt with just these dashes. */
static const char *const nvcc_values[][2] = {
    {"output-file", "o"}, {"pre-include", "include"}, {"library", "l"}, {"define-macro", "D"}, {"undefine-macro", "U"},
    {"include-path", "I"}, {"system-include", "isystem"}, {"library-path", "L"}, {"output-directory", "odir"},
    {"dependency-output", "MF"}, {"dependency-target-name", "MT"}, {"compiler-bindir", "ccbin"}, {"archiver-binary", "arbin"},
    {"cudart", "cudart"}, {"cudadevrt", "cudadevrt"}, {"libdevice-directory", "ldir"}, {"target-directory", "target-dir"},
    {"optimization-info", "opt-info"}, {"optimize", "O"}, {"Ofast-compile", "Ofc"}, {"dopt", "dopt"},
    {"ftemplate-backtrace-limit", "ftemplate-backtrace-limit"}, {"ftemplate-depth", "ftemplate-depth"}, {"x", "x"},
    {"std", "std"}, {"machine", "m"}, {"compiler-options", "Xcompiler"}, {"linker-options", "Xlinker"},
    {"archive-options", "Xarchive"}, {"ptxas-options", "Xptxas"}, {"nvlink-options", "Xnvlink"}, {"fatbin-options", "Xfatbin"},
    {"static-global-template-stub", "static-global-template-stub"},
    {"device-entity-has-hidden-visibility", "device-entity-has-hidden-visibility"}, {"threads", "t"},
    {"split-compile", "split-compile"}, {"split-compile-extended", "split-compile-extended"},
    {"fdevice-time-trace", "fdevice-time-trace"}, {"keep-dir", "keep-dir"}, {"time", "time"}, {"run-args", "run-args"},
    {"input-drive-prefix", "idp"}, {"dependency-drive-prefix", "ddp"}, {"drive-prefix", "dp"}, {"gpu-architecture", "arch"},
    {"gpu-code", "code"}, {"generate-code", "gencode"}, {"relocatable-device-code", "rdc"}, {"entries", "e"},
    {"maxrregcount", "maxrregcount"}, {"ftz", "ftz"}, {"prec-div", "prec-div"}, {"prec-sqrt", "prec-sqrt"}, {"fmad", "fmad"},
    {"default-stream", "default-stream"}, {"Werror", "Werror"}, {"diag-error", "diag-error"}, {"diag-suppress", "diag-suppress"},
    {"diag-warn", "diag-warn"}, {"host-linker-script", "hls"}, {"brief-diagnostics", "brief-diag"},
    {"jump-table-density", "jtd"}, {"device-stack-protector", "device-stack-protector"}, {"compress-mode", "compress-mode"},
    {"frandom-seed", "frandom-seed"}, {"sanitize", "sanitize"}, {"options-file", "optf"},
};

/* Begin like a short option with its value joined to it, and are options of their own. */
static const char *const nvcc_others[] = {
    "-lib", "-link", "-lto", "-ltoir", "-lineinfo", "-time", "-target-dir", "-ldir", "-maxrregcount", "-Ofc", NULL,
};

static const char *const rustc_values[] = {
    "-o", "-L", "-l", "-C", "-A", "-W", "-D", "-F", "-Z", "--cfg", "--check-cfg", "--crate-name", "--crate-type", "--edition",
    "--emit", "--print", "--out-dir", "--explain", "--target", "--allow", "--warn", "--force-warn", "--deny", "--forbid",
    "--cap-lints", "--codegen", "--extern", "--sysroot", "--error-format", "--json", "--color", "--diagnostic-width",
    "--remap-path-prefix", "--env-set", NULL,
};

static const char *const linker_values[] = {
    "-o", "-L", "-l", "-m", "-T", "-e", "-h", "-u", "-z", "-y", "-Y", "-F", "-f", "-G", "-I", "-R", "-a", "-A", "-b", "-c",
    "-soname", "--soname", "-rpath", "--rpath", "-rpath-link", "--rpath-link", "-plugin", "--plugin", "-plugin-opt",
    "--plugin-opt", "-dynamic-linker", "--dynamic-linker", "-Map", "--Map", "--version-script", "--dynamic-list", "--output",
    "-Ttext", "-Tdata", "-Tbss", "--defsym", "--wrap", "--entry", "--script", "--undefined", "--exclude-libs", "-init", "-fini",
    NULL,
};

static bool listed(const char *const *list, const char *word)
{
    for (; *list; list++)
        if (same(*list, word))
            return true;
    return false;
}

/* The part of a program's name that says what it is: without folder, triplet and version. */
static void kernel_of(const char *program, char *out, size_t size)
{
    const char *slash = strrchr(program, '/');
    (void)strncpy(out, slash ? slash + 1 : program, size - 1);
    out[size - 1] = 0;
    char *dash = strrchr(out, '-');
    if (dash && dash[1] && strspn(dash + 1, "0123456789.") == strlen(dash + 1))
        *dash = 0;
    dash = strrchr(out, '-');
    if (dash)
        memmove(out, dash + 1, strlen(dash));
}

enum family family_of(const char *program)
{
    static const char *const gcc[] = {"gcc", "g++", "cc", "c++", "c99", "c89", "clang", "clang++", "gfortran", NULL};
    static const char *const linkers[] = {"ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold", "lld", "mold", "gold", NULL};
    char name[64];
    kernel_of(program, name, sizeof name);
    if (listed(gcc, name))
        return GCC;
    if (listed(linkers, name))
        return LINKER;
    if (same(name, "nvcc"))
        return NVCC;
    if (same(name, "rustc"))
        return RUSTC;
    return same(name, "ccache") || same(name, "sccache") ? CACHE : UNKNOWN;
}

static void set_name(struct option *option, const char *from, size_t length)
{
    if (length >= sizeof option->name)
        length = sizeof option->name - 1;
    memcpy(option->name, from, length);
    option->name[length] = 0;
}

static void take_next(struct option *option, char *const *at)
{
    if (!at[1])
        return;
    option->value = at[1];
    option->separate = true;
    option->words = 2;
}

/* A long option as "--name=value", or a flag. */
static void take_flag(struct option *option, const char *word)
{
    const char *equals = strchr(word, '=');
    set_name(option, word, equals ? (size_t)(equals - word) : strlen(word));
    option->value = equals ? equals + 1 : NULL;
}

static void read_gcc(struct option *option, char *const *at)
{
    if (listed(gcc_separate, at[0])) {
        set_name(option, at[0], strlen(at[0]));
        take_next(option, at);
        return;
    }
    for (const char *const *other = gcc_others; *other; other++)
        if (begins(at[0], *other)) {
            take_flag(option, at[0]);
            return;
        }
    for (const char *const *start = gcc_joined; *start; start++)
        if (begins(at[0], *start)) {
            set_name(option, *start, strlen(*start));
            option->value = at[0] + strlen(*start);
            return;
        }
    take_flag(option, at[0]);
}

static bool nvcc_takes_value(const char *name)
{
    bool is_long = begins(name, "--");
    for (size_t i = 0; i < sizeof nvcc_values / sizeof *nvcc_values; i++)
        if (same(nvcc_values[i][is_long ? 0 : 1], name + (is_long ? 2 : 1)))
            return true;
    return false;
}

static void read_nvcc(struct option *option, char *const *at)
{
    const char *word = at[0];
    take_flag(option, word);
    if (nvcc_takes_value(option->name)) {
        if (!option->value)
            take_next(option, at);
        return;
    }
    if (!strchr("DILUltO", word[1]) || listed(nvcc_others, option->name))
        return;
    set_name(option, word, 2);
    option->value = word + 2;
}

static void read_plain(struct option *option, char *const *at, const char *const *values)
{
    take_flag(option, at[0]);
    if (listed(values, option->name) && !option->value)
        take_next(option, at);
    else if (at[0][1] != '-' && at[0][1] && at[0][2] && strchr("LlCAWDFZ", at[0][1]) && values == rustc_values) {
        set_name(option, at[0], 2);
        option->value = at[0] + 2;
    }
}

struct option read_option(enum family family, char *const *at)
{
    struct option option = {.words = 1};
    if (at[0][0] != '-' || !at[0][1]) {
        option.input = true;
        option.value = at[0];
    } else if (family == NVCC)
        read_nvcc(&option, at);
    else if (family == RUSTC)
        read_plain(&option, at, rustc_values);
    else if (family == LINKER)
        read_plain(&option, at, linker_values);
    else
        read_gcc(&option, at);
    return option;
}

bool named(const struct option *option, const char *long_name, const char *short_name)
{
    if (option->input)
        return false;
    if (begins(option->name, "--"))
        return long_name && same(option->name + 2, long_name);
    return short_name && same(option->name + 1, short_name);
}
