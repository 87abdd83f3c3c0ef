/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unit.h - checks for the unit tests: one program a file, one function a test.
 *
 *     static void test_adds(void) { CHECK_EQ(add(1, 2), 3); }
 *     int main(void) { RUN(test_adds); return UNIT_RESULT(); }
 *
 * A failed check prints its place, its text and both values, and the test goes on: all failures of a run are seen.
 * A test that made no check fails, so that one whose loop never ran is not taken for a good one.
 */
#ifndef UNIT_H
#define UNIT_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static unsigned long unit_checks, unit_failures;
static char unit_note_text[256];

/* What the next checks are about: printed with their failures. Cleared when a test begins. */
static inline void __attribute__((format(printf, 1, 2))) unit_note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(unit_note_text, sizeof(unit_note_text), fmt, args);
    va_end(args);
}

static inline void __attribute__((format(printf, 3, 4))) unit_failed(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    /* A loop gone wrong fails thousands of times; the first ones tell all there is. */
    if (++unit_failures > 50)
        return;
    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, unit_note_text[0] != '\0' ? "  [%s]\n" : "%s\n", unit_note_text);
}

static inline bool unit_eq(const char *file, int line, const char *left, const char *right, intmax_t a, intmax_t b)
{
    unit_checks++;
    if (a != b)
        unit_failed(file, line, "%s is %" PRIdMAX ", not %s, %" PRIdMAX, left, a, right, b);
    return a == b;
}

static inline bool unit_str(const char *file, int line, const char *left, const char *a, const char *b)
{
    bool same = a != NULL && b != NULL && strcmp(a, b) == 0;
    unit_checks++;
    if (!same)
        unit_failed(file, line, "%s is \"%s\", not \"%s\"", left, a != NULL ? a : "(null)", b != NULL ? b : "(null)");
    return same;
}

static inline bool unit_has(const char *file, int line, const char *left, const char *a, const char *part)
{
    bool has = a != NULL && strstr(a, part) != NULL;
    unit_checks++;
    if (!has)
        unit_failed(file, line, "%s is \"%s\", without \"%s\"", left, a != NULL ? a : "(null)", part);
    return has;
}

static inline bool unit_true(const char *file, int line, const char *text, bool value)
{
    unit_checks++;
    if (!value)
        unit_failed(file, line, "not true: %s", text);
    return value;
}

/* Each is true when the check holds, for `if (!CHECK(p != NULL)) return;`. */
#define CHECK(condition)      unit_true(__FILE__, __LINE__, #condition, (condition))
#define CHECK_EQ(a, b)        unit_eq(__FILE__, __LINE__, #a, #b, (intmax_t)(a), (intmax_t)(b))
#define CHECK_STR(a, b)       unit_str(__FILE__, __LINE__, #a, (a), (b))
#define CHECK_HAS(text, part) unit_has(__FILE__, __LINE__, #text, (text), (part))

#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        unsigned long unit_before = unit_checks, unit_bad = unit_failures;                                             \
        unit_note_text[0] = '\0';                                                                                      \
        test();                                                                                                        \
        if (unit_checks == unit_before) {                                                                              \
            unit_note_text[0] = '\0';                                                                                  \
            unit_failed(__FILE__, __LINE__, "%s made no check", #test);                                                \
        }                                                                                                              \
        printf("%s %s (%lu checks)\n", unit_failures == unit_bad ? "ok  " : "FAIL", #test, unit_checks - unit_before); \
        fflush(stdout);                                                                                                \
    } while (0)

/* The exit status of the program. One that ran no test fails. */
#define UNIT_RESULT()                                                                                                  \
    (printf("%lu checks, %lu failures\n", unit_checks, unit_failures), unit_failures > 0 || unit_checks == 0 ? 1 : 0)

#endif
