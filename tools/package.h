/* SPDX-License-Identifier: Apache-2.0 */
/* package.h - what the verbs show of a package as a whole. */
#ifndef TOOLS_PACKAGE_H
#define TOOLS_PACKAGE_H

#include "command.h"
#include "npk.h"

/* Does the file begin as a package does? */
bool cli_is_package(const char *path);
/* `npk info P`: a line for each file. */
int cli_package_info(const cli_args *args, npk_package *p);

#endif
