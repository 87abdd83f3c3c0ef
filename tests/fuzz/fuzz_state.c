/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the state's file of an array: refused with a reason, or a state that is printed and read the same. */
#include "fuzz.h"

#include <string.h>

#include "state.h"

static bool same_state(const npk_state *a, const npk_state *b)
{
    if (a->generation != b->generation || a->epoch != b->epoch || a->id.inode != b->id.inode ||
        a->id.birth_ns != b->id.birth_ns || a->size != b->size || a->mtime_ns != b->mtime_ns || a->rows != b->rows ||
        a->row_bytes != b->row_bytes || a->data_offset != b->data_offset || a->stride != b->stride ||
        a->strict != b->strict || strcmp(a->dtype, b->dtype) != 0 || a->block_count != b->block_count ||
        a->name_count != b->name_count)
        return false;
    for (size_t i = 0; i < a->name_count; i++)
        if (strcmp(a->names[i].name, b->names[i].name) != 0 || a->names[i].start != b->names[i].start ||
            a->names[i].stop != b->names[i].stop)
            return false;
    return a->block_count == 0 || memcmp(a->blocks, b->blocks, a->block_count * sizeof(*a->blocks)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    npk_states s = {.count = 0}, again = {.count = 0};
    char why[128] = "", *text;
    int err = npk__states_parse((const char *)data, size, &s, why);
    if (err) {
        MUST(why[0] != '\0' && s.count == 0);
        return 0;
    }
    MUST(s.count == 1 || s.count == 2);
    MUST(s.leaf[0] != '\0' && !strchr(s.leaf, '/') && s.policy <= 100);
    for (unsigned i = 0; i < s.count; i++) {
        MUST(s.state[i].block_count <= NPK__BLOCKS && s.state[i].name_count <= NPK__STATE_NAMES);
        for (size_t n = 0; n < s.state[i].name_count; n++)
            MUST(s.state[i].names[n].start <= s.state[i].names[n].stop && s.state[i].names[n].name[0]);
    }
    MUST(npk__states_print(&s, &text) == 0);
    MUST(npk__states_parse(text, strlen(text), &again, why) == 0);
    MUST(again.count == s.count && again.policy == s.policy && strcmp(again.leaf, s.leaf) == 0);
    for (unsigned i = 0; i < s.count; i++)
        MUST(same_state(&s.state[i], &again.state[i]));
    free(text);
    npk__states_clear(&s);
    npk__states_clear(&again);
    return 0;
}
