/* SPDX-License-Identifier: Apache-2.0 */
/* command.c - the table of verbs: their words, options and help. */
#include "command.h"

#include <string.h>

const cli_command cli_commands[] = {
    {
        "ls",
        "[PATH...] [--all] [--flat]",
        "list the arrays of a store, sorted by name",
        "A PATH is a store's directory or an array's file; without one, the current\n"
        "directory. Groups are walked. With several PATHs each name begins with its\n"
        "directory.\n"
        "\n"
        "TSV columns: name, dtype, shape, bytes, mtime_us (microseconds since the\n"
        "epoch), and note with --all.\n",
        cli_ls_options,
        0,
        CLI_ANY_WORDS,
        cli_ls,
    },
    {
        "info",
        "[PATH] [--cpu]",
        "show the facts of one array, or of a whole store",
        "An array: dtype, shape, order, rows, sizes, where its data begins. A .npy file\n"
        "that is no array: why. A store: how many arrays, their sizes, and whether\n"
        "absent writers can be proved there. TSV has one key and value per line. A\n"
        "package: for each file its dtype, shape, filter, frames, size, size in the\n"
        "package, and the ratio of both.\n"
        "\n"
        "--cpu shows the instruction sets that a search chooses from: whether this\n"
        "processor can, whether it should (some have one that is slow), and which one\n"
        "is used.\n",
        cli_info_options,
        0,
        1,
        cli_info,
    },
    {
        "get",
        "X [INDEX] [--npy FILE | --raw] [--index]",
        "print rows of an array, or write them to a file",
        "INDEX is Python's: a row (5, -1), a list (0,3,9), a slice (10:20, ::10, ::-1),\n"
        "several of these (0:5,-1), FILE.npy with indices or a bool mask, or - for one\n"
        "per line (or .npy) on standard input. Without INDEX: all rows. A single row\n"
        "outside is an error; a slice is clipped.\n"
        "\n"
        "TSV has one row per line, its elements flattened in C order. JSON is a list of\n"
        "rows, nested as the shape is; NaN, infinities and integers beyond 2^53 are\n"
        "strings, complex numbers [re, im], structures objects. --npy and --raw keep\n"
        "the first dimension: `get X 5` has the shape (1, ...).\n",
        cli_get_options,
        1,
        2,
        cli_get,
    },
    {
        "create",
        "X [--shape SHAPE] [--dtype DTYPE] [--from FILE] [--raw] [--batch ID]",
        "make a new array, of zeros or of given data",
        "X must not exist; missing groups are made. Without --from the array is zeros\n"
        "and takes no space where the filesystem can leave holes. With --from, a .npy\n"
        "file brings its own shape and dtype; raw bytes need both, and their number\n"
        "must fit.\n",
        cli_create_options,
        1,
        1,
        cli_create,
    },
    {
        "append",
        "X ROWS... [--raw] [--batch ID]",
        "add rows to the end of an array",
        "ROWS are .npy files or raw bytes (whole rows); - is standard input. A .npy\n"
        "must have the array's dtype and the array's dimensions behind the first, or be\n"
        "one such row. All are checked before the first is appended, and each one is\n"
        "appended whole or not at all, at any size.\n"
        "\n"
        "Prints, for each of ROWS, the number of its first row and how many there were.\n",
        cli_append_options,
        2,
        CLI_ANY_WORDS,
        cli_append,
    },
    {
        "replace",
        "X INDEX ROWS [--raw] [--batch ID]",
        "overwrite rows of an array",
        "INDEX as for get, ROWS as for append; there must be as many rows as the index\n"
        "means. Where an index names a row twice, the last one wins.\n",
        cli_replace_options,
        3,
        3,
        cli_replace,
    },
    {
        "reshape",
        "X SHAPE",
        "give an array another shape, or fewer or more rows",
        "SHAPE is numbers such as 1000,128; one may be -1. The number of elements\n"
        "stays, or, when only the first dimension differs, rows are cut off or rows of\n"
        "zeros are added. Refused while another program has the array open for writing.\n",
        cli_no_options,
        2,
        2,
        cli_reshape,
    },
    {
        "cast",
        "X DTYPE [--force]",
        "give the values of an array another dtype",
        "DTYPE is bool, int8 to int64, uint8 to uint64, float16 to float64, complex64 or\n"
        "complex128. Values are converted as numpy's astype does it; where that leaves it to\n"
        "the processor, floats beyond an integer type become its least or greatest number,\n"
        "and NaN 0. A new file with the rows that are shown takes the name, so deleted rows\n"
        "are gone then; names of rows come along. Programs that read the old file go on\n"
        "reading it. Refused while a program has the array open or mapped for writing.\n"
        "Durable when it returns.\n",
        cli_cast_options,
        2,
        2,
        cli_cast,
    },
    {
        "mv",
        "A B [--store DIR]",
        "give an array another name in its store",
        "B is NAME.npy, which must not exist, or a directory, in which the name is\n"
        "kept. Missing groups are made.\n",
        cli_mv_options,
        2,
        2,
        cli_mv,
    },
    {
        "drop",
        "X [INDEX] [--batch ID]",
        "delete rows, or without INDEX the array",
        "INDEX as for get. The rows are marked as deleted in an instant, whatever the\n"
        "array's size: they are not shown any more, and stay in the file until compact.\n"
        "Programs that have the array open keep the rows that they see. Rows that are\n"
        "named twice are no error; if one is outside, none is deleted.\n"
        "\n"
        "Without INDEX the array itself is removed.\n",
        cli_drop_options,
        1,
        2,
        cli_drop,
    },
    {
        "restore",
        "X [all|RANGES]",
        "show deleted rows again",
        "RANGES are rows of the file as it is on the disk, deleted ones counted: an index\n"
        "as for get. Without them the deleted rows are listed as such ranges (TSV columns:\n"
        "start, stop). What compact has removed cannot come back.\n",
        cli_no_options,
        1,
        2,
        cli_restore,
    },
    {
        "compact",
        "X... [--force] [--auto PERCENT]",
        "give the space of deleted rows back",
        "An X is an array or the directory of a store, whose arrays with deleted rows are\n"
        "compacted. A new file with the rows that are shown takes the name; programs that\n"
        "read the old one go on reading it. Refused while a program has the array open or\n"
        "mapped for writing. Durable when it returns.\n"
        "\n"
        "TSV columns: name, rows, removed (rows), bytes (given back).\n",
        cli_compact_options,
        1,
        CLI_ANY_WORDS,
        cli_compact,
    },
    {
        "names",
        "X [NAME=LO:HI...]",
        "name ranges of rows, or list the names",
        "A name means the same rows when others are deleted, restored or compacted away. A\n"
        "name that is there is moved; NAME= removes it.\n"
        "\n"
        "TSV columns: name, start, stop.\n",
        cli_no_options,
        1,
        CLI_ANY_WORDS,
        cli_names,
    },
    {
        "clone",
        "A B [--store DIR]",
        "copy the rows that are shown to a new array",
        "B is NAME.npy, which must not exist, or a directory. Where the filesystem can,\n"
        "both share their space until one is changed. Names of rows do not come along. The\n"
        "clone is the array as it was at one moment, whoever writes to it meanwhile.\n",
        cli_mv_options,
        2,
        2,
        cli_clone,
    },
    {
        "summary",
        "X...",
        "count, minimum, maximum, mean and more of the values",
        "In one pass over the rows that are shown. NaNs are counted and left out of the\n"
        "rest; integers are exact but for mean and std (of the population). Complex numbers\n"
        "have no order, so no minimum.\n"
        "\n"
        "TSV has one key and value per line for one X; with several, one line each.\n",
        cli_no_options,
        1,
        CLI_ANY_WORDS,
        cli_summary,
    },
    {
        "batch",
        "begin|commit|abort|list DIR [ID]",
        "change several arrays of a store together",
        "begin prints the ID of a new batch, or takes the one that is given. Verbs with\n"
        "--batch ID then change arrays inside it, in any number of commands: nobody else\n"
        "sees that before commit, which makes all of it durable at once, or nothing.\n"
        "commit fails and changes nothing if an array that the batch read or changed was\n"
        "changed by somebody else meanwhile, or is open for writing. abort forgets it.\n"
        "A batch that was begun here stays until one of the two.\n"
        "\n"
        "TSV columns of list: id, arrays (changed in it), created_us, state (kept; open:\n"
        "a program's; expired: of a program that died; damaged).\n",
        cli_no_options,
        2,
        3,
        cli_batch,
    },
    {
        "check",
        "[PATH] [--repair] [--adopt] [--keep] [--set-aside]",
        "prove every rule of the format on a store or an array",
        "Prints what was found: severity (note, warning, damage), the rule of\n"
        "store/FORMAT.md, path, whether it was repaired, and a sentence. Fails when\n"
        "there is damage that was not repaired. Without a PATH: the current directory.\n"
        "Of a package every checksum is proved and every frame decoded.\n",
        cli_check_options,
        0,
        1,
        cli_check,
    },
    {
        "sync",
        "PATH",
        "make what was written durable",
        "After it returned, all earlier changes of the array or the store survive power\n"
        "loss.\n",
        cli_no_options,
        1,
        1,
        cli_sync,
    },
    {
        "reset",
        "DIR [--yes]",
        "remove every array of a store",
        "Asks on a terminal; elsewhere --yes is needed. Files that are no arrays, and\n"
        "directories that hold some, stay.\n",
        cli_reset_options,
        1,
        1,
        cli_reset,
    },
    {
        "search",
        "X... QUERY [-k K] [-m METRIC] [--rows INDEX] [--exclude INDEX] [--all] [-o FILE]",
        "find the rows of one or several arrays that are nearest to a query",
        "Several arrays are searched as one. x.npy@INDEX stands for some of its rows:\n"
        "INDEX is a name of rows, or as for get (x.npy@0:1000, x.npy@train). For one\n"
        "array --rows means the same, and --exclude leaves rows out (5,7, or FILE.npy of\n"
        "indices or of a mask).\n"
        "\n"
        "QUERY is a .npy file with one query or with one per row, - for such a file on\n"
        "standard input, numbers (0.5,0,1: taken as the array's dtype), or @INDEX for\n"
        "rows of the first array itself (@7, @0:10).\n"
        "\n"
        "METRIC is dot (inner), cosine, l2 (euclidean), l2sq, kl, js, hamming or jaccard\n"
        "(packed bits: uint8), or hamming_elements (elements that differ). dot and cosine\n"
        "begin with the greatest score, the others with the smallest. The search is\n"
        "exact; rows with equal scores come in the order of their numbers, NaN comes\n"
        "last. Where the values of a query are none of the array's dtype both are\n"
        "compared as float64.\n"
        "\n"
        "TSV columns: query (its number, where there are several), array (the same),\n"
        "row, score. -o writes a .npy file of index and score (and, where there are\n"
        "several, the array's number before them), (queries, K) or (K) for one query.\n"
        "With --all it is the scores as float64, (queries, rows) or (rows).\n"
        "NPK_CPU=scalar (neon, sve, avx2, avx512, avx512vnni) in the environment caps\n"
        "the instruction sets that are used; `npk info --cpu` shows them.\n",
        cli_search_options,
        2,
        CLI_ANY_WORDS,
        cli_search,
    },
    {
        "pack",
        "DIR P [--level N] [--frame BYTES] [--raw PATTERN...] [--exclude PATTERN...] [--force] [--threads N]",
        "make a package of a store: one compressed file with random access",
        "P is the new file, or - for standard output. It appears when it is complete.\n"
        "Deleted rows are left out; groups, plain files, modes, times and links come\n"
        "along. The same store gives the same bytes. A PATTERN is that of a shell, for\n"
        "the path in the store or its last part: '*.txt', 'train/*'. A package is read\n"
        "like a store: npk ls P, npk get P/train/x.npy 0:10, npkfs P MOUNTPOINT.\n"
        "\n"
        "Each array is cut into frames of whole rows, the least that is read at once. A\n"
        "store that changes while it is packed is refused.\n",
        cli_pack_options,
        2,
        2,
        cli_pack,
    },
    {
        "unpack",
        "P DIR [NAME...] [--rows EXPR] [--threads N]",
        "make a store of a package",
        "P is a package, or - for standard input. DIR must not exist or be empty; it\n"
        "appears when it is complete. With NAMEs only these arrays, files or groups\n"
        "(as npk ls P shows them).\n",
        cli_unpack_options,
        2,
        CLI_ANY_WORDS,
        cli_unpack,
    },
    {
        "bench",
        "DIR [--size MIB] [--repeats N] [--search]",
        "compare a store with plain file calls on the same disk",
        "Works on scratch files in DIR, which are removed. Each line is a time of the\n"
        "store, the time of plain calls that do the same to a plain file, and their\n"
        "ratio (below 1: the store is faster), as medians of interleaved repeats.\n"
        "\n"
        "--search: the ten nearest of the rows to 1, 10 and 100 queries, against\n"
        "reading the same bytes of a mapped file with as many threads.\n",
        cli_bench_options,
        1,
        1,
        cli_bench,
    },
    {
        "help",
        "[VERB] [--table]",
        "show this help, or that of a verb",
        "--table prints each verb and its options on a line, for completion in shells.\n",
        cli_help_options,
        0,
        1,
        cli_help,
    },
    {NULL, NULL, NULL, NULL, NULL, 0, 0, NULL},
};

const cli_command *cli_command_find(const char *name)
{
    for (const cli_command *c = cli_commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}
