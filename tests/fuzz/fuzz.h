/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is LLVMFuzzerTestOneInput() in a file fuzz_X.c that includes this header. With libFuzzer it is driven by new
 * inputs; compiled with -DFUZZ_REPLAY it is a program that runs it on every file of the directories (or the files) it
 * is given, for any compiler: that is how ctest replays the saved corpus.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#ifdef FUZZ_REPLAY
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static const char *fuzz_current; /* the input that runs, named when it aborts */

static int fuzz_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (f == NULL || fstat(fileno(f), &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        if (f != NULL)
            fclose(f);
        return -1;
    }
    /* The exact size, so that a sanitizer sees a read beyond the input. */
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    size_t got = data != NULL ? fread(data, 1, size, f) : 0;
    fclose(f);
    fuzz_current = path;
    if (data != NULL && got == size)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return got == size ? 1 : -1;
}

/* The number of inputs run from a file or a directory, or -1. */
static long fuzz_path(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return fuzz_file(path);
    long count = 0;
    struct dirent *entry;
    while (count >= 0 && (entry = readdir(dir)) != NULL) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        int ran = fuzz_file(name);
        count = ran < 0 ? -1 : count + ran;
    }
    closedir(dir);
    return count;
}

static void fuzz_on_abort(int signal_number)
{
    (void)signal_number;
    fprintf(stderr, "the input was %s\n", fuzz_current != NULL ? fuzz_current : "none");
}

int main(int argc, char **argv)
{
    long total = 0;
    (void)signal(SIGABRT, fuzz_on_abort);
    for (int i = 1; i < argc; i++) {
        long ran = fuzz_path(argv[i]);
        if (ran < 0)
            return 1;
        total += ran;
    }
    printf("%ld inputs\n", total);
    /* Without an input nothing is proved. */
    return total > 0 ? 0 : 1;
}
#endif
#endif
